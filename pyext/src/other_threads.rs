//! Frames of other threads, looked at without letting those threads go on.
//!
//! On 3.11 `frame.f_back` and `frame.f_locals` allocate while they read the frame, an allocation may
//! begin a collection, and a collection may run Python code and so give the GIL away: the frame's
//! thread goes on, the frame ends, and what is read next is freed memory (`PyFrame_GetBack` in
//! Objects/frameobject.c, `_PyThread_CurrentFrames` in Python/pystate.c, and
//! `_PyFrame_MakeAndSetFrameObject` in Python/frame.c; from 3.12 on a collection waits for the eval loop).
//! Here there are no collections meanwhile.

use crate::barrier::barrier;
use crate::lines::Lines;
use crate::no_collections::NoCollections;
use crate::{arguments, error};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.current_frames()`: what `sys._current_frames()` gives, which allocates likewise.
pub(crate) unsafe extern "C" fn current_frames(
    _module: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached. What the `sys` module has is borrowed, and kept alive over the call. (Before it
        // looks at frames the call may run audit hooks.) No collection begins meanwhile.
        unsafe {
            let function = ffi::PySys_GetObject(c"_current_frames".as_ptr());
            if function.is_null() {
                error::set_type("sys._current_frames() is not there");
                return ptr::null_mut();
            }
            let function = ffi::Py_NewRef(function);
            let _no_collections = NoCollections::new();
            let frames = ffi::PyObject_CallNoArgs(function);
            ffi::Py_DECREF(function);
            frames
        }
    })
}

/// A frame (borrowed) and how many; None with an error set if that is not what the arguments are.
///
/// # Safety
///
/// As `arguments::exactly`.
unsafe fn frame_and_number(
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    usage: &str,
) -> Option<(*mut PyObject, ffi::Py_ssize_t)> {
    // SAFETY: passed on; objects that the interpreter lends.
    unsafe {
        let suit = |&[frame, _]: &[_; 2]| ffi::PyFrame_Check(frame) != 0;
        let [frame, most] = arguments::exactly(arguments, count, usage, suit)?;
        let most = ffi::PyLong_AsSsize_t(most);
        (most != -1 || ffi::PyErr_Occurred().is_null()).then_some((frame, most))
    }
}

/// `_fiberback.frames_from(frame, most)`: the frame, its caller, and so on, `most` of them or all if it
/// is negative.
pub(crate) unsafe extern "C" fn frames_from(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says, borrowed. Until the list
        // is complete nothing is freed, no Python code runs and no collection begins, so that no frame
        // that is looked at ends.
        unsafe {
            let usage = "frames_from() takes a frame and a number";
            let Some((frame, most)) = frame_and_number(arguments, count, usage) else {
                return ptr::null_mut();
            };
            let _no_collections = NoCollections::new();
            let list = ffi::PyList_New(0);
            if list.is_null() || most == 0 {
                return list;
            }
            let mut frame = ffi::Py_NewRef(frame);
            loop {
                // The list keeps the frame.
                let appended = ffi::PyList_Append(list, frame);
                ffi::Py_DECREF(frame);
                if appended != 0 {
                    ffi::Py_DECREF(list);
                    return ptr::null_mut();
                }
                if ffi::PyList_GET_SIZE(list) == most {
                    return list;
                }
                frame = ffi::PyFrame_GetBack(frame.cast()).cast();
                if frame.is_null() {
                    // The outermost, or no memory for the next one.
                    if !ffi::PyErr_Occurred().is_null() {
                        ffi::Py_DECREF(list);
                        return ptr::null_mut();
                    }
                    return list;
                }
            }
        }
    })
}

/// `_fiberback.lines_from(frame, most)`: what `frames_from` gives, as pairs of code and line.
pub(crate) unsafe extern "C" fn lines_from(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says, borrowed.
        unsafe {
            let usage = "lines_from() takes a frame and a number";
            let Some((frame, most)) = frame_and_number(arguments, count, usage) else {
                return ptr::null_mut();
            };
            let mut lines = Lines::at_most(most);
            lines.add(ffi::Py_NewRef(frame));
            lines.into_list()
        }
    })
}

/// `_fiberback.locals_of(frame)`: the frame's `f_locals`.
pub(crate) unsafe extern "C" fn locals_of(
    _module: *mut PyObject,
    frame: *mut PyObject,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; a frame object, checked. No collection begins meanwhile.
        unsafe {
            if ffi::PyFrame_Check(frame) == 0 {
                error::set_type("locals_of() takes a frame");
                return ptr::null_mut();
            }
            let _no_collections = NoCollections::new();
            ffi::PyFrame_GetLocals(frame.cast())
        }
    })
}
