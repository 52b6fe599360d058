//! Signals that are told to a thread by a pipe, whatever the rest of the process is doing.
//!
//! Handlers of the `signal` module run in the main thread, between two instructions of Python's: not while that
//! thread is in C code that goes on for ever, or waits for a lock. Here the handler itself writes a byte, which
//! a thread that reads the pipe gets as soon as it can have the GIL.
//!
//! # Invariant
//!
//! The handler calls nothing but `getpid` and `write` (both async-signal-safe, signal-safety(7)), and leaves
//! `errno` as it was. What it reads are atomics.

use crate::barrier::barrier;
use crate::{arguments, error};
use pyo3::ffi::{self, PyObject};
use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// One more than the largest signal (`NSIG` of the kernel's).
const SIGNALS: usize = 65;

/// Where each signal is written to, or -1.
static FILES: [AtomicI32; SIGNALS] = [const { AtomicI32::new(-1) }; SIGNALS];
/// The process that the files belong to: a forked child has them, too, and they lead to its parent.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// What the signals did before, if the handler is there.
struct Before {
    is_ours: [AtomicBool; SIGNALS],
    actions: UnsafeCell<[MaybeUninit<libc::sigaction>; SIGNALS]>,
}

// SAFETY: `actions` is reached with the GIL held, and not by the handler.
unsafe impl Sync for Before {}

static BEFORE: Before = Before {
    is_ours: [const { AtomicBool::new(false) }; SIGNALS],
    actions: UnsafeCell::new([const { MaybeUninit::uninit() }; SIGNALS]),
};

/// Where the calling thread's `errno` is.
fn errno() -> *mut c_int {
    // SAFETY: no preconditions.
    unsafe {
        #[cfg(target_os = "macos")]
        return libc::__error();
        #[cfg(not(target_os = "macos"))]
        return libc::__errno_location();
    }
}

extern "C" fn handle(signal: c_int) {
    let Some(file) = usize::try_from(signal).ok().and_then(|signal| FILES.get(signal)) else {
        return;
    };
    let file = file.load(Ordering::Relaxed);
    // SAFETY: async-signal-safe functions, with one byte to write; `errno` is this thread's. If the pipe is
    // full, enough is to be told anyway.
    unsafe {
        if file < 0 || libc::getpid() != OWNER.load(Ordering::Relaxed) {
            return;
        }
        let errno = errno();
        let before = *errno;
        let byte = signal as u8;
        libc::write(file, (&raw const byte).cast(), 1);
        *errno = before;
    }
}

/// `_fiberback.write_on_signal(signum, fd)`.
pub(crate) unsafe extern "C" fn write_on_signal(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says, borrowed.
        unsafe {
            let usage = "write_on_signal() takes the numbers of a signal and of a file";
            let suit = |both: &[_; 2]| both.iter().all(|&object| ffi::PyLong_Check(object) != 0);
            let Some(numbers) = arguments::exactly(arguments, count, usage, suit) else {
                return ptr::null_mut();
            };
            let [signal, file] = numbers.map(|object| ffi::PyLong_AsLong(object));
            if !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            let index = usize::try_from(signal).unwrap_or(0);
            let (true, Ok(file)) = ((1..SIGNALS).contains(&index), c_int::try_from(file)) else {
                error::set(ffi::PyExc_ValueError, "write_on_signal() takes no such numbers");
                return ptr::null_mut();
            };
            if set(index, file) {
                return ffi::Py_NewRef(ffi::Py_None());
            }
            ffi::PyErr_SetFromErrno(ffi::PyExc_OSError)
        }
    })
}

/// False with `errno` set.
unsafe fn set(signal: usize, file: c_int) -> bool {
    let is_ours = &BEFORE.is_ours[signal];
    // SAFETY: attached, so that nobody else is here; valid structures, of which `sigaction` fills in one.
    unsafe {
        let before: *mut libc::sigaction = (*BEFORE.actions.get())[signal].as_mut_ptr();
        if file < 0 {
            FILES[signal].store(-1, Ordering::Relaxed);
            if !is_ours.swap(false, Ordering::Relaxed) {
                return true;
            }
            // Not if somebody else has taken it meanwhile.
            let mut now = MaybeUninit::<libc::sigaction>::zeroed();
            if libc::sigaction(signal as c_int, ptr::null(), now.as_mut_ptr()) != 0 {
                return false;
            }
            return now.assume_init().sa_sigaction != handler()
                || libc::sigaction(signal as c_int, before, ptr::null_mut()) == 0;
        }
        OWNER.store(libc::getpid(), Ordering::Relaxed);
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        if libc::sigaction(signal as c_int, ptr::null(), now.as_mut_ptr()) != 0 {
            return false;
        }
        FILES[signal].store(file, Ordering::Relaxed);
        let now = now.assume_init();
        if now.sa_sigaction == handler() {
            return true;
        }
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler();
        // Calls of the system's go on; and on a stack of its own, if the thread has one.
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(signal as c_int, &raw const action, ptr::null_mut()) != 0 {
            FILES[signal].store(-1, Ordering::Relaxed);
            return false;
        }
        before.write(now);
        is_ours.store(true, Ordering::Relaxed);
        true
    }
}

fn handler() -> libc::sighandler_t {
    handle as extern "C" fn(c_int) as libc::sighandler_t
}
