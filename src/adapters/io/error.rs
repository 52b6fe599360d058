//! `AwaitError` inside `io::Error`, and how to find it there.

use crate::error::AwaitError;
use std::error::Error;
use std::{fmt, io};

/// What an [`io::Error`] of ours holds. Not the bare [`AwaitError`]: `io::Error::source` is the
/// source *of what it holds*, and some crates (`serde_json`) pass on only that.
struct CannotWait(AwaitError);

impl fmt::Debug for CannotWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for CannotWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for CannotWait {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// The error of an I/O operation that could not wait.
///
/// The kind is not `Interrupted`, which readers retry, nor `WouldBlock`, which some poll again.
#[cold]
pub(super) fn cannot_wait(error: AwaitError) -> io::Error {
    io::Error::other(CannotWait(error))
}

/// Finds the [`AwaitError`] that `error` comes from, if it comes from one: looks through the chain
/// of [sources](Error::source) and into every [`io::Error`].
///
/// ```
/// use fiberback::io::{SyncIo, await_error};
/// use std::io::Read;
///
/// // Off a fiber:
/// let error = SyncIo::new(tokio::io::empty()).read(&mut [0]).unwrap_err();
/// assert!(await_error(&error).unwrap().is_off_fiber());
///
/// // However deep it is wrapped:
/// let wrapped: Box<dyn std::error::Error> = Box::new(std::io::Error::other(error));
/// assert!(await_error(&*wrapped).is_some());
/// assert!(await_error(&std::io::Error::other("disk on fire")).is_none());
/// ```
pub fn await_error(error: &(dyn Error + 'static)) -> Option<AwaitError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<AwaitError>() {
            return Some(*found);
        }
        // `io::Error::source` skips what the error holds and goes on with the source of that.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}
