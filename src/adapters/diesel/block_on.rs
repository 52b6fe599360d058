//! How `diesel-async`'s synchronous wrapper waits.

/// Waits for Diesel's queries: on a fiber by suspending it, elsewhere by blocking the thread.
///
/// The second parameter of `diesel_async::async_connection_wrapper::AsyncConnectionWrapper`;
/// [`SyncConnection`](super::SyncConnection) is short for that.
///
/// It is [`block_on`](crate::block_on), and waits wherever that does: see the table there. On a thread
/// with no runtime, r2d2's for instance, sockets and timers are those of the
/// [background runtime](crate::tokio::background). The tasks of connections that are established there
/// stay there, so that such a connection can be used from any thread, or on fibers, later.
///
/// ```no_run
/// # #[cfg(feature = "diesel-postgres")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use diesel::prelude::*;
/// use diesel_async::AsyncPgConnection;
/// use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
/// use fiberback::diesel::BlockOn;
///
/// // A plain thread: no fiber, no runtime.
/// let mut connection =
///     AsyncConnectionWrapper::<AsyncPgConnection, BlockOn>::establish("postgres://localhost")?;
/// diesel::sql_query("SELECT 1").execute(&mut connection)?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "diesel-postgres"))] fn main() {}
/// ```
///
/// # Cancellation
///
/// As [`await_`](crate::await_) on a fiber; none elsewhere.
///
/// # Panics
///
/// As [`block_on`](crate::block_on): inside a tokio runtime but off a fiber, where blocking would bring
/// the runtime to a halt, with a message that says what to type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockOn;

impl ::diesel_async::async_connection_wrapper::BlockOn for BlockOn {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        crate::block_on(future)
    }

    fn get_runtime() -> Self {
        Self
    }
}
