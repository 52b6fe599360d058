//! Which addresses are stacks, for the fault handler.
//!
//! # Invariant
//!
//! A signal handler may run at any instruction of any thread, so it can take no lock and follow no
//! pointer that might be freed. The records here are a linked list that only grows; a record whose
//! slab is gone has an empty range and is used again. Readers see a range that is, was a moment
//! ago, or never was a slab's; they check what they find there before they believe it
//! (`Header::live`, the stack pointer).

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

struct Record {
    taken: AtomicBool,
    start: AtomicUsize,
    /// 0 while the record names no slab.
    end: AtomicUsize,
    stride: AtomicUsize,
    guard: AtomicUsize,
    above: AtomicUsize,
    next: AtomicPtr<Record>,
}

static HEAD: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

fn records() -> impl Iterator<Item = &'static Record> {
    // SAFETY: records are leaked when made and never freed; `Acquire` pairs with the `Release` that
    // published them.
    let follow = |link: &AtomicPtr<Record>| unsafe { link.load(Ordering::Acquire).as_ref() };
    std::iter::successors(follow(&HEAD), move |record| follow(&record.next))
}

/// A slab's entry; dropping it withdraws the slab.
pub(super) struct Registration(&'static Record);

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Makes a slab known: `range` is cut into slots of `stride` bytes, of which the lowest `guard`
/// fault and of the highest `above` begin with a fiber's record.
pub(super) fn register(
    range: Range<usize>,
    stride: usize,
    guard: usize,
    above: usize,
) -> Registration {
    let idle = records().find(|record| {
        !record.taken.load(Ordering::Relaxed) && !record.taken.swap(true, Ordering::Acquire)
    });
    let record = idle.unwrap_or_else(append);
    record.start.store(range.start, Ordering::Relaxed);
    record.stride.store(stride, Ordering::Relaxed);
    record.guard.store(guard, Ordering::Relaxed);
    record.above.store(above, Ordering::Relaxed);
    // Last: until now readers took the record for an empty one.
    record.end.store(range.end, Ordering::Release);
    Registration(record)
}

fn append() -> &'static Record {
    let record: &'static Record = Box::leak(Box::new(Record {
        taken: AtomicBool::new(true),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        stride: AtomicUsize::new(1),
        guard: AtomicUsize::new(0),
        above: AtomicUsize::new(0),
        next: AtomicPtr::new(ptr::null_mut()),
    }));
    let mut head = HEAD.load(Ordering::Relaxed);
    loop {
        record.next.store(head, Ordering::Relaxed);
        let new = ptr::from_ref(record).cast_mut();
        match HEAD.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return record,
            Err(now) => head = now,
        }
    }
}

/// The stack slot that an address falls in.
#[derive(Debug)]
pub(in crate::fiber) struct Found {
    /// Addresses that fault.
    pub(in crate::fiber) guard: Range<usize>,
    /// Where the record of the fiber on the slot is: right above its frames.
    pub(in crate::fiber) record: usize,
}

/// Finds the slot that holds `address`. Async-signal-safe.
pub(in crate::fiber) fn find(address: usize) -> Option<Found> {
    records().find_map(|record| {
        let end = record.end.load(Ordering::Acquire);
        let start = record.start.load(Ordering::Relaxed);
        if !(start..end).contains(&address) {
            return None;
        }
        let stride = record.stride.load(Ordering::Relaxed);
        let guard = record.guard.load(Ordering::Relaxed);
        let slot = start + (address - start) / stride * stride;
        let above = record.above.load(Ordering::Relaxed);
        Some(Found { guard: slot..slot + guard, record: slot + stride - above })
    })
}
