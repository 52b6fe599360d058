//! The module `greenlet._greenlet`.

use super::layout::TYPE;
use super::{c_api, exceptions, thread, unswitchable};
use crate::barrier::barrier;
use crate::type_tables::Table;
use pyo3::ffi::{self, PyObject};
use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether greenlets of threads that are no more are looked for. They are not: nothing has to be. But it can be
/// set, and is asked.
static CLEANUP: AtomicBool = AtomicBool::new(true);

unsafe extern "C" fn getcurrent(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { c_api::get_current() }
}

unsafe extern "C" fn settrace(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        let mut function = ptr::null_mut::<PyObject>();
        // SAFETY: attached; one format unit, one pointer; borrowed.
        unsafe {
            if ffi::PyArg_ParseTuple(arguments, c"O".as_ptr(), &raw mut function) == 0 {
                return ptr::null_mut();
            }
            let record = thread::record();
            if record.is_null() {
                return ptr::null_mut();
            }
            let function =
                if function == ffi::Py_None() { ptr::null_mut() } else { ffi::Py_NewRef(function) };
            let before = std::mem::replace(&mut (*record).trace, function);
            if before.is_null() { ffi::Py_NewRef(ffi::Py_None()) } else { before }
        }
    })
}

unsafe extern "C" fn gettrace(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached.
        unsafe {
            let record = thread::record();
            if record.is_null() {
                return ptr::null_mut();
            }
            let function = (*record).trace;
            ffi::Py_NewRef(if function.is_null() { ffi::Py_None() } else { function })
        }
    })
}

unsafe extern "C" fn set_thread_local(_: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    let (mut key, mut value) = (ptr::null_mut::<PyObject>(), ptr::null_mut::<PyObject>());
    // SAFETY: attached; two pointers; borrowed. The dictionary is borrowed from the thread state.
    unsafe {
        if ffi::PyArg_UnpackTuple(
            arguments,
            c"set_thread_local".as_ptr(),
            2,
            2,
            &raw mut key,
            &raw mut value,
        ) == 0
        {
            return ptr::null_mut();
        }
        let dict = ffi::PyThreadState_GetDict();
        if dict.is_null() || ffi::PyDict_SetItem(dict, key, value) < 0 {
            return ptr::null_mut();
        }
        ffi::Py_NewRef(ffi::Py_None())
    }
}

unsafe extern "C" fn get_pending_cleanup_count(
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    // A thread's record goes with its thread state.
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromLong(0) }
}

unsafe extern "C" fn get_total_main_greenlets(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromSize_t(thread::mains()) }
}

unsafe extern "C" fn get_clocks(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe {
        if CLEANUP.load(Ordering::Relaxed) {
            ffi::PyLong_FromLong(0)
        } else {
            ffi::Py_NewRef(ffi::Py_None())
        }
    }
}

unsafe extern "C" fn enable_optional_cleanup(
    _: *mut PyObject,
    flag: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; lent.
    unsafe {
        match ffi::PyObject_IsTrue(flag) {
            -1 => ptr::null_mut(),
            is_true => {
                CLEANUP.store(is_true != 0, Ordering::Relaxed);
                ffi::Py_NewRef(ffi::Py_None())
            }
        }
    }
}

#[cfg(any(cpython = "3.11", cpython = "3.12"))]
unsafe extern "C" fn get_trash_nesting(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromLong(crate::interp::trash_nesting(ffi::PyThreadState_Get()).into()) }
}

const fn function(
    name: &'static CStr,
    function: ffi::PyCFunction,
    flags: std::ffi::c_int,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    }
}

/// Up to 3.12 the interpreter counts how deep in the destruction of objects it is.
const FUNCTION_COUNT: usize = if cfg!(any(cpython = "3.11", cpython = "3.12")) { 9 } else { 8 };

static FUNCTIONS: Table<[ffi::PyMethodDef; FUNCTION_COUNT + 1]> = Table::new([
    #[cfg(any(cpython = "3.11", cpython = "3.12"))]
    function(
        c"get_tstate_trash_delete_nesting",
        get_trash_nesting,
        ffi::METH_NOARGS,
        c"get_tstate_trash_delete_nesting() -> Integer\n\nHow deep in the destruction of objects this code is.",
    ),
    function(
        c"getcurrent",
        getcurrent,
        ffi::METH_NOARGS,
        c"getcurrent() -> greenlet\n\nThe greenlet that this code runs in.",
    ),
    function(
        c"settrace",
        settrace,
        ffi::METH_VARARGS,
        c"settrace(callback) -> object\n\nHave callback(event, (origin, target)) told of every switch of this thread; returns the one before.",
    ),
    function(
        c"gettrace",
        gettrace,
        ffi::METH_NOARGS,
        c"gettrace() -> object\n\nWhat settrace() has set, or None.",
    ),
    function(
        c"set_thread_local",
        set_thread_local,
        ffi::METH_VARARGS,
        c"set_thread_local(key, value) -> None\n\nSet a value in the thread state's dictionary.",
    ),
    function(
        c"get_pending_cleanup_count",
        get_pending_cleanup_count,
        ffi::METH_NOARGS,
        c"get_pending_cleanup_count() -> Integer\n\n0: nothing is cleaned up later.",
    ),
    function(
        c"get_total_main_greenlets",
        get_total_main_greenlets,
        ffi::METH_NOARGS,
        c"get_total_main_greenlets() -> Integer\n\nHow many main greenlets there are.",
    ),
    function(
        c"get_clocks_used_doing_optional_cleanup",
        get_clocks,
        ffi::METH_NOARGS,
        c"get_clocks_used_doing_optional_cleanup() -> Integer\n\n0, or None after enable_optional_cleanup(False): nothing is looked for.",
    ),
    function(
        c"enable_optional_cleanup",
        enable_optional_cleanup,
        ffi::METH_O,
        c"enable_optional_cleanup(bool) -> None\n\nOf no effect but on get_clocks_used_doing_optional_cleanup().",
    ),
    ffi::PyMethodDef::zeroed(),
]);

struct Definition(UnsafeCell<MaybeUninit<ffi::PyModuleDef>>);

// SAFETY: written once by `make`, then only the interpreter's.
unsafe impl Sync for Definition {}

static DEFINITION: Definition = Definition(UnsafeCell::new(MaybeUninit::uninit()));

/// What is found on the class, too.
const ON_CLASS: [&CStr; 5] = [c"getcurrent", c"error", c"GreenletExit", c"settrace", c"gettrace"];

/// The module, as a new reference; null with an error set on failure.
///
/// # Safety
///
/// Attached, after the other files' `init`; called once.
pub(super) unsafe fn make() -> *mut PyObject {
    let definition: *mut ffi::PyModuleDef = DEFINITION.0.get().cast();
    // SAFETY: attached; the definition stays.
    unsafe {
        definition.write(ffi::PyModuleDef {
            m_base: ffi::PyModuleDef_HEAD_INIT,
            m_name: c"greenlet._greenlet".as_ptr(),
            m_doc: ptr::null(),
            m_size: -1,
            m_methods: FUNCTIONS.get().cast(),
            m_slots: ptr::null_mut(),
            m_traverse: None,
            m_clear: None,
            m_free: None,
        });
        let module = ffi::PyModule_Create2(definition, ffi::PYTHON_API_VERSION);
        if module.is_null() || !fill(module) {
            ffi::Py_XDECREF(module);
            return ptr::null_mut();
        }
        module
    }
}

unsafe fn fill(module: *mut PyObject) -> bool {
    // SAFETY: attached; the types and exceptions are there for ever.
    unsafe {
        let add = |name: &CStr, object: *mut PyObject| {
            !object.is_null() && ffi::PyModule_AddObjectRef(module, name.as_ptr(), object) == 0
        };
        let capsule = c_api::capsule();
        let added = add(c"_C_API", capsule);
        ffi::Py_XDECREF(capsule);
        let constants = [
            (c"GREENLET_USE_GC", 1),
            (c"GREENLET_USE_TRACING", 1),
            (c"GREENLET_USE_CONTEXT_VARS", 1),
            (c"GREENLET_USE_STANDARD_THREADING", 1),
            // POSIX asks for a million, whatever a clock's tick is.
            (c"CLOCKS_PER_SEC", 1_000_000),
        ];
        added
            && add(c"greenlet", TYPE.get().cast())
            && add(c"UnswitchableGreenlet", unswitchable::class())
            && add(c"error", exceptions::error())
            && add(c"GreenletExit", exceptions::exit())
            && constants.into_iter().all(|(name, value)| {
                ffi::PyModule_AddIntConstant(module, name.as_ptr(), value) == 0
            })
            && ON_CLASS.into_iter().all(|name| {
                let object = ffi::PyObject_GetAttrString(module, name.as_ptr());
                let set = !object.is_null()
                    && ffi::PyDict_SetItemString((*TYPE.get()).tp_dict, name.as_ptr(), object) == 0;
                ffi::Py_XDECREF(object);
                set
            })
    }
}
