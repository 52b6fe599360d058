//! The record above the frames of every stack in use.
//!
//! It lives on the stack's own memory, so that a fiber needs no other allocation, its address never
//! changes, and the fault handler finds it from a bare fault address.

use super::depot::Shared;
#[cfg(feature = "dump")]
use super::roster::Seen;
use super::site::Site;
use corosensei::Yielder;
use std::cell::Cell;
use std::ptr;

/// Marks a header as that of a live fiber, for the fault handler.
#[cfg(target_os = "linux")]
pub(super) const LIVE: u64 = 0x6669_6265_7262_6163; // "fiberbac"

/// Book-keeping of one fiber; see the module docs. Laid out as written: `tools/fiberback-gdb.py` reads it.
#[repr(C)]
pub(crate) struct Header {
    /// [`LIVE`] while the fiber exists, 0 otherwise. Read by the fault handler.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) live: Cell<u64>,
    /// The name given to the fiber, or null. Owned by the fiber, as a `Box<Box<str>>`: one word here.
    pub(super) name: Cell<*const Box<str>>,
    /// Where the values of the current resume are exchanged: the resumer's `Transfer` union.
    /// Dangling while the fiber is suspended.
    pub(super) transfer: Cell<*mut ()>,
    /// How the fiber's code switches back, from its first resumption on. Here rather than in the
    /// `Suspender`, because the processor cannot foresee where a switch leads, and waits for each load on
    /// the way to it.
    pub(super) yielder: Cell<*const Yielder<(), ()>>,
    /// The lowest address of the fiber's stack that frames can use; 0 if this describes no fiber. The
    /// highest is right below this header.
    pub(super) lowest: Cell<usize>,
    /// The pool of the fiber's stack, which lives as long as that; null if this describes no fiber.
    pub(super) pool: Cell<*const Shared>,

    /// Three words lent to the layer above, which alone gives them a meaning. Null until it writes
    /// them. [`crate::bridge`] says what it keeps here.
    pub(crate) hot: Cell<*const ()>,
    /// See `hot`.
    pub(crate) home: Cell<*const ()>,
    /// See `hot`.
    pub(crate) state: Cell<*const ()>,

    /// How often the fiber asked to suspend after it was cancelled.
    pub(super) refusals: Cell<u32>,
    /// Set once, when the fiber's owner wants it to end. The fiber is never suspended again.
    pub(super) cancelled: Cell<bool>,
    /// Whether the resuming thread was already panicking when it resumed the fiber.
    pub(super) resumed_panicking: Cell<bool>,

    /// What other threads see of the fiber; null if this describes none. Counts as one strong reference.
    #[cfg(feature = "dump")]
    pub(super) seen: Cell<*const Seen>,
}

impl Header {
    /// A header that describes no fiber.
    pub(super) const fn off_fiber() -> Self {
        Self {
            live: Cell::new(0),
            name: Cell::new(ptr::null()),
            transfer: Cell::new(ptr::null_mut()),
            yielder: Cell::new(ptr::null()),
            lowest: Cell::new(0),
            pool: Cell::new(ptr::null()),
            cancelled: Cell::new(false),
            resumed_panicking: Cell::new(false),
            refusals: Cell::new(0),
            hot: Cell::new(ptr::null()),
            home: Cell::new(ptr::null()),
            state: Cell::new(ptr::null()),
            #[cfg(feature = "dump")]
            seen: Cell::new(ptr::null()),
        }
    }

    /// What other threads see of the fiber, if this describes one.
    #[cfg(feature = "dump")]
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) fn seen(&self) -> Option<&Seen> {
        // SAFETY: null, or with a strong reference that the fiber gives up at its end (`switch::Fiber::end`).
        unsafe { self.seen.get().as_ref() }
    }

    /// Called on the fiber: if it waits from now on, it does so there.
    #[inline(always)]
    pub(crate) fn waits_at(&self, site: Site) {
        #[cfg(feature = "dump")]
        if let Some(seen) = self.seen() {
            seen.set_waits_at(site.location());
        }
        let _ = site;
    }

    /// [`waits_at`](Self::waits_at) for a wait inside of another one, which then goes on.
    #[inline(always)]
    pub(crate) fn waits_within<R>(&self, site: Site, wait: impl FnOnce() -> R) -> R {
        #[cfg(feature = "dump")]
        if let Some(seen) = self.seen() {
            let outer = seen.set_waits_at(site.location());
            let _outer = scopeguard::guard(outer, |outer| {
                if !outer.is_null() {
                    seen.set_waits_at(outer);
                }
            });
            return wait();
        }
        let _ = site;
        wait()
    }

    /// True once the fiber's owner has asked it to end.
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// True if a panic began on this fiber and is still unwinding it: suspending now would leave
    /// the thread's panic count to whatever runs next.
    ///
    /// A thread that was already panicking when it resumed the fiber (a destructor that polls)
    /// cannot be told apart from one where a second panic began since; it is given the benefit.
    #[inline]
    pub(crate) fn is_unwinding(&self) -> bool {
        std::thread::panicking() && !self.resumed_panicking.get()
    }

    /// True if the thread was already panicking when it resumed the fiber.
    #[cold]
    pub(crate) fn was_resumed_panicking(&self) -> bool {
        self.resumed_panicking.get()
    }

    /// Counts one attempt to wait after cancellation; aborts the process, with a message, when the
    /// fiber has made so many that it will never end by itself.
    #[cold]
    pub(crate) fn count_refusal(&self) {
        let refusals = self.refusals.get() + 1;
        self.refusals.set(refusals);
        if refusals >= MAX_REFUSALS {
            crate::error::abort_for_uncancellable(self.display_name(), MAX_REFUSALS);
        }
    }

    /// [`count_refusal`](Self::count_refusal) has aborted the process.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) fn has_been_refused_too_often(&self) -> bool {
        self.refusals.get() >= MAX_REFUSALS
    }

    /// What to tell whoever has overflown the stack. Read by the fault handler, on that stack.
    #[cfg_attr(not(any(target_os = "linux", windows)), allow(dead_code))]
    #[allow(unsafe_code)]
    pub(super) fn overflow_advice(&self) -> &'static str {
        // SAFETY: null, or of the stack that the fiber holds, with one strong reference, as long as this
        // header is there (`switch::Fiber::new`); the text never changes.
        unsafe { self.pool.get().as_ref() }.map_or("", Shared::overflow_advice)
    }

    /// The fiber's name, or a placeholder.
    #[allow(unsafe_code)]
    pub(super) fn display_name(&self) -> &str {
        // SAFETY: null, or the `Box<str>` that `Fiber::set_name` has boxed, which `Fiber` frees only after it has
        // cleared the word (`switch::Fiber::end`).
        unsafe { self.name.get().as_ref() }.map_or("<unnamed>", |name| &**name)
    }
}

/// Far above any honest retry loop, and reached in well under a second by a dishonest one.
const MAX_REFUSALS: u32 = 20_000;
