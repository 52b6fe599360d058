//! A thread's record: the workers that it has.
//!
//! Idle ones wait in a last-in-first-out list; those in the middle of a step are in another list, so that they
//! can be ended. The side stacks that all of them share are here, too, and what other threads leave.
//!
//! # Invariant
//!
//! Only its own thread reaches a record, by raw pointers, field by field: nothing is borrowed while any code can
//! run. What outlives it (workers that are leaked) points to it, but is never touched again.

use crate::leaks::{self, Reason};
use crate::mailbox::Mailbox;
use crate::needs::Needs;
use crate::roster::Entry;
use crate::side_stack::{self, SideStacks};
use crate::worker::{LOCAL, Worker};
use crate::{fallbacks, interp, stacks};
use pyo3::ffi::PyThreadState;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// See the module docs. Freed when the thread ends.
pub(crate) struct Thread {
    idle: Vec<*mut Worker>,
    /// Workers that were made and not freed, idle ones included.
    workers: usize,
    side_stacks: SideStacks,
    /// Where the workers that are `mid_step` are listed.
    suspended: *mut Entry,
    suspended_count: usize,
    mailbox: Arc<Mailbox>,
}

/// Idle workers that a thread keeps; more go back to the stack pool.
const MAX_IDLE: usize = 256;

/// So many workers in use are few; see [`Thread::is_one_of_many`].
const FEW: usize = 16;

thread_local! {
    // Apart from `LOCAL` because it has a destructor, which makes each access check a flag.
    static TEARDOWN: Teardown = const { Teardown };
}

#[cold]
fn new_thread() -> *mut Thread {
    let thread = Box::into_raw(Box::new(Thread {
        // Never grows, so that giving a worker back allocates nothing.
        idle: Vec::with_capacity(MAX_IDLE),
        workers: 0,
        side_stacks: SideStacks::new(),
        suspended: Entry::take(),
        suspended_count: 0,
        mailbox: Arc::new(Mailbox::new()),
    }));
    LOCAL.with(|local| local.record.set(thread.cast()));
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
        let thread = LOCAL.with(|local| local.record.replace(ptr::null_mut()));
        if thread.is_null() {
            return;
        }
        // SAFETY: made by `new_thread`, and just unlinked from the only place that names it. A
        // worker in the middle of a step still points here, but is never touched again.
        let mut thread = unsafe { Box::from_raw(thread.cast::<Thread>()) };
        thread.mailbox.close();
        // SAFETY: this thread's, and not used any more.
        let mut worker = unsafe { Entry::give_back(thread.suspended) };
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

impl Thread {
    /// This thread's record, made on first use.
    #[inline(always)]
    pub(crate) fn this() -> *mut Self {
        let thread: *mut Self = LOCAL.with(|local| local.record.get()).cast();
        if thread.is_null() { new_thread() } else { thread }
    }

    /// The record of the thread that the worker belongs to.
    #[inline(always)]
    unsafe fn of(worker: *mut Worker) -> *mut Self {
        // SAFETY: alive (all callers); made by `new_worker`.
        unsafe { (*worker).record.cast() }
    }

    /// Does what other threads have left to do.
    ///
    /// # Safety
    ///
    /// `this` must be the calling thread's record; attached.
    #[inline(always)]
    pub(crate) unsafe fn read_mail(this: *mut Self) {
        // SAFETY: the record is ours, and the mailbox too.
        unsafe {
            let mailbox = &(*this).mailbox;
            Mailbox::read(mailbox);
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
        unsafe { Entry::first((*this).suspended) }
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
                Worker::free_attached(worker);
            }
            (*this).workers -= ended;
            ended + side_stacks.trim()
        }
    }

    /// An idle worker for the calling thread. Null with `StackMemoryError` set if there is none.
    ///
    /// # Safety
    ///
    /// Attached.
    #[inline]
    pub(crate) unsafe fn take_worker() -> *mut Worker {
        let thread = Self::this();
        // SAFETY: the thread's own record; attached.
        unsafe {
            let idle = &mut (*thread).idle;
            match idle.pop() {
                Some(worker) => worker,
                None => Self::new_worker(thread),
            }
        }
    }

    #[cold]
    fn new_worker(thread: *mut Self) -> *mut Worker {
        match stacks::take() {
            Some((stack, kind)) => {
                // SAFETY: the calling thread's record.
                unsafe {
                    (*thread).workers += 1;
                    let mailbox = Arc::clone(&(*thread).mailbox);
                    if kind == stacks::Kind::Small && fallbacks::SMALL_STACK.note() {
                        mailbox.ring();
                    }
                    Worker::on(stack, thread.cast(), mailbox)
                }
            }
            None => ptr::null_mut(),
        }
    }

    /// Gives a worker back after a step.
    ///
    /// # Safety
    ///
    /// This thread's worker, neither running nor in the middle of a step, not used afterwards.
    #[inline]
    pub(crate) unsafe fn give_back(worker: *mut Worker) {
        // SAFETY: ours.
        unsafe {
            if !Worker::settle(worker) {
                // Something on the fiber left the interpreter's records in disorder (a foreign
                // stack switcher). The stack may still be referenced.
                return Worker::leak(worker, Reason::Disorder, (*worker).owner.cast());
            }
            let thread = Self::of(worker);
            let idle = &mut (*thread).idle;
            if idle.len() < MAX_IDLE {
                idle.push(worker);
            } else {
                (*thread).workers -= 1;
                Worker::free_attached(worker);
            }
        }
    }

    /// True if `worker` belongs to the calling thread.
    ///
    /// # Safety
    ///
    /// The worker must be alive, or have been in the middle of a step when its thread ended.
    #[inline(always)]
    pub(crate) unsafe fn is_ours(worker: *mut Worker) -> bool {
        let thread: *mut Self = LOCAL.with(|local| local.record.get()).cast();
        // SAFETY: the contract; the calling thread's record is its own. The mailbox is compared
        // rather than the record, whose address may be reused once its thread has ended.
        unsafe { !thread.is_null() && Arc::ptr_eq(&(*worker).mailbox, &(*thread).mailbox) }
    }

    /// Notes that the step has suspended, once for each step.
    ///
    /// # Safety
    ///
    /// This thread's worker, not running, not `mid_step`; `ts` attached.
    pub(crate) unsafe fn begin_suspension(worker: *mut Worker, ts: *mut PyThreadState) {
        // SAFETY: the worker and its thread's record are ours; the neighbours are alive, as a
        // worker unlinks itself before it is freed or leaked.
        unsafe {
            (*worker).mid_step = true;
            (*worker).tstate_id = interp::thread_state_id(ts);
            let thread = Self::of(worker);
            (*worker).previous = ptr::null_mut();
            (*worker).next = Entry::first((*thread).suspended);
            if !(*worker).next.is_null() {
                (*(*worker).next).previous = worker;
            }
            Entry::set_first((*thread).suspended, worker);
            (*thread).suspended_count += 1;
        }
    }

    /// Undoes [`begin_suspension`](Self::begin_suspension).
    ///
    /// # Safety
    ///
    /// This thread's worker, `mid_step`.
    pub(crate) unsafe fn end_suspension(worker: *mut Worker) {
        // SAFETY: as in `begin_suspension`.
        unsafe {
            (*worker).mid_step = false;
            let (previous, next) = ((*worker).previous, (*worker).next);
            let thread = Self::of(worker);
            if previous.is_null() {
                Entry::set_first((*thread).suspended, next);
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            (*thread).suspended_count -= 1;
        }
    }

    /// The next worker in the thread's list of suspended ones.
    ///
    /// # Safety
    ///
    /// This thread's worker, `mid_step`.
    pub(crate) unsafe fn next(worker: *mut Worker) -> *mut Worker {
        // SAFETY: the contract.
        unsafe { (*worker).next }
    }

    /// Whether it matters how many pages the worker's stack has touched: so many of the thread's are in
    /// use, and its code is on that stack.
    ///
    /// # Safety
    ///
    /// `worker` must be [current](worker::current).
    #[inline(always)]
    pub(crate) unsafe fn is_one_of_many(worker: *mut Worker) -> bool {
        // SAFETY: current, so its thread is there.
        unsafe {
            let thread = Self::of(worker);
            let idle = &(*thread).idle;
            (*thread).workers - idle.len() > FEW && !Worker::is_aside(worker)
        }
    }

    /// Calls `function` with `argument` on a stack that the thread's workers share (see `side_stack`), and
    /// notes what that has needed. False, and nothing is called, if the worker is on one already, or there is none.
    ///
    /// # Safety
    ///
    /// Attached, no error set; `worker` must be [current](worker::current). `function` must not unwind.
    #[inline]
    pub(crate) unsafe fn call_aside(
        worker: *mut Worker,
        function: side_stack::Function,
        argument: *mut c_void,
        needs: Option<&mut Needs>,
    ) -> bool {
        // SAFETY: the contract. Current, so its thread is there.
        unsafe {
            if Worker::is_aside(worker) {
                return false;
            }
            let thread = Self::of(worker);
            // How deep C code may get was told the interpreter for the worker's own stack.
            let least = Worker::stack_size(worker);
            let side = SideStacks::take(&raw mut (*thread).side_stacks, least);
            if side.is_null() {
                if fallbacks::OWN_STACK.note() {
                    (*thread).mailbox.ring();
                }
                return false;
            }
            Worker::call_on(worker, side, function, argument, needs);
            if !SideStacks::give_back(&raw mut (*thread).side_stacks, side) {
                leaks::count(1);
                leaks::tell(Reason::Disorder, (*worker).owner.cast());
            }
            true
        }
    }
}
