//! Which fiber this thread is running on.
//!
//! # Invariant
//!
//! The thread-local pointer is always valid to dereference: it is either [`OFF_FIBER`], which lives
//! for ever, or the header of a fiber that is being resumed on this thread further up the call
//! chain. [`enter`] publishes a header and [`Entered`] withdraws it, on unwinding too, before the
//! fiber can be dropped (the resumer holds `&mut Fiber` meanwhile).
//!
//! A [`Current`] exists only in a frame that runs on the fiber in question, and so ends before the fiber
//! does: [`with`] lends it to a closure, and whoever calls [`here`] promises to keep it to themselves.

#![allow(unsafe_code)]

use super::header::Header;
use std::cell::Cell;
use std::ops::Deref;
use std::ptr;

/// What [`with`] finds on a thread that is on no fiber: a header that owns nothing and lends
/// nothing, so that readers need no null check.
struct OffFiber(Header);

// SAFETY: nothing ever writes to this header. All its cells are written either by the fiber it
// describes (there is none) or by a layer that first found a non-null word in it (there is none).
unsafe impl Sync for OffFiber {}

static OFF_FIBER: OffFiber = OffFiber(Header::off_fiber());

thread_local! {
    // `const` and without a destructor: one load to read, and usable in thread teardown.
    static CURRENT: Cell<*const Header> = const { Cell::new(&raw const OFF_FIBER.0) };
}

/// The header of the fiber that the code which holds this runs on, or one whose words are all null.
#[derive(Clone, Copy)]
pub(crate) struct Current<'a>(&'a Header);

impl Deref for Current<'_> {
    type Target = Header;

    #[inline(always)]
    fn deref(&self) -> &Header {
        self.0
    }
}

/// The header of the fiber that this code runs on, for as long as the calling frame lives.
///
/// The caller may suspend meanwhile: fibers never change threads (`Fiber` is `!Send`), so the compiler may
/// cache the thread-local's address across a switch, and the header is the same when the call goes on.
///
/// # Safety
///
/// `'a` must end before the frame does in which this is called: it must neither be returned nor kept.
#[inline(always)]
pub(crate) unsafe fn here<'a>() -> Current<'a> {
    // SAFETY: the module's invariant. The caller's frame is on the very stack that the header sits on,
    // which therefore outlives it; `OFF_FIBER` is 'static.
    Current(unsafe { &*CURRENT.get() })
}

/// [`here`], for the time of a call.
#[inline(always)]
pub(crate) fn with<R>(f: impl for<'a> FnOnce(Current<'a>) -> R) -> R {
    // SAFETY: the closure cannot let the reference out.
    f(unsafe { here() })
}

/// Which fiber the calling code is on, or that it is on none: only to be compared with another.
pub(crate) fn address() -> usize {
    CURRENT.get().addr()
}

/// True while the calling code runs on the fiber with this header.
#[inline(always)]
pub(super) fn is(header: *const Header) -> bool {
    ptr::eq(CURRENT.get(), header)
}

/// Withdraws what [`enter`] published, when dropped.
pub(super) struct Entered {
    previous: *const Header,
}

/// Publishes that the thread is on no fiber.
#[cfg(feature = "dump")]
pub(super) fn enter_off_fiber() -> Entered {
    // SAFETY: it lives for ever, and the caller drops the guard before it does anything else.
    unsafe { enter(&raw const OFF_FIBER.0) }
}

/// Publishes `header` as this thread's current fiber.
///
/// # Safety
///
/// `header` must stay valid until the returned guard is dropped, and the guards of one thread must
/// be dropped in reverse order.
#[inline(always)]
pub(super) unsafe fn enter(header: *const Header) -> Entered {
    Entered { previous: CURRENT.replace(header) }
}

impl Drop for Entered {
    #[inline(always)]
    fn drop(&mut self) {
        CURRENT.set(self.previous);
    }
}
