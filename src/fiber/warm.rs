//! The idle stacks that each thread keeps for itself.
//!
//! A short last-in-first-out list of warm stacks for each pool that the thread uses; taking and
//! returning one touches nothing that is shared. The list is refilled from, and spills over into, the
//! pool's depot, in batches, under a lock. Pages are given back to the system only there, never on
//! the way of a single stack.
//!
//! # Invariant
//!
//! Each slot in a list is its pool's, idle, and holds one strong reference to it (`depot.rs`).

#![allow(unsafe_code)]

use super::depot::{Batch, LOOK_AT_ONE_IN, Shared, pointer};
use super::memory::Slot;
use super::samples::Samples;
use std::cell::UnsafeCell;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many stacks a thread takes before it looks at the clock.
const TAKES_BETWEEN_LOOKS: u8 = 64;
/// What stacks may have touched, roughly, for the next one of which is looked: so where fibers go deep, more
/// of them are looked at.
const BYTES_BETWEEN_LOOKS: usize = 256 << 10;
/// Twice as many are not looked at however deep they are: a list that goes up and down by a few would be all the
/// time.
const LEAST_STEP: usize = 2;

/// Takes a slot that this thread keeps of a pool, with its strong reference.
#[inline]
pub(super) fn take(shared: NonNull<Shared>) -> Option<Slot> {
    // SAFETY: see `Caches`.
    let (slot, look) =
        LOCAL.try_with(|local| unsafe { (*local.0.get()).pop(shared) }).ok().flatten()?;
    if look {
        retire_idle(shared);
    }
    Some(slot)
}

/// Whether destructors of this thread's thread-local values have begun to run. Known once they have come to
/// our own, which was made before the thread's first fiber: those of values that are younger come before it.
pub(crate) fn thread_is_ending() -> bool {
    LOCAL.try_with(|_| ()).is_err()
}

/// Gives back to the system what this thread, or the depot, has not needed for long.
#[cold]
fn retire_idle(shared: NonNull<Shared>) {
    let now = Instant::now();
    let idle = LOCAL.try_with(|local| {
        // SAFETY: see `Caches`.
        unsafe { (*local.0.get()).take_idle(shared, now) }
    });
    if let Ok(Some((shared, idle))) = idle {
        // SAFETY: they were in this thread's list, each with its reference.
        unsafe { Shared::retire(&shared, idle, now) };
    }
}

/// Lets this thread keep the slots of `batch`, which the depot has given out.
///
/// # Safety
///
/// Each slot must be of the pool `shared`, idle, in nobody else's hands, and come with one strong
/// reference.
pub(super) unsafe fn keep(shared: &Arc<Shared>, mut batch: Batch) {
    if batch.slots.is_empty() {
        return;
    }
    let mut gone = Vec::new();
    // SAFETY: see `Caches`.
    let _ = LOCAL.try_with(|local| unsafe {
        (*local.0.get()).refill(shared, &mut batch, &mut gone);
    });
    // In thread teardown nothing can be kept.
    // SAFETY: the caller's promise.
    unsafe { Shared::take_back(shared, &mut batch.slots) };
}

/// Takes away the list that this thread keeps of a pool. Dropping it returns its stacks.
pub(super) fn forget_list(shared: NonNull<Shared>) -> Option<Cache> {
    // SAFETY: see `Caches`.
    LOCAL.try_with(|local| unsafe { (*local.0.get()).forget(shared) }).ok().flatten()
}

/// Returns a stack to the thread's warm list, or to the depot.
///
/// # Safety
///
/// `slot` must be idle, of the pool `shared`, and come with one strong reference to it.
#[inline]
pub(super) unsafe fn put_back(slot: Slot, shared: NonNull<Shared>) {
    let kept = LOCAL.try_with(|local| {
        // SAFETY: see `Caches`.
        unsafe { (*local.0.get()).push(slot, shared) }
    });
    if !matches!(kept, Ok(true)) {
        // SAFETY: the caller's promise.
        unsafe { put_back_slowly(slot, shared) }
    }
}

/// # Safety
///
/// As for [`put_back`].
#[cold]
unsafe fn put_back_slowly(slot: Slot, shared: NonNull<Shared>) {
    // SAFETY: the slot's reference keeps the pool alive, and this one past the slot's.
    let shared = unsafe {
        Arc::increment_strong_count(shared.as_ptr());
        Arc::from_raw(shared.as_ptr())
    };
    let mut batch = vec![slot];
    let mut gone = Vec::new();
    if shared.has_lists() {
        let _ = LOCAL.try_with(|local| {
            // SAFETY: see `Caches`.
            batch = unsafe { (*local.0.get()).make_room(&shared, slot, &mut gone) };
        });
    } else {
        gone.extend(forget_list(pointer(&shared)));
    }
    // SAFETY: the caller's promise for `slot`; the rest were in this thread's list.
    unsafe { Shared::take_back(&shared, &mut batch) };
}

/// The warm stacks of one pool on one thread.
pub(super) struct Cache {
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    /// How many may be pushed before somebody looks how many bytes they have touched. Follows the length
    /// down, a step or two above it, so that a list that only goes up and down a little is not looked at.
    limit: usize,
    /// How many slots are pushed between two looks.
    step: usize,
    /// What was seen; the oldest slots first.
    looks: Vec<Look>,
    samples: Samples,
    /// The least length since `looked`: so many were not needed.
    lowest: usize,
    /// When idle slots were last looked for; once in [`TAKES_BETWEEN_LOOKS`].
    looked: Option<Instant>,
    takes: u8,
    /// `slots.len()`, for [`StackPool::stats`]: written by this thread alone, so that no
    /// read-modify-write is needed.
    gauge: Arc<AtomicUsize>,
}

/// What one look has found.
struct Look {
    /// Those between the previous one and here are taken to be alike.
    up_to: usize,
    /// What all of those have touched.
    bytes: usize,
}

impl Cache {
    /// Up to which length the list may grow from its present one.
    #[inline]
    fn limit(&self) -> usize {
        // On the way of each stack that is taken, so no division.
        (self.slots.len() + 2 * self.step).min(self.slots.capacity())
    }

    /// Called when the list has grown to its limit, and `next` is to be added: sets another limit, or, if
    /// there is too much in the list, moves the older half to `over`.
    fn look(&mut self, next: Slot, over: &mut Vec<Slot>) {
        let len = self.slots.len();
        let touched = next.touched();
        let most = LOOK_AT_ONE_IN - self.samples.below(LOOK_AT_ONE_IN / 4);
        self.step = (BYTES_BETWEEN_LOOKS / touched.max(1)).clamp(LEAST_STEP, most);
        while self.looks.last().is_some_and(|look| look.up_to > len) {
            self.looks.pop();
        }
        let looked_at = self.looks.last().map_or(0, |look| look.up_to);
        self.looks.push(Look { up_to: len + 1, bytes: touched * (len + 1 - looked_at) });
        let bytes: usize = self.looks.iter().map(|look| look.bytes).sum();
        if len == self.slots.capacity() || bytes > self.shared.bytes_per_thread() {
            let half = len.div_ceil(2);
            over.extend(self.slots.drain(..half));
            self.forget_first(half);
        }
        self.limit = (self.slots.len() + self.step).min(self.slots.capacity());
    }

    /// The first `count` slots are gone.
    fn forget_first(&mut self, count: usize) {
        self.lowest = self.lowest.min(self.slots.len());
        let mut start = 0;
        self.looks.retain_mut(|look| {
            let alike = look.up_to - start;
            start = look.up_to;
            look.up_to = look.up_to.saturating_sub(count);
            look.bytes = look.bytes / alike * alike.min(look.up_to);
            look.up_to > 0
        });
    }

    #[inline]
    fn publish_len(&self) {
        self.gauge.store(self.slots.len(), Ordering::Relaxed);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let mut slots = mem::take(&mut self.slots);
        self.publish_len();
        // SAFETY: they were in this list, each with its reference.
        unsafe { Shared::take_back(&self.shared, &mut slots) };
        let gauge = &self.gauge;
        self.shared.depot().caches.retain(|other| !Arc::ptr_eq(other, gauge));
    }
}

/// The warm stacks of this thread.
///
/// Access is by raw pointer from short, non-reentrant sections: nothing called while one of the
/// methods below runs touches `LOCAL` again. They call the allocator, and no other code that is not
/// in this file. In particular no [`Cache`] is dropped there.
#[derive(Default)]
struct Caches(Vec<Cache>);

struct Local(UnsafeCell<Caches>);

thread_local! {
    static LOCAL: Local = const { Local(UnsafeCell::new(Caches(Vec::new()))) };
}

impl Caches {
    #[inline]
    fn position(&self, shared: NonNull<Shared>) -> Option<usize> {
        self.0.iter().position(|cache| std::ptr::eq(&*cache.shared, shared.as_ptr()))
    }

    #[inline]
    fn pop(&mut self, shared: NonNull<Shared>) -> Option<(Slot, bool)> {
        let index = self.position(shared)?;
        let cache = &mut self.0[index];
        let slot = cache.slots.pop()?;
        cache.limit = cache.limit.min(cache.limit());
        cache.lowest = cache.lowest.min(cache.slots.len());
        cache.takes = (cache.takes + 1) % TAKES_BETWEEN_LOOKS;
        cache.publish_len();
        Some((slot, cache.takes == 0))
    }

    /// Takes the slots that were not needed for a while, if it is time to look.
    fn take_idle(
        &mut self,
        shared: NonNull<Shared>,
        now: Instant,
    ) -> Option<(Arc<Shared>, Vec<Slot>)> {
        let index = self.position(shared)?;
        let cache = &mut self.0[index];
        let looked = *cache.looked.get_or_insert_with(|| {
            cache.lowest = cache.slots.len();
            now
        });
        if now.saturating_duration_since(looked) < cache.shared.idle_trim {
            return None;
        }
        cache.looked = Some(now);
        let idle: Vec<_> = cache.slots.drain(..cache.lowest.min(cache.slots.len())).collect();
        cache.forget_first(idle.len());
        cache.lowest = cache.slots.len();
        cache.limit = cache.limit();
        cache.publish_len();
        Some((Arc::clone(&cache.shared), idle))
    }

    /// Keeps the slot if there is room for it.
    #[inline]
    fn push(&mut self, slot: Slot, shared: NonNull<Shared>) -> bool {
        let Some(index) = self.position(shared) else { return false };
        let cache = &mut self.0[index];
        if cache.slots.len() >= cache.limit || cache.shared.closed.load(Ordering::Relaxed) {
            return false;
        }
        cache.slots.push(slot);
        cache.publish_len();
        true
    }

    /// The list of a pool, made if need be. Adds the lists of pools without handles to `gone`.
    fn cache(&mut self, shared: &Arc<Shared>, gone: &mut Vec<Cache>) -> &mut Cache {
        let index = self.position(pointer(shared)).unwrap_or_else(|| {
            let closed = |cache: &Cache| cache.shared.closed.load(Ordering::Relaxed);
            while let Some(index) = self.0.iter().position(closed) {
                gone.push(self.0.swap_remove(index));
            }
            let gauge = Arc::new(AtomicUsize::new(0));
            shared.depot().caches.push(Arc::clone(&gauge));
            let slots = Vec::with_capacity(shared.warm_per_thread);
            let mut cache = Cache {
                shared: Arc::clone(shared),
                // Capacity is reserved once.
                slots,
                limit: 0,
                step: LEAST_STEP,
                looks: Vec::new(),
                samples: Samples::new(),
                lowest: 0,
                looked: None,
                takes: 0,
                gauge,
            };
            cache.limit = cache.limit();
            self.0.push(cache);
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    /// Adds what came from the depot, which fits: a refill happens when the list is empty.
    fn refill(&mut self, shared: &Arc<Shared>, batch: &mut Batch, gone: &mut Vec<Cache>) {
        let cache = self.cache(shared, gone);
        cache.slots.append(&mut batch.slots);
        cache.looks.clear();
        cache.looks.push(Look { up_to: cache.slots.len(), bytes: batch.touched });
        cache.limit = cache.limit();
        cache.publish_len();
    }

    /// Keeps `slot`, and returns instead the older half of a list that is full.
    fn make_room(&mut self, shared: &Arc<Shared>, slot: Slot, gone: &mut Vec<Cache>) -> Vec<Slot> {
        let cache = self.cache(shared, gone);
        let mut over = Vec::new();
        if cache.slots.len() >= cache.limit {
            cache.look(slot, &mut over);
        }
        cache.slots.push(slot);
        cache.publish_len();
        over
    }

    /// Takes this thread's list of one pool away.
    fn forget(&mut self, shared: NonNull<Shared>) -> Option<Cache> {
        self.position(shared).map(|index| self.0.swap_remove(index))
    }
}
