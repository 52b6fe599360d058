//! Where stacks come from: settings, handles and counts of a pool.

#![allow(unsafe_code)]

use super::current;
use super::depot::{Batch, Depot, Shared, pointer};
use super::memory::{Arena, Geometry, GuardPages, RECORD_SIZE, RESERVE_ALIGNMENT};
use super::samples::Samples;
use super::stack::Stack;
use super::warm;
use crate::error::StackError;
use std::collections::BTreeMap;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Usable bytes of a stack unless set otherwise: virtual memory, of which a fiber costs the pages
/// it touches.
const DEFAULT_STACK_SIZE: usize = 2 << 20;
/// C code compiled without stack probes may step over a page; this is four of the smallest.
const DEFAULT_GUARD_SIZE: usize = 16 << 10;
/// Below this a panic's message with its backtrace may not fit (tests/pool.rs prints one).
const MIN_STACK_SIZE: usize = 64 << 10;
/// More is a mistake in units.
const MAX_STACK_SIZE: usize = 1 << 36;
const MAX_RESERVE: usize = 1 << 30;

const DEFAULT_OVERFLOW_ADVICE: &str =
    "Give it more: `fiberback::Builder::new().stack_size(bytes)`.";

const DEFAULT_WARM_PER_THREAD: usize = 256;
const DEFAULT_HIGH_WATER_MARK: usize = 4096;
/// Few fibers touch more than 4 KiB, so that this seldom is less than the above.
const DEFAULT_HIGH_WATER_BYTES: usize = 16 << 20;
/// Long enough to be sure that a burst is over.
const DEFAULT_IDLE_TRIM: Duration = Duration::from_secs(5);

/// Settings for a [`StackPool`]. Made by [`StackPool::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct StackPoolBuilder {
    stack_size: usize,
    guard_size: usize,
    guard_pages: GuardPages,
    warm_per_thread: usize,
    high_water_mark: usize,
    high_water_bytes: usize,
    idle_trim: Duration,
    max_stacks: usize,
    reserve: usize,
    overflow_advice: &'static str,
}

impl StackPoolBuilder {
    /// Usable bytes of each stack, rounded up to whole pages (unless set, what the environment variable
    /// `RUST_MIN_STACK` says, as for threads, or 2 MiB; at least 64 KiB, at most 64 GiB).
    ///
    /// This is address space; only touched pages cost memory, and the page tables that lead to them: a
    /// 4 KiB page of those for each 2 MiB of address space in which anything is touched, so 4 KiB for a
    /// stack of 2 MiB and 2 KiB for one of 1 MiB.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }

    /// Bytes below each stack that fault, rounded up to whole pages (16 KiB unless set, which is
    /// also the least).
    pub fn guard_size(mut self, bytes: usize) -> Self {
        self.guard_size = bytes;
        self
    }

    /// How guards are made.
    pub fn guard_pages(mut self, kind: GuardPages) -> Self {
        self.guard_pages = kind;
        self
    }

    /// How many idle stacks each thread keeps for itself, pages and all (256 unless set; at least
    /// 1).
    pub fn warm_per_thread(mut self, stacks: usize) -> Self {
        self.warm_per_thread = stacks;
        self
    }

    /// How many further idle stacks the pool keeps resident (4096 unless set). Above this mark the
    /// pages of returned stacks are given back to the system, a batch at a time.
    pub fn high_water_mark(mut self, stacks: usize) -> Self {
        self.high_water_mark = stacks;
        self
    }

    /// How many bytes of idle stacks the pool keeps resident (16 MiB unless set), and each thread an eighth of
    /// that in addition. Above this mark the pages of the oldest are given back to the system. Counts only on
    /// Linux.
    ///
    /// So this is what a burst of fibers leaves behind, however many and deep they were: 16 MiB, and 2 MiB for
    /// each thread. It is estimated: of stacks that have touched much every other one is asked, of others one in
    /// sixteen. Of fibers that differ much, twice as much may be left; and a thread's last few (four; after
    /// fibers that touch little, 32) may not have been asked at all.
    pub fn high_water_bytes(mut self, bytes: usize) -> Self {
        self.high_water_bytes = bytes;
        self
    }

    /// For how long a stack may lie idle with its pages (5 s unless set) before these are given back to the
    /// system. No thread watches: it is looked for when stacks are taken or returned, once in some
    /// hundred times, and may take up to twice as long. Where no stack is taken or returned any more, nothing is
    /// looked for: what a burst has left, at most [16 MiB and 2 MiB for each thread](Self::high_water_bytes), stays
    /// until somebody calls [`StackPool::trim`], as a program should that is done with fibers for a while; or until
    /// the thread ends, as for its own 2 MiB. (`fiberback::tokio::PinnedPool` trims by itself.)
    pub fn idle_trim(mut self, period: Duration) -> Self {
        self.idle_trim = period;
        self
    }

    /// The most stacks the pool ever makes (no limit unless set). Threads keep no stacks of such a
    /// pool for themselves, so that an idle one serves whoever asks; taking one then takes a lock.
    pub fn max_stacks(mut self, stacks: usize) -> Self {
        self.max_stacks = stacks;
        self
    }

    /// Bytes at the top of each stack, above all frames, for whoever runs fibers on the stacks:
    /// [`Stack::reserved`], [`Fiber::reserved`](super::Fiber::reserved). Rounded up to a multiple
    /// of 64; none unless set; at most 1 GiB. Not part of
    /// [`stack_size`](Self::stack_size).
    ///
    /// On Linux they begin right above the record that the fiber layer keeps of the fiber
    /// ([`RECORD_SIZE`](StackPool::RECORD_SIZE) bytes), and that lies right above the first
    /// frame. They end at the end of a page, but need not begin at the beginning of one, and then
    /// what is at their beginning shares a page with the first frames. Elsewhere they are on the heap: of a
    /// Windows stack only the highest pages are there before they are needed, and those are the frames'.
    pub fn reserve(mut self, bytes: usize) -> Self {
        self.reserve = bytes;
        self
    }

    /// What the report of an overflown stack tells its reader to do. Unless set, it names
    /// [`crate::Builder::stack_size`].
    ///
    /// For whoever owns the pool and has a setting of their own for the size: a library, or a
    /// binding to another language. One or more whole lines of text, without the last line break.
    /// (`'static`, because a signal handler reads it while everything else may be broken.)
    pub fn overflow_advice(mut self, text: &'static str) -> Self {
        self.overflow_advice = text;
        self
    }

    /// Makes the pool. No memory is reserved before the first stack is taken.
    ///
    /// # Errors
    ///
    /// If a size is out of range; the error names the setting and the range.
    pub fn build(self) -> Result<StackPool, StackError> {
        if !(MIN_STACK_SIZE..=MAX_STACK_SIZE).contains(&self.stack_size) {
            return Err(StackError::bad_size("stack_size", MIN_STACK_SIZE, MAX_STACK_SIZE));
        }
        if self.guard_size > MAX_STACK_SIZE {
            return Err(StackError::bad_size("guard_size", DEFAULT_GUARD_SIZE, MAX_STACK_SIZE));
        }
        if self.reserve > MAX_RESERVE {
            return Err(StackError::bad_size("reserve", 0, MAX_RESERVE));
        }
        let page = page_size();
        let geometry = Geometry {
            stack_size: self.stack_size.next_multiple_of(page),
            guard_size: self.guard_size.max(DEFAULT_GUARD_SIZE).next_multiple_of(page),
            guard_pages: self.guard_pages,
            reserve: self.reserve.next_multiple_of(RESERVE_ALIGNMENT),
            page_size: page,
        };
        let shared = Arc::new(Shared {
            geometry,
            warm_per_thread: self.warm_per_thread.clamp(1, 1 << 20),
            high_water_mark: self.high_water_mark,
            high_water_bytes: self.high_water_bytes,
            idle_trim: self.idle_trim,
            max_stacks: self.max_stacks,
            overflow_advice: self.overflow_advice,
            closed: AtomicBool::new(false),
            leaked: AtomicUsize::new(0),
            depot: Mutex::new(Depot {
                warm: Vec::new(),
                warm_bytes: 0,
                cold: Vec::new(),
                made: 0,
                caches: Vec::new(),
                samples: Samples::new(),
                arena: Arena::new(geometry),
            }),
        });
        Ok(StackPool { handle: Arc::new(Handle { shared }) })
    }
}

/// The size unless set. `RUST_MIN_STACK` is read once and by the rules of `std::thread`, where what is not
/// a number counts for nothing; what is out of range is taken for the nearest that is not.
fn default_stack_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        std::env::var("RUST_MIN_STACK")
            .ok()
            .and_then(|bytes| bytes.parse().ok())
            .map_or(DEFAULT_STACK_SIZE, |bytes: usize| bytes.clamp(MIN_STACK_SIZE, MAX_STACK_SIZE))
    })
}

/// The least that is at least `size`, of 4, 5, 6 and 7 times the powers of two.
///
/// What is out of range stays so.
fn size_class(size: usize) -> usize {
    if size < MIN_STACK_SIZE {
        return size;
    }
    let quarter = size.ilog2() - 2;
    size.checked_next_multiple_of(1 << quarter).unwrap_or(size)
}

#[cfg(target_os = "linux")]
fn page_size() -> usize {
    super::memory::page_size()
}

/// A multiple of the page size on every platform that has no slabs here.
#[cfg(not(target_os = "linux"))]
fn page_size() -> usize {
    64 << 10
}

/// Where stacks come from and go back to. Cheap to clone; clones are the same pool.
///
/// The memory of a pool is unmapped when its last handle is dropped and its last stack is back.
/// Stacks that threads keep warm are back when the thread ends, trims, or next returns one.
///
/// ```
/// use fiberback::fiber::StackPool;
///
/// let pool = StackPool::builder().stack_size(64 * 1024).build()?;
/// let stack = pool.take()?;
/// assert!(stack.range().len() >= 63 * 1024);
/// drop(stack);
/// assert_eq!(pool.stats().in_use, 0);
/// # Ok::<(), fiberback::StackError>(())
/// ```
#[derive(Clone)]
pub struct StackPool {
    handle: Arc<Handle>,
}

/// The last of a pool's handles closes it.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        drop(warm::forget_list(pointer(&self.shared)));
    }
}

/// A stack from the pool that the calling fiber's own is from; off a fiber, from the process's.
pub(crate) fn take_stack_alike() -> Result<Stack, StackError> {
    current::with(|current| {
        let Some(shared) = NonNull::new(current.pool.get().cast_mut()) else {
            return StackPool::global().take();
        };
        // SAFETY: the fiber that we are on holds its stack, and that one strong reference, which came
        // from `Arc::into_raw`; this one is given back by nobody.
        let shared = ManuallyDrop::new(unsafe { Arc::from_raw(shared.as_ptr().cast_const()) });
        take_from(&shared)
    })
}

#[inline]
fn take_from(shared: &Arc<Shared>) -> Result<Stack, StackError> {
    match warm::take(pointer(shared)) {
        // SAFETY: the slot was in this thread's list, with its strong reference.
        Some(slot) => Ok(unsafe { Stack::from_parts(slot, pointer(shared)) }),
        None => take_from_depot(shared),
    }
}

#[cold]
fn take_from_depot(shared: &Arc<Shared>) -> Result<Stack, StackError> {
    #[cfg(target_os = "linux")]
    super::overflow::prepare_thread();
    #[cfg(windows)]
    super::overflow_windows::prepare_thread();
    let mut batch = Batch::default();
    let grown = match shared.withdraw(&mut batch) {
        Ok(grown) => grown,
        Err(error) => {
            crate::events::pool_exhausted(&error);
            return Err(error);
        }
    };
    for _ in &batch.slots {
        // One for each slot that is now outside the depot.
        mem::forget(Arc::clone(shared));
    }
    let slot = batch.slots.pop().expect("at least one was withdrawn");
    // SAFETY: taken out of the depot above, with its reference.
    let stack = unsafe { Stack::from_parts(slot, pointer(shared)) };
    // SAFETY: as for `stack`.
    unsafe { warm::keep(shared, batch) };
    if grown > 0 {
        crate::events::pool_grew(grown / shared.geometry.stride(), grown);
    }
    Ok(stack)
}

/// A count of a pool's stacks and memory. Made by [`StackPool::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Usable bytes of each stack.
    pub stack_size: usize,
    /// Bytes below each stack that fault.
    pub guard_size: usize,
    /// Stacks in use, forgotten ones included.
    pub in_use: usize,
    /// Those in use that were given up, and will never be idle again: by [`Fiber::leak`](super::Fiber::leak), and
    /// where a suspended [`Run`](crate::Run) was dropped that could not be unwound (at the end of its thread; in
    /// a program with `panic = "abort"`). Those of `mem::forget`,
    /// and of fibers that are owned by one that was given up, are not counted.
    pub leaked: usize,
    /// Idle stacks whose pages are resident.
    pub warm: usize,
    /// Bytes that are resident of those of them that no thread keeps for itself. Linux only.
    pub warm_bytes: usize,
    /// Idle stacks whose pages were given back, or never touched.
    pub cold: usize,
    /// The most stacks that ever existed at once: in use, warm or cold. Never falls.
    pub high_water: usize,
    /// Address space reserved, in bytes.
    pub reserved_bytes: usize,
}

impl StackPool {
    /// Bytes of the record that the fiber layer keeps between a stack's frames and its
    /// [reserved bytes](StackPoolBuilder::reserve).
    pub const RECORD_SIZE: usize = RECORD_SIZE;

    /// Settings for a pool of one's own.
    pub fn builder() -> StackPoolBuilder {
        StackPoolBuilder {
            stack_size: default_stack_size(),
            guard_size: DEFAULT_GUARD_SIZE,
            guard_pages: GuardPages::Auto,
            warm_per_thread: DEFAULT_WARM_PER_THREAD,
            high_water_mark: DEFAULT_HIGH_WATER_MARK,
            high_water_bytes: DEFAULT_HIGH_WATER_BYTES,
            idle_trim: DEFAULT_IDLE_TRIM,
            max_stacks: usize::MAX,
            reserve: 0,
            overflow_advice: DEFAULT_OVERFLOW_ADVICE,
        }
    }

    /// The process's default pool, with the default settings.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<StackPool> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::builder().build().expect("the default settings are in range"))
    }

    /// The process's shared pool for stacks of at least this many bytes; one for each class of sizes. A size
    /// that is no power of two is rounded up to the next quarter on the way to the next one, so that even a
    /// program of a thousand sizes has a few dozen pools.
    ///
    /// # Errors
    ///
    /// If the size is out of range, as in [`StackPoolBuilder::build`].
    pub fn of_size(stack_size: usize) -> Result<Self, StackError> {
        let global = Self::global();
        if stack_size == default_stack_size() || stack_size == global.stack_size() {
            return Ok(global.clone());
        }
        static BY_SIZE: Mutex<BTreeMap<usize, StackPool>> = Mutex::new(BTreeMap::new());
        let pool = Self::builder().stack_size(size_class(stack_size)).build()?;
        let size = pool.handle.shared.geometry.stack_size;
        let mut pools = BY_SIZE.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(pools.entry(size).or_insert(pool).clone())
    }

    /// Usable bytes of this pool's stacks.
    pub fn stack_size(&self) -> usize {
        self.handle.shared.geometry.stack_size
    }

    /// Takes an idle stack, or makes one.
    ///
    /// # Errors
    ///
    /// If the system has no more address space or memory mappings, or the pool's
    /// [`max_stacks`](StackPoolBuilder::max_stacks) are all in use. Nothing is lost: taking works
    /// again once stacks are back.
    #[inline]
    pub fn take(&self) -> Result<Stack, StackError> {
        take_from(&self.handle.shared)
    }

    /// Gives the pages of this pool's idle stacks back to the system: those in the depot and those
    /// that the calling thread keeps. Returns the bytes of stack that were given back, touched or not: 0
    /// where the system cannot (platforms other than Linux, some emulators, locked memory), and the
    /// stacks are then still [warm](PoolStats::warm). Other threads' warm stacks are left alone.
    pub fn trim(&self) -> usize {
        let shared = &self.handle.shared;
        drop(warm::forget_list(pointer(shared)));
        let mut depot = shared.depot();
        let count = depot.warm.len();
        let bytes = depot.discard_first(count);
        drop(depot);
        crate::events::pool_trimmed(bytes);
        bytes
    }

    /// Counts the pool's stacks. While other threads take and return stacks, the counts may be
    /// off by what they are just moving.
    pub fn stats(&self) -> PoolStats {
        let shared = &self.handle.shared;
        let depot = shared.depot();
        let kept: usize = depot.caches.iter().map(|gauge| gauge.load(Ordering::Relaxed)).sum();
        let warm = depot.warm.len() + kept;
        let cold = depot.cold.len();
        PoolStats {
            stack_size: shared.geometry.stack_size,
            guard_size: shared.geometry.guard_size,
            in_use: depot.made.saturating_sub(warm + cold),
            leaked: shared.leaked.load(Ordering::Relaxed),
            warm,
            warm_bytes: depot.warm_bytes,
            cold,
            high_water: depot.made,
            reserved_bytes: depot.arena.reserved_bytes(),
        }
    }
}

impl fmt::Debug for StackPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StackPool").field(&self.stats()).finish()
    }
}
