//! The launcher: a process that is started before the gateway is confined, and can do one thing for it: run the
//! gateway's own program once more, with the gateway's own arguments, or kill what it ran. It reads no
//! configuration, and nothing that the gateway says changes what is run.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::getpid;

use super::descriptors;

/// The gateway's end of a launcher. When it is dropped, or the gateway is gone, the launcher ends.
#[derive(Debug)]
pub struct Launcher {
    socket: UnixStream,
    process: Child,
}

/// What the program is run with to be a launcher.
pub(crate) const COMMAND: &str = "launcher";
/// What is added to the arguments of the gateway that it runs.
pub(crate) const TAKE_OVER: &str = "--take-over";

impl Launcher {
    /// Starts one, which runs the program at the path of this one, whatever is there by then. `None` in a
    /// process that is alone in its container: what it started would end with it.
    ///
    /// # Errors
    /// When the system starts no process.
    pub(crate) fn start() -> io::Result<Option<Self>> {
        if getpid().is_init() {
            return Ok(None);
        }
        // The path as it is now: of a file that was replaced meanwhile the system says that it is deleted.
        let program = std::env::current_exe()?;
        let arguments = std::env::args_os().skip(1).filter(|it| it != TAKE_OVER);
        Self::of(&program, arguments).map(Some)
    }

    /// Starts one that runs this program with these arguments.
    ///
    /// # Errors
    /// When the system starts no process.
    pub fn of(program: &Path, arguments: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let process = Command::new(program)
            .arg(COMMAND)
            .arg("--program")
            .arg(program)
            .arg("--")
            .args(arguments)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let socket = UnixStream::from(ours);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, process })
    }

    /// One whose part is played at the other end of `socket`.
    #[cfg(test)]
    pub(crate) fn played(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let process = Command::new("true").spawn()?;
        Ok(Self { socket, process })
    }

    /// Has the program run, with `link` as its standard input. Returns the number of its process.
    ///
    /// # Errors
    /// When there is no launcher any more, or the program cannot be run.
    pub(crate) fn launch(&self, link: &UnixStream) -> io::Result<u32> {
        descriptors::send(&self.socket, &[LAUNCH], Some(link.as_fd()))?;
        let answer = self.answer()?;
        match answer.split_first() {
            Some((&STARTED, pid)) => {
                let pid = pid.try_into().map_err(|_| ErrorKind::InvalidData)?;
                Ok(u32::from_be_bytes(pid))
            }
            Some((&FAILED, why)) => Err(io::Error::other(String::from_utf8_lossy(why))),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Kills what was run last, unless it has ended. Returns once it is gone, with how it ended.
    ///
    /// # Errors
    /// When that is not known.
    pub(crate) fn kill(&self) -> io::Result<String> {
        descriptors::send(&self.socket, &[KILL], None)?;
        let answer = self.answer()?;
        match answer.split_first() {
            Some((&GONE, how)) => Ok(String::from_utf8_lossy(how).into_owned()),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn answer(&self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; LONGEST];
        match (&self.socket).read(&mut answer)? {
            0 => Err(io::Error::other("the launcher is gone")),
            length => {
                answer.truncate(length);
                Ok(answer)
            }
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        // It waits for nothing else.
        let _ = self.process.wait();
    }
}

/// The launcher itself: serves the gateway at its standard input until that is gone.
///
/// # Errors
/// When the socket fails.
pub(crate) fn serve(program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut last: Option<Child> = None;
    loop {
        let mut request = [0; 1];
        let (length, link) = descriptors::receive(&socket, &mut request)?;
        let answer = match (length, request, link) {
            (0, _, _) => return Ok(()),
            (_, [LAUNCH], Some(link)) => match launch(program, arguments, link.into()) {
                Ok(child) => {
                    let pid = child.id().to_be_bytes();
                    last = Some(child);
                    [&[STARTED], &pid[..]].concat()
                }
                Err(error) => {
                    let why = format!("{} cannot be run: {error}", program.display());
                    let mut answer = [&[FAILED], why.as_bytes()].concat();
                    answer.truncate(LONGEST);
                    answer
                }
            },
            (_, [KILL], _) => {
                let how = last.take().map_or_else(|| Ok(String::new()), end)?;
                [&[GONE], how.as_bytes()].concat()
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        descriptors::send(&socket, &answer, None)?;
    }
}

fn launch(program: &Path, arguments: &[OsString], link: Stdio) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(TAKE_OVER)
        // It names the process that systemd watches (sd_watchdog_enabled(3)), which is about to be another.
        .env_remove("WATCHDOG_PID")
        .stdin(link);
    command.spawn()
}

fn end(mut child: Child) -> io::Result<String> {
    if let Some(ended) = child.try_wait()? {
        return Ok(ended.to_string());
    }
    child.kill()?;
    child.wait().map(|ended| ended.to_string())
}

/// Plays the launcher at the other end of a [`Launcher::played`], and has `new` play each process that is started,
/// on the link that it is given; ends when the gateway is gone.
#[cfg(test)]
pub(crate) fn play(socket: UnixStream, new: impl Fn(UnixStream) + Clone + Send + 'static) {
    std::thread::spawn(move || {
        loop {
            let mut request = [0; 1];
            match descriptors::receive(&socket, &mut request) {
                Ok((1, Some(link))) => {
                    let new = new.clone();
                    std::thread::spawn(move || new(link.into()));
                    let answer = [&[STARTED], &7_u32.to_be_bytes()[..]].concat();
                    descriptors::send(&socket, &answer, None).unwrap();
                }
                Ok((1, None)) => descriptors::send(&socket, b"Gkilled", None).unwrap(),
                Ok(_) | Err(_) => return,
            }
        }
    });
}

const LAUNCH: u8 = b'L';
const KILL: u8 = b'K';
const STARTED: u8 = b'S';
const FAILED: u8 = b'F';
const GONE: u8 = b'G';
/// The longest answer, in bytes.
const LONGEST: usize = 4096;
/// Starting and killing a process takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
