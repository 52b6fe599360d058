//! Which addresses are stacks, for the fault handler.
//!
//! # Invariant
//!
//! A signal handler may run at any instruction of any thread, so it can take no lock and follow no
//! pointer that might be freed. The records here are a linked list that only grows; a record whose
//! slab is gone has an empty range and is used again. Its numbers are written one by one, so each
//! record has a version, which is odd meanwhile and new afterwards, and a reader believes only numbers
//! between which the version was even and the same. What it then has is, or was a moment ago, a slab;
//! it checks what it finds there before it believes that (`Header::live`, the stack pointer).
//!
//! A reader that meets a record in the middle of a change passes it by: the slab that it looks for has
//! a thread on one of its stacks, so nobody changes that record.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

/// Laid out as written: `tools/fiberback-gdb.py` reads it.
#[repr(C)]
struct Record {
    taken: AtomicBool,
    /// Odd while the numbers below are being changed.
    version: AtomicUsize,
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

impl Record {
    /// Changes the numbers; called by whoever has `taken` the record.
    fn change(&self, numbers: impl FnOnce(&Self)) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Before any of the numbers.
        fence(Ordering::Release);
        numbers(self);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

/// A slab's entry; dropping it withdraws the slab.
pub(super) struct Registration(&'static Record);

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.change(|record| record.end.store(0, Ordering::Relaxed));
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
    record.change(|record| {
        record.start.store(range.start, Ordering::Relaxed);
        record.end.store(range.end, Ordering::Relaxed);
        record.stride.store(stride, Ordering::Relaxed);
        record.guard.store(guard, Ordering::Relaxed);
        record.above.store(above, Ordering::Relaxed);
    });
    Registration(record)
}

fn append() -> &'static Record {
    let record: &'static Record = Box::leak(Box::new(Record {
        taken: AtomicBool::new(true),
        version: AtomicUsize::new(0),
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
        let version = record.version.load(Ordering::Acquire);
        let start = record.start.load(Ordering::Relaxed);
        let end = record.end.load(Ordering::Relaxed);
        let stride = record.stride.load(Ordering::Relaxed);
        let guard = record.guard.load(Ordering::Relaxed);
        let above = record.above.load(Ordering::Relaxed);
        // Pairs with the fence in `change`: had one of the above been written by a change, then its
        // version would be seen here.
        fence(Ordering::Acquire);
        let whole = version % 2 == 0 && version == record.version.load(Ordering::Relaxed);
        if !whole || !(start..end).contains(&address) {
            return None;
        }
        let slot = start + (address - start) / stride * stride;
        Some(Found { guard: slot..slot + guard, record: slot + stride - above })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two slabs take turns in one record. Between their ranges lies what neither ever held.
    #[test]
    fn numbers_of_two_slabs_are_never_mixed() {
        const LOW: Range<usize> = 0x10_0000..0x10_4000;
        const BETWEEN: usize = 0x20_0000;
        const HIGH: Range<usize> = 0x30_0000..0x30_8000;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(register(LOW, 0x1000, 0x100, 0x200));
                    drop(register(HIGH, 0x4000, 0x300, 0x400));
                }
            });
            let _stop = scopeguard::guard((), |()| stop.store(true, Ordering::Relaxed));
            let (mut looked, mut seen) = (0, 0);
            while looked < 1_000_000 || seen < 1000 {
                looked += 1;
                assert!(find(BETWEEN).is_none(), "the start of one slab and the end of the other");
                if let Some(found) = find(HIGH.start + 0x5000) {
                    assert_eq!((found.guard.start, found.guard.end), (0x30_4000, 0x30_4300));
                    assert_eq!(found.record, 0x30_7c00);
                    seen += 1;
                }
            }
        });
    }
}
