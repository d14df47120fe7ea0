//! FIFOs, and inotify to know of their readers.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::Path;

/// A watched FIFO.
pub(crate) type Watch = WatchDescriptor;

/// Makes a FIFO, for its owner only, and opens it for reading and writing: so a reader never waits for
/// a writer.
pub(crate) fn make(path: &Path) -> io::Result<RawFd> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(super::descriptor::release(open(path, flags, Mode::empty())?))
}

/// Makes room in a FIFO for so many bytes, as far as the kernel lets us.
pub(crate) fn grow(fifo: RawFd, bytes: usize) {
    if let Ok(bytes) = i32::try_from(bytes) {
        // Where it is refused the writer goes on piece by piece.
        let _ = fcntl(super::descriptor::borrow(fifo), FcntlArg::F_SETPIPE_SZ(bytes));
    }
}

/// Tells which FIFOs were opened.
#[derive(Debug)]
pub(crate) struct Readers(Inotify);

impl Readers {
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?))
    }

    /// Watches a FIFO; the watch follows it through a rename.
    pub(crate) fn add(&self, path: &Path) -> io::Result<Watch> {
        Ok(self.0.add_watch(path, AddWatchFlags::IN_OPEN)?)
    }

    pub(crate) fn forget(&self, watch: Watch) {
        // It fails only where the FIFO is gone, and the watch with it.
        let _ = self.0.rm_watch(watch);
    }

    /// The watches whose FIFOs were opened since the last look.
    pub(crate) fn opened(&self) -> Vec<Watch> {
        let mut opened = Vec::new();
        loop {
            match self.0.read_events() {
                Ok(events) => opened.extend(
                    events
                        .iter()
                        .filter(|event| event.mask.contains(AddWatchFlags::IN_OPEN))
                        .map(|event| event.wd),
                ),
                Err(Errno::EINTR) => {}
                Err(_) => return opened,
            }
        }
    }
}

impl AsFd for Readers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
