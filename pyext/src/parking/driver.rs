//! Everything about one loop that callers are parked on: who waits, and who goes on next.

use super::hooks;
use super::turn::Turn;
use crate::interp::contexts::Left;
use crate::interp::frames::Place;
use crate::since::Since;
use crate::thread::Thread;
use crate::worker::{self, Worker};
use crate::{interp, names};
use pyo3::ffi::{self, PyObject};
use std::cell::Cell;
use std::ffi::c_ulong;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
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
pub(super) struct Parked {
    pub(super) driver: *mut Driver,
    /// The runner whose stack it is; null for the host's.
    pub(super) worker: *mut Worker,
    /// The worker that the caller is on: that one, or one on top of it, or of the host. Null if it is on the
    /// host's own stack.
    pub(super) innermost: *mut Worker,
    pub(super) since: Since,
    /// About where that stack's frames end. Not to be read, they may be gone.
    pub(super) frames: *const u8,
    pub(super) contexts: Left,
    /// The caller's task, owned by the caller; null if it has none.
    pub(super) task: *mut PyObject,
    /// What it waits for, owned by the caller.
    pub(super) future: *mut PyObject,
    /// What `await_` steps, owned by the caller; or null.
    pub(super) iterator: *mut PyObject,
    /// The future that the waker was called with; owned, or null.
    pub(super) outcome: *mut PyObject,
    /// What the caller is to raise instead of waiting on; owned.
    pub(super) exception: *mut PyObject,
    /// Neighbours in the driver's list of callers that are parked on runners.
    pub(super) before: *mut Parked,
    pub(super) after: *mut Parked,
}

impl Parked {
    #[inline]
    pub(super) fn new(driver: *mut Driver, task: *mut PyObject, future: *mut PyObject) -> Self {
        Self {
            driver,
            worker: ptr::null_mut(),
            innermost: ptr::null_mut(),
            since: Since::now(),
            frames: ptr::null(),
            contexts: Left::new(),
            task,
            future,
            iterator: ptr::null_mut(),
            outcome: ptr::null_mut(),
            exception: ptr::null_mut(),
            before: ptr::null_mut(),
            after: ptr::null_mut(),
        }
    }

    /// Notes that the caller is parked on `worker`.
    #[inline]
    pub(super) unsafe fn link(parked: *mut Self, worker: *mut Worker) {
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
    #[inline]
    pub(super) unsafe fn unlink(parked: *mut Self) -> *mut Worker {
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
pub(super) struct Driver {
    pub(super) event_loop: *mut PyObject,
    pub(super) ready: *mut PyObject,
    /// An empty context for our own callbacks, so that they find theirs free.
    pub(super) context: *mut PyObject,
    pub(super) host: Host,
    /// The stock loop's callback that the host is in; only compared.
    pub(super) host_handle: *mut PyObject,
    /// The innermost frame of the host while others drive.
    pub(super) host_top: Option<Place>,
    /// The caller on the host is in the way of the loop's end.
    pub(super) end_asked: Option<Asked>,
    /// The worker whose stack the host is; null for the thread's own.
    pub(super) host_worker: *mut Worker,
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
    pub(super) spare: *mut Worker,
    /// The stack that is about to change who drives, or has just done so, as [`here`] names it; null for
    /// none. Until that is done, nobody else can park on it.
    pub(super) changing: *mut Worker,
    /// Callers that are parked on runners: how many, and the latest one.
    pub(super) parked: usize,
    pub(super) first: *mut Parked,
    /// The callers are being ended; nothing else is to run.
    pub(super) closing: bool,
    /// The Python layer sees to it that they are when the loop is closed.
    pub(super) close_watched: bool,
    /// The callback that a runner runs now; null between two of them, and on the host.
    pub(super) turn: *mut Turn,
    /// A handle that lets a runner drive; owned, or null.
    pub(super) take_over: *mut PyObject,
    /// The handle that has woken the caller that goes on next; owned by it from then on, or null.
    pub(super) woken_by: *mut PyObject,
    pub(super) tstate_id: u64,
    /// `threading.get_ident()`.
    pub(super) thread: c_ulong,
    pub(super) uses: usize,
    pub(super) others: *mut Driver,
    /// Neighbours in the list of all threads' drivers.
    before: *mut Driver,
    after: *mut Driver,
}

/// The first of all threads' drivers. Changed and read with the GIL held.
static ALL: AtomicPtr<Driver> = AtomicPtr::new(ptr::null_mut());

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
    #[inline]
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
                host_top: None,
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
                woken_by: ptr::null_mut(),
                tstate_id: interp::thread_state_id(ffi::PyThreadState_Get()),
                thread: ffi::PyThread_get_thread_ident(),
                uses: 1,
                others: DRIVERS.get(),
                before: ptr::null_mut(),
                after: ALL.load(Ordering::Relaxed),
            }));
            if !(*driver).after.is_null() {
                (*(*driver).after).before = driver;
            }
            ALL.store(driver, Ordering::Relaxed);
            DRIVERS.set(driver);
            driver
        }
    }

    /// One use more.
    ///
    /// # Safety
    ///
    /// The driver must be in use.
    #[inline]
    pub(super) unsafe fn hold(driver: *mut Self) {
        // SAFETY: the contract, with the GIL held.
        unsafe { (*driver).uses += 1 }
    }

    /// One use less; the last one frees the driver.
    ///
    /// # Safety
    ///
    /// Attached; the use must be the caller's.
    #[inline]
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
            let (before, after) = ((*driver).before, (*driver).after);
            if before.is_null() {
                ALL.store(after, Ordering::Relaxed);
            } else {
                (*before).after = after;
            }
            if !after.is_null() {
                (*after).before = before;
            }
            Self::give_back_spare(driver);
            let driver = Box::from_raw(driver);
            ffi::Py_XDECREF(driver.woken_by);
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
    #[inline]
    pub(super) unsafe fn is_ours(driver: *mut Self) -> bool {
        // SAFETY: the contract.
        unsafe { (*driver).tstate_id == interp::thread_state_id(ffi::PyThreadState_Get()) }
    }

    /// Whether the loop has been told to stop.
    ///
    /// # Safety
    ///
    /// Attached, no error set.
    #[inline]
    pub(super) unsafe fn is_stopping(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe { flag((*driver).event_loop, &names::STOPPING) }
    }

    /// Whether the loop is in debug mode.
    ///
    /// # Safety
    ///
    /// As [`is_stopping`](Self::is_stopping).
    #[inline]
    pub(super) unsafe fn is_debug(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe { flag((*driver).event_loop, &names::DEBUG) }
    }

    /// Whether a runner drives now.
    #[inline]
    pub(super) unsafe fn is_driven(driver: *mut Self) -> bool {
        // SAFETY: in use.
        unsafe { !matches!((*driver).host, Host::Runs) }
    }

    /// From here on the caller's stack changes who drives. What is called meanwhile is asyncio's and the
    /// Python layer's code, but a trace function, a signal handler or a finalizer may interrupt that,
    /// and must not park in the middle. Returns what [`end_change`](Self::end_change) is to be given.
    ///
    /// # Safety
    ///
    /// In use.
    #[inline]
    pub(super) unsafe fn begin_change(driver: *mut Self) -> *mut Worker {
        // SAFETY: in use.
        unsafe { std::mem::replace(&mut (*driver).changing, here()) }
    }

    /// Undoes [`begin_change`](Self::begin_change).
    ///
    /// # Safety
    ///
    /// In use.
    #[inline]
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
    #[inline]
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
    #[inline]
    pub(super) unsafe fn prepare_runner(driver: *mut Self) -> bool {
        // SAFETY: attached.
        unsafe {
            if (*driver).spare.is_null() {
                (*driver).spare = Thread::take_worker();
            }
            !(*driver).spare.is_null()
        }
    }

    /// Gives the runner back that nobody who has parked needed.
    ///
    /// # Safety
    ///
    /// Attached, on the driver's thread.
    pub(super) unsafe fn give_back_spare(driver: *mut Self) {
        // SAFETY: the contract; an idle worker of this thread's.
        unsafe {
            let spare = std::mem::replace(&mut (*driver).spare, ptr::null_mut());
            if !spare.is_null() {
                Thread::give_back(spare);
            }
        }
    }
}

/// The stack that this code is on: its worker, or what is none for the thread's own.
#[inline]
pub(super) fn here() -> *mut Worker {
    let worker = worker::current();
    if worker.is_null() { ptr::without_provenance_mut(1) } else { worker }
}

/// A truthy attribute.
#[inline]
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

/// Number of ready handles.
#[inline]
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

/// What was done about a caller that is in the way of the loop's end.
pub(super) struct Asked {
    /// The stock loop's callback that the caller is in; only compared.
    pub(super) handle: *mut PyObject,
    pub(super) since: Instant,
    pub(super) cancelled: bool,
}

/// The drivers of all threads, those of threads that have ended included.
///
/// # Safety
///
/// Attached, and no driver may be made or freed while the iterator is in use.
pub(super) unsafe fn all() -> impl Iterator<Item = *mut Driver> {
    let first = ALL.load(Ordering::Relaxed);
    std::iter::successors((!first.is_null()).then_some(first), |&driver| {
        // SAFETY: unlinked before it is freed.
        let after = unsafe { (*driver).after };
        (!after.is_null()).then_some(after)
    })
}

/// The first of this thread's drivers; null if there is none.
pub(super) fn first() -> *mut Driver {
    DRIVERS.get()
}

/// This thread's driver for a loop, held once more; null if there is none.
///
/// # Safety
///
/// Attached.
#[inline]
pub(super) unsafe fn existing(event_loop: *mut PyObject) -> *mut Driver {
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
