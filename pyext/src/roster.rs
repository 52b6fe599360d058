//! The suspended workers of all threads, for whoever wants to see what waits in the process.
//!
//! # Invariant
//!
//! Each thread's list is changed by that thread alone, attached; so it stands still for whoever is attached.
//! A thread's entry is never freed: the next thread gets it. A thread that ends does so without the GIL, and
//! only empties its entry: who goes through the list at that moment may meet its workers yet, which are never
//! freed (see `worker`).

use crate::worker::Worker;
use pyo3::ffi::{self, PyObject};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A thread's entry: its workers that are in the middle of a step.
pub(crate) struct Entry {
    first: AtomicPtr<Worker>,
    is_taken: AtomicBool,
    next: *mut Entry,
}

static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

fn entries() -> impl Iterator<Item = *mut Entry> {
    let first = ENTRIES.load(Ordering::Acquire);
    std::iter::successors((!first.is_null()).then_some(first), |&entry| {
        // SAFETY: never freed; `next` is not changed once the entry can be found.
        let next = unsafe { (*entry).next };
        (!next.is_null()).then_some(next)
    })
}

impl Entry {
    /// One for the calling thread.
    pub(crate) fn take() -> *mut Self {
        for entry in entries() {
            // SAFETY: never freed.
            let is_taken = unsafe { &(*entry).is_taken };
            if !is_taken.swap(true, Ordering::Acquire) {
                return entry;
            }
        }
        let entry = Box::into_raw(Box::new(Self {
            first: AtomicPtr::new(ptr::null_mut()),
            is_taken: AtomicBool::new(true),
            next: ENTRIES.load(Ordering::Acquire),
        }));
        // SAFETY: nobody else knows it before it is in the list.
        unsafe {
            while let Err(next) = ENTRIES.compare_exchange_weak(
                (*entry).next,
                entry,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                (*entry).next = next;
            }
        }
        entry
    }

    /// The thread ends. Returns the first of the workers that it leaves behind, or null.
    ///
    /// # Safety
    ///
    /// The calling thread's entry, not used afterwards.
    pub(crate) unsafe fn give_back(entry: *mut Self) -> *mut Worker {
        // SAFETY: never freed.
        let entry = unsafe { &*entry };
        let first = entry.first.swap(ptr::null_mut(), Ordering::Relaxed);
        entry.is_taken.store(false, Ordering::Release);
        first
    }

    /// The first of the thread's workers that are in the middle of a step, or null.
    ///
    /// # Safety
    ///
    /// The calling thread's entry.
    #[inline(always)]
    pub(crate) unsafe fn first(entry: *mut Self) -> *mut Worker {
        // SAFETY: never freed.
        unsafe { (*entry).first.load(Ordering::Relaxed) }
    }

    /// # Safety
    ///
    /// The calling thread's entry; attached.
    #[inline(always)]
    pub(crate) unsafe fn set_first(entry: *mut Self, worker: *mut Worker) {
        // SAFETY: never freed.
        unsafe { (*entry).first.store(worker, Ordering::Relaxed) }
    }
}

/// The threads that are there, by the ids of their thread states.
pub(crate) struct Alive(Vec<u64>);

impl Alive {
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn now() -> Self {
        // SAFETY: attached; thread states go only while their threads, or whoever ends them, are.
        unsafe {
            let mut ids = Vec::new();
            let mut ts = ffi::PyInterpreterState_ThreadHead(ffi::PyInterpreterState_Get());
            while !ts.is_null() {
                ids.push(ffi::PyThreadState_GetID(ts) as u64);
                ts = ffi::PyThreadState_Next(ts);
            }
            ids.sort_unstable();
            Self(ids)
        }
    }

    /// Whether a thread state of that id is there: not that of a thread that has ended, or that was left behind
    /// in the parent of a forked child.
    pub(crate) fn has(&self, tstate_id: u64) -> bool {
        self.0.binary_search(&tstate_id).is_ok()
    }
}

/// The portals (new references) in the middle of whose steps `await_` waits, of all threads that are there.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn suspended() -> Vec<*mut PyObject> {
    let mut found = Vec::new();
    // SAFETY: attached, so that the lists stand still but for threads that end (see the invariant); a worker of
    // a thread that is there has its owner, which holds it.
    unsafe {
        let alive = Alive::now();
        for entry in entries() {
            let mut worker = (*entry).first.load(Ordering::Relaxed);
            while !worker.is_null() {
                let owner: *mut PyObject = (*worker).owner.cast();
                if !owner.is_null() && alive.has((*worker).tstate_id) {
                    found.push(ffi::Py_NewRef(owner));
                }
                worker = (*worker).next;
            }
        }
    }
    found
}
