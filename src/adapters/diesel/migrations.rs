//! Migrations on an asynchronous connection, on any runtime.

use super::SyncConnection;
use ::diesel::backend::Backend;
use ::diesel::migration::{MigrationSource, MigrationVersion};
use ::diesel_async::AsyncConnection;
use diesel_migrations::MigrationHarness;
use std::error::Error;

/// Runs the migrations of `source` that have not been run yet, and gives the connection back with
/// their versions.
///
/// They run on a fiber, so this works on a current-thread runtime and inside `select!`, too. (In code
/// that is on a fiber already, or on a thread, a [`SyncConnection`] is a harness itself:
/// `connection.run_pending_migrations(source)`.)
///
/// ```no_run
/// # #[cfg(feature = "diesel-postgres")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use diesel_async::{AsyncConnection, AsyncPgConnection};
/// use diesel_migrations::FileBasedMigrations;
///
/// let connection = AsyncPgConnection::establish("postgres://localhost").await?;
/// let migrations = FileBasedMigrations::find_migrations_directory()?;
/// let (connection, versions) =
///     fiberback::diesel::run_pending_migrations(connection, migrations).await?;
/// println!("{} migrations run", versions.len());
/// # drop(connection);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "diesel-postgres"))] fn main() {}
/// ```
///
/// # Errors
///
/// The harness's: a migration failed, or is not to be found. The connection is then dropped.
///
/// # Cancellation
///
/// Dropping the future closes the connection; the server rolls back the migration that was running,
/// if it runs in a transaction.
///
/// # Panics
///
/// As [`run`](crate::run).
pub async fn run_pending_migrations<C, S>(
    connection: C,
    source: S,
) -> Result<(C, Vec<MigrationVersion<'static>>), Box<dyn Error + Send + Sync>>
where
    C: AsyncConnection + 'static,
    C::Backend: Backend,
    S: MigrationSource<C::Backend> + 'static,
    SyncConnection<C>: MigrationHarness<C::Backend>,
{
    crate::run(move || {
        let mut connection = SyncConnection::from(connection);
        let versions = connection.run_pending_migrations(source)?;
        let versions = versions.iter().map(MigrationVersion::as_owned).collect();
        Ok((connection.into_inner(), versions))
    })
    .await
}
