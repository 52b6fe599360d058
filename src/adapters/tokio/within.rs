//! A future in the context of a runtime that is not the caller's.

use std::borrow::Borrow;
use std::future::poll_fn;
use std::pin::pin;
use tokio::runtime::Handle;

/// Polls `future` with `runtime` made current, if there is one to be made.
pub(in crate::adapters) async fn within<F: Future>(
    runtime: Option<impl Borrow<Handle>>,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    poll_fn(move |context| {
        // For each poll: not across a suspension, where other tasks would see it.
        let _entered = runtime.as_ref().map(|runtime| runtime.borrow().enter());
        future.as_mut().poll(context)
    })
    .await
}
