//! Whom a worker makes steps for, as far as others need to know: a portal, to those that know no portals.
//!
//! # Invariant
//!
//! Every owner begins so: it is a Python object, whose address is that of its `Owner`.

use crate::switch_call::SwitchCall;
use pyo3::ffi::PyObject;

/// The beginning of the Python object.
#[repr(C)]
pub(crate) struct Owner {
    pub(crate) ob_base: PyObject,
    /// The greenlet in which its steps have last switched to greenlets, owned; null if they have not.
    pub(crate) base_greenlet: *mut PyObject,
    /// The greenlet of ours that the owner waits on behalf of; borrowed from the fiber's frames, which own one
    /// reference. Null otherwise.
    pub(crate) waits_for: *mut PyObject,
    /// What its code passes to the `switch` of a greenlet of ours that it is in.
    pub(crate) switch_call: SwitchCall,
}
