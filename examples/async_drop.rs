//! Destructors that await.
//!
//! ```text
//! cargo run --example async_drop
//! ```
//!
//! `Drop::drop` is synchronous, so async programs end transactions and sessions by hand, or in a
//! task that nobody waits for. On a fiber a destructor waits, and when the scope is left the work is
//! done. It uses `try_await`, since a destructor also runs where nobody can wait: off a fiber, during
//! a panic, and when the fiber is cancelled. It must have a plan for that.

use fiberback::try_await;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What the server was told, in order.
pub(crate) type Log = Rc<RefCell<Vec<&'static str>>>;

/// A session that says goodbye to its server.
pub(crate) struct Session {
    log: Log,
}

impl Session {
    pub(crate) fn open(log: &Log) -> Self {
        log.borrow_mut().push("hello");
        Self { log: log.clone() }
    }

    async fn say_goodbye(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.log.borrow_mut().push("goodbye");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if try_await(self.say_goodbye()).is_err() {
            // Plan B, which does not wait: here, cut the connection.
            self.log.borrow_mut().push("(cut off)");
        }
    }
}

/// Leaves a scope with a session in it: in the normal way, or early by `?`.
pub(crate) fn use_session(log: &Log, fail: bool) -> Result<(), &'static str> {
    let _session = Session::open(log);
    if fail {
        return Err("early");
    }
    log.borrow_mut().push("work");
    Ok(())
}

/// A normal end, an early one, one off a fiber, and one that is cancelled.
pub(crate) async fn sessions() -> Vec<&'static str> {
    let log = Log::default();
    let ours = log.clone();
    let results = fiberback::run(move || (use_session(&ours, false), use_session(&ours, true)));
    assert_eq!(results.await, (Ok(()), Err("early")));

    assert_eq!(use_session(&log, false), Ok(()));

    let ours = log.clone();
    let stuck = fiberback::run(move || {
        let _session = Session::open(&ours);
        fiberback::await_(std::future::pending::<()>());
    });
    let _ = tokio::time::timeout(Duration::from_millis(1), stuck).await;
    log.take()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{:?}", sessions().await);
}
