//! State whose treatment is the same in every supported CPython version.
//!
//! Each noun has the verbs of [`State`](super::State): `enter` and `leave` run on the resumer's
//! stack, in pairs; between `leave` and the next `enter` the fiber's half is kept here.

use super::facts::{self, field};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ptr::{self, NonNull};

/// `_PyErr_StackItem`, asserted against the headers below.
#[repr(C)]
pub(super) struct ErrStackItem {
    exc_value: *mut PyObject,
    previous_item: *mut ErrStackItem,
}

impl ErrStackItem {
    /// Nothing is handled, here and below.
    pub(super) const EMPTY: Self =
        Self { exc_value: ptr::null_mut(), previous_item: ptr::null_mut() };

    /// The exception being handled, borrowed.
    pub(super) fn exc_value(&self) -> *mut PyObject {
        self.exc_value
    }
}

const _: () = assert!(size_of::<ErrStackItem>() == facts::EXC_SIZE as usize);
const _: () = assert!(std::mem::offset_of!(ErrStackItem, exc_value) == facts::EXC_VALUE as usize);
const _: () =
    assert!(std::mem::offset_of!(ErrStackItem, previous_item) == facts::EXC_PREVIOUS as usize);

/// The chain of exceptions being handled (`tstate->exc_info`).
///
/// The fiber has a base item of its own, because the generators on it remember the item below
/// them (`gi_exc_state.previous_item`) across a suspension, and restore it when they end. The
/// base links to whatever the resumer handles, as a generator's item does, so that a bare `raise`
/// and `__context__` see it.
pub(super) struct Exceptions {
    base: ErrStackItem,
    top: *mut ErrStackItem,
    host: *mut ErrStackItem,
}

impl Exceptions {
    pub(super) const fn new() -> Self {
        Self { base: ErrStackItem::EMPTY, top: ptr::null_mut(), host: ptr::null_mut() }
    }

    /// Links the base item to itself; the address is fixed from here on.
    pub(super) fn pin(&mut self) {
        self.top = &raw mut self.base;
    }

    #[inline(always)]
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState) {
        // SAFETY: `ts` is the attached thread state (contract of `State::enter`).
        unsafe {
            let exc_info = field::<_, *mut ErrStackItem>(ts, facts::TS_EXC_INFO);
            self.host = *exc_info;
            self.base.previous_item = self.host;
            *exc_info = self.top;
        }
    }

    #[inline(always)]
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: as in `enter`.
        unsafe {
            let exc_info = field::<_, *mut ErrStackItem>(ts, facts::TS_EXC_INFO);
            self.top = *exc_info;
            *exc_info = self.host;
        }
        // As `gen_send_ex2` does on suspension: no pointer into a stack that may unwind.
        self.base.previous_item = ptr::null_mut();
    }

    /// Has the fiber see nothing of what its resumer handles.
    pub(super) fn cut_off(&mut self) {
        self.base.previous_item = ptr::null_mut();
    }

    /// No generator's item is left on the base.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        ptr::eq(self.top, &raw const self.base)
    }

    /// What the base item still says is handled, when all is over; owned, or null.
    ///
    /// On 3.11 and 3.12 that is None once a function of a call at the bottom has handled an exception:
    /// `PUSH_EXC_INFO` saves nothing as None, and `POP_EXCEPT` puts that back. C code may leave an
    /// exception there that it has found further down (Cython's `__Pyx_ExceptionReset`). A generator
    /// drops it when it ends (`_PyErr_ClearExcState`); so must we.
    #[inline]
    pub(super) fn take_rest(&mut self) -> *mut PyObject {
        std::mem::replace(&mut self.base.exc_value, ptr::null_mut())
    }
}

/// The head of a `_PyStackChunk`, asserted against the headers below.
#[repr(C)]
pub(super) struct Chunk {
    previous: *mut Chunk,
    size: usize,
    top: usize,
}

const _: () = assert!(std::mem::offset_of!(Chunk, previous) == facts::CHUNK_PREVIOUS as usize);
const _: () = assert!(std::mem::offset_of!(Chunk, size) == facts::CHUNK_SIZE as usize);
const _: () = assert!(std::mem::offset_of!(Chunk, top) == facts::CHUNK_TOP as usize);
const _: () = assert!(size_of::<Chunk>() == facts::CHUNK_DATA as usize);

impl Chunk {
    /// The one that the thread allocates frames from; null before its first frame.
    #[inline(always)]
    pub(super) unsafe fn current(ts: *mut PyThreadState) -> *mut Self {
        // SAFETY: `ts` is the attached thread state (contract of `State::enter`).
        unsafe { *field(ts, facts::TS_DATASTACK_CHUNK) }
    }

    /// Bytes of the whole chunk.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// What a fiber's first chunk must have room for: the head, the unused slot, and something.
pub(super) const LEAST_DATA_STACK: usize = 1024;

/// Where interpreter frames are allocated (`tstate->datastack_*`), from a chunk list of the
/// fiber's own: frames must be freed in the reverse order of allocation, and the resumer goes on
/// allocating while the fiber is suspended.
///
/// The first chunk is memory of the fiber's own, right beside its C stack, so that a fiber with few
/// frames touches no further page. The interpreter adds chunks when that one is full, and frees
/// them as frames end; the first it never frees, because the first slot of a chunk without
/// predecessor is left unused (`push_chunk` and `_PyThreadState_PopFrame` in Python/pystate.c: a
/// chunk goes when the frame at its very beginning does). We do the same.
pub(super) struct DataStack {
    fiber: [*mut u8; 3],
    host: [*mut u8; 3],
    root: *mut Chunk,
}

const DATA_STACK: [isize; 3] =
    [facts::TS_DATASTACK_CHUNK, facts::TS_DATASTACK_TOP, facts::TS_DATASTACK_LIMIT];

impl DataStack {
    /// # Safety
    ///
    /// `memory` must be writable, aligned to a pointer, of at least [`LEAST_DATA_STACK`] bytes, and
    /// nobody else's until the last frame of the fiber is gone.
    pub(super) unsafe fn new(memory: NonNull<[u8]>) -> Self {
        let root = memory.as_ptr().cast::<Chunk>();
        let size = memory.len() & !(size_of::<usize>() - 1);
        debug_assert!(root.is_aligned() && size >= LEAST_DATA_STACK);
        // SAFETY: the contract; the limit is one past the end.
        unsafe {
            root.write(Chunk { previous: ptr::null_mut(), size, top: 0 });
            let limit = root.cast::<u8>().add(size);
            let fiber = [root.cast(), Self::bottom(root), limit];
            Self { fiber, host: [ptr::null_mut(); 3], root }
        }
    }

    /// Where the first frame goes: the second slot of the first chunk.
    fn bottom(root: *mut Chunk) -> *mut u8 {
        root.wrapping_add(1).cast::<*mut PyObject>().wrapping_add(1).cast()
    }

    /// Where the first frame goes.
    pub(super) fn bottom_of_all(&self) -> *mut u8 {
        Self::bottom(self.root)
    }

    /// Where the thread's next frame goes.
    #[inline(always)]
    pub(super) unsafe fn top(ts: *mut PyThreadState) -> *mut u8 {
        // SAFETY: `ts` is the attached thread state (contract of `State::data_stack_top`).
        unsafe { *field::<_, *mut u8>(ts, facts::TS_DATASTACK_TOP) }
    }

    /// No frame is left.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        ptr::eq(self.fiber[0], self.root.cast()) && ptr::eq(self.fiber[1], Self::bottom(self.root))
    }

    #[inline(always)]
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState) {
        for (index, offset) in DATA_STACK.into_iter().enumerate() {
            // SAFETY: `ts` is the attached thread state (contract of `State::enter`).
            unsafe {
                let place = field::<_, *mut u8>(ts, offset);
                self.host[index] = *place;
                *place = self.fiber[index];
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        for (index, offset) in DATA_STACK.into_iter().enumerate() {
            // SAFETY: as in `enter`.
            unsafe {
                let place = field::<_, *mut u8>(ts, offset);
                self.fiber[index] = *place;
                *place = self.host[index];
            }
        }
    }

    /// Gives the chunks but the first back to the allocator they came from
    /// (`_PyObject_VirtualFree`, which is private, is the arena allocator's `free`). There are none
    /// unless a foreign stack switcher left frames behind. Needs no GIL: the allocator is `munmap`.
    ///
    /// # Safety
    ///
    /// No frame of the fiber may be alive.
    pub(super) unsafe fn free(&mut self) {
        let mut chunk: *mut Chunk =
            std::mem::replace(&mut self.fiber, [ptr::null_mut(); 3])[0].cast();
        if chunk.is_null() || chunk == self.root {
            return;
        }
        let mut arena =
            ffi::PyObjectArenaAllocator { ctx: ptr::null_mut(), alloc: None, free: None };
        // SAFETY: fills in the structure; has no preconditions.
        unsafe { ffi::PyObject_GetArenaAllocator(&raw mut arena) };
        let Some(free) = arena.free else { return };
        while !chunk.is_null() && chunk != self.root {
            // SAFETY: a live chunk of this fiber, allocated with `arena.alloc` of its `size`; no
            // frame lives in it any more, and it is unlinked before it is freed.
            unsafe {
                let Chunk { previous, size, .. } = *chunk;
                free(arena.ctx, chunk.cast(), size);
                chunk = previous;
            }
        }
    }
}

/// The current `contextvars` context (`tstate->context`).
///
/// A fiber inherits its resumer's context, step by step, as a coroutine does. Only if it suspends
/// inside a nested `Context.run` is there something of its own: then the nested context is kept
/// here, and current again from the next resume on.
///
/// References: `tstate->context` owns one. An entered context's `ctx_prev` takes over the one that
/// `tstate->context` held on the context below it (`_PyContext_Enter`, Python/context.c).
pub(super) struct Context {
    host: *mut PyObject,
    /// The innermost open context of a suspended fiber, with the reference that
    /// `tstate->context` held. Null if the fiber suspended in its resumer's context.
    nested: *mut PyObject,
    /// The context right below all nested ones. Only compared, never dereferenced.
    below: *mut PyObject,
    entered_nested: bool,
    /// The fiber inherits nothing: `nested` is a context of its own, or null for one that is made on first
    /// use.
    is_own: bool,
}

impl Context {
    pub(super) const fn new() -> Self {
        Self {
            host: ptr::null_mut(),
            nested: ptr::null_mut(),
            below: ptr::null_mut(),
            entered_nested: false,
            is_own: false,
        }
    }

    /// From now on the fiber has a context of its own (owned, or null), and inherits none. Only while it
    /// is not entered, as the three below.
    pub(super) fn set_own(&mut self, context: *mut PyObject) {
        self.is_own = true;
        self.nested = context;
    }

    /// Undoes [`set_own`](Self::set_own): what the fiber's context is by now; owned, or null.
    pub(super) fn take_own(&mut self) -> *mut PyObject {
        self.is_own = false;
        std::mem::replace(&mut self.nested, ptr::null_mut())
    }

    /// The fiber's own context, borrowed, or null.
    pub(super) fn own(&self) -> *mut PyObject {
        self.nested
    }

    /// Gives it another one (owned, or null); returns the one before.
    pub(super) fn replace_own(&mut self, context: *mut PyObject) -> *mut PyObject {
        std::mem::replace(&mut self.nested, context)
    }

    #[inline(always)]
    pub(super) unsafe fn enter(&mut self, ts: *mut PyThreadState) {
        // SAFETY: `ts` is the attached thread state (contract of `State::enter`).
        unsafe {
            let context = field::<_, *mut PyObject>(ts, facts::TS_CONTEXT);
            if (*context).is_null() && !self.is_own {
                Self::create();
            }
            self.host = *context;
            self.entered_nested = self.is_own || !self.nested.is_null();
            if self.entered_nested {
                Self::set(ts, self.nested);
                self.nested = ptr::null_mut();
            }
        }
    }

    /// Returns a reference that the caller must drop once everything else has been swapped back,
    /// since that can run arbitrary code.
    #[inline(always)]
    #[must_use]
    pub(super) unsafe fn leave(&mut self, ts: *mut PyThreadState) -> *mut PyObject {
        // SAFETY: as in `enter`.
        let now = unsafe { *field::<_, *mut PyObject>(ts, facts::TS_CONTEXT) };
        if !self.entered_nested && now == self.host {
            return ptr::null_mut();
        }
        // SAFETY: as in `enter`.
        unsafe { self.leave_nested(ts, now) }
    }

    #[cold]
    unsafe fn leave_nested(&mut self, ts: *mut PyThreadState, now: *mut PyObject) -> *mut PyObject {
        let mut ended = ptr::null_mut();
        if !self.entered_nested {
            // A `Context.run` was opened since the resume. It took over the reference on the
            // host's context, and ends (with that reference in `tstate->context`) on the fiber.
            self.nested = now;
            self.below = self.host;
            // SAFETY: the host's context is alive: the nested one's `ctx_prev` owns a reference.
            unsafe { ffi::Py_XINCREF(self.host) };
        } else if now == self.below {
            // The nested contexts have all ended. The reference that `tstate->context` got back
            // from the lowest of them is surplus: `host` was kept with its own.
            ended = now;
            self.below = ptr::null_mut();
        } else {
            self.nested = now;
        }
        // SAFETY: as in `enter`; `host` comes with one reference in all three cases.
        unsafe { Self::set(ts, self.host) };
        ended
    }

    /// Every change of `tstate->context` must change `context_ver`, which `ContextVar.get` uses to
    /// validate its cache.
    unsafe fn set(ts: *mut PyThreadState, context: *mut PyObject) {
        // SAFETY: as in `enter`.
        unsafe {
            *field::<_, *mut PyObject>(ts, facts::TS_CONTEXT) = context;
            *field::<_, u64>(ts, facts::TS_CONTEXT_VER) += 1;
        }
    }

    /// Makes the interpreter create the context that it creates lazily, so that "the fiber opened
    /// a context" and "the first context was created on the fiber" cannot be mistaken for each
    /// other.
    #[cold]
    unsafe fn create() {
        // SAFETY: attached. The copy is not needed; a failed one leaves an error, which is not
        // ours to report: the next use of the context will fail the same way.
        unsafe {
            let copy = ffi::PyContext_CopyCurrent();
            if copy.is_null() {
                ffi::PyErr_Clear();
            }
            ffi::Py_XDECREF(copy);
        }
    }

    /// The context that was current when the fiber was resumed.
    pub(super) fn inherited(&self) -> *mut PyObject {
        self.host
    }

    /// Whether the running fiber is inside a `Context.run` that was not open when it was resumed.
    #[inline(always)]
    pub(super) unsafe fn is_nested(&self, ts: *mut PyThreadState) -> bool {
        // SAFETY: as in `enter`.
        unsafe { *field::<_, *mut PyObject>(ts, facts::TS_CONTEXT) != self.host }
    }

    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        self.nested.is_null()
    }
}

/// A frame below all others of the fiber.
///
/// CPython keeps pointers to the frame below in C locals and in generators while a fiber is
/// suspended (`_gen_throw` saves `tstate->current_frame` around the inner throw and puts it back),
/// so the frame below must keep its address although the resumer changes. This is that frame; only
/// its own `previous` follows the resumer.
///
/// It is an *incomplete* frame to CPython (`_PyFrame_IsIncomplete`), which `f_back`,
/// `sys._getframe`, tracebacks and tracemalloc all skip:
///
/// * From 3.14 on it is owned by the interpreter, as the entry frames of evaluation loops are;
///   everything that walks frames skips any number of those.
/// * Before, it has an ordinary owner and a real code object, and has not yet got to that code's
///   first traceable instruction. It cannot look like an entry frame, because faulthandler skips
///   exactly one of those and then dereferences the code of the next. It shows a line "in portal".
#[repr(C, align(8))]
pub(super) struct BaseFrame([u8; facts::FRAME_SIZE as usize]);

/// `_PyInterpreterFrame`, of which nothing is known here but offsets.
#[repr(C)]
pub(super) struct Frame {
    _opaque: [u8; 0],
}

impl BaseFrame {
    pub(super) fn new(code: *mut PyObject) -> Self {
        let mut frame = Self([0; facts::FRAME_SIZE as usize]);
        let this = frame.as_ptr();
        // SAFETY: `this` points at FRAME_SIZE zeroed bytes; the offsets are those of the
        // structure's fields, with their types. A null code (before set-up) is stored, not read.
        unsafe {
            *field(this, facts::FRAME_CODE) = code;
            *field(this, facts::FRAME_OWNER) = facts::FRAME_BASE_OWNER as i8;
            let first = code.wrapping_byte_offset(facts::CODE_ADAPTIVE);
            // Up to 3.12 the field names the instruction *before* the next one.
            let before = if cfg!(any(cpython = "3.11", cpython = "3.12")) { 1 } else { 0 };
            *field(this, facts::FRAME_INSTR) =
                first.wrapping_byte_offset(-before * facts::CODE_UNIT_SIZE);
        }
        frame
    }

    #[inline(always)]
    pub(super) fn as_ptr(&mut self) -> *mut Frame {
        self.0.as_mut_ptr().cast()
    }

    #[inline(always)]
    pub(super) fn set_previous(&mut self, previous: *mut Frame) {
        // SAFETY: the frame is ours, and `previous` is a field of it.
        unsafe { *field(self.as_ptr(), facts::FRAME_PREVIOUS) = previous }
    }
}

/// How deep the C stack of a fiber may get, in the units in which CPython ≤ 3.13 counts C calls.
///
/// `UNIT` is what each version was measured to need for the hungriest recursion known (`sorted`
/// with a key function that sorts: its merge state alone is 3.5 KiB), with a quarter on top for
/// other compilers' frames. The reserve is for code that does not count: the parser has a limit of
/// its own, and extension modules have none.
#[cfg(any(cpython = "3.11", cpython = "3.12", cpython = "3.13"))]
pub(super) fn c_recursion_units(stack: &std::ops::Range<usize>) -> i32 {
    const RESERVE: usize = 64 * 1024;
    const UNIT: usize = if cfg!(cpython = "3.11") {
        3328 // measured: 2600
    } else if cfg!(cpython = "3.12") {
        2304 // measured: 1800
    } else {
        1664 // measured: 1300
    };
    // The interpreter's own allowance for a thread's stack is the ceiling. (3.11 has none but the
    // recursion limit itself.)
    #[cfg(cpython = "3.11")]
    const MOST: usize = i32::MAX as usize;
    #[cfg(not(cpython = "3.11"))]
    const MOST: usize = super::facts::C_RECURSION_LIMIT as usize;
    let units = stack.len().saturating_sub(RESERVE) / UNIT;
    i32::try_from(units.clamp(20, MOST)).expect("clamped")
}
