//! A connection that is of no use any more once it was cut off.

use super::fuse::{Fuse, Interrupt};
use super::watched::{Watched, WatchedLoad, WatchedRows};
use ::diesel::connection::{CacheSize, Instrumentation, TransactionManagerStatus};
use ::diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use ::diesel::{ConnectionResult, QueryResult};
use ::diesel_async::pooled_connection::PoolableConnection;
use ::diesel_async::{
    AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection, TransactionManager,
};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

/// An asynchronous connection that notices when an operation on it is cut off, and then counts as
/// broken: pools discard it instead of handing it out again.
///
/// Wrap the connection type of any pool of `diesel-async` in it. It works below
/// [`SyncConnection`](super::SyncConnection), and as an asynchronous connection by itself.
///
/// An operation is *cut off* when it is dropped while it waits for the server: because the
/// [`Run`](crate::Run) above it was dropped, or, used asynchronously, its future was. So are rows that
/// are not all read when a cancellation or a panic unwinds past them (an iterator that is dropped
/// in the ordinary course of things is not cut off). From then on
///
/// * every operation fails, with an error that says so (`DatabaseErrorKind::ClosedConnection`), and
///   nothing is sent: its answer could be taken for that of another;
/// * pools find it [broken](Self::is_cut_off), as they do if a transaction is open, so they close it:
///   deadpool when it would be handed out next (a [`Lease`](super::checkout) sees to it at once), bb8
///   and r2d2 when it is returned. The server then rolls back;
/// * the server is asked to stop, once, so that it does not work on for nobody (PostgreSQL and MySQL,
///   with the features for them). That takes another connection for a moment. It is an attempt: it
///   needs a running tokio runtime, and, for PostgreSQL, a server that accepts this one request
///   without TLS, as servers do unless told otherwise.
///
/// Whether the server has done, or yet does, what it was asked to do when it was cut off cannot be
/// known, as ever: put what belongs together in a transaction.
///
/// ```no_run
/// # #[cfg(all(feature = "diesel-postgres", feature = "diesel-deadpool"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use diesel::prelude::*;
/// use diesel_async::AsyncPgConnection;
/// use diesel_async::pooled_connection::AsyncDieselConnectionManager;
/// use diesel_async::pooled_connection::deadpool::Pool;
/// use fiberback::diesel::{Guarded, checkout};
/// use std::time::Duration;
///
/// let manager = AsyncDieselConnectionManager::<Guarded<AsyncPgConnection>>::new("postgres://localhost");
/// let pool = Pool::builder(manager).max_size(1).build()?;
///
/// let other = pool.clone();
/// let slow = fiberback::run(move || {
///     let mut connection = checkout(&other).unwrap();
///     diesel::sql_query("SELECT pg_sleep(3600)").execute(&mut connection)
/// });
/// // Dropping the `Run` cuts the query off. Its connection is closed, and the hour's sleep ended.
/// assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
///
/// let rows = fiberback::run(move || {
///     let mut connection = checkout(&pool).unwrap();
///     diesel::sql_query("SELECT 1").execute(&mut connection)
/// });
/// assert_eq!(rows.await?, 1);
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "diesel-postgres", feature = "diesel-deadpool")))] fn main() {}
/// ```
pub struct Guarded<C> {
    connection: C,
    fuse: Fuse,
}

impl<C: 'static> Guarded<C> {
    /// Guards a connection, for one that is not made by `establish`: with TLS, for instance, in the
    /// `custom_setup` of a pool's `ManagerConfig`. Nothing may be under way on it.
    pub fn new(connection: C) -> Self {
        let fuse = Fuse::new(interrupt_of(&connection));
        Self { connection, fuse }
    }
}

impl<C> Guarded<C> {
    /// True once an operation was cut off. Pools ask this, and whether a transaction is open.
    pub fn is_cut_off(&self) -> bool {
        self.fuse.is_blown()
    }

    /// The connection, no longer guarded.
    ///
    /// # Errors
    ///
    /// Itself, if it was cut off.
    pub fn into_inner(self) -> Result<C, Self> {
        if self.is_cut_off() { Err(self) } else { Ok(self.connection) }
    }

    /// What this guards, for what only that type can do; read only, so that nothing can be begun
    /// that is not seen here.
    pub fn get_ref(&self) -> &C {
        &self.connection
    }
}

impl<C> fmt::Debug for Guarded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("cut_off", &self.is_cut_off()).finish_non_exhaustive()
    }
}

/// How to make the server stop, for the connections that have a way.
fn interrupt_of(connection: &dyn Any) -> Option<Interrupt> {
    #[cfg(feature = "diesel-postgres")]
    if let Some(connection) = connection.downcast_ref::<::diesel_async::AsyncPgConnection>() {
        let token = connection.cancel_token();
        return Some(Box::new(move || {
            let token = token.clone();
            // A failure changes nothing: the connection is closed in any case.
            crate::adapters::tokio::background::spawn(async move {
                let _ = token.cancel_query(tokio_postgres::NoTls).await;
            });
        }));
    }
    #[cfg(feature = "diesel-mysql")]
    if let Some(connection) = connection.downcast_ref::<::diesel_async::AsyncMysqlConnection>() {
        let token = connection.cancel_token();
        return Some(Box::new(move || {
            let token = token.clone();
            crate::adapters::tokio::background::spawn(async move {
                let _ = token.cancel_query().await;
            });
        }));
    }
    let _ = connection;
    None
}

impl<C> SimpleAsyncConnection for Guarded<C>
where
    C: SimpleAsyncConnection + Send,
{
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        Watched::new(&self.fuse, self.connection.batch_execute(query)).await
    }
}

impl<C: AsyncConnectionCore> AsyncConnectionCore for Guarded<C> {
    type ExecuteFuture<'conn, 'query> = Watched<'conn, C::ExecuteFuture<'conn, 'query>>;
    type LoadFuture<'conn, 'query> = WatchedLoad<'conn, C::LoadFuture<'conn, 'query>>;
    type Stream<'conn, 'query> = WatchedRows<'conn, C::Stream<'conn, 'query>>;
    type Row<'conn, 'query> = C::Row<'conn, 'query>;
    type Backend = C::Backend;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Self::Backend> + QueryId + 'query,
    {
        WatchedLoad::new(&self.fuse, self.connection.load(source))
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Self::Backend> + QueryId + 'query,
    {
        Watched::new(&self.fuse, self.connection.execute_returning_count(source))
    }
}

impl<C: AsyncConnection + 'static> AsyncConnection for Guarded<C> {
    type TransactionManager = GuardedTransactions<C::TransactionManager>;

    async fn establish(database_url: &str) -> ConnectionResult<Self> {
        C::establish(database_url).await.map(Self::new)
    }

    fn transaction_state(
        &mut self,
    ) -> &mut <Self::TransactionManager as TransactionManager<Self>>::TransactionStateData {
        self.connection.transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.connection.instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.connection.set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.connection.set_prepared_statement_cache_size(size);
    }
}

/// The transactions of a guarded connection: those of the connection, watched.
#[derive(Debug)]
pub struct GuardedTransactions<T>(PhantomData<fn() -> T>);

impl<C, T> TransactionManager<Guarded<C>> for GuardedTransactions<T>
where
    C: AsyncConnection<TransactionManager = T> + 'static,
    T: TransactionManager<C>,
{
    type TransactionStateData = T::TransactionStateData;

    async fn begin_transaction(conn: &mut Guarded<C>) -> QueryResult<()> {
        Watched::new(&conn.fuse, T::begin_transaction(&mut conn.connection)).await
    }

    async fn rollback_transaction(conn: &mut Guarded<C>) -> QueryResult<()> {
        Watched::new(&conn.fuse, T::rollback_transaction(&mut conn.connection)).await
    }

    async fn commit_transaction(conn: &mut Guarded<C>) -> QueryResult<()> {
        Watched::new(&conn.fuse, T::commit_transaction(&mut conn.connection)).await
    }

    fn transaction_manager_status_mut(conn: &mut Guarded<C>) -> &mut TransactionManagerStatus {
        T::transaction_manager_status_mut(&mut conn.connection)
    }

    fn is_broken_transaction_manager(conn: &mut Guarded<C>) -> bool {
        conn.is_cut_off() || T::is_broken_transaction_manager(&mut conn.connection)
    }
}

impl<C: PoolableConnection + 'static> PoolableConnection for Guarded<C> {
    fn is_broken(&mut self) -> bool {
        self.is_cut_off() || self.connection.is_broken()
    }
}
