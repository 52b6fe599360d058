//! One step of what an `await_` waits for, made on the stack that it fits on.
//!
//! Where many tasks wait, it matters how many pages each of their stacks has touched. A step that needs more
//! than is left of the page that the waiting stack has touched anyway is therefore made on a side stack
//! (`side_stack.rs`). Switching there and back costs a little, which is only worth it for such steps; so
//! what steps need is measured there, for each kind of awaitable (coroutines of the same code, others of
//! the same type), and those that need little are made where they are called. If one needs more than its
//! kind has done so far, the task that waits takes a page more.
//!
//! What the Python layer is asked about a wait is asked on a side stack, too.

use crate::asyncio_future::is_asyncio_future;
use crate::coroutine_methods::Outcome;
use crate::delegate;
use crate::interp;
use crate::needs::Needs;
use crate::thread::Thread;
use crate::worker::{self, Worker};
use pyo3::ffi::PySendResult::{PYGEN_ERROR, PYGEN_RETURN};
use pyo3::ffi::{self, PyObject};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

/// What is known of the steps of awaitables of one kind. Used with the GIL held only.
struct Record {
    /// Steps that were measured, up to [`ENOUGH`]; beyond that, awaitables that were not.
    count: AtomicU8,
    /// The most that was measured of each, in [`UNIT`]s.
    c_stack: AtomicU8,
    data_stack: AtomicU8,
}

const UNIT: usize = 32;
/// So many steps have to be measured before it is known what their kind needs.
const ENOUGH: u8 = 8;

/// Kinds that share a record count as one.
static RECORDS: [Record; 1 << RECORD_BITS] = [const {
    Record { count: AtomicU8::new(0), c_stack: AtomicU8::new(0), data_stack: AtomicU8::new(0) }
}; 1 << RECORD_BITS];
const RECORD_BITS: u32 = 9;

impl Record {
    #[inline(always)]
    unsafe fn of(awaitable: *mut PyObject) -> &'static Self {
        // SAFETY: a valid object (all callers); the addresses are only compared.
        let address = unsafe {
            let class = ffi::Py_TYPE(awaitable);
            if class == &raw mut ffi::PyCoro_Type {
                interp::code_address(awaitable)
            } else {
                class.addr()
            }
        };
        // Objects are aligned to 16. The high bits of the product depend on all of the address.
        let mixed = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &RECORDS[(mixed >> (64 - RECORD_BITS)) as usize]
    }

    /// Whether steps of that kind need no more than `room`, as far as is known.
    #[inline(always)]
    fn fits(&self, room: &Needs) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        if count < ENOUGH {
            return false;
        }
        let Some(next) = count.checked_add(1) else {
            // From time to time it is measured anew.
            self.count.store(ENOUGH / 2, Ordering::Relaxed);
            self.c_stack.store(0, Ordering::Relaxed);
            self.data_stack.store(0, Ordering::Relaxed);
            return false;
        };
        self.count.store(next, Ordering::Relaxed);
        usize::from(self.c_stack.load(Ordering::Relaxed)) * UNIT <= room.c_stack
            && usize::from(self.data_stack.load(Ordering::Relaxed)) * UNIT <= room.data_stack
    }

    fn is_known(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= ENOUGH
    }

    fn note(&self, needs: &Needs) {
        let at_least = |field: &AtomicU8, bytes: usize| {
            let units = u8::try_from(bytes.div_ceil(UNIT)).unwrap_or(u8::MAX);
            field.store(field.load(Ordering::Relaxed).max(units), Ordering::Relaxed);
        };
        at_least(&self.c_stack, needs.c_stack);
        at_least(&self.data_stack, needs.data_stack);
        let count = self.count.load(Ordering::Relaxed);
        if count < ENOUGH {
            self.count.store(count + 1, Ordering::Relaxed);
        }
    }
}

/// Has all kinds measured anew.
pub(crate) fn forget() {
    for record in &RECORDS {
        record.count.store(0, Ordering::Relaxed);
        record.c_stack.store(0, Ordering::Relaxed);
        record.data_stack.store(0, Ordering::Relaxed);
    }
}

/// How an awaitable is stepped.
#[derive(Clone, Copy)]
pub(crate) struct Stepper {
    /// The current worker, if it is done on a side stack; null if where we are.
    worker: *mut Worker,
    record: &'static Record,
}

impl Stepper {
    /// # Safety
    ///
    /// Attached; `worker` must be the current one, or null; a valid object.
    #[inline(always)]
    pub(crate) unsafe fn of(worker: *mut Worker, awaitable: *mut PyObject) -> Self {
        // SAFETY: the contract.
        unsafe {
            let worker = saving(worker);
            if worker.is_null() {
                return Self { worker, record: &RECORDS[0] };
            }
            let record = Record::of(awaitable);
            // To step a future takes hardly anything.
            let is_here = record.fits(&Worker::room(worker)) || is_asyncio_future(awaitable);
            Self { worker: if is_here { ptr::null_mut() } else { worker }, record }
        }
    }

    /// `PyIter_Send`.
    ///
    /// # Safety
    ///
    /// Attached, no error set, on the stack of the worker that it is of. The objects are lent for the
    /// whole step.
    #[inline(always)]
    pub(crate) unsafe fn send(self, iterator: *mut PyObject, value: *mut PyObject) -> Outcome {
        // SAFETY: passed on.
        unsafe {
            if self.worker.is_null() {
                let mut result = ptr::null_mut();
                return (ffi::PyIter_Send(iterator, value, &raw mut result), result);
            }
            self.step(iterator, Action::Send(value))
        }
    }

    /// Passes an exception (owned) on to the iterator.
    ///
    /// # Safety
    ///
    /// As [`send`](Self::send).
    #[inline(always)]
    pub(crate) unsafe fn throw(self, iterator: *mut PyObject, exception: *mut PyObject) -> Outcome {
        // SAFETY: passed on.
        unsafe {
            if self.worker.is_null() {
                return delegate::throw(iterator, exception);
            }
            self.step(iterator, Action::Throw(exception))
        }
    }

    /// Whether steps are made where we are, so that the caller can make the first one itself.
    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        self.worker.is_null()
    }

    #[inline(never)]
    unsafe fn step(self, iterator: *mut PyObject, action: Action) -> Outcome {
        // SAFETY: passed on.
        unsafe {
            if self.record.is_known() {
                return make(self.worker, iterator, action, None);
            }
            let mut needs = Needs::NONE;
            let outcome = make(self.worker, iterator, action, Some(&mut needs));
            self.record.note(&needs);
            outcome
        }
    }
}

enum Action {
    /// Borrowed.
    Send(*mut PyObject),
    /// Owned.
    Throw(*mut PyObject),
    /// Borrowed. What is stepped is a function.
    Call(*mut PyObject),
}

struct Step {
    /// Borrowed.
    object: *mut PyObject,
    action: Action,
    outcome: Outcome,
}

/// `function(argument)`, on a side stack where many tasks wait. Null with an error set.
///
/// # Safety
///
/// Attached, no error set; both lent.
pub(crate) unsafe fn call(function: *mut PyObject, argument: *mut PyObject) -> *mut PyObject {
    // SAFETY: passed on.
    unsafe { make(saving(worker::current()), function, Action::Call(argument), None).1 }
}

/// Calls a hook of the Python layer's, if there is one, with `argument`, as [`call`]. False with the error
/// set if it raised.
///
/// # Safety
///
/// As [`call`].
pub(crate) unsafe fn ask(hook: &AtomicPtr<PyObject>, argument: *mut PyObject) -> bool {
    let hook = hook.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; the hook is owned by the static, and kept alive over its call.
    unsafe {
        let hook = ffi::Py_NewRef(hook);
        let answer = call(hook, argument);
        ffi::Py_DECREF(hook);
        ffi::Py_XDECREF(answer);
        !answer.is_null()
    }
}

/// The worker, if its stack is to be saved; null if it is not, or there is none: nothing is to be gained
/// where few tasks wait.
#[inline(always)]
unsafe fn saving(worker: *mut Worker) -> *mut Worker {
    // SAFETY: the current one, or null (all callers).
    let saves = !worker.is_null() && unsafe { Thread::is_one_of_many(worker) };
    if saves { worker } else { ptr::null_mut() }
}

unsafe fn make(
    worker: *mut Worker,
    object: *mut PyObject,
    action: Action,
    needs: Option<&mut Needs>,
) -> Outcome {
    let mut step = Step { object, action, outcome: (PYGEN_ERROR, ptr::null_mut()) };
    let argument: *mut c_void = (&raw mut step).cast();
    // SAFETY: the contract. `step` outlives the call, on a stack that does not move.
    unsafe {
        if worker.is_null() || !Thread::call_aside(worker, here, argument, needs) {
            here(argument);
        }
    }
    step.outcome
}

/// Makes the step on the stack that we are on.
unsafe fn here(step: *mut c_void) {
    let step: *mut Step = step.cast();
    // SAFETY: called by `make`.
    unsafe {
        let object = (*step).object;
        (*step).outcome = match (*step).action {
            Action::Send(value) => {
                let mut result = ptr::null_mut();
                (ffi::PyIter_Send(object, value, &raw mut result), result)
            }
            Action::Throw(exception) => delegate::throw(object, exception),
            Action::Call(argument) => (PYGEN_RETURN, ffi::PyObject_CallOneArg(object, argument)),
        };
    }
}
