//! Cancelling synchronous code in the middle.
//!
//! ```text
//! cargo run --example cancellation
//! ```
//!
//! In tokio a future is cancelled by dropping it: a timeout does that, and `select!` to the
//! branches that lose. When what is dropped is a `fiberback::Run`, there is a synchronous call
//! stack to tidy up. `await_`, where that stack waits, then unwinds it, so that every destructor
//! runs. Code that would rather return an error waits with `try_await` and asks `is_cancelled()`.

use fiberback::AwaitError;
use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What happened, in order.
type Log = Rc<RefCell<Vec<&'static str>>>;

/// Something that must not be left behind: a lock file, a transaction.
struct Transaction(Log);

impl Transaction {
    fn begin(log: &Log) -> Self {
        log.borrow_mut().push("begin");
        Self(Rc::clone(log))
    }

    fn commit(self) {
        self.0.borrow_mut().push("commit");
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.0.borrow_mut().push("end of transaction");
    }
}

/// Waits with `await_`: cancellation unwinds it, like a panic without the message.
fn transfer(log: &Log, duration: Duration) {
    let transaction = Transaction::begin(log);
    fiberback::await_(sleep(duration));
    transaction.commit();
}

/// Waits with `try_await`: cancellation is an error to handle and pass on.
fn transfer_or_err(log: &Log) -> Result<(), AwaitError> {
    let transaction = Transaction::begin(log);
    if let Err(error) = fiberback::try_await(pending::<()>()) {
        if error.is_cancelled() {
            log.borrow_mut().push("told that it is cancelled");
        }
        return Err(error);
    }
    transaction.commit();
    Ok(())
}

/// In time: nothing is cancelled.
pub(crate) async fn in_time() -> Vec<&'static str> {
    let log = Log::default();
    let inner = Rc::clone(&log);
    let run = fiberback::run(move || transfer(&inner, Duration::from_millis(1)));
    let result = timeout(Duration::from_secs(60), run).await;
    log.borrow_mut().push(if result.is_ok() { "done" } else { "timed out" });
    log.take()
}

/// Dropped by `timeout`, unwound.
pub(crate) async fn too_late() -> Vec<&'static str> {
    let log = Log::default();
    let inner = Rc::clone(&log);
    let run = fiberback::run(move || transfer(&inner, Duration::from_secs(3600)));
    let result = timeout(Duration::from_millis(5), run).await;
    log.borrow_mut().push(if result.is_ok() { "done" } else { "timed out" });
    log.take()
}

/// Dropped by `select!`, told.
pub(crate) async fn outrun() -> Vec<&'static str> {
    let log = Log::default();
    let inner = Rc::clone(&log);
    let winner = tokio::select! {
        _ = fiberback::run(move || transfer_or_err(&inner)) => "the transfer came first",
        () = sleep(Duration::from_millis(5)) => "the other branch came first",
    };
    log.borrow_mut().push(winner);
    log.take()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("in time:            {}", in_time().await.join(", "));
    println!("timeout, await_:    {}", too_late().await.join(", "));
    println!("select!, try_await: {}", outrun().await.join(", "));
}
