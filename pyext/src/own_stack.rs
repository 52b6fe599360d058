//! What runs on this stack, found without making frame objects: a wait must not cost more for every frame
//! that it is deep.

use crate::interp::frames::Place;
use crate::{error, names};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.local_of(codes, index)`: the value of that local variable in the innermost frame of this
/// thread that executes one of `codes`; None if there is no such frame, or the variable has no value.
///
/// `index` is that in `co_varnames`, of a variable that is no cell.
pub(crate) unsafe extern "C" fn local_of(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says, borrowed. Nothing runs
        // while the frames are looked through. The variable's index is within what every one of `codes`
        // has, which is checked; the frame waits in a call, so that its variables stay as they are.
        unsafe {
            if count != 2 || ffi::PyTuple_Check(*arguments) == 0 {
                error::set_type("local_of() takes a tuple of code objects and an index");
                return ptr::null_mut();
            }
            let codes = *arguments;
            let index = ffi::PyLong_AsSsize_t(*arguments.add(1));
            if index == -1 && !ffi::PyErr_Occurred().is_null() {
                return ptr::null_mut();
            }
            let codes = || (0..ffi::PyTuple_Size(codes)).map(|at| ffi::PyTuple_GetItem(codes, at));
            for code in codes() {
                if ffi::PyCode_Check(code) == 0 || !has_local(code, index) {
                    if ffi::PyErr_Occurred().is_null() {
                        error::set_type("local_of() takes code objects that have such a variable");
                    }
                    return ptr::null_mut();
                }
            }
            let found = Place::frames(ffi::PyThreadState_Get())
                .find(|place| {
                    let executes = place.code();
                    !executes.is_null() && codes().any(|code| code == executes)
                })
                .map_or(ptr::null_mut(), |place| place.local(index.unsigned_abs()));
            ffi::Py_NewRef(if found.is_null() { ffi::Py_None() } else { found })
        }
    })
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
