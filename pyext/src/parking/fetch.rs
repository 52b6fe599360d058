//! What a caller needs that is about to go on, fetched by the processor beforehand.
//!
//! With hundreds of parked callers none of that is in a near cache any more, and each of some seventy lines would
//! be waited for by itself. Who waits for its turn in the loop's queue is known: so the lines of the next one are
//! fetched while the one before it runs.

use super::driver::{Driver, Parked, ready_count};
use super::handle;
use super::waker;
use crate::worker::Worker;
use pyo3::ffi;
use std::ptr;

/// Bytes of a parked stack, from its end up, in which the frames are that it goes on with.
const NEXT_FRAMES: usize = 1024;
/// Bytes below them, which the calls that are made next take.
const NEXT_CALLS: usize = 1280;
/// Bytes beyond the worker in which the interpreter's frames are.
const PYTHON_FRAMES: usize = 512;
/// Bytes of a handle that are looked at.
const HANDLE: usize = 128;
/// The same of a waker, a future, a task, or a coroutine with its frame.
const OBJECT: usize = 256;
const CACHE_LINE: usize = 64;
/// So few callers are in the near cache anyway.
const FEW_PARKED: usize = 32;

/// The caller is about to go on.
///
/// # Safety
///
/// The caller waits.
pub(super) unsafe fn prefetch(parked: *mut Parked) {
    // SAFETY: the contract; its driver is in use.
    unsafe {
        let worker: *const u8 = (*parked).worker.cast();
        if worker.is_null() || (*(*parked).driver).parked < FEW_PARKED {
            return;
        }
        prefetch_lines((*parked).frames.wrapping_sub(NEXT_CALLS), NEXT_CALLS + NEXT_FRAMES);
        prefetch_lines(worker, size_of::<Worker>() + PYTHON_FRAMES);
        for object in [(*parked).task, (*parked).iterator, (*parked).future] {
            prefetch_lines(object.cast(), OBJECT);
        }
    }
}

/// A caller goes on: has those fetched that the loop's next callbacks wake, if that is what they do.
///
/// # Safety
///
/// Attached, no error set, on the driver's thread; its queue is exactly a deque.
pub(super) unsafe fn prefetch_next(driver: *mut Driver) {
    // SAFETY: the contract. The queue has the handles, and the handles have what they call.
    unsafe {
        if (*driver).parked < FEW_PARKED {
            return;
        }
        // Each leads to the next: so one turn for the handle, one for what it calls, and one for the stack.
        let count = ready_count(driver);
        let [next, second, third] = [0, 1, 2].map(|at| {
            if at >= count {
                return ptr::null_mut();
            }
            let handle = ffi::PySequence_GetItem((*driver).ready, at);
            ffi::Py_XDECREF(handle);
            handle
        });
        prefetch_lines(third.cast(), HANDLE);
        prefetch_lines(handle::callback(second).cast(), OBJECT);
        let waker = waker::of_a_wait(handle::callback(next));
        if !waker.is_null() && (*waker).driver == driver {
            prefetch((*waker).parked);
        }
    }
}

/// Nothing is fetched from null.
#[inline(always)]
fn prefetch_lines(start: *const u8, bytes: usize) {
    if start.is_null() {
        return;
    }
    for at in (0..bytes).step_by(CACHE_LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: it reads nothing, and never faults, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = start.wrapping_add(at);
    }
}
