//! Synchronous callbacks that await: script engines, `serde`, destructors. And the examples of `io`
//! and `stream`, each run.
#![cfg(feature = "tokio")]

#[allow(dead_code)]
#[path = "../examples/async_drop.rs"]
mod async_drop;
#[allow(dead_code)]
#[path = "../examples/script_rhai.rs"]
mod script_rhai;
#[allow(dead_code)]
#[path = "../examples/serde_fetch.rs"]
mod serde_fetch;
#[cfg(feature = "stream")]
#[allow(dead_code)]
#[path = "../examples/stream_pages.rs"]
mod stream_pages;
#[cfg(feature = "io")]
#[allow(dead_code)]
#[path = "../examples/sync_io_archive.rs"]
mod sync_io_archive;
#[cfg(feature = "io")]
#[allow(dead_code)]
#[path = "../examples/sync_io_tls.rs"]
mod sync_io_tls;

use script_rhai::{CLOCK, ENDLESS, Log, SHOPPING, evaluate};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

#[tokio::test]
async fn scripts_wait_in_host_functions() {
    let log = Log::default();
    assert_eq!(evaluate(SHOPPING, log.clone()).await, Ok(7));
    assert_eq!(*log.borrow(), ["apples: 3", "pears: 4", "no plums here"]);
}

#[tokio::test(start_paused = true)]
async fn scripts_overlap() {
    let log = Log::default();
    let (total, clock) =
        tokio::join!(evaluate(SHOPPING, log.clone()), evaluate(CLOCK, log.clone()));
    assert_eq!((total, clock), (Ok(7), Ok(0)));
    // In the order of a clock that is simulated: 0, 1 and 2 ms against 2, 4 and 6 ms.
    let log = log.borrow();
    let position = |line: &str| log.iter().position(|entry| entry == line).unwrap();
    assert_eq!(position("tick 0"), 0);
    assert_eq!(position("tick 1"), 1);
    assert!(position("tick 2") < position("pears: 4"), "{log:?}");
    assert_eq!(log.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn many_scripts_wait_at_once() {
    let began = tokio::time::Instant::now();
    let local = tokio::task::LocalSet::new();
    let scripts: Vec<_> = (0..200)
        .map(|_| local.spawn_local(evaluate("sleep_ms(1000); fetch(\"apples\")", Log::default())))
        .collect();
    local.await;
    for script in scripts {
        assert_eq!(script.await.unwrap(), Ok(3));
    }
    // Simulated time, so this is not a measurement: one second, not two hundred.
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn script_errors_have_their_position() {
    let error = evaluate("1 + fetch(\"plums\")", Log::default()).await.unwrap_err();
    assert!(error.contains("no plums here") && error.contains("position"), "{error}");
}

#[tokio::test]
async fn a_script_without_end_can_be_dropped() {
    let log = Log::default();
    {
        let mut endless = pin!(evaluate(ENDLESS, log.clone()));
        for _ in 0..10 {
            assert!(endless.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    // All of its engine is gone.
    assert_eq!(std::rc::Rc::strong_count(&log), 1);
}

#[tokio::test]
async fn deserialising_waits() {
    let comments = serde_fetch::comments(serde_fetch::DOCUMENT).await.unwrap();
    let authors: Vec<_> = comments.iter().map(|comment| &comment.author.0[..]).collect();
    assert_eq!(authors, ["Ada", "Grace"]);
    let error = serde_fetch::comments(r#"[{"author": 9, "text": ""}]"#).await.unwrap_err();
    assert!(error.to_string().starts_with("there is no user 9 at line 1"), "{error}");
    // Off a fiber: an error that says what to do, with its place in the document.
    let error = serde_json::from_str::<Vec<serde_fetch::Comment>>(serde_fetch::DOCUMENT);
    assert!(error.unwrap_err().to_string().contains("fiberback::run"));
}

#[tokio::test]
async fn destructors_wait_where_they_can() {
    assert_eq!(
        async_drop::sessions().await,
        [
            // To the end, and early.
            "hello",
            "work",
            "goodbye",
            "hello",
            "goodbye",
            // Off a fiber, and cancelled.
            "hello",
            "work",
            "(cut off)",
            "hello",
            "(cut off)",
        ]
    );
}

#[cfg(feature = "io")]
#[tokio::test]
async fn archives_pass_through_a_socket() {
    let files: Vec<_> = (0..20).map(|n| (format!("dir/{n}"), vec![n as u8; n * n * 997])).collect();
    assert_eq!(sync_io_archive::transfer(files.clone()).await.unwrap(), files);
}

#[cfg(feature = "io")]
#[tokio::test]
async fn tls_converses() {
    let (answers, lines) = sync_io_tls::converse(&["hello", "over", "tls"]).await.unwrap();
    assert_eq!(answers, ["HELLO", "OVER", "TLS"]);
    assert_eq!(lines, 3);
}

#[cfg(feature = "stream")]
#[tokio::test]
async fn pages_become_items() {
    assert_eq!(stream_pages::totals().await, [0, 1, 3, 6, 10, 15, 21, 28, 36, 45]);
    assert_eq!(stream_pages::sum_of_slow_stream().await, 10);
}
