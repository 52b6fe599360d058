//! The references that a suspended fiber's frames own, shown to the garbage collector.
//!
//! A task that nobody can wake any more is garbage, with all that its suspended frames hold. The
//! collector can tell only if it is shown those references; it takes every reference that it is
//! *not* shown for one from outside, and keeps the object. So what is shown here must be exactly
//! owned, once, by a frame of the fiber and shown by nobody else; what is left out only costs a
//! collection.
//!
//! * Frames on the data stack are shown by nobody else. Their locals are always in memory. Of the
//!   value stack, versions up to 3.13 know the height only where a Python function was called
//!   (`stacktop`, -1 during calls of C functions); from 3.14 on it is written back before anything
//!   that could run the collector (`stackpointer`), and references that are merely borrowed are
//!   tagged.
//! * Frames of generators are shown by the generators (`gen_traverse`), as far as the height of the
//!   value stack is known; otherwise (up to 3.13) not even their locals.

use super::facts::{self, field};
use super::shared::Frame;
use pyo3::ffi::{self, PyObject};
use std::ffi::{c_int, c_void};

/// What a `tp_traverse` was given.
pub(crate) struct Visitor {
    visit: ffi::visitproc,
    argument: *mut c_void,
    /// What the last visit returned; no more are made once it is not zero.
    pub(crate) result: c_int,
}

impl Visitor {
    pub(crate) fn new(visit: ffi::visitproc, argument: *mut c_void) -> Self {
        Self { visit, argument, result: 0 }
    }

    /// Shows one owned reference; null is none.
    ///
    /// # Safety
    ///
    /// To be called from a `tp_traverse`, with a valid object or null.
    pub(crate) unsafe fn object(&mut self, object: *mut PyObject) {
        if !object.is_null() && self.result == 0 {
            // SAFETY: the contract.
            self.result = unsafe { (self.visit)(object, self.argument) };
        }
    }

    /// Shows what a slot of a frame holds: up to 3.13 a reference or null; from 3.14 on a
    /// `_PyStackRef`, which owns its object only if the lowest bit is clear (`Py_TAG_REFCNT`:
    /// borrowed, immortal, null; tagged integers have it set too).
    unsafe fn slot(&mut self, slot: *const usize) {
        // SAFETY: a slot of a live frame.
        let bits = unsafe { *slot };
        let tagged = cfg!(any(cpython = "3.14", cpython = "3.15")) && bits & 1 != 0;
        if !tagged {
            // SAFETY: passed on.
            unsafe { self.object(bits as *mut PyObject) }
        }
    }
}

/// Shows the references of the frames from `top` down to, not including, `base`.
///
/// # Safety
///
/// To be called from a `tp_traverse`; the frames must be those of a suspended fiber.
pub(super) unsafe fn traverse(top: *mut Frame, base: *mut Frame, visitor: &mut Visitor) {
    let mut frame = top;
    // SAFETY: a suspended fiber's frames stay as they are, linked down to its base frame.
    unsafe {
        while !frame.is_null() && frame != base && visitor.result == 0 {
            let owner = isize::from(*field::<_, i8>(frame, facts::FRAME_OWNER));
            if owner == facts::FRAME_OWNED_BY_THREAD {
                visitor.object(*field(frame, facts::FRAME_FRAME_OBJ));
                visitor.object(*field(frame, facts::FRAME_LOCALS));
                visitor.slot(field(frame, facts::FRAME_FUNCTION));
                visitor.slot(field(frame, facts::FRAME_CODE));
                traverse_slots(frame, slots_known(frame), visitor);
            } else if owner == facts::FRAME_OWNED_BY_GENERATOR && !shown_by_generator(frame) {
                traverse_slots(frame, slots_known(frame), visitor);
            }
            frame = *field(frame, facts::FRAME_PREVIOUS);
        }
    }
}

unsafe fn traverse_slots(frame: *mut Frame, count: usize, visitor: &mut Visitor) {
    // SAFETY: the frame has that many slots in use.
    unsafe {
        let slots: *mut usize = field(frame, facts::FRAME_SLOTS);
        for index in 0..count {
            visitor.slot(slots.add(index));
        }
    }
}

/// How many of the frame's slots surely hold references now: locals, and the value stack if its
/// height is known.
#[cfg(any(cpython = "3.11", cpython = "3.12", cpython = "3.13"))]
unsafe fn slots_known(frame: *mut Frame) -> usize {
    // SAFETY: a live frame with a code object (only entry frames have none, and they have another
    // owner).
    unsafe {
        let height = *field::<_, c_int>(frame, facts::FRAME_STACK_TOP);
        if height >= 0 {
            return height as usize;
        }
        let code = *field::<_, *mut PyObject>(frame, facts::FRAME_CODE);
        *field::<_, c_int>(code, facts::CODE_SLOTS) as usize
    }
}

#[cfg(any(cpython = "3.14", cpython = "3.15"))]
unsafe fn slots_known(frame: *mut Frame) -> usize {
    // SAFETY: a live frame; the pointer is null or into (or right behind) its slots.
    unsafe {
        let top = *field::<_, *mut usize>(frame, facts::FRAME_STACK_POINTER);
        let slots: *mut usize = field(frame, facts::FRAME_SLOTS);
        if top.is_null() { 0 } else { (top.addr() - slots.addr()) / size_of::<usize>() }
    }
}

/// Whether a generator's own traversal shows the slots of its frame while it executes.
unsafe fn shown_by_generator(frame: *mut Frame) -> bool {
    #[cfg(any(cpython = "3.14", cpython = "3.15"))]
    {
        let _ = frame;
        true
    }
    #[cfg(any(cpython = "3.11", cpython = "3.12", cpython = "3.13"))]
    // SAFETY: a live frame.
    unsafe {
        *field::<_, c_int>(frame, facts::FRAME_STACK_TOP) >= 0
    }
}

/// Whether `arguments` (of a call that the frame makes right now) points into the frame's value
/// stack: then the frame owns a reference to each argument, which [`traverse`] does not show.
///
/// # Safety
///
/// `frame` must be the current frame, or null.
#[cfg(any(cpython = "3.11", cpython = "3.12", cpython = "3.13"))]
pub(super) unsafe fn owns_arguments(frame: *mut Frame, arguments: *const *mut PyObject) -> bool {
    if frame.is_null() {
        return false;
    }
    // SAFETY: the frame is live; it is looked into only if it is one that executes code.
    unsafe {
        let owner = isize::from(*field::<_, i8>(frame, facts::FRAME_OWNER));
        if owner != facts::FRAME_OWNED_BY_THREAD && owner != facts::FRAME_OWNED_BY_GENERATOR
            || *field::<_, c_int>(frame, facts::FRAME_STACK_TOP) >= 0
        {
            return false;
        }
        let code = *field::<_, *mut PyObject>(frame, facts::FRAME_CODE);
        let slots = *field::<_, c_int>(code, facts::CODE_SLOTS) as usize;
        let height = *field::<_, c_int>(code, facts::CODE_STACK_SIZE) as usize;
        let stack = field::<_, *mut PyObject>(frame, facts::FRAME_SLOTS).add(slots).addr();
        (stack..stack + height * size_of::<usize>()).contains(&arguments.addr())
    }
}

/// From 3.14 on [`traverse`] shows them itself, if the frame owns them.
///
/// # Safety
///
/// None; the signature is that of the other versions.
#[cfg(any(cpython = "3.14", cpython = "3.15"))]
pub(super) unsafe fn owns_arguments(_: *mut Frame, _: *const *mut PyObject) -> bool {
    false
}

/// Tells the collector that an object needs no finalizing, or that it does again. Returns what was
/// so before.
///
/// # Safety
///
/// `object` must be one that the collector knows (`PyObject_GC_Track`), not immortal.
pub(crate) unsafe fn set_finalized(object: *mut PyObject, finalized: bool) -> bool {
    // SAFETY: such an object has a `PyGC_Head` in front of it. The bit is changed while the
    // collector keeps nothing else in that word but the link (it runs finalizers in that state).
    unsafe {
        let head = object.byte_offset(-facts::GC_HEAD_SIZE);
        let word = field::<_, usize>(head, facts::GC_PREV);
        let bit = facts::GC_FINALIZED as usize;
        let before = *word & bit != 0;
        *word = if finalized { *word | bit } else { *word & !bit };
        before
    }
}
