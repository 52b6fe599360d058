//! One stack, from its pool and back to it.

#![allow(unsafe_code)]

use super::depot::Shared;
use super::memory::Slot;
use super::warm;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// A guarded call stack, taken from a [`StackPool`](super::StackPool).
///
/// Dropping it returns it to the pool: to the list of warm stacks that the thread keeps, with its
/// touched pages still resident.
pub struct Stack {
    slot: Slot,
    /// Counts as one strong reference to the pool (`Arc::into_raw`), so that the memory outlives
    /// the stack, and for ever if the stack is forgotten. `!Send`, like what may be on the stack.
    pool: NonNull<Shared>,
}

impl Stack {
    /// # Safety
    ///
    /// `slot` must be out of `pool`'s hands and in nobody else's, and the caller hands over one
    /// strong reference to `pool`.
    #[inline]
    pub(super) unsafe fn from_parts(slot: Slot, pool: NonNull<Shared>) -> Self {
        Self { slot, pool }
    }

    #[inline]
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// The pool, which lives as long as the stack, or what was put into its place.
    pub(super) fn pool(&self) -> *const Shared {
        self.pool.as_ptr()
    }

    /// Tells the pool that this will not come back.
    pub(super) fn count_leak(&self) {
        // SAFETY: the strong reference keeps the pool alive.
        unsafe { self.pool.as_ref() }.leaked.fetch_add(1, Ordering::Relaxed);
    }

    /// The addresses that frames can use, lowest to highest; the guard pages lie below.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.slot.usable()
    }

    /// The bytes above the frames that the pool [reserves](super::StackPoolBuilder::reserve) for
    /// whoever runs a fiber on this stack; none unless it was told to.
    ///
    /// They are aligned to 64, and hold whatever their last user left there, or zeroes. Neither the
    /// stack nor a fiber on it ever touches them. They may be written and read through this pointer
    /// by whoever owns the stack or the fiber, until that is dropped, and for ever if it is
    /// [forgotten](super::Fiber::leak).
    pub fn reserved(&self) -> NonNull<[u8]> {
        self.slot.reserved()
    }
}

impl Drop for Stack {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `from_parts` was given the slot and one strong reference; both go back, once.
        unsafe { warm::put_back(self.slot, self.pool) }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("range", &self.range()).finish()
    }
}
