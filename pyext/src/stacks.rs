//! The stacks that fibers get: of which size, from which pool, and what is above their frames.
//!
//! All of it is used with the GIL held only.

use crate::error;
use fiberback::fiber::{Stack, StackPool};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

/// The stacks that workers run on.
struct Pools {
    first: StackPool,
    /// Smaller stacks, for when `first` can have no more address space. None if the size was set.
    fallback: Option<StackPool>,
}

struct Pool(UnsafeCell<Option<Pools>>);

// SAFETY: only accessed with the GIL held (`pool`, `fallback`, `set_stack_size`).
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new(None));

/// Virtual: a stack uses memory for the pages that it has touched.
///
/// Much of CPython's C code, and of extension modules', recurses without any check and relies on
/// the 8 MiB that a thread has: `hash()` of nested tuples, deallocation of chained iterators. So a
/// fiber must have no less. Twice that is room for the 10,000 nested C calls that 3.13 allows and
/// for 5,000 calls on 3.11, which counts Python's and C's in one. Beyond 2 MiB the size costs
/// nothing more: a suspended task takes one page of page tables (4.1 KiB; 2.1 at 1 MiB), and as
/// much resident memory as with any other size.
pub(crate) const DEFAULT_STACK_SIZE: usize = 16 * 1024 * 1024;
/// Where address space is scarce (`RLIMIT_AS`, `vm.overcommit_memory=2`, which counts it as
/// memory): what CPython's own checked recursions get by with. 3.11 needs more for its 1000 calls.
const SMALL_STACK_SIZE: usize = if cfg!(cpython = "3.11") { 4 * 1024 * 1024 } else { 1024 * 1024 };
/// Address space with which the default size is used: some thousand stacks of it.
const AMPLE_ADDRESS_SPACE: u64 = 32 << 30;
/// What the parser needs until it gets to its own recursion limit (measured: 640 KiB on 3.12), or
/// to the end of the stack that 3.14 looks out for.
pub(crate) const LEAST_STACK_SIZE: usize =
    if cfg!(any(cpython = "3.11", cpython = "3.12", cpython = "3.13")) { 768 } else { 256 } * 1024;

/// Bytes for the record of whoever has the stack (`Worker`).
pub(crate) const OWNER: usize =
    if cfg!(any(cpython = "3.11", cpython = "3.12", cpython = "3.13")) { 480 } else { 512 };

/// Above a fiber's frames are the record of the fiber layer, the owner's, and the chunk that the first
/// interpreter frames go to, which grows up as the C stack grows down. All begins in one page, so that is
/// the only one that a task touches which waits a few calls deep. This much of it is left to C frames.
const FIRST_C_FRAMES: usize =
    if cfg!(any(cpython = "3.11", cpython = "3.12")) { 1984 } else { 1920 };
pub(crate) const PAGE: usize = 4096;
/// At least as much as CPython's own chunks, so that not everybody needs a second one.
const LEAST_DATA_STACK: usize = 16 * 1024;
const RESERVE: usize = {
    let least = OWNER + LEAST_DATA_STACK + StackPool::RECORD_SIZE;
    // Such that the frames begin `FIRST_C_FRAMES` above the bottom of a page.
    least.next_multiple_of(PAGE) + (PAGE - FIRST_C_FRAMES) - StackPool::RECORD_SIZE
};
const _: () = assert!(RESERVE % 64 == 0 && OWNER % 16 == 0);

/// Where the owner's record goes, and the memory for the first interpreter frames. Both are the owner's
/// as long as it has the stack.
pub(crate) fn reserved(stack: &Stack) -> (NonNull<u8>, NonNull<[u8]>) {
    let memory = stack.reserved();
    assert!(memory.len() == RESERVE);
    let owner = memory.cast::<u8>();
    // SAFETY: within the reserved bytes, of which there are more.
    let rest = unsafe { owner.add(OWNER) };
    (owner, NonNull::slice_from_raw_parts(rest, RESERVE - OWNER))
}

fn pools() -> *mut Pools {
    // SAFETY: the GIL is held, and the borrow ends before anything can release it.
    unsafe { (*POOL.0.get()).get_or_insert_with(default_pools) }
}

fn default_pools() -> Pools {
    let make = |size| new_pool(size).expect("a valid size");
    if address_space_is_scarce() {
        return Pools { first: make(SMALL_STACK_SIZE), fallback: None };
    }
    Pools { first: make(DEFAULT_STACK_SIZE), fallback: Some(make(SMALL_STACK_SIZE)) }
}

/// The current pool; a cheap handle.
pub(crate) fn pool() -> StackPool {
    // SAFETY: as in `pools`.
    unsafe { (*pools()).first.clone() }
}

/// The pool of smaller stacks, if there is one.
pub(crate) fn fallback() -> Option<StackPool> {
    // SAFETY: as in `pools`.
    unsafe { (*pools()).fallback.clone() }
}

fn new_pool(stack_size: usize) -> Result<StackPool, fiberback::StackError> {
    StackPool::builder()
        .stack_size(stack_size)
        .reserve(RESERVE)
        .overflow_advice(
            "Deep recursion in C code that CPython does not check. Give portals more: \
             `fiberback.set_stack_size(bytes)`, before they are made.",
        )
        .build()
}

/// Whether large mappings that are never touched count against some limit.
fn address_space_is_scarce() -> bool {
    address_space_is_limited()
        || std::fs::read("/proc/sys/vm/overcommit_memory")
            .is_ok_and(|mode| mode.first() == Some(&b'2'))
}

fn address_space_is_limited() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills in the structure.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    known && limit.rlim_cur != libc::RLIM_INFINITY && limit.rlim_cur < AMPLE_ADDRESS_SPACE
}

/// What a stack is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of the size that was asked for.
    Regular,
    /// Smaller: no address space is left for those.
    Small,
}

/// A stack from the pool. None with `StackMemoryError` set if there is none.
pub(crate) fn take() -> Option<(Stack, Kind)> {
    let (pool, fallback) = (pool(), fallback());
    let small = fallback.as_ref();
    if !reserve::hold() {
        // Memory ran out earlier, and is still short.
        let stack = idle(&pool, small);
        if stack.is_none() {
            error::set_no_memory();
        }
        return stack;
    }
    // If the limit was set since, the large stacks would use all of it up.
    let regular =
        if small.is_some() && address_space_is_limited() { None } else { Some(pool.take()) };
    let taken = match (regular, small) {
        (Some(Ok(stack)), _) => Ok((stack, Kind::Regular)),
        (_, Some(small)) => small.take().map(|stack| (stack, Kind::Small)),
        (Some(Err(error)), None) => Err(error),
        (None, None) => unreachable!("only left out where there are small ones"),
    };
    match taken {
        Ok(stack) => Some(stack),
        Err(error) => {
            reserve::release();
            let stack = idle(&pool, small);
            if stack.is_none() {
                error::set_no_stack(&error);
            }
            stack
        }
    }
}

/// A stack that is there already.
fn idle(pool: &StackPool, small: Option<&StackPool>) -> Option<(Stack, Kind)> {
    let kinds = [(Some(pool), Kind::Regular), (small, Kind::Small)];
    let (pool, kind) = kinds.into_iter().find_map(|(pool, kind)| {
        let stats = pool?.stats();
        (stats.warm + stats.cold > 0).then_some((pool?, kind))
    })?;
    Some((pool.take().ok()?, kind))
}

/// Address space kept for the rest of the process.
///
/// The pool takes address space until there is no more, and with nothing left for its own
/// allocations CPython can hardly tell anybody. So a little is kept aside as long as the pool finds
/// some, and given up when it does not.
mod reserve {
    use std::ffi::c_void;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    const SIZE: usize = 32 * 1024 * 1024;

    static HELD: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

    /// Makes sure that the reserve is there. False if it cannot be had. Needs the GIL.
    pub(super) fn hold() -> bool {
        if !HELD.load(Ordering::Relaxed).is_null() {
            return true;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at no particular address, which nobody reads or writes.
        let held = unsafe { libc::mmap(ptr::null_mut(), SIZE, libc::PROT_NONE, flags, -1, 0) };
        if held == libc::MAP_FAILED {
            return false;
        }
        HELD.store(held, Ordering::Relaxed);
        true
    }

    /// Gives the reserve up. Needs the GIL.
    pub(super) fn release() {
        let held = HELD.swap(ptr::null_mut(), Ordering::Relaxed);
        if !held.is_null() {
            // SAFETY: our own mapping, given up by nobody else.
            unsafe { libc::munmap(held, SIZE) };
        }
    }
}

/// Makes new workers' stacks `bytes` long. Existing ones stay as they are.
pub(crate) fn set_stack_size(bytes: usize) -> Result<(), fiberback::StackError> {
    let pool = new_pool(bytes)?;
    // SAFETY: the GIL is held, and nothing borrows the option beyond an expression.
    unsafe { *POOL.0.get() = Some(Pools { first: pool, fallback: None }) };
    Ok(())
}
