//! Which fiber this thread is running on.
//!
//! # Invariant
//!
//! The thread-local pointer is always valid to dereference: it is either [`OFF_FIBER`], which lives
//! for ever, or the header of a fiber that is being resumed on this thread further up the call
//! chain. [`enter`] publishes a header and [`Entered`] withdraws it, on unwinding too, before the
//! fiber can be dropped (the resumer holds `&mut Fiber` meanwhile).

#![allow(unsafe_code)]

use super::header::Header;
use std::cell::Cell;
use std::ptr;

/// What [`header`] finds on a thread that is on no fiber: a header that owns nothing and lends
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

/// The header of the fiber that this code runs on, or one whose words are all null.
///
/// The reference must not be kept across a suspension point of an *outer* fiber; it is meant for
/// immediate use by the code that runs on the fiber. Fibers never change threads (`Fiber` is
/// `!Send`), so the compiler may cache the thread-local's address across a switch.
#[inline(always)]
pub(crate) fn header<'a>() -> &'a Header {
    // SAFETY: the module's invariant. The lifetime is honest because the code that asks runs *on*
    // the fiber (whose header sits on the very stack the asking frame is on, hence outlives it), or
    // gets `OFF_FIBER`, which is 'static.
    unsafe { &*CURRENT.get() }
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
