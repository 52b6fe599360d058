//! `diesel-mysql`: the synchronous Diesel API on fibers over `AsyncMysqlConnection`, on a private
//! MariaDB server that these tests start themselves. What does not depend on the database is tested
//! in `tests/diesel.rs`, on PostgreSQL.
#![allow(missing_docs)] // of what `diesel::table!` makes

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/needs.rs"]
mod needs;

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::mysql::Mysql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::AsyncMysqlConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use fiberback::diesel::{Guarded, SyncConnection, checkout};
use mariadb::MariaDb;
use needs::{Suite, tests};
use std::future::poll_fn;
use std::process::ExitCode;
use std::task::Poll;
use std::thread;
use std::time::Duration;

type Conn = SyncConnection<Guarded<AsyncMysqlConnection>>;
type Pool = diesel_async::pooled_connection::deadpool::Pool<Guarded<AsyncMysqlConnection>>;

diesel::table! {
    accounts (id) {
        id -> Integer,
        owner -> Text,
        balance -> BigInt,
    }
}

const SCHEMA: &str = "CREATE TABLE accounts (id integer PRIMARY KEY, owner text NOT NULL,
        balance bigint NOT NULL) ENGINE = InnoDB;
    INSERT INTO accounts SELECT seq, concat('owner ', seq, ' ü'), 100 FROM seq_1_to_10;";

/// A database of a test's own.
struct Scratch {
    url: String,
    name: String,
}

impl Scratch {
    /// Made on a plain thread: no fiber, no runtime.
    fn new() -> Self {
        let server = MariaDb::shared();
        let name = server.new_name();
        let (none, url) = (server.url(""), server.url(&name));
        let (database, there) = (name.clone(), url.clone());
        thread::spawn(move || {
            let mut connection = Conn::establish(&none).unwrap();
            connection.batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
            let mut connection = Conn::establish(&there).unwrap();
            connection.batch_execute(SCHEMA).unwrap();
        })
        .join()
        .unwrap();
        Self { url, name }
    }

    fn pool(&self, size: usize) -> Pool {
        let manager = AsyncDieselConnectionManager::new(self.url.clone());
        Pool::builder(manager).max_size(size).build().unwrap()
    }

    /// Waits until so many sessions of this database do what `pattern` says.
    async fn until(&self, sessions: i64, pattern: &str) {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let none = MariaDb::shared().url("");
        let mut watch = <AsyncMysqlConnection as diesel_async::AsyncConnection>::establish(&none)
            .await
            .unwrap();
        let mut last = 0;
        for _ in 0..600 {
            let query = diesel::sql_query(
                "SELECT count(*) AS count FROM information_schema.processlist
                 WHERE db = ? AND coalesce(info, '') LIKE ?",
            );
            let query = query.bind::<Text, _>(&self.name).bind::<Text, _>(pattern);
            let count: Count =
                diesel_async::RunQueryDsl::get_result(query, &mut watch).await.unwrap();
            last = count.count;
            if last == sessions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("sessions like {pattern}: {last}, and never {sessions}");
    }
}

fn total<C>(connection: &mut SyncConnection<C>) -> i64
where
    C: diesel_async::AsyncConnection<Backend = Mysql>,
{
    let balances = accounts::table.select(accounts::balance).load::<i64>(connection).unwrap();
    assert_eq!(balances.len(), 10);
    balances.iter().sum()
}

/// In a transaction, with another in it, and something to wait for in between.
fn transfer<C>(connection: &mut SyncConnection<C>, amount: i64) -> QueryResult<()>
where
    C: diesel_async::AsyncConnection<Backend = Mysql>,
{
    connection.transaction(|connection| {
        diesel::update(accounts::table.find(3))
            .set(accounts::balance.eq(accounts::balance - amount))
            .execute(connection)?;
        fiberback::await_(tokio::task::yield_now());
        connection.transaction(|connection| {
            diesel::update(accounts::table.find(4))
                .set(accounts::balance.eq(accounts::balance + amount))
                .execute(connection)
        })?;
        Ok(())
    })
}

async fn queries_rows_and_transactions() {
    let scratch = Scratch::new();
    let url = scratch.url.clone();
    let run = fiberback::run(move || {
        let mut connection = SyncConnection::<AsyncMysqlConnection>::establish(&url).unwrap();
        let owner: String =
            accounts::table.find(7).select(accounts::owner).first(&mut connection).unwrap();
        assert_eq!(owner, "owner 7 ü");
        diesel::insert_into(accounts::table)
            .values((accounts::id.eq(11), accounts::owner.eq("new"), accounts::balance.eq(5)))
            .execute(&mut connection)
            .unwrap();
        let deleted = diesel::delete(accounts::table.find(11)).execute(&mut connection);
        assert_eq!(deleted, Ok(1));

        let rows = diesel::dsl::sql::<BigInt>("SELECT seq FROM seq_1_to_3000");
        let rows = rows.load_iter::<i64, DefaultLoadingMode>(&mut connection).unwrap();
        assert_eq!(rows.map(Result::unwrap).sum::<i64>(), 3000 * 3001 / 2);

        transfer(&mut connection, 30).unwrap();
        let rolled_back: QueryResult<()> = connection.transaction(|connection| {
            diesel::update(accounts::table).set(accounts::balance.eq(0)).execute(connection)?;
            Err(diesel::result::Error::RollbackTransaction)
        });
        assert_eq!(rolled_back, Err(diesel::result::Error::RollbackTransaction));
        let three: i64 =
            accounts::table.find(3).select(accounts::balance).first(&mut connection).unwrap();
        assert_eq!((three, total(&mut connection)), (70, 1000));

        let nobody =
            accounts::table.find(99).select(accounts::owner).first::<String>(&mut connection);
        assert_eq!(nobody, Err(diesel::result::Error::NotFound));
        let twice = diesel::insert_into(accounts::table)
            .values((accounts::id.eq(1), accounts::owner.eq("x"), accounts::balance.eq(0)))
            .execute(&mut connection);
        assert!(matches!(
            twice,
            Err(diesel::result::Error::DatabaseError(
                diesel::result::DatabaseErrorKind::UniqueViolation,
                _
            ))
        ));
    });
    run.await;
}

async fn migrations() {
    let scratch = Scratch::new();
    let directory = std::env::temp_dir().join(format!("fiberback-my-{}", std::process::id()));
    let one = directory.join("2020-01-01-000000_one");
    std::fs::create_dir_all(&one).unwrap();
    std::fs::write(one.join("up.sql"), "CREATE TABLE one (id integer PRIMARY KEY)").unwrap();
    std::fs::write(one.join("down.sql"), "DROP TABLE one").unwrap();
    let source = diesel_migrations::FileBasedMigrations::from_path(&directory).unwrap();
    let connection =
        <AsyncMysqlConnection as diesel_async::AsyncConnection>::establish(&scratch.url)
            .await
            .unwrap();
    let (connection, versions) =
        fiberback::diesel::run_pending_migrations(connection, source.clone()).await.unwrap();
    assert_eq!(versions.len(), 1);
    let (_, again) = fiberback::diesel::run_pending_migrations(connection, source).await.unwrap();
    assert!(again.is_empty());
    std::fs::remove_dir_all(directory).unwrap();
}

async fn many_wait_on_one_thread_at_once() {
    const FIBERS: usize = 25;
    let scratch = Scratch::new();
    let pool = scratch.pool(FIBERS + 1);
    tokio::task::LocalSet::new()
        .run_until(async {
            let lock = format!("SELECT get_lock('{}', 60)", scratch.name);
            let (locked, is_locked) = tokio::sync::oneshot::channel();
            let (unlock, may_unlock) = tokio::sync::oneshot::channel::<()>();
            let (holders_pool, holders_lock) = (pool.clone(), lock.clone());
            let holder = fiberback::tokio::spawn_local(move || {
                let mut connection = checkout(&holders_pool).unwrap();
                diesel::sql_query(holders_lock).execute(&mut connection).unwrap();
                locked.send(()).unwrap();
                fiberback::await_(may_unlock).unwrap();
                diesel::sql_query("DO release_all_locks()").execute(&mut connection).unwrap();
            });
            is_locked.await.unwrap();
            let waiting: Vec<_> = (0..FIBERS)
                .map(|_| {
                    let (pool, lock) = (pool.clone(), lock.clone());
                    fiberback::tokio::spawn_local(move || {
                        let mut connection = checkout(&pool).unwrap();
                        diesel::sql_query(lock).execute(&mut connection).unwrap();
                        diesel::sql_query("DO release_all_locks()").execute(&mut connection)
                    })
                })
                .collect();
            scratch.until(FIBERS as i64, "SELECT get_lock(%").await;
            unlock.send(()).unwrap();
            for task in waiting {
                task.await.unwrap().unwrap();
            }
            holder.await.unwrap();
        })
        .await;
}

/// Dropped after each number of suspensions, until it comes to its end.
async fn cancelled_anywhere() {
    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    let mut cut = 0;
    let mut ends = 0;
    for k in 1..400 {
        let ours = pool.clone();
        let mut run = Box::pin(fiberback::run(move || {
            let mut connection = checkout(&ours).unwrap();
            transfer(&mut connection, 7)?;
            connection.batch_execute("BEGIN; UPDATE accounts SET balance = 0; ROLLBACK")?;
            diesel::sql_query("DO sleep(0.001)").execute(&mut connection)
        }));
        let mut suspensions = 0;
        let ended = poll_fn(|context| match run.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => {
                suspensions += 1;
                if suspensions == k { Poll::Ready(None) } else { Poll::Pending }
            }
        })
        .await;
        drop(run);
        let ours = pool.clone();
        let check = fiberback::run(move || {
            let mut connection = checkout(&ours).unwrap();
            // Its own answer, and not that of what was cut off.
            let echo: i32 = diesel::select(diesel::dsl::sql::<Integer>(&k.to_string()))
                .get_result(&mut connection)
                .unwrap();
            assert_eq!(echo, k);
            assert_eq!(total(&mut connection), 1000, "cut off at {k}");
        });
        tokio::time::timeout(Duration::from_secs(60), check).await.expect("a connection is left");
        match ended {
            None => cut += 1,
            Some(result) => {
                result.unwrap_or_else(|error| panic!("{k}: {error}"));
                // How often it suspends varies with the weather.
                ends += 1;
                if ends == 3 {
                    break;
                }
            }
        }
    }
    assert_eq!(ends, 3);
    assert!(cut > 5, "suspended only {cut} times");
    drop(pool);
    scratch.until(0, "%").await;
}

async fn what_was_cut_off_is_interrupted() {
    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    let ours = pool.clone();
    let mut slow = Box::pin(fiberback::run(move || {
        let mut connection = checkout(&ours).unwrap();
        diesel::sql_query("SELECT sleep(3600)").execute(&mut connection)
    }));
    tokio::select! {
        result = &mut slow => panic!("{result:?}"),
        () = scratch.until(1, "SELECT sleep(3600)") => {}
    }
    drop(slow);
    scratch.until(0, "SELECT sleep(3600)").await;
    let run = fiberback::run(move || total(&mut checkout(&pool).unwrap()));
    assert_eq!(run.await, 1000);
}

fn main() -> ExitCode {
    let mut suite = Suite::new("MariaDB", MariaDb::find(), "FIBERBACK_REQUIRE_MARIADB");
    tests!(suite.needing(current_thread):
        queries_rows_and_transactions,
        migrations,
        many_wait_on_one_thread_at_once,
        cancelled_anywhere,
        what_was_cut_off_is_interrupted,
    );
    suite.run()
}
