//! The handler that names a fiber whose stack could not be unwound.
//!
//! A cancellation unwinds the fiber's stack. A frame on it that cannot be unwound (an `extern "C"` function, a
//! destructor that panics) ends the process: Rust says what kind of frame it was, and aborts. It does so on the
//! fiber's own stack, from which the handler of that signal knows the fiber; it says which one it was and what
//! to type, and the process ends as it would have.
//!
//! # Invariant
//!
//! As in `overflow.rs`: everything that [`on_abort`] calls is async-signal-safe.

#![allow(unsafe_code)]

use super::header::{Header, LIVE};
use super::memory::registry;
use super::overflow;
use std::ptr;
use std::sync::Once;

/// Makes sure that it is said. To be called before a fiber's stack is unwound.
pub(super) fn prepare() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| overflow::install(libc::SIGABRT, on_abort));
}

extern "C" fn on_abort(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes it, valid for the time of the handler.
    let stack_pointer = unsafe { overflow::stack_pointer(context) };
    let found = stack_pointer.and_then(registry::find).filter(|found| {
        stack_pointer.is_some_and(|pointer| (found.guard.end..found.record).contains(&pointer))
    });
    if let Some(found) = found {
        let header = ptr::with_exposed_provenance::<Header>(found.record);
        // SAFETY: this thread's stack pointer is in the slot, so it runs on it and its top page is mapped; a
        // header, or zeroes, sit there.
        let header = unsafe { &*header };
        if header.live.get() == LIVE
            && header.is_cancelled()
            && !header.has_been_refused_too_often()
        {
            report(header);
        }
    }
    overflow::chain(signal, info, context);
}

fn report(header: &Header) {
    for part in [
        "\nfiberback: the fiber '",
        header.display_name(),
        "' was cancelled (its `Run` was dropped), and the process aborted before its stack was unwound. If that \
         met an `extern \"C\"` function, which cannot be unwound: below it, wait by `fiberback::try_await` and \
         return the error. A destructor that panics meanwhile aborts, too.\n",
    ] {
        // SAFETY: the bytes are valid; errors cannot be helped here.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}
