//! What `cProfile`'s profiler (`Modules/_lsprof.c`) has on its stack: which calls it has not seen return.
//!
//! # Invariant
//!
//! The record is only read, at places that were compared with a profiler of our own before the first time. Its keys
//! are the code objects and methods of calls that are under way, which are alive.

use super::known_calls::Owned;
use pyo3::ffi::{self, PyMethodDef, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicIsize, Ordering};

/// A call that the profiler has not seen return.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Code(*mut PyObject),
    C(*mut PyMethodDef),
}

/// Where a profiler has the innermost call's record, in bytes: 0 as long as that is not known, -1 if it cannot be.
static TOP: AtomicIsize = AtomicIsize::new(0);

// Words of a call's record, `ProfilerContext`, and of what it is a call of, `ProfilerEntry`.
const PREVIOUS: usize = 2;
const ENTRY: usize = 3;
const KEY: usize = 0;
const USER_OBJECT: usize = 3;

/// More calls than a stack has.
const MOST_CALLS: usize = 10_000_000;

/// Whether it is such a profiler, and its record is where it is known to be.
///
/// # Safety
///
/// Attached, no error set; a valid object, or null.
pub(super) unsafe fn can_be_read(profiler: *mut PyObject) -> bool {
    // SAFETY: the contract.
    unsafe {
        if profiler.is_null() || base_of(profiler).is_null() {
            return false;
        }
        if TOP.load(Ordering::Relaxed) == 0 {
            let found = find(base_of(profiler)).unwrap_or(-1);
            ffi::PyErr_Clear();
            TOP.store(found, Ordering::Relaxed);
        }
        TOP.load(Ordering::Relaxed) > 0
    }
}

/// The type `_lsprof.Profiler` itself, borrowed, which the object's type is or is derived from, as `cProfile.Profile`
/// is; or null.
unsafe fn base_of(profiler: *mut PyObject) -> *mut ffi::PyTypeObject {
    // SAFETY: a valid object (all callers); types keep their bases, and their names end in a zero byte.
    unsafe {
        let mut class = ffi::Py_TYPE(profiler);
        while !class.is_null() && CStr::from_ptr((*class).tp_name) != c"_lsprof.Profiler" {
            class = (*class).tp_base;
        }
        class
    }
}

/// Where a profiler's innermost call is: the word that is set by each of two calls, and taken back by their returns.
/// A record has the one before and its function, which has its code, as we are going to read them.
unsafe fn find(class: *mut ffi::PyTypeObject) -> Option<isize> {
    // SAFETY: attached, no error set. Only words of the object are read, and then of what the one is, that
    // can be nothing but the record of a call.
    unsafe {
        let size = (*class).tp_basicsize as usize / size_of::<usize>();
        let profiler = Owned(ffi::PyObject_CallNoArgs(class.cast()));
        let ours = Owned(ffi::PyCode_NewEmpty(c"".as_ptr(), c"".as_ptr(), 0).cast());
        if profiler.0.is_null() || ours.0.is_null() {
            return None;
        }
        let code = ours.0;
        let words = || -> Vec<usize> {
            let first = profiler.0.cast::<usize>();
            (0..size).map(|index| first.add(index).read()).collect()
        };
        let zero = Owned(ffi::PyLong_FromLong(0));
        let none = ffi::Py_None();
        let start = |name: &CStr, with_value| {
            let method = Owned(ffi::PyObject_GetAttrString(profiler.0, name.as_ptr()));
            if method.0.is_null() {
                return false;
            }
            let arguments = [code, zero.0, none];
            let count = if with_value { 3 } else { 2 };
            let done =
                ffi::PyObject_Vectorcall(method.0, arguments.as_ptr(), count, ptr::null_mut());
            !Owned(done).0.is_null()
        };
        let before = words();
        let begins = c"_pystart_callback";
        let ends = c"_pyreturn_callback";
        let (is_first, first) = (start(begins, false), words());
        let (is_second, second) = (start(begins, false), words());
        let inner = |at: usize| {
            first[at] != 0 && before[at] == 0 && second[at] != 0 && second[at] != first[at]
        };
        let candidates: Vec<_> = (2..size).filter(|&at| inner(at)).collect();
        let entries: Vec<_> = (2..size)
            .filter(|&at| before[at] == 0 && first[at] != 0 && second[at] == first[at])
            .collect();
        let fits = |at: usize| {
            let record = second[at] as *const usize;
            let entry = *record.add(ENTRY);
            let is_entry = entries.iter().any(|&at| first[at] == entry);
            *record.add(PREVIOUS) == first[at] && is_entry && {
                let entry = entry as *const usize;
                *entry.add(KEY) == code.addr() && *entry.add(USER_OBJECT) == code.addr()
            }
        };
        let is_right = is_first && is_second && candidates.len() == 1 && fits(candidates[0]);
        let (is_third, third) = (start(ends, true), words());
        let (is_fourth, fourth) = (start(ends, true), words());
        let &at = candidates.first()?;
        let is_right = is_right && is_third && third[at] == first[at];
        (is_right && is_fourth && fourth[at] == 0).then_some((at * size_of::<usize>()) as isize)
    }
}

/// The calls that make up as many frames, from the innermost out; fewer if it has seen fewer begin.
///
/// # Safety
///
/// Attached; [`can_be_read`] has said so.
pub(super) unsafe fn open(profiler: *mut PyObject, frames: usize) -> Option<Vec<Call>> {
    // SAFETY: the invariant.
    unsafe {
        let mut calls = Vec::new();
        let mut left = frames;
        let mut record: *const usize = *profiler.byte_offset(TOP.load(Ordering::Relaxed)).cast();
        while !record.is_null() && left > 0 && calls.len() < MOST_CALLS {
            let entry = *record.add(ENTRY) as *const usize;
            let (key, user) = (*entry.add(KEY), *entry.add(USER_OBJECT));
            if key == user {
                calls.push(Call::Code(key as *mut PyObject));
                left -= 1;
            } else {
                calls.push(Call::C(key as *mut PyMethodDef));
            }
            record = *record.add(PREVIOUS) as *const usize;
        }
        (!calls.is_empty()).then_some(calls)
    }
}

/// A function of that method, as the profiler tells them apart: a new reference, or null with an error set.
///
/// # Safety
///
/// Attached; a method that is alive. The function must not be called.
pub(super) unsafe fn function_of(method: *mut PyMethodDef) -> *mut PyObject {
    // SAFETY: the contract; methods with a class need one, whichever.
    unsafe {
        let class = if (*method).ml_flags & ffi::METH_METHOD == 0 {
            ptr::null_mut()
        } else {
            &raw mut ffi::PyBaseObject_Type
        };
        ffi::PyCMethod_New(method, ptr::null_mut(), ptr::null_mut(), class)
    }
}
