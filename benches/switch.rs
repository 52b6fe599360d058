//! What one wait costs, next to its floor and its peers.
//!
//! ```text
//! cargo bench --bench switch
//! ```
//!
//! Against whom:
//!
//! * **The floor**: a bare `corosensei` coroutine resumed and suspended in a loop. "inlined" has
//!   both ends in one loop, where the compiler sees all; "not inlined" has a call that is not
//!   inlined on each side, as any real use does: returning through a frame after a switch is
//!   mispredicted by the processor.
//! * **Native `.await`**, of the same leaf future, in an `async` block driven by the same executor.
//!   Measured twice. "native" has the leaf's `poll` behind a call that is not inlined, for both
//!   sides, which is what a future of another crate that does something looks like; this is what
//!   the targets are about. "inlined" lets the compiler see through: what is left is the loop, and
//!   for `await_` a look-up of the fiber that it is on.
//! * **Boxed async recursion**, the native way to be `async` at a depth not known beforehand.
//! * **`Box::pin(async {})`** as a `dyn Future`, for making a task's worth of future.
//!
//! Cases named "dyn Fn" wait at the bottom of a callback that is called through a trait object, of which
//! the optimiser knows neither what it is nor what it does. Natively such a callback returns a boxed
//! future, or all of them return the same type. "pending once inside": the future is the callback's own
//! and is not behind a call.
//!
//! To count a case's instructions instead ([docs/costs.md] says what they are for):
//!
//! ```text
//! valgrind --tool=callgrind target/release/deps/switch-... --only "dyn Fn: corosensei" 10000
//! ```
//!
//! [docs/costs.md]: ../docs/costs.md
//!
//! The executor is a loop that polls a `dyn Future` with a waker that does nothing, so that what is
//! measured is not an executor. "with an Arc waker": the waker is a counted reference, as those of
//! real executors are. Two cases at the end run on tokio.

mod harness;

use corosensei::{Coroutine, Yielder, stack::DefaultStack};
use fiberback::{Builder, Run, StackPool, await_, run, try_await};
use harness::{Bench, Target};
use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The executor.
#[inline(never)]
fn drive<T>(mut future: Pin<&mut dyn Future<Output = T>>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// The executor, with a waker that counts references.
#[inline(never)]
fn drive_with_arc<T>(mut future: Pin<&mut dyn Future<Output = T>>) -> T {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn poll_once<T>(future: Pin<&mut dyn Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Ready at once, behind a call.
struct Ready(u64);

impl Future for Ready {
    type Output = u64;

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        black_box(context); // or the compiler drops the argument, and what leads up to it
        Poll::Ready(self.0)
    }
}

/// Pending once, behind a call.
#[derive(Default)]
struct Once(bool);

impl Future for Once {
    type Output = ();

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        black_box(context);
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Times a loop around `$body`, which may `.await` if the surroundings may.
macro_rules! timed {
    ($n:expr, $i:ident => $body:expr) => {{
        let began = Instant::now();
        for $i in 0..$n {
            black_box($body);
        }
        began.elapsed()
    }};
}

fn on_fiber(n: u64, f: impl FnOnce(u64) -> Duration + 'static) -> Duration {
    drive(pin!(run(move || {
        await_(Once::default()); // the first wait on a fiber sets it up
        f(n)
    })))
}

fn floor(bench: &mut Bench<'_>) {
    #[inline(never)]
    fn resume(coroutine: &mut Coroutine<(), (), ()>) {
        black_box(coroutine.resume(()));
    }
    #[inline(never)]
    fn suspend(yielder: &Yielder<(), ()>) {
        yielder.suspend(());
        black_box(());
    }
    bench.case("corosensei, inlined", |n| {
        let mut coroutine = Coroutine::new(|yielder: &Yielder<(), ()>, ()| -> () {
            loop {
                yielder.suspend(());
            }
        });
        let took = timed!(n, _i => coroutine.resume(()));
        drop(coroutine);
        took
    });
    bench.case("corosensei, not inlined", |n| {
        let mut coroutine = Coroutine::new(|yielder: &Yielder<(), ()>, ()| -> () {
            loop {
                suspend(yielder);
            }
        });
        timed!(n, _i => resume(&mut coroutine))
    });
}

fn one_wait(bench: &mut Bench<'_>) {
    bench.case("ready: native", |n| {
        drive(pin!(async move { timed!(n, i => Ready(black_box(i)).await) }))
    });
    bench.case("ready: await_", |n| on_fiber(n, |n| timed!(n, i => await_(Ready(black_box(i))))));
    bench.case("ready: native, inlined", |n| {
        drive(pin!(async move { timed!(n, i => ready(black_box(i)).await) }))
    });
    bench.case("ready: await_, inlined", |n| {
        on_fiber(n, |n| timed!(n, i => await_(ready(black_box(i)))))
    });
    bench.case("pending once: native", |n| {
        drive(pin!(async move { timed!(n, _i => Once::default().await) }))
    });
    bench.case("pending once: await_", |n| {
        on_fiber(n, |n| timed!(n, _i => await_(Once::default())))
    });
    bench.case("pending once: native, with an Arc waker", |n| {
        drive_with_arc(pin!(async move { timed!(n, _i => Once::default().await) }))
    });
    bench.case("pending once: await_, with an Arc waker", |n| {
        drive_with_arc(pin!(run(move || timed!(n, _i => await_(Once::default())))))
    });
}

/// The wait at the bottom of somebody else's code: a callback that is called through a trait object, of
/// which the optimiser knows neither what it is nor what it does.
fn through_a_callback(bench: &mut Bench<'_>) {
    /// The code that calls back, which knows only the trait.
    #[inline(never)]
    fn calls_back(callback: &dyn Fn(u64) -> u64, n: u64) -> Duration {
        timed!(n, i => callback(black_box(i)))
    }
    bench.case("dyn Fn: corosensei", |n| {
        let mut coroutine = Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
            let yielder: *const _ = yielder;
            let callback: Box<dyn Fn(u64) -> u64> = Box::new(move |i| {
                // SAFETY: the callback is dropped before the coroutine's closure returns.
                unsafe { &*yielder }.suspend(());
                i
            });
            calls_back(&*black_box(callback), n)
        });
        #[inline(never)]
        fn resume(coroutine: &mut Coroutine<(), (), Duration>) -> Option<Duration> {
            coroutine.resume(()).as_return()
        }
        loop {
            if let Some(took) = resume(&mut coroutine) {
                return took;
            }
        }
    });
    bench.case("dyn Fn, pending once: await_", |n| {
        drive(pin!(run(move || {
            let callback: Box<dyn Fn(u64) -> u64> = Box::new(|i| {
                await_(Once::default());
                i
            });
            calls_back(&*black_box(callback), n)
        })))
    });
    bench.case("dyn Fn, pending once inside: await_", |n| {
        drive(pin!(run(move || {
            let callback: Box<dyn Fn(u64) -> u64> = Box::new(|i| {
                let mut had = false;
                await_(poll_fn(move |_| match std::mem::replace(&mut had, true) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }));
                i
            });
            calls_back(&*black_box(callback), n)
        })))
    });
    bench.case("dyn Fn, ready: native, boxed", |n| {
        type Boxed = Pin<Box<dyn Future<Output = u64>>>;
        drive(pin!(async move {
            let callback: Box<dyn Fn(u64) -> Boxed> = Box::new(|i| Box::pin(Ready(i)));
            let callback = black_box(callback);
            timed!(n, i => callback(black_box(i)).await)
        }))
    });
    bench.case("dyn Fn, ready: native, one future for all callbacks", |n| {
        drive(pin!(async move {
            let callback: Box<dyn Fn(u64) -> Ready> = Box::new(Ready);
            let callback = black_box(callback);
            timed!(n, i => callback(black_box(i)).await)
        }))
    });
    bench.case("dyn Fn, ready: await_", |n| {
        on_fiber(n, |n| {
            let callback: Box<dyn Fn(u64) -> u64> = Box::new(|i| await_(Ready(i)));
            calls_back(&*black_box(callback), n)
        })
    });
}

fn at_depth(bench: &mut Bench<'_>) {
    fn boxed(levels: u32, waits: u32) -> Pin<Box<dyn Future<Output = u32>>> {
        Box::pin(async move {
            if levels == 0 {
                for _ in 0..waits {
                    Once::default().await;
                }
                return 0;
            }
            boxed(levels - 1, waits).await + 1
        })
    }
    #[inline(never)]
    fn plain(levels: u32, waits: u32) -> u32 {
        if levels == 0 {
            for _ in 0..waits {
                await_(Once::default());
            }
            return 0;
        }
        black_box(plain(levels - 1, waits)) + 1
    }
    const CASES: [(&str, &str, u32, u32); 3] = [
        ("5 levels deep: boxed async", "5 levels deep: await_", 5, 1),
        ("50 levels deep: boxed async", "50 levels deep: await_", 50, 1),
        ("50 levels deep, 10 waits: boxed async", "50 levels deep, 10 waits: await_", 50, 10),
    ];
    for (boxed_name, plain_name, levels, waits) in CASES {
        bench.case(boxed_name, move |n| {
            drive(pin!(async move { timed!(n, _i => boxed(black_box(levels), waits).await) }))
        });
        bench.case(plain_name, move |n| {
            on_fiber(n, move |n| timed!(n, _i => plain(black_box(levels), waits)))
        });
    }
}

fn from_nothing(bench: &mut Bench<'_>) {
    bench.case("empty: Box::pin(async {})", |n| {
        timed!(n, _i => {
            let mut future: Pin<Box<dyn Future<Output = ()>>> = black_box(Box::pin(async {}));
            drive(future.as_mut())
        })
    });
    bench.case("empty: run, warm pool", |n| {
        timed!(n, _i => {
            let mut future = run(|| ());
            drive(pin!(black_box(&mut future)))
        })
    });

    // On stacks that nobody has used: their memory is yet to be mapped, guarded and faulted in.
    // The fibers are left suspended, so that each gets a stack of its own.
    fn suspended(pool: &StackPool) -> Run<()> {
        let future = Builder::new().pool(pool).run(|| await_(Once::default()));
        let mut future = future.expect("a few hundred stacks can be had");
        assert!(poll_once(pin!(&mut future)).is_pending());
        future
    }
    fn many(n: u64, pool: &StackPool) -> Duration {
        let mut futures = Vec::with_capacity(n as usize);
        timed!(n, _i => futures.push(suspended(pool)))
    }
    bench.case("run and suspend, warm pool", |n| {
        // No more at a time than a thread keeps.
        (0..n).step_by(128).map(|done| many((n - done).min(128), StackPool::global())).sum()
    });
    bench.case("run and suspend, cold pool", |n| {
        many(n, &StackPool::builder().build().expect("in range"))
    });
    bench.case("start and suspend, corosensei on a fresh DefaultStack", |n| {
        let mut coroutines = Vec::with_capacity(n as usize);
        timed!(n, _i => {
            let stack = DefaultStack::new(1 << 20).expect("few stacks");
            let mut coroutine =
                Coroutine::with_stack(stack, |yielder: &Yielder<(), ()>, ()| yielder.suspend(()));
            black_box(coroutine.resume(()));
            coroutines.push(coroutine);
        })
    });
}

/// Counts destructors.
struct Guard(Rc<Cell<u64>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn cancelled(bench: &mut Bench<'_>) {
    /// Times dropping `n` suspended futures, a few at a time.
    fn dropping<F: Future>(n: u64, make: impl Fn(Guard) -> F) -> Duration {
        let dropped = Rc::new(Cell::new(0));
        let mut took = Duration::ZERO;
        let mut left = n;
        while left > 0 {
            let batch = left.min(128);
            left -= batch;
            let futures: Vec<_> = (0..batch)
                .map(|_| {
                    let mut future = Box::pin(make(Guard(Rc::clone(&dropped))));
                    let mut context = Context::from_waker(Waker::noop());
                    assert!(future.as_mut().poll(&mut context).is_pending());
                    future
                })
                .collect();
            let began = Instant::now();
            drop(futures);
            took += began.elapsed();
        }
        assert_eq!(dropped.get(), n);
        took
    }
    bench.case("cancel: boxed future", |n| {
        dropping(n, |guard| async move {
            Once::default().await;
            drop(guard);
        })
    });
    bench.case("cancel: try_await, which returns", |n| {
        dropping(n, |guard| {
            run(move || {
                let _guard = guard;
                let _ = try_await(Once::default());
            })
        })
    });
    bench.case("cancel: await_, which unwinds", |n| {
        dropping(n, |guard| {
            run(move || {
                let _guard = guard;
                await_(Once::default());
            })
        })
    });
}

fn on_tokio(bench: &mut Bench<'_>) {
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("needs no resources")
    }
    bench.case("tokio yield_now: native", {
        let runtime = runtime();
        move |n| runtime.block_on(async move { timed!(n, _i => tokio::task::yield_now().await) })
    });
    bench.case("tokio yield_now: await_", {
        let runtime = runtime();
        move |n| runtime.block_on(run(move || timed!(n, _i => await_(tokio::task::yield_now()))))
    });
}

fn main() {
    let mut bench = Bench::default();
    floor(&mut bench);
    one_wait(&mut bench);
    through_a_callback(&mut bench);
    at_depth(&mut bench);
    from_nothing(&mut bench);
    cancelled(&mut bench);
    on_tokio(&mut bench);
    if bench.runs_only_one() {
        return;
    }
    bench.measure(301);

    println!("time for one, median:");
    bench.print_times();
    println!("\nratios, median of the rounds':");
    for (name, base, target) in [
        ("ready: await_", &["ready: native"][..], Some(Target::AtMost(1.2))),
        ("ready: await_, inlined", &["ready: native, inlined"], None),
        (
            "pending once: await_",
            &["corosensei, not inlined", "pending once: native"],
            Some(Target::AtMost(1.5)),
        ),
        ("pending once: await_", &["pending once: native"], None),
        (
            "pending once: await_, with an Arc waker",
            &["corosensei, not inlined", "pending once: native, with an Arc waker"],
            None,
        ),
        ("dyn Fn, ready: await_", &["dyn Fn, ready: native, boxed"], Some(Target::AtMost(1.05))),
        ("dyn Fn, ready: await_", &["dyn Fn, ready: native, one future for all callbacks"], None),
        (
            "dyn Fn, pending once inside: await_",
            &["corosensei, not inlined"],
            Some(Target::AtMost(1.5)),
        ),
        ("dyn Fn, pending once inside: await_", &["dyn Fn: corosensei"], Some(Target::AtMost(1.5))),
        (
            "dyn Fn, pending once: await_",
            &["dyn Fn: corosensei", "pending once: native"],
            Some(Target::AtMost(1.5)),
        ),
        ("dyn Fn, pending once: await_", &["dyn Fn: corosensei"], None),
        ("5 levels deep: boxed async", &["5 levels deep: await_"], None),
        ("50 levels deep: boxed async", &["50 levels deep: await_"], Some(Target::AtLeast(5.0))),
        ("50 levels deep, 10 waits: boxed async", &["50 levels deep, 10 waits: await_"], None),
        ("empty: run, warm pool", &["empty: Box::pin(async {})"], Some(Target::AtMost(5.0))),
        ("run and suspend, cold pool", &["run and suspend, warm pool"], None),
        (
            "start and suspend, corosensei on a fresh DefaultStack",
            &["run and suspend, cold pool"],
            None,
        ),
        ("cancel: await_, which unwinds", &["cancel: boxed future"], None),
        ("cancel: try_await, which returns", &["cancel: boxed future"], None),
        ("tokio yield_now: await_", &["tokio yield_now: native"], None),
    ] {
        bench.print_ratio(name, base, target);
    }
}
