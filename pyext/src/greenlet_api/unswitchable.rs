//! `UnswitchableGreenlet`: for tests of what happens when a switch fails.

use super::layout::{Greenlet, TYPE};
use super::object;
use crate::type_tables::{Table, Type, attribute, last_attribute, set_flags};
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};

static CLASS: Type = Type::new();

/// The class, borrowed.
pub(super) fn class() -> *mut PyObject {
    CLASS.get().cast()
}

unsafe extern "C" fn get_force(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: attached; a greenlet.
    unsafe {
        let inner = (*this.cast::<Greenlet>()).inner;
        ffi::PyBool_FromLong((*inner).is_unswitchable.into())
    }
}

unsafe extern "C" fn set_force(this: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: attached; a greenlet; null deletes.
    unsafe {
        if value.is_null() {
            crate::error::set(ffi::PyExc_AttributeError, "Cannot delete force_switch_error");
            return -1;
        }
        let is_true = ffi::PyObject_IsTrue(value);
        if is_true >= 0 {
            (*(*this.cast::<Greenlet>()).inner).is_unswitchable = is_true != 0;
        }
        is_true.min(0)
    }
}

static ATTRIBUTES: Table<[ffi::PyGetSetDef; 2]> = Table::new([
    attribute(
        c"force_switch_error",
        get_force,
        Some(set_force),
        c"whether switches to this greenlet fail",
    ),
    last_attribute(),
]);

/// Readies the class. False with an error set on failure.
///
/// # Safety
///
/// Attached, after `object::init`; called once.
pub(super) unsafe fn init() -> bool {
    let class = CLASS.get();
    // SAFETY: zeroed memory is a valid type object to fill in (all slots null), not in use yet. What is left out
    // is the base's.
    unsafe {
        (*class).ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        (*class).tp_name = c"greenlet._greenlet.UnswitchableGreenlet".as_ptr();
        (*class).tp_base = TYPE.get();
        (*class).tp_basicsize = size_of::<Greenlet>() as ffi::Py_ssize_t;
        set_flags(class, ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE);
        (*class).tp_doc = c"For tests of what happens when a switch fails".as_ptr();
        (*class).tp_getset = ATTRIBUTES.get().cast();
        (*class).tp_new = Some(object::tp_new);
        (*class).tp_init = Some(object::tp_init);
        (*class).tp_dealloc = Some(object::tp_dealloc);
        ffi::PyType_Ready(class) == 0
    }
}
