//! Waiting inside callbacks that must not be async.
//!
//! ```text
//! cargo run --example trait_callbacks
//! ```
//!
//! A trait of the standard library says what its functions look like: `Iterator::map` takes a
//! closure that returns a value, `sort_by_key` one that returns a key, `Drop::drop` returns
//! nothing. None of them takes a future. Below `fiberback::run` they can wait all the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A remote store, reached over a network; only async functions.
#[derive(Debug)]
pub(crate) struct Store {
    prices: BTreeMap<&'static str, u32>,
    /// Who has said goodbye.
    closed: RefCell<Vec<&'static str>>,
}

impl Store {
    async fn price(&self, item: &str) -> u32 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.prices[item]
    }

    async fn close(&self, session: &'static str) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.closed.borrow_mut().push(session);
    }
}

/// Tells the store when it is over.
struct Session {
    name: &'static str,
    store: Rc<Store>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a destructor `try_await`, not `await_`: should we be dropped by a panic or by
        // cancellation, nothing can be awaited, and a second panic would abort the process.
        let _ = fiberback::try_await(self.store.close(self.name));
    }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) total: u32,
    pub(crate) cheapest_first: Vec<&'static str>,
    pub(crate) closed: Vec<&'static str>,
}

/// Synchronous from here down. Each of the three comments marks a wait.
fn shop(store: &Rc<Store>) -> Report {
    let mut items = vec!["tea", "bread", "honey"];

    let morning = Session { name: "morning", store: Rc::clone(store) };
    let total = items
        .iter()
        .map(|item| fiberback::await_(store.price(item))) // in an iterator adapter
        .sum();
    drop(morning); // in a destructor

    let _evening = Session { name: "evening", store: Rc::clone(store) };
    items.sort_by_key(|item| fiberback::await_(store.price(item))); // in a comparison
    let closed = store.closed.borrow().clone();
    Report { total, cheapest_first: items, closed }
}

/// Runs [`shop`]; returns its report, and who had said goodbye when it was over.
pub(crate) async fn visit() -> (Report, Vec<&'static str>) {
    let store = Rc::new(Store {
        prices: BTreeMap::from([("bread", 3), ("honey", 7), ("tea", 5)]),
        closed: RefCell::default(),
    });
    let shopping = Rc::clone(&store);
    let report = fiberback::run(move || shop(&shopping)).await;
    let closed = store.closed.borrow().clone();
    (report, closed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (report, closed) = visit().await;
    println!("in Iterator::map:  the items cost {} together", report.total);
    println!("in sort_by_key:    cheapest first: {}", report.cheapest_first.join(", "));
    println!("in Drop::drop:     sessions closed: {}", closed.join(", "));
}
