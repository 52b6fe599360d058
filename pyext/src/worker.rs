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

use crate::interp::State;
use crate::interp::frames::Place;
use crate::interp::instrumentation::Instrumented;
use crate::interp::references::Visitor;
use crate::leaks::{self, Reason};
use crate::needs::Needs;
use crate::parking::{self, Driver, Parked};
use crate::portal::PortalObject;
use crate::side_stack::{self, SideStack, SideStacks};
use crate::stacks::PAGE;
use crate::thrown::{self, Thrown};
use crate::{error, fallbacks, greenlet, stacks};
use fiberback::fiber::{Ambient, Fiber, Stack, Step, Suspender};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Run the callbacks of an event loop (see `parking`).
    Drive(*mut Driver),
    /// The code that parked the stack goes on.
    Unpark,
    /// What was to be called on another stack has been.
    Called,
    /// Run this function on the worker's stack as a step of its own, with this argument.
    Run(unsafe fn(*mut c_void), *mut c_void),
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
    /// The whole stack waits, whatever is below the worker included.
    Parked(*mut Parked),
    /// The worker drives no loop any more, or the function that it ran is over.
    Left,
    /// This is to be called, with this argument, on the thread's own stack; then the worker goes on.
    CallOut(unsafe fn(*mut c_void), *mut c_void),
    /// The same, on the stack that has resumed the worker.
    CallHost(unsafe fn(*mut c_void), *mut c_void),
    /// A guest is away: it has suspended to go on whenever, and wherever, it is resumed.
    Away,
}

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
    /// The stack that the code of the worker is on, if that is not its own (see [`Worker::call_aside`]);
    /// or null.
    side: *mut SideStack,
    thread: *mut Thread,
    /// The thread's block, for who knows the worker already.
    local: *const Local,
    /// The thread's mailbox. It outlives the thread, and so says for ever which thread it was.
    mailbox: Arc<Mailbox>,
    /// The thread state that it was last resumed with.
    ts: *mut PyThreadState,
    /// The worker that was current when this one was resumed; null between resumes.
    outer: *mut Worker,
    /// The portal being stepped or bound. Borrowed: the portal outlives its hold on the worker.
    pub(crate) portal: *mut PortalObject,
    /// What the suspended `await_` is stepping: a reference owned by that `await_`. Null otherwise.
    pub(crate) awaiting: *mut PyObject,
    /// What the caller of the suspended `await_` passed, if its frame's value stack owns a
    /// reference to it that nothing else shows to the collector. Null otherwise.
    pub(crate) argument: *mut PyObject,
    /// What the resumer has raised in the step.
    pub(crate) thrown: Option<Box<Thrown>>,
    /// `call_masked` is running on this worker: it must not suspend. So is a worker that drives a
    /// loop: what it runs has no portal.
    pub(crate) masked: bool,
    /// In a forked child, the event loop below the step that the process was forked in: it is the
    /// parent's, so the worker is masked until that loop runs here again, or the step is over. Owned
    /// by nobody, and never freed ([`note_fork`]). Null otherwise.
    pub(crate) forked_on: *mut PyObject,
    /// The loop that it drives, or null.
    pub(crate) drives: *mut Driver,
    /// The greenlet of ours whose code it runs; borrowed from the greenlet, which has the worker; or null.
    /// Such a worker is a *guest* of the stack that resumes it: it has no portal and is `masked`, and what its
    /// code waits for its host waits for. Its frames, its context and what it handles are its own.
    pub(crate) guest: *mut PyObject,
    /// A guest that is suspended, for its host waits for what it awaits (`awaiting`, as in a portal's worker).
    pub(crate) waits: bool,
    /// An `await_` has suspended since the step began.
    pub(crate) mid_step: bool,
    /// `PyThreadState_GetID` of the thread state that the step began with; valid if `mid_step`.
    pub(crate) tstate_id: u64,
    /// Neighbours in the thread's list of workers that are `mid_step`.
    previous: *mut Worker,
    next: *mut Worker,
}

const _: () = assert!(size_of::<Worker>() <= stacks::OWNER);

/// What one thread knows. Freed when the thread ends.
pub(crate) struct Thread {
    idle: Vec<*mut Worker>,
    /// Workers that were made and not freed, idle ones included.
    workers: usize,
    side_stacks: SideStacks,
    /// The first of the workers that are `mid_step`.
    suspended: *mut Worker,
    suspended_count: usize,
    pub(crate) greenlets: greenlet::Calls,
    mailbox: Arc<Mailbox>,
}

/// What other threads may leave for this one.
pub(crate) struct Mailbox {
    has_mail: AtomicBool,
    /// `None` once the thread is dead.
    mail: Mutex<Option<Vec<Mail>>>,
}

/// Something that only the thread it belongs to can do.
pub(crate) enum Mail {
    /// Close this portal, whose last reference (now ours) was dropped elsewhere.
    Close(*mut PortalObject),
    /// Drop this reference.
    Drop(*mut PyObject),
}

// SAFETY: the pointers are only dereferenced by the thread that owns the mailbox, and (for the
// portal's reference count) with the GIL held.
unsafe impl Send for Mail {}

/// Idle workers that a thread keeps; more go back to the stack pool.
const MAX_IDLE: usize = 256;

/// So many workers in use are few; see [`Worker::is_one_of_many`].
const FEW: usize = 16;

struct Local {
    current: Cell<*mut Worker>,
    /// Regions of this thread may forbid `await_`.
    guarded: Cell<bool>,
    thread: Cell<*mut Thread>,
}

thread_local! {
    // `const` and without a destructor: reading it is one load from the thread's own block.
    static LOCAL: Local = const {
        Local {
            current: Cell::new(ptr::null_mut()),
            guarded: Cell::new(false),
            thread: Cell::new(ptr::null_mut()),
        }
    };
    // Apart from `LOCAL` because it has a destructor, which makes each access check a flag.
    static TEARDOWN: Teardown = const { Teardown };
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
            if (*worker).drives.is_null() && (*worker).guest.is_null() {
                (*worker).masked = true;
                (*worker).forked_on = event_loop;
            }
            worker = (*worker).outer;
        }
    }
}

/// This thread's record, made on first use.
#[inline(always)]
pub(crate) fn thread() -> *mut Thread {
    let thread = LOCAL.with(|local| local.thread.get());
    if thread.is_null() { new_thread() } else { thread }
}

#[cold]
fn new_thread() -> *mut Thread {
    let thread = Box::into_raw(Box::new(Thread {
        // Never grows, so that giving a worker back allocates nothing.
        idle: Vec::with_capacity(MAX_IDLE),
        workers: 0,
        side_stacks: SideStacks::new(),
        suspended: ptr::null_mut(),
        suspended_count: 0,
        greenlets: greenlet::Calls::new(),
        mailbox: Arc::new(Mailbox {
            has_mail: AtomicBool::new(false),
            mail: Mutex::new(Some(Vec::new())),
        }),
    }));
    LOCAL.with(|local| local.thread.set(thread));
    // Registers the destructor. In a thread that is already past its destructors the record just
    // stays; nothing is wrong with that but the memory.
    let _ = TEARDOWN.try_with(|_| ());
    thread
}

struct Teardown;

impl Drop for Teardown {
    /// The thread ends. Python may be gone or the GIL held elsewhere, so nothing here touches
    /// Python objects: idle workers have none, workers in the middle of a step stay as they are,
    /// for ever (the invariant), and so does what other threads left in the mailbox. They are
    /// counted; whoever drops their portals says why.
    fn drop(&mut self) {
        let thread = LOCAL.with(|local| local.thread.replace(ptr::null_mut()));
        if thread.is_null() {
            return;
        }
        // SAFETY: made by `new_thread`, and just unlinked from the only place that names it. A
        // worker in the middle of a step still points here, but is never touched again.
        let mut thread = unsafe { Box::from_raw(thread) };
        drop(thread.mailbox.lock().take());
        let mut worker = thread.suspended;
        while !worker.is_null() {
            // SAFETY: one of this thread's that are in the middle of a step; they are never freed.
            unsafe {
                leaks::count(Worker::stacks(worker));
                worker = (*worker).next;
            }
        }
        // SAFETY: this thread's.
        unsafe { thread.side_stacks.trim() };
        for &worker in &thread.idle {
            // SAFETY: an idle worker of this thread, reached by nothing else.
            unsafe { Worker::free(worker) };
        }
    }
}

impl Mailbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Mail>>> {
        // A panic cannot leave the vector half changed.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thread is dead.
    fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    /// Has the thread look for what is to be done soon, as if there were mail.
    pub(crate) fn ring(&self) {
        self.has_mail.store(true, Ordering::Release);
    }

    /// Leaves `mail` for the thread. Gives it back if the thread is dead.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), Mail> {
        match &mut *self.lock() {
            Some(box_) => {
                box_.push(mail);
                self.has_mail.store(true, Ordering::Release);
                Ok(())
            }
            None => Err(mail),
        }
    }
}

impl Thread {
    /// Does what other threads have left to do.
    ///
    /// # Safety
    ///
    /// `this` must be the calling thread's record; attached.
    #[inline(always)]
    pub(crate) unsafe fn read_mail(this: *mut Self) {
        // SAFETY: the record is ours.
        let mailbox = unsafe { &(*this).mailbox };
        if mailbox.has_mail.load(Ordering::Relaxed) {
            // SAFETY: passed on.
            unsafe { Self::read_mail_slowly(this) }
        }
    }

    #[cold]
    unsafe fn read_mail_slowly(this: *mut Self) {
        // SAFETY: the record is ours; it is not borrowed while portals are closed, which runs
        // arbitrary code.
        unsafe {
            let mailbox = Arc::clone(&(*this).mailbox);
            mailbox.has_mail.store(false, Ordering::Relaxed);
            fallbacks::tell_due();
            let mail = mailbox.lock().as_mut().map(std::mem::take).unwrap_or_default();
            for mail in mail {
                match mail {
                    Mail::Close(portal) => crate::portal::close_posted(portal),
                    Mail::Drop(object) => ffi::Py_DECREF(object),
                }
            }
        }
    }

    /// What other threads can leave something in for this one.
    ///
    /// # Safety
    ///
    /// `this` must be the calling thread's record.
    pub(crate) unsafe fn mailbox<'a>(this: *mut Self) -> &'a Mailbox {
        // SAFETY: the record is ours, and holds the mailbox.
        unsafe { &(*this).mailbox }
    }

    /// The first worker that is in the middle of a step, or null.
    ///
    /// # Safety
    ///
    /// `this` must be the calling thread's record.
    pub(crate) unsafe fn first_suspended(this: *mut Self) -> *mut Worker {
        // SAFETY: the record is ours.
        unsafe { (*this).suspended }
    }

    /// Idle and suspended workers, and side stacks.
    ///
    /// # Safety
    ///
    /// `this` must be the calling thread's record.
    pub(crate) unsafe fn counts(this: *mut Self) -> [usize; 3] {
        // SAFETY: the record is ours.
        unsafe {
            let (idle, side_stacks) = (&(*this).idle, &(*this).side_stacks);
            [idle.len(), (*this).suspended_count, side_stacks.count()]
        }
    }

    /// Ends all idle workers and side stacks; their stacks go back to the pool. Returns how many.
    ///
    /// # Safety
    ///
    /// `this` must be the calling thread's record.
    pub(crate) unsafe fn trim(this: *mut Self) -> usize {
        // SAFETY: the record is ours; idle workers are reached by nothing else.
        unsafe {
            let (idle, side_stacks) = (&mut (*this).idle, &mut (*this).side_stacks);
            let ended = idle.len();
            for worker in idle.drain(..) {
                Worker::free(worker);
            }
            (*this).workers -= ended;
            ended + side_stacks.trim()
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
        }
    }
}

impl Worker {
    /// An idle worker for the calling thread. Null with `StackMemoryError` set if there is none.
    ///
    /// # Safety
    ///
    /// Attached.
    #[inline]
    pub(crate) unsafe fn take() -> *mut Self {
        let thread = thread();
        // SAFETY: the thread's own record; attached.
        unsafe {
            let idle = &mut (*thread).idle;
            match idle.pop() {
                Some(worker) => worker,
                None => Self::new(thread),
            }
        }
    }

    #[cold]
    fn new(thread: *mut Thread) -> *mut Self {
        match stacks::take() {
            Some((stack, kind)) => {
                // SAFETY: the calling thread's record.
                unsafe {
                    (*thread).workers += 1;
                    if kind == stacks::Kind::Small && fallbacks::SMALL_STACK.note() {
                        (*thread).mailbox.ring();
                    }
                }
                Self::on(stack, thread)
            }
            None => ptr::null_mut(),
        }
    }

    fn on(stack: Stack, thread: *mut Thread) -> *mut Self {
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
                thread,
                local: LOCAL.with(ptr::from_ref),
                mailbox: Arc::clone(&(*thread).mailbox),
                ts: ptr::null_mut(),
                outer: ptr::null_mut(),
                portal: ptr::null_mut(),
                awaiting: ptr::null_mut(),
                argument: ptr::null_mut(),
                thrown: None,
                masked: false,
                forked_on: ptr::null_mut(),
                drives: ptr::null_mut(),
                guest: ptr::null_mut(),
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
            if !parking::is_running((*worker).forked_on) {
                return false;
            }
            (*worker).forked_on = ptr::null_mut();
            (*worker).masked = false;
        }
        true
    }

    /// True if `worker` belongs to the calling thread.
    ///
    /// # Safety
    ///
    /// The worker must be alive, or have been in the middle of a step when its thread ended.
    #[inline(always)]
    pub(crate) unsafe fn is_ours(worker: *mut Self) -> bool {
        let thread = LOCAL.with(|local| local.thread.get());
        // SAFETY: the contract; the calling thread's record is its own. The mailbox is compared
        // rather than the record, whose address may be reused once its thread has ended.
        unsafe { !thread.is_null() && Arc::ptr_eq(&(*worker).mailbox, &(*thread).mailbox) }
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
                // SAFETY: the worker waits for what this stack has to wait for, too.
                Output::Parked(parked) => input = unsafe { parking::pass_on(parked) },
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
    unsafe fn called_out(
        worker: *mut Self,
        function: unsafe fn(*mut c_void),
        argument: *mut c_void,
    ) {
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
    pub(crate) unsafe fn call_out(
        worker: *mut Self,
        function: unsafe fn(*mut c_void),
        argument: *mut c_void,
    ) {
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
        function: unsafe fn(*mut c_void),
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

    /// Suspends the running worker for as long as `parked` waits. What it drives goes on elsewhere.
    ///
    /// # Safety
    ///
    /// As [`suspend`](Self::suspend).
    pub(crate) unsafe fn park(worker: *mut Self, parked: *mut Parked) {
        // SAFETY: passed on.
        match unsafe { Self::switch_back(worker, Output::Parked(parked)) } {
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

    /// Calls `function` with `argument` on a stack that the thread's workers share (see `side_stack`), and
    /// notes what that has needed. False, and nothing is called, if the worker is on one already, or there is none.
    ///
    /// # Safety
    ///
    /// Attached, no error set; `worker` must be [`current`]. `function` must not unwind.
    #[inline]
    pub(crate) unsafe fn call_aside(
        worker: *mut Self,
        function: side_stack::Function,
        argument: *mut c_void,
        needs: Option<&mut Needs>,
    ) -> bool {
        // SAFETY: the contract. The worker is entered, with its thread state. What suspends it meanwhile
        // does so by `switch_back`, and it is resumed with the same thread state.
        unsafe {
            if !(*worker).side.is_null() {
                return false;
            }
            let thread = (*worker).thread;
            // How deep C code may get was told the interpreter for the worker's own stack.
            let least = (*worker).stack_pages as usize * PAGE;
            let side = SideStacks::take(&raw mut (*thread).side_stacks, least);
            if side.is_null() {
                if fallbacks::OWN_STACK.note() {
                    (*thread).mailbox.ring();
                }
                return false;
            }
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
            if !SideStacks::give_back(&raw mut (*thread).side_stacks, side) {
                leaks::count(1);
                leaks::tell(Reason::Disorder, (*worker).portal.cast());
            }
            true
        }
    }

    /// Whether it matters how many pages the worker's stack has touched: so many of the thread's are in
    /// use, and its code is on that stack.
    ///
    /// # Safety
    ///
    /// `worker` must be [`current`].
    #[inline(always)]
    pub(crate) unsafe fn is_one_of_many(worker: *mut Self) -> bool {
        // SAFETY: current, so its thread is there.
        unsafe {
            let thread = (*worker).thread;
            let idle = &(*thread).idle;
            (*thread).workers - idle.len() > FEW && (*worker).side.is_null()
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
            let first = if (*worker).drives.is_null() { first } else { first - PAGE };
            let bottom = if here < first { here & !(PAGE - 1) } else { first };
            let top = State::data_stack_top((*worker).ts);
            Needs { c_stack: here - bottom, data_stack: top.next_multiple_of(PAGE) - top }
        }
    }

    /// How many stacks the worker has.
    unsafe fn stacks(worker: *mut Self) -> usize {
        // SAFETY: alive, or in the middle of a step when its thread ended.
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

    /// Whether the worker is inside a `Context.run` of its own; see `await_::is_usable`.
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

    /// Notes that the step has suspended, once for each step.
    ///
    /// # Safety
    ///
    /// This thread's worker, not running, not `mid_step`; `ts` attached.
    pub(crate) unsafe fn begin_suspension(worker: *mut Self, ts: *mut PyThreadState) {
        // SAFETY: the worker and its thread's record are ours; the neighbours are alive, as a
        // worker unlinks itself before it is freed or leaked.
        unsafe {
            (*worker).mid_step = true;
            (*worker).tstate_id = crate::interp::thread_state_id(ts);
            let thread = (*worker).thread;
            (*worker).previous = ptr::null_mut();
            (*worker).next = (*thread).suspended;
            if !(*worker).next.is_null() {
                (*(*worker).next).previous = worker;
            }
            (*thread).suspended = worker;
            (*thread).suspended_count += 1;
        }
    }

    /// Undoes [`begin_suspension`](Self::begin_suspension).
    ///
    /// # Safety
    ///
    /// This thread's worker, `mid_step`.
    pub(crate) unsafe fn end_suspension(worker: *mut Self) {
        // SAFETY: as in `begin_suspension`.
        unsafe {
            (*worker).mid_step = false;
            let (previous, next) = ((*worker).previous, (*worker).next);
            let thread = (*worker).thread;
            if previous.is_null() {
                (*thread).suspended = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            (*thread).suspended_count -= 1;
        }
    }

    /// Gives the worker back after a step.
    ///
    /// # Safety
    ///
    /// This thread's worker, neither running nor in the middle of a step, not used afterwards.
    #[inline]
    pub(crate) unsafe fn give_back(worker: *mut Self) {
        // SAFETY: ours.
        unsafe {
            if !State::settle(&raw mut (*worker).state) {
                // Something on the fiber left the interpreter's records in disorder (a foreign
                // stack switcher). The stack may still be referenced.
                return Self::leak(worker, Reason::Disorder, (*worker).portal.cast());
            }
            (*worker).portal = ptr::null_mut();
            (*worker).masked = false;
            (*worker).forked_on = ptr::null_mut();
            let idle = &mut (*(*worker).thread).idle;
            if idle.len() < MAX_IDLE {
                idle.push(worker);
            } else {
                (*(*worker).thread).workers -= 1;
                Self::free(worker);
            }
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

    /// Ends an idle worker.
    ///
    /// # Safety
    ///
    /// Idle, this thread's, not used afterwards.
    unsafe fn free(worker: *mut Self) {
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
            (*worker).portal = ptr::null_mut();
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

    /// The next worker in the thread's list of suspended ones.
    ///
    /// # Safety
    ///
    /// This thread's worker, `mid_step`.
    pub(crate) unsafe fn next(worker: *mut Self) -> *mut Self {
        // SAFETY: the contract.
        unsafe { (*worker).next }
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
            let panicked = error::barrier(true, || {
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
                thrown::note_value(worker, value);
                let mut result = ptr::null_mut();
                let status = send_into(coroutine, value, &raw mut result);
                thrown::end(worker);
                Output::Done(status, result)
            }
            Input::Throw { coroutine, exception } => {
                thrown::note_exception(worker, exception, 0);
                let (status, result) = throw_into(coroutine, exception);
                thrown::end(worker);
                Output::Done(status, result)
            }
            Input::Drive(driver) => {
                parking::drive(driver);
                Output::Left
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

/// `PyIter_Send`, with one call less for what has `am_send`, as coroutines have.
///
/// # Safety
///
/// Attached; the objects valid, and borrowed.
#[inline(always)]
unsafe fn send_into(
    iterator: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> ffi::PySendResult {
    // SAFETY: the contract; a type lives as long as its instances, and so do its tables.
    unsafe {
        let methods = (*ffi::Py_TYPE(iterator)).tp_as_async;
        if !methods.is_null() {
            if let Some(send) = (*methods).am_send {
                return send(iterator, value, result);
            }
        }
        ffi::PyIter_Send(iterator, value, result)
    }
}

/// `iterator.throw(exception)`, with the outcome of `PyIter_Send`.
///
/// # Safety
///
/// Attached; both valid, and borrowed.
pub(crate) unsafe fn throw_into(
    iterator: *mut PyObject,
    exception: *mut PyObject,
) -> (ffi::PySendResult, *mut PyObject) {
    // SAFETY: the contract; `throw` is interned for ever by `names::init`.
    unsafe {
        let result = crate::names::call_one(iterator, crate::names::THROW.get(), exception);
        outcome_of_call(result)
    }
}

/// Translates what a method like `throw()` returned: a value means that it yielded,
/// `StopIteration` that it returned.
///
/// # Safety
///
/// Attached; an error is set if `result` is null.
pub(crate) unsafe fn outcome_of_call(result: *mut PyObject) -> (ffi::PySendResult, *mut PyObject) {
    if !result.is_null() {
        return (ffi::PySendResult::PYGEN_NEXT, result);
    }
    // SAFETY: attached, and an error is set. `StopIteration.value` of an instance is read as an
    // attribute, which cannot fail for the built-in and its subclasses unless they want it to.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_StopIteration) == 0 {
            return (ffi::PySendResult::PYGEN_ERROR, ptr::null_mut());
        }
        let stop = error::take();
        let value = ffi::PyObject_GetAttr(stop, crate::names::VALUE.get());
        ffi::Py_DECREF(stop);
        if value.is_null() {
            return (ffi::PySendResult::PYGEN_ERROR, ptr::null_mut());
        }
        (ffi::PySendResult::PYGEN_RETURN, value)
    }
}
