//! Slabs: large `MAP_NORESERVE` mappings cut into guarded stacks.
//!
//! A slab is one mapping, so a million stacks take a few dozen. A slot is a fixed stride of it:
//!
//! ```text
//! low                                                              high
//! | guard (faults) | usable stack, grows down | fiber's record | reserved for the owner |
//! ```
//!
//! The record lies where the reserved bytes end up to fit below the slot's end, in the middle of a
//! page if need be: the first frames share that page with the record and the reserved bytes.
//!
//! # Invariant
//!
//! An [`Arena`] hands out each slot once (`carve`) and unmaps its slabs only when dropped. Pages
//! are touched by nobody before their slot's guard is in place.

#![allow(unsafe_code)]

use super::geometry::{Geometry, RECORD_SIZE};
use super::guard;
use super::mapping::{Mapping, page_size};
use super::probe;
use super::registry::{self, Registration};
use crate::error::StackError;
use corosensei::stack::{Stack, StackPointer};
use std::io;
use std::ptr::{self, NonNull};

/// Stacks in the first slab of an arena, if that is not more than [`FIRST_SLAB_BYTES`]; each further slab
/// doubles.
const FIRST_SLAB_SLOTS: usize = 64;
/// Bytes in the first slab, if they are enough for one stack.
const FIRST_SLAB_BYTES: usize = 256 << 20;
/// Stacks in the largest slab: with this, a million stacks take about 70 mappings.
const LARGEST_SLAB_SLOTS: usize = 16 * 1024;
/// Bytes in the largest slab. A huge single reservation is refused by some systems and tools.
const LARGEST_SLAB_BYTES: usize = 16 << 30;

/// Address space left to the rest of the process when a slab is made.
const HEADROOM: usize = 32 << 20;

/// One stack's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fiber) struct Slot {
    /// Lowest address of the guard.
    start: usize,
    /// One past the highest address.
    end: usize,
    guard_size: usize,
    /// Bytes above the fiber's record.
    reserve: usize,
}

impl Slot {
    /// The addresses that frames can use, lowest to highest.
    pub(in crate::fiber) fn usable(self) -> std::ops::Range<usize> {
        self.start + self.guard_size..self.end - self.reserve - RECORD_SIZE
    }

    /// The bytes at the top that belong to the fiber layer.
    #[inline]
    pub(in crate::fiber) fn record(self) -> NonNull<u8> {
        let address = self.end - self.reserve - RECORD_SIZE;
        debug_assert_ne!(address, 0);
        // SAFETY: inside a mapping, hence not null. Slabs come from `mmap`, whose memory Rust sees
        // as exposed; the pointer is only ever used within this slot.
        unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
    }

    /// How many bytes of it are resident, from its top down to the first long stretch of which nothing is.
    /// 0 if the system does not tell. One system call, of a microsecond or two, for a stack of which little
    /// was used.
    pub(in crate::fiber) fn touched(self) -> usize {
        const STRETCH: usize = 64;
        let page = page_size();
        let bottom = self.start + self.guard_size;
        let (mut end, mut pages) = (self.end, 0);
        while end > bottom {
            let start = end.saturating_sub(STRETCH * page).max(bottom);
            let mut resident = [0_u8; STRETCH];
            let address = ptr::with_exposed_provenance_mut(start);
            // SAFETY: the range is inside our mapping, at page boundaries, and `resident` has a byte for
            // each of its pages (mincore(2)).
            if unsafe { libc::mincore(address, end - start, resident.as_mut_ptr().cast()) } != 0 {
                break;
            }
            // "The least significant bit of each byte will be set if the corresponding page is currently
            // resident in memory"; the others are undefined.
            let is_resident = |byte: &&u8| *byte & 1 == 1;
            pages += resident.iter().filter(is_resident).count();
            if resident[..STRETCH / 2].iter().find(is_resident).is_none() {
                break;
            }
            end = start;
        }
        pages * page
    }

    /// The bytes above them, which belong to the fiber's owner.
    pub(in crate::fiber) fn reserved(self) -> NonNull<[u8]> {
        let address = self.end - self.reserve;
        debug_assert_ne!(address, 0);
        // SAFETY: as in `record`; one past the slot's end if there are none.
        let start = unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) };
        NonNull::slice_from_raw_parts(start, self.reserve)
    }
}

// SAFETY: `base` is 64-byte aligned (page-aligned end less the reserved bytes and `RECORD_SIZE`, both
// multiples of 64), `limit` page-aligned.
// `Arena::carve` gives out a slot only with its guard in place, and `Geometry` has at least one
// usable page.
unsafe impl Stack for Slot {
    #[inline]
    fn base(&self) -> StackPointer {
        self.record().addr()
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.start).expect("a mapping is not at address 0")
    }
}

struct Slab {
    /// Lets the fault handler find the slab. Withdrawn before that is unmapped: what the handler finds
    /// it reads.
    registration: Option<Registration>,
    mapping: Mapping,
}

impl Drop for Slab {
    fn drop(&mut self) {
        drop(self.registration.take());
        debug_assert!(
            registry::find(self.mapping.range().start).is_none(),
            "withdrawn before it is unmapped"
        );
    }
}

/// Owns the slabs of one pool.
pub(in crate::fiber) struct Arena {
    geometry: Geometry,
    slabs: Vec<Slab>,
    /// The part of the newest slab that has not been carved yet.
    uncarved: std::ops::Range<usize>,
    next_slab_slots: usize,
    guards: guard::Installer,
}

impl Arena {
    pub(in crate::fiber) fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            slabs: Vec::new(),
            uncarved: 0..0,
            next_slab_slots: (FIRST_SLAB_BYTES / geometry.stride()).clamp(1, FIRST_SLAB_SLOTS),
            guards: guard::Installer::new(geometry.guard_pages),
        }
    }

    /// Makes up to `want` slots, and at least one, with their guards, and adds them to `out`.
    ///
    /// On an error nothing has been added.
    pub(in crate::fiber) fn carve(
        &mut self,
        want: usize,
        out: &mut Vec<Slot>,
    ) -> Result<(), StackError> {
        if self.uncarved.is_empty() {
            self.grow()?;
        }
        let stride = self.geometry.stride();
        let count = want.clamp(1, self.uncarved.len() / stride);
        let first = self.uncarved.start;
        // SAFETY: these strides are inside our mapping and have not been handed out, so nothing
        // lives where the guards go.
        let guarded =
            unsafe { self.guards.install(first, stride, count, self.geometry.guard_size) }?;
        out.extend((0..guarded).map(|index| {
            let start = first + index * stride;
            let Geometry { guard_size, reserve, .. } = self.geometry;
            Slot { start, end: start + stride, guard_size, reserve }
        }));
        self.uncarved.start += guarded * stride;
        Ok(())
    }

    /// Maps another slab; a smaller one where the system refuses a large one.
    fn grow(&mut self) -> Result<(), StackError> {
        let stride = self.geometry.stride();
        let mut slots = self.next_slab_slots.min((LARGEST_SLAB_BYTES / stride).max(1));
        loop {
            let bytes = stride.checked_mul(slots).ok_or_else(|| {
                StackError::out_of_memory(io::Error::from_raw_os_error(libc::ENOMEM))
            })?;
            match map_leaving_headroom(bytes) {
                Ok(mapping) => {
                    self.uncarved = mapping.range();
                    let registration = registry::register(
                        mapping.range(),
                        stride,
                        self.geometry.guard_size,
                        self.geometry.reserve + RECORD_SIZE,
                    );
                    self.slabs.push(Slab { registration: Some(registration), mapping });
                    self.next_slab_slots = (slots * 2).min(LARGEST_SLAB_SLOTS);
                    return Ok(());
                }
                Err(_) if slots > 1 => slots /= 2,
                Err(error) => return Err(StackError::out_of_memory(error)),
            }
        }
    }

    /// Gives the touched pages of idle slots back to the system, moves the slots to `cold`, and returns
    /// how many bytes of stack that covers. What the system does not take stays in `slots`. Sorts them,
    /// so that neighbours take one call.
    pub(in crate::fiber) fn discard(&self, slots: &mut Vec<Slot>, cold: &mut Vec<Slot>) -> usize {
        if slots.is_empty() || !probe::discarding_works() {
            return 0;
        }
        slots.sort_unstable();
        let (mut bytes, mut kept) = (0, Vec::new());
        for run in slots.chunk_by(|a, b| a.end == b.start) {
            let (start, end) = (run[0].start, run[run.len() - 1].end);
            // SAFETY: the slots are idle, so nothing on them is needed. The range is inside one of
            // our slabs or of two adjacent ones. Guard regions survive MADV_DONTNEED
            // (madvise(2)), and so does what mprotect set.
            let discarded = unsafe {
                libc::madvise(
                    ptr::with_exposed_provenance_mut(start),
                    end - start,
                    libc::MADV_DONTNEED,
                )
            } == 0;
            if discarded {
                bytes += run.len() * self.geometry.stack_size;
                cold.extend(run);
            } else {
                // A locked mapping: EINVAL.
                kept.extend(run);
            }
        }
        *slots = kept;
        bytes
    }

    /// Bytes of address space held.
    pub(in crate::fiber) fn reserved_bytes(&self) -> usize {
        self.slabs.iter().map(|slab| slab.mapping.range().len()).sum()
    }
}

/// A mapping, unless that would leave the rest of the process without address space: a program that
/// gets an error for a stack must still be able to allocate what it takes to handle it.
fn map_leaving_headroom(bytes: usize) -> io::Result<Mapping> {
    let mapping = Mapping::new(bytes)?;
    Mapping::new(HEADROOM)?;
    Ok(mapping)
}
