//! What a thread knows of its greenlets, and which of them is current.
//!
//! # Invariant
//!
//! A record is in its thread state's dictionary, in a capsule whose key nobody else has, and is freed with that: on
//! its thread, when the thread ends, or by whoever deletes the thread states of threads that are no more. What
//! `KNOWN` names is used only if the attached thread state has that id, which no other one ever has: then it lives,
//! and so does its record.

use super::layout::{Greenlet, Inner, Phase, Record, TYPE, drop_ref};
use crate::thread::Thread;
use crate::worker::{self, Worker};
use crate::{error, interp};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The record of the thread state with this id.
#[derive(Clone, Copy)]
struct Known {
    id: u64,
    record: *mut Record,
}

impl Known {
    const NOTHING: Self = Self { id: u64::MAX, record: ptr::null_mut() };
}

thread_local! {
    static KNOWN: Cell<Known> = const { Cell::new(Known::NOTHING) };
}

const NAME: &CStr = c"fiberback.greenlet._record";

/// The key in thread states' dictionaries: an object of ours, so that nobody replaces the value.
static KEY: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// To be called once, at import. False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(super) unsafe fn init() -> bool {
    // SAFETY: attached; kept for ever.
    let key = unsafe { ffi::PyObject_CallNoArgs((&raw mut ffi::PyBaseObject_Type).cast()) };
    KEY.store(key, Ordering::Relaxed);
    !key.is_null()
}

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
    let known = KNOWN.with(Cell::get);
    // SAFETY: attached.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        if known.id == interp::thread_state_id(ts) { known.record } else { find(ts) }
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
        let mut record = record_in(dict);
        if record.is_null() {
            record = make(ts, dict);
        }
        if !record.is_null() {
            let id = interp::thread_state_id(ts);
            KNOWN.with(|place| place.set(Known { id, record }));
        }
        record
    }
}

/// The record in a thread state's dictionary, or null.
unsafe fn record_in(dict: *mut PyObject) -> *mut Record {
    // SAFETY: attached; borrowed. Keys are compared by identity, or by code of others whose hash is the same: an
    // error of that is none of ours, and one that is set stays.
    unsafe {
        let mut record = ptr::null_mut();
        error::keeping(|| {
            let capsule = ffi::PyDict_GetItemWithError(dict, KEY.load(Ordering::Relaxed));
            if !capsule.is_null() {
                record = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast();
            }
            ffi::PyErr_Clear();
        });
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
        let other = record_in(dict);
        if !other.is_null() {
            drop_ref(main);
            return other;
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
        let failed = ffi::PyDict_SetItem(dict, KEY.load(Ordering::Relaxed), capsule) < 0;
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
            let id = interp::thread_state_id((*record).thread_state);
            KNOWN.with(|place| place.set(Known { id, record }));
            error::keeping(|| at_end(record));
        }
        end_record(record);
    }
}

unsafe fn end_record(record: *mut Record) {
    // SAFETY: nobody uses it any more: its thread runs no more code in greenlets. The main greenlet says so to
    // all that know it.
    unsafe {
        KNOWN.with(|place| {
            if ptr::eq(place.get().record, record) {
                place.set(Known::NOTHING);
            }
        });
        let Record { main, trace, .. } = *Box::from_raw(record);
        (*(*main).inner).record = ptr::null_mut();
        error::keeping(|| ffi::Py_XDECREF(trace));
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
    // SAFETY: running workers are alive, and so are the greenlets whose guests they are. One may have been left by
    // code that has attached another thread state, on top of it.
    unsafe {
        let guest = Worker::innermost_guest(worker::current());
        if guest.is_null() || Worker::thread_state(guest) != (*record).thread_state {
            (*record).main
        } else {
            (*guest).guest.cast()
        }
    }
}
