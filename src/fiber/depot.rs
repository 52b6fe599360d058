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
use super::samples::Samples;
use crate::error::StackError;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of so many idle stacks in a row one is asked how many bytes it has touched, which takes a system call;
/// the others are taken to have touched as many. (A thread asks more of them where they are deep.)
pub(super) const LOOK_AT_ONE_IN: usize = 16;
/// Stacks carved in one go: the guards of a batch cost one system call.
const CARVE_BATCH: usize = 64;

/// A pool's state, shared by its handles, its threads' lists and its stacks.
pub(super) struct Shared {
    pub(super) geometry: Geometry,
    pub(super) warm_per_thread: usize,
    pub(super) high_water_mark: usize,
    /// The same in bytes touched.
    pub(super) high_water_bytes: usize,
    /// How long a stack may lie idle with its pages.
    pub(super) idle_trim: Duration,
    pub(super) max_stacks: usize,
    /// See [`overflow_advice`](super::StackPoolBuilder::overflow_advice).
    pub(super) overflow_advice: &'static str,
    /// Set when no handle is left: stacks then go to the depot at once.
    pub(super) closed: AtomicBool,
    /// How many stacks were given up with a fiber on them.
    pub(super) leaked: AtomicUsize,
    pub(super) depot: Mutex<Depot>,
}

/// The idle stacks that no thread keeps.
pub(super) struct Depot {
    /// Idle, with touched pages; those that came first at the beginning.
    pub(super) warm: Vec<Idle>,
    /// Bytes touched of all those.
    pub(super) warm_bytes: usize,
    /// Idle, with no pages.
    pub(super) cold: Vec<Slot>,
    /// How many slots were ever carved.
    pub(super) made: usize,
    /// How many stacks each thread keeps, one gauge a thread.
    pub(super) caches: Vec<Arc<AtomicUsize>>,
    pub(super) samples: Samples,
    pub(super) arena: Arena,
}

/// Idle stacks on their way from the depot to a thread.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) slots: Vec<Slot>,
    /// Bytes touched of all those.
    pub(super) touched: usize,
}

/// An idle stack with touched pages.
pub(super) struct Idle {
    slot: Slot,
    touched: usize,
    since: Instant,
}

impl Depot {
    /// Gives the pages of the first `count` warm stacks back to the system; returns how many bytes of stack
    /// that covers.
    pub(super) fn discard_first(&mut self, count: usize) -> usize {
        let Self { warm, warm_bytes, cold, arena, .. } = self;
        let mut slots: Vec<_> = warm[..count].iter().map(|idle| idle.slot).collect();
        let bytes = arena.discard(&mut slots, cold);
        if slots.is_empty() {
            *warm_bytes -= warm.drain(..count).map(|idle| idle.touched).sum::<usize>();
            return bytes;
        }
        // Locked memory stays, all or some of it: as if it had just come.
        let now = Instant::now();
        let (mut kept, mut gone) = (Vec::new(), 0);
        for idle in warm.drain(..count) {
            if slots.contains(&idle.slot) {
                kept.push(Idle { since: now, ..idle });
            } else {
                gone += idle.touched;
            }
        }
        *warm_bytes -= gone;
        warm.append(&mut kept);
        bytes
    }

    /// The same for those that have been idle for longer than `period`.
    fn discard_idle_for(&mut self, period: Duration, now: Instant) -> usize {
        let is_old = |idle: &Idle| now.saturating_duration_since(idle.since) >= period;
        self.discard_first(self.warm.partition_point(is_old))
    }

    /// Adds warm stacks, and looks how many bytes of them were touched.
    fn keep(&mut self, slots: &mut Vec<Slot>, now: Instant) {
        for alike in slots.chunks(LOOK_AT_ONE_IN) {
            let touched = alike[self.samples.below(alike.len())].touched();
            self.warm_bytes += touched * alike.len();
            self.warm.extend(alike.iter().map(|&slot| Idle { slot, touched, since: now }));
        }
        slots.clear();
    }
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

    /// How many bytes of idle stacks a thread keeps for itself.
    pub(super) fn bytes_per_thread(&self) -> usize {
        self.high_water_bytes / 8
    }

    /// Whether threads keep warm stacks for themselves. Not of a limited pool: the idle stacks of
    /// one thread could not serve another.
    pub(super) fn has_lists(&self) -> bool {
        self.max_stacks == usize::MAX && !self.closed.load(Ordering::Relaxed)
    }

    /// Takes idle slots out of the depot, or makes some, at least one, and returns by how many
    /// bytes the pool grew. On an error nothing was added to `batch`.
    pub(super) fn withdraw(&self, batch: &mut Batch) -> Result<usize, StackError> {
        // Half of what the thread may keep, so that a few more or fewer do not come back here.
        let want =
            if self.has_lists() { (self.warm_per_thread / 2).clamp(1, CARVE_BATCH) } else { 1 };
        let Depot { warm, warm_bytes, cold, made, arena, .. } = &mut *self.depot();
        let Batch { slots, touched } = batch;
        // As many as the thread may keep, lest each thread has all of the depot in the end.
        let mut first = warm.len();
        while first > warm.len().saturating_sub(want) && *touched < self.bytes_per_thread() / 2 {
            first -= 1;
            *touched += warm[first].touched;
        }
        *warm_bytes -= *touched;
        slots.extend(warm.drain(first..).map(|idle| idle.slot));
        if slots.is_empty() {
            slots.extend(cold.drain(cold.len().saturating_sub(want)..));
        }
        if !slots.is_empty() {
            return Ok(0);
        }
        let room = self.max_stacks - *made;
        if room == 0 {
            return Err(StackError::pool_exhausted(self.max_stacks));
        }
        let reserved = arena.reserved_bytes();
        arena.carve(want.min(room), slots)?;
        // Addresses grow; the list is popped from its end, so lowest last.
        slots.reverse();
        *made += slots.len();
        Ok(arena.reserved_bytes() - reserved)
    }

    /// Puts `slots` into the depot, and trims above the high-water marks and what has been idle for long.
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
        let now = Instant::now();
        let mut depot = shared.depot();
        let mut trimmed = depot.discard_idle_for(shared.idle_trim, now);
        if depot.warm.len() + count > shared.high_water_mark {
            let Depot { cold, arena, .. } = &mut *depot;
            trimmed += arena.discard(slots, cold);
        }
        depot.keep(slots, now);
        if depot.warm_bytes > shared.high_water_bytes {
            // The oldest, and half of what may be kept, so that a few more do not come back here.
            let (mut over, mut count) = (depot.warm_bytes - shared.high_water_bytes / 2, 0);
            while over > 0 {
                over = over.saturating_sub(depot.warm[count].touched);
                count += 1;
            }
            trimmed += depot.discard_first(count);
        }
        drop(depot);
        // SAFETY: passed on.
        unsafe { Self::let_go(shared, count, trimmed) };
    }

    /// Gives the pages of `slots` back to the system, which a thread has not needed for long, and of what
    /// has lain here for long.
    ///
    /// # Safety
    ///
    /// As for [`take_back`](Self::take_back), which see also for where this must not be called.
    pub(super) unsafe fn retire(shared: &Arc<Self>, mut slots: Vec<Slot>, now: Instant) {
        let count = slots.len();
        let mut depot = shared.depot();
        let mut trimmed = depot.discard_idle_for(shared.idle_trim, now);
        let Depot { cold, arena, .. } = &mut *depot;
        trimmed += arena.discard(&mut slots, cold);
        depot.keep(&mut slots, now);
        drop(depot);
        // SAFETY: passed on.
        unsafe { Self::let_go(shared, count, trimmed) };
    }

    /// Drops the references of `count` slots that are back in the depot, and tells how many bytes were given
    /// back to the system by the way.
    ///
    /// # Safety
    ///
    /// As for [`take_back`](Self::take_back).
    unsafe fn let_go(shared: &Arc<Self>, count: usize, trimmed: usize) {
        for _ in 0..count {
            // SAFETY: the slots' own references, as the caller promises.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(shared)) };
        }
        crate::events::pool_trimmed(trimmed);
    }
}

/// The address of a pool's state: what its stacks know it by.
#[inline]
pub(super) fn pointer(shared: &Arc<Shared>) -> NonNull<Shared> {
    // SAFETY: an `Arc` points at something. (Not made from a reference to the state, which would
    // not cover the counts beside it.)
    unsafe { NonNull::new_unchecked(Arc::as_ptr(shared).cast_mut()) }
}
