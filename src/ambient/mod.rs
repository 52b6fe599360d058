//! What follows the fibers of [`run`](crate::run) around, besides their stack: nothing, or, with
//! the feature `tracing`, the spans they have entered.

#[cfg(feature = "tracing")]
mod dispatching;
#[cfg(feature = "tracing")]
mod spans;

#[cfg(feature = "tracing")]
pub(crate) use dispatching::must_not_suspend;
#[cfg(feature = "tracing")]
pub(crate) use spans::EnteredSpans as RunAmbient;

/// What is swapped when a [`Run`](crate::Run) is polled.
#[cfg(not(feature = "tracing"))]
pub(crate) type RunAmbient = ();

/// Whether something is in the way of suspending the fiber that the caller is on, that a switch cannot swap.
#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn must_not_suspend() -> bool {
    false
}
