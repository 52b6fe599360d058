//! `dump()`: what fibers there are, and where each waits.
#![cfg(feature = "dump")]

use fiberback::fiber::{Fiber, StackPool, Step};
use fiberback::{Builder, Dump, FiberDump, Run, await_, dump, run, scope, stack_remaining};
use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

/// Others' fibers of the process are in a dump, too: names tell ours.
fn found<'a>(dump: &'a Dump, name: &str) -> Vec<&'a FiberDump> {
    dump.fibers().iter().filter(|fiber| fiber.name() == Some(name)).collect()
}

fn one(name: &str) -> FiberDump {
    let dump = dump();
    let [fiber] = found(&dump, name)[..] else { panic!("{dump}") };
    fiber.clone()
}

fn functions(fiber: &FiberDump) -> Vec<&str> {
    fiber.frames().map(|frame| frame.function().unwrap().rsplit("::").next().unwrap()).collect()
}

fn named<T>(name: &str, f: impl FnOnce() -> T + 'static) -> Run<T> {
    Builder::new().name(name).run(f).unwrap()
}

fn poll<T>(run: &mut Run<T>) -> Poll<T> {
    Pin::new(run).poll(&mut Context::from_waker(Waker::noop()))
}

/// A future that is pending so many times.
fn pending_times(mut times: u32) -> impl Future<Output = ()> {
    poll_fn(move |context| {
        let is_over = times == 0;
        times = times.saturating_sub(1);
        context.waker().wake_by_ref();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
}

fn line_of(location: &Location<'_>) -> (String, u32) {
    (location.file().to_owned(), location.line())
}

#[inline(never)]
fn reads_a_page() -> u32 {
    await_(pending_times(1));
    black_box(line!() - 1)
}

#[inline(never)]
fn writes_a_page() -> u32 {
    black_box(reads_a_page())
}

#[test]
fn a_suspended_fiber_has_its_own_calls_and_no_others() {
    let (mut writer, made) = (named("writer", || black_box(writes_a_page())), line!());
    assert!(poll(&mut writer).is_pending());
    let fiber = one("writer");
    assert!(fiber.is_suspended() && !fiber.is_running() && fiber.no_stack().is_none());
    let functions = functions(&fiber);
    assert_eq!(functions[..2], ["reads_a_page", "writes_a_page"], "{fiber}");
    assert_eq!(functions.len(), 3, "and the closure: {fiber}");
    let innermost = fiber.frames().next().unwrap();
    let Poll::Ready(waited) = poll(&mut writer) else { unreachable!("it was pending once") };
    assert_eq!(line_of(fiber.waits_at().unwrap()), (file!().to_owned(), waited));
    assert!(innermost.file().unwrap().ends_with(file!()), "{fiber}");
    assert_eq!(innermost.line(), Some(waited));
    // `named` is where; it says so.
    assert_eq!(fiber.made_at().file(), file!());
    assert!(fiber.made_at().line() < made);
    assert!(fiber.suspended_for().unwrap() <= fiber.age());
}

#[test]
fn the_text_tells_it_all() {
    let mut reader = named("the one in the text", reads_a_page);
    assert!(poll(&mut reader).is_pending());
    let text = dump().to_string();
    assert!(text.starts_with(&format!("Process {}: ", std::process::id())), "{text}");
    assert!(text.contains("\nThread \"the_text_tells_it_all\"\n"), "{text}");
    let (_, rest) = text.split_once("fiber \"the one in the text\", has waited for ").unwrap();
    let (_, rest) = rest.split_once("  made at tests/dump.rs:").unwrap();
    let (_, rest) = rest.split_once("  waits at tests/dump.rs:").unwrap();
    let (_, rest) = rest.split_once("reads_a_page\n").unwrap();
    assert!(rest.trim_start().starts_with("at ") && rest.contains("tests/dump.rs:"), "{text}");
}

#[test]
fn being_looked_at_changes_nothing() {
    let mut run = named("looked at", || {
        let mut sum = 0;
        for n in 0..10 {
            await_(pending_times(2));
            sum += n;
        }
        sum
    });
    let polls = (0..).find(|_| {
        let is_ready = poll(&mut run) == Poll::Ready(45);
        if !is_ready {
            assert!(found(&dump(), "looked at")[0].is_suspended());
        }
        is_ready
    });
    assert_eq!(polls, Some(20));
    assert!(found(&dump(), "looked at").is_empty());
}

#[test]
fn those_of_other_threads_have_their_stacks_too() {
    let (tell, told) = mpsc::channel();
    let looked = Barrier::new(2);
    thread::scope(|threads| {
        let looked = &looked;
        let owner = thread::Builder::new().name("owner".to_owned());
        let owner = owner.spawn_scoped(threads, move || {
            let mut run = named("elsewhere", writes_a_page);
            assert!(poll(&mut run).is_pending());
            tell.send(thread::current().id()).unwrap();
            looked.wait();
            poll(&mut run).is_ready()
        });
        let id = told.recv().unwrap();
        let fiber = one("elsewhere");
        looked.wait();
        assert_eq!(functions(&fiber)[..2], ["reads_a_page", "writes_a_page"], "{fiber}");
        assert_eq!((fiber.thread(), fiber.thread_name()), (id, Some("owner")));
        assert!(owner.unwrap().join().unwrap(), "goes on as if nothing had been");
    });
}

#[test]
fn a_fiber_that_is_resumed_while_others_look() {
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut seen = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    for fiber in found(&dump(), "busy") {
                        if fiber.no_stack().is_none() {
                            assert_eq!(functions(fiber)[0], "waits_and_counts", "{fiber}");
                            seen += 1;
                        }
                    }
                }
                seen
            });
        }
        #[inline(never)]
        fn waits_and_counts(counter: &Cell<u64>) {
            await_(pending_times(1));
            counter.set(counter.get() + 1);
        }
        let _end = scopeguard::guard((), |()| is_over.store(true, Ordering::Relaxed));
        for _ in 0..200 {
            let counter = Rc::new(Cell::new(0));
            let count = Rc::clone(&counter);
            let mut run = named("busy", move || {
                for _ in 0..100 {
                    waits_and_counts(&count);
                }
            });
            while poll(&mut run).is_pending() {}
            assert_eq!(counter.get(), 100);
            // One that is dropped where it waits.
            let count = Rc::clone(&counter);
            let mut run = named("busy", move || {
                let _end = scopeguard::guard((), |()| count.set(0));
                waits_and_counts(&count);
            });
            assert!(poll(&mut run).is_pending());
            drop(run);
            assert_eq!(counter.get(), 0, "unwound");
        }
    });
}

#[test]
fn those_that_have_not_begun_run_or_are_over() {
    let mut late = named("late", reads_a_page);
    let fiber = one("late");
    assert!(!fiber.is_suspended() && !fiber.is_running());
    assert_eq!((fiber.no_stack(), fiber.waits_at()), (Some("has not begun"), None));
    let mut runs = named("runs", || one("runs"));
    let Poll::Ready(fiber) = poll(&mut runs) else { unreachable!("it does not wait") };
    assert!(fiber.is_running() && fiber.frames().len() == 0);
    assert!(fiber.to_string().contains("\"runs\", runs, "), "{fiber}");
    assert!(found(&dump(), "runs").is_empty(), "over");
    let mut panics = named("panics", || panic!("on purpose"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut panics)));
    assert!(panicked.is_err() && found(&dump(), "panics").is_empty());
    assert!(poll(&mut late).is_pending());
    drop(late);
    assert!(found(&dump(), "late").is_empty(), "cancelled");
    drop(named("never", || ()));
    assert!(found(&dump(), "never").is_empty());
}

#[test]
fn a_forgotten_one_still_waits_and_a_leaked_one_is_gone() {
    let mut run = named("forgotten", reads_a_page);
    assert!(poll(&mut run).is_pending());
    std::mem::forget(run);
    assert_eq!(functions(&one("forgotten"))[0], "reads_a_page");
    let mut fiber = Fiber::new(StackPool::global().take().unwrap(), |suspender, ()| {
        let _ = suspender.suspend(());
    });
    fiber.set_name("leaked");
    assert_eq!(fiber.resume(()), Step::Yield(()));
    assert_eq!(found(&dump(), "leaked").len(), 1);
    fiber.leak();
    assert!(found(&dump(), "leaked").is_empty());
}

#[test]
fn fibers_without_futures_are_there_too() {
    let made = line!() + 1;
    let mut fiber = Fiber::new(StackPool::global().take().unwrap(), |suspender, first: u32| {
        let second = suspender.suspend(first).unwrap();
        (first + second, line!() - 1)
    });
    fiber.set_name("adder");
    assert_eq!(fiber.resume(1), Step::Yield(1));
    let seen = one("adder");
    let Step::Return((sum, waited)) = fiber.resume(2) else { unreachable!("it adds two numbers") };
    assert_eq!(sum, 3);
    assert_eq!((seen.made_at().line(), seen.waits_at().unwrap().line()), (made, waited));
    assert_eq!(seen.frames().len(), 1, "{seen}");
}

#[test]
fn fibers_of_a_scope_are_made_where_they_are_spawned() {
    let mut run = named("the scope's owner", || {
        let line = Cell::new(0);
        scope(|s| {
            line.set(line!() + 1);
            s.spawn_with(&Builder::new().name("member"), || await_(pending_times(1))).unwrap();
        });
        line.get()
    });
    assert!(poll(&mut run).is_pending());
    let (member, owner) = (one("member"), one("the scope's owner"));
    let Poll::Ready(spawned) = poll(&mut run) else { panic!("the member was woken: {}", dump()) };
    assert_eq!(line_of(member.made_at()), (file!().to_owned(), spawned));
    assert!(member.is_suspended() && owner.is_suspended());
    assert_eq!(owner.waits_at().unwrap().line(), spawned - 2, "{owner}");
}

#[test]
fn a_wait_inside_of_another_is_told_while_it_lasts() {
    let mut run = named("nested", || {
        let outer = line!() + 1;
        await_(poll_fn(move |_| {
            if outer > 0 {
                await_(pending_times(1));
            }
            Poll::<()>::Pending
        }));
    });
    assert!(poll(&mut run).is_pending());
    let inner = one("nested").waits_at().unwrap().line();
    assert!(poll(&mut run).is_pending());
    let outer = one("nested").waits_at().unwrap().line();
    // Each poll of the outer one waits inside again.
    assert_eq!(inner, outer);
    let mut run = named("nested once", || {
        let mut is_first = true;
        await_(poll_fn(move |_| {
            if std::mem::take(&mut is_first) {
                await_(pending_times(1));
            }
            Poll::<()>::Pending
        }));
    });
    assert!(poll(&mut run).is_pending());
    let inner = one("nested once").waits_at().unwrap().line();
    assert!(poll(&mut run).is_pending());
    assert_eq!(one("nested once").waits_at().unwrap().line(), inner - 2);
}

#[test]
fn one_that_has_no_room_left_for_the_unwinder_is_told_without_its_stack() {
    #[inline(never)]
    fn goes_deep(least: usize) {
        let mut room = [0_u8; 64];
        black_box(&mut room);
        if stack_remaining().unwrap() < least {
            await_(pending_times(1));
        } else {
            goes_deep(least);
        }
        black_box(&mut room);
    }
    // The last that walks the stack, and the first that does not.
    for (least, walks) in [(24 << 10, true), (15 << 10, false), (4 << 10, false)] {
        let mut run = named("deep", move || goes_deep(least));
        assert!(poll(&mut run).is_pending());
        let fiber = one("deep");
        assert_eq!(fiber.no_stack().is_none(), walks, "{fiber}");
        if walks {
            assert_eq!(functions(&fiber)[0], "goes_deep");
            assert!(fiber.to_string().ends_with("... and more"), "{fiber}");
        } else {
            assert!(fiber.to_string().contains("no stack: too little"), "{fiber}");
        }
        assert_eq!(poll(&mut run), Poll::Ready(()));
    }
}

#[test]
fn a_dump_at_the_end_of_a_thread() {
    struct Dumps(Cell<Option<Run<u32>>>);
    impl Drop for Dumps {
        fn drop(&mut self) {
            assert_eq!(one("of an ending thread").frames().len(), 1);
            // Made when the thread's list is gone.
            let mut late = named("made at the end", reads_a_page);
            assert!(poll(&mut late).is_pending());
            std::mem::forget(self.0.take());
            std::mem::forget(late);
            let _ = dump();
        }
    }
    thread_local! {
        static LAST: Dumps = const { Dumps(Cell::new(None)) };
    }
    let ended = thread::spawn(|| {
        LAST.with(|last| {
            let mut run = named("of an ending thread", reads_a_page);
            assert!(poll(&mut run).is_pending());
            last.0.set(Some(run));
        });
    });
    ended.join().unwrap();
    // Its stack is there for ever.
    assert_eq!(functions(&one("of an ending thread")), ["reads_a_page"]);
}

#[test]
fn a_fiber_without_a_name() {
    let mut unnamed = run(reads_a_page);
    assert!(poll(&mut unnamed).is_pending());
    let dump = dump();
    let here = thread::current().id();
    let fibers = dump.fibers();
    let fiber = fibers.iter().find(|fiber| fiber.thread() == here && fiber.name().is_none());
    assert!(fiber.unwrap().to_string().starts_with("fiber without a name, has waited"), "{dump}");
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use super::*;
    use fiberback::tokio::PinnedPool;
    use std::time::Duration;

    #[tokio::test]
    async fn jobs_of_a_pool_are_made_where_they_are_spawned() {
        let pool = PinnedPool::builder().worker_threads(1).thread_name("works").build().unwrap();
        let wait = || await_(tokio::time::sleep(Duration::from_secs(3600)));
        let spawned = line!() + 1;
        let job = pool.spawn_named("a job", wait);
        let fiber = loop {
            let dump = dump();
            match found(&dump, "a job")[..] {
                [fiber] if fiber.is_suspended() => break fiber.clone(),
                _ => tokio::task::yield_now().await,
            }
        };
        assert_eq!(line_of(fiber.made_at()), (file!().to_owned(), spawned));
        assert_eq!(line_of(fiber.waits_at().unwrap()), (file!().to_owned(), spawned - 2));
        assert_eq!(fiber.thread_name(), Some("works-0"));
        job.abort();
        assert!(job.await.unwrap_err().is_cancelled());
        assert!(found(&dump(), "a job").is_empty());
    }
}
