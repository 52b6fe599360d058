//! `run` and `await_`: the behaviour of the bridge.
use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::rc::Rc;
use std::task::Poll;

fn yield_once() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

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
