//! One shared segment, mapped for the life of the process, and the plan of the areas in it.
//!
//! Knows nothing of rows or tables: it hands out atomic words. The only file of the crate with
//! unsafe code.
//!
//! Invariants: 1. The mapping of a region is never undone, so a `&'static` to it is honest. 2. The
//! mapped bytes are only ever touched as `AtomicU64`, by every process. 3. The segment has no name
//! after `create` returns: whatever dies, nothing stays behind. 4. Its pages are reserved before
//! anybody touches them: a full `/dev/shm` is an error at creation and not SIGBUS later. 5. Large
//! segments lie on huge pages where the kernel gives them, which is never an error and never seen but
//! in speed.
#![expect(unsafe_code, reason = "the room where the mapping becomes a slice of atomic words")]

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap, shm_unlink};
use nix::sys::statvfs::fstatvfs;
use shared_memory::ShmemConf;

use crate::sync::AtomicU64;
use crate::word::{LINE_WORDS, WORD_BYTES};

/// From here on a string move is faster than words one by one.
const STRING_MOVE_BYTES: usize = 256;

/// Size and alignment of a huge page. With pages of 4 KiB, finding the address of a word that was not
/// used for a while takes a processor longer than fetching the word.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// `MADV_COLLAPSE` of Linux 6.1 and later: asks for huge pages whatever the system's settings are.
const MADV_COLLAPSE: i32 = 25;

/// A shared segment of 64-bit words. Exists only as `&'static Region`.
#[derive(Debug)]
pub struct Region {
    words: &'static [AtomicU64],
    /// A second descriptor of the segment: a mapping cannot be opened again once it has no name, and
    /// an exec needs something to map.
    descriptor: OwnedFd,
}

/// Making or mapping a segment failed.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// Nothing was asked for, or more than an address can name.
    #[error("a region of {words} words cannot be made")]
    Size {
        /// Words asked for.
        words: usize,
    },
    /// The segment could not be created.
    #[error("creating a shared segment of {bytes} bytes failed")]
    Create {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: shared_memory::ShmemError,
    },
    /// The second descriptor could not be opened.
    #[error("opening a second descriptor of the shared segment failed")]
    Descriptor(#[source] io::Error),
    /// The name could not be removed.
    #[error("unlinking the shared segment failed")]
    Unlink(#[source] nix::Error),
    /// The pages could not be reserved; most often `/dev/shm` is too small.
    #[error(
        "/dev/shm has {free} bytes free and {bytes} are needed (in a container: give it a larger --shm-size)"
    )]
    Reserve {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes that were free.
        free: u64,
        /// What the system said.
        source: nix::Error,
    },
    /// An inherited descriptor could not be mapped.
    #[error("mapping {bytes} bytes of an inherited segment failed")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: nix::Error,
    },
}

impl Region {
    /// Creates a segment of `words` zeroed words and maps it for ever.
    ///
    /// Call it before the first fork; children inherit the mapping at the same address. Descriptors
    /// 0, 1 and 2 must be open (`shared_memory` takes descriptor 0 for "none").
    ///
    /// # Errors
    /// A size of 0 or beyond the address space, no room in `/dev/shm` (the message says how much is
    /// needed and how much is free), or a system call that failed. Nothing stays behind.
    pub fn create(words: usize) -> Result<&'static Self, RegionError> {
        let bytes = byte_size(words)?;
        let size = i64::try_from(bytes).map_err(|_| RegionError::Size { words })?;
        let mut segment = ShmemConf::new()
            .os_id(unused_name())
            .size(bytes)
            .create()
            .map_err(|source| RegionError::Create { bytes, source })?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/dev/shm{}", segment.get_os_id()))
            .map_err(RegionError::Descriptor)?;
        shm_unlink(segment.get_os_id()).map_err(RegionError::Unlink)?;
        // A forked child inherits the flag and would unlink whatever then has the name.
        segment.set_owner(false);
        // Its own mapping lies anywhere; huge pages want one that is aligned.
        drop(segment);
        let free = free_bytes(&file);
        // The kernel would first fill what is free.
        if u64::try_from(bytes).is_ok_and(|bytes| bytes > free) {
            return Err(RegionError::Reserve { bytes, free, source: Errno::ENOSPC });
        }
        let mapping = map(&file, bytes).map_err(|source| RegionError::Map { bytes, source })?;
        ask_for_huge_pages(&file, mapping.base, bytes);
        nix::fcntl::posix_fallocate(&file, 0, size).map_err(|source| RegionError::Reserve {
            bytes,
            free,
            source,
        })?;
        // SAFETY: the mapping is `bytes` readable and writable page-aligned bytes, which nobody unmaps
        // once it is kept; the pages are reserved, and nobody else has the address.
        Ok(unsafe { Self::leak(mapping.keep(), words, file) })
    }

    /// Maps a segment made by [`Region::create`] again from its descriptor, as the image that
    /// follows an exec does. `descriptor` must be one that [`Region::descriptor`] gave.
    ///
    /// # Errors
    /// The descriptor has no usable size, or mapping it failed.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<&'static Self, RegionError> {
        let file = File::from(descriptor);
        let length = file.metadata().map_err(RegionError::Descriptor)?.len();
        let words = usize::try_from(length).unwrap_or(usize::MAX) / WORD_BYTES;
        let bytes = byte_size(words)?;
        let mapping = map(&file, bytes).map_err(|source| RegionError::Map { bytes, source })?;
        // SAFETY: the mapping is `bytes` readable and writable page-aligned bytes, which nobody unmaps
        // once it is kept, and nobody else has the address.
        Ok(unsafe { Self::leak(mapping.keep(), words, file) })
    }

    /// As [`Region::from_descriptor`], to look at the segment only: a store to its words ends the
    /// process by SIGSEGV, as it must where the segment is in somebody else's use.
    ///
    /// # Errors
    /// The descriptor has no usable size, or mapping it failed.
    pub fn to_look_at(descriptor: OwnedFd) -> Result<&'static Self, RegionError> {
        let file = File::from(descriptor);
        let length = file.metadata().map_err(RegionError::Descriptor)?.len();
        let words = usize::try_from(length).unwrap_or(usize::MAX) / WORD_BYTES;
        let bytes = byte_size(words)?;
        let size = NonZeroUsize::new(bytes).ok_or(RegionError::Size { words })?;
        // SAFETY: a new mapping at an address the kernel chooses overlaps nothing that exists.
        let base =
            unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0) }
                .map_err(|source| RegionError::Map { bytes, source })?;
        // SAFETY: the mapping is `bytes` page-aligned bytes, which nobody unmaps. They are readable;
        // loads of aligned 64-bit atomics need no more, and a store is refused by the processor.
        Ok(unsafe { Self::leak(base.cast(), words, file) })
    }

    /// The descriptor kept for a program that follows by exec; close-on-exec is set on it.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Size in words.
    #[must_use]
    pub fn len_words(&self) -> usize {
        self.words.len()
    }

    /// The words of `range`.
    ///
    /// # Panics
    /// When the range leaves the region.
    #[must_use]
    pub fn words(&'static self, range: Range<usize>) -> &'static [AtomicU64] {
        assert!(
            range.start <= range.end && range.end <= self.words.len(),
            "words {range:?} are outside a region of {} words",
            self.words.len()
        );
        &self.words[range]
    }

    /// # Safety
    /// `base` is aligned for `u64` and has `words` readable words behind it that stay mapped until the
    /// process ends and are touched by nobody other than as atomic words; who stores to them has made
    /// them writable.
    unsafe fn leak(base: NonNull<u8>, words: usize, file: File) -> &'static Self {
        // SAFETY: by the contract of this function; `AtomicU64` has the layout of `u64`, every bit
        // pattern is a valid one, and shared references to it allow changes by others.
        let words = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>().as_ptr(), words) };
        Box::leak(Box::new(Self { words, descriptor: file.into() }))
    }
}

/// Plans the areas of one region before it is made.
#[derive(Debug, Default)]
pub struct Plan {
    words: usize,
}

impl Plan {
    /// An empty plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reserves `words` words; every area starts on a cache line of its own.
    ///
    /// # Panics
    /// When the sum leaves the address space; `words_needed` of each structure stays far below it.
    pub fn reserve(&mut self, words: usize) -> Area {
        let area = Area { offset: self.words, words };
        self.words = words
            .checked_next_multiple_of(LINE_WORDS)
            .and_then(|padded| padded.checked_add(self.words))
            .expect("the areas of a region fit the address space");
        area
    }

    /// Words a region for this plan needs.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words
    }
}

/// A planned part of a region.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    offset: usize,
    words: usize,
}

impl Area {
    /// The area's words in `region`.
    ///
    /// # Panics
    /// When the region is smaller than the plan the area comes from.
    #[must_use]
    pub fn words(self, region: &'static Region) -> &'static [AtomicU64] {
        region.words(self.offset..self.offset + self.words)
    }
}

/// Bytes that are free where the segment lies; all there can be if the system does not say.
fn free_bytes(file: &File) -> u64 {
    fstatvfs(file).map_or(u64::MAX, |space| {
        room_in(space.blocks(), space.blocks_free(), space.fragment_size())
    })
}

/// A tmpfs without a limit (`size=0`) says that it has no blocks at all.
fn room_in(blocks: u64, free: u64, block_bytes: u64) -> u64 {
    if blocks == 0 { u64::MAX } else { free.saturating_mul(block_bytes) }
}

/// Bytes of a segment in the address space. Dropped without [`Mapping::keep`] they are unmapped.
struct Mapping {
    /// A huge page more than asked for, so that the beginning can be aligned; nothing is there.
    room: NonNull<u8>,
    room_bytes: usize,
    base: NonNull<u8>,
}

impl Mapping {
    fn keep(self) -> NonNull<u8> {
        std::mem::ManuallyDrop::new(self).base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: these bytes were mapped by `map` for this value alone; `base` is dropped with it and
        // was given to nobody but who asked for huge pages.
        let _ = unsafe { munmap(self.room.cast(), self.room_bytes) };
    }
}

/// Maps the first `bytes` of a segment, large ones so that huge pages fit.
fn map(file: &File, bytes: usize) -> Result<Mapping, Errno> {
    let size = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let room = bytes.checked_add(HUGE_PAGE_BYTES).and_then(NonZeroUsize::new);
    let Some(room) = room.filter(|_| bytes >= HUGE_PAGE_BYTES) else {
        // SAFETY: a new mapping at an address the kernel chooses overlaps nothing that exists.
        let base = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, file, 0) }?.cast();
        return Ok(Mapping { room: base, room_bytes: bytes, base });
    };
    let nothing = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: as above; nothing can be read or written there.
    let reserved = unsafe { mmap_anonymous(None, room, ProtFlags::PROT_NONE, nothing) }?.cast();
    let mut mapping = Mapping { room: reserved, room_bytes: room.get(), base: reserved };
    let start = reserved.addr().get().next_multiple_of(HUGE_PAGE_BYTES);
    let at = NonZeroUsize::new(start).ok_or(Errno::EINVAL)?;
    let shared = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
    // SAFETY: `at..at + bytes` lies within what was just reserved (which is a huge page longer than
    // `bytes`, and rounding up adds less than one), and nobody else knows of that.
    mapping.base = unsafe { mmap(Some(at), size, access, shared, file, 0) }?.cast();
    Ok(mapping)
}

/// Has the kernel put a segment that nobody uses yet on huge pages, if it can.
fn ask_for_huge_pages(file: &File, base: NonNull<u8>, bytes: usize) {
    if bytes < HUGE_PAGE_BYTES {
        return;
    }
    for chunk in (0..bytes).step_by(HUGE_PAGE_BYTES) {
        // A huge page takes the place of small ones, so there must be one: from a hole none is made.
        if let Ok(offset) = i64::try_from(chunk)
            && nix::fcntl::posix_fallocate(file, offset, 1).is_err()
        {
            return;
        }
    }
    // SAFETY: changes which pages hold the bytes from `base` on, all of them mapped by `map`, and
    // nothing of what is in them.
    let _ = unsafe { nix::libc::madvise(base.as_ptr().cast(), bytes, MADV_COLLAPSE) };
}

/// Stores `bytes` from byte `at` of `words` on. For words that nobody else touches now: whoever does so
/// all the same finds or leaves mixed bytes, nothing worse.
///
/// # Panics
/// When they do not fit.
pub(crate) fn copy_in(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let room = (words.len() * WORD_BYTES).checked_sub(at);
    assert!(room.is_some_and(|room| bytes.len() <= room), "{} bytes at {at}", bytes.len());
    if bytes.len() < STRING_MOVE_BYTES {
        return crate::value::store_at(words, at, bytes);
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the source is a slice of `bytes.len()` bytes; the target is as many bytes of `words`, by
    // the assertion above, which are mapped or allocated, writable through the atomics' interior
    // mutability, and distinct from the source, which is not part of any atomic. See `move_bytes`.
    unsafe {
        move_bytes(words.as_ptr().cast::<u8>().add(at).cast_mut(), bytes.as_ptr(), bytes.len());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    crate::value::store_at(words, at, bytes);
}

/// Appends the first `len` bytes of `words` to `out`. For words that nobody else changes now, as
/// [`copy_in`].
///
/// # Panics
/// When there are not so many.
pub(crate) fn copy_out(words: &[AtomicU64], len: usize, out: &mut Vec<u8>) {
    assert!(len <= words.len() * WORD_BYTES, "{len} bytes of {} words", words.len());
    if len < STRING_MOVE_BYTES {
        return crate::value::load_bytes(words, len, out);
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        out.reserve(len);
        // SAFETY: the source is the first `len` bytes of `words`, by the assertion above; the target is
        // spare capacity of `out`, of which `reserve` made at least `len` bytes, all written before the
        // length says so. See `move_bytes`.
        unsafe {
            move_bytes(out.spare_capacity_mut().as_mut_ptr().cast(), words.as_ptr().cast(), len);
            out.set_len(out.len() + len);
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    crate::value::load_bytes(words, len, out);
}

/// Copies bytes by the processor's string move, which is as fast as `memcpy` and, unlike it, may meet
/// another process in the same bytes: to the compiler it is not a plain access but whatever the
/// instruction does, byte by byte.
///
/// # Safety
/// `from` has `len` readable bytes, `to` as many writable ones, and they do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn move_bytes(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the instruction reads `len` bytes from `from` and writes them to `to`, which the contract
    // of this function allows, and changes nothing but these three registers; the direction flag is
    // clear at each `asm!`.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

fn byte_size(words: usize) -> Result<usize, RegionError> {
    words
        .checked_mul(WORD_BYTES)
        .filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok())
        .ok_or(RegionError::Size { words })
}

/// Lives for microseconds; the random part keeps apart containers that share one `/dev/shm` and have
/// equal process numbers.
fn unused_name() -> String {
    let nonce = RandomState::new().build_hasher().finish();
    format!("/dunlin.{}.{nonce:016x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_region_is_zeroed_nameless_and_can_be_mapped_again() {
        let region = Region::create(1000).unwrap();
        assert_eq!(region.len_words(), 1000);
        assert!(region.words(0..1000).iter().all(|word| word.load(Relaxed) == 0));
        region.words(7..8)[0].store(42, Relaxed);

        // SAFETY: the region keeps its descriptor open for the life of the process.
        let kept = unsafe { BorrowedFd::borrow_raw(region.descriptor()) };
        let again = Region::from_descriptor(kept.try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(again.words(7..8)[0].load(Relaxed), 42);
        let looked_at = Region::to_look_at(kept.try_clone_to_owned().unwrap()).unwrap();
        region.words(8..9)[0].store(43, Relaxed);
        assert_eq!([7, 8].map(|at| looked_at.words(at..at + 1)[0].load(Relaxed)), [42, 43]);

        let name = std::fs::read_link(format!("/proc/self/fd/{}", region.descriptor())).unwrap();
        assert!(name.to_string_lossy().ends_with("(deleted)"), "{name:?}");
    }

    #[test]
    fn impossible_sizes_are_errors_that_say_the_number() {
        assert!(Region::create(0).unwrap_err().to_string().contains("0 words"));
        assert!(matches!(Region::create(usize::MAX), Err(RegionError::Size { .. })));
        // 4 PiB: more than any /dev/shm.
        let error = Region::create(1 << 49).unwrap_err();
        assert!(error.to_string().contains(&(1_u64 << 52).to_string()), "{error}");
    }

    #[test]
    fn a_segment_that_is_refused_leaves_no_mapping() {
        // Of a file that was opened for reading only, nothing can be mapped for writing.
        let file = File::open("/proc/self/exe").unwrap();
        // 2 TiB: 61 of them are all the address space that there is.
        for _ in 0..100 {
            assert_eq!(map(&file, 1 << 41).err(), Some(Errno::EACCES));
            assert!(matches!(Region::create(1 << 38), Err(RegionError::Reserve { .. })));
        }
    }

    #[test]
    fn what_has_no_limit_has_room_for_all() {
        assert_eq!(room_in(0, 0, 4096), u64::MAX);
        assert_eq!((room_in(10, 3, 4096), room_in(10, 0, 4096)), (12_288, 0));
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let words = crate::sync::heap_words(200);
        for len in [0, 1, 7, 8, 255, 256, 257, 1000, 1590] {
            for at in [0, 1, 8, 9] {
                copy_in(words, 0, &[0xaa; 1600]);
                let bytes: Vec<u8> = (0..len).map(|at: usize| at.to_le_bytes()[0] ^ 0x5a).collect();
                copy_in(words, at, &bytes);
                let mut out = vec![1, 2, 3];
                copy_out(words, at + len, &mut out);
                let expected = [&[1, 2, 3][..], &vec![0xaa; at], &bytes].concat();
                assert_eq!(out, expected, "{len} bytes at {at}");
                assert_eq!(words[199].load(Relaxed).to_ne_bytes()[7], 0xaa, "nothing behind");
            }
        }
    }

    #[test]
    #[should_panic(expected = "9 bytes at 8")]
    fn bytes_that_do_not_fit_panic() {
        copy_in(crate::sync::heap_words(2), 8, &[0; 9]);
    }

    #[test]
    fn areas_start_on_cache_lines() {
        let mut plan = Plan::new();
        let first = plan.reserve(3);
        let second = plan.reserve(9);
        assert_eq!(plan.words(), 24);
        let region = Region::create(plan.words()).unwrap();
        assert_eq!(first.words(region).len(), 3);
        assert_eq!(second.words(region).len(), 9);
        assert_eq!(second.words(region).as_ptr().addr() % 64, 0);
    }

    #[test]
    #[should_panic(expected = "outside a region")]
    fn a_range_outside_panics() {
        let _ = Region::create(8).unwrap().words(0..9);
    }
}
