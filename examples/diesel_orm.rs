//! Ordinary Diesel code, transactions and all, on one thread over asynchronous connections, next to
//! a task that keeps running; and what becomes of a connection whose work is cancelled.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/scratch \
//!     cargo run --example diesel_orm --features diesel-postgres,diesel-deadpool,diesel-migrations
//! ```
//!
//! Without `DATABASE_URL` it starts a private PostgreSQL cluster from the system's programs. The
//! tables it makes are temporary in either case.
#![allow(missing_docs)] // of what `diesel::table!` makes

#[allow(dead_code)]
#[path = "../tests/support/postgres.rs"]
mod postgres;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use fiberback::diesel::{Guarded, PooledConnection, checkout};
use std::error::Error;
use std::time::Duration;

type PgPool = Pool<Guarded<AsyncPgConnection>>;
type Database = PooledConnection<Guarded<AsyncPgConnection>>;

diesel::table! {
    books (id) {
        id -> Integer,
        title -> Text,
        copies -> Integer,
    }
}

#[derive(Queryable, Selectable, Insertable, Debug, PartialEq)]
#[diesel(table_name = books)]
struct Book {
    id: i32,
    title: String,
    copies: i32,
}

// --- synchronous code that knows nothing of fibers -----------------------------------------------

fn stock(connection: &mut Database) -> QueryResult<()> {
    connection.batch_execute(
        "CREATE TEMPORARY TABLE books (id integer PRIMARY KEY, title text NOT NULL,
             copies integer NOT NULL CHECK (copies >= 0))",
    )?;
    let books = [(1, "Emma", 2), (2, "Walden", 0), (3, "Ulysses", 5)]
        .map(|(id, title, copies)| Book { id, title: title.to_owned(), copies });
    diesel::insert_into(books::table).values(books.as_slice()).execute(connection)?;
    Ok(())
}

/// Takes one copy of each, or none at all.
fn borrow(connection: &mut Database, ids: &[i32]) -> QueryResult<()> {
    connection.transaction(|connection| {
        for id in ids {
            diesel::update(books::table.find(id))
                .set(books::copies.eq(books::copies - 1))
                .execute(connection)?;
        }
        Ok(())
    })
}

fn on_the_shelf(connection: &mut Database) -> QueryResult<Vec<Book>> {
    books::table.filter(books::copies.gt(0)).order(books::title).load(connection)
}

// --- and the asynchronous program around it ------------------------------------------------------

/// What the example has seen.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) shelf: Vec<(String, i32)>,
    /// How often another task of the thread ran meanwhile.
    pub(crate) ticks: u32,
    /// How many connections the pool held after a query was cancelled, and after the next one.
    pub(crate) connections: (usize, usize),
}

pub(crate) async fn lend(url: &str) -> Result<Outcome, Box<dyn Error>> {
    let manager = AsyncDieselConnectionManager::<Guarded<AsyncPgConnection>>::new(url);
    let pool: PgPool = Pool::builder(manager).max_size(1).build()?;

    let lender = pool.clone();
    let lending = fiberback::run(move || {
        let mut connection = checkout(&lender)?;
        stock(&mut connection)?;
        borrow(&mut connection, &[1, 3])?;
        let refused = borrow(&mut connection, &[1, 2]); // no Walden: so no Emma either
        assert!(refused.is_err());
        Ok::<_, Box<dyn Error>>(on_the_shelf(&mut connection)?)
    });
    let mut ticks = 0;
    let ticking = async {
        loop {
            tokio::task::yield_now().await;
            ticks += 1;
        }
    };
    let shelf = tokio::select! {
        shelf = lending => shelf?,
        () = ticking => unreachable!("it ticks for ever"),
    };

    // Cancelled in the middle of a query: its connection is closed, not handed out again.
    let other = pool.clone();
    let endless = fiberback::run(move || {
        let mut connection = checkout(&other).expect("the pool is open");
        diesel::sql_query("SELECT pg_sleep(3600)").execute(&mut connection)
    });
    let late = tokio::time::timeout(Duration::from_millis(100), endless).await;
    assert!(late.is_err());
    let after_cancellation = pool.status().size;
    let next = pool.clone();
    fiberback::run(move || {
        let mut connection = checkout(&next).expect("the pool is open");
        diesel::sql_query("SELECT 1").execute(&mut connection)
    })
    .await?;

    Ok(Outcome {
        shelf: shelf.into_iter().map(|book| (book.title, book.copies)).collect(),
        ticks,
        connections: (after_cancellation, pool.status().size),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let _cluster;
    let url = match std::env::var("DATABASE_URL") {
        Ok(url) => url,
        Err(_) => {
            let cluster = postgres::Cluster::start(20)?;
            let url = cluster.url("postgres");
            _cluster = cluster;
            url
        }
    };
    let outcome = lend(&url).await?;
    for (title, copies) in &outcome.shelf {
        println!("{copies} x {title}");
    }
    println!("another task of this thread ran {} times meanwhile", outcome.ticks);
    let (cancelled, next) = outcome.connections;
    println!("connections in the pool: {cancelled} after a cancelled query, {next} after the next");
    Ok(())
}
