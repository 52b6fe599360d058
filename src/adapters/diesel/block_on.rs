//! How `diesel-async`'s synchronous wrapper waits.

use super::background;
use crate::adapters::block_on::park_until_ready;
use crate::bridge::{await_, on_fiber};
use crate::error::AwaitError;
use ::tokio::runtime::Handle;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::{future, task};

/// Waits for Diesel's queries: on a fiber by suspending it, elsewhere by blocking the thread.
///
/// The second parameter of `diesel_async::async_connection_wrapper::AsyncConnectionWrapper`;
/// [`SyncConnection`](super::SyncConnection) is short for that.
///
/// | called | what happens |
/// |---|---|
/// | below [`run`](crate::run), in a tokio runtime | the fiber suspends |
/// | below [`run`](crate::run), on another executor | the same; sockets and timers are those of the background runtime |
/// | on a thread with no runtime, r2d2's for instance | the thread blocks; sockets and timers are those of the background runtime |
/// | on a `spawn_blocking` thread, in `block_in_place` | the same |
/// | in a runtime, but off a fiber | panics |
///
/// The *background runtime* is one thread of the process, named `fiberback-diesel`, which is started
/// when first needed. The tasks of connections that are established there stay there, so that such a
/// connection can be used from any thread, or on fibers, later.
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
/// Inside a tokio runtime but off a fiber, where blocking would bring the runtime to a halt: first
/// tokio's own message is printed, then one that says what to type. Also as
/// [`await_`](crate::await_) in a destructor during a panic, and if the system refuses the background
/// thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockOn;

impl ::diesel_async::async_connection_wrapper::BlockOn for BlockOn {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        let in_runtime = Handle::try_current().is_ok();
        match (on_fiber(), in_runtime) {
            (true, true) => await_(future),
            (true, false) => await_(in_background(future)),
            (false, in_runtime) => {
                let background = background::runtime();
                if thread_ends() {
                    return park_until_ready(future);
                }
                // What tells a blocking thread of a runtime from its workers is not public: trying
                // is the only way to ask.
                if in_runtime
                    && catch_unwind(AssertUnwindSafe(|| background.block_on(async {}))).is_err()
                {
                    panic!("{}", AwaitError::IN_RUNTIME);
                }
                background.block_on(future)
            }
        }
    }

    fn get_runtime() -> Self {
        Self
    }
}

/// True in a destructor of a thread-local value, once no runtime can be entered here any more. A
/// connection's tasks are elsewhere, so its futures only need to be polled.
fn thread_ends() -> bool {
    Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}

/// Polls `future` with the background runtime entered.
async fn in_background<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let background = background::runtime();
    future::poll_fn(move |context: &mut task::Context<'_>| {
        // Not across a suspension: other tasks of the thread must not see it.
        let _entered = background.enter();
        future.as_mut().poll(context)
    })
    .await
}
