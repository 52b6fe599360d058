//! The arguments of the module's functions of several.

use crate::error;
use pyo3::ffi::{self, PyObject};

/// The `N` arguments of a `METH_FASTCALL` function, borrowed. None with a `TypeError` set, whose text is
/// `usage`, if there are more or fewer, or they do not suit.
///
/// # Safety
///
/// Attached; `arguments` and `count` must be what the interpreter has passed, all of them positional.
#[inline]
pub(crate) unsafe fn exactly<const N: usize>(
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    usage: &str,
    suit: impl FnOnce(&[*mut PyObject; N]) -> bool,
) -> Option<[*mut PyObject; N]> {
    if usize::try_from(count) == Ok(N) {
        // SAFETY: so many valid objects.
        let objects = unsafe { *arguments.cast::<[*mut PyObject; N]>() };
        if suit(&objects) {
            return Some(objects);
        }
    }
    error::set_type(usage);
    None
}
