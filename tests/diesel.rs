//! The synchronous Diesel API on fibers and off them, against a real PostgreSQL.
//!
//! Where none is installed, the tests that need it are reported as ignored. With
//! `FIBERBACK_REQUIRE_POSTGRES` set they fail.
// For what `diesel::table!` makes.
#![allow(missing_docs)]
// `postgres.rs`, by the examples, too.
#![allow(clippy::duplicate_mod)]

#[allow(dead_code)]
#[path = "../examples/axum_diesel.rs"]
mod axum_diesel;
#[allow(dead_code)]
#[path = "../examples/diesel_orm.rs"]
mod diesel_orm;
#[path = "support/needs.rs"]
mod needs;
#[allow(dead_code)]
#[path = "support/postgres.rs"]
mod postgres;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8, deadpool,
};
use fiberback::Run;
use fiberback::diesel::{Guarded, PooledConnection, SyncConnection, checkout};
use needs::{Suite, tests};
use postgres::Cluster;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{fs, sync, thread};

type Guard = Guarded<AsyncPgConnection>;
type Conn = SyncConnection<Guard>;
type Pool = deadpool::Pool<Guard>;

diesel::table! {
    accounts (id) {
        id -> Integer,
        balance -> BigInt,
    }
}
diesel::table! {
    transfers (id) {
        id -> Integer,
        account_id -> Integer,
        amount -> BigInt,
        note -> Text,
    }
}
diesel::joinable!(transfers -> accounts (account_id));
diesel::allow_tables_to_appear_in_same_query!(accounts, transfers);

#[derive(Queryable, Identifiable, Insertable, Selectable, Debug, PartialEq, Clone)]
#[diesel(table_name = accounts)]
struct Account {
    id: i32,
    balance: i64,
}

#[derive(Queryable, Identifiable, Associations, Selectable, Debug, PartialEq)]
#[diesel(belongs_to(Account))]
#[diesel(table_name = transfers)]
struct Transfer {
    id: i32,
    account_id: i32,
    amount: i64,
    note: String,
}

const SCHEMA: &str = "CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE transfers (id serial PRIMARY KEY, account_id integer NOT NULL REFERENCES accounts,
        amount bigint NOT NULL, note text NOT NULL);
    INSERT INTO accounts SELECT n, 100 FROM generate_series(1, 10) n;";

#[derive(QueryableByName, Debug)]
struct Activity {
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    waits_for: String,
}

/// A database of one test's own.
struct Scratch {
    url: String,
    name: String,
}

impl Scratch {
    /// Made on a plain thread, which is a test of that, too.
    fn new() -> Self {
        let cluster = Cluster::shared();
        let name = cluster.new_name();
        let url = cluster.url(&name);
        let (create, admin, url_there) =
            (format!("CREATE DATABASE {name}"), cluster.url("postgres"), url.clone());
        thread::spawn(move || {
            let mut connection = Conn::establish(&admin).unwrap();
            diesel::sql_query(create).execute(&mut connection).unwrap();
            let mut connection = Conn::establish(&url_there).unwrap();
            diesel::connection::SimpleConnection::batch_execute(&mut connection, SCHEMA).unwrap();
        })
        .join()
        .unwrap();
        Self { url, name }
    }

    fn connect(&self) -> impl FnOnce() -> Conn + 'static {
        let url = self.url.clone();
        move || Conn::establish(&url).unwrap()
    }

    fn pool(&self, size: usize) -> Pool {
        let manager = AsyncDieselConnectionManager::<Guard>::new(self.url.clone());
        Pool::builder(manager).max_size(size).build().unwrap()
    }

    /// What the server's sessions in this database do.
    async fn activity(&self) -> Vec<Activity> {
        let admin = Cluster::shared().url("postgres");
        let mut admin =
            <AsyncPgConnection as diesel_async::AsyncConnection>::establish(&admin).await.unwrap();
        let query = diesel::sql_query(
            "SELECT coalesce(state, '') AS state, coalesce(wait_event, '') AS waits_for
             FROM pg_stat_activity WHERE datname = $1",
        );
        let query = query.bind::<Text, _>(&self.name);
        diesel_async::RunQueryDsl::load(query, &mut admin).await.unwrap()
    }

    /// Waits until the server's sessions are as they should be.
    async fn until(&self, what: &str, is: impl Fn(&[Activity]) -> bool) -> Vec<Activity> {
        let mut activity = Vec::new();
        for _ in 0..600 {
            activity = self.activity().await;
            if is(&activity) {
                return activity;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server's sessions never were: {what}. Last: {activity:?}");
    }

    async fn until_all_are_gone(&self) {
        self.until("gone", <[_]>::is_empty).await;
    }
}

fn backend<C>(connection: &mut SyncConnection<C>) -> i32
where
    C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>,
{
    diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()")).get_result(connection).unwrap()
}

// --- the API -------------------------------------------------------------------------------------

async fn queries_and_associations() {
    let scratch = Scratch::new();
    let connect = scratch.connect();
    fiberback::run(move || {
        let mut connection = connect();
        let connection = &mut connection;
        let new: Vec<Account> =
            (11..=13).map(|id| Account { id, balance: i64::from(id) }).collect();
        assert_eq!(diesel::insert_into(accounts::table).values(&new).execute(connection), Ok(3));
        let returned: Account = diesel::update(accounts::table.find(12))
            .set(accounts::balance.eq(accounts::balance + 1))
            .get_result(connection)
            .unwrap();
        assert_eq!(returned, Account { id: 12, balance: 13 });
        for (account, amount) in [(11, 1), (12, 2), (12, 3)] {
            diesel::insert_into(transfers::table)
                .values((
                    transfers::account_id.eq(account),
                    transfers::amount.eq(amount),
                    transfers::note.eq("öffentlich"),
                ))
                .execute(connection)
                .unwrap();
        }
        let all: Vec<Account> = accounts::table
            .filter(accounts::id.gt(10))
            .order(accounts::id)
            .load(connection)
            .unwrap();
        let grouped = Transfer::belonging_to(&all)
            .order(transfers::id)
            .load::<Transfer>(connection)
            .unwrap()
            .grouped_by(&all);
        let amounts: Vec<Vec<i64>> =
            grouped.iter().map(|of| of.iter().map(|transfer| transfer.amount).collect()).collect();
        assert_eq!(amounts, [vec![1], vec![2, 3], vec![]]);
        let joined: Vec<(i32, String)> = transfers::table
            .inner_join(accounts::table)
            .filter(transfers::amount.eq(3))
            .select((accounts::id, transfers::note))
            .load(connection)
            .unwrap();
        assert_eq!(joined, [(12, "öffentlich".to_owned())]);
        assert_eq!(accounts::table.count().get_result(connection), Ok(13_i64));
        assert_eq!(
            accounts::table.find(99).first::<Account>(connection),
            Err(diesel::result::Error::NotFound)
        );
        let error = diesel::insert_into(accounts::table).values(&new[0]).execute(connection);
        assert!(matches!(
            error,
            Err(diesel::result::Error::DatabaseError(
                diesel::result::DatabaseErrorKind::UniqueViolation,
                _
            ))
        ));
        assert_eq!(
            diesel::delete(accounts::table.filter(accounts::id.eq(13))).execute(connection),
            Ok(1)
        );
        assert!(!connection.is_cut_off());
    })
    .await;
    scratch.until_all_are_gone().await;
}

async fn rows_one_at_a_time_while_other_tasks_run() {
    let scratch = Scratch::new();
    let connect = scratch.connect();
    let ticks = Rc::new(Cell::new(0));
    let mine = Rc::clone(&ticks);
    let read = fiberback::run(move || {
        let mut connection = connect();
        let numbers =
            |to: i32| diesel::dsl::sql::<Integer>(&format!("SELECT generate_series(1, {to})"));
        let before = mine.get();
        let sum = numbers(20_000)
            .load_iter::<i32, diesel::connection::DefaultLoadingMode>(&mut connection)
            .unwrap()
            .map(|row| i64::from(row.unwrap()))
            .sum::<i64>();
        assert_eq!(sum, 20_000 * 20_001 / 2);
        assert!(mine.get() > before, "nobody else ran");
        // Left early, on purpose: the connection stays good.
        for _ in 0..5 {
            let first: Vec<i32> = numbers(20_000)
                .load_iter::<i32, diesel::connection::DefaultLoadingMode>(&mut connection)
                .unwrap()
                .take(3)
                .map(Result::unwrap)
                .collect();
            assert_eq!(first, [1, 2, 3]);
        }
        assert!(!connection.is_cut_off());
        assert_eq!(accounts::table.count().get_result(&mut connection), Ok(10_i64));
    });
    let tick = async {
        loop {
            tokio::task::yield_now().await;
            ticks.set(ticks.get() + 1);
        }
    };
    tokio::select! {
        () = read => {}
        () = tick => unreachable!(),
    }
}

async fn transactions() {
    let scratch = Scratch::new();
    let connect = scratch.connect();
    fiberback::run(move || {
        let mut connection = connect();
        let connection = &mut connection;
        let set = |connection: &mut Conn, balance: i64| {
            diesel::update(accounts::table.find(1))
                .set(accounts::balance.eq(balance))
                .execute(connection)
        };
        let get = |connection: &mut Conn| {
            accounts::table.find(1).select(accounts::balance).first::<i64>(connection).unwrap()
        };
        // Committed, with a savepoint released and one rolled back.
        connection
            .transaction(|connection| {
                set(connection, 1)?;
                connection.transaction(|connection| set(connection, 2))?;
                let inner = connection.transaction(|connection| {
                    set(connection, 3)?;
                    Err::<(), _>(diesel::result::Error::RollbackTransaction)
                });
                assert!(inner.is_err());
                QueryResult::Ok(())
            })
            .unwrap();
        assert_eq!(get(connection), 2);
        // Rolled back by an error of the user's and by one of the server's.
        let error = connection.transaction(|connection| {
            set(connection, 4)?;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        assert_eq!(error, Err(diesel::result::Error::RollbackTransaction));
        let error = connection.transaction(|connection| {
            set(connection, 5)?;
            diesel::sql_query("SELECT 1 / 0").execute(connection)
        });
        assert!(error.is_err());
        assert_eq!(get(connection), 2);
        connection.test_transaction(|connection| set(connection, 6));
        assert_eq!(get(connection), 2);
        assert!(!connection.is_cut_off());
    })
    .await;
}

async fn a_panic_in_a_transaction_costs_the_connection() {
    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    let other = pool.clone();
    let task = async {
        let run = fiberback::run(move || {
            let mut connection = checkout(&other).unwrap();
            connection
                .transaction(|connection| {
                    diesel::delete(transfers::table).execute(connection)?;
                    if backend(connection) != 0 {
                        std::panic::resume_unwind(Box::new("as expected"));
                    }
                    QueryResult::Ok(())
                })
                .unwrap();
        });
        run.await;
    };
    tokio::task::LocalSet::new()
        .run_until(async { tokio::task::spawn_local(task).await.unwrap_err() })
        .await;
    assert_eq!(pool.status().size, 0, "{:?}", pool.status());
    scratch.until_all_are_gone().await;
}

async fn migrations() {
    use diesel_migrations::{FileBasedMigrations, MigrationHarness};

    let scratch = Scratch::new();
    let directory = std::env::temp_dir().join(format!("{}-{}", scratch.name, std::process::id()));
    for (name, up, down) in [
        ("2024-01-01-000000_one", "CREATE TABLE one (id integer);", "DROP TABLE one;"),
        (
            "2024-01-02-000000_two",
            "CREATE TABLE two (id integer); SELECT pg_sleep(0);",
            "DROP TABLE two;",
        ),
    ] {
        let directory = directory.join("migrations").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("up.sql"), up).unwrap();
        fs::write(directory.join("down.sql"), down).unwrap();
    }
    let source = FileBasedMigrations::from_path(directory.join("migrations")).unwrap();

    // From async code, on a current-thread runtime, where `AsyncMigrationHarness` panics.
    let guard = <Guard as diesel_async::AsyncConnection>::establish(&scratch.url).await.unwrap();
    let (guard, versions) =
        fiberback::diesel::run_pending_migrations(guard, source.clone()).await.unwrap();
    assert_eq!(versions.len(), 2);
    let (guard, versions) =
        fiberback::diesel::run_pending_migrations(guard, source.clone()).await.unwrap();
    assert_eq!(versions.len(), 0);

    // And by the harness itself, on a fiber.
    fiberback::run(move || {
        let mut connection = SyncConnection::from(guard);
        let tables = |connection: &mut Conn| -> i64 {
            diesel::select(diesel::dsl::sql::<BigInt>(
                "(SELECT count(*) FROM pg_tables WHERE tablename IN ('one', 'two'))",
            ))
            .get_result(connection)
            .unwrap()
        };
        assert_eq!(tables(&mut connection), 2);
        connection.revert_last_migration(source.clone()).unwrap();
        assert_eq!(tables(&mut connection), 1);
        assert!(connection.has_pending_migration(source.clone()).unwrap());
        assert_eq!(connection.run_pending_migrations(source.clone()).unwrap().len(), 1);
        connection.revert_all_migrations(source.clone()).unwrap();
        assert_eq!(tables(&mut connection), 0);
    })
    .await;
    fs::remove_dir_all(directory).unwrap();
}

async fn many_wait_on_one_thread_at_once() {
    const FIBERS: usize = 25;
    let scratch = Scratch::new();
    let connect = scratch.connect();
    let pool = scratch.pool(FIBERS);
    tokio::task::LocalSet::new()
        .run_until(async {
            let (locked, is_locked) = tokio::sync::oneshot::channel();
            let (unlock, may_unlock) = tokio::sync::oneshot::channel::<()>();
            let holder = fiberback::tokio::spawn_local(move || {
                let mut connection = connect();
                diesel::sql_query("SELECT pg_advisory_lock(1)").execute(&mut connection).unwrap();
                locked.send(()).unwrap();
                fiberback::await_(may_unlock).unwrap();
                diesel::sql_query("SELECT pg_advisory_unlock(1)").execute(&mut connection).unwrap();
            });
            is_locked.await.unwrap();
            let waiting: Vec<_> = (0..FIBERS)
                .map(|_| {
                    let pool = pool.clone();
                    fiberback::tokio::spawn_local(move || {
                        let mut connection = checkout(&pool).unwrap();
                        diesel::sql_query("SELECT pg_advisory_lock_shared(1)")
                            .execute(&mut connection)
                            .unwrap();
                        diesel::sql_query("SELECT pg_advisory_unlock_shared(1)")
                            .execute(&mut connection)
                            .unwrap()
                    })
                })
                .collect();
            scratch
                .until("all waiting for the lock", |sessions| {
                    sessions.iter().filter(|session| session.waits_for == "advisory").count()
                        == FIBERS
                })
                .await;
            unlock.send(()).unwrap();
            for task in waiting {
                assert_eq!(task.await.unwrap(), 1);
            }
            holder.await.unwrap();
        })
        .await;
}

// --- off the fiber, and on other executors -------------------------------------------------------

fn on_plain_threads_with_r2d2() {
    use diesel::r2d2::{ConnectionManager, Pool};

    let scratch = Scratch::new();
    let manager = ConnectionManager::<Conn>::new(scratch.url.clone());
    // Established by r2d2's threads, used by ours.
    let pool = Pool::builder().max_size(3).build(manager).unwrap();
    let threads: Vec<_> = (0..6)
        .map(|n| {
            let pool = pool.clone();
            thread::spawn(move || {
                for _ in 0..20 {
                    let mut connection = pool.get().unwrap();
                    connection
                        .transaction(|connection| {
                            diesel::update(accounts::table.find(1))
                                .set(accounts::balance.eq(accounts::balance + n))
                                .execute(connection)
                        })
                        .unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let balance: i64 =
        accounts::table.find(1).select(accounts::balance).first(&mut pool.get().unwrap()).unwrap();
    assert_eq!(balance, 100 + 20 * (1 + 2 + 3 + 4 + 5));
}

/// A connection that a thread keeps for itself, with something left to do when the thread ends.
fn in_the_destructor_of_a_thread_local() {
    struct Session(Conn, sync::mpsc::Sender<i32>);
    impl Drop for Session {
        fn drop(&mut self) {
            self.1.send(backend(&mut self.0)).unwrap();
        }
    }
    thread_local! {
        static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
    }
    let scratch = Scratch::new();
    let (tell, told) = sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Before tokio's own thread-locals, so destroyed after them.
            SESSION.set(None);
            SESSION.set(Some(Session(Conn::establish(&scratch.url).unwrap(), tell)));
        });
    });
    assert!(told.recv().unwrap() > 0);
}

fn on_blocking_threads(runtime: tokio::runtime::Runtime) {
    let scratch = Scratch::new();
    let pool = scratch.pool(2);
    // Nothing drives a current-thread runtime that is only entered: that must not matter.
    let counted = {
        let _entered = runtime.enter();
        let mut connection = checkout(&pool).unwrap();
        accounts::table.count().get_result::<i64>(&mut connection)
    };
    assert_eq!(counted, Ok(10));
    let from_fiber = runtime.block_on(async {
        let (there, here) = (pool.clone(), pool.clone());
        let blocking = tokio::task::spawn_blocking(move || {
            let mut connection = checkout(&there).unwrap();
            accounts::table.count().get_result::<i64>(&mut connection)
        });
        assert_eq!(blocking.await.unwrap(), Ok(10));
        // A connection that was established off the runtime serves a fiber on it, and back.
        fiberback::run(move || {
            let mut connection = checkout(&here).unwrap();
            assert_eq!(accounts::table.count().get_result::<i64>(&mut connection), Ok(10));
            connection
        })
        .await
    });
    // It is this plain thread's now. Dropping it needs no runtime either.
    let mut connection: PooledConnection<Guard> = from_fiber;
    assert_eq!(accounts::table.count().get_result::<i64>(&mut connection), Ok(10));
}

fn on_blocking_threads_of_a_current_thread_runtime() {
    on_blocking_threads(
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
    );
}

fn on_blocking_threads_of_a_multi_thread_runtime() {
    on_blocking_threads(tokio::runtime::Runtime::new().unwrap());
}

async fn in_block_in_place() {
    let scratch = Scratch::new();
    let connect = scratch.connect();
    let count =
        tokio::task::block_in_place(|| accounts::table.count().get_result::<i64>(&mut connect()));
    assert_eq!(count, Ok(10));
}

fn refused_in_runtime() {
    let attempt = || SyncConnection::<AsyncPgConnection>::establish("host=/nowhere").map(drop);
    let panic = catch_unwind(AssertUnwindSafe(attempt)).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("fiberback::run(|| ...).await"), "{message}");
    // Nothing was harmed by asking.
    assert!(fiberback::fiber::StackPool::global().stats().stack_size > 0);
}

async fn refused_in_a_current_thread_runtime_off_a_fiber() {
    refused_in_runtime();
    tokio::task::yield_now().await;
}

async fn refused_on_a_worker_off_a_fiber() {
    refused_in_runtime();
    tokio::spawn(async { refused_in_runtime() }).await.unwrap();
}

fn on_a_fiber_of_another_executor() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    let mut run = fiberback::run(move || {
        let mut connection = checkout(&pool).unwrap();
        connection
            .transaction(|connection| accounts::table.count().get_result::<i64>(connection))
            .unwrap()
    });
    let waker = Waker::from(sync::Arc::new(Unpark(thread::current())));
    let mut polls = 0;
    let count = loop {
        polls += 1;
        match Pin::new(&mut run).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(count) => break count,
            Poll::Pending => thread::park(),
        }
        assert!(tokio::runtime::Handle::try_current().is_err(), "left entered");
    };
    assert_eq!(count, 10);
    assert!(polls > 3, "{polls}");
}

async fn workers_share_a_pool() {
    let scratch = Scratch::new();
    let workers = fiberback::tokio::PinnedPool::builder().worker_threads(3).build().unwrap();
    let pool = scratch.pool(4);
    let jobs: Vec<_> = (0..60)
        .map(|n| {
            let pool = pool.clone();
            workers.spawn(move || {
                let mut connection = checkout(&pool).unwrap();
                let pid = backend(&mut connection);
                let n: i32 = diesel::select(diesel::dsl::sql::<Integer>(&n.to_string()))
                    .get_result(&mut connection)
                    .unwrap();
                (pid, n)
            })
        })
        .collect();
    let mut pids = std::collections::BTreeSet::new();
    for (n, job) in (0..).zip(jobs) {
        let (pid, answer) = job.await.unwrap();
        assert_eq!(answer, n);
        pids.insert(pid);
    }
    assert!(pids.len() <= 4, "{pids:?}");
    workers.shutdown().await;
}

// --- cancellation --------------------------------------------------------------------------------

/// A small generator (splitmix64), so that a seed says it all.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// When, after its k-th suspension, a run is dropped.
#[derive(Clone, Copy, Debug)]
enum Drops {
    AtOnce,
    WhenWoken,
    After(Duration),
}

/// Polls `run` until it was suspended `k` times, then drops it. Its result, if that came first.
async fn cancel_at<T: 'static>(run: Run<T>, k: usize, when: Drops) -> Option<T> {
    let mut run = Some(Box::pin(run));
    let mut suspensions = 0;
    let finished = poll_fn(|context| {
        if suspensions == k {
            return Poll::Ready(None); // woken
        }
        match run.as_mut().unwrap().as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                suspensions += 1;
                if suspensions < k || matches!(when, Drops::WhenWoken) {
                    Poll::Pending
                } else {
                    Poll::Ready(None)
                }
            }
        }
    })
    .await;
    if let Drops::After(delay) = when {
        tokio::time::sleep(delay).await;
    }
    drop(run.take());
    finished
}

/// Moves money, in a transaction with a nested one, and notes it. Also reads row by row.
fn transfer<C>(
    connection: &mut SyncConnection<C>,
    from: i32,
    to: i32,
    amount: i64,
) -> QueryResult<()>
where
    C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>,
{
    connection.transaction(|connection| {
        diesel::update(accounts::table.find(from))
            .set(accounts::balance.eq(accounts::balance - amount))
            .execute(connection)?;
        connection.transaction(|connection| {
            diesel::update(accounts::table.find(to))
                .set(accounts::balance.eq(accounts::balance + amount))
                .execute(connection)
        })?;
        for (account, amount) in [(from, -amount), (to, amount)] {
            diesel::insert_into(transfers::table)
                .values((
                    transfers::account_id.eq(account),
                    transfers::amount.eq(amount),
                    transfers::note.eq("moved"),
                ))
                .execute(connection)?;
        }
        Ok(())
    })
}

fn read_rows<C>(connection: &mut SyncConnection<C>) -> QueryResult<i64>
where
    C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>,
{
    let rows = diesel::dsl::sql::<BigInt>("SELECT generate_series(1, 3000)::bigint");
    let rows = rows.load_iter::<i64, diesel::connection::DefaultLoadingMode>(connection)?;
    let mut sum = 0;
    for row in rows {
        sum += row?;
        if sum % 1000 == 0 {
            // Something else to wait for, with the rows half read.
            fiberback::await_(tokio::task::yield_now());
        }
    }
    Ok(sum)
}

/// By hand, so that Diesel knows nothing of it.
fn raw_transaction<C>(connection: &mut SyncConnection<C>) -> QueryResult<()>
where
    C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>,
{
    diesel::sql_query("BEGIN").execute(connection)?;
    diesel::sql_query("UPDATE accounts SET balance = balance + 1000000").execute(connection)?;
    fiberback::await_(tokio::task::yield_now());
    diesel::sql_query("SELECT pg_sleep(0.001)").execute(connection)?;
    diesel::sql_query("ROLLBACK").execute(connection)?;
    Ok(())
}

/// What the database must be like at any time that no transaction is under way.
fn check_books<C>(connection: &mut SyncConnection<C>, token: i32)
where
    C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>,
{
    // Its own answer, not another query's.
    let echo: i32 = diesel::select(diesel::dsl::sql::<Integer>(&token.to_string()))
        .get_result(connection)
        .unwrap();
    assert_eq!(echo, token);
    let balances: Vec<(i32, i64)> = accounts::table.order(accounts::id).load(connection).unwrap();
    assert_eq!(balances.len(), 10);
    assert_eq!(balances.iter().map(|(_, balance)| balance).sum::<i64>(), 1000, "{balances:?}");
    let moved: Vec<(i32, i64)> = transfers::table
        .select((transfers::account_id, transfers::amount))
        .load(connection)
        .unwrap();
    for (id, balance) in balances {
        let expected = 100 + moved.iter().filter(|(of, _)| *of == id).map(|(_, n)| n).sum::<i64>();
        assert_eq!(balance, expected, "account {id}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Transfer,
    Rows,
    Raw,
    Sleep,
    Batch,
}

fn work<C>(connection: &mut SyncConnection<C>, work: Work) -> QueryResult<()>
where
    C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg>,
{
    match work {
        Work::Transfer => transfer(connection, 3, 4, 7),
        Work::Rows => read_rows(connection).map(|sum| assert_eq!(sum, 3000 * 3001 / 2)),
        Work::Raw => raw_transaction(connection),
        Work::Sleep => diesel::sql_query("SELECT pg_sleep(0.005)").execute(connection).map(drop),
        Work::Batch => diesel::connection::SimpleConnection::batch_execute(
            connection,
            "BEGIN; UPDATE accounts SET balance = 0; SELECT pg_sleep(0.002); ROLLBACK;",
        ),
    }
}

const WORKS: [Work; 5] = [Work::Transfer, Work::Rows, Work::Raw, Work::Sleep, Work::Batch];

/// Says what was being tried if that panics.
struct Trying(String);

impl Drop for Trying {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Cancels each kind of work at its 1st, 2nd, 3rd ... suspension until it comes to its end first.
/// Returns how many times something was cut off.
async fn cancel_everywhere<F>(
    seed: u64,
    start: impl Fn(Work, bool) -> F,
    check: impl AsyncFn(i32),
) -> usize
where
    F: Into<Run<QueryResult<()>>>,
{
    let seed = std::env::var("FIBERBACK_SEED").map_or(seed, |seed| seed.parse().unwrap());
    let mut random = Random(seed);
    let mut cut = 0;
    for work in WORKS {
        for warm in [false, true] {
            let mut ends = 0;
            for k in 1..400 {
                let when = match random.below(3) {
                    0 => Drops::AtOnce,
                    1 => Drops::WhenWoken,
                    _ => Drops::After(Duration::from_micros(random.below(3000))),
                };
                // What to look at first, and what to set, if this fails.
                let _what = Trying(format!(
                    "FIBERBACK_SEED={seed}: {work:?}, warm {warm}, suspension {k}, {when:?}"
                ));
                let outcome = cancel_at(start(work, warm).into(), k, when).await;
                check(i32::try_from(random.below(1 << 30)).unwrap()).await;
                match outcome {
                    None => cut += 1,
                    Some(result) => {
                        result.unwrap_or_else(|error| panic!("{work:?}, {k}, {when:?}: {error}"));
                        // How often it suspends varies with the weather.
                        ends += 1;
                        if ends == 3 {
                            break;
                        }
                    }
                }
            }
            assert_eq!(ends, 3, "{work:?} never ended");
        }
    }
    cut
}

async fn cancelled_anywhere_with_deadpool() {
    let scratch = Scratch::new();
    let pool = RefCell::new(scratch.pool(2));
    let start = |what: Work, warm: bool| {
        if !warm {
            // So that connecting is cut off, too.
            *pool.borrow_mut() = scratch.pool(2);
        }
        let pool = pool.borrow().clone();
        fiberback::run(move || {
            let mut connection = checkout(&pool).unwrap();
            work(&mut connection, what)
        })
    };
    let check = async |token| {
        let pool = pool.borrow().clone();
        fiberback::run(move || {
            // Both places of the pool.
            let mut connections = [checkout(&pool).unwrap(), checkout(&pool).unwrap()];
            for connection in &mut connections {
                check_books(connection, token);
            }
            assert_eq!(pool.status().size, 2);
        })
        .await;
    };
    let cut = cancel_everywhere(1, start, check).await;
    assert!(cut > 50, "{cut}");
    scratch
        .until("only the pool's two, idle", |sessions| {
            sessions.len() == 2 && sessions.iter().all(|session| session.state == "idle")
        })
        .await;
    drop(pool);
    scratch.until_all_are_gone().await;
}

async fn cancelled_anywhere_with_bb8() {
    let scratch = Scratch::new();
    let manager = || AsyncDieselConnectionManager::<Guard>::new(scratch.url.clone());
    let new = || bb8::Pool::builder().max_size(2).build_unchecked(manager());
    let pool = RefCell::new(new());
    let start = |what: Work, warm: bool| {
        if !warm {
            *pool.borrow_mut() = new();
        }
        let pool = pool.borrow().clone();
        fiberback::run(move || {
            let connection = fiberback::await_(pool.get_owned()).unwrap();
            work(&mut SyncConnection::from(connection), what)
        })
    };
    let check = async |token| {
        let pool = pool.borrow().clone();
        fiberback::run(move || {
            let connection = fiberback::await_(pool.get_owned()).unwrap();
            check_books(&mut SyncConnection::from(connection), token);
        })
        .await;
    };
    let cut = cancel_everywhere(2, start, check).await;
    assert!(cut > 50, "{cut}");
    scratch
        .until("at most the pool's two, idle", |sessions| {
            sessions.len() <= 2 && sessions.iter().all(|session| session.state == "idle")
        })
        .await;
    drop(pool);
    scratch.until_all_are_gone().await;
}

/// Aborted through tokio, on worker threads, many at a time.
async fn aborted_jobs_of_a_pinned_pool() {
    let scratch = Scratch::new();
    let workers = fiberback::tokio::PinnedPool::builder().worker_threads(2).build().unwrap();
    let pool = scratch.pool(6);
    let mut random = Random(3);
    for _ in 0..10 {
        let jobs: Vec<_> = (0..12)
            .map(|_| {
                // Those that lock rows in one order: the others could deadlock with each other.
                let what = [Work::Transfer, Work::Rows, Work::Sleep]
                    [usize::try_from(random.below(3)).unwrap()];
                let pool = pool.clone();
                workers.spawn(move || {
                    let mut connection = checkout(&pool).unwrap();
                    (0..5).try_for_each(|_| work(&mut connection, what))
                })
            })
            .collect();
        for job in &jobs {
            if random.below(2) == 0 {
                tokio::time::sleep(Duration::from_micros(random.below(4000))).await;
                job.abort();
            }
        }
        for job in jobs {
            match job.await {
                Ok(result) => result.unwrap(),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
        let (token, pool) = (i32::try_from(random.below(1 << 30)).unwrap(), pool.clone());
        let check = workers.spawn(move || {
            let mut connections: Vec<_> = (0..6).map(|_| checkout(&pool).unwrap()).collect();
            connections.iter_mut().for_each(|connection| check_books(connection, token));
        });
        check.await.unwrap();
    }
    scratch
        .until("the pool's six, idle", |sessions| {
            sessions.len() == 6 && sessions.iter().all(|session| session.state == "idle")
        })
        .await;
    assert_eq!(workers.jobs(), 0);
    drop(pool);
    workers.shutdown().await;
    scratch.until_all_are_gone().await;
}

async fn what_was_cut_off_is_interrupted_and_closed_at_once() {
    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    let other = pool.clone();
    let slow = fiberback::run(move || {
        let mut connection = checkout(&other).unwrap();
        connection.transaction(|connection| {
            diesel::sql_query("SELECT pg_sleep(3600)").execute(connection)
        })
    });
    tokio::select! {
        _ = slow => unreachable!("that would be an hour"),
        _ = scratch.until("asleep", |all| all.iter().any(|one| one.waits_for == "PgSleep")) => {}
    }
    // Nobody has asked the pool for a connection since.
    assert_eq!(pool.status().size, 0, "{:?}", pool.status());
    scratch.until_all_are_gone().await;
}

async fn an_idle_transaction_does_not_keep_its_locks() {
    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    for raw in [false, true] {
        let other = pool.clone();
        let stuck = fiberback::run(move || {
            let mut connection = checkout(&other).unwrap();
            let lock = "LOCK TABLE accounts";
            if raw {
                diesel::sql_query("BEGIN").execute(&mut connection).unwrap();
                diesel::sql_query(lock).execute(&mut connection).unwrap();
                fiberback::await_(std::future::pending::<()>());
            } else {
                let _ = connection.transaction(|connection| {
                    diesel::sql_query(lock).execute(connection)?;
                    fiberback::await_(std::future::pending::<QueryResult<()>>())
                });
            }
        });
        tokio::select! {
            () = stuck => unreachable!(),
            _ = scratch.until("holding its lock", |all| {
                all.iter().any(|one| one.state == "idle in transaction")
            }) => {}
        }
        assert_eq!(pool.status().size, 0, "{:?}", pool.status());
        scratch.until_all_are_gone().await;
    }
}

/// Why there is `Guarded`.
async fn without_a_guard_an_unfinished_query_is_handed_out_again() {
    async fn two_pids<C>(scratch: &Scratch) -> (i32, i32)
    where
        C: diesel_async::pooled_connection::PoolableConnection
            + diesel_async::AsyncConnection<Backend = diesel::pg::Pg>
            + 'static,
        AsyncDieselConnectionManager<C>: ::deadpool::managed::Manager<
                Type = C,
                Error = diesel_async::pooled_connection::PoolError,
            >,
    {
        let mut config = ManagerConfig::<C>::default();
        config.recycling_method = RecyclingMethod::Fast;
        let manager = AsyncDieselConnectionManager::new_with_config(scratch.url.clone(), config);
        let pool = deadpool::Pool::<C>::builder(manager).max_size(1).build().unwrap();
        let first = Rc::new(Cell::new(0));
        let (told, mine) = (Rc::clone(&first), pool.clone());
        let slow = fiberback::run(move || {
            // Not a lease: deadpool's own object.
            let object = fiberback::await_(mine.get()).unwrap();
            let mut connection = SyncConnection::from(object);
            told.set(backend(&mut connection));
            diesel::sql_query("SELECT pg_sleep(0.3)").execute(&mut connection).unwrap();
        });
        tokio::select! {
            () = slow => unreachable!(),
            _ = scratch.until("asleep", |all| all.iter().any(|one| one.waits_for == "PgSleep")) => {}
        }
        let second = fiberback::run(move || {
            backend(&mut SyncConnection::from(fiberback::await_(pool.get()).unwrap()))
        });
        (first.get(), second.await)
    }

    let scratch = Scratch::new();
    let (first, second) = two_pids::<AsyncPgConnection>(&scratch).await;
    assert_eq!(first, second, "the module's documentation is out of date");
    scratch.until_all_are_gone().await;
    let (first, second) = two_pids::<Guard>(&scratch).await;
    assert_ne!(first, second);
}

async fn a_guarded_connection_by_itself() {
    use diesel_async::{AsyncConnection, RunQueryDsl};

    let scratch = Scratch::new();
    let mut guard = Guard::establish(&scratch.url).await.unwrap();
    let query = || diesel::sql_query("SELECT pg_sleep(0)");
    assert_eq!(RunQueryDsl::execute(query(), &mut guard).await, Ok(1));
    // Never polled: nothing begun.
    drop(RunQueryDsl::execute(query(), &mut guard));
    assert!(!guard.is_cut_off());
    let transaction = guard.transaction(async |guard| RunQueryDsl::execute(query(), guard).await);
    assert_eq!(transaction.await, Ok(1));

    let sleep = RunQueryDsl::execute(diesel::sql_query("SELECT pg_sleep(3600)"), &mut guard);
    assert!(tokio::time::timeout(Duration::from_millis(20), sleep).await.is_err());
    assert!(guard.is_cut_off());
    let error = RunQueryDsl::execute(query(), &mut guard).await.unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
    assert!(RunQueryDsl::load::<Activity>(query(), &mut guard).await.is_err());
    assert!(guard.transaction(async |_| QueryResult::Ok(())).await.is_err());
    let simple = diesel_async::SimpleAsyncConnection::batch_execute(&mut guard, "SELECT 1").await;
    assert!(simple.is_err());
    assert_eq!(format!("{guard:?}"), "Guarded { cut_off: true, .. }");
    // The server was asked to stop.
    scratch.until("idle", |all| all.iter().all(|session| session.state == "idle")).await;
    assert_eq!(scratch.activity().await.len(), 1);
    let guard = guard.into_inner().map(drop).unwrap_err();
    drop(guard);
    scratch.until_all_are_gone().await;

    let guard = Guard::establish(&scratch.url).await.unwrap();
    assert!(guard.into_inner().is_ok());
}

async fn a_server_that_goes_away_is_an_error() {
    let scratch = Scratch::new();
    let pool = scratch.pool(1);
    fiberback::run(move || {
        let mut connection = checkout(&pool).unwrap();
        let killed = diesel::sql_query("SELECT pg_terminate_backend(pg_backend_pid())")
            .execute(&mut connection);
        assert!(killed.is_err());
        drop(connection);
        let mut connection = checkout(&pool).unwrap();
        assert_eq!(accounts::table.count().get_result::<i64>(&mut connection), Ok(10));
    })
    .await;
}

// --- the examples --------------------------------------------------------------------------------

async fn diesel_orm_example() {
    let scratch = Scratch::new();
    let outcome = diesel_orm::lend(&scratch.url).await.unwrap();
    assert_eq!(outcome.shelf, [("Emma".to_owned(), 1), ("Ulysses".to_owned(), 4)]);
    assert!(outcome.ticks > 0);
    assert_eq!(outcome.connections, (0, 1));
}

async fn axum_diesel_example() {
    let scratch = Scratch::new();
    let load = axum_diesel::Load { clients: 6, requests: 5, database_connections: 6, workers: 2 };
    let (fibers, blocking) = axum_diesel::compare(&scratch.url, load).await.unwrap();
    assert_eq!((fibers.requests, blocking.requests), (30, 30));
}

fn main() -> ExitCode {
    let mut suite = Suite::new("PostgreSQL", Cluster::find(), "FIBERBACK_REQUIRE_POSTGRES");
    tests!(suite.free(current_thread):
        refused_in_a_current_thread_runtime_off_a_fiber,
    );
    tests!(suite.free(multi_thread):
        refused_on_a_worker_off_a_fiber,
    );
    tests!(suite.needing:
        on_plain_threads_with_r2d2,
        in_the_destructor_of_a_thread_local,
        on_blocking_threads_of_a_current_thread_runtime,
        on_blocking_threads_of_a_multi_thread_runtime,
        on_a_fiber_of_another_executor,
    );
    tests!(suite.needing(current_thread):
        queries_and_associations,
        rows_one_at_a_time_while_other_tasks_run,
        transactions,
        a_panic_in_a_transaction_costs_the_connection,
        migrations,
        many_wait_on_one_thread_at_once,
        workers_share_a_pool,
        cancelled_anywhere_with_deadpool,
        cancelled_anywhere_with_bb8,
        aborted_jobs_of_a_pinned_pool,
        what_was_cut_off_is_interrupted_and_closed_at_once,
        an_idle_transaction_does_not_keep_its_locks,
        without_a_guard_an_unfinished_query_is_handed_out_again,
        a_guarded_connection_by_itself,
        a_server_that_goes_away_is_an_error,
        diesel_orm_example,
    );
    tests!(suite.needing(multi_thread):
        in_block_in_place,
        axum_diesel_example,
    );
    suite.run()
}
