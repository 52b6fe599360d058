//! `fiberback::stream`: iterators over streams, streams and sinks of synchronous code.
#![cfg(feature = "stream")]

mod io_support;

use fiberback::stream::{Items, SyncSink, from_fn, from_iter, into_sink, iter, try_from_fn};
use fiberback::{await_, run};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use io_support::{Census, Random, cut_off_everywhere, drive};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

fn pending<F: Future + ?Sized>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Pending so many times.
fn pause(mut times: usize) -> impl Future<Output = ()> {
    poll_fn(move |_| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        Poll::Pending
    })
}

/// Counts up, with pauses at random.
fn numbers(seed: u64, count: u32) -> impl Stream<Item = u32> + Unpin {
    let mut random = Random::new(seed);
    Box::pin(stream::iter(0..count).then(move |n| {
        let pauses = random.below(3);
        async move {
            pause(pauses).await;
            n
        }
    }))
}

#[test]
fn iterates_in_order_and_to_the_end() {
    for seed in 0..20 {
        let all = drive(run(move || iter(numbers(seed, 100)).collect::<Vec<_>>()));
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
    // Lent, and given back with the rest.
    let rest = drive(run(|| {
        let mut source = stream::iter(0..5);
        assert_eq!(iter(&mut source).take(2).collect::<Vec<_>>(), [0, 1]);
        let mut rest = iter(source);
        assert_eq!(rest.size_hint(), (3, Some(3)));
        assert_eq!(rest.try_next().unwrap(), Some(2));
        rest.into_inner().collect::<Vec<_>>()
    }));
    assert_eq!(drive(rest), [3, 4]);
}

#[test]
fn ready_streams_do_not_switch() {
    let mut summing = pin!(run(|| iter(stream::iter(0..1_000_u32)).sum::<u32>()));
    let polled = summing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(499_500));
}

#[test]
fn off_a_fiber_it_says_what_to_type() {
    let error = iter(stream::iter([1])).try_next().unwrap_err();
    assert!(error.is_off_fiber());
    let payload = catch_unwind(|| iter(stream::iter([1])).next()).unwrap_err();
    let message = payload.downcast_ref::<String>().unwrap();
    assert!(message.contains("fiberback::run"), "{message}");
}

#[test]
fn no_item_of_a_cancelled_iterator_is_lost() {
    for seed in 0..30 {
        let source = Rc::new(RefCell::new(numbers(seed, 60)));
        let got = Rc::new(RefCell::new(Vec::new()));
        let mut random = Random::new(seed);
        let mut cuts = 0;
        loop {
            let (ours, out) = (source.clone(), got.clone());
            let mut reading = Box::pin(run(move || {
                let shared =
                    stream::poll_fn(move |context| ours.borrow_mut().poll_next_unpin(context));
                iter(shared).for_each(|item| out.borrow_mut().push(item));
            }));
            if (0..1 + random.below(4)).any(|_| !pending(reading.as_mut())) {
                break;
            }
            cuts += 1;
        }
        assert_eq!(*got.borrow(), (0..60).collect::<Vec<_>>());
        assert!(cuts > 5, "{cuts}");
    }
}

#[test]
fn streams_what_an_iterator_waits_for() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let slow = (0..100).inspect(move |_| await_(pause(random.below(3))));
        let all: Vec<u32> = drive(from_iter(slow).collect());
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
    // There and back, twice.
    let inner = || from_iter(iter(numbers(7, 50)).map(|n| n + 1));
    let all: Vec<u32> = drive(from_iter(iter(inner()).filter(|n| n % 2 == 0)).collect());
    assert_eq!(all, (1..=25).map(|n| n * 2).collect::<Vec<_>>());
}

#[test]
fn runs_no_further_than_asked() {
    let made = Rc::new(Cell::new(0));
    let count = made.clone();
    let mut source = from_fn(move |yielder| {
        for n in 0..10 {
            count.set(n + 1);
            yielder.yield_(n);
        }
    });
    assert_eq!(made.get(), 0);
    for n in 0..5 {
        assert_eq!(drive(source.next()), Some(n));
        assert_eq!(made.get(), n + 1);
    }
    // A dropped `next` loses nothing.
    drop(source.next());
    assert_eq!(drive(source.next()), Some(5));
    drop(source);
    assert_eq!(made.get(), 6);
}

#[test]
fn a_producer_is_fused_and_panics_once() {
    let mut source = from_iter(0..1);
    assert_eq!(drive(source.next()), Some(0));
    assert_eq!(drive(source.next()), None);
    assert_eq!(drive(source.next()), None);
    assert_eq!(source.size_hint(), (0, Some(0)));

    let mut source = from_fn(|yielder| {
        yielder.yield_(1);
        panic!("on purpose");
    });
    assert_eq!(drive(source.next()), Some(1));
    let payload = catch_unwind(AssertUnwindSafe(|| drive(source.next()))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    assert_eq!(drive(source.next()), None);
}

#[test]
fn an_error_is_the_last_item() {
    let source = try_from_fn(|yielder| {
        yielder.yield_(1);
        yielder.try_yield(2).unwrap();
        Err("three")
    });
    assert_eq!(drive(source.collect::<Vec<_>>()), [Ok(1), Ok(2), Err("three")]);
}

#[test]
fn dropped_producers_leak_nothing() {
    let census = Census::default();
    let make = || {
        let citizen = census.enter();
        let mut random = Random::new(3);
        let census = census.clone();
        let items = from_fn(move |yielder| {
            let _citizen = citizen;
            for _ in 0..40 {
                await_(pause(random.below(2)));
                yielder.yield_(census.enter());
            }
        });
        items.for_each(|_| pause(1))
    };
    let cuts = cut_off_everywhere(make, || assert_eq!(census.alive(), 0));
    println!("producers were dropped at {cuts} points");
    assert!(cuts > 40, "{cuts}");

    // With an item that nobody took: yielded, then the stream is dropped by a poll of another.
    let refused = Rc::new(Cell::new(0));
    let count = refused.clone();
    let citizens = census.clone();
    let mut source = from_fn(move |yielder| {
        while yielder.try_yield(citizens.enter()).is_ok() {}
        // Cancelled: every further one is refused, too, and dropped.
        assert!(yielder.try_yield(citizens.enter()).unwrap_err().is_cancelled());
        count.set(1);
    });
    assert!(drive(source.next()).is_some());
    drop(source);
    assert_eq!((refused.get(), census.alive()), (1, 0));
}

/// A sink that takes an item after some polls, into a vector.
fn slow_sink(
    seed: u64,
    out: Rc<RefCell<Vec<u32>>>,
) -> impl futures_util::Sink<u32, Error = Infallible> + Unpin {
    let random = RefCell::new(Random::new(seed));
    Box::pin(futures_util::sink::unfold((), move |(), item| {
        let out = out.clone();
        let pauses = random.borrow_mut().below(3);
        async move {
            pause(pauses).await;
            out.borrow_mut().push(item);
            Ok(())
        }
    }))
}

#[test]
fn sends_from_synchronous_code() {
    for seed in 0..20 {
        let out = Rc::new(RefCell::new(Vec::new()));
        let sink = slow_sink(seed, out.clone());
        drive(run(move || {
            let mut sink = SyncSink::new(sink);
            (0..10).try_for_each(|n| sink.feed(n))?;
            sink.send(10)?;
            sink.send_all(11..20)?;
            sink.close()
        }))
        .unwrap();
        assert_eq!(*out.borrow(), (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_cancelled_sender_sends_a_prefix() {
    let out = RefCell::new(Rc::new(RefCell::new(Vec::new())));
    let make = || {
        *out.borrow_mut() = Rc::default();
        let sink = slow_sink(5, out.borrow().clone());
        run(move || SyncSink::new(sink).send_all(0..40))
    };
    let cuts = cut_off_everywhere(make, || {
        let got = out.borrow().borrow().clone();
        assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>());
    });
    assert_eq!(out.borrow().borrow().len(), 40);
    assert!(cuts > 10, "{cuts}");
}

#[test]
fn synchronous_code_as_a_sink() {
    for seed in 0..20 {
        let out = Rc::new(RefCell::new(Vec::new()));
        let ours = out.clone();
        let mut random = Random::new(seed);
        let mut sink = into_sink(move |items: Items<u32>| {
            for item in items {
                await_(pause(random.below(3)));
                ours.borrow_mut().push(item);
                if item == 30 {
                    return Err("thirty");
                }
            }
            ours.borrow_mut().push(99);
            Ok(())
        });
        drive(async {
            sink.send(1).await?;
            assert_eq!(*out.borrow(), [1], "flushed means dealt with");
            sink.send_all(&mut stream::iter([2, 3, 4].map(Ok))).await?;
            assert_eq!(*out.borrow(), [1, 2, 3, 4]);
            // A dropped flush loses nothing.
            sink.feed(5).await?;
            let _ = pending(pin!(sink.flush()));
            sink.flush().await?;
            assert_eq!(out.borrow().last(), Some(&5));
            if seed % 2 == 0 {
                sink.close().await?;
                assert_eq!(out.borrow().last(), Some(&99));
            } else {
                assert_eq!(sink.send(30).await, Err("thirty"));
            }
            assert!(sink.is_done());
            // Nobody is there any more.
            sink.send(6).await?;
            sink.close().await
        })
        .unwrap();
    }
}

#[test]
fn dropped_consumers_leak_nothing() {
    let census = Census::default();
    let make = || {
        let citizen = census.enter();
        let mut sink = into_sink(move |items: Items<_>| {
            let _citizen = citizen;
            for item in items {
                await_(pause(1));
                drop(item);
            }
            Ok::<_, Infallible>(())
        });
        let census = census.clone();
        async move {
            for _ in 0..20 {
                sink.feed(census.enter()).await.unwrap();
            }
            sink.close().await.unwrap();
        }
    };
    let cuts = cut_off_everywhere(make, || assert_eq!(census.alive(), 0));
    println!("consumers were dropped at {cuts} points");
    assert!(cuts >= 20, "{cuts}");
}

#[test]
fn a_consumer_that_panics_is_done() {
    let mut sink = into_sink(|mut items: Items<u32>| -> Result<(), Infallible> {
        items.next();
        panic!("on purpose")
    });
    let payload = catch_unwind(AssertUnwindSafe(|| drive(sink.send(1)))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    assert!(sink.is_done());
    drive(sink.send(2)).unwrap();
}

#[tokio::test]
async fn channels_of_all_kinds() {
    use tokio::sync::{broadcast, mpsc, oneshot, watch};
    let (sender, mut receiver) = mpsc::channel(1);
    let (events, mut subscriber) = broadcast::channel(100);
    let (state, mut watcher) = watch::channel(0);
    let (done, finished) = oneshot::channel();
    let producer = run(move || {
        for n in 1..=50 {
            await_(sender.send(n)).unwrap();
            events.send(n).unwrap();
            state.send(n).unwrap();
        }
        await_(finished).unwrap()
    });
    let consumer = run(move || {
        let sum: u32 = std::iter::from_fn(|| await_(receiver.recv())).take(50).sum();
        let heard: u32 = std::iter::from_fn(|| await_(subscriber.recv()).ok()).take(50).sum();
        let last = *await_(watcher.wait_for(|&n| n == 50)).unwrap();
        done.send("done").unwrap();
        (sum, heard, last)
    });
    assert_eq!(tokio::join!(producer, consumer), ("done", (1275, 1275, 50)));
}

/// Items that the code behind a sink has given to somebody else on the thread.
mod moved_items {
    use super::*;
    use std::time::Duration;
    use tokio::task::{LocalSet, spawn_local};

    /// On a current-thread runtime, where nobody polls who is not woken; a hang is a failure.
    fn on_tokio(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(LocalSet::new().run_until(async {
            tokio::time::timeout(Duration::from_secs(60), test).await.expect("hangs");
        }));
    }

    #[test]
    fn in_another_task() {
        on_tokio(async {
            let (tell, told) = tokio::sync::oneshot::channel();
            let mut sink = into_sink(move |items: Items<u32>| {
                // The sum is somebody else's work; this code waits for that.
                let other = spawn_local(run(move || {
                    items.inspect(|_| await_(tokio::task::yield_now())).sum::<u32>()
                }));
                tell.send(await_(other).unwrap()).map_err(drop)
            });
            for n in 1..=100 {
                if n % 3 == 0 {
                    sink.send(n).await.unwrap();
                } else {
                    sink.feed(n).await.unwrap();
                }
                if n % 10 == 0 {
                    tokio::time::sleep(Duration::from_micros(50)).await;
                }
            }
            sink.close().await.unwrap();
            assert_eq!(told.await, Ok(5050));
        });
    }

    #[test]
    fn in_a_future_with_a_waker_of_its_own_on_the_same_fiber() {
        on_tokio(async {
            let (tell, told) = tokio::sync::oneshot::channel();
            let mut sink = into_sink(move |items: Items<u32>| {
                let parts: stream::FuturesUnordered<_> =
                    [run(move || items.sum::<u32>())].into_iter().collect();
                tell.send(await_(parts.collect::<Vec<_>>())).map_err(drop)
            });
            for n in 1..=10 {
                sink.send(n).await.unwrap();
            }
            sink.close().await.unwrap();
            assert_eq!(told.await, Ok(vec![55]));
        });
    }

    #[test]
    fn end_when_the_code_returns_or_the_sink_is_dropped() {
        on_tokio(async {
            for returns in [true, false] {
                let (give, mut given) = tokio::sync::mpsc::channel(1);
                let mut sink = into_sink(move |items: Items<u32>| {
                    give.try_send(items).map_err(drop)?;
                    if !returns {
                        await_(std::future::pending::<()>());
                    }
                    Ok::<_, ()>(())
                });
                assert_eq!(pending(pin!(sink.flush())), !returns);
                let items = given.recv().await.unwrap();
                let other = spawn_local(run(move || items.count()));
                tokio::task::yield_now().await;
                assert_eq!(other.is_finished(), returns);
                drop(sink);
                assert_eq!(other.await.unwrap(), 0);
            }
        });
    }
}
