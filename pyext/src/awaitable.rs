//! What `await` would step of an awaitable: its iterator (`_PyCoro_GetAwaitableIter` and `GET_AWAITABLE`).

use crate::{error, interp, names};
use pyo3::ffi::{self, PyObject};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Asked for a hint, after the words of `await`, about what is no awaitable.
pub(crate) static NOT_AWAITABLE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// What `await` would step, as a new reference.
/// Null with the error that `await` would raise.
///
/// # Safety
///
/// Attached; `awaitable` must be a valid object.
#[inline(always)]
pub(crate) unsafe fn iterator_of(awaitable: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; `awaitable` is borrowed and valid. Static types are compared by address.
    unsafe {
        let class = ffi::Py_TYPE(awaitable);
        if class == &raw mut ffi::PyCoro_Type {
            if interp::coroutine_state(awaitable) == interp::CoroutineState::Suspended
                && is_awaited(awaitable)
            {
                error::set_runtime("coroutine is being awaited already");
                return ptr::null_mut();
            }
            return ffi::Py_NewRef(awaitable);
        }
        iterator_of_other(awaitable, class)
    }
}

unsafe fn iterator_of_other(
    awaitable: *mut PyObject,
    class: *mut ffi::PyTypeObject,
) -> *mut PyObject {
    // SAFETY: as in `iterator_of`; slots are called with what they are for.
    unsafe {
        if is_iterable_coroutine(awaitable) {
            return ffi::Py_NewRef(awaitable);
        }
        let methods = (*class).tp_as_async;
        let get = if methods.is_null() { None } else { (*methods).am_await };
        let Some(get) = get else {
            let name = class_name(class);
            // The words of `_PyEval_FormatAwaitableError` and, since 3.14, `_PyCoro_GetAwaitableIter`.
            let words = if ffi::Py_Version >= 0x030E_0000 {
                format!("'{name}' object can't be awaited")
            } else {
                format!("object {name} can't be used in 'await' expression")
            };
            error::set_type(&(words + &cure_for(awaitable)));
            return ptr::null_mut();
        };
        let iterator = get(awaitable);
        if iterator.is_null() {
            return iterator;
        }
        let of = ffi::Py_TYPE(iterator);
        let mistake = if of == &raw mut ffi::PyCoro_Type || is_iterable_coroutine(iterator) {
            "__await__() returned a coroutine".to_string()
        } else if ffi::PyIter_Check(iterator) == 0 {
            format!("__await__() returned non-iterator of type '{}'", class_name(of))
        } else {
            return iterator;
        };
        if ffi::Py_Version >= 0x030F_0000 {
            // `%T`, a fully qualified name, came with 3.13.
            ffi::PyErr_Format(
                ffi::PyExc_TypeError,
                c"%T.__await__() must return an iterator, not %T".as_ptr(),
                awaitable,
                iterator,
            );
        } else {
            error::set_type(&mistake);
        }
        ffi::Py_DECREF(iterator);
        ptr::null_mut()
    }
}

/// Whether it is a generator made a coroutine by `types.coroutine`.
unsafe fn is_iterable_coroutine(object: *mut PyObject) -> bool {
    // SAFETY: attached; the type is checked before the object is taken for a generator.
    unsafe {
        if ffi::Py_TYPE(object) != &raw mut ffi::PyGen_Type {
            return false;
        }
        let code = ffi::PyObject_GetAttr(object, names::GI_CODE.get());
        if code.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let flags = *interp::facts::field::<_, i32>(code, interp::facts::CODE_FLAGS);
        ffi::Py_DECREF(code);
        flags & ffi::CO_ITERABLE_COROUTINE != 0
    }
}

unsafe fn class_name(class: *mut ffi::PyTypeObject) -> String {
    // SAFETY: a type's name is a C string that lives as long as the type.
    unsafe { CStr::from_ptr((*class).tp_name) }.to_string_lossy().into_owned()
}

/// Whether a suspended coroutine is suspended *in an await* (`_PyGen_yf`), not in a bare yield.
unsafe fn is_awaited(coroutine: *mut PyObject) -> bool {
    // SAFETY: attached; a coroutine has this attribute.
    unsafe {
        let inner = ffi::PyObject_GetAttr(coroutine, names::CR_AWAIT.get());
        if inner.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let awaited = inner != ffi::Py_None();
        ffi::Py_DECREF(inner);
        awaited
    }
}

/// What to say to whoever has given `await_` this, after the interpreter's own words.
///
/// # Safety
///
/// Attached, no error set; borrowed.
#[cold]
unsafe fn cure_for(awaitable: *mut PyObject) -> String {
    let hook = NOT_AWAITABLE.load(Ordering::Relaxed);
    if hook.is_null() {
        return String::new();
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call. The text lives
    // as long as the `str` that it belongs to, which is dropped after it was copied.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let cure = ffi::PyObject_CallOneArg(hook, awaitable);
        ffi::Py_DECREF(hook);
        let mut length = 0;
        let text = match cure.is_null() {
            true => ptr::null(),
            false => ffi::PyUnicode_AsUTF8AndSize(cure, &raw mut length),
        };
        let said = match text.is_null() {
            true => {
                ffi::PyErr_Clear(); // the words of `await` do without
                String::new()
            }
            false => {
                let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length as usize);
                String::from_utf8_lossy(bytes).into_owned()
            }
        };
        ffi::Py_XDECREF(cure);
        said
    }
}
