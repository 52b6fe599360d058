//! The synchronous [Diesel](https://diesel.rs) API on a fiber, over the asynchronous connections of
//! `diesel-async`.
//!
//! Queries, associations, transactions, migrations and row iterators stay ordinary Diesel code, as
//! deep in the call stack as they are; while the server works, the thread runs other tasks.
//!
//! ```no_run
//! # #[cfg(feature = "diesel-postgres")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use diesel::prelude::*; // and not `diesel_async::{AsyncConnection, RunQueryDsl}` beside it
//! use diesel_async::AsyncPgConnection;
//! use fiberback::diesel::{Guarded, SyncConnection};
//!
//! diesel::table! {
//!     cities { id -> Integer, name -> Text, }
//! }
//!
//! fn names(connection: &mut SyncConnection<Guarded<AsyncPgConnection>>) -> QueryResult<Vec<String>> {
//!     connection.transaction(|connection| {
//!         cities::table.order(cities::name).select(cities::name).load(connection)
//!     })
//! }
//!
//! let names = fiberback::run(|| {
//!     let mut connection = SyncConnection::establish("postgres://localhost/geo")?;
//!     names(&mut connection).map_err(Into::<Box<dyn std::error::Error>>::into)
//! })
//! .await?;
//! # drop(names);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "diesel-postgres"))] fn main() {}
//! ```
//!
//! # What do you want to do?
//!
//! | you want to | use |
//! |---|---|
//! | one connection | [`SyncConnection`]`::establish`, or `::from` an asynchronous one |
//! | a pool, on fibers | `checkout` from a deadpool (feature `diesel-deadpool`), or bb8's `get_owned` |
//! | a pool, on threads | r2d2 over [`SyncConnection`] (feature `diesel-r2d2`) |
//! | that a pool never hands out what a cancellation has cut off | [`Guarded`], in any of them |
//! | migrations at start-up | `run_pending_migrations` (feature `diesel-migrations`) |
//! | all this in an axum handler | [`PinnedPool`](crate::tokio::PinnedPool), see `examples/axum_diesel.rs` |
//!
//! # Features
//!
//! `diesel` is the adapter for any connection of `diesel-async`; the others switch on what their
//! names say, there and here: `diesel-postgres` and `diesel-mysql`, `diesel-deadpool`, `diesel-bb8`
//! and `diesel-r2d2`, `diesel-migrations`. No libpq or other C library is needed.
//!
//! # Cancellation
//!
//! When a fiber is cancelled its stack unwinds, and nothing can be sent to the server any more: no
//! `ROLLBACK`, and the answer to the last query is still to come. Such a connection must not be used
//! again. Diesel itself knows of open transactions, so pools discard a connection with one. It does
//! not know of queries outside of them, nor of half a `batch_execute`: [`Guarded`] does.
//!
//! | cut off while | plain connection, in a pool | [`Guarded`] |
//! |---|---|---|
//! | inside `transaction(..)` | discarded at the next `get` | the same, and the query is interrupted |
//! | a query runs outside of one | **handed out again**, its answer outstanding | discarded, and the query is interrupted |
//! | connecting, or waiting for the pool | nothing to hand out | the same |
//! | in between, the connection idle | handed out again | handed out again, unless the cancellation unwinds through a `Lease`, or it goes back to a bb8 |
//!
//! # Which thread does the I/O
//!
//! A connection of `diesel-async` has a task of its own, on the tokio runtime in which it was
//! established; it must keep running for as long as the connection is used. Several
//! [`PinnedPool`](crate::tokio::PinnedPool) workers may share a pool of connections, whoever
//! established them; one connection pool for each worker saves the hop between threads. Off a fiber
//! [`BlockOn`] provides a runtime, see there.

mod block_on;
mod fuse;
mod guarded;
#[cfg(feature = "diesel-deadpool")]
mod lease;
#[cfg(feature = "diesel-migrations")]
mod migrations;
mod watched;

pub use block_on::BlockOn;
pub use guarded::Guarded;
#[cfg(feature = "diesel-deadpool")]
pub use lease::{Lease, PooledConnection, checkout};
#[cfg(feature = "diesel-migrations")]
pub use migrations::run_pending_migrations;

/// A synchronous Diesel connection over the asynchronous `C`, which waits by [`BlockOn`].
///
/// `C` is an `AsyncPgConnection`, an `AsyncMysqlConnection`, either of them [`Guarded`], or what a
/// pool of those hands out. See the [module](self) for an example.
///
/// # Cancellation
///
/// Every operation waits as [`await_`](crate::await_) does: if the fiber is cancelled meanwhile, the
/// operation does not return, and the stack is unwound from there.
///
/// # Panics
///
/// Where [`BlockOn`] does.
pub type SyncConnection<C> =
    ::diesel_async::async_connection_wrapper::AsyncConnectionWrapper<C, BlockOn>;
