//! The file as redb has it: a table of tokens, and one that says whose file it is and in which
//! format. Everything here blocks.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{
    Builder, Database, Error, ReadableDatabase as _, ReadableTable as _, StorageBackend, Table,
    TableDefinition, TableError,
};

use rustix::fs::{Advice, fadvise};

use super::backend::LockedFile;
use super::fault::{KNOWN, What};
use crate::clock::UnixSeconds;
use crate::replay::ReplayKey;
use crate::store::record::{BadRecord, Key, Record};
use crate::token::TokenId;

/// Opens the file, again after it failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, Error> + Send>;

/// One step of a change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Put(&'a Key, &'a [u8]),
    /// Another has taken its place; both are good until then.
    Replace(TokenId, UnixSeconds),
    /// None has after all, and it is good until then.
    Restore(TokenId, UnixSeconds),
    Shorten(TokenId, UnixSeconds),
    Remove(TokenId),
    /// What is remembered of a request.
    Remember(&'a ReplayBytes, &'a [u8]),
    Forget(ReplayBytes),
}

/// A remembered request's key in the file.
pub(super) type ReplayBytes = [u8; ReplayKey::LENGTH];

/// Opens the file that is open already, as often as asked: through its descriptor, since its path
/// may be out of reach by then.
pub(super) fn opener(file: File) -> Opener {
    Box::new(move || {
        if file.metadata()?.len() == 0 {
            // redb would take it for a new one.
            return Err(Error::Corrupted("it is empty".to_owned()));
        }
        // All of it is about to be read. Where the system takes no advice, it reads page by page.
        let _ = fadvise(&file, 0, None, Advice::WillNeed);
        open(LockedFile(file.try_clone()?))
    })
}

/// Opens a token file and checks every page of it: nothing in it is believed that is not as it was
/// written.
pub(super) fn open(backend: impl StorageBackend) -> Result<Database, Error> {
    contained(|| {
        let mut builder = builder();
        builder.set_check_integrity_on_open(true);
        Ok(builder.create_with_backend(backend)?)
    })
}

/// Makes an empty file a token file.
pub(super) fn create(backend: impl StorageBackend) -> Result<(), Error> {
    let database = builder().create_with_backend(backend)?;
    let transaction = database.begin_write()?;
    transaction.open_table(MARK)?.insert(FORMAT, KNOWN)?;
    transaction.open_table(TOKENS)?;
    transaction.commit()?;
    Ok(database.close()?)
}

/// Calls `each` with every token of a token file, and then `remembered` with every request that it
/// remembers, in no order that matters.
///
/// # Errors
/// When it is none, or is damaged.
pub(super) fn read(
    database: &Database,
    each: impl FnMut(Record<'_>),
    remembered: impl FnMut(&ReplayBytes, &[u8]) -> Result<(), &'static str>,
) -> Result<(), What> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        read_all(database, each)?;
        read_remembered(database, remembered)
    }));
    read.unwrap_or_else(|_| Err(what(panicked())))
}

fn read_remembered(
    database: &Database,
    mut each: impl FnMut(&ReplayBytes, &[u8]) -> Result<(), &'static str>,
) -> Result<(), What> {
    let transaction = database.begin_read().map_err(|error| what(error.into()))?;
    let requests = match transaction.open_table(REQUESTS) {
        Ok(requests) => requests,
        // No request was ever guarded.
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(missing(error)),
    };
    for entry in requests.iter().map_err(|error| what(error.into()))? {
        let (key, value) = entry.map_err(|error| what(error.into()))?;
        each(key.value(), value.value()).map_err(|how| What::Damaged {
            how: how.to_owned(),
        })?;
    }
    Ok(())
}

fn read_all(database: &Database, mut each: impl FnMut(Record<'_>)) -> Result<(), What> {
    let transaction = database.begin_read().map_err(|error| what(error.into()))?;
    let format = match transaction.open_table(MARK) {
        Ok(mark) => mark.get(FORMAT).map_err(|error| what(error.into()))?,
        Err(error) => return Err(missing(error)),
    };
    match format.map(|format| format.value()) {
        Some(1..=KNOWN) => {}
        Some(format @ 1..) => return Err(What::Newer { format }),
        Some(0) | None => return Err(What::Foreign),
    }
    let tokens = transaction.open_table(TOKENS).map_err(missing)?;
    for entry in tokens.iter().map_err(|error| what(error.into()))? {
        let (key, value) = entry.map_err(|error| what(error.into()))?;
        let record = Record::read(*key.value(), value.value());
        each(record.map_err(|bad| What::Damaged {
            how: bad.to_string(),
        })?);
    }
    Ok(())
}

/// Takes the steps, all or none; on the disk when it returns.
///
/// # Errors
/// Whatever it is, the database is to be opened again: whether the steps were taken is known then.
pub(super) fn apply<'a>(
    database: &Database,
    steps: impl Iterator<Item = Step<'a>>,
) -> Result<(), Error> {
    contained(|| {
        let transaction = database.begin_write()?;
        {
            let mut tokens = transaction.open_table(TOKENS)?;
            let mut requests = None;
            for step in steps {
                if !step.is_of_request() {
                    take(&mut tokens, step)?;
                    continue;
                }
                let requests = match &mut requests {
                    Some(requests) => requests,
                    none @ None => none.insert(transaction.open_table(REQUESTS)?),
                };
                match step {
                    Step::Remember(key, value) => drop(requests.insert(key, value)?),
                    Step::Forget(key) => drop(requests.remove(&key)?),
                    Step::Put(..)
                    | Step::Replace(..)
                    | Step::Restore(..)
                    | Step::Shorten(..)
                    | Step::Remove(_) => {}
                }
            }
        }
        Ok(transaction.commit()?)
    })
}

fn take(tokens: &mut Table<'_, &'static Key, &'static [u8]>, step: Step<'_>) -> Result<(), Error> {
    match step {
        Step::Put(key, value) => drop(tokens.insert(key, value)?),
        Step::Remove(id) => drop(tokens.remove(&id.to_bytes())?),
        Step::Replace(id, _) | Step::Restore(id, _) | Step::Shorten(id, _) => {
            let key = id.to_bytes();
            let Some(value) = tokens.get(&key)?.map(|value| value.value().to_vec()) else {
                return Ok(());
            };
            let changed = step.changed(key, &value);
            let changed = changed.map_err(|bad| Error::Corrupted(bad.to_string()))?;
            tokens.insert(&key, changed.as_slice())?;
        }
        Step::Remember(..) | Step::Forget(_) => {}
    }
    Ok(())
}

impl Step<'_> {
    fn is_of_request(&self) -> bool {
        match self {
            Self::Remember(..) | Self::Forget(_) => true,
            Self::Put(..)
            | Self::Replace(..)
            | Self::Restore(..)
            | Self::Shorten(..)
            | Self::Remove(_) => false,
        }
    }

    /// What becomes of a token's value.
    pub(super) fn changed(&self, key: Key, value: &[u8]) -> Result<Vec<u8>, BadRecord> {
        let mut record = Record::read(key, value)?;
        match *self {
            Self::Replace(_, until) => {
                record.expires = record.expires.min(until);
                record.replaced = Some(record.replaced.map_or(until, |is| is.min(until)));
            }
            Self::Restore(_, until) => {
                record.expires = until;
                record.replaced = None;
            }
            Self::Shorten(_, until) => record.expires = record.expires.min(until),
            Self::Put(..) | Self::Remove(_) | Self::Remember(..) | Self::Forget(_) => {}
        }
        Ok(record.value())
    }
}

/// Lets no older version open a file with what it does not know in it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn migrate(database: &Database) -> Result<(), Error> {
    contained(|| {
        let transaction = database.begin_write()?;
        let is_old = {
            let mut mark = transaction.open_table(MARK)?;
            let was = mark.insert(FORMAT, KNOWN)?.map(|was| was.value());
            was != Some(KNOWN)
        };
        match is_old {
            true => Ok(transaction.commit()?),
            false => Ok(transaction.abort()?),
        }
    })
}

/// What is wrong with a file that redb cannot open or read.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "redb's errors are many, and more may come"
)]
pub(super) fn what(error: Error) -> What {
    match error {
        // Of all that is not a database, and of one that is cut off.
        Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => What::Foreign,
        Error::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => What::Damaged {
            how: "it is cut off".to_owned(),
        },
        Error::Io(cause) => What::Io {
            action: "read",
            cause,
        },
        Error::DatabaseAlreadyOpen => What::InUse,
        Error::Corrupted(how) => What::Damaged { how },
        other => What::Damaged {
            how: other.to_string(),
        },
    }
}

/// The same of a file that was to be made.
pub(super) fn cause(error: Error) -> io::Error {
    if let Error::Io(cause) = error {
        return cause;
    }
    io::Error::other(error)
}

fn missing(error: TableError) -> What {
    if let TableError::Storage(error) = error {
        return what(error.into());
    }
    // Somebody else's database.
    What::Foreign
}

/// A damaged file can make redb panic: that is an error like any other.
fn contained<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Error {
    Error::Corrupted("a check inside redb failed".to_owned())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

const MARK: TableDefinition<'_, &str, u32> = TableDefinition::new("syncgate");
const FORMAT: &str = "format";
const TOKENS: TableDefinition<'_, &Key, &[u8]> = TableDefinition::new("tokens");
/// Those that the replay guard remembers. A file of an older version has none.
const REQUESTS: TableDefinition<'_, &ReplayBytes, &[u8]> = TableDefinition::new("requests");
/// Bytes of the file that redb keeps in memory: enough for the upper levels of its tree.
const CACHE: usize = 16 * 1024 * 1024;
