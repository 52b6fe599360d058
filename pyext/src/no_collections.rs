//! Automatic collections put off: for calls that allocate in the middle of something that no finalizer may
//! see, and no other thread may change.
//!
//! Only 3.11 needs it: from 3.12 on a collection waits for the eval loop.

use pyo3::ffi;
use std::ffi::c_int;

/// No automatic collections while it lives. The GIL must be held all that time.
pub(crate) struct NoCollections {
    were_enabled: c_int,
}

impl NoCollections {
    /// # Safety
    ///
    /// Attached, until this is dropped.
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: attached.
        Self { were_enabled: unsafe { ffi::PyGC_Disable() } }
    }
}

impl Drop for NoCollections {
    fn drop(&mut self) {
        if self.were_enabled != 0 {
            // SAFETY: attached (contract of `new`).
            unsafe {
                ffi::PyGC_Enable();
            }
        }
    }
}
