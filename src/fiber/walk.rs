//! The stack of a suspended fiber, on whichever thread that is.
//!
//! # Invariant
//!
//! A fiber's stack is read only while it cannot change: by code on that very stack, which the walker has
//! resumed, and whose owner waits if it wants the fiber meanwhile ([`Seen`]). That code is ours
//! ([`Report::write`]) and suspends the fiber again where it was; the fiber's own code does not run.

#![allow(unsafe_code)]

use super::current;
use super::report::Report;
use super::roster::Seen;
use super::switch;

/// Asks the fiber where its calls will return to. `None` if it is not suspended.
pub(crate) fn walk(seen: &Seen) -> Option<Report> {
    let mut report = Report::new();
    let walk = seen.begin_walk(&mut report)?;
    // Should the unwinder call anything that waits, then it is told that this is no place for that.
    let off_fiber = current::enter_off_fiber();
    // SAFETY: claimed, which only a suspended fiber can be, and its record outlives the claim: whoever frees that
    // claims it before. `report` outlives the call.
    unsafe { switch::resume_to_report(walk.record()) };
    drop(off_fiber);
    drop(walk);
    Some(report)
}
