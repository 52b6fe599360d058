//! A pool's state: its settings, and the idle stacks that no thread keeps.
//!
//! # Invariant
//!
//! A slot is in exactly one place: uncarved in the arena, in the depot, in one thread's list
//! (`warm.rs`), in a [`Stack`](super::Stack), or forgotten for ever. Every slot outside arena and depot
//! holds one strong reference to the pool's [`Shared`], so the memory is unmapped only when all are
//! back. A forgotten stack is never back.
//!
//! Events are emitted with no lock held and outside the thread's lists: a subscriber may use pools.

#![allow(unsafe_code)]

use super::memory::{Arena, Geometry, Slot};
use crate::error::StackError;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stacks carved in one go: the guards of a batch cost one system call.
const CARVE_BATCH: usize = 64;

/// A pool's state, shared by its handles, its threads' lists and its stacks.
pub(super) struct Shared {
    pub(super) geometry: Geometry,
    pub(super) warm_per_thread: usize,
    pub(super) high_water_mark: usize,
    pub(super) max_stacks: usize,
    /// See [`overflow_advice`](super::StackPoolBuilder::overflow_advice).
    pub(super) overflow_advice: &'static str,
    /// Set when no handle is left: stacks then go to the depot at once.
    pub(super) closed: AtomicBool,
    pub(super) depot: Mutex<Depot>,
}

/// The idle stacks that no thread keeps.
pub(super) struct Depot {
    /// Idle, with touched pages.
    pub(super) warm: Vec<Slot>,
    /// Idle, with no pages.
    pub(super) cold: Vec<Slot>,
    /// How many slots were ever carved.
    pub(super) made: usize,
    /// How many stacks each thread keeps, one gauge a thread.
    pub(super) caches: Vec<Arc<AtomicUsize>>,
    pub(super) arena: Arena,
}

impl Shared {
    /// See [`overflow_advice`](super::StackPoolBuilder::overflow_advice).
    pub(super) fn overflow_advice(&self) -> &'static str {
        self.overflow_advice
    }

    pub(super) fn depot(&self) -> MutexGuard<'_, Depot> {
        // Nothing under the lock can leave it half-done.
        self.depot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether threads keep warm stacks for themselves. Not of a limited pool: the idle stacks of
    /// one thread could not serve another.
    pub(super) fn has_lists(&self) -> bool {
        self.max_stacks == usize::MAX && !self.closed.load(Ordering::Relaxed)
    }

    /// Takes idle slots out of the depot, or makes some, at least one, and returns by how many
    /// bytes the pool grew. On an error nothing was added to `batch`.
    pub(super) fn withdraw(&self, batch: &mut Vec<Slot>) -> Result<usize, StackError> {
        // Half of what the thread may keep, so that a few more or fewer do not come back here.
        let want =
            if self.has_lists() { (self.warm_per_thread / 2).clamp(1, CARVE_BATCH) } else { 1 };
        let Depot { warm, cold, made, arena, .. } = &mut *self.depot();
        for idle in [warm, cold] {
            if batch.is_empty() {
                batch.extend(idle.drain(idle.len().saturating_sub(want)..));
            }
        }
        if !batch.is_empty() {
            return Ok(0);
        }
        let room = self.max_stacks - *made;
        if room == 0 {
            return Err(StackError::pool_exhausted(self.max_stacks));
        }
        let reserved = arena.reserved_bytes();
        arena.carve(want.min(room), batch)?;
        // Addresses grow; the list is popped from its end, so lowest last.
        batch.reverse();
        *made += batch.len();
        Ok(arena.reserved_bytes() - reserved)
    }

    /// Puts `slots` into the depot and trims above the high-water mark.
    ///
    /// Must not be called inside the thread's lists (`warm.rs`): it emits an event.
    ///
    /// # Safety
    ///
    /// Each slot must be this pool's, idle, and come with one strong reference, which is released.
    pub(super) unsafe fn take_back(shared: &Arc<Self>, slots: &mut Vec<Slot>) {
        let count = slots.len();
        if count == 0 {
            return;
        }
        let mut trimmed = None;
        let mut depot = shared.depot();
        if depot.warm.len() + count > shared.high_water_mark {
            let Depot { cold, arena, .. } = &mut *depot;
            trimmed = Some(arena.discard(slots, cold));
        }
        depot.warm.append(slots);
        drop(depot);
        for _ in 0..count {
            // SAFETY: the slots' own references, as the caller promises.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(shared)) };
        }
        if let Some(bytes) = trimmed {
            crate::events::pool_trimmed(bytes);
        }
    }
}

/// The address of a pool's state: what its stacks know it by.
#[inline]
pub(super) fn pointer(shared: &Arc<Shared>) -> NonNull<Shared> {
    // SAFETY: an `Arc` points at something. (Not made from a reference to the state, which would
    // not cover the counts beside it.)
    unsafe { NonNull::new_unchecked(Arc::as_ptr(shared).cast_mut()) }
}
