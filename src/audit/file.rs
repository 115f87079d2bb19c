//! The files of a trail: opening the present one, so that only its owner can read it and one process writes it;
//! appending to it; and going on in another file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Uid, getegid, geteuid};

use super::chain::{Head, LONGEST_LINE, LineHash, ReadLine};
use super::fault::{TrailFault, What, folder};

/// The file that is written, open and locked.
#[derive(Debug)]
pub(super) struct TrailFile {
    path: PathBuf,
    file: File,
    /// Up to the end of the last line that is known to be on the disk.
    length: u64,
    /// The number of its first line; none before there is one.
    first: Option<u64>,
}

/// Where a trail goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The last line.
    pub(super) head: Head,
    /// What is behind it and no line.
    pub(super) rest: Option<Rest>,
}

/// Bytes that are no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) bytes: u64,
    pub(super) hash: LineHash,
    /// Whether the last of them ends a line.
    pub(super) ends_line: bool,
}

impl TrailFile {
    /// Opens the file, or creates it, and finds where the trail goes on, be it in a file that was rotated. The file
    /// belongs to the user and group `owner`, if the process is to become another.
    ///
    /// # Errors
    /// If it cannot be opened or created, if others can read it or it is another user's, if another process
    /// writes it, or if it is no trail.
    pub(super) fn open(
        path: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<(Self, Place), TrailFault> {
        check_folder(path, owner)?;
        let file = match append().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = append().create_new(true).mode(MODE).open(path);
                let file = file.map_err(TrailFault::io(path, What::Create))?;
                if let Some((user, group)) = owner {
                    let given = fchown(&file, Some(user), Some(group));
                    given.map_err(TrailFault::io(path, What::Create))?;
                }
                file
            }
            opened => opened.map_err(TrailFault::io(path, What::Open))?,
        };
        check(path, &file, owner)?;
        lock(path, &file)?;
        sync_folder(path).map_err(TrailFault::io(path, What::Create))?;
        let length = length_of(path, &file)?;
        let (place, first) = match length {
            0 => (predecessor(path)?.unwrap_or(Place::START), None),
            _ => match tail(path, &file, length)? {
                Found::Line(place) => (place, first_line(path)),
                Found::Torn(rest) => {
                    let before = predecessor(path)?.unwrap_or(Place::START);
                    let rest = Some(rest);
                    (Place { rest, ..before }, None)
                }
            },
        };
        let path = path.to_owned();
        let opened = Self {
            path,
            file,
            length,
            first,
        };
        Ok((opened, place))
    }

    /// Says in a few words what there is, and changes nothing.
    ///
    /// # Errors
    /// What [`open`](Self::open) would fail with, as far as that can be seen.
    pub(super) fn look(path: &Path, owner: Option<(u32, u32)>) -> Result<String, TrailFault> {
        check_folder(path, owner)?;
        let shown = path.display();
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(format!("an audit trail is to be kept in {shown}"))
            }
            opened => {
                let file = opened.map_err(TrailFault::io(path, What::Open))?;
                check(path, &file, owner)?;
                Ok(format!("an audit trail is kept in {shown}"))
            }
        }
    }

    /// How long it is, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of its first line; none before there is one.
    pub(super) fn first(&self) -> Option<u64> {
        self.first
    }

    /// Writes lines, of which the first has the number `first`, and returns once they are on the disk.
    ///
    /// # Errors
    /// If they are not, or perhaps not as a whole: [`undo`](Self::undo) removes what there is of them.
    pub(super) fn append(&mut self, lines: &[u8], first: u64) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        self.first.get_or_insert(first);
        Ok(())
    }

    /// Removes what a failed [`append`](Self::append) may have left.
    pub(super) fn undo(&self) -> io::Result<()> {
        // Whoever moved it away has what is in it, and a file that somebody cut has nothing of it.
        match self.file.metadata()?.len() > self.length {
            true => self.file.set_len(self.length),
            false => Ok(()),
        }
    }

    /// Whether it is shorter than what was written to it: somebody cut it.
    pub(super) fn is_cut(&self) -> bool {
        let present = self.file.metadata();
        present.is_ok_and(|present| present.len() < self.length)
    }

    /// Takes its present length for right, after somebody cut it.
    pub(super) fn accept_length(&mut self) -> io::Result<()> {
        self.length = self.file.metadata()?.len();
        Ok(())
    }

    /// Whether another file, or none, has its name by now.
    pub(super) fn is_moved(&self) -> bool {
        let mark = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (named, open) = (fs::metadata(&self.path), self.file.metadata());
        match (named, open) {
            (Ok(named), Ok(open)) => mark(named) != mark(open),
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            (Ok(_), Err(_)) => false,
        }
    }

    /// Gives it the name of a rotated file, which has the number of its first line.
    pub(super) fn move_aside(&self) -> io::Result<()> {
        let Some(first) = self.first else {
            return Ok(());
        };
        let mut name = rotated(&self.path, first);
        // Somebody put back an older trail, whose files were rotated before: neither replaces the other.
        while name.try_exists()? {
            name.as_mut_os_string().push(".again");
        }
        fs::rename(&self.path, name)?;
        sync_folder(&self.path)
    }

    /// Opens the file that has its name by now, or creates it. It is empty.
    ///
    /// # Errors
    /// If it cannot be opened or created, or is not empty.
    pub(super) fn next(&self) -> io::Result<Self> {
        let file = match append().create_new(true).mode(MODE).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = append().open(&self.path)?;
                check(&self.path, &file, None).map_err(io::Error::other)?;
                file
            }
            created => created?,
        };
        if file.metadata()?.len() > 0 {
            return Err(io::Error::other("another file has taken its place"));
        }
        lock(&self.path, &file).map_err(io::Error::other)?;
        sync_folder(&self.path)?;
        Ok(Self {
            path: self.path.clone(),
            file,
            length: 0,
            first: None,
        })
    }

    /// The files that were rotated here, oldest first, each with the number of its first line.
    pub(super) fn rotated(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<_> = siblings(&self.path)?
            .into_iter()
            .filter_map(|path| Some((number_of(&self.path, &path)?, path)))
            .collect();
        found.sort();
        Ok(found)
    }
}

impl Place {
    /// Where a trail begins.
    pub(super) const START: Self = Self {
        head: Head::START,
        rest: None,
    };
}

/// All files whose names begin with that of the trail: those that were rotated, by whomever.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn siblings(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
            && entry.file_type()?.is_file()
        {
            found.push(folder(path).join(name));
        }
    }
    Ok(found)
}

fn rotated(path: &Path, first: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{first:012}"));
    PathBuf::from(name)
}

/// The number of the first line in a file that [`rotated`] named.
fn number_of(path: &Path, file: &Path) -> Option<u64> {
    let number = file.file_name()?.to_str()?;
    let number = number.strip_prefix(path.file_name()?.to_str()?)?;
    let number = number.strip_prefix('.')?;
    let first = number.parse().ok()?;
    (rotated(path, first) == *file || rotated(path, first).file_name() == file.file_name())
        .then_some(first)
}

fn append() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    options
}

/// Whether it is a file of `owner`'s alone; without `owner`, of the process's user or of root.
fn check(path: &Path, file: &File, owner: Option<(u32, u32)>) -> Result<(), TrailFault> {
    let metadata = file.metadata().map_err(TrailFault::io(path, What::Open))?;
    let (user, group) = owner.unwrap_or_else(|| (geteuid().as_raw(), getegid().as_raw()));
    let is_owned =
        metadata.uid() == user || (owner.is_none() && Uid::from_raw(metadata.uid()).is_root());
    let what = if !metadata.is_file() {
        What::NotAFile
    } else if metadata.mode() & 0o077 != 0 {
        What::OthersHaveAccess
    } else if !is_owned {
        What::OtherOwner { user, group }
    } else {
        return Ok(());
    };
    Err(TrailFault::new(path, what))
}

/// Whether the next file can be made: at once if the process stays who it is, by its owner if not.
fn check_folder(path: &Path, owner: Option<(u32, u32)>) -> Result<(), TrailFault> {
    let folder = folder(path);
    match owner {
        None => access(folder, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| TrailFault::io(path, What::Create)(error.into())),
        Some((user, group)) => {
            let metadata = fs::metadata(folder).map_err(TrailFault::io(path, What::Create))?;
            match metadata.uid() == user {
                true => Ok(()),
                false => Err(TrailFault::new(path, What::FolderOfOther { user, group })),
            }
        }
    }
}

fn lock(path: &Path, file: &File) -> Result<(), TrailFault> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(TrailFault::new(path, What::InUse)),
        Err(TryLockError::Error(error)) => Err(TrailFault::io(path, What::Open)(error)),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn length_of(path: &Path, file: &File) -> Result<u64, TrailFault> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(TrailFault::io(path, What::Read))?;
    Ok(metadata.len())
}

/// The number of the first line of a file, if that is one.
pub(super) fn first_line(path: &Path) -> Option<u64> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(File::open(path).ok()?).take(LONGEST_LINE as u64);
    reader.read_until(b'\n', &mut line).ok()?;
    Some(ReadLine::read(line.strip_suffix(b"\n")?)?.head.seq)
}

/// Where the trail ends in the newest of the files that were rotated, if there are any.
fn predecessor(path: &Path) -> Result<Option<Place>, TrailFault> {
    let files = siblings(path).map_err(TrailFault::io(path, What::Read))?;
    let numbered = files
        .into_iter()
        .filter_map(|it| Some((first_line(&it)?, it)));
    let Some((_, newest)) = numbered.max() else {
        return Ok(None);
    };
    let file = File::open(&newest).map_err(TrailFault::io(&newest, What::Open))?;
    let length = length_of(&newest, &file)?;
    match tail(&newest, &file, length)? {
        Found::Line(place) => Ok(Some(place)),
        Found::Torn(_) => Err(TrailFault::new(&newest, What::Foreign)),
    }
}

/// What is at the end of a file.
enum Found {
    /// A line, and what is behind it.
    Line(Place),
    /// The beginning of its first line.
    Torn(Rest),
}

/// Where the trail ends in a file, by its last line that is one.
fn tail(path: &Path, mut file: &File, length: u64) -> Result<Found, TrailFault> {
    let begin = length.saturating_sub(TAIL);
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(begin))
        .and_then(|_| file.take(TAIL).read_to_end(&mut bytes));
    read.map_err(TrailFault::io(path, What::Read))?;
    let mut end = bytes.len();
    // Each line break from the last on may end the last line.
    while let Some(at) = bytes[..end].iter().rposition(|&byte| byte == b'\n') {
        let before = bytes[..at].iter().rposition(|&byte| byte == b'\n');
        let line = &bytes[before.map_or(0, |before| before + 1)..at];
        if let Some(line) = ReadLine::read(line) {
            let rest = &bytes[at + 1..];
            return Ok(Found::Line(Place {
                head: line.head,
                rest: (!rest.is_empty()).then(|| Rest::of(rest)),
            }));
        }
        end = at;
    }
    // A process may be killed while it writes the first line of all.
    let is_torn = begin == 0 && bytes.starts_with(FIRST_BYTES) && !bytes.contains(&b'\n');
    match is_torn {
        true => Ok(Found::Torn(Rest::of(&bytes))),
        false => Err(TrailFault::new(path, What::Foreign)),
    }
}

impl Rest {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            hash: LineHash::of(bytes),
            ends_line: bytes.ends_with(b"\n"),
        }
    }
}

const MODE: u32 = 0o600;
/// What every line begins with.
const FIRST_BYTES: &[u8] = b"{\"seq\":";
/// How much is read of the end of a file, in bytes: what a process leaves that is killed while it writes is
/// shorter than its queue.
const TAIL: u64 = 16 * 1024 * 1024;
