//! Stackful fibers: a call stack that can stop in the middle and go on later.
//!
//! This layer owns stacks and the switch between them. It knows nothing of futures, wakers, tokio
//! or Python; those are layers on top that use only what is public here:
//!
//! * [`StackPool`] hands out guarded [`Stack`]s and takes them back;
//! * [`Fiber`] runs a closure on such a stack: [`resume`](Fiber::resume) switches in, the closure's
//!   [`Suspender`] switches out with a value;
//! * [`Ambient`] is swapped around a resume, for state that belongs to a call stack but lives in
//!   the thread (an interpreter's current frame, entered tracing spans).
//!
//! Most users want [`crate::run`] and [`crate::await_`] instead.
//!
//! ```
//! use fiberback::fiber::{Fiber, StackPool, Step};
//!
//! let stack = StackPool::global().take()?;
//! let mut adder = Fiber::new(stack, |suspender, first: i32| {
//!     let second = suspender.suspend(first * 10).expect("not cancelled here");
//!     first + second
//! });
//! assert_eq!(adder.resume(4), Step::Yield(40));
//! assert_eq!(adder.resume(5), Step::Return(9));
//! # Ok::<(), fiberback::StackError>(())
//! ```
//!
//! One file for each noun:
//!
//! | file | owns |
//! |---|---|
//! | `memory/` | address space for stacks, one file per platform |
//! | `depot.rs` | a pool's state: the idle stacks that no thread keeps |
//! | `warm.rs` | the idle stacks that each thread keeps |
//! | `samples.rs` | which of many idle stacks is looked at |
//! | `stack.rs` | one stack, from the pool and back to it |
//! | `pool.rs` | settings, handles and counts of a pool |
//! | `header.rs` | the record at the top of each stack in use |
//! | `current.rs` | which fiber this thread is on |
//! | `limits.rs` | how much of its stack the running code has left |
//! | `stack_pointer.rs` | where the stack is now |
//! | `switch.rs` | resume, suspend, cancel |
//! | `site.rs` | where in the caller's code a fiber was made, or waits |
//! | `roster.rs` | what fibers there are, and what they do (feature `dump`, like the next ones) |
//! | `coarse_clock.rs` | since when |
//! | `report.rs` | a fiber's account of its own stack |
//! | `walk.rs` | the stack of a suspended fiber |
//! | `ambient.rs` | the trait for state swapped around a resume |
//! | `overflow.rs` | the fault handler that names an overflown stack |
//! | `overflow_windows.rs` | the exception handler that does so on Windows |
//! | `overflow_report.rs` | what both say |
//! | `cannot_unwind.rs` | the handler that names a fiber whose stack could not be unwound |

mod ambient;
#[cfg(target_os = "linux")]
mod cannot_unwind;
#[cfg(feature = "dump")]
mod coarse_clock;
pub(crate) mod current;
mod depot;
mod header;
mod limits;
mod memory;
#[cfg(target_os = "linux")]
mod overflow;
#[cfg(any(target_os = "linux", windows))]
mod overflow_report;
#[cfg(windows)]
mod overflow_windows;
mod pool;
#[cfg(feature = "dump")]
mod report;
#[cfg(feature = "dump")]
pub(crate) mod roster;
mod samples;
mod site;
mod stack;
mod stack_pointer;
mod switch;
#[cfg(feature = "dump")]
mod walk;
mod warm;

pub use ambient::Ambient;
pub use limits::{current_stack, stack_remaining};
pub use memory::GuardPages;
pub(crate) use pool::take_stack_alike;
pub use pool::{PoolStats, StackPool, StackPoolBuilder};
#[cfg(feature = "dump")]
pub(crate) use report::Report;
pub(crate) use site::Site;
pub use stack::Stack;
pub(crate) use switch::suspend_current;
pub use switch::{Fiber, Step, SuspendError, Suspender};
#[cfg(feature = "dump")]
pub(crate) use walk::walk;
pub(crate) use warm::thread_is_ending;
