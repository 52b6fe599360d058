//! A synchronous face for an async object.

use super::background;
use super::blocking::{self, Place};
use super::within::within;
use crate::adapters::park::{may_park, park_until_ready};
use crate::bridge::{on_fiber, raise, try_await};
use crate::error::AwaitError;
use std::{fmt, io};
use tokio::runtime::Handle;

/// An async object (a client, a pool of connections) whose methods synchronous code can call anywhere.
///
/// For authors of a library with an async core, who want its synchronous face in one source, and without a
/// runtime of their own:
///
/// ```
/// use fiberback::Facade;
/// use std::time::Duration;
///
/// // The async library ...
/// #[derive(Default)]
/// struct AsyncClient;
///
/// impl AsyncClient {
///     async fn fetch(&self, id: u32) -> String {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         format!("row {id}")
///     }
/// }
///
/// // ... and its synchronous face.
/// pub struct Client(Facade<AsyncClient>);
///
/// impl Client {
///     pub fn new() -> std::io::Result<Self> {
///         Ok(Self(Facade::new(AsyncClient::default)?))
///     }
///
///     pub fn fetch(&self, id: u32) -> String {
///         self.0.call(async |client| client.fetch(id).await)
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let client = Client::new()?;
/// assert_eq!(client.fetch(1), "row 1"); // on a plain thread
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let on_a_fiber = fiberback::run(move || client.fetch(2)); // and in a task
/// assert_eq!(runtime.block_on(on_a_fiber), "row 2");
/// # Ok(())
/// # }
/// ```
///
/// `examples/http_facade.rs` is an HTTP client over hyper.
///
/// # Where it runs
///
/// A call waits as [`block_on`](crate::block_on) does: on a fiber it suspends, elsewhere it blocks the thread
/// where that is allowed. But the object has *one* home, whoever calls: the process's
/// [background runtime](crate::tokio::background), or [another](Self::in_runtime). It is made there, and its
/// methods' futures are polled on the caller's thread with that as the current runtime. So its sockets,
/// timers and tasks are seen to there, and a connection that one caller has opened serves the next, also when
/// the runtime of the first has ended, or does not run now.
///
/// # Fork
///
/// As with the background runtime, what was made in the parent does not work in a forked child.
pub struct Facade<T> {
    object: T,
    /// `None`: the background runtime.
    home: Option<Handle>,
}

impl<T> Facade<T> {
    /// Calls `make` in the background runtime, which is started if need be.
    ///
    /// # Errors
    ///
    /// If the system has no thread or no descriptors left for that runtime.
    pub fn new(make: impl FnOnce() -> T) -> io::Result<Self> {
        let home = background::handle()?;
        let _entered = home.enter();
        Ok(Self { object: make(), home: None })
    }

    /// Calls `make` in the runtime of `home`, which should have threads of its own, or be driven by another one
    /// for as long as this is used.
    pub fn in_runtime(home: Handle, make: impl FnOnce() -> T) -> Self {
        let object = {
            let _entered = home.enter();
            make()
        };
        Self { object, home: Some(home) }
    }

    /// Calls an async method of the object, and waits for it.
    ///
    /// # Cancellation
    ///
    /// On a fiber, as [`await_`](crate::await_).
    ///
    /// # Panics
    ///
    /// Inside a runtime, off a fiber, where nothing may block: with a message that says what to type. If the
    /// system has no resources for the background runtime. And as [`await_`](crate::await_).
    #[track_caller]
    pub fn call<'a, R>(&'a self, method: impl AsyncFnOnce(&'a T) -> R) -> R {
        self.try_call(method).unwrap_or_else(|error| raise(error))
    }

    /// [`call`](Self::call) that returns an error where that would panic or unwind.
    ///
    /// # Errors
    ///
    /// As [`try_block_on`](crate::try_block_on). If it is off a fiber, the method was not called.
    #[track_caller]
    pub fn try_call<'a, R>(
        &'a self,
        method: impl AsyncFnOnce(&'a T) -> R,
    ) -> Result<R, AwaitError> {
        // Called by the first poll, so that it finds its home, too.
        let future = async { method(&self.object).await };
        if on_fiber() {
            return try_await(within(Some(self.home()?), future));
        }
        may_park()?;
        match blocking::place() {
            Place::Driving => Err(AwaitError::IN_RUNTIME),
            Place::Within | Place::Outside => {
                Ok(park_until_ready(within(Some(self.home()?), future)))
            }
            // No runtime can be entered any more.
            Place::Ending => Ok(park_until_ready(future)),
        }
    }

    fn home(&self) -> Result<Handle, AwaitError> {
        match &self.home {
            Some(home) => Ok(home.clone()),
            None => background::handle().map_err(|error| AwaitError::no_runtime(error.kind())),
        }
    }

    /// The object, for async code; in a task of another runtime its sockets and timers then are those of that
    /// runtime.
    pub fn get_ref(&self) -> &T {
        &self.object
    }

    /// Returns the object.
    pub fn into_inner(self) -> T {
        self.object
    }
}

impl<T: fmt::Debug> fmt::Debug for Facade<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Facade").field(&self.object).finish()
    }
}
