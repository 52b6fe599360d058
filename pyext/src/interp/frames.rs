//! A function's frame on the running stack, found for the sake of its local variables.

use super::facts::{self, field};
use super::shared::Frame;
use super::version::Version;
use crate::no_collections::NoCollections;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr;

/// A frame of the running stack.
pub(crate) struct Place {
    pub(super) frame: *mut Frame,
    /// Python calls above it.
    pub(super) above: i32,
    /// The outermost frame above it that is a generator's or a coroutine's, if it has been searched for; or null.
    pub(super) generator: *mut Frame,
}

/// Frames that a search looks at. A stack of Python frames has no such depth.
const MOST_FRAMES: usize = 10_000_000;

impl Place {
    /// The thread's current frame.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn current(ts: *mut PyThreadState) -> Self {
        // SAFETY: the contract.
        Self::at(unsafe { Version::current_frame(ts) })
    }

    /// A frame that nobody runs.
    pub(super) fn of_suspended(frame: *mut Frame) -> Self {
        Self::at(frame)
    }

    #[inline(always)]
    fn at(frame: *mut Frame) -> Self {
        Self { frame, above: 0, generator: ptr::null_mut() }
    }

    /// The frame, or the next one further out that Python code can see, as an object: a new reference. Null
    /// without an error if there is none, null with an error if it cannot be made.
    ///
    /// # Safety
    ///
    /// The frame must be alive, and all that are further out; `ts` be the attached thread state.
    pub(crate) unsafe fn frame_object(&self, ts: *mut PyThreadState) -> *mut PyObject {
        // SAFETY: making a frame object out of an interpreter frame is private; the public way is
        // to ask for the thread's current frame, so this one is that for the duration of the
        // call. Whose it is does not matter: a frame does not know its thread. On 3.11 the allocation
        // of the frame object can start a garbage collection, whose finalizers would run on top
        // of these frames: not now.
        unsafe {
            let host = Version::swap_current_frame(ts, self.frame);
            let frame = {
                let _no_collections = NoCollections::new();
                ffi::PyThreadState_GetFrame(ts)
            };
            Version::swap_current_frame(ts, host);
            frame.cast()
        }
    }

    /// The thread's frames, from the current one down.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, and no frame may end while the iterator is in use.
    pub(crate) unsafe fn frames(ts: *mut PyThreadState) -> impl Iterator<Item = Self> {
        // SAFETY: the contract.
        let first = unsafe { Self::current(ts) };
        std::iter::successors((!first.frame.is_null()).then_some(first), |place| {
            // SAFETY: the thread's frames are linked down to the bottom of its stack.
            let frame: *mut Frame = unsafe { *field(place.frame, facts::FRAME_PREVIOUS) };
            (!frame.is_null()).then(|| Self::at(frame))
        })
        .take(MOST_FRAMES)
    }

    /// The innermost frame that executes `code` with `first` as its first local variable.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state; `code` and `first` valid objects, `code` a function
    /// with at least one parameter.
    pub(crate) unsafe fn find(
        ts: *mut PyThreadState,
        code: *mut PyObject,
        first: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: the thread's frames are linked down to the bottom of its stack.
        unsafe { Self::find_from(Self::current(ts).frame, code, first) }
    }

    /// [`find`](Self::find), from `frame` down.
    ///
    /// # Safety
    ///
    /// `frame` must be null or alive, and the frames below it linked down to a null; the rest as there.
    pub(super) unsafe fn find_from(
        frame: *mut Frame,
        code: *mut PyObject,
        first: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: the contract; frames with an executable other than code are only compared.
        unsafe {
            let mut place = Self::at(frame);
            for _ in 0..MOST_FRAMES {
                if place.frame.is_null() {
                    return None;
                }
                let owner = isize::from(*field::<_, i8>(place.frame, facts::FRAME_OWNER));
                let is_code = owner == facts::FRAME_OWNED_BY_THREAD
                    || owner == facts::FRAME_OWNED_BY_GENERATOR;
                if is_code {
                    let executes = untagged(*field::<_, usize>(place.frame, facts::FRAME_CODE));
                    if executes == code && place.local(0) == first {
                        return Some(place);
                    }
                    place.above += 1;
                    if owner == facts::FRAME_OWNED_BY_GENERATOR {
                        place.generator = place.frame;
                    }
                }
                place.frame = *field(place.frame, facts::FRAME_PREVIOUS);
            }
            None
        }
    }

    /// Whether the place is in this frame.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        ptr::eq(self.frame, other.frame)
    }

    /// The code that the frame executes, borrowed; null if it is one that executes none. Only to be
    /// compared: on base frames it may be anything.
    ///
    /// # Safety
    ///
    /// The frame must be alive.
    #[inline(always)]
    pub(crate) unsafe fn code(&self) -> *mut PyObject {
        // SAFETY: the contract.
        unsafe {
            let owner = isize::from(*field::<_, i8>(self.frame, facts::FRAME_OWNER));
            if owner != facts::FRAME_OWNED_BY_THREAD && owner != facts::FRAME_OWNED_BY_GENERATOR {
                return ptr::null_mut();
            }
            untagged(*field::<_, usize>(self.frame, facts::FRAME_CODE))
        }
    }

    /// Whether the frame is a generator's or a coroutine's, of any kind, that has begun.
    ///
    /// # Safety
    ///
    /// The frame must be alive.
    #[inline]
    pub(crate) unsafe fn is_generators(&self) -> bool {
        // SAFETY: the contract.
        let owner = unsafe { *field::<_, i8>(self.frame, facts::FRAME_OWNER) };
        isize::from(owner) == facts::FRAME_OWNED_BY_GENERATOR
    }

    /// A local variable, borrowed; null if it has no value.
    ///
    /// # Safety
    ///
    /// The frame must be alive, and its function have that many local variables.
    pub(crate) unsafe fn local(&self, index: usize) -> *mut PyObject {
        // SAFETY: the contract.
        unsafe {
            let slots = field::<_, usize>(self.frame, facts::FRAME_SLOTS);
            untagged(*slots.add(index))
        }
    }

    /// A local variable as an integer; `None` (without an error) if it is none.
    ///
    /// # Safety
    ///
    /// As [`local`](Self::local), and attached.
    pub(crate) unsafe fn integer(&self, index: usize) -> Option<isize> {
        // SAFETY: the contract; the value is checked to be an object before it is used as one.
        unsafe {
            let slots = field::<_, usize>(self.frame, facts::FRAME_SLOTS);
            let bits = *slots.add(index);
            if IS_TAGGED && bits & INTEGER_TAG == INTEGER_TAG {
                return Some((bits as isize) >> 2);
            }
            let value = untagged(bits);
            if value.is_null() || ffi::PyLong_CheckExact(value) == 0 {
                return None;
            }
            let value = ffi::PyLong_AsSsize_t(value);
            if value == -1 && !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            Some(value)
        }
    }

    /// Replaces the value of a local variable that holds a mortal object, by another such object
    /// (whose reference is handed over).
    ///
    /// # Safety
    ///
    /// As [`local`](Self::local), and attached. The frame must be waiting in a call, so that nothing
    /// of it is in use elsewhere.
    pub(crate) unsafe fn replace_local(&self, index: usize, value: *mut PyObject) {
        // SAFETY: the contract. A slot whose lowest bit is set borrows its value.
        unsafe {
            let slot = field::<_, usize>(self.frame, facts::FRAME_SLOTS).add(index);
            let before = slot.replace(value.addr());
            if !IS_TAGGED || before & 1 == 0 {
                ffi::Py_XDECREF(before as *mut PyObject);
            }
        }
    }
}

/// From 3.14 on slots are `_PyStackRef`s, with two bits of tag (see `references::Visitor::slot`).
const IS_TAGGED: bool = cfg!(any(cpython = "3.14", cpython = "3.15"));
const INTEGER_TAG: usize = 3;

#[inline(always)]
pub(super) fn untagged(bits: usize) -> *mut PyObject {
    let bits = if IS_TAGGED { bits & !INTEGER_TAG } else { bits };
    bits as *mut PyObject
}
