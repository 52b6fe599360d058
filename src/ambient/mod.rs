//! What follows the fibers of [`run`](crate::run) around, besides their stack: nothing, or, with
//! the feature `tracing`, the spans they have entered.

#[cfg(feature = "tracing")]
mod spans;

#[cfg(feature = "tracing")]
pub(crate) use spans::EnteredSpans as RunAmbient;

/// What is swapped when a [`Run`](crate::Run) is polled.
#[cfg(not(feature = "tracing"))]
pub(crate) type RunAmbient = ();
