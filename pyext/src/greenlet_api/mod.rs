//! greenlet's API on fibers of our own: the native half of `fiberback.greenlet`.
//!
//! (`crate::greenlet` is about the real greenlet in the same process.) docs/greenlets.md says how it is built,
//! and why so.
//!
//! | file | owns |
//! |---|---|
//! | `layout.rs` | what a greenlet consists of |
//! | `note_call.rs` | what the collector is shown of a call of `switch` |
//! | `thread.rs` | a thread's record, its main greenlet, and which greenlet is current |
//! | `thread_end.rs` | the end of a thread whose greenlets are suspended |
//! | `switch.rs` | switches: hosts and guests |
//! | `trace.rs` | the function that is told of switches |
//! | `exceptions.rs` | `error`, `GreenletExit`, and what `throw` raises |
//! | `object.rs` | the type: life, methods, attributes |
//! | `unswitchable.rs` | a class for tests |
//! | `c_api.rs` | the capsule of greenlet.h |
//! | `module.rs` | the module `greenlet._greenlet` |
//! | `names.rs` | strings that are made once |

mod c_api;
mod exceptions;
mod layout;
mod module;
mod names;
mod note_call;
mod object;
mod switch;
mod thread;
mod thread_end;
mod trace;
mod unswitchable;

use crate::{guest, parking, wait_here};
use pyo3::ffi::{self, PyObject};

/// Adds the module `greenlet._greenlet` to ours, as `greenlet`. False with an error set on failure.
///
/// # Safety
///
/// Attached; the module being initialised; called once.
pub(crate) unsafe fn init(module: *mut PyObject) -> bool {
    // SAFETY: the contract.
    unsafe {
        if !(names::init()
            && thread::init()
            && exceptions::init()
            && object::init()
            && unswitchable::init())
        {
            return false;
        }
        thread_end::init();
        guest::set(guest::Functions {
            wait: wait_here::take_and_wait,
            can_wait: parking::can_wait_here,
            move_guest: switch::move_to_loop,
        });
        let greenlet = module::make();
        let added = !greenlet.is_null()
            && ffi::PyModule_AddObjectRef(module, c"greenlet".as_ptr(), greenlet) == 0;
        if added {
            crate::greenlet::note_ours(greenlet);
        }
        ffi::Py_XDECREF(greenlet);
        added
    }
}
