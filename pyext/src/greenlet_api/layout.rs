//! What a greenlet consists of, and what a thread knows of its greenlets.

use crate::switch_call::SwitchCall;
use crate::type_tables::Type;
use crate::worker::Worker;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr;

/// The Python object: `PyGreenlet` of greenlet.h, which classes of others derive from that were compiled
/// against it.
#[repr(C)]
pub(super) struct Greenlet {
    pub(super) ob_base: PyObject,
    pub(super) weak_references: *mut PyObject,
    pub(super) dict: *mut PyObject,
    /// Owned, and nobody else's business. Null only while the object is being made or freed.
    pub(super) inner: *mut Inner,
}

const _: () = assert!(size_of::<Greenlet>() == size_of::<PyObject>() + 3 * size_of::<usize>());

/// Where a greenlet is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its function was not called yet.
    New,
    /// It has a stack: it runs, is away, waits, or is about to begin.
    Active,
    Dead,
}

/// What we know of a greenlet. All pointers to objects are owned, or null, but for what is said.
pub(super) struct Inner {
    pub(super) phase: Phase,
    /// Its function has ended, and its end is being told to its parent.
    pub(super) is_ending: bool,
    /// It is about to begin.
    pub(super) is_fresh: bool,
    /// It has switched away: nobody is on top of its stack, and nobody below it.
    pub(super) is_away: bool,
    /// The collector has found it unreachable, and its code did not end when it was finalized. What its frames
    /// own may be cleared by now, so that it must not run any more, unless somebody has it who can switch to it.
    pub(super) is_condemned: bool,
    /// Greenlets of tests that cannot be switched to (see `unswitchable.rs`).
    pub(super) is_unswitchable: bool,
    pub(super) parent: *mut Greenlet,
    /// The main greenlet of its thread, once it has begun. Null for a main greenlet itself.
    pub(super) main: *mut Greenlet,
    /// What it is to call, or calls.
    pub(super) run: *mut PyObject,
    /// What it calls that with: the only argument or a tuple, and a dict or null.
    pub(super) arguments: *mut PyObject,
    pub(super) keywords: *mut PyObject,
    /// What was found as its attribute `run` when it was switched to for the first time.
    pub(super) found_run: *mut PyObject,
    /// Its `contextvars` context, while it has no worker.
    pub(super) context: *mut PyObject,
    /// What its code runs on while it is active; null for a main greenlet.
    pub(super) worker: *mut Worker,
    /// Of a main greenlet: its thread's record, until that ends.
    pub(super) record: *mut Record,
    pub(super) is_main: bool,
    /// Where it looks, when it goes on, for what it gets: in the frame that has switched away.
    pub(super) inbox: *mut Transit,
    /// What its code passes to the `switch` that it is in.
    pub(super) switch_call: SwitchCall,
    /// What it has switched away with; and what it begins with.
    pub(super) outbox: Transit,
}

/// What is handed over in a switch. Owned.
#[derive(Clone, Copy)]
pub(super) enum Parcel {
    Nothing,
    /// The only argument of `switch`.
    One(*mut PyObject),
    /// The arguments of `switch`: a tuple, and a dict or null.
    Value {
        arguments: *mut PyObject,
        keywords: *mut PyObject,
    },
    Exception(*mut PyObject),
    /// Who sends it wants to be hosted by who gets it.
    Hosting,
}

impl Parcel {
    /// What `switch` was called with (borrowed), as `METH_FASTCALL | METH_KEYWORDS` has it. None with an error set if
    /// there is no memory for it.
    ///
    /// # Safety
    ///
    /// Attached, no error set; valid: the names a tuple or null, `count` arguments and one for each name.
    pub(super) unsafe fn of_call(
        arguments: *const *mut PyObject,
        count: usize,
        names: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: the contract.
        unsafe {
            let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) };
            if count == 1 && named == 0 {
                return Some(Self::One(ffi::Py_NewRef(*arguments)));
            }
            let tuple = ffi::PyTuple_New(count as ffi::Py_ssize_t);
            if tuple.is_null() {
                return None;
            }
            for index in 0..count {
                let argument = ffi::Py_NewRef(*arguments.add(index));
                ffi::PyTuple_SET_ITEM(tuple, index as ffi::Py_ssize_t, argument);
            }
            let mut keywords = ptr::null_mut();
            if named > 0 {
                keywords = ffi::PyDict_New();
                let is_filled = !keywords.is_null()
                    && (0..named).all(|index| {
                        let value = *arguments.add(count + index as usize);
                        ffi::PyDict_SetItem(keywords, ffi::PyTuple_GET_ITEM(names, index), value)
                            == 0
                    });
                if !is_filled {
                    ffi::Py_DECREF(tuple);
                    ffi::Py_XDECREF(keywords);
                    return None;
                }
            }
            Some(Self::Value { arguments: tuple, keywords })
        }
    }

    /// For one that nobody gets. An error that is set stays.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(super) unsafe fn drop(self) {
        // SAFETY: owned.
        unsafe {
            match self {
                Self::Nothing | Self::Hosting => {}
                Self::Value { arguments, keywords } => crate::error::keeping(|| {
                    ffi::Py_DECREF(arguments);
                    ffi::Py_XDECREF(keywords);
                }),
                Self::One(object) | Self::Exception(object) => {
                    crate::error::keeping(|| ffi::Py_DECREF(object));
                }
            }
        }
    }
}

/// A switch under way. Owned.
#[derive(Clone, Copy)]
pub(super) struct Transit {
    pub(super) target: *mut Greenlet,
    pub(super) origin: *mut Greenlet,
    pub(super) parcel: Parcel,
}

impl Transit {
    pub(super) const NONE: Self =
        Self { target: ptr::null_mut(), origin: ptr::null_mut(), parcel: Parcel::Nothing };
}

/// A thread's part: in the thread state's dictionary, and freed with it.
pub(super) struct Record {
    pub(super) thread_state: *mut PyThreadState,
    /// Owned.
    pub(super) main: *mut Greenlet,
    /// What `settrace` has set; owned, or null.
    pub(super) trace: *mut PyObject,
}

impl Inner {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::New,
            is_ending: false,
            is_fresh: false,
            is_away: false,
            is_condemned: false,
            is_unswitchable: false,
            parent: ptr::null_mut(),
            main: ptr::null_mut(),
            run: ptr::null_mut(),
            arguments: ptr::null_mut(),
            keywords: ptr::null_mut(),
            found_run: ptr::null_mut(),
            context: ptr::null_mut(),
            worker: ptr::null_mut(),
            record: ptr::null_mut(),
            is_main: false,
            inbox: ptr::null_mut(),
            switch_call: SwitchCall::NOTHING,
            outbox: Transit::NONE,
        }
    }

    /// Whether it can be switched to as one that has begun and not ended.
    pub(super) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// The same for others to see: not while its end is being told.
    pub(super) fn seems_active(&self) -> bool {
        self.is_active() && (!self.is_ending || self.is_away)
    }
}

/// `greenlet.greenlet`.
pub(super) static TYPE: Type = Type::new();

/// Whether the object is a greenlet of ours.
///
/// # Safety
///
/// A valid object.
pub(super) unsafe fn is_greenlet(object: *mut PyObject) -> bool {
    // SAFETY: the contract.
    unsafe { ffi::PyObject_TypeCheck(object, TYPE.get()) != 0 }
}

/// A new reference.
///
/// # Safety
///
/// Attached; valid, or null.
#[inline(always)]
pub(super) unsafe fn new_ref(greenlet: *mut Greenlet) -> *mut Greenlet {
    // SAFETY: the contract.
    unsafe { ffi::Py_XINCREF(greenlet.cast()) };
    greenlet
}

/// Drops a reference. An error that is set stays.
///
/// # Safety
///
/// Attached; owned, or null.
#[inline(always)]
pub(super) unsafe fn drop_ref(greenlet: *mut Greenlet) {
    // SAFETY: the contract. What ends with the last reference may run any code.
    unsafe {
        if greenlet.is_null() {
            return;
        }
        if ffi::Py_REFCNT(greenlet.cast()) > 1 {
            ffi::Py_DECREF(greenlet.cast());
        } else {
            crate::error::keeping(|| ffi::Py_DECREF(greenlet.cast()));
        }
    }
}
