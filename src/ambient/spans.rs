//! Tracing spans that a fiber has entered, and the subscriber it has set.
//!
//! A subscriber keeps one stack of entered spans for each thread. A fiber that suspends inside a
//! span would leave it there for whatever the thread runs next. So when the switch comes back, the
//! spans that the fiber has entered are exited, last first, and when it goes in again they are
//! entered, first first, on top of whatever the resumer has entered by then.
//!
//! # Which spans are the fiber's?
//!
//! `tracing` tells one thing only: which span is innermost ([`Dispatch::current_span`]). And not
//! even that for a span that was entered before it was exited: `Registry` marks the second entry as
//! a duplicate, and never reports it. A duplicate that stayed behind would go unnoticed until the
//! resumer leaves its own span, which would then remove the duplicate instead, and stay itself.
//!
//! The one way to see everything is to take it off. So, if anything is entered at all, both
//! [`enter`](Ambient::enter) and [`leave`](Ambient::leave) exit spans until none is left. The first
//! sees what is the resumer's, and enters it again; the second sees the resumer's and the fiber's,
//! tells the one from the other, and enters the resumer's again. (`Registry` uncovers a duplicate
//! right after the span it duplicates, so its place among the others is lost, which nobody can tell:
//! what an exit removes, and what is innermost after it, does not depend on it.)
//!
//! # Which subscribers?
//!
//! The resumer's default and the fiber's own, if it is suspended within `with_default`, are looked
//! at; each has its own stack. What the fiber has entered with yet others stays.
//!
//! The default is itself a setting of the thread, and is swapped too. Two `Dispatch`es cannot be
//! compared. So whenever a scoped default is in force on either side, the swap is done, needed or
//! not; and a subscriber may be looked at twice, of which the second time finds nothing, since all
//! are emptied before any is filled again.
//!
//! In the middle of a dispatch nothing is swapped, for nothing can be: a fiber that a subscriber polls
//! runs without its spans and without a default, as all does that a subscriber calls.

use super::dispatching::{self, Within};
use crate::fiber::Ambient;
use std::cell::Cell;

use std::ptr;
use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing::span::Id;

/// More spans than any thread is in. A subscriber whose current span does not change when it is
/// exited must not hang us.
const MAX_DEPTH: usize = 1 << 14;

/// What the thread takes over when the fiber is resumed, and gives up when it is left.
#[derive(Default)]
pub(crate) struct EnteredSpans {
    /// The default at the last resumption, while the fiber runs.
    resumer: Option<ThreadDefault>,
    /// While the fiber runs.
    within: Within,
    /// Made when there is anything to remember.
    state: Option<Box<State>>,
}

#[derive(Default)]
struct State {
    lanes: Vec<Lane>,
    /// While the fiber is suspended, if it has a default of its own: puts that back when dropped.
    own_default: Option<DefaultGuard>,
}

/// The spans entered with one subscriber.
struct Lane {
    dispatch: Dispatch,
    /// True for the subscriber of the whole process: the lane is kept, with its buffers.
    global: bool,
    /// What the resumer had entered, while the fiber runs. Outermost first, like the next.
    resumer: Vec<Id>,
    /// What the fiber had entered, while it is suspended. Each holds a reference to its span.
    fiber: Vec<Id>,
}

/// The dispatcher that the thread uses now.
struct ThreadDefault {
    dispatch: Dispatch,
    /// Whether it was set for a scope of this thread, not for the process.
    scoped: bool,
}

impl ThreadDefault {
    /// `None` in the middle of a dispatch.
    fn get() -> Option<Self> {
        // Cloned, and never used inside: a subscriber that asks for the default while the default
        // is being asked for gets none, and could not close spans.
        let (dispatch, address) =
            dispatching::outside(|dispatch| (dispatch.clone(), ptr::from_ref(dispatch).addr()))?;
        Some(Self { dispatch, scoped: address == scoped_default_address() })
    }
}

/// Where `tracing` keeps this thread's scoped default; found out once for each thread, and not in the middle of
/// a dispatch.
///
/// Should `tracing` come to keep it elsewhere, the answer is wrong, and scoped defaults follow the
/// rules of any other thread-local setting: they are not swapped.
fn scoped_default_address() -> usize {
    thread_local! {
        static ADDRESS: Cell<usize> = const { Cell::new(0) };
    }
    if ADDRESS.get() == 0 {
        let same = dispatcher::get_default(Dispatch::clone);
        let _scope = dispatcher::set_default(&same);
        ADDRESS.set(dispatcher::get_default(|dispatch| ptr::from_ref(dispatch).addr()));
    }
    ADDRESS.get()
}

fn current(dispatch: &Dispatch) -> Option<Id> {
    dispatch.current_span().into_inner().map(|(id, _)| id)
}

impl Ambient for EnteredSpans {
    #[inline]
    fn enter(&mut self) {
        if dispatcher::has_been_set() {
            self.enter_spans();
        }
    }

    #[inline]
    fn leave(&mut self) {
        if dispatcher::has_been_set() {
            self.leave_spans();
        }
    }
}

impl EnteredSpans {
    #[inline(never)]
    fn enter_spans(&mut self) {
        let default = ThreadDefault::get();
        self.within.enter(default.is_none());
        let Some(default) = default else { return };
        if self.state.is_some() || default.scoped || current(&default.dispatch).is_some() {
            self.state.get_or_insert_default().enter(&default);
        }
        self.resumer = Some(default);
    }

    #[inline(never)]
    fn leave_spans(&mut self) {
        let was_within = self.within.leave();
        let Some(default) = ThreadDefault::get() else {
            debug_assert!(was_within, "a fiber that is in a dispatch of its own is not left");
            return;
        };
        // None if the first subscriber of all was set on the fiber.
        let resumer = self
            .resumer
            .take()
            .unwrap_or_else(|| ThreadDefault { dispatch: Dispatch::none(), scoped: false });
        if self.state.is_some() || default.scoped || current(&default.dispatch).is_some() {
            self.state.get_or_insert_default().leave(&resumer, &default);
        }
    }
}

impl State {
    fn enter(&mut self, resumer: &ThreadDefault) {
        self.look_at(resumer);
        for lane in &mut self.lanes {
            exit_all(&lane.dispatch, &mut lane.resumer);
        }
        for lane in &mut self.lanes {
            for id in &lane.resumer {
                enter_again(&lane.dispatch, id.clone());
            }
        }
        drop(self.own_default.take());
        for lane in &mut self.lanes {
            for id in lane.fiber.drain(..) {
                enter_again(&lane.dispatch, id);
            }
        }
    }

    fn leave(&mut self, resumer: &ThreadDefault, fiber: &ThreadDefault) {
        self.look_at(fiber);
        for lane in &mut self.lanes {
            exit_all(&lane.dispatch, &mut lane.fiber);
        }
        for Lane { dispatch, resumer, fiber, .. } in &mut self.lanes {
            // Each of the resumer's once, from the outermost; those that the fiber has exited (it
            // may own the guard) stay exited. The rest is the fiber's.
            fiber.retain(|id| match resumer.iter().position(|other| other == id) {
                Some(index) => {
                    resumer.remove(index);
                    enter_again(dispatch, id.clone());
                    false
                }
                None => true,
            });
            resumer.clear();
        }
        self.lanes.retain(|lane| lane.global || !lane.fiber.is_empty());
        if resumer.scoped || fiber.scoped {
            self.own_default = Some(dispatcher::set_default(&resumer.dispatch));
        }
    }

    /// Makes sure that this subscriber has a lane.
    fn look_at(&mut self, default: &ThreadDefault) {
        let global = !default.scoped;
        if let Some(lane) = self.lanes.iter_mut().find(|lane| global && lane.global) {
            // It is set once, perhaps since we last looked; nothing was entered before.
            if lane.fiber.is_empty() && lane.resumer.is_empty() {
                lane.dispatch = default.dispatch.clone();
            }
            return;
        }
        let dispatch = default.dispatch.clone();
        self.lanes.push(Lane { dispatch, global, resumer: Vec::new(), fiber: Vec::new() });
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(own_default) = self.own_default.take() {
            if dispatching::outside(|_| ()).is_none() {
                // Of a leaked fiber. It could not be put back, and whoever polls the fiber is told nothing.
                return std::mem::forget(own_default);
            }
            // Dropping it sets the thread's default; the outer scope sets it back as it is now.
            let here = dispatcher::get_default(Dispatch::clone);
            let _scope = dispatcher::set_default(&here);
            drop(own_default);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Never entered again: what a fiber left entered for ever, or the spans of a leaked one.
        for id in self.fiber.drain(..) {
            self.dispatch.try_close(id);
        }
    }
}

/// Exits all spans that the thread is in, and adds them to the list, outermost first. Each comes
/// with a reference to its span, which may have no other.
fn exit_all(dispatch: &Dispatch, exited: &mut Vec<Id>) {
    let start = exited.len();
    while let Some(id) = current(dispatch) {
        let held = dispatch.clone_span(&id);
        dispatch.exit(&id);
        exited.push(held);
        if exited.len() - start == MAX_DEPTH {
            break;
        }
    }
    exited[start..].reverse();
}

/// Enters what [`exit_all`] has exited, and gives up the reference.
fn enter_again(dispatch: &Dispatch, id: Id) {
    dispatch.enter(&id);
    dispatch.try_close(id);
}
