//! Stacks where there is no slab support: one [`DefaultStack`] each, with its own guard pages.

#![allow(unsafe_code)]

use super::{Geometry, RECORD_SIZE, RESERVE_ALIGNMENT};
use crate::error::StackError;
use corosensei::stack::{DefaultStack, Stack, StackPointer};
use std::cell::UnsafeCell;
use std::io;
use std::ptr::NonNull;

/// One stack's memory. A copyable name for a [`Memory`] that its [`Arena`] owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fiber) struct Slot(NonNull<Memory>);

/// A platform's stack, and the bytes beside it that belong to the fiber's owner.
///
/// They are not at the stack's top: of a Windows stack only the highest pages are there at first, and the next
/// ones come when frames reach them, in order. Whoever writes below those before faults.
struct Memory {
    stack: DefaultStack,
    stack_size: usize,
    reserved: Box<[UnsafeCell<Line>]>,
}

#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "reached by address")] [u8; RESERVE_ALIGNMENT]);

const _: () = assert!(align_of::<Line>() == RESERVE_ALIGNMENT);

// SAFETY: a slot is a name, like an index: its arena frees the memory only when no slot is in use, and a slot is
// used by whoever was given it alone, the owner's bytes included.
unsafe impl Send for Slot {}

impl Slot {
    fn memory(&self) -> &Memory {
        // SAFETY: the arena frees the box only when it is dropped, by which time no slot is in use.
        unsafe { self.0.as_ref() }
    }

    fn stack(&self) -> &DefaultStack {
        &self.memory().stack
    }

    /// The addresses that frames can use, lowest to highest.
    pub(in crate::fiber) fn usable(self) -> std::ops::Range<usize> {
        // Below are pages that the platform keeps: the guard, and on Windows those for handling an overflow.
        self.base().get() - self.memory().stack_size..self.base().get()
    }

    /// The bytes at the top that belong to the fiber layer.
    pub(in crate::fiber) fn record(self) -> NonNull<u8> {
        NonNull::new(self.base().get() as *mut u8).expect("a stack is not at address 0")
    }

    /// Not known here.
    pub(in crate::fiber) fn touched(self) -> usize {
        0
    }

    /// The bytes that belong to the fiber's owner.
    pub(in crate::fiber) fn reserved(self) -> NonNull<[u8]> {
        let lines = &self.memory().reserved;
        // Through the cells, so that it may be written.
        let start = NonNull::from(&**lines).cast::<u8>();
        NonNull::slice_from_raw_parts(start, size_of_val(&**lines))
    }
}

// SAFETY: the memory is that of a `DefaultStack` less `RECORD_SIZE` at the top (a multiple of 64), which keeps
// its guard pages and its alignment, and leaves far more than the minimum size.
unsafe impl Stack for Slot {
    #[inline]
    fn base(&self) -> StackPointer {
        StackPointer::new(self.stack().base().get() - RECORD_SIZE).expect("above the stack's limit")
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        self.stack().limit()
    }

    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        self.stack().teb_fields()
    }

    #[cfg(windows)]
    fn update_teb_fields(&mut self, stack_limit: usize, guaranteed_stack_bytes: usize) {
        // SAFETY: as in `stack`; a slot is used by one fiber at a time, which is what calls this.
        unsafe { &mut self.0.as_mut().stack }
            .update_teb_fields(stack_limit, guaranteed_stack_bytes);
    }
}

/// Owns the stacks of one pool.
pub(in crate::fiber) struct Arena {
    geometry: Geometry,
    slots: Vec<Slot>,
}

impl Arena {
    pub(in crate::fiber) fn new(geometry: Geometry) -> Self {
        Self { geometry, slots: Vec::new() }
    }

    /// Makes one slot, whatever number is wanted, and adds it to `out`.
    pub(in crate::fiber) fn carve(
        &mut self,
        _want: usize,
        out: &mut Vec<Slot>,
    ) -> Result<(), StackError> {
        let Geometry { stack_size, reserve, .. } = self.geometry;
        let stack =
            DefaultStack::new(stack_size + RECORD_SIZE).map_err(StackError::out_of_memory)?;
        let mut reserved = Vec::new();
        let lines = reserve / RESERVE_ALIGNMENT;
        reserved
            .try_reserve_exact(lines)
            .map_err(|_| StackError::out_of_memory(io::ErrorKind::OutOfMemory.into()))?;
        reserved.extend((0..lines).map(|_| UnsafeCell::new(Line([0; RESERVE_ALIGNMENT]))));
        let reserved = reserved.into_boxed_slice();
        let slot = Slot(NonNull::from(Box::leak(Box::new(Memory { stack, stack_size, reserved }))));
        self.slots.push(slot);
        out.push(slot);
        Ok(())
    }

    /// Nothing: the platform's stacks keep their pages.
    pub(in crate::fiber) fn discard(&self, _slots: &mut Vec<Slot>, _cold: &mut Vec<Slot>) -> usize {
        0
    }

    /// Bytes of address space held.
    pub(in crate::fiber) fn reserved_bytes(&self) -> usize {
        self.slots.len() * self.geometry.stride()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            // SAFETY: `carve` leaked this box, and the pool drops its arena when no slot is in use.
            drop(unsafe { Box::from_raw(slot.0.as_ptr()) });
        }
    }
}
