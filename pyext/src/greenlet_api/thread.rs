//! What a thread knows of its greenlets, and which of them is current.
//!
//! # Invariant
//!
//! A record is in its thread state's dictionary, in a capsule, and is freed with that: on its thread, when the
//! thread ends, or by whoever deletes the thread states of threads that are no more. `RECORD` is null, or
//! points to a record that is alive; it is used only after its thread state was compared with the attached one.

use super::layout::{Greenlet, Inner, Phase, Record, TYPE, drop_ref};
use crate::thread::Thread;
use crate::worker::{self, Worker};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

thread_local! {
    static RECORD: Cell<*mut Record> = const { Cell::new(ptr::null_mut()) };
}

const NAME: &CStr = c"fiberback.greenlet._record";

/// How many main greenlets there are.
static MAINS: AtomicUsize = AtomicUsize::new(0);

/// What ends a thread's greenlets: a [`AtEnd`].
static AT_END: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// What is called before a thread's record is freed, on its thread, attached, with no error set.
pub(super) type AtEnd = unsafe fn(*mut Record);

/// Sets what is called before a record is freed.
pub(super) fn set_at_end(function: AtEnd) {
    AT_END.store(function as *mut c_void, Ordering::Relaxed);
}

/// How many main greenlets there are.
pub(super) fn mains() -> usize {
    MAINS.load(Ordering::Relaxed)
}

/// A main greenlet is freed.
pub(super) fn forget_main() {
    MAINS.fetch_sub(1, Ordering::Relaxed);
}

/// The calling thread's record, made on first use; null with an error set on failure. Does what other threads
/// have left this one to do, which may run any code.
///
/// # Safety
///
/// Attached; an error that is set stays.
#[inline(always)]
pub(super) unsafe fn record() -> *mut Record {
    // SAFETY: attached.
    unsafe {
        Thread::read_mail(Thread::this());
        quiet_record()
    }
}

/// [`record`], and nothing else is done.
///
/// # Safety
///
/// Attached.
#[inline(always)]
pub(super) unsafe fn quiet_record() -> *mut Record {
    let record = RECORD.with(Cell::get);
    // SAFETY: attached; null, or alive.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        if !record.is_null() && ptr::eq((*record).thread_state, ts) {
            return record;
        }
        find(ts)
    }
}

#[cold]
unsafe fn find(ts: *mut PyThreadState) -> *mut Record {
    // SAFETY: attached; the dictionary is borrowed from the thread state.
    unsafe {
        let dict = ffi::PyThreadState_GetDict();
        if dict.is_null() {
            ffi::PyErr_NoMemory();
            return ptr::null_mut();
        }
        let capsule = ffi::PyDict_GetItemString(dict, NAME.as_ptr());
        let record = if capsule.is_null() {
            make(ts, dict)
        } else {
            ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast()
        };
        if !record.is_null() {
            RECORD.with(|place| place.set(record));
        }
        record
    }
}

unsafe fn make(ts: *mut PyThreadState, dict: *mut PyObject) -> *mut Record {
    // SAFETY: attached; all is owned by what it is put into.
    unsafe {
        let main: *mut Greenlet = ffi::PyType_GenericAlloc(TYPE.get(), 0).cast();
        if main.is_null() {
            return ptr::null_mut();
        }
        // A collection that the allocation has begun may have made one.
        let capsule = ffi::PyDict_GetItemString(dict, NAME.as_ptr());
        if !capsule.is_null() {
            drop_ref(main);
            return ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast();
        }
        let record =
            Box::into_raw(Box::new(Record { thread_state: ts, main, trace: ptr::null_mut() }));
        let mut inner = Inner::new();
        inner.phase = Phase::Active;
        inner.is_main = true;
        inner.record = record;
        (*main).inner = Box::into_raw(Box::new(inner));
        MAINS.fetch_add(1, Ordering::Relaxed);
        let capsule = ffi::PyCapsule_New(record.cast(), NAME.as_ptr(), Some(end));
        if capsule.is_null() {
            end_record(record);
            return ptr::null_mut();
        }
        let failed = ffi::PyDict_SetItemString(dict, NAME.as_ptr(), capsule) < 0;
        ffi::Py_DECREF(capsule);
        if failed { ptr::null_mut() } else { record }
    }
}

/// The thread state is deleted.
unsafe extern "C" fn end(capsule: *mut PyObject) {
    // SAFETY: the capsule's only content.
    unsafe {
        let record: *mut Record = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast();
        let at_end = AT_END.load(Ordering::Relaxed);
        // Others may delete it: the exiting interpreter, a forked child.
        if !at_end.is_null() && ptr::eq((*record).thread_state, ffi::PyThreadState_Get()) {
            let at_end = std::mem::transmute::<*mut c_void, AtEnd>(at_end);
            RECORD.with(|place| place.set(record));
            crate::error::keeping(|| at_end(record));
        }
        end_record(record);
    }
}

unsafe fn end_record(record: *mut Record) {
    // SAFETY: nobody uses it any more: its thread runs no more code in greenlets. The main greenlet says so to
    // all that know it.
    unsafe {
        RECORD.with(|place| {
            if ptr::eq(place.get(), record) {
                place.set(ptr::null_mut());
            }
        });
        let Record { main, trace, .. } = *Box::from_raw(record);
        (*(*main).inner).record = ptr::null_mut();
        crate::error::keeping(|| ffi::Py_XDECREF(trace));
        drop_ref(main);
    }
}

/// The thread's current greenlet, borrowed.
///
/// # Safety
///
/// Attached; the calling thread's record.
#[inline(always)]
pub(super) unsafe fn current(record: *mut Record) -> *mut Greenlet {
    // SAFETY: running workers are alive, and so are the greenlets whose guests they are.
    unsafe {
        let guest = Worker::innermost_guest(worker::current());
        if guest.is_null() { (*record).main } else { (*guest).guest.cast() }
    }
}
