//! `block_on` and `try_block_on` in every place of the table in their documentation, and the background
//! runtime below them.

#![cfg(feature = "tokio")]

mod support;

use fiberback::tokio::background;
use fiberback::{block_on, run, try_block_on};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
#[cfg(target_os = "linux")]
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use support::{is_child, run_child, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc as channel, oneshot};
use tokio::task::{LocalSet, spawn_blocking};

/// Needs timers, sockets and the spawning of tasks.
async fn everything() -> u32 {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_u32(42).await.unwrap();
    });
    let answer = TcpStream::connect(address).await.unwrap().read_u32().await.unwrap();
    server.await.unwrap();
    answer
}

/// Waits for everything, synchronously, and checks that a second wait inside the first works.
fn works() {
    assert_eq!(block_on(everything()), 42);
    assert_eq!(try_block_on(everything()).unwrap(), 42);
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An executor that knows nothing of tokio.
fn foreign_block_on<F: Future>(future: F) -> F::Output {
    futures_util::pin_mut!(future);
    let waker = futures_util::task::noop_waker();
    loop {
        let polled = future.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        if let std::task::Poll::Ready(output) = polled {
            return output;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

mod works_and_leaves_the_place_as_it_was {
    use super::*;

    #[test]
    fn on_a_fiber_of_tokio() {
        current_thread().block_on(run(works));
        multi_thread().block_on(async { run(works).await });
        multi_thread().block_on(LocalSet::new().run_until(run(works)));
    }

    #[test]
    fn on_a_fiber_of_another_executor() {
        foreign_block_on(run(|| {
            works();
            assert!(Handle::try_current().is_err());
        }));
    }

    #[test]
    fn on_a_plain_thread() {
        works();
        assert!(Handle::try_current().is_err());
        thread::spawn(works).join().unwrap();
    }

    #[test]
    fn below_another_block_on_without_a_runtime() {
        assert_eq!(block_on(async { block_on(async { block_on(everything()) }) }), 42);
        block_on(async { works() });
        foreign_block_on(async { works() });
        // And tokio's own, too, which would refuse on a thread that drives a runtime.
        block_on(async { assert_eq!(current_thread().block_on(everything()), 42) });
    }

    #[test]
    fn on_a_fiber_below_a_block_on_below_a_fiber() {
        block_on(run(|| {
            works();
            let inner = run(|| block_on(everything()));
            assert_eq!(block_on(inner), 42);
        }));
    }

    #[test]
    fn on_spawn_blocking_threads_with_the_runtime_of_the_thread() {
        for runtime in [current_thread(), multi_thread()] {
            let id = runtime.handle().id();
            runtime.block_on(async move {
                spawn_blocking(move || {
                    works();
                    assert_eq!(block_on(async { Handle::current().id() }), id);
                })
                .await
                .unwrap();
            });
        }
    }

    #[test]
    fn on_rayon_threads() {
        use rayon::iter::{IntoParallelIterator, ParallelIterator};

        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let many = || (0..8).into_par_iter().map(|_| block_on(everything())).sum::<u32>();
        // Called by a plain thread, by one that may block, and by a fiber.
        assert_eq!(pool.install(many), 8 * 42);
        pool.install(|| rayon::join(works, works));
        current_thread().block_on(run(move || {
            let all = spawn_blocking(move || {
                assert_eq!(pool.install(many), 8 * 42);
                pool
            });
            let pool = fiberback::await_(all).unwrap();
            assert_eq!(pool.install(many), 8 * 42);
            works();
        }));
    }

    #[test]
    fn in_block_in_place() {
        multi_thread().block_on(async {
            tokio::task::block_in_place(works);
            tokio::spawn(async { tokio::task::block_in_place(works) }).await.unwrap();
            // The worker is one again.
            let task = tokio::spawn(async {
                tokio::task::block_in_place(works);
                try_block_on(async {}).unwrap_err().is_in_runtime()
            });
            assert!(task.await.unwrap());
        });
    }

    #[test]
    fn under_a_guard_of_enter() {
        let runtime = multi_thread();
        let _entered = runtime.enter();
        works();
        let id = runtime.handle().id();
        assert_eq!(block_on(async { Handle::current().id() }), id);
    }

    #[test]
    fn under_a_guard_of_enter_of_a_runtime_that_nobody_drives() {
        let runtime = current_thread();
        let _entered = runtime.enter();
        works();
        assert_eq!(Handle::current().id(), runtime.handle().id());
    }

    #[test]
    fn under_a_guard_of_enter_of_a_runtime_that_another_thread_drives() {
        let runtime = current_thread();
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let driver = thread::spawn(move || runtime.block_on(stopped));
        {
            let _entered = handle.enter();
            works();
        }
        stop.send(()).unwrap();
        driver.join().unwrap().unwrap();
    }

    #[cfg(not(windows))]
    #[test]
    fn in_the_destructor_of_a_thread_local() {
        struct Goodbye(mpsc::Sender<u32>);
        impl Drop for Goodbye {
            fn drop(&mut self) {
                let (answer, is_answered) = oneshot::channel();
                thread::spawn(move || answer.send(7).unwrap());
                self.0.send(block_on(is_answered).unwrap()).unwrap();
            }
        }
        thread_local! {
            static EARLY: std::cell::RefCell<Option<Goodbye>> = const { std::cell::RefCell::new(None) };
            static LATE: std::cell::RefCell<Option<Goodbye>> = const { std::cell::RefCell::new(None) };
        }
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            EARLY.set(Some(Goodbye(tell.clone())));
            works();
            LATE.set(Some(Goodbye(tell)));
        })
        .join()
        .unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), [7, 7]);
    }

    #[test]
    fn in_a_destructor_during_a_panic() {
        let (tell, told) = mpsc::channel();
        let result = thread::spawn(move || {
            let _late = support::OnDrop(|| tell.send(block_on(everything())).unwrap());
            std::panic::resume_unwind(Box::new("the panic"));
        })
        .join();
        assert!(result.is_err());
        assert_eq!(told.recv(), Ok(42));
    }
}

mod is_refused {
    use super::*;

    /// It runs under the loader's lock, without which the other thread cannot begin.
    #[cfg(windows)]
    #[test]
    fn in_the_destructor_of_a_thread_local() {
        struct Goodbye(mpsc::Sender<String>);
        impl Drop for Goodbye {
            fn drop(&mut self) {
                let (answer, is_answered) = oneshot::channel::<u32>();
                thread::spawn(move || answer.send(7).unwrap());
                let error = try_block_on(is_answered).unwrap_err();
                assert!(error.is_off_fiber() && !error.is_in_runtime());
                self.0.send(error.to_string()).unwrap();
            }
        }
        thread_local! {
            static LATE: std::cell::RefCell<Option<Goodbye>> = const { std::cell::RefCell::new(None) };
        }
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            LATE.set(Some(Goodbye(tell)));
            assert_eq!(block_on(everything()), 42);
        })
        .join()
        .unwrap();
        assert!(told.recv().unwrap().contains("the loader's lock"));
    }

    fn refused() {
        let polled = std::cell::Cell::new(false);
        let error = try_block_on(async { polled.set(true) }).unwrap_err();
        assert!(error.is_in_runtime() && error.is_off_fiber() && !error.is_cancelled());
        assert!(!polled.get());
        let panic = catch_unwind(AssertUnwindSafe(|| block_on(async {}))).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("fiberback::run(|| ...).await"), "{message}");
        assert!(message.contains("spawn_blocking"), "{message}");
    }

    #[test]
    fn in_the_main_future_and_in_tasks() {
        for runtime in [current_thread(), multi_thread()] {
            runtime.block_on(async {
                refused();
                tokio::spawn(async { refused() }).await.unwrap();
                tokio::task::yield_now().await;
                refused();
            });
        }
    }

    #[test]
    fn in_tasks_of_a_local_set() {
        for runtime in [current_thread(), multi_thread()] {
            LocalSet::new().block_on(&runtime, async {
                refused();
                tokio::task::spawn_local(async { refused() }).await.unwrap();
            });
        }
    }

    #[test]
    fn in_unconstrained_tasks() {
        for runtime in [current_thread(), multi_thread()] {
            runtime.block_on(async {
                tokio::spawn(tokio::task::unconstrained(async { refused() })).await.unwrap();
            });
        }
    }

    #[test]
    fn below_another_executor_in_a_task() {
        current_thread().block_on(async { foreign_block_on(async { refused() }) });
    }

    #[test]
    fn on_the_background_runtime_itself() {
        let task = background::handle().unwrap().spawn(async { refused() });
        block_on(task).unwrap();
    }

    /// Asking takes nothing from a task's budget, and prints nothing.
    #[test]
    fn quietly() {
        if is_child("quiet") {
            current_thread().block_on(async {
                let full = budget();
                tokio::task::yield_now().await;
                for _ in 0..3 {
                    assert!(try_block_on(async {}).is_err());
                }
                assert_eq!(budget(), full);
            });
            return;
        }
        let output = run_child("is_refused::quietly", "quiet");
        assert!(output.status.success(), "{}", text(&output));
        assert!(output.stderr.is_empty(), "{}", text(&output));
    }

    /// Uses up what the task has left, and counts it.
    fn budget() -> u32 {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut taken = 0;
        while let std::task::Poll::Ready(unit) = tokio::task::coop::poll_proceed(&mut context) {
            unit.made_progress();
            taken += 1;
        }
        taken
    }
}

mod the_background_runtime {
    use super::*;

    /// A client with a task behind it, made on one thread, and used on others, and on fibers.
    #[test]
    fn serves_what_was_made_on_another_thread() {
        let client = thread::spawn(|| {
            block_on(async {
                let (requests, mut served) = channel::channel::<(u32, oneshot::Sender<u32>)>(8);
                tokio::spawn(async move {
                    while let Some((number, reply)) = served.recv().await {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        let _ = reply.send(number * 2);
                    }
                });
                requests
            })
        })
        .join()
        .unwrap();
        let ask = move |number| {
            block_on(async {
                let (reply, replied) = oneshot::channel();
                client.send((number, reply)).await.unwrap();
                replied.await.unwrap()
            })
        };
        assert_eq!(thread::scope(|scope| scope.spawn(|| ask(1)).join().unwrap()), 2);
        assert_eq!(ask(2), 4);
        assert_eq!(
            current_thread().block_on(run({
                let ask = ask.clone();
                move || ask(3)
            })),
            6
        );
        assert_eq!(current_thread().block_on(spawn_blocking_in(move || ask(4))), 8);
    }

    async fn spawn_blocking_in<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
        spawn_blocking(f).await.unwrap()
    }

    #[cfg(target_os = "linux")]
    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[cfg(target_os = "linux")]
    fn threads() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }

    /// 600 threads that wait at once, where each may have less than half a descriptor.
    #[test]
    #[cfg(target_os = "linux")]
    fn is_one_for_all_threads() {
        if is_child("many") {
            let limit = libc::rlimit { rlim_cur: 256, rlim_max: 256 };
            // SAFETY: a valid structure.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let (before, threads_before) = (descriptors(), threads());
            let all_wait = Arc::new(Barrier::new(601));
            let waiting: Vec<_> = (0..600)
                .map(|_| {
                    let all_wait = Arc::clone(&all_wait);
                    thread::Builder::new()
                        .stack_size(128 << 10)
                        .spawn(move || {
                            block_on(async {
                                tokio::time::sleep(Duration::from_millis(1)).await;
                                all_wait.wait();
                            });
                        })
                        .unwrap()
                })
                .collect();
            all_wait.wait();
            assert!(descriptors() <= before + 6, "{before} before, {}", descriptors());
            waiting.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(threads(), threads_before + 1);
            return;
        }
        let output = run_child("the_background_runtime::is_one_for_all_threads", "many");
        assert!(output.status.success(), "{}", text(&output));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn that_cannot_be_had_is_an_error() {
        if is_child("none") {
            let limit = libc::rlimit { rlim_cur: 3, rlim_max: 64 };
            // SAFETY: a valid structure.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let error = try_block_on(async {}).unwrap_err();
            assert!(error.is_no_runtime(), "{error:?}");
            assert!(error.to_string().contains("ulimit -n"), "{error}");
            let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
            // SAFETY: a valid structure.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            works();
            return;
        }
        let output = run_child("the_background_runtime::that_cannot_be_had_is_an_error", "none");
        assert!(output.status.success(), "{}", text(&output));
    }

    #[test]
    fn can_be_installed_and_shut_down_and_starts_anew() {
        if is_child("install") {
            background::shutdown(Duration::MAX); // nothing yet
            for runtime in [multi_thread(), current_thread()] {
                let id = runtime.handle().id();
                background::install(runtime).unwrap();
                assert_eq!(block_on(async { Handle::current().id() }), id);
                assert_eq!(background::handle().unwrap().id(), id);
                works();
                let refused = background::install(current_thread()).unwrap_err();
                assert!(refused.is_running());
                assert!(refused.to_string().contains("background::shutdown"), "{refused}");

                // What runs there ends, and what waits for it hears of that.
                let (tell, told) = mpsc::channel();
                let task = background::handle().unwrap().spawn(async move {
                    let _end = support::OnDrop(|| tell.send("dropped").unwrap());
                    std::future::pending::<()>().await;
                });
                let waiting = thread::spawn(|| block_on(task).unwrap_err().is_cancelled());
                block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
                background::shutdown(Duration::from_secs(60));
                assert_eq!(told.try_recv(), Ok("dropped"));
                assert!(waiting.join().unwrap());
                background::shutdown(Duration::MAX);
            }
            works(); // on one of its own
            // From where blocking is not allowed: at once.
            current_thread().block_on(async { background::shutdown(Duration::MAX) });
            works();
            return;
        }
        let test = "the_background_runtime::can_be_installed_and_shut_down_and_starts_anew";
        let output = run_child(test, "install");
        assert!(output.status.success(), "{}", text(&output));
    }

    /// As often as it is shut down and starts anew, and whatever is ready costs nothing beside it.
    #[test]
    #[cfg(target_os = "linux")]
    fn gives_its_descriptors_back() {
        if is_child("descriptors") {
            let mut after = None;
            for _ in 0..20 {
                works();
                let with_it = descriptors();
                for _ in 0..10 {
                    assert_eq!(thread::spawn(|| block_on(async { 1 })).join().unwrap(), 1);
                }
                assert_eq!(descriptors(), with_it);
                background::shutdown(Duration::from_secs(60));
                // Those of tokio's signals stay.
                let left = descriptors();
                assert_eq!(*after.get_or_insert(left), left);
                assert!(left < with_it);
            }
            return;
        }
        let output = run_child("the_background_runtime::gives_its_descriptors_back", "descriptors");
        assert!(output.status.success(), "{}", text(&output));
    }

    /// A program that is to have no descriptor for its waits installs a runtime that has none.
    #[test]
    #[cfg(target_os = "linux")]
    fn has_no_descriptor_without_io() {
        if is_child("no-io") {
            let before = descriptors();
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            background::install(runtime).unwrap();
            assert_eq!(block_on(async { 1 }), 1);
            block_on(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                tokio::spawn(async {}).await.unwrap();
            });
            assert_eq!(foreign_block_on(run(|| block_on(async { 2 }))), 2);
            assert_eq!(descriptors(), before);
            // What does need one says so.
            let bind = AssertUnwindSafe(|| block_on(TcpListener::bind("127.0.0.1:0")).is_ok());
            assert!(catch_unwind(bind).is_err());
            return;
        }
        let output = run_child("the_background_runtime::has_no_descriptor_without_io", "no-io");
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("IO is disabled"), "{}", text(&output));
    }

    /// Many threads need it first at the same time.
    #[test]
    #[cfg(target_os = "linux")]
    fn is_started_once() {
        if is_child("once") {
            let before = threads();
            let begin = Arc::new(Barrier::new(16));
            let first: Vec<_> = (0..16)
                .map(|_| {
                    let begin = Arc::clone(&begin);
                    thread::spawn(move || {
                        begin.wait();
                        works();
                        background::handle().unwrap().id()
                    })
                })
                .collect();
            let ids: Vec<_> = first.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(ids.iter().all(|id| *id == ids[0]));
            assert_eq!(threads(), before + 1);
            let named = std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
                let name = std::fs::read_to_string(task.unwrap().path().join("comm"));
                name.is_ok_and(|name| name.trim() == "fiberback-rt")
            });
            assert!(named);
            return;
        }
        let output = run_child("the_background_runtime::is_started_once", "once");
        assert!(output.status.success(), "{}", text(&output));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn is_another_in_a_forked_child() {
        if is_child("fork") {
            works();
            // SAFETY: the child uses only what works after a fork with other threads about: glibc's
            // allocator does (fork(3) of glibc 2.24 and later), and it leaves by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let ended = catch_unwind(works).is_ok();
                // SAFETY: no preconditions.
                unsafe { libc::_exit(if ended { 0 } else { 1 }) };
            }
            let mut status = 0;
            // SAFETY: our child.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
            works();
            return;
        }
        let output = run_child("the_background_runtime::is_another_in_a_forked_child", "fork");
        assert!(output.status.success(), "{}", text(&output));
    }
}

/// Whatever parks the thread inside a poll uses up the thread's one token; the wake-up that came
/// meanwhile is not lost with it.
#[test]
fn a_wake_up_during_a_poll_that_parks_is_not_lost() {
    let mut polls = 0;
    let woken_early = std::future::poll_fn(|context| {
        polls += 1;
        if polls == 2 {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        // Takes the token of the wake-up.
        thread::park_timeout(Duration::from_secs(60));
        std::task::Poll::Pending
    });
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            block_on(woken_early);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("hangs");
    });
}
