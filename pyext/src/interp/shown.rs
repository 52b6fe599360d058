//! What debuggers outside the process see of a task's coroutine (3.14 and later).
//!
//! `python -m asyncio ps PID` and the sampling profiler read a process's memory. They take what a task runs for a
//! `PyGenObject`, whatever its type is: they look for a state of the frame, and for an interpreter frame, where one
//! has them (`parse_coro_chain` in Modules/_remote_debugging), and give up on the whole process if that is no
//! frame. If the state is that of a `yield from`, they go on to what lies on top of the frame's value stack, provided
//! that it is of the very *type* that the task's coroutine is of: so never from a portal to a coroutine.
//!
//! So a portal has at those places what is read there. It is a [`Record`] of its coroutine's first frame, and is
//! followed by more of them, one for each further frame, synchronous ones too, of memory that nobody else looks at.
//! They name the portal's type. The last may name another portal, which has records of its own.
//!
//! # Invariant
//!
//! The code that is shown is kept alive by frames that wait, and is shown no longer than they do: nothing but the
//! first frame while a step runs, and nothing at all once there is none.

use super::facts::{self, field};
use super::frames::untagged;
use super::shared::Frame;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::alloc::{self, Layout};
use std::mem::offset_of;
use std::ptr;

/// Where the types must have it.
pub(crate) const STATE: usize = facts::GEN_FRAME_STATE as usize;
pub(crate) const CODE: usize = (facts::GEN_FRAME + facts::FRAME_CODE) as usize;
pub(crate) const INSTRUCTION: usize = (facts::GEN_FRAME + facts::FRAME_INSTR) as usize;
pub(crate) const STACK: usize = (facts::GEN_FRAME + facts::FRAME_STACK_POINTER) as usize;
pub(crate) const OWNER: usize = (facts::GEN_FRAME + facts::FRAME_OWNER) as usize;
/// Words of two bytes between the last two: free-threaded builds have more there.
pub(crate) const BETWEEN: usize = (OWNER - STACK - size_of::<usize>()) / 2;

/// There is a frame, which waits for nothing that the tools could go on to.
const SUSPENDED: i8 = facts::GEN_SUSPENDED as i8;
/// There is one, which waits for what its value stack says.
const AWAITS: i8 = facts::GEN_SUSPENDED_YIELD_FROM as i8;
/// There is none.
pub(crate) const NOTHING: i8 = facts::GEN_CLEARED as i8;
/// Whose the frame is.
pub(crate) const OWNED: i8 = facts::FRAME_OWNED_BY_GENERATOR as i8;

/// How far below the top of its value stack a coroutine keeps what it awaits (`_PyGen_yf`).
const AWAITED: usize = if cfg!(cpython = "3.14") { 1 } else { 2 };

/// What is shown as the top of a frame's value stack: the next record, wherever it is looked for.
pub(crate) type Next = [*const Record; 2];

/// Bytes in which those tools find a coroutine with a frame: a portal, or a record in a chain. Nothing is known of it
/// here but offsets.
#[repr(C)]
pub(crate) struct Record {
    _opaque: [u8; 0],
}

/// Where a record in a chain has its [`Next`]: a coroutine has its name there.
const NEXT: usize = size_of::<PyObject>();

/// From one record of a chain to the next. They overlap: little of each is read.
const STRIDE: usize = {
    let mut stride = 40;
    while !is_stride(stride) {
        stride += align_of::<usize>();
    }
    stride
};

/// Whether no record writes what another shows.
const fn is_stride(stride: usize) -> bool {
    let word = size_of::<usize>();
    let parts = [
        (offset_of!(PyObject, ob_type), word),
        (NEXT, size_of::<Next>()),
        (STATE, 1),
        (CODE, word),
        (INSTRUCTION, word),
        (STACK, word),
        (OWNER, 1),
    ];
    let mut taken = [false; 512];
    let mut part = 0;
    while part < parts.len() {
        let mut byte = parts[part].0;
        while byte < parts[part].0 + parts[part].1 {
            if taken[byte % stride] {
                return false;
            }
            taken[byte % stride] = true;
            byte += 1;
        }
        part += 1;
    }
    true
}

/// What follows the last record: the tools read whole coroutines.
const AFTER: usize = 2 * OWNER;

/// Of a stack with more frames the first is shown: a wait must not take longer and longer.
const MOST_RECORDS: usize = 200;

impl Record {
    #[inline(always)]
    unsafe fn write(this: *mut Self, (code, instruction): Call) {
        // SAFETY: a portal, or in a chain.
        unsafe {
            *this.byte_add(CODE).cast() = code;
            *this.byte_add(INSTRUCTION).cast() = instruction;
        }
    }

    unsafe fn call(this: *const Self) -> Call {
        // SAFETY: in a chain, and written.
        unsafe { (*this.byte_add(CODE).cast(), *this.byte_add(INSTRUCTION).cast()) }
    }

    #[inline(always)]
    unsafe fn is_followed_by(this: *mut Self, next: *const Self) {
        // SAFETY: a portal, or in a chain; the stack that it shows is its `Next`.
        unsafe {
            let top = *this.byte_add(STACK).cast::<*mut Next>();
            *top.sub(1) = [next, next];
            *this.byte_add(STATE).cast() = AWAITS;
        }
    }

    #[inline(always)]
    unsafe fn is_last(this: *mut Self) {
        // SAFETY: a portal, or in a chain.
        unsafe { *this.byte_add(STATE).cast() = SUSPENDED }
    }
}

/// The memory for a portal's further records.
#[derive(Clone, Copy)]
pub(crate) struct Chain(*mut Record);

impl Chain {
    pub(crate) const NONE: Self = Self(ptr::null_mut());

    fn layout(count: usize) -> Layout {
        let bytes = count * STRIDE + AFTER;
        Layout::from_size_align(bytes, align_of::<usize>()).expect("a few KiB")
    }

    fn at(self, index: usize) -> *mut Record {
        self.0.wrapping_byte_add(index * STRIDE)
    }

    /// For so many records of portals of this type. [`NONE`](Self::NONE) where there is no memory.
    fn new(count: usize, class: *mut PyTypeObject) -> Self {
        // SAFETY: not of size 0; each record is within, and what is written there overlaps with nothing.
        unsafe {
            let this = Self(alloc::alloc_zeroed(Self::layout(count)).cast());
            for index in 0..if this.0.is_null() { 0 } else { count } {
                let record = this.at(index);
                *record.byte_add(offset_of!(PyObject, ob_type)).cast() = class;
                *record.byte_add(STACK).cast() = record.byte_add(NEXT + size_of::<Next>());
                *record.byte_add(OWNER).cast() = OWNED;
            }
            this
        }
    }

    /// # Safety
    ///
    /// Made for so many; shown by nobody any more.
    pub(crate) unsafe fn free(self, count: u8) {
        if !self.0.is_null() {
            // SAFETY: the contract.
            unsafe { alloc::dealloc(self.0.cast(), Self::layout(count.into())) }
        }
    }
}

/// The frames of a fiber that waits.
pub(crate) struct Frames {
    pub(super) top: *mut Frame,
    pub(super) base: *mut Frame,
}

/// Where a portal waits.
pub(crate) struct Waits {
    /// Its coroutine.
    pub(crate) coroutine: *mut PyObject,
    /// In synchronous code: the frames of its step, and what is awaited there.
    pub(crate) below: Option<(Frames, *mut PyObject)>,
}

/// A frame's code, and where it is in it.
type Call = (usize, usize);

/// The calls on a fiber that waits, from the innermost.
struct Calls {
    frame: *mut Frame,
    /// It and what is further out are left out.
    end: *mut Frame,
}

impl Iterator for Calls {
    type Item = Call;

    #[inline(always)]
    fn next(&mut self) -> Option<Call> {
        while !self.frame.is_null() && self.frame != self.end {
            let frame = self.frame;
            // SAFETY: the frames of a fiber that waits stay as they are, linked down to its base.
            unsafe {
                self.frame = *field(frame, facts::FRAME_PREVIOUS);
                let owner = isize::from(*field::<_, i8>(frame, facts::FRAME_OWNER));
                if owner == facts::FRAME_OWNED_BY_THREAD || owner == facts::FRAME_OWNED_BY_GENERATOR
                {
                    let code = *field(frame, facts::FRAME_CODE);
                    return Some((code, *field(frame, facts::FRAME_INSTR)));
                }
            }
        }
        None
    }
}

/// Coroutines that await each other, from the outermost. In the end `object` is what the last one awaits, or null.
struct Awaited {
    object: *mut PyObject,
}

impl Iterator for Awaited {
    type Item = Call;

    #[inline(always)]
    fn next(&mut self) -> Option<Call> {
        // SAFETY: null, or what somebody who waits refers to.
        unsafe {
            let coroutine = self.object;
            if coroutine.is_null()
                || !is_coroutine(coroutine)
                || *field::<_, i8>(coroutine, facts::GEN_FRAME_STATE) == NOTHING
            {
                return None;
            }
            self.object = awaited_by(coroutine);
            Some(call_of(coroutine))
        }
    }
}

unsafe fn is_coroutine(object: *mut PyObject) -> bool {
    // SAFETY: an object.
    unsafe { ptr::eq(ffi::Py_TYPE(object), &raw const ffi::PyCoro_Type) }
}

/// What a coroutine awaits, borrowed; null if that is nothing.
///
/// # Safety
///
/// An exact coroutine that does not run.
#[inline(always)]
pub(super) unsafe fn awaited_by(coroutine: *mut PyObject) -> *mut PyObject {
    // SAFETY: the contract. In this state what it awaits is on its value stack.
    unsafe {
        if *field::<_, i8>(coroutine, facts::GEN_FRAME_STATE) != AWAITS {
            return ptr::null_mut();
        }
        let top: *mut usize = *field(coroutine, facts::GEN_FRAME + facts::FRAME_STACK_POINTER);
        untagged(*top.sub(AWAITED))
    }
}

#[inline(always)]
unsafe fn call_of(coroutine: *mut PyObject) -> Call {
    // SAFETY: an exact coroutine.
    unsafe {
        let code = *field(coroutine, facts::GEN_FRAME + facts::FRAME_CODE);
        (code, *field(coroutine, facts::GEN_FRAME + facts::FRAME_INSTR))
    }
}

/// The state that is shown for a coroutine whose portal has not made a step, and its call.
///
/// # Safety
///
/// A valid object, which is not running.
pub(crate) unsafe fn of(coroutine: *mut PyObject) -> (i8, Call) {
    // SAFETY: the contract. An exact coroutine has a frame as long as it is not cleared.
    unsafe {
        if !is_coroutine(coroutine) || *field::<_, i8>(coroutine, facts::GEN_FRAME_STATE) == NOTHING
        {
            return (NOTHING, (0, 0));
        }
        (SUSPENDED, call_of(coroutine))
    }
}

impl Waits {
    fn has_coroutine(&self) -> bool {
        // SAFETY: the portal's.
        unsafe { is_coroutine(self.coroutine) }
    }

    /// The synchronous code's, down to what the portal itself shows.
    fn calls(&self) -> Calls {
        let Some((frames, _)) = &self.below else {
            return Calls { frame: ptr::null_mut(), end: ptr::null_mut() };
        };
        let end = if self.has_coroutine() {
            self.coroutine.wrapping_byte_offset(facts::GEN_FRAME).cast()
        } else {
            frames.base
        };
        Calls { frame: frames.top, end }
    }

    fn awaited(&self) -> Awaited {
        let object = match self.below {
            Some((_, awaited)) => awaited,
            // SAFETY: the portal's coroutine, which waits.
            None if self.has_coroutine() => unsafe { awaited_by(self.coroutine) },
            None => ptr::null_mut(),
        };
        Awaited { object }
    }

    fn count(&self) -> usize {
        let calls = self.calls().take(MOST_RECORDS + 1).count();
        calls + self.awaited().take(MOST_RECORDS + 1).count()
    }

    /// Has a portal show all of it. Its chain is of `count` records, and is replaced by a longer one where that
    /// does not suffice.
    ///
    /// # Safety
    ///
    /// All of it waits, and the portal is of the type `class`.
    #[inline]
    pub(crate) unsafe fn show(
        &self,
        portal: *mut Record,
        class: *mut PyTypeObject,
        chain: &mut Chain,
        count: &mut u8,
    ) {
        // SAFETY: the contract. Nobody is shown the chain when it is exchanged.
        unsafe {
            if self.is_shown(portal, class, *chain, usize::from(*count)) {
                return;
            }
            Self::begin_step(portal, self.coroutine);
            let wanted = self.count();
            if wanted <= MOST_RECORDS {
                std::mem::replace(chain, Chain::NONE).free(std::mem::take(count));
                *chain = Chain::new(wanted, class);
                if !chain.0.is_null() {
                    *count = wanted as u8;
                    self.is_shown(portal, class, *chain, wanted);
                }
            }
        }
    }

    /// A step begins: nothing but the coroutine's first frame is shown, if it is an exact one.
    ///
    /// # Safety
    ///
    /// A portal and its coroutine.
    #[inline(always)]
    pub(crate) unsafe fn begin_step(portal: *mut Record, coroutine: *mut PyObject) {
        // SAFETY: the contract.
        unsafe {
            let state: *mut i8 = portal.byte_add(STATE).cast();
            if *state != NOTHING {
                *state = if is_coroutine(coroutine) { SUSPENDED } else { NOTHING };
            }
        }
    }

    /// Whether `count` records suffice; if not, what the portal shows is to be set anew.
    #[inline(always)]
    unsafe fn is_shown(
        &self,
        portal: *mut Record,
        class: *mut PyTypeObject,
        chain: Chain,
        count: usize,
    ) -> bool {
        // SAFETY: the contract of `show`; records are written within the chain.
        unsafe {
            let mut used = 0;
            // From the innermost: each is followed by the one before it.
            for call in self.calls() {
                if used == count {
                    return false;
                }
                Record::write(chain.at(used), call);
                if used > 0 {
                    Record::is_followed_by(chain.at(used), chain.at(used - 1));
                }
                used += 1;
            }
            let (own, others) = if self.has_coroutine() {
                (call_of(self.coroutine), used)
            } else if used > 0 {
                (Record::call(chain.at(used - 1)), used - 1)
            } else {
                return true; // of no kind that we can look into
            };
            Record::write(portal, own);
            let mut innermost = if others > 0 { chain.at(0) } else { portal };
            let mut awaited = self.awaited();
            for call in awaited.by_ref() {
                if used == count {
                    return false;
                }
                Record::write(chain.at(used), call);
                Record::is_followed_by(innermost, chain.at(used));
                innermost = chain.at(used);
                used += 1;
            }
            let object = awaited.object;
            if !object.is_null() && ptr::eq(ffi::Py_TYPE(object), class) {
                Record::is_followed_by(innermost, object.cast());
            } else {
                Record::is_last(innermost);
            }
            if others > 0 {
                Record::is_followed_by(portal, chain.at(others - 1));
            }
            true
        }
    }
}
