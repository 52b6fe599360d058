//! Stacks that the fibers of a thread share, for calls that are over when a fiber waits.
//!
//! A task that waits keeps the pages that its stack has ever touched, those included that nothing is on
//! any more: C frames of what it awaits have been there, and are gone by the time that it is suspended.
//! Such calls are therefore made on a *side stack* (`Thread::call_aside`), where
//! the calls of all tasks touch the same pages.
//!
//! # Invariant
//!
//! * A side stack belongs to a thread. It is in the thread's list, or one fiber has it.
//! * To the interpreter the fiber that has it still runs, with its own frames, exceptions and context.
//!   Only the C stack and the memory for new interpreter frames are the side stack's.
//! * If the fiber is suspended during the call, both stacks are: the side stack to the fiber's own, and
//!   that to its resumer. It stays with that fiber until the call is over.

use crate::barrier::barrier;
use crate::interp::SideState;
use crate::needs::{self, Needs};
use crate::stacks;
use fiberback::fiber::{Fiber, Step, Suspender};
use pyo3::ffi;
use std::ffi::c_void;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::ptr;

/// What is called on a side stack. It does not unwind.
pub(crate) type Function = unsafe fn(*mut c_void);

/// A stack for one call after another; see the module docs.
pub(crate) struct SideStack {
    fiber: ManuallyDrop<Fiber<(), (), ()>>,
    suspender: *const Suspender<(), ()>,
    /// The part of the thread state that goes with it.
    pub(crate) state: SideState,
    function: Function,
    argument: *mut c_void,
    /// Where to say what the call has needed, or null.
    needs: *mut Needs,
    is_done: bool,
}

/// Those of a thread.
pub(crate) struct SideStacks {
    /// Those that no fiber has.
    spare: Vec<*mut SideStack>,
    /// How many there are, those that were given up included.
    count: usize,
    /// So often none is looked for: there was none.
    patience: u8,
}

/// A thread needs one at a time, and one for each fiber that is suspended in a call.
const MOST_SPARE: usize = 8;

/// What [`SideStacks::patience`] begins with: looking for a stack where there is no memory is slow.
const PATIENCE: u8 = 100;

impl SideStacks {
    pub(crate) fn new() -> Self {
        // Never grows, so that giving one back allocates nothing.
        Self { spare: Vec::with_capacity(MOST_SPARE), count: 0, patience: 0 }
    }

    /// How many the thread has, in use or not.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A side stack of at least so many bytes; null, without an error, if there is none.
    ///
    /// # Safety
    ///
    /// Attached, no error set; the calling thread's.
    #[inline(always)]
    pub(crate) unsafe fn take(this: *mut Self, least: usize) -> *mut SideStack {
        // SAFETY: the contract. One in the list is alive, and has nothing on it.
        unsafe {
            let spare = &mut (*this).spare;
            match spare.pop() {
                Some(side) if SideStack::len(side) >= least => side,
                other => Self::search(this, other, least),
            }
        }
    }

    /// [`take`](Self::take), where the one that came first was too small, or there was none.
    #[cold]
    unsafe fn search(
        this: *mut Self,
        mut next: Option<*mut SideStack>,
        least: usize,
    ) -> *mut SideStack {
        // SAFETY: as in `take`; nothing is borrowed while an error is made, which may run any code.
        unsafe {
            // Too small ones are of a size that was set before, or of a time when memory was short.
            while let Some(side) = next {
                if SideStack::len(side) >= least {
                    return side;
                }
                Self::free(this, side);
                next = {
                    let spare = &mut (*this).spare;
                    spare.pop()
                };
            }
            if (*this).patience == 0 {
                let side = SideStack::new();
                if !side.is_null() {
                    (*this).count += 1;
                    if SideStack::len(side) >= least {
                        return side;
                    }
                    Self::free(this, side);
                }
                ffi::PyErr_Clear();
                (*this).patience = PATIENCE;
            }
            (*this).patience -= 1;
            ptr::null_mut()
        }
    }

    /// Takes a side stack back, when the call on it is over. False if something is left on it: it is to
    /// be given up.
    ///
    /// # Safety
    ///
    /// The calling thread's; the caller's to give back, and not used afterwards.
    #[inline(always)]
    #[must_use]
    pub(crate) unsafe fn give_back(this: *mut Self, side: *mut SideStack) -> bool {
        // SAFETY: the contract.
        unsafe {
            if !(*side).state.is_clean() {
                return false;
            }
            let spare = &mut (*this).spare;
            if spare.len() < MOST_SPARE {
                spare.push(side);
            } else {
                Self::free(this, side);
            }
            true
        }
    }

    unsafe fn free(this: *mut Self, side: *mut SideStack) {
        // SAFETY: one of these that nobody has.
        unsafe {
            (*this).count -= 1;
            SideStack::free(side);
        }
    }

    /// Ends all that nobody has; their stacks go back to the pool. Returns how many.
    ///
    /// # Safety
    ///
    /// The calling thread's.
    pub(crate) unsafe fn trim(&mut self) -> usize {
        let ended = self.spare.len();
        self.count -= ended;
        for side in self.spare.drain(..) {
            // SAFETY: in the list, hence nobody's.
            unsafe { SideStack::free(side) };
        }
        ended
    }
}

impl SideStack {
    /// Null with `StackMemoryError` set if there is no stack.
    fn new() -> *mut Self {
        /// The record's address, for the closure.
        struct Address(*mut SideStack);
        let Some((stack, _)) = stacks::take() else { return ptr::null_mut() };
        let side: *mut Self = Box::into_raw(Box::<Self>::new_uninit()).cast();
        let address = Address(side);
        // SAFETY: the reserved bytes are ours as long as the fiber is, which we have until `free`, or
        // for ever.
        let state = unsafe { SideState::new(stack.range(), stacks::reserved(&stack).1) };
        let fiber = Fiber::new(stack, move |suspender, ()| {
            let Address(side) = { address };
            // SAFETY: the record is there as long as the fiber.
            unsafe {
                (*side).suspender = suspender;
                serve(side, suspender);
            }
        });
        // SAFETY: allocated above, nobody else's.
        unsafe {
            side.write(Self {
                fiber: ManuallyDrop::new(fiber),
                suspender: ptr::null(),
                state,
                function: nothing,
                argument: ptr::null_mut(),
                needs: ptr::null_mut(),
                is_done: false,
            });
        }
        side
    }

    unsafe fn len(side: *mut Self) -> usize {
        // SAFETY: alive.
        let state = unsafe { &(*side).state };
        state.stack_size()
    }

    /// Ends one that has nothing on it.
    unsafe fn free(side: *mut Self) {
        // SAFETY: the fiber waits in `serve`, or has not begun; dropping it makes `serve` return. The
        // state is freed after what was on the stack is gone. The record is the box that `new` made.
        unsafe {
            (*side).fiber.cancel();
            (*side).state.free();
            let Self { fiber, .. } = *Box::from_raw(side);
            drop(ManuallyDrop::into_inner(fiber));
        }
    }

    /// Says what is to be called, and where its needs are to be noted, if they are.
    ///
    /// # Safety
    ///
    /// The caller's, with nothing on it; `needs` must be null or outlive the call.
    #[inline(always)]
    pub(crate) unsafe fn set(
        side: *mut Self,
        function: Function,
        argument: *mut c_void,
        needs: *mut Needs,
    ) {
        // SAFETY: the contract.
        unsafe {
            (*side).needs = needs;
            (*side).function = function;
            (*side).argument = argument;
            (*side).is_done = false;
        }
    }

    /// Switches there, to begin the call or to go on with it. True when it is over, false if it was
    /// suspended.
    ///
    /// # Safety
    ///
    /// The caller's, in the middle of a call or [set](Self::set) to one; attached, and the thread state
    /// prepared (`State::move_to`).
    #[inline(always)]
    pub(crate) unsafe fn resume(side: *mut Self) -> bool {
        // SAFETY: the contract. Only `fiber` is borrowed; the other side uses the other fields meanwhile.
        unsafe {
            let fiber = &mut (*side).fiber;
            if let Step::Return(()) = fiber.resume(()) {
                unreachable!("a side stack returns only when its fiber is cancelled")
            }
            (*side).is_done
        }
    }

    /// What suspends the call that runs on it.
    ///
    /// # Safety
    ///
    /// A call must be running on it.
    #[inline(always)]
    pub(crate) unsafe fn suspender(side: *mut Self) -> *const Suspender<(), ()> {
        // SAFETY: the contract.
        unsafe { (*side).suspender }
    }
}

unsafe fn nothing(_: *mut c_void) {}

/// The body of a side stack's fiber.
unsafe fn serve(side: *mut SideStack, suspender: &Suspender<(), ()>) {
    // As in `worker::serve`: a forced unwinding must not get to the end of this stack, either.
    let call: unsafe fn(*mut SideStack) = black_box(call);
    loop {
        // SAFETY: `SideStack::resume` was called, attached, with a call set.
        unsafe {
            barrier((), || call(side));
            (*side).is_done = true;
        }
        if suspender.suspend(()).is_err() {
            return; // `SideStack::free`.
        }
    }
}

unsafe fn call(side: *mut SideStack) {
    // SAFETY: the contract of `SideStack::set`'s caller. The call is the only one on this stack, and the data
    // stack has nothing on it.
    unsafe {
        let (function, argument) = ((*side).function, (*side).argument);
        if (*side).needs.is_null() {
            return function(argument);
        }
        let data_stack = {
            let state = &(*side).state;
            state.data_stack_bottom()
        };
        let needs = needs::measure(data_stack, || function(argument));
        (*side).needs.write(needs);
    }
}
