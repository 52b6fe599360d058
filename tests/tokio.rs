//! `tokio::spawn_local` and `tokio::PinnedPool`.
#![cfg(feature = "tokio")]

use fiberback::await_;
use fiberback::tokio::{PinnedPool, spawn_local};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::panic;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{LocalSet, yield_now};

/// Far beyond anything here; only turns a hang into a failure.
const HANG: Duration = Duration::from_secs(60);

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, future).await.expect("hangs")
}

/// Counts its drops.
struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

fn pool(workers: usize) -> PinnedPool {
    PinnedPool::builder().worker_threads(workers).build().unwrap()
}

/// Runs `f` on every worker at once: each waits until all are there.
fn thread_names(pool: &PinnedPool) -> Vec<String> {
    let barrier = Arc::new(Barrier::new(pool.worker_threads()));
    let jobs: Vec<_> = (0..pool.worker_threads())
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            pool.spawn(move || {
                barrier.wait();
                thread::current().name().unwrap().to_owned()
            })
        })
        .collect();
    let mut names: Vec<_> = jobs.into_iter().map(|job| fiberback::block_on(job).unwrap()).collect();
    names.sort();
    names
}

mod local {
    use super::*;

    #[tokio::test]
    async fn returns_the_result() {
        let text = Rc::new(Cell::new(1));
        LocalSet::new()
            .run_until(async move {
                let theirs = Rc::clone(&text);
                let task = spawn_local(move || {
                    await_(yield_now());
                    theirs.set(2);
                    theirs
                });
                assert_eq!(task.await.unwrap().get(), 2);
                assert_eq!(text.get(), 2);
            })
            .await;
    }

    #[tokio::test]
    async fn tasks_interleave_on_one_thread() {
        LocalSet::new()
            .run_until(async {
                let log = Rc::new(std::cell::RefCell::new(Vec::new()));
                let tasks: Vec<_> = (0..3)
                    .map(|n| {
                        let log = Rc::clone(&log);
                        spawn_local(move || {
                            for round in 0..2 {
                                log.borrow_mut().push((round, n));
                                await_(yield_now());
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
                // In which order it wakes them is tokio's business.
                let rounds: Vec<_> = log.borrow().iter().map(|&(round, _)| round).collect();
                assert_eq!(rounds, [0, 0, 0, 1, 1, 1]);
            })
            .await;
    }

    #[tokio::test]
    async fn abort_unwinds_before_the_handle_is_ready() {
        LocalSet::new()
            .run_until(async {
                let dropped = counter();
                let guard = CountDrop(Arc::clone(&dropped));
                let task = spawn_local(move || {
                    let _guard = guard;
                    await_(pending::<()>());
                });
                yield_now().await;
                assert_eq!(count(&dropped), 0);
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
                assert_eq!(count(&dropped), 1);
            })
            .await;
    }

    #[tokio::test]
    async fn a_panic_is_the_handles() {
        LocalSet::new()
            .run_until(async {
                let task = spawn_local(|| {
                    await_(yield_now());
                    panic::resume_unwind(Box::new("boom"));
                });
                let error = task.await.unwrap_err();
                assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "boom");
            })
            .await;
    }

    #[tokio::test]
    async fn dropping_the_handle_detaches() {
        LocalSet::new()
            .run_until(async {
                let (tell, told) = oneshot::channel();
                drop(spawn_local(move || {
                    await_(yield_now());
                    tell.send(5).unwrap();
                }));
                assert_eq!(in_time(told).await, Ok(5));
            })
            .await;
    }

    #[tokio::test]
    async fn dropping_the_set_unwinds() {
        let dropped = counter();
        let set = LocalSet::new();
        for _ in 0..3 {
            let guard = CountDrop(Arc::clone(&dropped));
            set.run_until(async move {
                spawn_local(move || {
                    let _guard = guard;
                    await_(pending::<()>());
                });
                yield_now().await;
            })
            .await;
        }
        assert_eq!(count(&dropped), 0);
        drop(set);
        assert_eq!(count(&dropped), 3);
    }

    #[test]
    fn off_a_local_set_it_panics() {
        assert!(panic::catch_unwind(|| spawn_local(|| ())).is_err());
    }
}

mod pool {
    use super::*;

    mod jobs {
        use super::*;

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn many_jobs_none_lost() {
            let pool = pool(2);
            let (started, dropped) = (counter(), counter());
            let jobs: Vec<_> = (0..2000_usize)
                .map(|n| {
                    let (started, guard) = (Arc::clone(&started), CountDrop(Arc::clone(&dropped)));
                    pool.spawn(move || {
                        let _guard = guard;
                        started.fetch_add(1, Ordering::SeqCst);
                        for _ in 0..n % 4 {
                            await_(yield_now());
                        }
                        n
                    })
                })
                .collect();
            let mut sum = 0;
            for job in jobs {
                sum += in_time(job).await.unwrap();
            }
            assert_eq!(sum, 2000 * 1999 / 2);
            assert_eq!((count(&started), count(&dropped), pool.jobs()), (2000, 2000, 0));
        }

        #[tokio::test]
        async fn jobs_of_one_worker_wait_at_the_same_time() {
            let pool = pool(1);
            let gate = Arc::new(Semaphore::new(0));
            let all_in = Arc::new(Semaphore::new(0));
            let jobs: Vec<_> = (0..100)
                .map(|_| {
                    let (gate, all_in) = (Arc::clone(&gate), Arc::clone(&all_in));
                    pool.spawn(move || {
                        all_in.add_permits(1);
                        await_(gate.acquire()).unwrap().forget();
                    })
                })
                .collect();
            let _ = in_time(all_in.acquire_many(100)).await.unwrap();
            assert_eq!(pool.jobs(), 100);
            gate.add_permits(100);
            for job in jobs {
                in_time(job).await.unwrap();
            }
        }

        #[test]
        fn handles_work_without_a_runtime() {
            let pool = pool(1);
            assert_eq!(fiberback::block_on(pool.spawn(|| 3)).unwrap(), 3);
        }

        #[tokio::test]
        async fn dropping_the_handle_detaches() {
            let pool = pool(1);
            let (tell, told) = oneshot::channel();
            drop(pool.spawn(move || {
                await_(yield_now());
                tell.send(thread::current().id()).unwrap();
            }));
            assert_ne!(in_time(told).await.unwrap(), thread::current().id());
        }

        #[tokio::test]
        async fn jobs_spawn_jobs_and_wait_for_them() {
            fn tree(pool: &PinnedPool, depth: u32) -> u32 {
                if depth == 0 {
                    return 1;
                }
                let children: Vec<_> = (0..2)
                    .map(|_| {
                        let theirs = pool.clone();
                        pool.spawn(move || tree(&theirs, depth - 1))
                    })
                    .collect();
                children.into_iter().map(|child| await_(child).unwrap()).sum()
            }
            for workers in [1, 2] {
                let pool = pool(workers);
                let root = pool.clone();
                assert_eq!(in_time(pool.spawn(move || tree(&root, 7))).await.unwrap(), 128);
                assert_eq!(pool.jobs(), 0);
            }
        }

        #[tokio::test]
        async fn a_job_never_changes_threads() {
            let pool = pool(2);
            let jobs: Vec<_> = (0..50)
                .map(|_| {
                    pool.spawn(|| {
                        let home = thread::current().id();
                        for _ in 0..20 {
                            await_(yield_now());
                            assert_eq!(thread::current().id(), home);
                        }
                    })
                })
                .collect();
            for job in jobs {
                in_time(job).await.unwrap();
            }
        }

        #[tokio::test]
        async fn is_finished_tells() {
            let pool = pool(1);
            let (go, wait) = oneshot::channel::<()>();
            let job = pool.spawn(move || await_(wait).unwrap());
            assert!(!job.is_finished());
            go.send(()).unwrap();
            while !job.is_finished() {
                yield_now().await;
            }
            job.await.unwrap();
        }

        #[tokio::test]
        async fn large_closures_and_results() {
            let pool = pool(1);
            let big = [7_u8; 64 << 10];
            let back = pool.spawn(move || {
                await_(yield_now());
                big
            });
            assert!(back.await.unwrap() == big);
        }
    }

    mod runtime {
        use super::*;

        #[tokio::test]
        async fn spawn_timers_and_sockets_work_in_jobs() {
            let pool = pool(1);
            let job = pool.spawn(|| {
                let listener = await_(TcpListener::bind("127.0.0.1:0")).unwrap();
                let address = listener.local_addr().unwrap();
                let server = tokio::spawn(async move {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let mut text = [0; 4];
                    socket.read_exact(&mut text).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    socket.write_all(&text).await.unwrap();
                });
                let mut client = await_(TcpStream::connect(address)).unwrap();
                await_(client.write_all(b"ping")).unwrap();
                await_(tokio::time::sleep(Duration::from_millis(1)));
                let mut text = String::new();
                await_(client.read_to_string(&mut text)).unwrap();
                await_(server).unwrap();
                text
            });
            assert_eq!(in_time(job).await.unwrap(), "ping");
        }

        #[tokio::test]
        async fn spawn_local_works_in_jobs() {
            let pool = pool(1);
            let job = pool.spawn(|| {
                let home = thread::current().id();
                let shared = Rc::new(Cell::new(0));
                let theirs = Rc::clone(&shared);
                let future = tokio::task::spawn_local(async move {
                    yield_now().await;
                    theirs.set(theirs.get() + 1);
                    thread::current().id()
                });
                assert_eq!(await_(future).unwrap(), home);
                let theirs = Rc::clone(&shared);
                let fiber = spawn_local(move || {
                    await_(yield_now());
                    theirs.set(theirs.get() + 1);
                });
                await_(fiber).unwrap();
                shared.get()
            });
            assert_eq!(in_time(job).await.unwrap(), 2);
        }

        #[tokio::test]
        async fn spawn_blocking_works_in_jobs() {
            let pool = pool(1);
            let job = pool.spawn(|| {
                let home = thread::current().id();
                let other = await_(tokio::task::spawn_blocking(|| thread::current().id()));
                assert_ne!(other.unwrap(), home);
            });
            in_time(job).await.unwrap();
        }

        #[tokio::test]
        async fn nested_runs_and_block_on_work_in_jobs() {
            let pool = pool(1);
            let job = pool.spawn(|| {
                await_(fiberback::run(|| {
                    fiberback::block_on(async {
                        yield_now().await;
                        fiberback::run(|| await_(yield_now())).await;
                    });
                    9
                }))
            });
            assert_eq!(in_time(job).await.unwrap(), 9);
        }
    }

    mod panics {
        use super::*;

        #[tokio::test]
        async fn come_out_of_the_handle() {
            let pool = pool(1);
            let dropped = counter();
            for waits in [false, true] {
                let guard = CountDrop(Arc::clone(&dropped));
                let job = pool.spawn(move || {
                    let _guard = guard;
                    if waits {
                        await_(yield_now());
                    }
                    panic::resume_unwind(Box::new(17_u32));
                });
                let error = in_time(job).await.unwrap_err();
                assert!(error.is_panic() && !error.is_cancelled());
                assert_eq!(*error.into_panic().downcast::<u32>().unwrap(), 17);
            }
            assert_eq!(count(&dropped), 2);
            assert_eq!(pool.jobs(), 0);
            // The worker goes on.
            assert_eq!(in_time(pool.spawn(|| 1)).await.unwrap(), 1);
        }

        #[tokio::test]
        async fn a_destructors_panic_while_aborting() {
            struct Bomb(Arc<AtomicUsize>);
            impl Drop for Bomb {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::SeqCst);
                    // Ends the unwinding that is under way before it starts its own.
                    if !thread::panicking() {
                        panic::resume_unwind(Box::new("in drop"));
                    }
                }
            }
            let pool = pool(1);
            let dropped = counter();
            let (tell, told) = oneshot::channel();
            let bomb = Bomb(Arc::clone(&dropped));
            let job = pool.spawn(move || {
                let _bomb = bomb;
                tell.send(()).unwrap();
                // Returns on cancellation, so that the bomb is not dropped by unwinding.
                assert!(fiberback::try_await(pending::<()>()).unwrap_err().is_cancelled());
            });
            in_time(told).await.unwrap();
            job.abort();
            let error = in_time(job).await.unwrap_err();
            assert!(error.is_panic(), "as for any tokio task");
            assert_eq!((count(&dropped), pool.jobs()), (1, 0));
            assert_eq!(in_time(pool.spawn(|| 1)).await.unwrap(), 1);
        }

        #[tokio::test]
        async fn no_stack_is_the_jobs_panic() {
            let stacks = fiberback::StackPool::builder().max_stacks(1).build().unwrap();
            let pool = PinnedPool::builder().worker_threads(1).stack_pool(&stacks).build().unwrap();
            let (go, wait) = oneshot::channel::<()>();
            let first = pool.spawn(move || await_(wait).unwrap());
            let error = in_time(pool.spawn(|| ())).await.unwrap_err();
            let message = *error.into_panic().downcast::<String>().unwrap();
            assert!(message.contains("max_stacks"), "{message}");
            go.send(()).unwrap();
            in_time(first).await.unwrap();
            // Stacks are back: works again.
            in_time(pool.spawn(|| ())).await.unwrap();
        }
    }

    mod abort {
        use super::*;

        #[tokio::test]
        async fn a_waiting_job_unwinds_on_its_worker_before_the_handle_is_ready() {
            struct Where(Arc<Mutex<Vec<thread::ThreadId>>>);
            impl Drop for Where {
                fn drop(&mut self) {
                    self.0.lock().unwrap().push(thread::current().id());
                }
            }
            let pool = pool(1);
            let dropped = Arc::new(Mutex::new(Vec::new()));
            let guard = Where(Arc::clone(&dropped));
            let (tell, told) = oneshot::channel();
            let job = pool.spawn(move || {
                let _guard = guard;
                tell.send(thread::current().id()).unwrap();
                await_(pending::<()>());
            });
            let home = in_time(told).await.unwrap();
            job.abort();
            assert!(in_time(job).await.unwrap_err().is_cancelled());
            assert_eq!(*dropped.lock().unwrap(), [home]);
            assert_eq!(pool.jobs(), 0);
        }

        #[tokio::test]
        async fn a_queued_job_never_runs() {
            let pool = pool(1);
            let (release, blocked) = mpsc::channel::<()>();
            let (tell, told) = oneshot::channel();
            // Holds the thread, not just the fiber.
            let first = pool.spawn(move || {
                tell.send(()).unwrap();
                blocked.recv().unwrap();
            });
            in_time(told).await.unwrap();
            let (ran, dropped) = (counter(), counter());
            let (theirs, guard) = (Arc::clone(&ran), CountDrop(Arc::clone(&dropped)));
            let second = pool.spawn(move || {
                let _guard = guard;
                theirs.fetch_add(1, Ordering::SeqCst);
            });
            second.abort();
            release.send(()).unwrap();
            assert!(in_time(second).await.unwrap_err().is_cancelled());
            in_time(first).await.unwrap();
            assert_eq!((count(&ran), count(&dropped)), (0, 1));
        }

        #[tokio::test]
        async fn a_finished_job_is_not_affected() {
            let pool = pool(1);
            let job = pool.spawn(|| 4);
            while !job.is_finished() {
                yield_now().await;
            }
            job.abort();
            assert_eq!(job.await.unwrap(), 4);
        }

        #[tokio::test]
        async fn aborting_one_leaves_the_others() {
            let pool = pool(1);
            let gate = Arc::new(Semaphore::new(0));
            let jobs: Vec<_> = (0..20)
                .map(|n| {
                    let gate = Arc::clone(&gate);
                    pool.spawn(move || {
                        await_(gate.acquire()).unwrap().forget();
                        n
                    })
                })
                .collect();
            for job in jobs.iter().step_by(2) {
                job.abort();
            }
            gate.add_permits(20);
            for (n, job) in jobs.into_iter().enumerate() {
                match in_time(job).await {
                    Ok(result) => assert_eq!(result, n),
                    Err(error) => assert!(error.is_cancelled() && n % 2 == 0),
                }
            }
            assert_eq!(pool.jobs(), 0);
        }
    }

    mod dispatch {
        use super::*;

        #[tokio::test]
        async fn goes_to_the_least_loaded_worker() {
            let pool = pool(3);
            let gate = Arc::new(Semaphore::new(0));
            let all_in = Arc::new(Semaphore::new(0));
            let jobs: Vec<_> = (0..30)
                .map(|_| {
                    let (gate, all_in) = (Arc::clone(&gate), Arc::clone(&all_in));
                    pool.spawn(move || {
                        all_in.add_permits(1);
                        await_(gate.acquire()).unwrap().forget();
                        thread::current().id()
                    })
                })
                .collect();
            let _ = in_time(all_in.acquire_many(30)).await.unwrap();
            gate.add_permits(30);
            let mut per_thread = HashMap::new();
            for job in jobs {
                *per_thread.entry(in_time(job).await.unwrap()).or_insert(0) += 1;
            }
            assert_eq!(per_thread.into_values().collect::<Vec<_>>(), [10, 10, 10]);
        }

        #[tokio::test]
        async fn a_blocked_worker_gets_no_jobs_while_another_is_idle() {
            let pool = pool(2);
            let (release, blocked) = mpsc::channel::<()>();
            let (tell, told) = oneshot::channel();
            let blocker = pool.spawn(move || {
                tell.send(thread::current().id()).unwrap();
                blocked.recv().unwrap();
            });
            let busy = in_time(told).await.unwrap();
            for _ in 0..10 {
                let free = in_time(pool.spawn(|| thread::current().id())).await.unwrap();
                assert_ne!(free, busy);
            }
            release.send(()).unwrap();
            in_time(blocker).await.unwrap();
        }

        #[tokio::test]
        async fn idle_workers_take_turns() {
            let pool = pool(2);
            let mut seen = HashSet::new();
            for _ in 0..4 {
                seen.insert(in_time(pool.spawn(|| thread::current().id())).await.unwrap());
            }
            assert_eq!(seen.len(), 2);
        }
    }

    mod settings {
        use super::*;

        #[test]
        fn threads_are_named() {
            let pool = PinnedPool::builder().worker_threads(2).thread_name("r").build().unwrap();
            assert_eq!(thread_names(&pool), ["r-0", "r-1"]);
        }

        #[test]
        #[should_panic(expected = "at least 1 worker thread")]
        fn no_threads() {
            let _ = PinnedPool::builder().worker_threads(0);
        }

        #[test]
        fn a_bad_stack_size_is_an_error() {
            let error = PinnedPool::builder().stack_size(1).build().unwrap_err();
            let inner = error.get_ref().unwrap().downcast_ref::<fiberback::StackError>();
            assert!(inner.unwrap().is_bad_size());
        }

        #[test]
        fn an_impossible_thread_is_an_error_and_the_rest_end() {
            let error = PinnedPool::builder()
                .worker_threads(2)
                .thread_stack_size(1 << 60)
                .build()
                .unwrap_err();
            assert!(error.raw_os_error().is_some() || error.get_ref().is_some());
        }

        #[test]
        fn stack_size_is_the_jobs() {
            let pool =
                PinnedPool::builder().worker_threads(1).stack_size(32 << 20).build().unwrap();
            // 4 MiB of frame: more than both default stacks hold.
            let job = pool.spawn(|| {
                let frame = std::hint::black_box([1_u8; 4 << 20]);
                await_(yield_now());
                frame.iter().map(|&byte| usize::from(byte)).sum::<usize>()
            });
            assert_eq!(fiberback::block_on(job).unwrap(), 4 << 20);
        }

        #[tokio::test]
        async fn names_reach_the_fiber() {
            let pool = pool(1);
            assert_eq!(in_time(pool.spawn_named("parser", || 6)).await.unwrap(), 6);
        }

        #[tokio::test]
        async fn an_idle_worker_trims_again_and_again() {
            let stacks = fiberback::StackPool::builder().build().unwrap();
            let pool = PinnedPool::builder()
                .worker_threads(1)
                .stack_pool(&stacks)
                .idle_trim(Duration::from_millis(1))
                .build()
                .unwrap();
            for _ in 0..3 {
                in_time(pool.spawn(|| ())).await.unwrap();
                assert!(stacks.stats().high_water > 0);
                in_time(async {
                    while stacks.stats().warm > 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
                .await;
                assert_eq!(stacks.stats().in_use, 0);
            }
        }
    }

    mod shutdown {
        use super::*;

        #[tokio::test]
        async fn waits_for_running_and_queued_jobs() {
            let pool = pool(2);
            let done = counter();
            let gate = Arc::new(Semaphore::new(0));
            let jobs: Vec<_> = (0..50)
                .map(|_| {
                    let (done, gate) = (Arc::clone(&done), Arc::clone(&gate));
                    pool.spawn(move || {
                        await_(gate.acquire()).unwrap().forget();
                        done.fetch_add(1, Ordering::SeqCst);
                    })
                })
                .collect();
            let mut shutdown = std::pin::pin!(pool.shutdown());
            assert!(is_pending(shutdown.as_mut()));
            assert!(pool.try_spawn(|| ()).is_err());
            gate.add_permits(50);
            in_time(shutdown).await;
            assert_eq!(count(&done), 50);
            for job in jobs {
                assert!(job.is_finished());
                job.await.unwrap();
            }
            // A second time is harmless.
            in_time(pool.shutdown()).await;
            assert_eq!(in_time(pool.shutdown_timeout(Duration::ZERO)).await, 0);
        }

        #[tokio::test]
        async fn dropping_the_future_leaves_the_pool_closed() {
            let pool = pool(1);
            let (go, wait) = oneshot::channel::<()>();
            let job = pool.spawn(move || await_(wait).unwrap());
            {
                let mut shutdown = std::pin::pin!(pool.shutdown());
                assert!(is_pending(shutdown.as_mut()));
            }
            assert!(pool.try_spawn(|| ()).is_err());
            go.send(()).unwrap();
            in_time(job).await.unwrap();
            in_time(pool.shutdown()).await;
        }

        #[tokio::test]
        async fn timeout_aborts_what_is_left() {
            let pool = pool(2);
            let dropped = counter();
            let started = Arc::new(Semaphore::new(0));
            let endless: Vec<_> = (0..10)
                .map(|_| {
                    let (guard, started) = (CountDrop(Arc::clone(&dropped)), Arc::clone(&started));
                    pool.spawn(move || {
                        let _guard = guard;
                        started.add_permits(1);
                        await_(pending::<()>());
                    })
                })
                .collect();
            let _ = in_time(started.acquire_many(10)).await.unwrap();
            assert_eq!(in_time(pool.shutdown_timeout(Duration::from_millis(5))).await, 10);
            assert_eq!((count(&dropped), pool.jobs()), (10, 0));
            for job in endless {
                assert!(job.is_finished());
                assert!(job.await.unwrap_err().is_cancelled());
            }
        }

        #[tokio::test]
        async fn timeout_does_not_wait_for_longer_than_the_jobs() {
            let pool = pool(2);
            let job = pool.spawn(|| await_(yield_now()));
            assert_eq!(in_time(pool.shutdown_timeout(Duration::MAX)).await, 0);
            job.await.unwrap();
        }

        #[tokio::test]
        async fn the_earlier_of_two_timeouts_counts() {
            let pool = pool(1);
            let job = pool.spawn(|| await_(pending::<()>()));
            {
                let mut later = std::pin::pin!(pool.shutdown_timeout(Duration::MAX));
                assert!(is_pending(later.as_mut()));
            }
            assert_eq!(in_time(pool.shutdown_timeout(Duration::ZERO)).await, 1);
            assert!(job.await.unwrap_err().is_cancelled());
        }

        #[tokio::test(start_paused = true)]
        async fn the_callers_clock_may_be_paused() {
            let pool = pool(1);
            let job = pool.spawn(|| await_(pending::<()>()));
            assert_eq!(pool.shutdown_timeout(Duration::from_millis(1)).await, 1);
            assert!(job.await.unwrap_err().is_cancelled());
        }

        #[tokio::test]
        async fn spawning_afterwards_is_an_error_not_a_hang() {
            let pool = pool(2);
            // While it is still draining, and when it has ended.
            let (go, wait) = oneshot::channel::<()>();
            let job = pool.spawn(move || await_(wait).unwrap());
            pool.close();
            let dropped = counter();
            for draining in [true, false] {
                let guard = CountDrop(Arc::clone(&dropped));
                let refused = pool.spawn(move || drop(guard));
                assert!(in_time(refused).await.unwrap_err().is_cancelled());
                let error = pool.try_spawn(|| ()).unwrap_err();
                assert!(error.to_string().contains("build another pool"));
                if draining {
                    break;
                }
            }
            go.send(()).unwrap();
            in_time(job).await.unwrap();
            in_time(pool.shutdown()).await;
            let guard = CountDrop(Arc::clone(&dropped));
            let refused = pool.spawn_named("late", move || drop(guard));
            assert!(in_time(refused).await.unwrap_err().is_cancelled());
            assert!(pool.try_spawn(|| ()).is_err());
            assert_eq!(count(&dropped), 2, "the closures were dropped");
        }

        #[tokio::test]
        async fn a_job_that_spawns_while_draining_gets_an_error() {
            let pool = pool(1);
            let (go, wait) = oneshot::channel::<()>();
            let inner = pool.clone();
            let job = pool.spawn(move || {
                await_(wait).unwrap();
                let refused = inner.spawn(|| ());
                await_(refused).unwrap_err().is_cancelled()
            });
            pool.close();
            go.send(()).unwrap();
            assert!(in_time(job).await.unwrap());
            in_time(pool.shutdown()).await;
        }

        #[tokio::test]
        async fn from_a_job_of_the_same_pool_it_does_not_wait() {
            let pool = pool(2);
            let inner = pool.clone();
            let job = pool.spawn(move || {
                await_(inner.shutdown());
                assert_eq!(await_(inner.shutdown_timeout(Duration::MAX)), 0);
                await_(yield_now());
                8
            });
            assert_eq!(in_time(job).await.unwrap(), 8);
            in_time(pool.shutdown()).await;
        }

        #[tokio::test]
        async fn from_a_job_of_another_pool_it_waits() {
            let (outer, inner) = (pool(1), pool(1));
            let theirs = inner.clone();
            let (go, wait) = oneshot::channel::<()>();
            let waiting = inner.spawn(move || await_(wait).unwrap());
            let job = outer.spawn(move || {
                go.send(()).unwrap();
                await_(theirs.shutdown());
            });
            in_time(job).await.unwrap();
            assert!(waiting.is_finished());
        }

        #[tokio::test]
        async fn tasks_of_jobs_are_dropped_with_the_worker() {
            let pool = pool(1);
            let dropped = counter();
            let (one, two) = (CountDrop(Arc::clone(&dropped)), CountDrop(Arc::clone(&dropped)));
            let job = pool.spawn(move || {
                tokio::spawn(async move {
                    let _one = one;
                    pending::<()>().await;
                });
                tokio::task::spawn_local(async move {
                    let _two = two;
                    pending::<()>().await;
                });
                await_(yield_now());
            });
            in_time(job).await.unwrap();
            assert_eq!(count(&dropped), 0);
            in_time(pool.shutdown()).await;
            assert_eq!(count(&dropped), 2);
        }

        #[tokio::test]
        async fn does_not_wait_for_blocking_threads_nobody_waits_for() {
            let pool = pool(1);
            let (release, blocked) = mpsc::channel::<()>();
            let job = pool.spawn(move || {
                tokio::task::spawn_blocking(move || blocked.recv());
            });
            in_time(job).await.unwrap();
            in_time(pool.shutdown()).await;
            let _ = release.send(());
        }

        #[test]
        fn from_synchronous_code() {
            let pool = pool(1);
            let job = pool.spawn(|| await_(yield_now()));
            fiberback::block_on(pool.shutdown());
            assert!(job.is_finished());
        }

        #[test]
        fn destructors_on_aborted_fibers_may_use_the_runtime() {
            struct Uses(mpsc::Sender<bool>);
            impl Drop for Uses {
                fn drop(&mut self) {
                    // Not refused by a panic, which would abort the process here.
                    let in_runtime = tokio::runtime::Handle::try_current().is_ok();
                    let error = fiberback::try_await(pending::<()>()).unwrap_err();
                    self.0.send(in_runtime && error.is_cancelled()).unwrap();
                }
            }
            let pool = pool(1);
            let (tell, told) = mpsc::channel();
            let (started, start) = mpsc::channel();
            let uses = Uses(tell);
            drop(pool.spawn(move || {
                let _uses = uses;
                started.send(()).unwrap();
                await_(pending::<()>());
            }));
            start.recv_timeout(HANG).unwrap();
            assert_eq!(fiberback::block_on(pool.shutdown_timeout(Duration::ZERO)), 1);
            assert!(told.recv_timeout(HANG).unwrap());
        }
    }

    mod dropping {
        use super::*;

        #[tokio::test]
        async fn in_async_code_detaches_the_jobs() {
            let pool = pool(2);
            let (go, wait) = oneshot::channel::<()>();
            let job = pool.spawn(move || {
                await_(wait).unwrap();
                thread::current().name().unwrap().to_owned()
            });
            drop(pool);
            assert!(!job.is_finished());
            go.send(()).unwrap();
            assert!(in_time(job).await.unwrap().starts_with("fiberback-"));
        }

        #[tokio::test]
        async fn the_last_clone_in_a_job_on_its_own_worker() {
            let pool = pool(1);
            let (go, wait) = oneshot::channel::<()>();
            let last = pool.clone();
            let job = pool.spawn(move || {
                await_(wait).unwrap();
                assert!(last.try_spawn(|| ()).is_ok());
                drop(last);
                await_(yield_now());
                3
            });
            drop(pool);
            go.send(()).unwrap();
            assert_eq!(in_time(job).await.unwrap(), 3);
        }

        #[tokio::test]
        async fn handles_of_queued_jobs_stay_good() {
            let pool = pool(1);
            let jobs: Vec<_> = (0..100).map(|n| pool.spawn(move || n)).collect();
            drop(pool);
            for (n, job) in jobs.into_iter().enumerate() {
                assert_eq!(in_time(job).await.unwrap(), n);
            }
        }

        #[test]
        fn threads_end() {
            /// Tells when its thread ends.
            struct Tell(mpsc::Sender<()>);
            impl Drop for Tell {
                fn drop(&mut self) {
                    self.0.send(()).unwrap();
                }
            }
            thread_local! {
                static TELL: Cell<Option<Tell>> = const { Cell::new(None) };
            }
            let (tell, told) = mpsc::channel();
            let pool = pool(1);
            let job = pool.spawn(move || TELL.set(Some(Tell(tell))));
            fiberback::block_on(job).unwrap();
            drop(pool);
            told.recv_timeout(HANG).unwrap();
        }
    }

    mod stress {
        use super::*;

        /// A small generator of our own: the same jobs each time.
        fn next(state: &mut u64) -> u64 {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state
        }

        #[test]
        fn spawners_race_with_shutdown() {
            let mut seed = 0x5eed_u64;
            for round in 0..60 {
                let pool = pool(2);
                let (made, dropped, ran) = (counter(), counter(), counter());
                let timeout = next(&mut seed) % 3;
                let spawners: Vec<_> = (0..3)
                    .map(|_| {
                        let (pool, mut seed) = (pool.clone(), next(&mut seed) | 1);
                        let (made, dropped, ran) = (made.clone(), dropped.clone(), ran.clone());
                        thread::spawn(move || {
                            let mut results = [0_usize; 3];
                            let mut jobs = Vec::new();
                            for _ in 0..40 {
                                let kind = next(&mut seed) % 4;
                                made.fetch_add(1, Ordering::SeqCst);
                                let guard = CountDrop(Arc::clone(&dropped));
                                let ran = Arc::clone(&ran);
                                let job = pool.spawn(move || {
                                    let _guard = guard;
                                    ran.fetch_add(1, Ordering::SeqCst);
                                    await_(yield_now());
                                    match kind {
                                        0 => panic::resume_unwind(Box::new(())),
                                        1 => await_(pending::<()>()),
                                        _ => await_(yield_now()),
                                    }
                                });
                                if next(&mut seed) % 5 == 0 {
                                    job.abort();
                                }
                                jobs.push(job);
                            }
                            for job in jobs {
                                match fiberback::block_on(tokio_timeout(job)) {
                                    Ok(()) => results[0] += 1,
                                    Err(error) if error.is_panic() => results[1] += 1,
                                    Err(_) => results[2] += 1,
                                }
                            }
                            assert_eq!(results.iter().sum::<usize>(), 40);
                        })
                    })
                    .collect();
                if round % 2 == 0 {
                    thread::yield_now();
                }
                let timeout = Duration::from_millis(timeout);
                fiberback::block_on(in_time(pool.shutdown_timeout(timeout)));
                for spawner in spawners {
                    spawner.join().unwrap();
                }
                assert_eq!(count(&made), 120);
                assert_eq!(count(&dropped), 120);
                assert!(count(&ran) <= 120);
                assert_eq!(pool.jobs(), 0);
            }
        }

        async fn tokio_timeout<F: Future>(future: F) -> F::Output {
            in_time(future).await
        }
    }
}

fn is_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// What the bounds promise.
#[test]
fn auto_traits() {
    fn sendable<T: Send + Sync + 'static>() {}
    sendable::<PinnedPool>();
    sendable::<fiberback::tokio::PinnedPoolBuilder>();
    sendable::<fiberback::tokio::PoolClosed>();
    fn future<F: Future + Send>(_: F) {}
    let pool = pool(1);
    future(pool.shutdown());
    future(pool.shutdown_timeout(Duration::ZERO));
}

/// A destructor that waits, of a value that a thread keeps for itself: tokio's own thread-locals may
/// be gone by then.
#[cfg(not(windows))] // refused there: tests/block_on.rs
#[test]
fn block_on_works_in_the_destructor_of_a_thread_local() {
    struct Goodbye(std::sync::mpsc::Sender<u32>);
    impl Drop for Goodbye {
        fn drop(&mut self) {
            let (answer, is_answered) = tokio::sync::oneshot::channel();
            thread::spawn(move || answer.send(7).unwrap());
            let answer = fiberback::block_on(is_answered).unwrap();
            self.0.send(answer).unwrap();
        }
    }
    thread_local! {
        static EARLY: RefCell<Option<Goodbye>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<Goodbye>> = const { RefCell::new(None) };
    }
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // One that is destroyed after tokio's, and one before, whichever goes first here.
        EARLY.set(Some(Goodbye(tell.clone())));
        fiberback::block_on(async { tokio::time::sleep(Duration::from_micros(1)).await });
        LATE.set(Some(Goodbye(tell)));
    })
    .join()
    .unwrap();
    assert_eq!(told.iter().collect::<Vec<_>>(), [7, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_a_job_runs() {
    let began = tokio::time::Instant::now();
    let pool = PinnedPool::builder().worker_threads(1).build().unwrap();
    for _ in 0..20 {
        let job = pool.spawn(|| {
            std::thread::sleep(Duration::from_millis(5));
            fiberback::await_(tokio::time::sleep(Duration::from_millis(1)));
            7
        });
        let in_time = tokio::time::timeout(Duration::from_secs(3600), job).await;
        assert_eq!(in_time.expect("the clock has jumped").unwrap(), 7);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    // And goes on as ever when there is none.
    tokio::time::sleep(Duration::from_secs(3600)).await;
}
