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

/// Whether the frame itself makes a call with `arguments`, of a function that `is_function` knows (or, as a class's
/// that was looked up on an object, `is_method`, with that object): then they lie on its value stack, right above the
/// function, and it owns a reference to each that [`traverse`] does not show. How many slots below them, then, is what
/// belongs to the call: the function, or the object.
///
/// That they lie there is not enough. C code that was called with arguments of the frame may pass them on
/// (`functools.partial`, `operator.call`), and have put something that the frame does not own in front of them, or in
/// the function's place (`PY_VECTORCALL_ARGUMENTS_OFFSET`, as bound methods do).
///
/// # Safety
///
/// `frame` must be the current frame, or null.
#[cfg(any(cpython = "3.11", cpython = "3.12", cpython = "3.13"))]
pub(super) unsafe fn call_below(
    frame: *mut Frame,
    arguments: *const *mut PyObject,
    is_function: impl Fn(*mut PyObject) -> bool,
    is_method: impl Fn(*mut PyObject, *mut PyObject) -> bool,
) -> Option<usize> {
    if frame.is_null() {
        return None;
    }
    // SAFETY: the frame is live; it is looked into only if it is one that executes code. What lies on its value
    // stack below arguments of a call in progress are references, or nulls.
    unsafe {
        let owner = isize::from(*field::<_, i8>(frame, facts::FRAME_OWNER));
        if owner != facts::FRAME_OWNED_BY_THREAD && owner != facts::FRAME_OWNED_BY_GENERATOR
            || *field::<_, c_int>(frame, facts::FRAME_STACK_TOP) >= 0
        {
            return None;
        }
        let code = *field::<_, *mut PyObject>(frame, facts::FRAME_CODE);
        let slots = *field::<_, c_int>(code, facts::CODE_SLOTS) as usize;
        let height = *field::<_, c_int>(code, facts::CODE_STACK_SIZE) as usize;
        let bottom = field::<_, *mut PyObject>(frame, facts::FRAME_SLOTS).add(slots).addr();
        let below = arguments.addr().wrapping_sub(bottom) / size_of::<usize>();
        if arguments.addr() < bottom || below > height || below < 2 {
            return None;
        }
        let (second, first) = (*arguments.sub(2), *arguments.sub(1));
        // A function without an object is the lower of the two from 3.13 on, and the upper one before.
        let (function, other) =
            if cfg!(cpython = "3.13") { (second, first) } else { (first, second) };
        if !function.is_null() && other.is_null() && is_function(function) {
            return Some(if cfg!(cpython = "3.13") { 2 } else { 1 });
        }
        (!first.is_null() && !second.is_null() && is_method(second, first)).then_some(1)
    }
}

/// From 3.14 on [`traverse`] shows them itself, if the frame owns them.
///
/// # Safety
///
/// None; the signature is that of the other versions.
#[cfg(any(cpython = "3.14", cpython = "3.15"))]
pub(super) unsafe fn call_below(
    _: *mut Frame,
    _: *const *mut PyObject,
    _: impl Fn(*mut PyObject) -> bool,
    _: impl Fn(*mut PyObject, *mut PyObject) -> bool,
) -> Option<usize> {
    None
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
