//! Scripts in a synchronous engine whose host functions await.
//!
//! ```text
//! cargo run --example script_rhai
//! ```
//!
//! `rhai` calls host functions as plain closures: there is no way to make one `async`. On a fiber
//! they wait, and several scripts run at the same time on one thread. Dropping a script's future
//! stops it wherever it is.

use rhai::{Engine, EvalAltResult};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What happened, in order.
pub(crate) type Log = Rc<RefCell<Vec<String>>>;

/// Stands for a request over the network.
async fn fetch(key: &str) -> Result<i64, String> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    match key {
        "apples" => Ok(3),
        "pears" => Ok(4),
        _ => Err(format!("no {key} here")),
    }
}

/// An engine whose scripts can `fetch`, `sleep_ms` and `log`.
fn engine(log: Log) -> Engine {
    let mut engine = Engine::new();
    engine.register_fn("fetch", |key: &str| -> Result<i64, Box<EvalAltResult>> {
        // The wait. An `Err` becomes the script's exception.
        Ok(fiberback::await_(fetch(key))?)
    });
    engine.register_fn("sleep_ms", |ms: i64| {
        fiberback::await_(tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())));
    });
    engine.register_fn("log", move |line: &str| log.borrow_mut().push(line.to_owned()));
    // A script that only computes lets others have a turn now and then, too; and when it is
    // cancelled, this is where it ends.
    engine.on_progress(|operations| {
        if operations % 1_000 == 0 {
            fiberback::yield_now();
        }
        None
    });
    engine
}

/// Runs a script as a future.
pub(crate) async fn evaluate(script: &'static str, log: Log) -> Result<i64, String> {
    fiberback::Builder::new()
        .name("script")
        // An interpreter recurses.
        .stack_size(4 << 20)
        .run(move || engine(log).eval::<i64>(script).map_err(|error| error.to_string()))
        .map_err(|error| error.to_string())?
        .await
}

pub(crate) const SHOPPING: &str = r#"
    let total = 0;
    for fruit in ["apples", "pears"] {
        let count = fetch(fruit);
        log(`${fruit}: ${count}`);
        total += count;
    }
    try { fetch("plums") } catch (error) { log(error) }
    total
"#;

pub(crate) const CLOCK: &str = r#"
    for tick in 0..3 { log(`tick ${tick}`); sleep_ms(1); }
    0
"#;

pub(crate) const ENDLESS: &str = "let n = 0; loop { n += 1; }";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let log = Log::default();
    let (total, clock) =
        tokio::join!(evaluate(SHOPPING, log.clone()), evaluate(CLOCK, log.clone()));
    println!("total {total:?}, clock {clock:?}, log {:?}", log.borrow());
    let endless = evaluate(ENDLESS, log);
    let stopped = tokio::time::timeout(Duration::from_millis(20), endless).await.is_err();
    println!("the endless script was stopped: {stopped}");
}
