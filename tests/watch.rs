//! `watch()`: which fiber keeps its thread from the others. What is watched blocks until it has been reported.
#![cfg(feature = "dump")]

use fiberback::{Blocked, Builder, Run, Watch, await_, scope, watch};
use std::future::pending;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

const THRESHOLD: Duration = Duration::from_millis(20);

/// A watcher sees all fibers of the process, those of other tests included.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports come one by one; the next is made when this one has been taken.
fn watching() -> (Watch, Receiver<Blocked>) {
    let (tell, told) = channel();
    let watch = watch(THRESHOLD, move |blocked| drop(tell.send(blocked.clone()))).unwrap();
    (watch, told)
}

fn named<T>(name: &str, f: impl FnOnce() -> T + 'static) -> Run<T> {
    Builder::new().name(name).run(f).unwrap()
}

fn poll<T>(run: &mut Run<T>) -> Poll<T> {
    Pin::new(run).poll(&mut Context::from_waker(Waker::noop()))
}

/// A suspended fiber, with this name.
fn waits(name: &str) -> Run<()> {
    let mut run = named(name, || await_(pending::<()>()));
    assert!(poll(&mut run).is_pending());
    run
}

/// What is blocked at, and what ends that.
fn gate() -> (Sender<()>, Receiver<()>) {
    channel()
}

fn is_of(blocked: &Blocked, name: &str) -> bool {
    blocked.name() == Some(name)
}

fn waiting(blocked: &Blocked) -> Vec<&str> {
    let mut names: Vec<_> =
        blocked.waiting().iter().map(|waiting| waiting.name().unwrap_or("?")).collect();
    names.sort_unstable();
    names
}

/// Runs `block`, with a fiber beside it, on a thread of its own, until it has been reported.
fn report_of(block: impl FnOnce(Receiver<()>) + Send + 'static) -> Blocked {
    let _alone = alone();
    let (_watch, told) = watching();
    let (open, blocks_on) = gate();
    let thread = thread::Builder::new().name("kept".to_owned());
    let thread = thread.spawn(move || {
        let _other = waits("other");
        let mut run = named("blocks", move || block(blocks_on));
        assert!(poll(&mut run).is_ready());
    });
    let blocked = told.recv().unwrap();
    drop(open);
    thread.unwrap().join().unwrap();
    assert!(is_of(&blocked, "blocks"), "{blocked}");
    assert_eq!(waiting(&blocked), ["other"], "{blocked}");
    assert_eq!(blocked.thread_name(), Some("kept"));
    assert!(blocked.lasted() >= THRESHOLD, "{blocked}");
    assert_eq!((blocked.made_at().file(), blocked.waited_at()), (file!(), None));
    blocked
}

/// Another fiber that blocks for a while is reported next.
fn reports_a_short_one(told: &Receiver<Blocked>) {
    let (open, blocks_on) = gate();
    let short = thread::spawn(move || {
        let _other = waits("other");
        let mut run = named("short", move || {
            let _ = blocks_on.recv();
        });
        assert!(poll(&mut run).is_ready());
    });
    let blocked = told.recv().unwrap();
    assert!(is_of(&blocked, "short"), "{blocked}");
    drop(open);
    short.join().unwrap();
}

#[test]
fn one_that_waits_for_a_channel() {
    let blocked = report_of(|blocks_on| {
        let _ = blocks_on.recv();
    });
    let text = blocked.to_string();
    assert!(
        text.starts_with("fiberback: fiber \"blocks\" has kept thread \"kept\" for "),
        "{text}"
    );
    assert!(text.contains("has not waited yet"), "{text}");
    assert!(text.ends_with("\n1 suspended meanwhile: \"other\""), "{text}");
    // In a container /proc may not tell.
    assert!(text.contains("`await_(receiver.recv())`") || text.contains("It blocks or"), "{text}");
}

#[test]
fn one_that_waits_for_a_once_lock() {
    static ONCE: OnceLock<()> = OnceLock::new();
    let (begun, has_begun) = gate();
    let (end, may_end) = gate();
    let initialises = thread::spawn(move || {
        ONCE.get_or_init(|| {
            begun.send(()).unwrap();
            let _ = may_end.recv();
        });
    });
    has_begun.recv().unwrap();
    let blocked = report_of(move |blocks_on| {
        // Ends the initialiser once this has been reported.
        thread::spawn(move || {
            let _ = blocks_on.recv();
            drop(end);
        });
        ONCE.get_or_init(|| unreachable!("the other thread does"));
    });
    assert!(!blocked.to_string().contains("computes:"), "{blocked}");
    initialises.join().unwrap();
}

#[test]
fn one_that_computes() {
    let blocked = report_of(|blocks_on| {
        while blocks_on.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            std::hint::spin_loop();
        }
    });
    let text = blocked.to_string();
    assert!(
        text.contains("It computes: call `fiberback::yield_now()`")
            || text.contains("It blocks or"),
        "{text}"
    );
}

#[test]
fn each_incident_once_and_the_next_again() {
    let _alone = alone();
    let (_watch, told) = watching();
    let (open_first, first) = gate();
    let (open_second, second) = gate();
    let line = Arc::new(OnceLock::new());
    let its_line = Arc::clone(&line);
    let long = thread::spawn(move || {
        let _other = waits("beside");
        let mut run = named("blocks twice", move || {
            let _ = first.recv();
            let mut is_first = true;
            its_line.set(line!() + 1).unwrap();
            await_(std::future::poll_fn(|_| {
                if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
            }));
            let _ = second.recv();
        });
        assert!(poll(&mut run).is_pending());
        assert!(poll(&mut run).is_ready());
    });
    let blocked = told.recv().unwrap();
    assert!(is_of(&blocked, "blocks twice"), "{blocked}");
    // Others are reported meanwhile, each after more than the threshold; this one is not again.
    for _ in 0..3 {
        reports_a_short_one(&told);
    }
    drop(open_first);
    let blocked = told.recv().unwrap();
    assert!(is_of(&blocked, "blocks twice"), "{blocked}");
    assert_eq!(blocked.waited_at().unwrap().line(), *line.get().unwrap());
    drop(open_second);
    long.join().unwrap();
}

#[test]
fn one_that_keeps_nobody_is_not_reported() {
    let _alone = alone();
    let (_watch, told) = watching();
    let (open, blocks_on) = gate();
    let (begun, has_begun) = gate();
    let lonely = thread::spawn(move || {
        let mut run = named("lonely", move || {
            begun.send(()).unwrap();
            let _ = blocks_on.recv();
        });
        assert!(poll(&mut run).is_ready());
    });
    has_begun.recv().unwrap();
    for _ in 0..3 {
        reports_a_short_one(&told);
    }
    drop(open);
    lonely.join().unwrap();
}

#[test]
fn in_a_scope_it_is_the_member() {
    let _alone = alone();
    let (_watch, told) = watching();
    let (open, blocks_on) = gate();
    let thread = thread::spawn(move || {
        let mut run = named("owner", move || {
            scope(|s| {
                let member = |name: &str| Builder::new().name(name);
                let sibling = s.spawn_with(&member("sibling"), || await_(pending::<()>())).unwrap();
                s.spawn_with(&member("member"), move || {
                    let _ = blocks_on.recv();
                    sibling.cancel();
                })
                .unwrap();
            });
        });
        while poll(&mut run).is_pending() {}
    });
    let blocked = told.recv().unwrap();
    drop(open);
    thread.join().unwrap();
    assert!(is_of(&blocked, "member"), "{blocked}");
    // The scope's own code has ended; its owner is on the stack below.
    assert_eq!(waiting(&blocked), ["sibling"], "{blocked}");
}

#[test]
fn nothing_is_reported_after_it_was_dropped() {
    let _alone = alone();
    let (watch, told) = watching();
    drop(watch);
    // Ends when the watcher's thread does, which drops the other end.
    assert!(told.recv().is_err());
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use super::*;
    use fiberback::tokio::{PinnedPool, spawn_local};
    use tokio::task::{LocalSet, yield_now};

    #[test]
    fn in_a_local_set() {
        let _alone = alone();
        let (_watch, told) = watching();
        let (open, blocks_on) = gate();
        let taken = thread::spawn(move || {
            // A thread that does not get the processor for so long may be reported before it blocks.
            let blocked = told.iter().find(|blocked| blocked.waited_at().is_some()).unwrap();
            drop(open);
            blocked
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let other = tokio::task::spawn_local(named("other", || await_(pending::<()>())));
            yield_now().await;
            spawn_local(move || {
                await_(yield_now());
                let _ = blocks_on.recv();
            })
            .await
            .unwrap();
            other.abort();
        });
        let blocked = taken.join().unwrap();
        assert_eq!((blocked.name(), waiting(&blocked)), (None, vec!["other"]), "{blocked}");
        assert_eq!(blocked.waited_at().unwrap().file(), file!());
        assert!(blocked.to_string().contains("fiber without a name"), "{blocked}");
    }

    #[test]
    fn in_a_pinned_pool() {
        let _alone = alone();
        let (_watch, told) = watching();
        let (open, blocks_on) = gate();
        let pool = PinnedPool::builder().worker_threads(1).thread_name("job").build().unwrap();
        let other = pool.spawn_named("other", || await_(pending::<()>()));
        let job = pool.spawn_named("blocks", move || {
            let _ = blocks_on.recv();
        });
        let blocked = told.recv().unwrap();
        drop(open);
        other.abort();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(job).unwrap();
        assert!(is_of(&blocked, "blocks"), "{blocked}");
        assert_eq!((blocked.thread_name(), waiting(&blocked)), (Some("job-0"), vec!["other"]));
    }
}
