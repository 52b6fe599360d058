//! What debuggers outside the process see of a task's coroutine (3.14 and later).
//!
//! `python -m asyncio ps PID` and the sampling profiler read a process's memory. They take what a task runs for a
//! `PyGenObject`, whatever its type is: they look for a state of the frame, and for an interpreter frame, where one
//! has them (`parse_coro_chain` in Modules/_remote_debugging), and give up on the whole process if that is no
//! frame. So our own coroutine types have at those places what is read there: the first frame of the coroutine
//! that they stand for, or that there is none.
//!
//! From there the tools go on to what that frame awaits only if it is of the very type that the task's coroutine is of. A
//! coroutine's frames below the first, and those of synchronous code, cannot be had in this way.
//!
//! # Invariant
//!
//! The code that is shown is kept alive by the coroutine's frame, and is shown no longer than there is that.

use super::facts::{self, field};
use pyo3::ffi::{self, PyObject};
use std::ptr;

/// Where the types must have it.
pub(crate) const STATE: usize = facts::GEN_FRAME_STATE as usize;
pub(crate) const CODE: usize = (facts::GEN_FRAME + facts::FRAME_CODE) as usize;
pub(crate) const INSTRUCTION: usize = (facts::GEN_FRAME + facts::FRAME_INSTR) as usize;
pub(crate) const OWNER: usize = (facts::GEN_FRAME + facts::FRAME_OWNER) as usize;
/// Words of two bytes between the last two: free-threaded builds have more there.
pub(crate) const BETWEEN: usize = (OWNER - INSTRUCTION - size_of::<usize>()) / 2;

/// There is a frame, which waits for nothing that the tools could go on to.
const SUSPENDED: i8 = facts::GEN_SUSPENDED as i8;
/// There is none.
pub(crate) const NOTHING: i8 = facts::GEN_CLEARED as i8;
/// Whose the frame is.
pub(crate) const OWNED: i8 = facts::FRAME_OWNED_BY_GENERATOR as i8;

/// The state that is shown for a coroutine, and its code.
///
/// # Safety
///
/// A valid object, which is not running.
pub(crate) unsafe fn of(coroutine: *mut PyObject) -> (i8, usize, usize) {
    // SAFETY: the contract. An exact coroutine has a frame as long as it is not cleared.
    unsafe {
        let is_exact = ptr::eq(ffi::Py_TYPE(coroutine), &raw const ffi::PyCoro_Type);
        if !is_exact || *field::<_, i8>(coroutine, facts::GEN_FRAME_STATE) == NOTHING {
            return (NOTHING, 0, 0);
        }
        let code = *field::<_, usize>(coroutine, facts::GEN_FRAME + facts::FRAME_CODE);
        (SUSPENDED, code, instruction(coroutine))
    }
}

/// Where the coroutine is in its code.
///
/// # Safety
///
/// An exact coroutine.
#[inline(always)]
pub(crate) unsafe fn instruction(coroutine: *mut PyObject) -> usize {
    // SAFETY: the contract.
    unsafe { *field::<_, usize>(coroutine, facts::GEN_FRAME + facts::FRAME_INSTR) }
}
