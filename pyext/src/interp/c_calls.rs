//! The calls of C functions that frames are in, as a tool of `sys.monitoring`'s is told of them (3.12 and later).
//!
//! Where the tool has registered a callback for the event, there is one of ours, which notes the call and goes on to
//! the tool's. A frame is in one call at a time; what is noted of a frame that has ended goes when the one that has
//! called it calls again.
//!
//! # Invariant
//!
//! Frames are only compared, by their addresses.

use super::frames::Place;
use super::known_calls::Owned;
use super::shared::Frame;
use super::version::Version;
use pyo3::ffi::{self, PyMethodDef, PyMethodDefPointer, PyObject};
use std::cell::RefCell;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::ptr;

/// A call of something that is no Python function: that, and its first argument or `sys.monitoring.MISSING`.
pub(super) struct CCall {
    pub(super) function: Owned,
    pub(super) first: Owned,
}

impl CCall {
    /// Without an argument; none of null.
    ///
    /// # Safety
    ///
    /// Attached, no error set.
    pub(super) unsafe fn of(function: Owned) -> Option<Self> {
        // SAFETY: the contract.
        unsafe {
            if function.0.is_null() {
                return None;
            }
            let monitoring = ffi::PySys_GetObject(c"monitoring".as_ptr());
            if monitoring.is_null() {
                return None;
            }
            let first = Owned(ffi::PyObject_GetAttrString(monitoring, c"MISSING".as_ptr()));
            ffi::PyErr_Clear();
            (!first.0.is_null()).then_some(Self { function, first })
        }
    }
}

/// Of a thread, the innermost last.
type Calls = Vec<(usize, CCall)>;

thread_local! {
    /// Not borrowed while anything else is called. What is left when the thread ends, without the GIL, is let go of
    /// without its references being dropped.
    static CALLS: RefCell<ManuallyDrop<Calls>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// What was noted of a frame and those that it has called, out of the list.
fn after(calls: &mut Calls, frame: *mut Frame) -> Calls {
    match calls.iter().rposition(|(at, _)| *at == frame.addr()) {
        Some(at) => calls.split_off(at),
        None => Vec::new(),
    }
}

/// Nothing is noted.
pub(super) fn is_empty() -> bool {
    CALLS.with_borrow(|calls| calls.is_empty())
}

/// The call that the frame is in, if that is known. It is forgotten.
pub(super) fn take(place: &Place) -> Option<CCall> {
    CALLS
        .with(|calls| after(&mut calls.borrow_mut(), place.frame))
        .into_iter()
        .next()
        .map(|call| call.1)
}

/// The frame is in that call.
pub(super) fn put(place: &Place, call: CCall) {
    CALLS.with(|calls| calls.borrow_mut().push((place.frame.addr(), call)));
}

/// What notes the calls that the callback is told of; the callback itself if that is not to be had.
pub(super) fn noting_calls(callback: Owned) -> Owned {
    noting(callback, &BEGINS)
}

/// As [`noting_calls`], of their ends.
pub(super) fn noting_ends(callback: Owned) -> Owned {
    noting(callback, &ENDS)
}

fn noting(callback: Owned, how: &'static Method) -> Owned {
    // SAFETY: attached, no error set (all callers); a static method, and what it goes on to.
    unsafe {
        if is_ours(callback.0) {
            return callback;
        }
        let noting = ffi::PyCMethod_New(how.get(), callback.0, ptr::null_mut(), ptr::null_mut());
        if noting.is_null() {
            ffi::PyErr_Clear();
            return callback;
        }
        Owned(noting)
    }
}

/// What the callback goes on to, if it is one of ours.
pub(super) fn noted(callback: Owned) -> Owned {
    // SAFETY: attached; a function keeps what it is bound to.
    unsafe {
        if is_ours(callback.0) {
            Owned(ffi::Py_NewRef(ffi::PyCFunction_GetSelf(callback.0)))
        } else {
            callback
        }
    }
}

unsafe fn is_ours(callback: *mut PyObject) -> bool {
    // SAFETY: a valid object, or null.
    unsafe {
        if callback.is_null() || ffi::PyCFunction_Check(callback) == 0 {
            return false;
        }
        let function = ffi::PyCFunction_GetFunction(callback).map(|function| function as usize);
        function.is_some_and(|at| {
            at == begins as *const () as usize || at == ends as *const () as usize
        })
    }
}

struct Method(std::cell::UnsafeCell<PyMethodDef>);

// SAFETY: never written.
unsafe impl Sync for Method {}

impl Method {
    const fn new(name: &'static CStr, function: ffi::PyCFunctionFast) -> Self {
        Self(std::cell::UnsafeCell::new(PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: PyMethodDefPointer { PyCFunctionFast: function },
            ml_flags: ffi::METH_FASTCALL,
            ml_doc: ptr::null(),
        }))
    }

    fn get(&'static self) -> *mut PyMethodDef {
        self.0.get()
    }
}

static BEGINS: Method = Method::new(c"call", begins);
static ENDS: Method = Method::new(c"c_return", ends);

unsafe extern "C" {
    /// The type of bound methods, and the function of one, borrowed (Include/cpython/classobject.h).
    static mut PyMethod_Type: ffi::PyTypeObject;
    fn PyMethod_Function(method: *mut PyObject) -> *mut PyObject;
}

/// What is called is a Python function: its frame says so.
unsafe fn is_python(function: *mut PyObject) -> bool {
    // SAFETY: attached; a valid object (all callers).
    unsafe {
        ffi::PyFunction_Check(function) != 0
            || ptr::eq((*function).ob_type, &raw const PyMethod_Type)
                && ffi::PyFunction_Check(PyMethod_Function(function)) != 0
    }
}

/// The callback for CALL: code, offset, what is called, the first argument.
unsafe extern "C" fn begins(
    callback: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: called by the interpreter, from the frame that calls: attached, with borrowed objects.
    unsafe {
        let frame = Version::current_frame(ffi::PyThreadState_Get());
        let call = (count == 4 && !is_python(*arguments.add(2))).then(|| CCall {
            function: Owned(ffi::Py_NewRef(*arguments.add(2))),
            first: Owned(ffi::Py_NewRef(*arguments.add(3))),
        });
        let before = CALLS.try_with(|calls| {
            let calls = &mut **calls.borrow_mut();
            let before = after(calls, frame);
            if let Some(call) = call {
                calls.push((frame.addr(), call));
            }
            before
        });
        drop(before);
        go_on(callback, arguments, count)
    }
}

/// The callback for C_RETURN and C_RAISE.
unsafe extern "C" fn ends(
    callback: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: as above.
    unsafe {
        let frame = Version::current_frame(ffi::PyThreadState_Get());
        let ended = CALLS.try_with(|calls| after(&mut calls.borrow_mut(), frame));
        drop(ended);
        go_on(callback, arguments, count)
    }
}

unsafe fn go_on(
    callback: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: attached; what we are bound to, and what we were called with.
    unsafe { ffi::PyObject_Vectorcall(callback, arguments, count as usize, ptr::null_mut()) }
}
