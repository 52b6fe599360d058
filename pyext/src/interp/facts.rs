//! The constants that `build/facts.rs` made from `layout.c`, and the one way to use them.

#![allow(dead_code)] // Each version's file names its own subset.

include!(concat!(env!("OUT_DIR"), "/facts.rs"));

/// The field of type `T` at `offset` bytes into the structure at `base`.
///
/// # Safety
///
/// `base` must point at a live structure that has a field of type `T` at `offset`: one of the
/// constants above, for the structure that its prefix names.
#[inline(always)]
pub(crate) unsafe fn field<S, T>(base: *mut S, offset: isize) -> *mut T {
    // SAFETY: in bounds of the structure, by the contract.
    unsafe { base.byte_offset(offset) }.cast()
}
