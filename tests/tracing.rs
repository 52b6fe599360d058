//! Feature `tracing`: spans follow their fibers, scoped subscribers too, and the crate's own events.
#![cfg(feature = "tracing")]

use fiberback::{Run, StackPool, await_};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{set_default, with_default};
use tracing::{Dispatch, Event, Level, Metadata, Span, Subscriber, info, info_span};
use tracing_core::span::Current;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

fn yield_once() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(
        move |_| {
            if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
        },
    )
}

/// Suspends the fiber until the next poll.
fn suspend() {
    await_(yield_once());
}

fn poll<T>(run: &mut Run<T>) -> Option<T> {
    match Pin::new(run).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// A layer above `Registry` that writes down who closes, and in which span an event happens.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

fn message(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        if event.metadata().target() == "fiberback" {
            return;
        }
        let span = context.event_span(event).map_or("-", |span| span.name());
        self.add(format!("{}@{span}", message(event)));
    }
    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        self.add(format!("close {}", context.span(&id).map_or("?", |span| span.name())));
    }
}

fn registry() -> (Log, Dispatch) {
    let log = Log::default();
    (log.clone(), Dispatch::new(Registry::default().with(log)))
}

/// The span that an event would be in.
fn here() -> &'static str {
    tracing::dispatcher::get_default(|dispatch| {
        dispatch.current_span().metadata().map_or("-", |metadata| metadata.name())
    })
}

/// Every span the thread is in, as far as can be seen; leaves none.
fn drain() -> Vec<&'static str> {
    let dispatch = tracing::dispatcher::get_default(Dispatch::clone);
    let mut names = Vec::new();
    while let Some((id, metadata)) = dispatch.current_span().into_inner() {
        dispatch.exit(&id);
        names.push(metadata.name());
        assert!(names.len() < 100, "{names:?}");
    }
    names
}

/// Runs with a registry as the scoped default, and checks that the thread is in no span afterwards.
fn with_registry(f: impl FnOnce(&Log)) {
    let (log, dispatch) = registry();
    tracing::dispatcher::with_default(&dispatch, || {
        f(&log);
        assert_eq!(drain(), [""; 0], "left on the thread");
    });
}

mod suspension {
    use super::*;

    #[test]
    fn spans_leave_and_come_back_in_order() {
        with_registry(|_| {
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                let _b = info_span!("b").entered();
                for _ in 0..3 {
                    suspend();
                    assert_eq!(here(), "b");
                }
                drop(_b);
                assert_eq!(here(), "a");
                suspend();
                assert_eq!(here(), "a");
                drop(_a);
                assert_eq!(here(), "-");
                suspend();
                assert_eq!(here(), "-");
            });
            for _ in 0..5 {
                assert!(poll(&mut run).is_none());
                assert_eq!(here(), "-");
            }
            assert!(poll(&mut run).is_some());
        });
    }

    #[test]
    fn the_callers_span_is_the_parent_and_stays() {
        with_registry(|log| {
            let caller = info_span!("caller");
            let mut run = fiberback::run(|| {
                info!("1");
                let inner = info_span!("inner").entered();
                info!("2");
                suspend();
                info!("3");
                drop(inner);
                info!("4");
            });
            for _ in 0..2 {
                let _guard = caller.enter();
                let _ = poll(&mut run);
                assert_eq!(here(), "caller");
            }
            assert_eq!(log.take(), ["1@caller", "2@inner", "3@inner", "close inner", "4@caller"]);
        });
    }

    #[test]
    fn another_caller_span_each_time() {
        with_registry(|log| {
            let mut run = fiberback::run(|| {
                info!("1");
                suspend();
                info!("2");
                let _inner = info_span!("inner").entered();
                suspend();
                info!("3");
                drop(_inner);
                info!("4");
            });
            for name in ["x", "y", "z"] {
                let guard = match name {
                    "x" => info_span!("x").entered(),
                    "y" => info_span!("y").entered(),
                    _ => info_span!("z").entered(),
                };
                let _ = poll(&mut run);
                assert_eq!(here(), name);
                drop(guard);
                assert_eq!(here(), "-");
            }
            let lines = log.take();
            assert!(lines.contains(&"1@x".to_owned()) && lines.contains(&"2@y".to_owned()));
            assert!(lines.contains(&"3@inner".to_owned()) && lines.contains(&"4@z".to_owned()));
        });
    }

    #[test]
    fn fibers_interleave() {
        with_registry(|_| {
            let spans = [info_span!("p"), info_span!("q"), info_span!("r")];
            let mut runs: Vec<_> = spans
                .iter()
                .map(|span| {
                    let (span, name) = (span.clone(), span.metadata().unwrap().name());
                    fiberback::run(move || {
                        let _outer = span.entered();
                        for _ in 0..4 {
                            suspend();
                            assert_eq!(here(), name);
                            let _inner = info_span!("inner").entered();
                            suspend();
                            assert_eq!(here(), "inner");
                        }
                    })
                })
                .collect();
            for round in 0..9 {
                for n in 0..3 {
                    // Another order each round.
                    let done = poll(&mut runs[(n * 2 + round) % 3]).is_some();
                    assert_eq!(done, round == 8);
                    assert_eq!(here(), "-");
                }
            }
        });
    }

    #[test]
    fn nested_runs() {
        with_registry(|_| {
            let caller = info_span!("caller").entered();
            let mut run = fiberback::run(|| {
                let _outer = info_span!("outer").entered();
                await_(fiberback::run(|| {
                    assert_eq!(here(), "outer");
                    let _inner = info_span!("inner").entered();
                    suspend();
                    assert_eq!(here(), "inner");
                    await_(fiberback::run(|| {
                        let _innermost = info_span!("innermost").entered();
                        suspend();
                        assert_eq!(here(), "innermost");
                    }));
                    assert_eq!(here(), "inner");
                }));
                assert_eq!(here(), "outer");
            });
            while poll(&mut run).is_none() {
                assert_eq!(here(), "caller");
            }
            assert_eq!(here(), "caller");
            drop(caller);
        });
    }

    #[test]
    fn exited_out_of_order() {
        with_registry(|_| {
            let mut run = fiberback::run(|| {
                let a = info_span!("a").entered();
                let b = info_span!("b").entered();
                let c = info_span!("c").entered();
                suspend();
                drop(b);
                suspend();
                assert_eq!(here(), "c");
                drop(c);
                assert_eq!(here(), "a");
                let d = info_span!("d").entered();
                drop(a);
                suspend();
                assert_eq!(here(), "d");
                drop(d);
            });
            while poll(&mut run).is_none() {
                assert_eq!(here(), "-");
            }
        });
    }

    #[test]
    fn a_panic_exits_them() {
        with_registry(|_| {
            let caller = info_span!("caller").entered();
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                suspend();
                std::panic::resume_unwind(Box::new(()));
            });
            assert!(poll(&mut run).is_none());
            let panicked =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut run)));
            assert!(panicked.is_err());
            assert_eq!(here(), "caller");
            drop(caller);
        });
    }

    #[test]
    fn a_forgotten_guard_leaves_with_the_fiber() {
        with_registry(|log| {
            let mut run = fiberback::run(|| {
                let span = info_span!("a");
                std::mem::forget(span.enter());
                suspend();
                assert_eq!(here(), "a");
                drop(span);
            });
            while poll(&mut run).is_none() {
                assert_eq!(here(), "-");
            }
            drop(run);
            assert_eq!(log.take(), ["close a"]);
        });
    }

    #[test]
    fn a_guard_of_the_callers_may_end_on_the_fiber() {
        with_registry(|_| {
            let outer = info_span!("outer").entered();
            let theirs = info_span!("theirs").entered();
            let mut run = fiberback::run(move || {
                suspend();
                assert_eq!(here(), "theirs");
                drop(theirs);
                assert_eq!(here(), "outer");
                suspend();
                assert_eq!(here(), "outer");
            });
            assert!(poll(&mut run).is_none());
            assert_eq!(here(), "theirs");
            assert!(poll(&mut run).is_none());
            assert_eq!(here(), "outer");
            assert!(poll(&mut run).is_some());
            drop(outer);
        });
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tokio_tasks() {
        use tracing::Instrument;
        let (log, dispatch) = registry();
        let _default = tracing::dispatcher::set_default(&dispatch);
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                let spawned: Vec<_> = (0..10)
                    .map(|n| {
                        let task = fiberback::run(move || {
                            let _inner = info_span!("inner").entered();
                            for _ in 0..n % 4 {
                                await_(tokio::task::yield_now());
                                assert_eq!(here(), "inner");
                            }
                        });
                        tokio::task::spawn_local(task.instrument(info_span!("task")))
                    })
                    .collect();
                for task in spawned {
                    task.await.unwrap();
                    assert_eq!(here(), "-");
                }
            })
            .await;
        let mut lines = log.take();
        lines.sort();
        let closed = ["close inner", "close task"].map(|line| vec![line; 10]).concat();
        assert_eq!(lines, closed);
        assert_eq!(drain(), [""; 0]);
    }
}

mod cancellation {
    use super::*;

    struct OnDrop<F: FnMut()>(F);

    impl<F: FnMut()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    #[test]
    fn destructors_run_in_their_spans() {
        with_registry(|log| {
            let caller = info_span!("caller");
            let mut run = fiberback::run(|| {
                let _first = OnDrop(|| info!("first"));
                let _a = info_span!("a").entered();
                let _second = OnDrop(|| info!("second"));
                let _b = info_span!("b").entered();
                let _third = OnDrop(|| info!("third"));
                await_(pending::<()>());
            });
            assert!(poll(&mut run).is_none());
            assert_eq!(here(), "-");
            caller.in_scope(|| {
                drop(run);
                assert_eq!(here(), "caller");
            });
            let expected = ["third@b", "close b", "second@a", "close a", "first@caller"];
            assert_eq!(log.take(), expected);
        });
    }

    #[test]
    fn without_ever_being_polled() {
        with_registry(|log| {
            let span = info_span!("a");
            drop(fiberback::run(move || drop(span.entered())));
            assert_eq!(log.take(), ["close a"]);
        });
    }

    #[test]
    fn with_a_nested_run() {
        with_registry(|log| {
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                await_(fiberback::run(|| {
                    let _b = info_span!("b").entered();
                    await_(pending::<()>());
                }));
            });
            assert!(poll(&mut run).is_none());
            drop(run);
            assert_eq!(log.take(), ["close b", "close a"]);
        });
    }

    #[test]
    fn a_leaked_run_leaves_nothing_on_the_thread() {
        with_registry(|_| {
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                await_(pending::<()>());
            });
            assert!(poll(&mut run).is_none());
            std::mem::forget(run);
        });
    }
}

mod duplicates {
    use super::*;

    /// `levels` spans are entered by the caller; the fiber enters number `again` of them, then
    /// others; nothing may be left whoever exits first.
    fn case(levels: usize, again: usize, times: usize, others: usize) {
        with_registry(|log| {
            let spans: Vec<_> = (0..levels).map(|n| info_span!("caller", n)).collect();
            let ids: Vec<_> = spans.iter().map(|span| span.id().unwrap()).collect();
            let duplicated = spans[again].clone();
            let mut run = fiberback::run(move || {
                let outer = (0..others).map(|_| info_span!("o").entered()).collect::<Vec<_>>();
                let guards = (0..times).map(|_| duplicated.clone().entered()).collect::<Vec<_>>();
                let inner = (0..others).map(|_| info_span!("i").entered()).collect::<Vec<_>>();
                for _ in 0..3 {
                    let before = Span::current().id();
                    suspend();
                    assert_eq!(Span::current().id(), before);
                }
                drop(inner);
                suspend();
                drop(guards);
                suspend();
                drop(outer);
            });
            loop {
                let guards: Vec<_> = spans.iter().map(|span| span.clone().entered()).collect();
                let done = poll(&mut run).is_some();
                // Innermost first, each uncovers the next, and nothing is left.
                let mut expected = ids.clone();
                for guard in guards.into_iter().rev() {
                    assert_eq!(Span::current().id(), expected.pop());
                    drop(guard);
                }
                assert_eq!(Span::current().id(), None);
                if done {
                    break;
                }
            }
            drop(run);
            drop(spans);
            let lines = log.take();
            assert_eq!(lines.len(), levels + 2 * others, "each closed once: {lines:?}");
        });
    }

    #[test]
    fn of_the_callers_own_span() {
        for times in 1..4 {
            case(1, 0, times, 0);
            case(1, 0, times, 2);
            case(3, 2, times, 1);
        }
    }

    #[test]
    fn of_an_ancestor() {
        for times in 1..4 {
            case(2, 0, times, 0);
            case(2, 0, times, 1);
            case(4, 1, times, 2);
        }
    }

    #[test]
    fn under_cancellation() {
        with_registry(|log| {
            let (outer, inner) = (info_span!("outer"), info_span!("inner"));
            let again = outer.clone();
            let mut run = fiberback::run(move || {
                let _again = again.entered();
                await_(pending::<()>());
            });
            {
                let _outer = outer.enter();
                let _inner = inner.enter();
                assert!(poll(&mut run).is_none());
                drop(run);
                assert_eq!(here(), "inner");
            }
            assert_eq!(log.take(), [""; 0]);
            drop((outer, inner));
            assert_eq!(log.take(), ["close outer", "close inner"]);
        });
    }

    #[test]
    fn of_the_callers_own_making() {
        with_registry(|_| {
            let (a, b) = (info_span!("a"), info_span!("b"));
            let mut run = fiberback::run(|| {
                suspend();
                let _c = info_span!("c").entered();
                suspend();
            });
            let first = a.enter();
            let second = b.enter();
            let third = a.enter();
            while poll(&mut run).is_none() {
                assert_eq!(here(), "b");
            }
            drop(third);
            assert_eq!(here(), "b");
            drop(second);
            assert_eq!(here(), "a");
            drop(first);
            assert_eq!(here(), "-");
        });
    }

    #[test]
    fn in_nested_runs_each_has_its_own() {
        with_registry(|_| {
            let caller = info_span!("caller");
            let (one, two) = (caller.clone(), caller.clone());
            let mut run = fiberback::run(move || {
                let mut inner = Box::pin(fiberback::run(move || {
                    let _two = two.entered();
                    suspend();
                    suspend();
                }));
                assert!(inner.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                let one = one.entered();
                await_(inner);
                assert_eq!(here(), "caller");
                drop(one);
                assert_eq!(here(), "caller");
            });
            let guard = caller.enter();
            while poll(&mut run).is_none() {
                assert_eq!(here(), "caller");
            }
            drop(guard);
            assert_eq!(here(), "-");
        });
    }
}

mod scoped_subscribers {
    use super::*;

    fn lines(log: &Log) -> Vec<String> {
        log.take()
    }

    #[test]
    fn with_default_on_the_fiber() {
        with_registry(|outer| {
            let (inner, dispatch) = registry();
            let mut run = fiberback::run(move || {
                info!("1");
                let _a = info_span!("a").entered();
                tracing::dispatcher::with_default(&dispatch, || {
                    info!("2");
                    let _b = info_span!("b").entered();
                    suspend();
                    info!("3");
                });
                info!("4");
                suspend();
                info!("5");
            });
            assert!(poll(&mut run).is_none());
            info!("caller");
            assert!(poll(&mut run).is_none());
            info!("caller");
            assert!(poll(&mut run).is_some());
            info!("caller");
            drop(run);
            info!("caller");
            assert_eq!(lines(&inner), ["2@-", "3@b", "close b"]);
            let expected =
                ["1@-", "caller@-", "4@a", "caller@-", "5@a", "close a", "caller@-", "caller@-"];
            assert_eq!(lines(outer), expected);
        });
    }

    #[test]
    fn set_default_on_the_fiber_of_a_caller_without_any() {
        // Makes `has_been_set` true, and leaves the thread without a default.
        with_registry(|_| ());
        let (inner, dispatch) = registry();
        let mut run = fiberback::run(move || {
            let guard = tracing::dispatcher::set_default(&dispatch);
            let _a = info_span!("a").entered();
            for n in 0..3 {
                info!(n, "in");
                suspend();
            }
            drop(guard);
            info!("nowhere");
            suspend();
            info!("nowhere");
        });
        while poll(&mut run).is_none() {
            info!("nowhere");
            assert_eq!(here(), "-");
        }
        info!("nowhere");
        drop(run);
        info!("nowhere");
        assert_eq!(lines(&inner), ["in@a", "in@a", "in@a", "close a"]);
    }

    #[test]
    fn fibers_with_one_each() {
        with_registry(|outer| {
            let mut logs = Vec::new();
            let mut runs: Vec<_> = (0..3)
                .map(|n| {
                    let (log, dispatch) = registry();
                    logs.push(log);
                    fiberback::run(move || {
                        let _default = tracing::dispatcher::set_default(&dispatch);
                        let _a = info_span!("a").entered();
                        for _ in 0..=n {
                            suspend();
                            info!("in");
                        }
                    })
                })
                .collect();
            for round in 0..4 {
                for (n, run) in runs.iter_mut().enumerate() {
                    if round <= n + 1 {
                        assert_eq!(poll(run).is_some(), round == n + 1);
                    }
                    info!("out");
                }
            }
            drop(runs);
            for log in &logs {
                let lines = lines(log);
                assert!(lines.iter().all(|line| line == "in@a" || line == "close a"), "{lines:?}");
                assert_eq!(lines.last().unwrap(), "close a");
            }
            assert!(lines(outer).iter().all(|line| line == "out@-"));
        });
    }

    #[test]
    fn cancelled_within_its_scope() {
        with_registry(|outer| {
            let (inner, dispatch) = registry();
            let mut run = fiberback::run(move || {
                let _a = info_span!("a").entered();
                tracing::dispatcher::with_default(&dispatch, || {
                    let _b = info_span!("b").entered();
                    await_(pending::<()>());
                });
            });
            assert!(poll(&mut run).is_none());
            info!("between");
            drop(run);
            info!("after");
            assert_eq!(lines(&inner), ["close b"]);
            assert_eq!(lines(outer), ["between@-", "close a", "after@-"]);
        });
    }

    #[test]
    fn resumed_under_another_subscriber() {
        let (first, one) = registry();
        let (second, two) = registry();
        let mut run = fiberback::run(|| {
            let _a = info_span!("a").entered();
            info!("1");
            suspend();
            info!("2");
            let b = info_span!("b").entered();
            info!("3");
            suspend();
            info!("4");
            drop(b);
        });
        use tracing::dispatcher::with_default;
        assert!(with_default(&one, || poll(&mut run)).is_none());
        // The fiber set no default of its own, but goes on with the one it started with, since
        // the two cannot be told apart.
        assert!(with_default(&two, || poll(&mut run)).is_none());
        with_default(&two, || info!("out"));
        with_default(&one, || {
            let _caller = info_span!("caller").entered();
            assert!(poll(&mut run).is_some());
            assert_eq!(here(), "caller");
        });
        drop(run);
        for dispatch in [&one, &two] {
            with_default(dispatch, || assert_eq!(drain(), [""; 0]));
        }
        let all = [lines(&first), lines(&second)].concat();
        for line in ["1@a", "2@a", "3@b", "4@b", "close a", "close b", "out@-", "close caller"] {
            assert_eq!(all.iter().filter(|other| *other == line).count(), 1, "{line}: {all:?}");
        }
    }

    #[test]
    fn a_subscriber_ends_when_its_scope_and_fibers_have() {
        struct Tell(Arc<()>);
        impl<S: Subscriber> Layer<S> for Tell {}
        let alive = Arc::new(());
        let layer = Tell(Arc::clone(&alive));
        assert_eq!(Arc::strong_count(&layer.0), 2);
        {
            let _default = set_default(Registry::default().with(layer));
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                suspend();
                suspend();
            });
            assert!(poll(&mut run).is_none());
            assert!(poll(&mut run).is_none());
            drop(run);
        }
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_guard_that_outlives_its_fiber_does_not_change_the_callers_default() {
        with_registry(|outer| {
            let (inner, dispatch) = registry();
            let mut run = fiberback::run(move || {
                std::mem::forget(tracing::dispatcher::set_default(&dispatch));
                info!("in");
                suspend();
                info!("in");
            });
            assert!(poll(&mut run).is_none());
            info!("out");
            assert!(poll(&mut run).is_some());
            info!("out");
            drop(run);
            info!("out");
            assert_eq!(lines(&inner), ["in@-"; 2]);
            assert_eq!(lines(outer), ["out@-"; 3]);
        });
    }
}

/// A subscriber that keeps the simplest of stacks, without `Registry`'s notion of duplicates, and
/// counts calls.
mod own_subscriber {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        stack: Vec<u64>,
        spans: HashMap<u64, (&'static Metadata<'static>, usize)>,
        made: u64,
        calls: Vec<String>,
        lookups: usize,
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Recorder>);

    impl Shared {
        fn calls(&self) -> Vec<String> {
            std::mem::take(&mut self.0.state.lock().unwrap().calls)
        }
        fn lookups(&self) -> usize {
            std::mem::take(&mut self.0.state.lock().unwrap().lookups)
        }
        fn depth(&self) -> usize {
            self.0.state.lock().unwrap().stack.len()
        }
        fn open(&self) -> usize {
            self.0.state.lock().unwrap().spans.len()
        }
    }

    impl Subscriber for Shared {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() != "fiberback"
        }
        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let mut state = self.0.state.lock().unwrap();
            state.made += 1;
            let id = state.made;
            state.spans.insert(id, (attributes.metadata(), 1));
            Id::from_u64(id)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, id: &Id) {
            let mut state = self.0.state.lock().unwrap();
            let name = state.spans[&id.into_u64()].0.name();
            state.stack.push(id.into_u64());
            state.calls.push(format!("+{name}"));
        }
        fn exit(&self, id: &Id) {
            let mut state = self.0.state.lock().unwrap();
            let name = state.spans[&id.into_u64()].0.name();
            let index = state.stack.iter().rposition(|&other| other == id.into_u64()).unwrap();
            state.stack.remove(index);
            state.calls.push(format!("-{name}"));
        }
        fn clone_span(&self, id: &Id) -> Id {
            self.0.state.lock().unwrap().spans.get_mut(&id.into_u64()).unwrap().1 += 1;
            id.clone()
        }
        fn try_close(&self, id: Id) -> bool {
            let mut state = self.0.state.lock().unwrap();
            let count = &mut state.spans.get_mut(&id.into_u64()).unwrap().1;
            *count -= 1;
            let last = *count == 0;
            if last {
                state.spans.remove(&id.into_u64());
            }
            last
        }
        fn current_span(&self) -> Current {
            let mut state = self.0.state.lock().unwrap();
            state.lookups += 1;
            match state.stack.last() {
                Some(&id) => Current::new(Id::from_u64(id), state.spans[&id].0),
                None => Current::none(),
            }
        }
    }

    #[test]
    fn sees_balanced_calls_in_order() {
        let recorder = Shared::default();
        with_default(recorder.clone(), || {
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                let _b = info_span!("b").entered();
                suspend();
                suspend();
            });
            assert!(poll(&mut run).is_none());
            assert_eq!(recorder.calls(), ["+a", "+b", "-b", "-a"]);
            assert!(poll(&mut run).is_none());
            assert_eq!(recorder.calls(), ["+a", "+b", "-b", "-a"]);
            assert!(poll(&mut run).is_some());
            assert_eq!(recorder.calls(), ["+a", "+b", "-b", "-a"]);
            drop(run);
            assert_eq!((recorder.depth(), recorder.open()), (0, 0));
        });
    }

    #[test]
    fn without_spans_it_is_asked_twice_a_resumption_and_told_nothing() {
        let recorder = Shared::default();
        let spans = || (0..1000).for_each(|_| suspend());
        with_default(recorder.clone(), || {
            let mut run = fiberback::run(spans);
            let mut polls = 0;
            while poll(&mut run).is_none() {
                polls += 1;
            }
            assert_eq!(polls, 1000);
            assert_eq!(recorder.calls(), [""; 0]);
            assert!(recorder.lookups() <= 4 * 1001, "scoped: looks through two lanes at most");
        });
    }

    #[test]
    fn duplicates_in_a_plain_stack() {
        let recorder = Shared::default();
        with_default(recorder.clone(), || {
            let (a, b) = (info_span!("a"), info_span!("b"));
            let (again, once_more) = (a.clone(), b.clone());
            let mut run = fiberback::run(move || {
                let _a = again.entered();
                let _c = info_span!("c").entered();
                let _b = once_more.entered();
                suspend();
                suspend();
            });
            let _a = a.enter();
            let _b = b.enter();
            while poll(&mut run).is_none() {
                assert_eq!(recorder.depth(), 2);
                assert_eq!(here(), "b");
            }
            assert_eq!(recorder.depth(), 2);
        });
        assert_eq!((recorder.depth(), recorder.open()), (0, 0));
    }

    #[test]
    fn one_that_does_not_tell_is_left_alone() {
        struct Mute;
        impl Subscriber for Mute {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, _: &Attributes<'_>) -> Id {
                Id::from_u64(1)
            }
            fn record(&self, _: &Id, _: &Record<'_>) {}
            fn record_follows_from(&self, _: &Id, _: &Id) {}
            fn event(&self, _: &Event<'_>) {}
            fn enter(&self, _: &Id) {}
            fn exit(&self, _: &Id) {}
        }
        with_default(Mute, || {
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                suspend();
            });
            while poll(&mut run).is_none() {}
        });
    }

    #[test]
    fn one_that_always_tells_the_same_does_not_hang_us() {
        struct Stuck;
        static CALLSITE: std::sync::OnceLock<&'static Metadata<'static>> =
            std::sync::OnceLock::new();
        impl Subscriber for Stuck {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, attributes: &Attributes<'_>) -> Id {
                let _ = CALLSITE.set(attributes.metadata());
                Id::from_u64(1)
            }
            fn record(&self, _: &Id, _: &Record<'_>) {}
            fn record_follows_from(&self, _: &Id, _: &Id) {}
            fn event(&self, _: &Event<'_>) {}
            fn enter(&self, _: &Id) {}
            fn exit(&self, _: &Id) {}
            fn current_span(&self) -> Current {
                match CALLSITE.get() {
                    Some(metadata) => Current::new(Id::from_u64(1), metadata),
                    None => Current::none(),
                }
            }
        }
        with_default(Stuck, || {
            let mut run = fiberback::run(|| {
                let _a = info_span!("a").entered();
                suspend();
            });
            while poll(&mut run).is_none() {}
        });
    }
}

mod own_events {
    use super::*;

    /// What the crate reports: level and message.
    #[derive(Clone, Default)]
    struct Reports(Rc<RefCell<Vec<(Level, String)>>>);

    thread_local! {
        static REPORTS: Reports = Reports::default();
    }

    struct Collect;

    impl<S: Subscriber> Layer<S> for Collect {
        fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
            if event.metadata().target() == "fiberback" {
                let report = (*event.metadata().level(), message(event));
                REPORTS.with(|reports| reports.0.borrow_mut().push(report));
                // A subscriber may use the library itself.
                let _ = StackPool::global().stats();
                let _ = StackPool::global().take();
            }
        }
    }

    fn reports_of(f: impl FnOnce()) -> Vec<(Level, String)> {
        with_default(Registry::default().with(Collect), f);
        REPORTS.with(|reports| std::mem::take(&mut *reports.0.borrow_mut()))
    }

    fn count(reports: &[(Level, String)], level: Level, text: &str) -> usize {
        reports.iter().filter(|report| report.0 == level && report.1.contains(text)).count()
    }

    #[test]
    fn fiber_created() {
        drop(StackPool::global().take());
        let reports = reports_of(|| {
            for _ in 0..3 {
                drop(fiberback::run(|| ()));
            }
        });
        assert_eq!(reports, vec![(Level::TRACE, "fiber created".to_owned()); 3]);
    }

    #[test]
    fn a_resumption_reports_nothing() {
        let reports = reports_of(|| {
            let mut run = fiberback::run(|| (0..10).for_each(|_| suspend()));
            REPORTS.with(|reports| reports.0.borrow_mut().clear());
            while poll(&mut run).is_none() {}
        });
        assert_eq!(reports, []);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pool_growth_and_trim() {
        let pool = StackPool::builder().build().unwrap();
        let reports = reports_of(|| drop(pool.take().unwrap()));
        assert_eq!(count(&reports, Level::DEBUG, "grew"), 1, "{reports:?}");
        assert_eq!(reports_of(|| drop(pool.take().unwrap())), [], "warm");
        let reports = reports_of(|| assert!(pool.trim() > 0));
        assert_eq!(count(&reports, Level::DEBUG, "trimmed"), 1, "{reports:?}");
        assert_eq!(reports_of(|| assert_eq!(pool.trim(), 0)), [], "nothing to trim");
    }

    #[test]
    fn exhaustion() {
        let pool = StackPool::builder().max_stacks(1).build().unwrap();
        let _only = pool.take().unwrap();
        let reports = reports_of(|| assert!(pool.take().unwrap_err().is_exhausted()));
        assert_eq!(count(&reports, Level::WARN, "no more stacks"), 1, "{reports:?}");
    }
}

/// A subscriber that panics when a span is entered, once told to.
struct Unruly(Arc<AtomicBool>);

impl<S: Subscriber> Layer<S> for Unruly {
    fn on_enter(&self, _: &Id, _: LayerContext<'_, S>) {
        if self.0.load(Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("on_enter"));
        }
    }
}

#[test]
fn a_fiber_is_unwound_although_the_subscriber_panics() {
    let unruly = Arc::new(AtomicBool::new(false));
    let cleaned_up = Rc::new(RefCell::new(Vec::new()));
    let log = cleaned_up.clone();
    with_default(Registry::default().with(Unruly(unruly.clone())), || {
        let mut run = fiberback::run(move || {
            // Destructors run on the fiber, where waiting is refused, and not anywhere else.
            let _guard = scopeguard::guard(log, |log| {
                log.borrow_mut().push(fiberback::on_fiber());
                log.borrow_mut().push(fiberback::try_await(pending::<()>()).is_err());
            });
            let _span = info_span!("of the fiber").entered();
            suspend();
            suspend();
        });
        assert_eq!(poll(&mut run), None);
        unruly.store(true, Ordering::Relaxed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(run)));
        assert_eq!(*cleaned_up.borrow(), [true, true]);
        unruly.store(false, Ordering::Relaxed);
        assert!(result.is_err(), "the subscriber's panic comes out");
    });
}

/// While a subscriber is told of an event, `tracing` keeps the thread's scoped default borrowed.
mod subscribers_that_wait {
    use super::*;
    use std::panic::catch_unwind;

    /// Calls a function for each event that is not the crate's.
    struct Told(Box<dyn Fn() + Send + Sync>);

    impl<S: Subscriber> Layer<S> for Told {
        fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
            if event.metadata().target() != "fiberback" {
                (self.0)();
            }
        }
    }

    fn telling(f: impl Fn() + Send + Sync + 'static) -> tracing::subscriber::DefaultGuard {
        set_default(Registry::default().with(Told(Box::new(f))))
    }

    #[test]
    fn are_refused_with_the_cure() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let _default = telling({
            let said = Arc::clone(&said);
            move || said.lock().unwrap().push(fiberback::try_await(yield_once()))
        });
        let mut run = fiberback::run(|| {
            let _span = info_span!("span").entered();
            info!("told of");
            assert!(fiberback::try_await(std::future::ready(())).is_ok());
            suspend();
            info!("told of");
            here()
        });
        assert!(poll(&mut run).is_none());
        assert_eq!(here(), "-", "what others of the thread have is not touched");
        assert_eq!(poll(&mut run), Some("span"));
        let said = std::mem::take(&mut *said.lock().unwrap());
        assert_eq!(said.len(), 2);
        for result in said {
            let error = result.unwrap_err();
            assert!(error.is_in_subscriber() && !error.is_cancelled() && !error.is_unwinding());
            let text = error.to_string();
            assert!(text.contains("subscriber") && text.contains("channel"), "{text}");
        }
    }

    #[test]
    fn panic_with_it_by_await() {
        let _default = telling(|| await_(yield_once()));
        let mut run = fiberback::run(|| {
            let panic = catch_unwind(|| info!("told of")).unwrap_err();
            suspend();
            *panic.downcast::<String>().unwrap()
        });
        assert!(poll(&mut run).is_none());
        let text = poll(&mut run).unwrap();
        assert!(text.contains("subscriber") && text.contains("channel"), "{text}");
    }

    #[test]
    fn may_wait_for_what_is_ready() {
        let _default = telling(|| await_(std::future::ready(())));
        let mut run = fiberback::run(|| info!("told of"));
        assert!(poll(&mut run).is_some());
    }

    /// What the subscriber itself drives is suspended above it, and is not in its way.
    #[test]
    fn may_poll_fibers_and_drop_them() {
        thread_local! {
            static RUNS: RefCell<Vec<Run<()>>> = const { RefCell::new(Vec::new()) };
        }
        fn spanned() {
            let _span = info_span!("own").entered();
            suspend();
            await_(pending::<()>());
        }
        let _default = telling(|| {
            let mut runs = RUNS.take();
            for run in &mut runs {
                assert!(poll(run).is_none());
            }
            runs.truncate(1);
            RUNS.set(runs);
        });
        let mut begun = [fiberback::run(spanned), fiberback::run(spanned)];
        assert!(begun.iter_mut().all(|run| poll(run).is_none()));
        RUNS.set(begun.into());
        info!("polls two, and drops one");
        assert_eq!(here(), "-");
        RUNS.take().truncate(0);
        assert_eq!(here(), "-");
        // On a fiber that tells it of something, too, and begun there.
        let mut outer = fiberback::run(|| {
            let _span = info_span!("outer").entered();
            RUNS.set(vec![fiberback::run(spanned)]);
            info!("polls one");
            suspend();
            let here = here();
            drop(RUNS.take());
            here
        });
        assert!(poll(&mut outer).is_none());
        assert_eq!(here(), "-");
        assert_eq!(poll(&mut outer), Some("outer"));
        assert_eq!(here(), "-");
    }
}
