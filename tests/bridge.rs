//! `run` and `await_`: the behaviour of the bridge.

mod support;

use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::rc::Rc;
use std::task::Poll;
use support::yield_once;

#[tokio::test]
async fn waits_deep_in_the_stack() {
    fn deep(levels: u32) -> u32 {
        if levels == 0 {
            fiberback::await_(yield_once());
            return fiberback::await_(ready(1));
        }
        deep(levels - 1) + 1
    }
    assert_eq!(fiberback::run(|| deep(50)).await, 51);
}

#[tokio::test]
async fn nested_wait_inside_a_poll() {
    let n = fiberback::run(|| {
        fiberback::await_(async {
            let inner = || {
                fiberback::await_(yield_once());
                fiberback::await_(yield_once());
                5
            };
            let a = inner();
            yield_once().await;
            a + inner()
        })
    })
    .await;
    assert_eq!(n, 10);
}

#[tokio::test]
async fn dropping_unwinds() {
    let dropped = Rc::new(Cell::new(0));
    struct D(Rc<Cell<i32>>);
    impl Drop for D {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let d = D(dropped.clone());
    let mut run = Box::pin(fiberback::run(move || {
        let _d = d;
        fiberback::await_(std::future::pending::<()>());
    }));
    assert!(futures_poll(run.as_mut()).await);
    drop(run);
    assert_eq!(dropped.get(), 1);
}

async fn futures_poll<F: Future + Unpin>(mut f: F) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut f).poll(cx).is_pending())).await
}

#[test]
fn nothing_runs_before_the_first_poll_and_ready_waits_take_one() {
    let ran = Rc::new(Cell::new(false));
    let flag = ran.clone();
    let mut run = fiberback::run(move || {
        flag.set(true);
        (0..100).map(|n| fiberback::await_(ready(n))).sum::<i32>()
    });
    assert!(!ran.get());
    assert_eq!(support::poll_to_end(&mut run, 1), 4950);
    assert!(ran.get());
}

#[tokio::test]
async fn futures_may_borrow_and_need_not_be_send() {
    let lengths = fiberback::run(|| {
        let text = String::from("borrowed");
        let shared = Rc::new(Cell::new(0));
        fiberback::await_(async {
            yield_once().await;
            shared.set(text.len());
            yield_once().await;
        });
        (text.len(), shared.get())
    })
    .await;
    assert_eq!(lengths, (8, 8));
}

#[tokio::test]
async fn waits_in_callbacks_of_synchronous_code() {
    let sorted = fiberback::run(|| {
        let mut values = vec![5, 3, 9, 1];
        values.sort_by_key(|&value| {
            fiberback::await_(async move {
                yield_once().await;
                -value
            })
        });
        let guard = support::OnDrop(|| fiberback::await_(yield_once()));
        drop(guard);
        values
    })
    .await;
    assert_eq!(sorted, [9, 5, 3, 1]);
}

#[tokio::test]
async fn values_of_16_kib_cross_every_boundary() {
    let captured = [1u8; 16 << 10];
    let returned = fiberback::run(move || {
        let awaited = fiberback::await_(async move {
            yield_once().await;
            [captured[5] + 1; 20 << 10]
        });
        yielding_sum(&awaited);
        awaited
    })
    .await;
    assert!(returned.iter().all(|&byte| byte == 2));
}

fn yielding_sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(4096)
        .map(|chunk| {
            fiberback::await_(async {
                yield_once().await;
                chunk.iter().map(|&byte| u32::from(byte)).sum::<u32>()
            })
        })
        .sum()
}

#[test]
fn on_fiber_tells_where_it_is() {
    use fiberback::fiber::{Fiber, StackPool, Step, Suspender};
    assert!(!fiberback::on_fiber());
    let mut run = fiberback::run(|| {
        assert!(fiberback::on_fiber());
        // A bare fiber is not one that futures can be awaited on.
        let stack = StackPool::global().take().unwrap();
        let mut bare = Fiber::new(stack, |_: &Suspender<(), ()>, ()| {
            assert!(!fiberback::on_fiber());
            assert!(fiberback::try_await(ready(())).unwrap_err().is_off_fiber());
        });
        assert_eq!(bare.resume(()), Step::Return(()));
        assert!(fiberback::on_fiber());
        fiberback::await_(yield_once());
        assert!(fiberback::on_fiber());
    });
    assert!(support::poll_once(&mut run).is_pending());
    assert!(!fiberback::on_fiber());
    assert!(support::poll_once(&mut run).is_ready());
}

#[tokio::test]
async fn runs_nest_as_deep_as_stacks_allow() {
    fn nested(levels: u32) -> u32 {
        if levels == 0 {
            fiberback::await_(yield_once());
            return 0;
        }
        1 + fiberback::await_(fiberback::run(move || nested(levels - 1)))
    }
    assert_eq!(fiberback::run(|| nested(60)).await, 60);
}

#[tokio::test]
async fn ten_thousand_at_once() {
    let mut runs: Vec<_> = (0..10_000)
        .map(|n| {
            Box::pin(fiberback::run(move || {
                fiberback::await_(yield_once());
                n
            }))
        })
        .collect();
    for run in &mut runs {
        assert!(futures_poll(run.as_mut()).await);
    }
    let mut sum = 0;
    for run in runs {
        sum += run.await;
    }
    assert_eq!(sum, 49_995_000);
}

#[test]
fn run_unchecked_borrows() {
    let mut count = 0;
    {
        // SAFETY: polled to completion before `count` is used again.
        let mut run = unsafe {
            fiberback::run_unchecked(|| {
                fiberback::await_(yield_once());
                count += 1;
            })
        };
        support::poll_to_end(&mut run, 2);
    }
    assert_eq!(count, 1);
}

#[test]
fn a_builder_is_used_again_and_debug_shows_the_name() {
    let builder = fiberback::Builder::new().name("reader").stack_size(128 << 10);
    for n in 0..3 {
        let mut run = builder.run(move || n).unwrap();
        assert!(format!("{run:?}").contains("reader"));
        assert_eq!(support::poll_to_end(&mut run, 1), n);
    }
}
