//! Telling CPython ≥ 3.14 which C stack the thread is on.
//!
//! These versions raise RecursionError when the stack pointer comes near the end of the stack, and
//! abort when it is past it. The bounds are kept in `_PyThreadStateImpl`, whose layout patch
//! releases have changed, so they are only ever set through the functions made for it. 3.14.0 did
//! not have them; without them this module does not load.

use pyo3::ffi::PyThreadState;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type Set = unsafe extern "C" fn(*mut PyThreadState, *mut c_void, usize) -> c_int;
type Reset = unsafe extern "C" fn(*mut PyThreadState);

static SET: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static RESET: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Finds the two functions in the running interpreter. False if it has none.
pub(super) fn resolve() -> bool {
    // SAFETY: looks two names up among the symbols of the process.
    let (set, reset) = unsafe {
        (
            libc::dlsym(libc::RTLD_DEFAULT, c"PyUnstable_ThreadState_SetStackProtection".as_ptr()),
            libc::dlsym(
                libc::RTLD_DEFAULT,
                c"PyUnstable_ThreadState_ResetStackProtection".as_ptr(),
            ),
        )
    };
    SET.store(set, Ordering::Relaxed);
    RESET.store(reset, Ordering::Relaxed);
    !set.is_null() && !reset.is_null()
}

/// The thread is on `stack` now.
///
/// # Safety
///
/// `ts` must be the attached thread state; [`resolve`] must have succeeded.
#[inline(always)]
pub(super) unsafe fn set(ts: *mut PyThreadState, stack: &Range<usize>) {
    let set = SET.load(Ordering::Relaxed);
    // SAFETY: the function of that name has that type (Include/cpython/pystate.h). It fails only
    // for a stack below its minimum of some 50 KiB, and ours are larger.
    unsafe {
        let set: Set = std::mem::transmute::<*mut c_void, Set>(set);
        set(ts, stack.start as *mut c_void, stack.len());
    }
}

/// The thread is on its own stack again.
///
/// # Safety
///
/// As [`set`].
#[inline(always)]
pub(super) unsafe fn reset(ts: *mut PyThreadState) {
    let reset = RESET.load(Ordering::Relaxed);
    // SAFETY: as in `set`.
    unsafe {
        let reset: Reset = std::mem::transmute::<*mut c_void, Reset>(reset);
        reset(ts);
    }
}
