//! Connections of a deadpool, on loan.

use super::SyncConnection;
use crate::diesel::BlockOn;
use ::deadpool::managed::{Manager, Object};
use ::diesel_async::async_connection_wrapper::BlockOn as _;
use ::diesel_async::pooled_connection::deadpool::{Pool, PoolError};
use ::diesel_async::pooled_connection::{self, AsyncDieselConnectionManager, PoolableConnection};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::thread;

/// A synchronous Diesel connection that goes back to its deadpool when dropped. Made by [`checkout`].
pub type PooledConnection<C> = SyncConnection<Lease<AsyncDieselConnectionManager<C>>>;

/// Takes a connection from the pool, for synchronous Diesel code.
///
/// On a fiber, waiting for a connection suspends it. Elsewhere this waits as
/// [`BlockOn`] does. A pool with timeouts needs a runtime that deadpool
/// knows how to use, see there.
///
/// [`Guarded`](super::Guarded) has an example.
///
/// # Errors
///
/// The pool's own: closed, timed out, or no connection could be established.
///
/// # Cancellation
///
/// As [`await_`](crate::await_); the place in the queue is given up.
///
/// # Panics
///
/// Where [`BlockOn`] does.
pub fn checkout<C>(pool: &Pool<C>) -> Result<PooledConnection<C>, PoolError>
where
    AsyncDieselConnectionManager<C>: Manager<Type = C, Error = pooled_connection::PoolError>,
    C: PoolableConnection + Send,
{
    let object = BlockOn.block_on(pool.get())?;
    Ok(SyncConnection::from(Lease::new(object)))
}

/// A connection of a deadpool that goes back to it only if it is fit to be handed out again.
///
/// Deadpool itself looks at a connection when it hands it out next. Until then one that was cut off
/// would stay open, and so would its transaction, with all its locks. This looks when it is dropped:
/// if the connection is broken, which an open transaction makes it, or a cancellation or a panic is
/// unwinding, then it is closed there and then, and the pool has room for a new one.
///
/// Dereferences to the connection, and so is an asynchronous connection itself.
pub struct Lease<M>
where
    M: Manager,
    M::Type: PoolableConnection,
{
    /// `None` only while dropped.
    object: Option<Object<M>>,
}

impl<M> Lease<M>
where
    M: Manager,
    M::Type: PoolableConnection,
{
    /// Watches over what the pool's own `get` has returned.
    pub fn new(object: Object<M>) -> Self {
        Self { object: Some(object) }
    }
}

impl<M> Drop for Lease<M>
where
    M: Manager,
    M::Type: PoolableConnection,
{
    fn drop(&mut self) {
        if let Some(mut object) = self.object.take() {
            if thread::panicking() || object.is_broken() {
                drop(Object::take(object));
            }
        }
    }
}

impl<M> Deref for Lease<M>
where
    M: Manager,
    M::Type: PoolableConnection,
{
    type Target = M::Type;

    fn deref(&self) -> &M::Type {
        self.object.as_ref().expect("only taken when dropped")
    }
}

impl<M> DerefMut for Lease<M>
where
    M: Manager,
    M::Type: PoolableConnection,
{
    fn deref_mut(&mut self) -> &mut M::Type {
        self.object.as_mut().expect("only taken when dropped")
    }
}

impl<M> fmt::Debug for Lease<M>
where
    M: Manager,
    M::Type: PoolableConnection,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
