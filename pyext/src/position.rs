//! Where in a heap (a list, as `heapq` has them) an object is.

use crate::arguments;
use crate::barrier::barrier;
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// `_fiberback.position(heap, item)`: an index at which the heap has this very object, or -1.
///
/// What was pushed last is on the way from the end to the root. There it is looked for first, then
/// everywhere.
pub(crate) unsafe extern "C" fn position(
    _module: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    barrier(ptr::null_mut(), || {
        // SAFETY: attached; `METH_FASTCALL`: as many arguments as `count` says. Nothing runs while
        // the list is looked through.
        unsafe {
            let usage = "position() takes a heap and an object";
            let suit = |&[list, _]: &[_; 2]| ffi::PyList_Check(list) != 0;
            let Some([list, item]) = arguments::exactly(arguments, count, usage, suit) else {
                return ptr::null_mut();
            };
            let is_at = |index: &isize| ffi::PyList_GET_ITEM(list, *index) == item;
            let size = ffi::PyList_GET_SIZE(list);
            let up = |&index: &isize| (index > 0).then(|| (index - 1) / 2);
            let found = std::iter::successors((size > 0).then(|| size - 1), up)
                .find(is_at)
                .or_else(|| (0..size).find(is_at));
            ffi::PyLong_FromSsize_t(found.unwrap_or(-1))
        }
    })
}
