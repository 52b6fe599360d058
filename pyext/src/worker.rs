//! Fibers that run portals' steps.
//!
//! A [`Worker`] is a fiber that does one step of a coroutine after another: it is resumed with
//! what to do, and suspends with the outcome. Between steps nothing of Python is on its stack, so
//! it can serve any portal of its thread; idle workers wait in a last-in-first-out list. When an
//! `await_` suspends in the middle of a step, the worker stays with that portal until the step is
//! done.
//!
//! # Invariant
//!
//! * A worker belongs to the thread that made it, and only that thread resumes it.
//! * A worker that is in the middle of a step (`mid_step`) has Python frames on its stack. It is
//!   resumed only with the thread state that the step began with, it is never unwound and its
//!   memory is never reused: it either gets to the end of the step or is leaked whole
//!   ([`Worker::leak`]).
//! * Workers are reached through raw pointers, field by field: the fiber's own code reads and
//!   writes the other fields while `fiber` is mutably borrowed by the resume that runs it.
//! * `input` and `output` are how the two sides of a switch talk, in turns: the resumer writes an
//!   input, the fiber reads it; the fiber writes an output, the resumer reads it.

use crate::barrier::barrier;
use crate::interp::State;
use crate::interp::frames::Place;
use crate::interp::instrumentation::Instrumented;
use crate::interp::profiled::Profiled;
use crate::interp::references::Visitor;
use crate::leaks::{self, Reason};
use crate::mailbox::Mailbox;
use crate::needs::Needs;
use crate::owner::Owner;
use crate::side_stack::{self, SideStack};
use crate::stacks::PAGE;
use crate::{current_loop, delegate, stacks, thrown};
use fiberback::fiber::{Ambient, Fiber, Stack, Step, Suspender};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;

/// What a worker is resumed with. References are owned unless said otherwise.
#[derive(Clone, Copy)]
pub(crate) enum Input {
    /// Step `coroutine` with `value`; both borrowed from the resumer, for the whole step.
    Send { coroutine: *mut PyObject, value: *mut PyObject },
    /// Throw `exception` (borrowed, as `coroutine`) into `coroutine`.
    Throw { coroutine: *mut PyObject, exception: *mut PyObject },
    /// The suspended `await_` gets this value.
    Value(*mut PyObject),
    /// The suspended `await_` gets this exception.
    Raise(*mut PyObject),
    /// Call this function with this argument (see [`Function`]).
    Run(Function, *mut c_void),
    /// The code that parked the stack goes on.
    Unpark,
    /// What was to be called on another stack has been.
    Called,
    /// A guest that is away goes on (see [`Worker::guest`]).
    Go,
}

/// What a worker suspends with.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// The step ended like `PyIter_Send`: its status and its result (owned), or an error set.
    Done(ffi::PySendResult, *mut PyObject),
    /// An `await_` in the step awaits this object (owned).
    Suspended(*mut PyObject),
    /// The whole stack waits, whatever is below the worker included: whoever has resumed the worker calls
    /// this function with this argument, which returns when the wait is over; then the worker goes on.
    Parked(Function, *mut c_void),
    /// The function that was to be run has returned.
    Left,
    /// This is to be called, with this argument, on the thread's own stack; then the worker goes on.
    CallOut(Function, *mut c_void),
    /// The same, on the stack that has resumed the worker.
    CallHost(Function, *mut c_void),
    /// A guest is away: it has suspended to go on whenever, and wherever, it is resumed.
    Away,
}

/// What somebody who knows more than a worker has it call, or has called for it. It neither unwinds nor
/// leaves an error set.
pub(crate) type Function = unsafe fn(*mut c_void);

/// A fiber for portals' steps; see the module docs.
pub(crate) struct Worker {
    /// Switches with `()`: an enum that is moved through a switch is copied in other pieces than it
    /// was written in, and each such read waits until the write has reached the cache.
    fiber: ManuallyDrop<Fiber<(), (), ()>>,
    input: Input,
    output: Output,
    state: State,
    /// Pages of its stack, whole ones.
    stack_pages: u32,
    suspender: *const Suspender<(), ()>,
    /// The stack that the code of the worker is on, if that is not its own (see [`Worker::call_on`]);
    /// or null.
    side: *mut SideStack,
    /// The record of the thread that it belongs to, which is `thread.rs`'s.
    pub(crate) record: *mut c_void,
    /// The thread's block, for who knows the worker already.
    local: *const Local,
    /// The thread's mailbox. It outlives the thread, and so says for ever which thread it was.
    pub(crate) mailbox: Arc<Mailbox>,
    /// The thread state that it was last resumed with.
    ts: *mut PyThreadState,
    /// The worker that was current when this one was resumed; null between resumes.
    outer: *mut Worker,
    /// Whose step it makes. Borrowed: the owner outlives its hold on the worker. Null if it runs a function.
    pub(crate) owner: *mut Owner,
    /// What the suspended `await_` is stepping: a reference owned by that `await_`. Null otherwise.
    pub(crate) awaiting: *mut PyObject,
    /// What the caller of the suspended `await_` passed, if its frame's value stack owns a
    /// reference to it that nothing else shows to the collector. Null otherwise.
    pub(crate) argument: *mut PyObject,
    /// What the resumer has raised in the step.
    pub(crate) thrown: thrown::Place,
    /// `call_masked` is running on this worker: it must not suspend. So is a worker that drives a
    /// loop: what it runs has no portal.
    pub(crate) masked: bool,
    /// In a forked child, the event loop below the step that the process was forked in: it is the
    /// parent's, so the worker is masked until that loop runs here again, or the step is over. Owned
    /// by nobody, and never freed ([`note_fork`]). Null otherwise.
    pub(crate) forked_on: *mut PyObject,
    /// What the function that it runs was given, only to be compared; or null. (The loop that a runner
    /// drives, see `parking`.)
    pub(crate) runs: *const c_void,
    /// The greenlet of ours whose code it runs; borrowed from the greenlet, which has the worker; or null.
    /// Such a worker is a *guest* of the stack that resumes it: it has no owner and is `masked`, and what its
    /// code waits for its host waits for. Its frames, its context and what it handles are its own.
    pub(crate) guest: *mut PyObject,
    /// `call_masked` is running in the guest: nobody must suspend a portal on its behalf.
    pub(crate) barred: bool,
    /// A guest that is suspended, for its host waits for what it awaits (`awaiting`, as in a portal's worker).
    pub(crate) waits: bool,
    /// An `await_` has suspended since the step began.
    pub(crate) mid_step: bool,
    /// `PyThreadState_GetID` of the thread state that the step began with; valid if `mid_step`.
    pub(crate) tstate_id: u64,
    /// Neighbours in the thread's list of workers that are `mid_step`.
    pub(crate) previous: *mut Worker,
    pub(crate) next: *mut Worker,
}

const _: () = assert!(size_of::<Worker>() <= stacks::OWNER);

/// A thread's block: what is looked at in each `await_`.
pub(crate) struct Local {
    current: Cell<*mut Worker>,
    /// Regions of this thread may forbid `await_`.
    guarded: Cell<bool>,
    /// The thread's record, which is `thread.rs`'s; null if there is none.
    pub(crate) record: Cell<*mut c_void>,
}

thread_local! {
    // `const` and without a destructor: reading it is one load from the thread's own block.
    pub(crate) static LOCAL: Local = const {
        Local {
            current: Cell::new(ptr::null_mut()),
            guarded: Cell::new(false),
            record: Cell::new(ptr::null_mut()),
        }
    };
}

/// The worker on whose stack this thread is now, or null.
#[inline(always)]
pub(crate) fn current() -> *mut Worker {
    LOCAL.with(|local| local.current.get())
}

/// [`current`], and whether regions of this thread may forbid `await_`: one look at the thread's
/// block for both.
#[inline(always)]
pub(crate) fn current_and_guarded() -> (*mut Worker, bool) {
    LOCAL.with(|local| (local.current.get(), local.guarded.get()))
}

/// Says whether regions of this thread may forbid `await_`.
pub(crate) fn set_guarded(guarded: bool) {
    LOCAL.with(|local| local.guarded.set(guarded));
}

/// Masks the portals that this thread is on, in a child that was forked while `event_loop` was running
/// below them.
///
/// To suspend one would go on with the parent's program, in the child; or wait for ever, where asyncio
/// has forgotten its loop.
///
/// # Safety
///
/// Attached, in the thread that forked; a valid object.
pub(crate) unsafe fn note_fork(event_loop: *mut PyObject) {
    // SAFETY: attached; workers that are being resumed are alive. One reference that nobody drops.
    unsafe {
        ffi::Py_INCREF(event_loop);
        let mut worker = current();
        while !worker.is_null() {
            if (*worker).runs.is_null() && (*worker).guest.is_null() {
                (*worker).masked = true;
                (*worker).forked_on = event_loop;
            }
            worker = (*worker).outer;
        }
    }
}

/// Swaps a worker's part of the thread state around a resume.
struct Swap {
    worker: *mut Worker,
    ts: *mut PyThreadState,
}

impl Ambient for Swap {
    #[inline(always)]
    fn enter(&mut self) {
        // SAFETY: `Worker::resume` passes the attached thread state and a worker of this thread,
        // whose block lives as long. Its state is pinned (on its fiber's memory) and, by the
        // module's invariant, was entered with this thread state if it is in the middle of a step.
        unsafe {
            State::enter_tracer(&raw mut (*self.worker).state, self.ts);
            let outer = (*(*self.worker).local).current.replace(self.worker);
            (*self.worker).outer = outer;
            (*self.worker).ts = self.ts;
            let outer = if outer.is_null() { None } else { Some(&(*outer).state) };
            (*self.worker).state.enter(self.ts, outer);
            if !(*self.worker).guest.is_null() {
                (*self.worker).state.cut_off();
            }
        }
    }

    #[inline(always)]
    fn leave(&mut self) {
        // SAFETY: as in `enter`, which came before.
        unsafe {
            (*(*self.worker).local).current.set((*self.worker).outer);
            (*self.worker).state.leave(self.ts);
            State::leave_tracer(&raw mut (*self.worker).state, self.ts);
        }
    }
}

impl Worker {
    /// A worker on that stack, for the thread with that record and that mailbox.
    pub(crate) fn on(stack: Stack, record: *mut c_void, mailbox: Arc<Mailbox>) -> *mut Self {
        /// The worker's address, for the closure.
        struct Address(*mut Worker);
        let (memory, data_stack) = stacks::reserved(&stack);
        let worker: *mut Self = memory.as_ptr().cast();
        assert!(worker.is_aligned());
        let address = Address(worker);
        // SAFETY: the reserved bytes are ours as long as the fiber is, which we have until `free`, or
        // for ever.
        let state = unsafe { State::new(stack.range(), data_stack) };
        // A stack of terabytes would only get a shorter side stack.
        let stack_pages = u32::try_from(stack.range().len() / PAGE).unwrap_or(u32::MAX);
        let fiber = Fiber::new(stack, move |suspender, ()| {
            let Address(worker) = { address };
            // SAFETY: the worker is there as long as the fiber.
            unsafe {
                (*worker).suspender = suspender;
                serve(worker, suspender);
            }
        });
        // SAFETY: memory of that size and alignment, nobody else's.
        unsafe {
            worker.write(Self {
                fiber: ManuallyDrop::new(fiber),
                input: Input::Unpark,
                output: Output::Left,
                state,
                stack_pages,
                suspender: ptr::null(),
                side: ptr::null_mut(),
                record,
                local: LOCAL.with(ptr::from_ref),
                mailbox,
                ts: ptr::null_mut(),
                outer: ptr::null_mut(),
                owner: ptr::null_mut(),
                awaiting: ptr::null_mut(),
                argument: ptr::null_mut(),
                thrown: None,
                masked: false,
                forked_on: ptr::null_mut(),
                runs: ptr::null(),
                guest: ptr::null_mut(),
                barred: false,
                waits: false,
                mid_step: false,
                tstate_id: 0,
                previous: ptr::null_mut(),
                next: ptr::null_mut(),
            });
            (*worker).state.pin();
        }
        worker
    }

    /// Whether the worker must not suspend: see `masked`, and `forked_on`, which ends here where the
    /// same loop runs again.
    ///
    /// # Safety
    ///
    /// Attached, no error set; the worker is current.
    #[inline(always)]
    pub(crate) unsafe fn is_masked(worker: *mut Self) -> bool {
        // SAFETY: the contract.
        unsafe {
            (*worker).masked && ((*worker).forked_on.is_null() || !Self::unmask_after_fork(worker))
        }
    }

    #[cold]
    unsafe fn unmask_after_fork(worker: *mut Self) -> bool {
        // SAFETY: attached; the object is only compared.
        unsafe {
            if !current_loop::is_running((*worker).forked_on) {
                return false;
            }
            (*worker).forked_on = ptr::null_mut();
            (*worker).masked = false;
        }
        true
    }

    /// Runs the worker until its step ends or an `await_` suspends.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state; the worker must be this thread's, not running, and
    /// `input` of the kind it waits for.
    #[inline(always)]
    pub(crate) unsafe fn resume(
        worker: *mut Self,
        ts: *mut PyThreadState,
        mut input: Input,
    ) -> Output {
        loop {
            // SAFETY: passed on.
            match unsafe { Self::resume_once(worker, ts, input) } {
                Output::Parked(wait, parked) => {
                    // SAFETY: the worker waits for what this stack has to wait for, too.
                    unsafe { wait(parked) };
                    input = Input::Unpark;
                }
                output => return output,
            }
        }
    }

    /// [`resume`](Self::resume), which also comes back when the stack is to be parked.
    ///
    /// # Safety
    ///
    /// As [`resume`](Self::resume).
    #[inline(always)]
    pub(crate) unsafe fn resume_once(
        worker: *mut Self,
        ts: *mut PyThreadState,
        input: Input,
    ) -> Output {
        let mut swap = Swap { worker, ts };
        // SAFETY: the contract. Only `fiber` is borrowed, and it is the fiber's turn to read and
        // write meanwhile (see the module's invariant).
        unsafe {
            (*worker).input = input;
            loop {
                let fiber = &mut (*worker).fiber;
                match fiber.resume_with(&mut swap, ()) {
                    Step::Yield(()) => {}
                    Step::Return(()) => {
                        unreachable!("a worker returns only when its fiber is cancelled")
                    }
                }
                match (*worker).output {
                    Output::CallOut(function, argument) => {
                        Self::called_out(worker, function, argument)
                    }
                    Output::CallHost(function, argument) => {
                        function(argument);
                        (*worker).input = Input::Called;
                    }
                    output => return output,
                }
            }
        }
    }

    /// Calls `function` on the thread's own stack, on behalf of a worker that waits for that.
    ///
    /// # Safety
    ///
    /// Attached; the worker has suspended with this output. As [`call_out`](Self::call_out).
    #[cold]
    unsafe fn called_out(worker: *mut Self, function: Function, argument: *mut c_void) {
        // SAFETY: the contract. The fiber that we are on, if any, runs.
        unsafe {
            let outer = current();
            if outer.is_null() {
                function(argument);
            } else {
                Self::call_out(outer, function, argument);
            }
            (*worker).input = Input::Called;
        }
    }

    /// Has `function` called with `argument` on the thread's own stack, and comes back when it has
    /// returned. What resumed this worker, and what resumed that, waits as long.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`], and `interp::refusal` have found no objection. `function` must
    /// neither unwind nor leave an error set.
    pub(crate) unsafe fn call_out(worker: *mut Self, function: Function, argument: *mut c_void) {
        // SAFETY: passed on.
        match unsafe { Self::switch_back(worker, Output::CallOut(function, argument)) } {
            Input::Called => {}
            _ => unreachable!("a worker that has called out was resumed with something else"),
        }
    }

    /// Has `function` called with `argument` on the stack that has resumed this worker, and comes back when
    /// it has returned.
    ///
    /// # Safety
    ///
    /// As [`call_out`](Self::call_out).
    pub(crate) unsafe fn call_on_host(
        worker: *mut Self,
        function: Function,
        argument: *mut c_void,
    ) {
        // SAFETY: passed on.
        match unsafe { Self::switch_back(worker, Output::CallHost(function, argument)) } {
            Input::Called => {}
            _ => unreachable!("a worker that has called its host was resumed with something else"),
        }
    }

    /// Suspends the running guest until it is resumed with [`Input::Go`].
    ///
    /// # Safety
    ///
    /// As [`call_out`](Self::call_out); the worker must be a guest.
    #[inline(always)]
    pub(crate) unsafe fn go_away(worker: *mut Self) {
        // SAFETY: passed on.
        match unsafe { Self::switch_back(worker, Output::Away) } {
            Input::Go => {}
            _ => unreachable!("a guest that was away was resumed with something else"),
        }
    }

    /// Makes an idle worker a guest, with a context (owned, or null) of its own.
    ///
    /// # Safety
    ///
    /// This thread's, just [taken](Self::take); the greenlet must be valid as long as it has the worker.
    pub(crate) unsafe fn make_guest(
        worker: *mut Self,
        greenlet: *mut PyObject,
        context: *mut PyObject,
    ) {
        // SAFETY: idle, hence reached by nobody else.
        unsafe {
            (*worker).guest = greenlet;
            (*worker).masked = true;
            (*worker).barred = false;
            // What the last wait of a portal has left there: the collector is shown it.
            (*worker).argument = ptr::null_mut();
            let state = &mut (*worker).state;
            state.set_own_context(context);
        }
    }

    /// Undoes [`make_guest`](Self::make_guest), before the worker is given back; its context (owned, or null).
    ///
    /// # Safety
    ///
    /// This thread's; its step is over, or has never begun.
    pub(crate) unsafe fn end_guest(worker: *mut Self) -> *mut PyObject {
        // SAFETY: no code runs on it.
        unsafe {
            (*worker).guest = ptr::null_mut();
            let state = &mut (*worker).state;
            state.take_own_context()
        }
    }

    /// Whether the frames of a suspended worker include one that executes `code` with `first` as its first
    /// local variable.
    ///
    /// # Safety
    ///
    /// Suspended; valid objects, `code` a function with at least one parameter.
    pub(crate) unsafe fn has_frame(
        worker: *mut Self,
        code: *mut PyObject,
        first: *mut PyObject,
    ) -> bool {
        // SAFETY: the contract.
        unsafe {
            let state = &(*worker).state;
            state.has_frame(code, first)
        }
    }

    /// The context of a guest that does not run, borrowed; or null.
    ///
    /// # Safety
    ///
    /// A guest that is suspended.
    pub(crate) unsafe fn guest_context(worker: *mut Self) -> *mut PyObject {
        // SAFETY: suspended.
        unsafe {
            let state = &(*worker).state;
            state.own_context()
        }
    }

    /// Gives a guest that does not run another context (owned, or null); returns the one before.
    ///
    /// # Safety
    ///
    /// As [`guest_context`](Self::guest_context).
    pub(crate) unsafe fn replace_guest_context(
        worker: *mut Self,
        context: *mut PyObject,
    ) -> *mut PyObject {
        // SAFETY: suspended.
        unsafe {
            let state = &mut (*worker).state;
            state.replace_own_context(context)
        }
    }

    /// The innermost guest that runs, from `worker` outwards; null if there is none.
    ///
    /// # Safety
    ///
    /// `worker` must be running, or null.
    #[inline(always)]
    pub(crate) unsafe fn innermost_guest(mut worker: *mut Self) -> *mut Self {
        // SAFETY: what has resumed a running worker runs, too.
        unsafe {
            while !worker.is_null() && (*worker).guest.is_null() {
                worker = (*worker).outer;
            }
        }
        worker
    }

    /// The first from `worker` outwards that is no guest: on whose behalf its code waits. Null if that is the
    /// thread's own stack.
    ///
    /// # Safety
    ///
    /// As [`innermost_guest`](Self::innermost_guest).
    #[inline(always)]
    pub(crate) unsafe fn host_of(mut worker: *mut Self) -> *mut Self {
        // SAFETY: as there.
        unsafe {
            while !worker.is_null() && !(*worker).guest.is_null() {
                worker = (*worker).outer;
            }
        }
        worker
    }

    /// Whether `call_masked` is running in one of the guests from `worker` outwards, up to who hosts them.
    ///
    /// # Safety
    ///
    /// As [`innermost_guest`](Self::innermost_guest).
    #[inline(always)]
    pub(crate) unsafe fn is_barred(mut worker: *mut Self) -> bool {
        // SAFETY: as there.
        unsafe {
            while !worker.is_null() && !(*worker).guest.is_null() {
                if (*worker).barred {
                    return true;
                }
                worker = (*worker).outer;
            }
        }
        false
    }

    /// Suspends the running worker, from an `await_` on it, with the object that it awaits (an
    /// owned reference).
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`], and `interp::refusal` have found no objection.
    #[inline(always)]
    pub(crate) unsafe fn suspend(worker: *mut Self, yielded: *mut PyObject) -> Input {
        // SAFETY: passed on.
        unsafe { Self::switch_back(worker, Output::Suspended(yielded)) }
    }

    /// Suspends the running worker for as long as something waits: until `wait(parked)`, which whoever has
    /// resumed the worker calls, has returned. What it runs goes on elsewhere.
    ///
    /// # Safety
    ///
    /// As [`suspend`](Self::suspend).
    pub(crate) unsafe fn park(worker: *mut Self, wait: Function, parked: *mut c_void) {
        // SAFETY: passed on.
        match unsafe { Self::switch_back(worker, Output::Parked(wait, parked)) } {
            Input::Unpark => {}
            _ => unreachable!("a parked worker was resumed with something else"),
        }
    }

    /// Suspends the running worker in the middle of a step.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`].
    #[inline(always)]
    unsafe fn switch_back(worker: *mut Self, output: Output) -> Input {
        // SAFETY: the suspender lives until the fiber's closure returns, and that is below us. It
        // is our turn to write, and after the switch to read; what comes after that may run Python
        // code, which may suspend again. A worker that goes on is entered, with that thread state.
        unsafe {
            // Whoever calls out goes on within the same call.
            let is_wait = matches!(output, Output::Suspended(_) | Output::Parked(..));
            let told = if is_wait {
                State::leave_profiler(&raw mut (*worker).state, (*worker).ts)
            } else {
                Profiled::NOTHING
            };
            (*worker).output = output;
            let seen = Instrumented::now((*worker).ts);
            let hidden = {
                let state = &(*worker).state;
                state.hide_tracing((*worker).ts)
            };
            let side = (*worker).side;
            let suspender =
                if side.is_null() { (*worker).suspender } else { SideStack::suspender(side) };
            match (*suspender).suspend(()) {
                Ok(()) => {
                    let input = (*worker).input;
                    hidden.show((*worker).ts);
                    State::catch_up(&raw mut (*worker).state, (*worker).ts, seen);
                    if is_wait {
                        State::enter_profiler(&raw mut (*worker).state, (*worker).ts, told);
                    }
                    input
                }
                // Nobody cancels a fiber in the middle of a step (the invariant), and C code that
                // panics cannot have called us.
                Err(error) => {
                    unreachable!("a portal's fiber was ended in the middle of a step: {error}")
                }
            }
        }
    }

    /// Calls `function` with `argument` on a side stack, and notes what that has needed, if it is asked to.
    ///
    /// # Safety
    ///
    /// Attached, no error set; `worker` must be [`current`], and on its own stack. `side` must be the
    /// caller's, with nothing on it. `function` must not unwind.
    #[inline]
    pub(crate) unsafe fn call_on(
        worker: *mut Self,
        side: *mut SideStack,
        function: side_stack::Function,
        argument: *mut c_void,
        needs: Option<&mut Needs>,
    ) {
        // SAFETY: the contract. The worker is entered, with its thread state. What suspends it meanwhile
        // does so by `switch_back`, and it is resumed with the same thread state.
        unsafe {
            let ts = (*worker).ts;
            let needs = needs.map_or(ptr::null_mut(), ptr::from_mut);
            SideStack::set(side, function, argument, needs);
            {
                let (state, other) = (&mut (*worker).state, &mut (*side).state);
                state.move_to(ts, other);
            }
            (*worker).side = side;
            while !SideStack::resume(side) {
                // The code there has suspended the worker, and has said for what.
                if let Err(error) = (*(*worker).suspender).suspend(()) {
                    unreachable!("a portal's fiber was ended in the middle of a step: {error}")
                }
            }
            (*worker).side = ptr::null_mut();
            let (state, other) = (&mut (*worker).state, &mut (*side).state);
            state.move_back(ts, other);
        }
    }

    /// Whether the worker's code is on a side stack.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`].
    #[inline(always)]
    pub(crate) unsafe fn is_aside(worker: *mut Self) -> bool {
        // SAFETY: the contract.
        unsafe { !(*worker).side.is_null() }
    }

    /// Bytes of the worker's own stack.
    ///
    /// # Safety
    ///
    /// The worker must be alive.
    #[inline(always)]
    pub(crate) unsafe fn stack_size(worker: *mut Self) -> usize {
        // SAFETY: the contract.
        unsafe { (*worker).stack_pages as usize * PAGE }
    }

    /// Puts the worker in order after a step. False if the step has left something behind: it is to be given
    /// up.
    ///
    /// # Safety
    ///
    /// Attached; the thread's, neither running nor in the middle of a step.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn settle(worker: *mut Self) -> bool {
        // SAFETY: the contract.
        unsafe {
            if !State::settle(&raw mut (*worker).state) {
                return false;
            }
            (*worker).owner = ptr::null_mut();
            (*worker).masked = false;
            (*worker).forked_on = ptr::null_mut();
            true
        }
    }

    /// What is left of the pages of its stack that the worker touches in any case.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`], and its code on its own stack.
    #[inline(always)]
    pub(crate) unsafe fn room(worker: *mut Self) -> Needs {
        let here = 0u64;
        let here = black_box(&raw const here).addr();
        // SAFETY: current, hence entered.
        unsafe {
            // The worker is in the first page. A runner's own calls go on into the next one.
            let first = worker.addr() & !(PAGE - 1);
            let first = if (*worker).runs.is_null() { first } else { first - PAGE };
            let bottom = if here < first { here & !(PAGE - 1) } else { first };
            let top = State::data_stack_top((*worker).ts);
            Needs { c_stack: here - bottom, data_stack: top.next_multiple_of(PAGE) - top }
        }
    }

    /// How many stacks the worker has.
    ///
    /// # Safety
    ///
    /// Alive, or in the middle of a step when its thread ended.
    pub(crate) unsafe fn stacks(worker: *mut Self) -> usize {
        // SAFETY: the contract.
        1 + usize::from(unsafe { !(*worker).side.is_null() })
    }

    /// The worker that has resumed this one; null if that was the thread's own stack.
    ///
    /// # Safety
    ///
    /// The worker must be running.
    pub(crate) unsafe fn outer(worker: *mut Self) -> *mut Self {
        // SAFETY: the contract.
        unsafe { (*worker).outer }
    }

    /// How many trace functions the worker's resumer is in.
    ///
    /// # Safety
    ///
    /// The worker must be running.
    pub(crate) unsafe fn host_tracing(worker: *mut Self) -> i32 {
        // SAFETY: alive.
        unsafe {
            let state = &(*worker).state;
            state.host_tracing()
        }
    }

    /// The context that the worker was resumed in, borrowed.
    ///
    /// # Safety
    ///
    /// The worker must be running.
    pub(crate) unsafe fn inherited_context(worker: *mut Self) -> *mut PyObject {
        // SAFETY: alive.
        unsafe {
            let state = &(*worker).state;
            state.inherited_context()
        }
    }

    /// The worker on whose stack the frame at `place` is; null for the thread's own stack.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, and `place` be on the running stack.
    pub(crate) unsafe fn stack_of(ts: *mut PyThreadState, place: &Place) -> *mut Self {
        let mut worker = current();
        // SAFETY: the workers further out are running, hence alive.
        unsafe {
            for frame in Place::frames(ts) {
                if frame.is_at(place) {
                    break;
                }
                if !worker.is_null() {
                    let state = &mut (*worker).state;
                    if state.is_base(&frame) {
                        worker = (*worker).outer;
                    }
                }
            }
        }
        worker
    }

    /// The attached thread state, sooner than by `PyThreadState_Get`.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`], or running further out: then it is what that was resumed with.
    #[inline(always)]
    pub(crate) unsafe fn thread_state(worker: *mut Self) -> *mut PyThreadState {
        // SAFETY: alive; a worker runs with the thread state that it was resumed with, which `Drop` of
        // what resumes it relies on, too.
        unsafe { (*worker).ts }
    }

    /// Whether the worker is inside a `Context.run` of its own; see `usable_portal::is_usable`.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`], and `ts` the attached thread state.
    #[inline(always)]
    pub(crate) unsafe fn is_in_nested_context(worker: *mut Self, ts: *mut PyThreadState) -> bool {
        // SAFETY: current, so its state is entered.
        unsafe {
            let state = &(*worker).state;
            state.is_in_nested_context(ts)
        }
    }

    /// The mailbox of the thread that the worker belongs to.
    ///
    /// # Safety
    ///
    /// The worker must be alive, or have been in the middle of a step when its thread ended.
    pub(crate) unsafe fn mailbox<'a>(worker: *mut Self) -> &'a Mailbox {
        // SAFETY: the contract; a worker in the middle of a step is never freed.
        unsafe { &(*worker).mailbox }
    }

    /// [`free`](Self::free), with what only the interpreter can free.
    ///
    /// # Safety
    ///
    /// As there, and attached.
    pub(crate) unsafe fn free_attached(worker: *mut Self) {
        // SAFETY: passed on.
        unsafe {
            State::forget_tracer(&raw mut (*worker).state);
            Self::free(worker);
        }
    }

    /// Ends an idle worker. The GIL may not be held.
    ///
    /// # Safety
    ///
    /// Idle, this thread's, not used afterwards.
    pub(crate) unsafe fn free(worker: *mut Self) {
        // SAFETY: the fiber waits in `serve` with nothing of Python on its stack; dropping it
        // makes `serve` return. The state is clean, and freed after its frames' stack is gone. The
        // worker lies on the fiber's own memory, so all else is taken out of it before.
        unsafe {
            (*worker).fiber.cancel();
            (*worker).state.free();
            let Self { fiber, mailbox, .. } = ptr::read(worker);
            drop(mailbox);
            drop(ManuallyDrop::into_inner(fiber));
        }
    }

    /// Gives the worker up where it stands, with everything that its stack refers to. It was `whose`
    /// (borrowed, or null).
    ///
    /// # Safety
    ///
    /// Attached; not used afterwards.
    #[cold]
    pub(crate) unsafe fn leak(worker: *mut Self, reason: Reason, whose: *mut PyObject) {
        // Never to be dropped: neither the fiber nor the worker on it, which C code on the stack
        // points to.
        // SAFETY: passed on; the worker stays readable.
        unsafe {
            (*worker).owner = ptr::null_mut();
            // What was suspended has been counted when its thread ended.
            if !((*worker).mid_step && (*worker).mailbox.is_closed()) {
                leaks::count(Self::stacks(worker));
            }
            leaks::tell(reason, whose);
        }
    }

    /// The innermost frame of a suspended worker, as `State::top_frame`.
    ///
    /// # Safety
    ///
    /// This thread's worker, `mid_step` and not running; `ts` attached.
    pub(crate) unsafe fn top_frame(worker: *mut Self, ts: *mut PyThreadState) -> *mut PyObject {
        // SAFETY: suspended.
        unsafe { (*worker).state.top_frame(ts) }
    }

    /// Shows the collector what a suspended worker's frames and its `await_` own.
    ///
    /// # Safety
    ///
    /// To be called from a `tp_traverse`; the worker must be suspended, `mid_step`.
    pub(crate) unsafe fn traverse(worker: *mut Self, visitor: &mut Visitor) {
        // SAFETY: suspended; `awaiting` is owned by the `await_` that waits, `argument` (which may
        // be the same object) by its caller.
        unsafe {
            visitor.object((*worker).awaiting);
            visitor.object((*worker).argument);
            let state = &mut (*worker).state;
            state.traverse(visitor);
        }
    }
}

/// The body of a worker's fiber.
///
/// # Safety
///
/// `worker` must be the worker that the fiber is of.
unsafe fn serve(worker: *mut Worker, suspender: &Suspender<(), ()>) {
    // Through a pointer that the compiler knows nothing of. It takes calls of C functions, and what is
    // inlined with them, for ones that never unwind, and leaves out the barrier's table, at which a
    // thread's forced unwinding ends (thread_exit.c). That must not get to the end of this stack.
    let step: unsafe fn(*mut Worker) = std::hint::black_box(step);
    loop {
        // SAFETY: `Worker::resume` was called with the GIL held and an input for a new step. It is
        // our turn with the worker until we suspend.
        unsafe {
            let panicked = barrier(true, || {
                step(worker);
                false
            });
            if panicked {
                (*worker).output = Output::Done(ffi::PySendResult::PYGEN_ERROR, ptr::null_mut());
            }
        }
        if suspender.suspend(()).is_err() {
            return; // `Worker::free`.
        }
    }
}

/// One step of a coroutine: does what the input says, and writes the output.
///
/// # Safety
///
/// Attached, on the worker's fiber; the resumer lends the objects for the whole step.
unsafe fn step(worker: *mut Worker) {
    // SAFETY: the contract; it is our turn with input and output.
    unsafe {
        (*worker).output = match (*worker).input {
            Input::Send { coroutine, value } => {
                thrown::note_value(&raw mut (*worker).thrown, value);
                let mut result = ptr::null_mut();
                let status = delegate::send_into(coroutine, value, &raw mut result);
                thrown::end(&raw mut (*worker).thrown);
                Output::Done(status, result)
            }
            Input::Throw { coroutine, exception } => {
                thrown::note_exception(&raw mut (*worker).thrown, exception, 0);
                let (status, result) = delegate::throw_into(coroutine, exception);
                thrown::end(&raw mut (*worker).thrown);
                Output::Done(status, result)
            }
            Input::Run(function, argument) => {
                function(argument);
                Output::Left
            }
            Input::Value(_) | Input::Raise(_) | Input::Unpark | Input::Called | Input::Go => {
                unreachable!("no await_ is suspended between two steps")
            }
        };
    }
}
