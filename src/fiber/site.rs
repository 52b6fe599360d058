//! A place in the caller's code, for the fiber that is made, or waits, there.

#[cfg(feature = "dump")]
use std::panic::Location;

/// Where something is done. Nothing at all without the feature `dump`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site(#[cfg(feature = "dump")] &'static Location<'static>);

impl Site {
    /// Where the function that calls this was called, if that says `#[track_caller]`.
    #[track_caller]
    #[inline(always)]
    pub(crate) const fn caller() -> Self {
        Self(
            #[cfg(feature = "dump")]
            Location::caller(),
        )
    }

    #[cfg(feature = "dump")]
    pub(super) fn location(self) -> &'static Location<'static> {
        self.0
    }
}
