//! Threads that wait for a fiber's event loop.

mod support;

use fiberback::{Remote, await_, block_on, remote, run, try_remote};
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;
use support::{OnDrop, poll_once, text, yield_once, yields};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_blocking};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn here() -> ThreadId {
    tokio::time::sleep(Duration::from_millis(1)).await;
    thread::current().id()
}

/// A fiber that waits on a thread and loop of its own until it is told to stop; the thread returns its id.
fn a_fiber_elsewhere() -> (Remote, oneshot::Sender<()>, thread::JoinHandle<ThreadId>) {
    let (send, receive) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let loops = thread::spawn(move || {
        current_thread().block_on(run(move || {
            send.send(remote()).unwrap();
            let _ = await_(stopped);
        }));
        thread::current().id()
    });
    (receive.recv().unwrap(), stop, loops)
}

/// Runs `work` on a plain thread, while the fiber waits.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::Result<T> {
    let (done, is_done) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        work()
    });
    let _ = await_(is_done);
    thread.join()
}

/// Sends when dropped: where, by way of a thread id.
struct TellsDrop(mpsc::Sender<ThreadId>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

#[test]
fn the_future_runs_on_the_fibers_thread() {
    let loops = thread::current().id();
    current_thread().block_on(run(move || {
        let remote = remote();
        let (threads, ran) = on_a_thread(move || {
            (thread::current().id(), (remote.await_(here()), remote.await_(here())))
        })
        .unwrap();
        assert_ne!(threads, loops);
        assert_eq!(ran, (loops, loops));
    }));
}

#[test]
fn many_threads_wait_at_once() {
    let sum: usize = current_thread().block_on(run(|| {
        let remote = remote();
        let mut results = Vec::new();
        for _ in 0..8 {
            let remote = remote.clone();
            let (tell, told) = oneshot::channel();
            thread::spawn(move || {
                let sum: usize = (0..100)
                    .map(|n| {
                        remote.await_(async move {
                            yields(n % 3).await;
                            tokio::task::yield_now().await;
                            n
                        })
                    })
                    .sum();
                tell.send(sum).unwrap();
            });
            results.push(told);
        }
        results.into_iter().map(|result| await_(result).unwrap()).sum()
    }));
    assert_eq!(sum, 8 * 99 * 50);
}

/// Threads that are neither plain nor tokio's, also while the fiber is cancelled: they all come back.
#[test]
fn rayons_threads_wait() {
    use rayon::iter::{IntoParallelIterator, ParallelIterator};

    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
    let work = move || {
        let (remote, pool) = (remote(), Arc::clone(&pool));
        await_(spawn_blocking(move || {
            let all = (0..64).into_par_iter().map(|n| {
                remote.try_await(async move {
                    tokio::time::sleep(Duration::from_millis(n % 3)).await;
                    n
                })
            });
            pool.install(|| all.collect::<Result<Vec<_>, _>>())
        }))
        .unwrap()
    };
    let runtime = current_thread();
    assert_eq!(runtime.block_on(run(work.clone())), Ok((0..64).collect()));
    let mut cancelled = 0;
    for polls in 1..20 {
        let mut run = Box::pin(run(work.clone()));
        cancelled += runtime.block_on(async {
            for _ in 0..polls {
                if poll_once(&mut run).is_ready() {
                    return 0;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(run);
            1
        });
    }
    assert_ne!(cancelled, 0);
    // None of its threads is still waiting for a fiber that is gone.
    assert_eq!(runtime.block_on(run(work)), Ok((0..64).collect()));
}

#[test]
fn what_belongs_to_the_loops_thread_is_there() {
    let runtime = current_thread();
    let local = LocalSet::new();
    let answer = local.block_on(
        &runtime,
        run(|| {
            let remote = remote();
            await_(spawn_blocking(move || {
                remote.await_(async { tokio::task::spawn_local(async { 7 }).await.unwrap() })
            }))
            .unwrap()
        }),
    );
    assert_eq!(answer, 7);
}

/// No tokio: an executor that polls when it is woken.
#[test]
fn any_executor_will_do() {
    let answer = block_on(async {
        let (tell, told) = mpsc::channel();
        let mut run = run(move || {
            let remote = remote();
            on_a_thread(move || {
                let _ = told.recv();
                remote.await_(async {
                    yield_once().await;
                    5
                })
            })
        });
        poll_fn(move |context| {
            let polled = std::pin::Pin::new(&mut run).poll(context);
            let _ = tell.send(()); // only when the fiber has waited
            polled
        })
        .await
    });
    assert_eq!(answer.unwrap(), 5);
}

#[test]
fn a_fiber_waits_without_blocking() {
    let (theirs, stop, loops) = a_fiber_elsewhere();
    let turns = Rc::new(Cell::new(0));
    let ours = Rc::clone(&turns);
    let ran = current_thread().block_on(async move {
        let waiting = run(move || theirs.await_(here()));
        let counting = async {
            loop {
                ours.set(ours.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            ran = waiting => ran,
            () = counting => unreachable!(),
        }
    });
    assert!(turns.get() > 0, "this loop stood still");
    stop.send(()).unwrap();
    assert_eq!(loops.join().unwrap(), ran);
}

#[test]
fn on_the_fiber_itself_it_is_like_await() {
    let answer = current_thread().block_on(run(|| {
        remote().await_(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            3
        })
    }));
    assert_eq!(answer, 3);
}

#[test]
fn dropping_the_run_tells_the_threads_and_drops_their_futures_on_the_loops_thread() {
    let (told, is_told) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let (dropped, was_dropped) = mpsc::channel();
    let mut run = run(move || {
        let remote = remote();
        for polite in [true, false] {
            let (told, begun) = (told.clone(), begun.clone());
            let (remote, guard) = (remote.clone(), TellsDrop(dropped.clone()));
            thread::spawn(move || {
                let future = async move {
                    let _guard = guard;
                    begun.send(()).unwrap();
                    pending::<()>().await;
                };
                if polite {
                    told.send(remote.try_await(future).unwrap_err().is_cancelled()).unwrap();
                } else {
                    let unwound = catch_unwind(AssertUnwindSafe(|| remote.await_(future)));
                    let words = unwound.unwrap_err().downcast::<String>();
                    told.send(words.is_err()).unwrap(); // no panic of ours
                }
                assert!(remote.is_closed());
            });
        }
        await_(pending::<()>());
    });
    let mut count = 0;
    while count < 2 {
        assert!(poll_once(&mut run).is_pending());
        count += has_begun.try_iter().count();
        thread::yield_now();
    }
    drop(run);
    assert!(is_told.recv().unwrap() && is_told.recv().unwrap());
    let here = thread::current().id();
    assert_eq!([was_dropped.recv(), was_dropped.recv()], [Ok(here), Ok(here)]);
}

/// The thread is told before the fiber unwinds through the scope that joins it.
#[test]
fn a_cancelled_fiber_may_join_the_threads_that_wait_for_it() {
    let (begun, has_begun) = mpsc::channel();
    let seen = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&seen);
    let mut run = run(move || {
        let remote = remote();
        thread::scope(|threads| {
            threads.spawn(|| {
                let future = async move {
                    begun.send(()).unwrap();
                    pending::<()>().await;
                };
                let told = remote.try_await(future).unwrap_err();
                theirs.store(told.is_cancelled(), Ordering::SeqCst);
                // And whoever comes later.
                assert!(remote.try_await(async {}).unwrap_err().is_cancelled());
            });
            await_(pending::<()>());
        });
    });
    while has_begun.try_recv().is_err() {
        assert!(poll_once(&mut run).is_pending());
        thread::yield_now();
    }
    drop(run);
    assert!(seen.load(Ordering::SeqCst));
}

#[test]
fn a_handle_made_while_the_fiber_is_cancelled_is_closed() {
    let seen = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&seen);
    let mut run = run(move || {
        let _late = OnDrop(|| {
            let remote = remote();
            let refused = thread::spawn(move || remote.try_await(async {}).unwrap_err());
            theirs.set(refused.join().unwrap().is_cancelled());
        });
        await_(pending::<()>());
    });
    assert!(poll_once(&mut run).is_pending());
    drop(run);
    assert!(seen.get());
}

#[test]
fn after_the_code_has_ended_the_error_says_so() {
    let remote = current_thread().block_on(run(remote));
    assert!(remote.is_closed());
    let late = thread::spawn(move || {
        let error = remote.try_await(async {}).unwrap_err();
        assert!(error.is_remote_ended() && !error.is_cancelled());
        assert!(error.to_string().contains("spawn_blocking"), "{error}");
        remote.await_(async {});
    });
    let panicked = late.join().unwrap_err().downcast::<String>().unwrap();
    assert!(panicked.contains("has ended"), "{panicked}");
}

#[test]
fn what_was_sent_but_not_begun_when_the_code_ends_is_dropped() {
    let (sent, was_sent) = mpsc::channel();
    let (dropped, was_dropped) = mpsc::channel();
    let guard = TellsDrop(dropped);
    let mut run = run(move || {
        let remote = remote();
        let waiting = thread::spawn(move || {
            let future = async move { drop(guard) };
            sent.send(()).unwrap();
            remote.try_await(future)
        });
        // Blocks, and so never comes round; the thread gets time to send.
        was_sent.recv().unwrap();
        thread::sleep(Duration::from_millis(50));
        waiting
    });
    let Poll::Ready(waiting) = poll_once(&mut run) else { panic!("has nothing to wait for") };
    assert!(waiting.join().unwrap().unwrap_err().is_remote_ended());
    was_dropped.recv().unwrap();
}

#[test]
fn a_panic_of_the_future_comes_out_where_it_is_waited_for() {
    current_thread().block_on(run(|| {
        let remote = remote();
        let others = remote.clone();
        let panicked = on_a_thread(move || {
            remote.await_(async {
                yield_once().await;
                panic!("in the future");
            })
        });
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "in the future");
        assert_eq!(on_a_thread(move || others.await_(async { 1 })).unwrap(), 1);
    }));
}

#[test]
fn a_waiter_that_is_cancelled_takes_its_future_along() {
    let (begun, has_begun) = mpsc::channel();
    let (dropped, was_dropped) = mpsc::channel();
    let (theirs, stop, loops) = a_fiber_elsewhere();
    let guard = TellsDrop(dropped);
    let mut waiting = run(move || {
        theirs.await_(async move {
            let _guard = guard;
            begun.send(()).unwrap();
            pending::<()>().await;
        });
    });
    assert!(poll_once(&mut waiting).is_pending());
    has_begun.recv().unwrap();
    drop(waiting);
    let dropped_on = was_dropped.recv().unwrap();
    stop.send(()).unwrap();
    assert_eq!(dropped_on, loops.join().unwrap());
}

#[test]
fn a_thread_that_must_not_block_is_told_what_to_type() {
    let runtime = current_thread();
    // The fiber's own.
    runtime.block_on(async {
        let (send, receive) = mpsc::channel();
        let mut waits = run(move || {
            send.send(remote()).unwrap();
            await_(pending::<()>());
        });
        assert!(poll_once(&mut waits).is_pending());
        let remote: Remote = receive.recv().unwrap();
        let error = remote.try_await(async {}).unwrap_err();
        assert!(error.is_in_runtime() && error.is_off_fiber());
        assert!(error.to_string().contains("fiberback::run"), "{error}");
        // Another one's.
        let other = thread::spawn(move || {
            current_thread().block_on(async { remote.try_await(async {}).unwrap_err() })
        });
        assert!(other.join().unwrap().is_in_runtime());
    });
    assert!(try_remote().unwrap_err().is_off_fiber());
    let panicked = catch_unwind(remote).unwrap_err().downcast::<String>().unwrap();
    assert!(panicked.contains("fiberback::run"), "{panicked}");
}

/// What nobody should write: the fiber blocks its loop until a thread is done that waits for that loop.
fn blocks_its_loop(limit: Duration) -> Result<(), fiberback::AwaitError> {
    current_thread().block_on(run(move || {
        let remote = remote().blocked_limit(limit);
        thread::scope(|threads| threads.spawn(move || remote.try_await(async {})).join().unwrap())
    }))
}

#[test]
#[cfg(target_os = "linux")]
fn a_fiber_that_blocks_its_loop_is_an_error() {
    if support::is_child("blocked") {
        let error = blocks_its_loop(Duration::from_secs(5)).unwrap_err();
        assert!(error.is_loop_blocked(), "{error}");
        assert!(error.to_string().contains("blocked_limit"), "{error}");
        return;
    }
    let output = support::run_child("a_fiber_that_blocks_its_loop_is_an_error", "blocked");
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    // Long before that.
    assert_eq!(text.matches("has not come round").count(), 1, "{text}");
    assert!(text.contains("spawn_blocking"), "{text}");
}

/// The same by `count` fibers of another loop, each of which waits for this one's.
fn blocks_the_loop_of_fibers_elsewhere(limit: Duration, count: usize) {
    current_thread().block_on(run(move || {
        let remote = remote().blocked_limit(limit);
        let fibers = move || {
            current_thread().block_on(async move {
                let turns = Cell::new(0);
                let waiting = futures_util::future::join_all((0..count).map(|_| {
                    let remote = remote.clone();
                    run(move || remote.try_await(async {}))
                }));
                let others = async {
                    loop {
                        turns.set(turns.get() + 1);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                let errors = tokio::select! {
                    errors = waiting => errors,
                    () = others => unreachable!(),
                };
                assert!(turns.get() > 1, "their loop stood still");
                errors
            })
        };
        for error in thread::spawn(fibers).join().unwrap() {
            let error = error.unwrap_err();
            assert!(error.is_loop_blocked(), "{error}");
        }
    }));
}

#[test]
#[cfg(target_os = "linux")]
fn fibers_that_wait_for_a_blocked_loop_get_an_error() {
    blocks_the_loop_of_fibers_elsewhere(Duration::from_millis(200), 1);
    blocks_the_loop_of_fibers_elsewhere(Duration::from_millis(200), 100);
    // No tokio, no timers.
    current_thread().block_on(run(|| {
        let remote = remote().blocked_limit(Duration::from_millis(200));
        let fiber = move || block_on(run(move || remote.try_await(async {})));
        assert!(thread::spawn(fiber).join().unwrap().unwrap_err().is_loop_blocked());
    }));
}

#[test]
#[cfg(target_os = "linux")]
fn a_fiber_that_waits_for_a_blocked_loop_says_so() {
    if support::is_child("fibers") {
        blocks_the_loop_of_fibers_elsewhere(Duration::from_secs(5), 2);
        return;
    }
    let output = support::run_child("a_fiber_that_waits_for_a_blocked_loop_says_so", "fibers");
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("has not come round").count(), 1, "{text}");
}

/// The look is due in the task that polls the fiber by then.
#[test]
#[cfg(target_os = "linux")]
fn a_fiber_that_has_moved_to_another_task_looks_there() {
    struct Tells(mpsc::Sender<&'static str>, &'static str);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(self.1);
        }
    }
    let attempt = || {
        current_thread().block_on(run(|| {
            let remote = remote().blocked_limit(Duration::from_secs(1));
            let waits = move || {
                let (send, woken) = mpsc::channel();
                let first = Waker::from(Arc::new(Tells(send.clone(), "first")));
                let second = Waker::from(Arc::new(Tells(send, "second")));
                let mut run = std::pin::pin!(run(move || remote.try_await(async {})));
                assert!(run.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
                while run.as_mut().poll(&mut Context::from_waker(&second)).is_pending() {
                    if woken.recv() != Ok("second") {
                        return false;
                    }
                }
                true
            };
            thread::spawn(waits).join().unwrap()
        }))
    };
    // A busy machine may take a second for the two polls.
    assert!((0..5).any(|_| attempt()), "the first task was woken each time");
}

/// After a first wait, by a panic, and on rayon's threads.
#[test]
#[cfg(target_os = "linux")]
fn whatever_blocks_the_loop_goes_on_with_the_error() {
    let payload = catch_unwind(|| {
        current_thread().block_on(run(|| {
            await_(tokio::task::yield_now());
            let remote = remote().blocked_limit(Duration::from_millis(200));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            pool.install(|| {
                rayon::join(|| remote.await_(async { 1 }), || remote.await_(async { 2 }))
            })
        }))
    });
    let words = *payload.unwrap_err().downcast::<String>().unwrap();
    assert!(words.contains("rayon's `install`"), "{words}");
}

/// By its own thread, as documented, when nobody on another one knows of the fiber any more.
#[test]
#[cfg(target_os = "linux")]
fn what_was_sent_to_a_blocked_loop_is_dropped_there() {
    current_thread().block_on(run(|| {
        let remote = remote().blocked_limit(Duration::from_millis(200));
        let (send, dropped) = mpsc::channel();
        let guard = TellsDrop(send);
        let thread = thread::spawn(move || {
            remote.try_await(async move {
                let _guard = guard;
                pending::<()>().await;
            })
        });
        assert!(thread.join().unwrap().unwrap_err().is_loop_blocked());
        await_(tokio::task::yield_now());
        assert_eq!(dropped.recv().unwrap(), thread::current().id());
    }));
}

/// It is not asleep.
#[test]
fn a_loop_that_computes_is_waited_for() {
    let answer = current_thread().block_on(run(|| {
        let remote = remote().blocked_limit(Duration::from_millis(50));
        let (send, receive) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = send.send(remote.try_await(async { 3 }));
        });
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            std::hint::spin_loop();
        }
        let answer = await_(receive).unwrap();
        thread.join().unwrap();
        answer
    }));
    assert_eq!(answer, Ok(3));
}

/// For less than the limit.
#[test]
fn a_loop_that_is_blocked_for_a_while_is_waited_for() {
    let answer = current_thread().block_on(run(|| {
        let remote = remote();
        let (send, receive) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = send.send(remote.try_await(async { 3 }));
        });
        thread::sleep(Duration::from_millis(1_500));
        let answer = await_(receive).unwrap();
        thread.join().unwrap();
        answer
    }));
    assert_eq!(answer, Ok(3));
}

/// By fibers, likewise.
#[test]
fn a_loop_that_is_blocked_for_a_while_is_waited_for_by_fibers() {
    let answer = current_thread().block_on(run(|| {
        let remote = remote();
        let (send, receive) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = send.send(block_on(run(move || remote.try_await(async { 3 }))));
        });
        thread::sleep(Duration::from_millis(1_500));
        let answer = await_(receive).unwrap();
        thread.join().unwrap();
        answer
    }));
    assert_eq!(answer, Ok(3));
}

/// A loop that has nothing to do sleeps, too, in its turn.
#[test]
fn a_loop_that_waits_for_events_is_not_blocked() {
    let (theirs, stop, loops) = a_fiber_elsewhere();
    let theirs = theirs.blocked_limit(Duration::ZERO);
    let long = || async { tokio::time::sleep(Duration::from_millis(300)).await };
    assert_eq!(theirs.try_await(long()), Ok(()));
    assert_eq!(block_on(run(move || theirs.try_await(long()))), Ok(()));
    stop.send(()).unwrap();
    loops.join().unwrap();
}

#[test]
fn a_long_wait_on_a_loop_that_comes_round_is_not_told_of() {
    if support::is_child("long") {
        current_thread().block_on(run(|| {
            let remote = remote();
            let long = || async { tokio::time::sleep(Duration::from_millis(3_500)).await };
            let theirs = remote.clone();
            let fiber = thread::spawn(move || block_on(run(move || theirs.await_(long()))));
            on_a_thread(move || remote.await_(long())).unwrap();
            await_(spawn_blocking(move || fiber.join())).unwrap().unwrap();
        }));
        return;
    }
    let output =
        support::run_child("a_long_wait_on_a_loop_that_comes_round_is_not_told_of", "long");
    let text = text(&output);
    assert!(output.status.success() && !text.contains("come round"), "{text}");
}

#[test]
fn the_handle_of_a_scopes_fiber_ends_with_it() {
    let mut all = run(|| {
        fiberback::scope(|s| {
            let inner = s.spawn(remote).join();
            assert!(inner.is_closed());
            let own = remote();
            assert_eq!(on_a_thread(move || own.await_(async { 2 })).unwrap(), 2);
        });
    });
    while poll_once(&mut all).is_pending() {
        thread::yield_now();
    }
}
