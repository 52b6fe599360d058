//! Tracing spans that a fiber has entered.
//!
//! A subscriber keeps one stack of entered spans for each thread. A fiber that suspends inside a
//! span would leave it there for whatever the thread runs next. So when the switch comes back, the
//! spans that the fiber has entered are exited, last first, and when it goes in again they are
//! entered, first first.
//!
//! `tracing` tells only the innermost entered span. What lies above the resumer's own is therefore
//! found by exiting spans until the resumer's is the innermost. One thing is hidden from that view:
//! a span that is entered a second time (`Registry` marks it a duplicate and never reports it as
//! current). If the fiber enters the resumer's own span once more, exactly one extra exit uncovers
//! it: after a duplicate is exited, the same span is still current; otherwise we have exited the
//! resumer's own, and enter it again.

use crate::fiber::Ambient;
use tracing::span::Id;
use tracing::{Dispatch, dispatcher};

/// The spans of a suspended fiber, outermost first, and what to undo at the next suspension.
#[derive(Default)]
pub(crate) struct EnteredSpans {
    /// Exited at the last suspension; entered again at the next resumption.
    exited: Vec<Id>,
    /// The resumer's innermost span, while the fiber runs.
    resumer: Option<Id>,
}

fn current(dispatch: &Dispatch) -> Option<Id> {
    dispatch.current_span().into_inner().map(|(id, _)| id)
}

impl Ambient for EnteredSpans {
    #[inline]
    fn enter(&mut self) {
        if !dispatcher::has_been_set() {
            return;
        }
        dispatcher::get_default(|dispatch| {
            self.resumer = current(dispatch);
            for id in self.exited.drain(..) {
                dispatch.enter(&id);
            }
        });
    }

    #[inline]
    fn leave(&mut self) {
        if !dispatcher::has_been_set() {
            return;
        }
        dispatcher::get_default(|dispatch| {
            while let Some(id) = current(dispatch) {
                if Some(&id) == self.resumer.as_ref() {
                    // Ours to leave, or a duplicate of it that the fiber has entered?
                    dispatch.exit(&id);
                    if current(dispatch).as_ref() != Some(&id) {
                        dispatch.enter(&id);
                        break;
                    }
                } else {
                    dispatch.exit(&id);
                }
                self.exited.push(id);
            }
            self.exited.reverse();
        });
    }
}
