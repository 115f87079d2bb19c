//! A disk that fails when it is told to, and that loses or tears what was not synced when its
//! machine loses power.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::table::{self, Opener};

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// What a power failure leaves in any case.
    synced: Vec<u8>,
    /// What is read.
    seen: Vec<u8>,
    unsynced: Vec<Write>,
    /// Writes and syncs that still succeed.
    good: Option<usize>,
    syncs: usize,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

impl Write {
    /// Does as much of it as `part` says, in sectors.
    fn apply(&self, to: &mut Vec<u8>, part: Part) {
        match (self, part) {
            (_, Part::None) => {}
            (Self::Length(length), _) => to.resize(*length, 0),
            (Self::Bytes(at, bytes), part) => {
                let bytes = match part {
                    Part::First(sectors) => &bytes[..bytes.len().min(sectors * SECTOR)],
                    Part::None | Part::All => bytes,
                };
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    None,
    First(usize),
    All,
}

impl Disk {
    /// With a token file without tokens on it.
    pub(super) fn formatted() -> Self {
        let disk = Self::default();
        table::create(disk.clone()).unwrap();
        disk
    }

    pub(super) fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move || table::open(disk.clone()))
    }

    /// From now on, all writes and syncs but the first so many fail. The one that fails first is
    /// half done.
    pub(super) fn fail_after(&self, good: usize) {
        self.state().good = Some(good);
    }

    pub(super) fn heal(&self) {
        self.state().good = None;
    }

    /// Lets nothing be written or read until it is dropped.
    pub(super) fn hold(&self) -> MutexGuard<'_, State> {
        self.state()
    }

    /// How often it was synced.
    pub(super) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// What a power failure at this moment leaves: of each write that was not synced, all, nothing
    /// or its first sectors.
    pub(super) fn after_power_failure(&self, mut random: impl FnMut() -> usize) -> Self {
        let state = self.state();
        let mut left = state.synced.clone();
        for write in &state.unsynced {
            let part = match random() % 3 {
                0 => Part::None,
                1 => Part::First(random() % 8),
                _ => Part::All,
            };
            write.apply(&mut left, part);
        }
        Self(Arc::new(Mutex::new(State {
            synced: left.clone(),
            seen: left,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn change(&self, write: Write) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        let part = match &mut state.good {
            Some(0) => return Err(full()),
            Some(good) => {
                *good -= 1;
                if *good == 0 {
                    Part::First(1)
                } else {
                    Part::All
                }
            }
            None => Part::All,
        };
        write.apply(&mut state.seen, part);
        state.unsynced.push(write);
        match part {
            Part::First(_) => Err(full()),
            Part::None | Part::All => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.state();
        let bytes = state.seen.get(at..at + out.len());
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Write::Length(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        match &mut state.good {
            Some(0) => return Err(full()),
            Some(good) => *good -= 1,
            None => {}
        }
        state.synced = state.seen.clone();
        state.unsynced.clear();
        state.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Write::Bytes(
            usize::try_from(offset).unwrap(),
            data.to_vec(),
        ))
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

const SECTOR: usize = 512;
