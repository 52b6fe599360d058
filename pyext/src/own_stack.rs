//! What runs on this stack, found without making frame objects: a wait must not cost more for every frame
//! that it is deep.

use crate::barrier::barrier;
use crate::interp::frames::Place;
use crate::{arguments, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.local_of(code, index)`: the value of that local variable in the innermost frame of this thread
/// that executes `code`; None if there is no such frame, or the variable has no value. `code` is a code object,
/// or the end of the qualified name of one.
///
/// `index` is that in `co_varnames`, of a variable that is no cell.
pub(crate) unsafe extern "C" fn local_of(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says, borrowed. No Python code
        // runs while the frames are looked through: what is asked of code objects are members of theirs.
        // The variable's index is within what the code has, which is checked; the frame waits in a call,
        // so that its variables stay as they are.
        unsafe {
            let usage = "local_of() takes a code object or the end of its name, and an index";
            let suit = |&[code, _]: &[_; 2]| is_code_or_name(code);
            let Some([code, index]) = arguments::exactly(arguments, count, usage, suit) else {
                return ptr::null_mut();
            };
            let index = ffi::PyLong_AsSsize_t(index);
            if index == -1 && !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            let by_name = ffi::PyCode_Check(code) == 0;
            let found = Place::frames(ffi::PyThreadState_Get()).find(|place| {
                let executes = place.code();
                executes == code || by_name && !executes.is_null() && ends_with(executes, code)
            });
            let value = match found {
                Some(place) if has_local(place.code(), index) => place.local(index.unsigned_abs()),
                _ => ptr::null_mut(),
            };
            if !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            ffi::Py_NewRef(if value.is_null() { ffi::Py_None() } else { value })
        }
    })
}

unsafe fn is_code_or_name(object: *mut PyObject) -> bool {
    // SAFETY: attached; a valid object.
    unsafe { ffi::PyCode_Check(object) != 0 || ffi::PyUnicode_Check(object) != 0 }
}

/// Whether the code's qualified name ends with `end`.
unsafe fn ends_with(code: *mut PyObject, end: *mut PyObject) -> bool {
    // SAFETY: attached; a code object, or what a frame of the interpreter's own has in that place, and a `str`.
    unsafe {
        if ffi::PyCode_Check(code) == 0 {
            return false;
        }
        let name = ffi::PyObject_GetAttr(code, names::CO_QUALNAME.get());
        if name.is_null() {
            return false;
        }
        let ends = ffi::PyUnicode_Tailmatch(name, end, 0, ffi::PY_SSIZE_T_MAX, 1) == 1;
        ffi::Py_DECREF(name);
        ends
    }
}

/// Whether the code has a local variable of that index. False, perhaps with an error set, if not.
unsafe fn has_local(code: *mut PyObject, index: isize) -> bool {
    // SAFETY: attached; a code object, whose names the interpreter keeps in a tuple.
    unsafe {
        let names = ffi::PyObject_GetAttr(code, names::CO_VARNAMES.get());
        if names.is_null() {
            return false;
        }
        let count = ffi::PyTuple_Size(names);
        ffi::Py_DECREF(names);
        (0..count).contains(&index)
    }
}
