//! What a frame passes to a call of a greenlet's `switch` that has not returned.
//!
//! # Invariant
//!
//! The slots are on the value stack of the frame that makes the call, which owns a reference to what is in each and
//! shows it to nobody. They are noted when the call begins and forgotten when it ends, by the code that is called,
//! and looked at only while the stack of that code is suspended.

use crate::interp::references::Visitor;
use pyo3::ffi::PyObject;
use std::ptr;

/// See the module docs. A null in a slot is none.
#[derive(Clone, Copy)]
pub(crate) struct SwitchCall {
    first: *const *mut PyObject,
    count: usize,
}

impl SwitchCall {
    pub(crate) const NOTHING: Self = Self { first: ptr::null(), count: 0 };

    /// So many slots from `first` on.
    pub(crate) fn new(first: *const *mut PyObject, count: usize) -> Self {
        Self { first, count }
    }

    /// Shows the collector what the slots hold.
    ///
    /// # Safety
    ///
    /// To be called from a `tp_traverse`, while the call has not returned.
    pub(crate) unsafe fn traverse(&self, visitor: &mut Visitor) {
        for index in 0..self.count {
            // SAFETY: the invariant.
            unsafe { visitor.object(*self.first.add(index)) }
        }
    }
}
