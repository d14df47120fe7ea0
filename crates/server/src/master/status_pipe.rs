//! The status pipe: a FIFO that anybody of ours may `cat`, at any time.
//!
//! The master holds the FIFO open for reading and writing, so readers never wait in `open`, and inotify
//! tells of them. Before one is served a fresh FIFO takes the place of its inode, so that each reader
//! gets one whole object and an end, and one that never reads harms nobody. Never blocks: what does not
//! fit the pipe at once is written as the reader reads, for a bounded time.

use crate::clock::Millis;
use crate::ledger::{DescriptorKind, Holder, Ledger};
use crate::run_dir::RunDir;
use crate::sys::descriptor;
use crate::sys::fifo;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

/// The token of the inotify descriptor.
pub(super) const STATUS_READERS: Token = Token(2);
/// How long a reader may take.
const SERVE_MS: u64 = 2_000;
/// How often the FIFO is looked at where inotify is refused.
pub(super) const TICK_MS: u64 = 50;

/// A FIFO, open for reading and writing.
#[derive(Clone, Copy, Debug)]
struct Fifo {
    descriptor: RawFd,
    watch: Option<fifo::Watch>,
}

/// The FIFOs and their readers, for the program that follows by an upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StatusPipeHandOff {
    current: RawFd,
    spare: Option<RawFd>,
    slow: Vec<Slow>,
}

impl StatusPipeHandOff {
    /// Every descriptor of it.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.slow.iter().map(|slow| slow.descriptor).chain(self.spare).chain([self.current])
    }
}

/// A reader that has not taken everything yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slow {
    descriptor: RawFd,
    left: Vec<u8>,
    until: Millis,
}

/// The status pipe.
#[derive(Debug)]
pub(super) struct StatusPipe {
    path: PathBuf,
    spare_path: PathBuf,
    current: Fifo,
    /// What takes its place; missing where it could not be made.
    spare: Option<Fifo>,
    readers: Option<fifo::Readers>,
    slow: Vec<Slow>,
    ledger: Ledger,
    /// Somebody may have come when nobody watched.
    unwatched: bool,
}

impl StatusPipe {
    /// Makes both FIFOs and watches for readers.
    pub(super) fn make(dir: &RunDir, poll: &Poll, ledger: Ledger) -> io::Result<Self> {
        let readers = watch(poll, ledger)?;
        let (path, spare_path) = (dir.status_pipe(), dir.spare_status_pipe());
        let current = open(&path, readers.as_ref(), ledger)?;
        let spare = Some(open(&spare_path, readers.as_ref(), ledger)?);
        let slow = Vec::new();
        Ok(Self { path, spare_path, current, spare, readers, slow, ledger, unwatched: false })
    }

    /// The FIFOs of the program before this one. A reader that came since is served at once.
    pub(super) fn take_over(
        handed: StatusPipeHandOff,
        dir: &RunDir,
        poll: &Poll,
        ledger: Ledger,
    ) -> io::Result<Self> {
        for number in handed.descriptors() {
            ledger.note(number, DescriptorKind::Master, Holder::MASTER);
        }
        let readers = watch(poll, ledger)?;
        let (path, spare_path) = (dir.status_pipe(), dir.spare_status_pipe());
        let watched = |descriptor, path: &Path| Fifo {
            descriptor,
            watch: readers.as_ref().and_then(|readers| readers.add(path).ok()),
        };
        let current = watched(handed.current, &path);
        let spare = handed.spare.map(|spare| watched(spare, &spare_path));
        let slow = handed.slow;
        Ok(Self { path, spare_path, current, spare, readers, slow, ledger, unwatched: true })
    }

    /// What the next program has to know.
    pub(super) fn hand_off(&self) -> StatusPipeHandOff {
        StatusPipeHandOff {
            current: self.current.descriptor,
            spare: self.spare.map(|spare| spare.descriptor),
            slow: self.slow.clone(),
        }
    }

    /// Whether somebody opened the FIFO to read.
    pub(super) fn reader_came(&mut self) -> bool {
        if std::mem::take(&mut self.unwatched) {
            return true;
        }
        match (&self.readers, self.current.watch) {
            (Some(readers), Some(watch)) => readers.opened().contains(&watch),
            _ => false,
        }
    }

    /// Whether readers are noticed by looking, since inotify was refused.
    pub(super) fn needs_ticks(&self) -> bool {
        self.current.watch.is_none()
    }

    /// Whether some reader has not taken everything yet.
    pub(super) fn has_slow_readers(&self) -> bool {
        !self.slow.is_empty()
    }

    /// Serves the readers of the current FIFO.
    pub(super) fn serve(&mut self, object: &[u8], now: Millis) -> io::Result<()> {
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => {
                // It may be there and could not be opened.
                let _ = fs::remove_file(&self.spare_path);
                open(&self.spare_path, self.readers.as_ref(), self.ledger)?
            }
        };
        // First, so that whoever comes from now on waits at the fresh one.
        if let Err(error) = fs::rename(&self.spare_path, &self.path) {
            self.close(spare.descriptor);
            return Err(error);
        }
        let served = std::mem::replace(&mut self.current, spare);
        if let (Some(readers), Some(watch)) = (&self.readers, served.watch) {
            readers.forget(watch);
        }
        fifo::grow(served.descriptor, object.len());
        let mut slow =
            Slow { descriptor: served.descriptor, left: object.to_vec(), until: now + SERVE_MS };
        if self.write_on(&mut slow) {
            self.close(slow.descriptor);
        } else {
            self.slow.push(slow);
        }
        self.spare = Some(open(&self.spare_path, self.readers.as_ref(), self.ledger)?);
        Ok(())
    }

    /// Goes on with slow readers.
    pub(super) fn go_on(&mut self, now: Millis) {
        for mut slow in std::mem::take(&mut self.slow) {
            if self.write_on(&mut slow) || now >= slow.until {
                self.close(slow.descriptor);
            } else {
                self.slow.push(slow);
            }
        }
    }

    /// True if everything is written, or nobody is there to read it.
    fn write_on(&self, slow: &mut Slow) -> bool {
        while !slow.left.is_empty() {
            match descriptor::write(slow.descriptor, &slow.left) {
                Ok(written) => drop(slow.left.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        true
    }

    fn close(&self, number: RawFd) {
        self.ledger.clear(number);
        descriptor::close(number);
    }
}

fn watch(poll: &Poll, ledger: Ledger) -> io::Result<Option<fifo::Readers>> {
    let readers = fifo::Readers::watch().ok();
    if let Some(readers) = &readers {
        let number = readers.as_fd().as_raw_fd();
        ledger.note(number, DescriptorKind::Master, Holder::MASTER);
        poll.registry().register(&mut SourceFd(&number), STATUS_READERS, Interest::READABLE)?;
    }
    Ok(readers)
}

fn open(path: &Path, readers: Option<&fifo::Readers>, ledger: Ledger) -> io::Result<Fifo> {
    let descriptor = fifo::make(path)?;
    ledger.note(descriptor, DescriptorKind::Master, Holder::MASTER);
    let watch = readers.and_then(|readers| readers.add(path).ok());
    Ok(Fifo { descriptor, watch })
}
