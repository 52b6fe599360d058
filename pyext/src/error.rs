//! Python exceptions from native code: set, taken, put back.

use crate::{messages, modules};
use pyo3::ffi::{self, PyObject};
use std::ffi::CString;
use std::fmt::Write as _;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `StackMemoryError`, made by [`init`].
static STACK_MEMORY_ERROR: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Sets a Python exception of the given type.
pub(crate) fn set(exception: *mut PyObject, message: &str) {
    let message = CString::new(message.replace('\0', " ")).expect("zero bytes were replaced");
    // SAFETY: attached (all of this module is called from Python); both arguments are valid.
    unsafe { ffi::PyErr_SetString(exception, message.as_ptr()) }
}

/// Sets `RuntimeError`.
#[cold]
pub(crate) fn set_runtime(message: &str) {
    // SAFETY: reads a static of the interpreter.
    set(unsafe { ffi::PyExc_RuntimeError }, message);
}

/// Sets the error of a wait in a greenlet that nothing here can wait for.
#[cold]
pub(crate) fn set_foreign_greenlet() {
    // SAFETY: attached; both are borrowed, and only looked at.
    let gevent =
        unsafe { !ffi::PyDict_GetItemString(modules::get(), c"gevent".as_ptr()).is_null() };
    set_runtime(if gevent { messages::GEVENT } else { messages::FOREIGN_GREENLET });
}

/// Sets `TypeError`.
#[cold]
pub(crate) fn set_type(message: &str) {
    // SAFETY: reads a static of the interpreter.
    set(unsafe { ffi::PyExc_TypeError }, message);
}

/// Sets `StackMemoryError`.
#[cold]
pub(crate) fn set_no_stack(error: &fiberback::StackError) {
    // Memory is what there is none of: no `String` here.
    set_stack_memory(format_args!("{} ({error})", messages::NO_STACK));
}

/// Sets `StackMemoryError`, where the stack was not what failed.
#[cold]
pub(crate) fn set_no_memory() {
    set_stack_memory(format_args!("{}", messages::NO_STACK));
}

fn set_stack_memory(message: std::fmt::Arguments<'_>) {
    let mut text = Text { bytes: [0; 512], length: 0 };
    let _ = text.write_fmt(message);
    // SAFETY: attached; the text ends in a zero byte, as its last is never written.
    unsafe {
        ffi::PyErr_SetString(
            STACK_MEMORY_ERROR.load(Ordering::Relaxed),
            text.bytes.as_ptr().cast(),
        );
    }
}

/// Calls `function` with the error that is set, if any, out of its way.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn keeping(function: impl FnOnce()) {
    // SAFETY: attached.
    unsafe {
        let pending = take();
        function();
        if !pending.is_null() {
            restore(pending);
        }
    }
}

/// A C string of limited length, cut at the limit.
struct Text {
    bytes: [u8; 512],
    length: usize,
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let room = self.bytes.len() - 1 - self.length;
        // Cut between characters, and keep zero bytes out (there are none in our messages).
        let cut = (0..=part.len().min(room)).rev().find(|&at| part.is_char_boundary(at));
        let part = &part.as_bytes()[..cut.unwrap_or(0)];
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
        Ok(())
    }
}

/// Makes `StackMemoryError` and adds it to the module, and the table of messages. False with an error set on failure.
///
/// # Safety
///
/// `module` must be the module being initialised.
pub(crate) unsafe fn init(module: *mut PyObject) -> bool {
    let doc = c"A call stack for a portal could not be had: the process is out of memory, address \
        space or mappings. Fewer tasks suspended in await_() at a time, or smaller stacks \
        (set_stack_size), need less.";
    // SAFETY: plain API calls with valid arguments.
    unsafe {
        let class = ffi::PyErr_NewExceptionWithDoc(
            c"fiberback.StackMemoryError".as_ptr(),
            doc.as_ptr(),
            ffi::PyExc_MemoryError,
            ptr::null_mut(),
        );
        if class.is_null() {
            return false;
        }
        STACK_MEMORY_ERROR.store(class, Ordering::Relaxed);
        ffi::PyModule_AddObjectRef(module, c"StackMemoryError".as_ptr(), class) == 0
            && ffi::PyModule_AddStringConstant(
                module,
                c"messages".as_ptr(),
                messages::TABLE.as_ptr().cast(), // ends in a zero byte
            ) == 0
    }
}

/// The exception being raised, taken out of the thread state, normalised; null if there is none.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn take() -> *mut PyObject {
    // SAFETY: attached.
    #[cfg(not(cpython = "3.11"))]
    unsafe {
        ffi::PyErr_GetRaisedException()
    }
    #[cfg(cpython = "3.11")]
    // SAFETY: attached; the three references are ours, and two of them are dropped.
    unsafe {
        let (mut class, mut value, mut trace) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        ffi::PyErr_Fetch(&raw mut class, &raw mut value, &raw mut trace);
        if class.is_null() {
            return ptr::null_mut();
        }
        ffi::PyErr_NormalizeException(&raw mut class, &raw mut value, &raw mut trace);
        if !trace.is_null() {
            ffi::PyException_SetTraceback(value, trace);
        }
        ffi::Py_XDECREF(class);
        ffi::Py_XDECREF(trace);
        value
    }
}

/// Raises `exception` (a new reference, consumed) as `throw()` on a generator would: keeping its
/// traceback, with the exception being handled here as its context (`_PyErr_ChainStackItem`).
///
/// # Safety
///
/// Attached; `exception` must be an exception instance.
pub(crate) unsafe fn raise(exception: *mut PyObject) {
    // SAFETY: `PyErr_SetObject` with an instance and its own class sets exactly that instance.
    unsafe {
        ffi::PyErr_SetObject(ffi::Py_TYPE(exception).cast(), exception);
        ffi::Py_DECREF(exception);
    }
}

/// Puts back what [`take`] took (consumed), exactly.
///
/// # Safety
///
/// Attached; `exception` must be an exception instance.
pub(crate) unsafe fn restore(exception: *mut PyObject) {
    // SAFETY: attached; the references handed over are owned.
    #[cfg(not(cpython = "3.11"))]
    unsafe {
        ffi::PyErr_SetRaisedException(exception);
    }
    #[cfg(cpython = "3.11")]
    // SAFETY: as above; the traceback is a new reference or null.
    unsafe {
        let class = ffi::Py_NewRef(ffi::Py_TYPE(exception).cast());
        ffi::PyErr_Restore(class, exception, ffi::PyException_GetTraceback(exception));
    }
}
