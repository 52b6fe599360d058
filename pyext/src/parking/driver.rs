//! Which stack drives a loop, and the change from one to the next.

use super::hooks;
use super::turns::{self, Turn};
use super::waker;
use crate::interp::contexts::{self, Left};
use crate::interp::frames::Place;
use crate::interp::level::Level;
use crate::interp::tracing;
use crate::worker::{self, Input, Output, Worker};
use crate::{error, fallbacks, greenlet, interp, names};
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::cell::Cell;
use std::ptr;
use std::time::Instant;

/// What the host is doing.
#[derive(Clone, Copy)]
pub(super) enum Host {
    /// It runs: the stock loop, or a callback of that.
    Runs,
    /// A caller on it is parked.
    Waits(*mut Parked),
    /// Nothing: it can go back to the stock loop at once.
    Idles,
}

/// Who goes on next.
#[derive(Clone, Copy)]
pub(super) enum Next {
    /// Whoever drives now.
    Same,
    /// A caller that is parked on a runner.
    Parked(*mut Parked),
    /// A runner that begins to drive.
    Fresh(*mut Worker),
    Host,
}

/// A caller that waits, and its stack with it. In its waker, and not in the caller's frame: where that is on
/// the thread's own stack, greenlets may move it while the caller waits.
pub(crate) struct Parked {
    pub(super) driver: *mut Driver,
    /// The runner whose stack it is; null for the host's.
    worker: *mut Worker,
    /// About where that stack's frames end. Not to be read, they may be gone.
    frames: *const u8,
    /// The callback that the stack is in the middle of.
    turn: *mut Turn,
    contexts: Left,
    /// The caller's task, owned by the caller; null if it has none.
    pub(super) task: *mut PyObject,
    /// What it waits for, owned by the caller.
    pub(super) future: *mut PyObject,
    /// The future that the waker was called with; owned, or null.
    pub(super) outcome: *mut PyObject,
    /// What the caller is to raise instead of waiting on; owned.
    pub(super) exception: *mut PyObject,
    /// Neighbours in the driver's list of callers that are parked on runners.
    before: *mut Parked,
    after: *mut Parked,
}

impl Parked {
    pub(super) fn new(driver: *mut Driver, task: *mut PyObject, future: *mut PyObject) -> Self {
        Self {
            driver,
            worker: ptr::null_mut(),
            frames: ptr::null(),
            turn: ptr::null_mut(),
            contexts: Left::new(),
            task,
            future,
            outcome: ptr::null_mut(),
            exception: ptr::null_mut(),
            before: ptr::null_mut(),
            after: ptr::null_mut(),
        }
    }

    /// Notes that the caller is parked on `worker`.
    unsafe fn link(parked: *mut Self, worker: *mut Worker) {
        // SAFETY: it and its neighbours are alive while they are parked.
        unsafe {
            let driver = (*parked).driver;
            (*parked).worker = worker;
            (*parked).before = ptr::null_mut();
            (*parked).after = (*driver).first;
            if !(*driver).first.is_null() {
                (*(*driver).first).before = parked;
            }
            (*driver).first = parked;
            (*driver).parked += 1;
        }
    }

    /// Undoes [`link`](Self::link); returns the worker.
    unsafe fn unlink(parked: *mut Self) -> *mut Worker {
        // SAFETY: as in `link`.
        unsafe {
            let driver = (*parked).driver;
            let (before, after) = ((*parked).before, (*parked).after);
            if before.is_null() {
                (*driver).first = after;
            } else {
                (*before).after = after;
            }
            if !after.is_null() {
                (*after).before = before;
            }
            (*driver).parked -= 1;
            std::mem::replace(&mut (*parked).worker, ptr::null_mut())
        }
    }
}

/// Everything about one loop, as long as it is needed: while stacks are parked, wakers exist, or a
/// native frame of ours is at work (`uses`).
pub(crate) struct Driver {
    pub(super) event_loop: *mut PyObject,
    pub(super) ready: *mut PyObject,
    /// An empty context for our own callbacks, so that they find theirs free.
    pub(super) context: *mut PyObject,
    pub(super) host: Host,
    /// The stock loop's callback that the host is in; only compared.
    pub(super) host_handle: *mut PyObject,
    /// The caller on the host is in the way of the loop's end.
    pub(super) end_asked: Option<Asked>,
    /// The worker whose stack the host is; null for the thread's own.
    host_worker: *mut Worker,
    /// What the host is to raise; owned.
    pub(super) host_exception: *mut PyObject,
    /// The host is in `run_hosted`: there is no stock `_run_once` to satisfy.
    pub(super) hosted: bool,
    /// `end_hosted` was called: `run_hosted` is to return.
    pub(super) unhosted: bool,
    /// Callbacks left of those that were ready at the last look at the selector.
    pub(super) batch: isize,
    pub(super) next: Next,
    /// Taken by a caller that is about to park.
    spare: *mut Worker,
    /// The stack that is about to change who drives, or has just done so, as [`here`] names it; null for
    /// none. Until that is done, nobody else can park on it.
    changing: *mut Worker,
    /// Callers that are parked on runners: how many, and the latest one.
    pub(super) parked: usize,
    first: *mut Parked,
    /// The callers are being ended; nothing else is to run.
    pub(super) closing: bool,
    /// The Python layer sees to it that they are when the loop is closed.
    close_watched: bool,
    /// The callback that runs now; null on the host.
    pub(super) turn: *mut Turn,
    /// A handle that lets a runner drive; owned, or null.
    take_over: *mut PyObject,
    tstate_id: u64,
    uses: usize,
    others: *mut Driver,
}

thread_local! {
    // `const` and without a destructor. What it points to is leaked with its thread.
    static DRIVERS: Cell<*mut Driver> = const { Cell::new(ptr::null_mut()) };
}

impl Driver {
    /// This thread's driver for a loop, with one use for the caller. Null with an error set.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(super) unsafe fn of(event_loop: *mut PyObject) -> *mut Self {
        // SAFETY: attached.
        unsafe {
            let driver = existing(event_loop);
            if driver.is_null() { Self::new(event_loop) } else { driver }
        }
    }

    unsafe fn new(event_loop: *mut PyObject) -> *mut Self {
        // SAFETY: attached.
        unsafe {
            let ready = ffi::PyObject_GetAttr(event_loop, names::READY.get());
            let context = if ready.is_null() { ready } else { ffi::PyContext_New() };
            if context.is_null() {
                ffi::Py_XDECREF(ready);
                return ptr::null_mut();
            }
            let driver = Box::into_raw(Box::new(Self {
                event_loop: ffi::Py_NewRef(event_loop),
                ready,
                context,
                host: Host::Runs,
                host_handle: ptr::null_mut(),
                end_asked: None,
                host_worker: ptr::null_mut(),
                host_exception: ptr::null_mut(),
                hosted: false,
                unhosted: false,
                batch: 0,
                next: Next::Same,
                spare: ptr::null_mut(),
                changing: ptr::null_mut(),
                parked: 0,
                first: ptr::null_mut(),
                closing: false,
                close_watched: false,
                turn: ptr::null_mut(),
                take_over: ptr::null_mut(),
                tstate_id: interp::thread_state_id(ffi::PyThreadState_Get()),
                uses: 1,
                others: DRIVERS.get(),
            }));
            DRIVERS.set(driver);
            driver
        }
    }

    /// One use more.
    ///
    /// # Safety
    ///
    /// The driver must be in use.
    pub(super) unsafe fn hold(driver: *mut Self) {
        // SAFETY: the contract, with the GIL held.
        unsafe { (*driver).uses += 1 }
    }

    /// One use less; the last one frees the driver.
    ///
    /// # Safety
    ///
    /// Attached; the use must be the caller's.
    pub(super) unsafe fn release(driver: *mut Self) {
        // SAFETY: the contract. Without a use nobody is parked, and nobody else knows the driver
        // but its thread's list. Another thread cannot unlink it: there it stays, without use.
        unsafe {
            (*driver).uses -= 1;
            if (*driver).uses > 0 || !Self::is_ours(driver) {
                return;
            }
            let mut place = DRIVERS.get();
            if place == driver {
                DRIVERS.set((*driver).others);
            } else {
                while !place.is_null() && (*place).others != driver {
                    place = (*place).others;
                }
                if place.is_null() {
                    return;
                }
                (*place).others = (*driver).others;
            }
            let driver = Box::from_raw(driver);
            ffi::Py_DECREF(driver.ready);
            ffi::Py_DECREF(driver.context);
            ffi::Py_XDECREF(driver.take_over);
            ffi::Py_DECREF(driver.event_loop);
        }
    }

    /// Whether the driver belongs to the calling thread, as the thread state that it is in.
    ///
    /// # Safety
    ///
    /// Attached; the driver must be in use.
    pub(super) unsafe fn is_ours(driver: *mut Self) -> bool {
        // SAFETY: the contract.
        unsafe { (*driver).tstate_id == interp::thread_state_id(ffi::PyThreadState_Get()) }
    }

    /// Whether the loop has been told to stop.
    ///
    /// # Safety
    ///
    /// Attached, no error set.
    pub(super) unsafe fn is_stopping(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe { flag((*driver).event_loop, &names::STOPPING) }
    }

    /// Whether the loop is in debug mode.
    ///
    /// # Safety
    ///
    /// As [`is_stopping`](Self::is_stopping).
    pub(super) unsafe fn is_debug(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe { flag((*driver).event_loop, &names::DEBUG) }
    }

    /// Whether a runner drives now.
    pub(super) unsafe fn is_driven(driver: *mut Self) -> bool {
        // SAFETY: in use.
        unsafe { !matches!((*driver).host, Host::Runs) }
    }

    /// Whether a caller can park now, and below what: the stock loop is below it on this stack, in a
    /// callback, or a runner is. `None` with an error set if it cannot.
    ///
    /// # Safety
    ///
    /// Attached, no error set.
    pub(super) unsafe fn can_park(driver: *mut Self, ts: *mut PyThreadState) -> Option<Below> {
        // SAFETY: attached.
        unsafe {
            if ptr::eq((*driver).changing, here()) {
                error::set_runtime(error::NOT_IN_A_CALLBACK);
                return None;
            }
            if Self::is_driven(driver) {
                // On the stack of a runner, or of what a runner resumes.
                let mut worker = worker::current();
                while !worker.is_null() && (*worker).drives != driver {
                    worker = Worker::outer(worker);
                }
                if worker.is_null() {
                    set_no_callback(driver, ts);
                    return None;
                }
                return may_wait_in_tracer(ts, Worker::host_tracing(worker))
                    .then_some(Below::Runner);
            }
            match stock(driver, ts) {
                Some(stock) => {
                    (*driver).host_worker = Worker::stack_of(ts, &stock.place);
                    let may = tracing::depth(ts) == 0
                        || may_wait_in_tracer(ts, tracing::depth_at(ts, &stock.place));
                    may.then_some(Below::Loop(stock))
                }
                None => {
                    set_no_callback(driver, ts);
                    None
                }
            }
        }
    }

    /// Whether the stock loop is below this code, in the greenlet that this code is in.
    ///
    /// # Safety
    ///
    /// Attached, no error set.
    pub(super) unsafe fn is_here(driver: *mut Self, ts: *mut PyThreadState) -> bool {
        // SAFETY: passed on.
        unsafe { stock(driver, ts).is_some() }
    }

    /// From here on the caller's stack changes who drives. What is called meanwhile is asyncio's and the
    /// Python layer's code, but a trace function, a signal handler or a finalizer may interrupt that,
    /// and must not park in the middle. Returns what [`end_change`](Self::end_change) is to be given.
    ///
    /// # Safety
    ///
    /// In use.
    pub(super) unsafe fn begin_change(driver: *mut Self) -> *mut Worker {
        // SAFETY: in use.
        unsafe { std::mem::replace(&mut (*driver).changing, here()) }
    }

    /// Undoes [`begin_change`](Self::begin_change).
    ///
    /// # Safety
    ///
    /// In use.
    pub(super) unsafe fn end_change(driver: *mut Self, before: *mut Worker) {
        // SAFETY: in use.
        unsafe { (*driver).changing = before };
    }

    /// Before a caller parks. Those on runners can outlive a run of the loop, so the Python layer
    /// is told to look out for the loop's end. False with an error set.
    ///
    /// # Safety
    ///
    /// Attached, no error set.
    pub(super) unsafe fn watch_close(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe {
            if (*driver).close_watched || !Self::is_driven(driver) {
                return true;
            }
            let done = hooks::WATCH_CLOSE.call(&[(*driver).event_loop]);
            ffi::Py_XDECREF(done);
            (*driver).close_watched = !done.is_null();
            !done.is_null()
        }
    }

    /// Makes sure that there is a runner for the time that the caller is parked. False with an
    /// error set.
    ///
    /// # Safety
    ///
    /// Attached.
    pub(super) unsafe fn prepare_runner(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe {
            if (*driver).spare.is_null() {
                (*driver).spare = Worker::take();
            }
            !(*driver).spare.is_null()
        }
    }
}

/// The stack that this code is on: its worker, or what is none for the thread's own.
fn here() -> *mut Worker {
    let worker = worker::current();
    if worker.is_null() { ptr::without_provenance_mut(1) } else { worker }
}

/// Parks the worker, which others may do meanwhile, too.
///
/// # Safety
///
/// As [`Worker::park`].
unsafe fn park_worker(driver: *mut Driver, worker: *mut Worker, parked: *mut Parked) {
    // SAFETY: the contract; a parked caller's driver is in use.
    unsafe {
        let changing = std::mem::replace(&mut (*driver).changing, ptr::null_mut());
        (*parked).frames = (&raw const changing).cast();
        Worker::park(worker, parked);
        (*driver).changing = changing;
    }
}

/// Whether code in more than `below` trace functions may park: only at a debugger's prompt. Any other trace
/// function is also called for the loop's own code, so that each of its waits would begin more of them.
/// False with an error set.
///
/// # Safety
///
/// `ts` must be the attached thread state, with no error set.
unsafe fn may_wait_in_tracer(ts: *mut PyThreadState, below: i32) -> bool {
    // SAFETY: passed on.
    unsafe {
        let may = tracing::depth(ts) <= below || tracing::is_at_prompt(ts);
        if !may {
            error::set_runtime(error::IN_A_TRACER);
        }
        may
    }
}

/// A truthy attribute.
unsafe fn flag(object: *mut PyObject, name: &names::Name) -> bool {
    // SAFETY: attached, no error set.
    unsafe {
        let value = ffi::PyObject_GetAttr(object, name.get());
        if value.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        let set = ffi::PyObject_IsTrue(value) == 1;
        ffi::Py_DECREF(value);
        set
    }
}

/// What drives the loop below a caller that can park. As true as long as the caller has not returned.
pub(super) enum Below {
    Runner,
    Loop(Stock),
}

/// The stock `_run_once` in the middle of a callback.
pub(super) struct Stock {
    place: Place,
    /// Borrowed from the frame.
    handle: *mut PyObject,
    /// What was current before the callback's context.
    base: *mut PyObject,
    /// Handles that it will take from `_ready` after this one.
    wants: isize,
}

/// The stock `_run_once` of the driver's loop on the running stack, if it is in a callback.
unsafe fn stock(driver: *mut Driver, ts: *mut PyThreadState) -> Option<Stock> {
    // SAFETY: attached. The frame waits in a call, so that its local variables stay as they are.
    unsafe {
        let place = Place::find(ts, hooks::RUN_ONCE.get(), (*driver).event_loop)?;
        let locals = hooks::locals();
        let handle = place.local(locals.handle);
        if handle.is_null() || handle == ffi::Py_None() {
            return None;
        }
        let wants = place.integer(locals.count)? - place.integer(locals.index)? - 1;
        let context = names::attribute(handle, names::CONTEXT_FIELD.get());
        ffi::PyErr_Clear();
        if context.is_null() {
            return None;
        }
        // The handle keeps it alive.
        ffi::Py_DECREF(context);
        contexts::is_entered(ts, context).then(|| Stock {
            base: contexts::below(context),
            place,
            handle,
            wants: wants.max(0),
        })
    }
}

/// Sets the error for a caller that is in no callback of the loop: either the loop itself has been
/// interrupted here, or it runs in another greenlet.
unsafe fn set_no_callback(driver: *mut Driver, ts: *mut PyThreadState) {
    // SAFETY: attached, no error set.
    unsafe {
        let elsewhere = greenlet::look()
            && Place::find(ts, hooks::RUN_ONCE.get(), (*driver).event_loop).is_none();
        if elsewhere {
            error::set_foreign_greenlet();
        } else {
            error::set_runtime(error::NOT_IN_A_CALLBACK);
        }
    }
}

/// Number of ready handles.
pub(super) unsafe fn ready_count(driver: *mut Driver) -> isize {
    // SAFETY: attached; a deque.
    unsafe {
        let count = ffi::PyObject_Size((*driver).ready);
        if count < 0 {
            ffi::PyErr_Clear();
        }
        count.max(0)
    }
}

/// Parks the stack that we are on, for `parked`, and comes back when it is woken. `stock` is what `can_park`
/// has found for code on this stack, if it was on this one.
///
/// # Safety
///
/// Attached, no error set; `can_park` and `prepare_runner` have said yes. No task may be current.
pub(super) unsafe fn give_way(driver: *mut Driver, parked: *mut Parked, below: Option<&Below>) {
    // SAFETY: the contract. The current worker runs, hence is alive; if it is no runner it steps a
    // portal, and its resumer is told.
    unsafe {
        let worker = worker::current();
        if !Driver::is_driven(driver) {
            if worker == (*driver).host_worker {
                let ts = ffi::PyThreadState_Get();
                let sought;
                let stock = if let Some(Below::Loop(stock)) = below {
                    stock
                } else {
                    sought = stock(driver, ts).expect("can_park() has found it");
                    &sought
                };
                let first = Next::Fresh(std::mem::replace(&mut (*driver).spare, ptr::null_mut()));
                host_away(driver, ts, stock, Host::Waits(parked), first);
                before_user_code(driver, stock.wants);
            } else {
                park_worker(driver, worker, parked);
            }
            return;
        }
        if (*worker).drives != driver {
            return park_worker(driver, worker, parked);
        }
        let ts = ffi::PyThreadState_Get();
        let turn = (*driver).turn;
        let debug = Driver::is_debug(driver);
        let started = if debug { turns::begin_break(driver) } else { 0.0 };
        (*parked).turn = turn;
        let base = Worker::inherited_context(worker);
        (*parked).contexts.leave(ts, base);
        park_worker(driver, worker, parked);
        (*parked).contexts.enter();
        (*driver).turn = turn;
        if debug {
            turns::end_break(driver, turn, started);
        }
    }
}

/// Parks what is below a portal's worker that is parked; returns how to resume the worker.
///
/// # Safety
///
/// As `give_way`; called by whoever resumed the worker.
pub(crate) unsafe fn pass_on(parked: *mut Parked) -> Input {
    // SAFETY: the contract; the parked caller's frame is on the suspended worker's stack.
    unsafe { give_way((*parked).driver, parked, None) };
    Input::Unpark
}

/// Lets others go on while the host does something else than to run the stock loop.
unsafe fn host_away(
    driver: *mut Driver,
    ts: *mut PyThreadState,
    stock: &Stock,
    host: Host,
    first: Next,
) {
    // SAFETY: attached, on the host. `level` does not move, and no Python code runs on this stack
    // between its `enter` and `leave`.
    unsafe {
        Driver::hold(driver);
        let changing = Driver::begin_change(driver);
        withdraw_take_over(driver);
        (*driver).batch = stock.wants.min(ready_count(driver));
        let debug = Driver::is_debug(driver);
        let started = if debug { turns::begin_break(driver) } else { 0.0 };
        let mut own = Left::new();
        let contexts = match host {
            Host::Waits(parked) => &raw mut (*parked).contexts,
            _ => &raw mut own,
        };
        (*contexts).leave(ts, stock.base);
        (*driver).host = host;
        (*driver).host_handle = stock.handle;
        switch_from_host(driver, ts, &stock.place, first);
        (*driver).host = Host::Runs;
        (*contexts).enter();
        if debug {
            turns::end_stock_break(driver, &stock.place, stock.handle, started);
        }
        Driver::end_change(driver, changing);
        Driver::release(driver);
    }
}

/// Resumes runners, one after the other, until it is the host's turn.
unsafe fn switch_from_host(
    driver: *mut Driver,
    ts: *mut PyThreadState,
    place: &Place,
    mut next: Next,
) {
    let mut level = Level::new();
    // SAFETY: attached; the workers are this thread's, and wait for what they are given. A parked
    // caller's frame is on the worker's stack, which stays as it is.
    unsafe {
        level.enter(ts, place);
        let changing = std::mem::replace(&mut (*driver).changing, ptr::null_mut());
        loop {
            let (worker, input) = match next {
                Next::Fresh(worker) => {
                    (*worker).masked = true;
                    (*worker).drives = driver;
                    (worker, Input::Drive(driver))
                }
                Next::Parked(parked) => (Parked::unlink(parked), Input::Unpark),
                Next::Host | Next::Same => break,
            };
            match Worker::resume_once(worker, ts, input) {
                Output::Parked(parked) => {
                    Parked::link(parked, worker);
                    next = Next::Fresh(std::mem::replace(&mut (*driver).spare, ptr::null_mut()));
                }
                Output::Left => {
                    retire(worker);
                    next = std::mem::replace(&mut (*driver).next, Next::Same);
                }
                Output::Done(_, result) => {
                    // A panic of ours.
                    ffi::Py_XDECREF(result);
                    (*driver).host_exception = error::take();
                    retire(worker);
                    next = Next::Host;
                }
                Output::Suspended(_)
                | Output::CallOut(..)
                | Output::CallHost(..)
                | Output::Away => {
                    unreachable!("a runner has no portal, and calls out in `resume_once`")
                }
            }
        }
        (*driver).changing = changing;
        level.leave(ts);
    }
}

/// Gives back a worker that drives no more.
unsafe fn retire(worker: *mut Worker) {
    // SAFETY: idle, this thread's.
    unsafe {
        (*worker).masked = false;
        (*worker).drives = ptr::null_mut();
        Worker::give_back(worker);
    }
}

/// Before a caller on the host goes on: when its callback is done, stock `_run_once` will take
/// handles that others may have run by now, as many as it `wants`. The next handle then must be one that
/// lets others drive.
unsafe fn before_user_code(driver: *mut Driver, wants: isize) {
    // SAFETY: attached, on the host.
    unsafe {
        if wants <= ready_count(driver) {
            return;
        }
        let callback = waker::for_take_over(driver);
        let handle = if callback.is_null() {
            callback
        } else {
            let nothing = ffi::PyTuple_New(0);
            let context = (*driver).context;
            let handle = hooks::HANDLE.call(&[callback, nothing, (*driver).event_loop, context]);
            ffi::Py_XDECREF(nothing);
            ffi::Py_DECREF(callback);
            handle
        };
        let done = if handle.is_null() {
            handle
        } else {
            names::call_one((*driver).ready, names::APPENDLEFT.get(), handle)
        };
        if done.is_null() {
            ffi::Py_XDECREF(handle);
            ffi::PyErr_WriteUnraisable((*driver).event_loop);
            return;
        }
        ffi::Py_DECREF(done);
        (*driver).take_over = handle;
    }
}

/// Cancels a handle that lets others drive: the host does not get to it.
unsafe fn withdraw_take_over(driver: *mut Driver) {
    // SAFETY: attached.
    unsafe {
        let handle = std::mem::replace(&mut (*driver).take_over, ptr::null_mut());
        if !handle.is_null() {
            let done = names::call_none(handle, names::CANCEL.get());
            if done.is_null() {
                ffi::PyErr_Clear();
            }
            ffi::Py_XDECREF(done);
            ffi::Py_DECREF(handle);
        }
    }
}

/// What was done about a caller that is in the way of the loop's end.
pub(super) struct Asked {
    /// The stock loop's callback that the caller is in; only compared.
    pub(super) handle: *mut PyObject,
    pub(super) since: Instant,
    pub(super) cancelled: bool,
}

/// What has to happen for a caller to go on whose wait has ended.
pub(super) enum Wake {
    /// Nothing more: whoever drives will see to it.
    Done,
    /// Try again.
    Later,
    /// The host, on which we are, gives way.
    Switch(Next),
}

/// The wait of `parked` has ended.
///
/// # Safety
///
/// Attached, on the driver's thread; the caller waits.
pub(super) unsafe fn wake(driver: *mut Driver, parked: *mut Parked) -> Wake {
    // SAFETY: attached; the caller's frame is alive as long as it waits.
    unsafe {
        let is_taken = !matches!((*driver).next, Next::Same);
        if is_taken || !(*parked).contexts.are_free() {
            return Wake::Later;
        }
        let worker = (*parked).worker;
        match (*driver).host {
            Host::Waits(host) if ptr::eq(host, parked) => {
                (*driver).next = Next::Host;
                Wake::Done
            }
            _ if worker.is_null() => Wake::Later,
            Host::Runs => Wake::Switch(Next::Parked(parked)),
            _ => {
                (*driver).next = Next::Parked(parked);
                Wake::Done
            }
        }
    }
}

/// Bytes of a parked stack, from its end up, in which the frames are that it goes on with.
const NEXT_FRAMES: usize = 1024;
/// Bytes below them, which the calls that are made next take.
const NEXT_CALLS: usize = 1280;
/// Bytes beyond the worker in which the interpreter's frames are.
const PYTHON_FRAMES: usize = 512;
const CACHE_LINE: usize = 64;
/// So few callers are in the near cache anyway.
const FEW_PARKED: usize = 32;

/// The caller is about to go on: has the processor fetch what it will need. With hundreds of parked callers
/// none of that is in a near cache any more, and each of some forty lines would be waited for by itself.
///
/// # Safety
///
/// The caller waits.
pub(super) unsafe fn prefetch(parked: *mut Parked) {
    // SAFETY: the contract; its driver is in use.
    unsafe {
        let worker: *const u8 = (*parked).worker.cast();
        if worker.is_null() || (*(*parked).driver).parked < FEW_PARKED {
            return;
        }
        prefetch_lines((*parked).frames.wrapping_sub(NEXT_CALLS), NEXT_CALLS + NEXT_FRAMES);
        prefetch_lines(worker, size_of::<Worker>() + PYTHON_FRAMES);
    }
}

#[inline(always)]
fn prefetch_lines(start: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(CACHE_LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: it reads nothing, and never faults, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = start.wrapping_add(at);
    }
}

/// Calls `waker` again, after a while. False with an error set.
///
/// # Safety
///
/// Attached.
pub(super) unsafe fn call_later(driver: *mut Driver, waker: *mut PyObject) -> bool {
    // SAFETY: attached; one keyword argument.
    unsafe {
        let seconds = ffi::PyFloat_FromDouble(0.001);
        let names = hooks::context_alone();
        if seconds.is_null() || names.is_null() {
            ffi::Py_XDECREF(seconds);
            return false;
        }
        let arguments = [(*driver).event_loop, seconds, waker, (*driver).context];
        let handle =
            ffi::PyObject_VectorcallMethod(names::CALL_LATER.get(), arguments.as_ptr(), 3, names);
        ffi::Py_DECREF(seconds);
        ffi::Py_XDECREF(handle);
        !handle.is_null()
    }
}

/// In a callback of the host: others go on, beginning with `first`, until the host is needed. False
/// with an error set, which is to leave the loop.
///
/// # Safety
///
/// Attached, no error set, on the host.
pub(super) unsafe fn idle(driver: *mut Driver, first: Next) -> bool {
    // SAFETY: the contract.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        let Some(stock) = stock(driver, ts) else {
            error::set_runtime(error::NOT_IN_A_CALLBACK);
            return false;
        };
        (*driver).host_worker = Worker::stack_of(ts, &stock.place);
        host_away(driver, ts, &stock, Host::Idles, first);
        settle(driver, ts)
    }
}

/// The callback with which the host gives the loop to a runner.
///
/// # Safety
///
/// As [`idle`].
pub(super) unsafe fn take_over(driver: *mut Driver) -> bool {
    // SAFETY: the contract.
    unsafe {
        let handle = std::mem::replace(&mut (*driver).take_over, ptr::null_mut());
        ffi::Py_XDECREF(handle);
        let ts = ffi::PyThreadState_Get();
        if (*driver).parked == 0 || Driver::is_stopping(driver) || Driver::is_driven(driver) {
            return settle(driver, ts);
        }
        let worker = Worker::take();
        if worker.is_null() {
            ffi::PyErr_Clear();
            if fallbacks::NO_RUNNER.note() {
                fallbacks::tell_due();
            }
            return settle(driver, ts);
        }
        idle(driver, Next::Fresh(worker))
    }
}

/// Before the host goes back to stock `_run_once`: that finds as many handles as it wants. If the
/// loop is to stop, they are cancelled ones, and the others are left for the next run. False with
/// an error set if the host is to raise.
unsafe fn settle(driver: *mut Driver, ts: *mut PyThreadState) -> bool {
    // SAFETY: attached, on the host.
    unsafe {
        let exception = std::mem::replace(&mut (*driver).host_exception, ptr::null_mut());
        if !exception.is_null() {
            let leaves = ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_KeyboardInterrupt)
                != 0
                || ffi::PyErr_GivenExceptionMatches(exception, ffi::PyExc_SystemExit) != 0;
            if leaves {
                error::restore(exception);
                return false;
            }
            // From the selector: the stock loop will ask it again, and raise by itself.
            ffi::Py_DECREF(exception);
        }
        let wants = stock(driver, ts).map_or(0, |stock| stock.wants);
        let missing = if Driver::is_stopping(driver) { wants } else { wants - ready_count(driver) };
        if missing <= 0 {
            return true;
        }
        let count = ffi::PyLong_FromSsize_t(missing);
        let done = hooks::PAD.call(&[(*driver).event_loop, count]);
        ffi::Py_XDECREF(count);
        ffi::Py_XDECREF(done);
        !done.is_null()
    }
}

/// The host runs nothing but runners: for a loop whose `_run_once` we are. Comes back when the loop
/// is to stop. False with an error set.
///
/// # Safety
///
/// Attached, no error set.
pub(super) unsafe fn host(driver: *mut Driver) -> bool {
    // SAFETY: attached.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        let worker = Worker::take();
        if worker.is_null() {
            return false;
        }
        let place = Place::current(ts);
        (*driver).host_worker = worker::current();
        (*driver).batch = 0;
        (*driver).hosted = true;
        (*driver).unhosted = false;
        (*driver).host = Host::Idles;
        switch_from_host(driver, ts, &place, Next::Fresh(worker));
        (*driver).host = Host::Runs;
        (*driver).hosted = false;
        let exception = std::mem::replace(&mut (*driver).host_exception, ptr::null_mut());
        if !exception.is_null() {
            error::restore(exception);
            return false;
        }
        true
    }
}

/// Times that a caller that goes on waiting is told to end.
const MOST_EXITS: usize = 100;

/// Ends all callers that this thread has parked on runners: CancelledError is raised in them. Returns
/// how many have ended.
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn close_all() -> usize {
    let mut closed = 0;
    let mut driver = DRIVERS.get();
    // SAFETY: this thread's list; a driver with parked callers stays in it. It is held while it is
    // at work, and the list is read anew after.
    unsafe {
        while !driver.is_null() {
            if (*driver).parked > 0 && Driver::is_ours(driver) && !Driver::is_driven(driver) {
                Driver::hold(driver);
                closed += close(driver);
                let others = (*driver).others;
                Driver::release(driver);
                driver = others;
            } else {
                driver = (*driver).others;
            }
        }
    }
    closed
}

/// This thread's driver for a loop, held once more; null if there is none.
unsafe fn existing(event_loop: *mut PyObject) -> *mut Driver {
    let mut driver = DRIVERS.get();
    // SAFETY: this thread's list. Drivers are unlinked before they are freed.
    unsafe {
        while !driver.is_null() {
            if (*driver).event_loop == event_loop && Driver::is_ours(driver) {
                Driver::hold(driver);
                break;
            }
            driver = (*driver).others;
        }
    }
    driver
}

/// `_fiberback.parked_on(loop)`: of each caller that this thread has parked on a fiber of its own, the
/// task and what it waits for, or None for what there is not.
pub(crate) unsafe extern "C" fn parked_on(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached; lent. The callers' frames hold their tasks and futures, and nothing runs
        // while they are looked through. What is found is owned by the pairs, or dropped.
        unsafe {
            let or_none =
                |object: *mut PyObject| if object.is_null() { ffi::Py_None() } else { object };
            let mut found = Vec::new();
            let driver = existing(event_loop);
            if !driver.is_null() {
                let mut parked = (*driver).first;
                while !parked.is_null() {
                    found.push(
                        [(*parked).task, (*parked).future].map(|o| ffi::Py_NewRef(or_none(o))),
                    );
                    parked = (*parked).after;
                }
                Driver::release(driver);
            }
            let mut list = ffi::PyList_New(0);
            for [task, future] in found {
                let pair = if list.is_null() { list } else { ffi::PyTuple_Pack(2, task, future) };
                if !list.is_null() && (pair.is_null() || ffi::PyList_Append(list, pair) < 0) {
                    ffi::Py_CLEAR(&raw mut list);
                }
                ffi::Py_XDECREF(pair);
                ffi::Py_DECREF(task);
                ffi::Py_DECREF(future);
            }
            list
        }
    })
}

/// `_fiberback.close_parked(loop)`: raises CancelledError in the callers that `parked_on` tells of.
/// Returns how many have ended.
pub(crate) unsafe extern "C" fn close_parked(
    _: *mut PyObject,
    event_loop: *mut PyObject,
) -> *mut PyObject {
    error::barrier(ptr::null_mut(), || {
        // SAFETY: attached, no error set; lent.
        unsafe {
            if let Some(message) = interp::refusal(ffi::PyThreadState_Get()) {
                error::set_runtime(message);
                return ptr::null_mut();
            }
            let driver = existing(event_loop);
            let mut closed = 0;
            if !driver.is_null() {
                if (*driver).parked > 0 && !Driver::is_driven(driver) {
                    closed = close(driver);
                }
                Driver::release(driver);
            }
            ffi::PyLong_FromSize_t(closed)
        }
    })
}

unsafe fn close(driver: *mut Driver) -> usize {
    // SAFETY: attached, on a stack that is no runner of this driver; its callers wait.
    unsafe {
        let count = (*driver).parked;
        let running = hooks::RUNNING_LOOP.call(&[]);
        set_running_loop((*driver).event_loop);
        (*driver).closing = true;
        for _ in 0..count.saturating_mul(2).saturating_add(MOST_EXITS) {
            let parked = (*driver).first;
            if parked.is_null() {
                break;
            }
            let exception = ffi::PyObject_CallNoArgs(hooks::CANCELLED_ERROR.get());
            if exception.is_null() {
                ffi::PyErr_Clear();
                break;
            }
            (*parked).exception = exception;
            let ts = ffi::PyThreadState_Get();
            let place = Place::current(ts);
            (*driver).batch = 0;
            (*driver).host_worker = worker::current();
            (*driver).host = Host::Idles;
            switch_from_host(driver, ts, &place, Next::Parked(parked));
            (*driver).host = Host::Runs;
            let raised = std::mem::replace(&mut (*driver).host_exception, ptr::null_mut());
            if !raised.is_null() {
                error::restore(raised);
                ffi::PyErr_WriteUnraisable((*driver).event_loop);
            }
        }
        (*driver).closing = false;
        if running.is_null() {
            ffi::PyErr_Clear();
        } else {
            set_running_loop(running);
            ffi::Py_DECREF(running);
        }
        count.saturating_sub((*driver).parked)
    }
}

unsafe fn set_running_loop(event_loop: *mut PyObject) {
    // SAFETY: attached, no error set.
    unsafe {
        let done = hooks::SET_RUNNING_LOOP.call(&[event_loop]);
        if done.is_null() {
            ffi::PyErr_Clear();
        }
        ffi::Py_XDECREF(done);
    }
}
