//! The part of `PyThreadState` that belongs to a C stack, and how to swap it.
//!
//! CPython keeps what it knows about the running code in the thread state. When a thread changes
//! to another C stack behind its back, that part must change too: frames, the data stack they live
//! on, the exceptions being handled, recursion depths, and so on. [`State`] is a fiber's copy of
//! that part; [`State::enter`] puts it into the thread state, [`State::leave`] takes it out.
//!
//! # Invariant
//!
//! The fields written are exactly those that this module saves and restores, at offsets that
//! [`selfcheck`] has compared with the running interpreter before the first write. `enter` and
//! `leave` come in pairs on one thread with the GIL held, and all the fiber's Python code runs
//! between them.
//!
//! One file for each CPython version, all with the same verbs; what is the same in all of them is
//! in `shared.rs`. `README.md` beside this file says how to add a version.

#[cfg(not(cpython = "3.11"))]
mod c_calls;
pub(crate) mod contexts;
pub(crate) mod facts;
pub(crate) mod frames;
#[cfg_attr(cpython = "3.11", path = "uninstrumented.rs")]
pub(crate) mod instrumentation;
mod known_calls;
pub(crate) mod level;
#[cfg(not(cpython = "3.11"))]
mod lsprof;
#[cfg(not(cpython = "3.11"))]
mod monitoring_profiler;
mod own_tracer;
pub(crate) mod profiled;
pub(crate) mod references;
pub(crate) mod selfcheck;
mod shared;
#[cfg(any(cpython = "3.14", cpython = "3.15"))]
pub(crate) mod shown;
#[cfg(any(cpython = "3.14", cpython = "3.15"))]
mod stack_bounds;
pub(crate) mod tracing;
pub(crate) mod unlike;

#[cfg_attr(cpython = "3.11", path = "cp311.rs")]
#[cfg_attr(cpython = "3.12", path = "cp312.rs")]
#[cfg_attr(cpython = "3.13", path = "cp313.rs")]
#[cfg_attr(cpython = "3.14", path = "cp314.rs")]
#[cfg_attr(cpython = "3.15", path = "cp315.rs")]
mod version;

use crate::messages;
use facts::field;
use instrumentation::Instrumented;
use own_tracer::OwnTracer;
use profiled::Profiled;
use pyo3::ffi::{self, PyObject, PyThreadState};
use shared::{Context, DataStack, Exceptions};
use std::ffi::c_int;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use version::Version;

/// The code object that fibers' base frames show, see `shared::BaseFrame`.
static BASE_CODE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// A fiber's part of the thread state.
pub(crate) struct State {
    version: Version,
    exceptions: Exceptions,
    data_stack: DataStack,
    context: Context,
    tracer: OwnTracer,
    /// How many trace functions the resumer is in.
    host_tracing: i32,
}

impl State {
    /// The state of a fiber with nothing on it, for a C stack of these addresses, whose first
    /// interpreter frames are to lie in `data_stack`. Must be [pinned](Self::pin) at its final
    /// address before use.
    ///
    /// # Safety
    ///
    /// `data_stack` must be writable, aligned to a pointer, of at least 1 KiB, and used by nobody
    /// else until the state is clean and not used any more.
    pub(crate) unsafe fn new(stack: Range<usize>, data_stack: NonNull<[u8]>) -> Self {
        // SAFETY: passed on.
        let data_stack = unsafe { DataStack::new(data_stack) };
        Self {
            version: Version::new(stack, BASE_CODE.load(Ordering::Relaxed)),
            exceptions: Exceptions::new(),
            data_stack,
            context: Context::new(),
            tracer: OwnTracer::new(),
            host_tracing: 0,
        }
    }

    /// Links the fiber's base records. From here on the state must not move.
    pub(crate) fn pin(&mut self) {
        self.version.pin();
        self.exceptions.pin();
    }

    /// Before [`enter`](Self::enter), with the thread state whole: a tracer that keeps a stack gets the fiber's.
    ///
    /// # Safety
    ///
    /// As [`enter`](Self::enter). No reference to the state may be held: Python's code may run.
    #[inline(always)]
    pub(crate) unsafe fn enter_tracer(this: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: passed on.
        unsafe {
            profiled::look(ts);
            OwnTracer::enter(&raw mut (*this).tracer, ts);
        }
    }

    /// After [`leave`](Self::leave): undoes [`enter_tracer`](Self::enter_tracer). An error that is set stays.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    pub(crate) unsafe fn leave_tracer(this: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: passed on.
        unsafe { OwnTracer::leave(&raw mut (*this).tracer, ts) }
    }

    /// Puts the fiber's state into the thread state, right before the switch to the fiber.
    ///
    /// # Safety
    ///
    /// `ts` must be the calling thread's attached thread state, the state must be pinned and not
    /// entered; if the fiber is suspended in the middle of Python code, `ts` must be the thread
    /// state that it was entered with before. `outer` must be the state of the fiber that the
    /// switch leaves, or none if it leaves the thread's own stack.
    #[inline(always)]
    pub(crate) unsafe fn enter(&mut self, ts: *mut PyThreadState, outer: Option<&Self>) {
        // SAFETY: passed on. The context comes first: it may have to call into the interpreter,
        // which must find the host's state whole.
        unsafe {
            self.context.enter(ts);
            self.version.enter(ts, outer.map(|outer| &outer.version));
            self.exceptions.enter(ts);
            self.data_stack.enter(ts);
            self.host_tracing = tracing::depth(ts);
        }
    }

    /// Takes the fiber's state out of the thread state and puts the host's back, right after the
    /// switch from the fiber.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`.
    #[inline(always)]
    pub(crate) unsafe fn leave(&mut self, ts: *mut PyThreadState) {
        // SAFETY: passed on; the surplus reference is ours to drop (contract of `Context::leave`).
        unsafe {
            self.data_stack.leave(ts);
            self.exceptions.leave(ts);
            self.version.leave(ts);
            let ended = self.context.leave(ts);
            if !ended.is_null() {
                ffi::Py_DECREF(ended);
            }
        }
    }

    /// Before the fiber suspends: takes the trace functions that it is in out of the thread's count. To be
    /// put back when it goes on.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`.
    #[inline(always)]
    pub(crate) unsafe fn hide_tracing(&self, ts: *mut PyThreadState) -> tracing::Hidden {
        // SAFETY: passed on.
        unsafe { tracing::Hidden::hide(ts, self.host_tracing) }
    }

    /// How many trace functions the resumer is in.
    pub(crate) fn host_tracing(&self) -> i32 {
        self.host_tracing
    }

    /// The context that the fiber was resumed in, borrowed.
    pub(crate) fn inherited_context(&self) -> *mut PyObject {
        self.context.inherited()
    }

    /// If tracers or tools have come or gone since `seen` (right before the switch from the fiber),
    /// brings the code of the frames that were suspended with the fiber up to date. To be called when
    /// the fiber goes on.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`, and no Python code have run on the fiber since.
    #[inline(always)]
    pub(crate) unsafe fn catch_up(this: *mut Self, ts: *mut PyThreadState, seen: Instrumented) {
        // SAFETY: an entered fiber's frames are the thread's, down to its base. No reference is held
        // while it is done: what fails may be reported by Python code, which may suspend the fiber.
        unsafe {
            let base = {
                let state = &mut *this;
                state.version.base_frame()
            };
            seen.catch_up(ts, base);
        }
    }

    /// Before the fiber suspends: profilers are told that its frames do.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`. No reference to it may be held: Python's code may run.
    #[inline(always)]
    pub(crate) unsafe fn leave_profiler(this: *mut Self, ts: *mut PyThreadState) -> Profiled {
        // SAFETY: an entered fiber's frames are the thread's, down to its base.
        unsafe { Profiled::leave(ts, (*this).version.base_frame()) }
    }

    /// When it goes on, after [`catch_up`](Self::catch_up): profilers are told that they do.
    ///
    /// # Safety
    ///
    /// As [`leave_profiler`](Self::leave_profiler), which came before.
    #[inline(always)]
    pub(crate) unsafe fn enter_profiler(this: *mut Self, ts: *mut PyThreadState, told: Profiled) {
        // SAFETY: as there.
        unsafe { told.enter(ts, (*this).version.base_frame()) }
    }

    /// Whether the frame at `place` is the one below all of the fiber's.
    pub(crate) fn is_base(&mut self, place: &frames::Place) -> bool {
        ptr::eq(self.version.base_frame(), place.frame)
    }

    /// Whether the code that runs on the fiber now is inside a `Context.run` of the fiber's own.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`.
    #[inline(always)]
    pub(crate) unsafe fn is_in_nested_context(&self, ts: *mut PyThreadState) -> bool {
        // SAFETY: passed on.
        unsafe { self.context.is_nested(ts) }
    }

    /// Puts in order what a step that has ended may leave behind, as ended calls do on a thread's own
    /// stack: a handled exception (whose destructor may run any code), drifted counters. True if
    /// nothing else is left, so that the state can serve the next step; false if frames or contexts
    /// are, and the stack may still be referred to.
    ///
    /// # Safety
    ///
    /// Attached; the state must not be entered, and no step be under way on it.
    #[inline]
    pub(crate) unsafe fn settle(this: *mut Self) -> bool {
        // SAFETY: the contract; no reference is held while what was handled is dropped.
        unsafe {
            let (is_clean, rest) = {
                let state = &mut *this;
                let is_clean = state.version.settle()
                    && state.exceptions.is_clean()
                    && state.data_stack.is_clean()
                    && state.context.is_clean();
                (is_clean, state.exceptions.take_rest())
            };
            if !rest.is_null() {
                ffi::Py_DECREF(rest);
            }
            is_clean
        }
    }

    /// Whether one of a suspended fiber's frames executes `code` with `first` as its first local variable.
    ///
    /// # Safety
    ///
    /// Suspended; valid objects, `code` a function with at least one parameter.
    pub(crate) unsafe fn has_frame(&self, code: *mut PyObject, first: *mut PyObject) -> bool {
        // SAFETY: a suspended fiber's frames are linked down to its base.
        unsafe { frames::Place::find_from(self.version.top_frame(), code, first).is_some() }
    }

    /// To be called right after [`enter`](Self::enter): the fiber is none of its resumer's calls. Its frames
    /// end at its base, and what the resumer handles it does not see.
    #[inline(always)]
    pub(crate) fn cut_off(&mut self) {
        self.version.cut_off();
        self.exceptions.cut_off();
    }

    /// Gives the fiber a context of its own (owned, or null for one that is made on first use), instead of
    /// its resumer's. Not while it is entered, as with the three below.
    pub(crate) fn set_own_context(&mut self, context: *mut PyObject) {
        self.context.set_own(context);
    }

    /// Takes the fiber's own context off it again; owned, or null.
    pub(crate) fn take_own_context(&mut self) -> *mut PyObject {
        self.context.take_own()
    }

    /// The fiber's own context, borrowed; or null.
    pub(crate) fn own_context(&self) -> *mut PyObject {
        self.context.own()
    }

    /// Gives it another one (owned, or null); returns the one before (owned, or null).
    pub(crate) fn replace_own_context(&mut self, context: *mut PyObject) -> *mut PyObject {
        self.context.replace_own(context)
    }

    /// Frees what the state owns.
    ///
    /// # Safety
    ///
    /// The state must be clean and not entered, and never be entered again.
    pub(crate) unsafe fn free(&mut self) {
        // SAFETY: clean, so no frame is alive.
        unsafe { self.data_stack.free() }
    }

    /// Forgets the fiber's tracer.
    ///
    /// # Safety
    ///
    /// Attached; the state must not be entered. No reference to it may be held.
    pub(crate) unsafe fn forget_tracer(this: *mut Self) {
        // SAFETY: passed on.
        unsafe { OwnTracer::forget(&raw mut (*this).tracer) }
    }

    /// Shows the collector the references that the fiber's frames own.
    ///
    /// # Safety
    ///
    /// To be called from a `tp_traverse`; the fiber must be suspended.
    pub(crate) unsafe fn traverse(&mut self, visitor: &mut references::Visitor) {
        // SAFETY: suspended.
        unsafe {
            references::traverse(self.version.top_frame(), self.version.base_frame(), visitor);
        }
    }

    /// The innermost Python frame of a suspended fiber, of whatever thread, as a new reference; null without
    /// an error if there is none, null with an error if it cannot be made.
    ///
    /// # Safety
    ///
    /// The fiber must be suspended, and `ts` be the attached thread state.
    pub(crate) unsafe fn top_frame(&self, ts: *mut PyThreadState) -> *mut PyObject {
        // SAFETY: passed on. The chain ends at the base frame, whose `previous` is null.
        unsafe { frames::Place::of_suspended(self.version.top_frame()).frame_object(ts) }
    }
}

/// The part of the thread state that belongs to a C stack which a fiber uses besides its own, for a call:
/// where it is, and the memory for its interpreter frames.
pub(crate) struct SideState {
    stack: Range<usize>,
    data_stack: DataStack,
}

impl SideState {
    /// For a C stack of these addresses with nothing on it.
    ///
    /// # Safety
    ///
    /// As [`State::new`].
    pub(crate) unsafe fn new(stack: Range<usize>, data_stack: NonNull<[u8]>) -> Self {
        // SAFETY: passed on.
        Self { stack, data_stack: unsafe { DataStack::new(data_stack) } }
    }

    /// Bytes of the C stack. Not to be asked while a fiber is on it.
    #[inline(always)]
    pub(crate) fn stack_size(&self) -> usize {
        self.stack.len()
    }

    /// Where the first interpreter frame goes.
    pub(crate) fn data_stack_bottom(&self) -> *mut u8 {
        self.data_stack.bottom_of_all()
    }

    /// No frame is left on it.
    #[inline(always)]
    pub(crate) fn is_clean(&self) -> bool {
        self.data_stack.is_clean()
    }

    /// Frees what the state owns.
    ///
    /// # Safety
    ///
    /// No frame may be left, and no fiber go there any more.
    pub(crate) unsafe fn free(&mut self) {
        // SAFETY: passed on.
        unsafe { self.data_stack.free() }
    }
}

impl State {
    /// Right before the switch of the running fiber to another C stack, for a call there. All else in the
    /// thread state stays the fiber's.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`, and the fiber be on its own stack; `side` must have
    /// nothing on it.
    #[inline(always)]
    pub(crate) unsafe fn move_to(&mut self, ts: *mut PyThreadState, side: &mut SideState) {
        // SAFETY: passed on.
        unsafe {
            side.data_stack.enter(ts);
            self.version.swap_stack(ts, &mut side.stack);
        }
    }

    /// Where the thread's next interpreter frame goes.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn data_stack_top(ts: *mut PyThreadState) -> usize {
        // SAFETY: passed on.
        unsafe { DataStack::top(ts).addr() }
    }

    /// Undoes [`move_to`](Self::move_to), right after the switch back.
    ///
    /// # Safety
    ///
    /// The state must be entered, with the same `ts`, and the fiber be on that side stack.
    #[inline(always)]
    pub(crate) unsafe fn move_back(&mut self, ts: *mut PyThreadState, side: &mut SideState) {
        // SAFETY: passed on.
        unsafe {
            side.data_stack.leave(ts);
            self.version.swap_stack(ts, &mut side.stack);
        }
    }
}

/// The thread state's id, unique in the life of the process (`PyThreadState_GetID`).
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[inline(always)]
pub(crate) unsafe fn thread_state_id(ts: *mut PyThreadState) -> u64 {
    // SAFETY: the contract.
    unsafe { *field::<_, u64>(ts, facts::TS_ID) }
}

/// How deep in the destruction of containers the thread is, as the interpreter counts that (3.11 and 3.12).
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[cfg(any(cpython = "3.11", cpython = "3.12"))]
pub(crate) unsafe fn trash_nesting(ts: *mut PyThreadState) -> i32 {
    // SAFETY: the contract.
    unsafe { *field::<_, i32>(ts, facts::TS_TRASH_NESTING) }
}

/// Where a coroutine stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CoroutineState {
    /// Not started.
    Created,
    /// Started, and waiting to be resumed.
    Suspended,
    /// Running.
    Executing,
    /// Returned or raised.
    Finished,
}

#[cfg(cpython = "3.15")]
impl CoroutineState {
    /// What `cr_state` says, as a new reference.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(crate) unsafe fn name(self) -> *mut PyObject {
        let name = match self {
            Self::Created => c"CORO_CREATED",
            Self::Suspended => c"CORO_SUSPENDED",
            Self::Executing => c"CORO_RUNNING",
            Self::Finished => c"CORO_CLOSED",
        };
        // SAFETY: attached.
        unsafe { ffi::PyUnicode_InternFromString(name.as_ptr()) }
    }
}

/// The state of an exact coroutine or generator.
///
/// # Safety
///
/// `coroutine` must be of `PyCoro_Type` or `PyGen_Type`, exactly, and attached.
#[inline(always)]
pub(crate) unsafe fn coroutine_state(coroutine: *mut PyObject) -> CoroutineState {
    // SAFETY: the contract; both types share their layout up to the frame.
    let state = unsafe { *field::<_, i8>(coroutine, facts::GEN_FRAME_STATE) } as isize;
    // `PyFrameState` is ordered so: created, suspended (one or two values), executing, completed,
    // cleared.
    if state <= facts::GEN_CREATED {
        CoroutineState::Created
    } else if state < facts::GEN_EXECUTING {
        CoroutineState::Suspended
    } else if state == facts::GEN_EXECUTING {
        CoroutineState::Executing
    } else {
        CoroutineState::Finished
    }
}

/// What tells the code of a coroutine that has not begun from others': an address, only to be compared.
///
/// # Safety
///
/// `coroutine` must be of `PyCoro_Type` or `PyGen_Type`, exactly, and not have begun.
#[inline(always)]
pub(crate) unsafe fn code_address(coroutine: *mut PyObject) -> usize {
    // SAFETY: the contract: its frame is in the object, and has its code. (3.14 tags the pointer.)
    unsafe { *field::<_, usize>(coroutine, facts::GEN_FRAME + facts::FRAME_CODE) & !1 }
}

/// Whether the code that runs now owns, on its frame's value stack, the references to the arguments of
/// the call that it is making, without [`State::traverse`] showing them: of a function that `is_function` knows, or
/// a method of a class (looked up on an object) that `is_method` knows, with that object. How many slots below the
/// arguments, then, belong to the call, too.
///
/// # Safety
///
/// `ts` must be the attached thread state.
#[inline]
pub(crate) unsafe fn caller_owns_arguments(
    ts: *mut PyThreadState,
    arguments: *const *mut PyObject,
    is_function: impl Fn(*mut PyObject) -> bool,
    is_method: impl Fn(*mut PyObject, *mut PyObject) -> bool,
) -> Option<usize> {
    // SAFETY: passed on.
    unsafe { references::call_below(Version::current_frame(ts), arguments, is_function, is_method) }
}

/// Whether the code that runs now is a coroutine's, or an async generator's, and may be about to await what
/// its call gives: the instruction after that says so. (It may say so of a call by mistake, and one that is
/// traced may say something else.)
///
/// # Safety
///
/// `ts` must be the attached thread state, and the current frame in a call.
#[inline]
pub(crate) unsafe fn may_await_result(ts: *mut PyThreadState) -> bool {
    // SAFETY: the contract: the current frame is alive, if there is one. A code object has as many units
    // as its size says, from `co_code_adaptive` on, and no more than those are read.
    unsafe {
        let place = frames::Place::current(ts);
        // A function's, most often: no more is looked at then.
        if place.frame.is_null() || !place.is_generators() {
            return false;
        }
        let code = place.code();
        if ffi::PyCode_Check(code) == 0
            || *field::<_, c_int>(code, facts::CODE_FLAGS)
                & (ffi::CO_COROUTINE | ffi::CO_ASYNC_GENERATOR)
                == 0
        {
            return false;
        }
        let first = code.cast::<u8>().offset(facts::CODE_ADAPTIVE);
        let size = ffi::Py_SIZE(code) * facts::CODE_UNIT_SIZE;
        let call = *field::<_, *const u8>(place.frame, facts::FRAME_INSTR);
        let call = call.addr().wrapping_sub(first.addr()) as isize;
        [facts::CODE_AFTER_CALL, facts::CODE_AFTER_PRECALL].into_iter().any(|units| {
            let next = call.wrapping_add(units * facts::CODE_UNIT_SIZE);
            (0..size).contains(&next)
                && isize::from(*first.offset(next)) == facts::CODE_GET_AWAITABLE
        })
    }
}

/// Why the running fiber cannot suspend just now, if so.
///
/// # Safety
///
/// `ts` must be the attached thread state.
pub(crate) unsafe fn refusal(ts: *mut PyThreadState) -> Option<&'static str> {
    // SAFETY: `ts` is the attached thread state, and the offsets are those of its fields.
    unsafe {
        if !(*field::<_, *mut PyObject>(ts, facts::TS_CURRENT_EXCEPTION)).is_null() {
            return Some(messages::WHILE_RAISING);
        }
    }
    profiled::is_telling().then_some(messages::TOLD_OF_A_SWITCH)
}

/// Makes the code object for base frames, and whatever else is needed for ever. To be called once, at
/// import. False with an error set on failure.
pub(crate) fn init() -> bool {
    let source = c"async def portal(): pass\ncode = portal.__code__\n";
    // SAFETY: plain API calls, attached. The code of an `async def` begins with RETURN_GENERATOR,
    // so that its first traceable instruction is not its first: a frame that stands at the first
    // is incomplete. The reference is kept for ever.
    unsafe {
        let compiled =
            ffi::Py_CompileString(source.as_ptr(), c"<fiberback>".as_ptr(), ffi::Py_file_input);
        if compiled.is_null() {
            return false;
        }
        let scope = ffi::PyDict_New();
        let result = ffi::PyEval_EvalCode(compiled, scope, scope);
        ffi::Py_DECREF(compiled);
        if result.is_null() {
            ffi::Py_XDECREF(scope);
            return false;
        }
        ffi::Py_DECREF(result);
        let code = ffi::PyDict_GetItemString(scope, c"code".as_ptr());
        ffi::Py_XINCREF(code);
        ffi::Py_DECREF(scope);
        BASE_CODE.store(code, Ordering::Relaxed);
        !code.is_null() && instrumentation::init()
    }
}
