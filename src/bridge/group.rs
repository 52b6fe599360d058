//! The fibers of one `scope`, `join` or `map_concurrent`: driven together, and ended together.
//!
//! # Invariant
//!
//! A member's code may borrow what belongs to the frame that owns the [`Group`], and to frames above that.
//! It is safe because a member runs only *inside* of that frame:
//!
//! * Members are resumed by [`Group::poll`] and [`Group::end`] alone, which are called on the owner's fiber,
//!   below the frame that owns the group. So while a member runs, that frame is there; and from the time
//!   that the frame is gone none runs any more: [`Group`]'s destructor, which every way out of the frame
//!   passes (a return, a panic, the cancellation of the owner's fiber), ends each member, and never leaks one.
//! * The frame may also be given up where it stands: `mem::forget` of the owner's `Run`, a `Run` dropped at
//!   the end of its thread, or in a program with `panic = "abort"`. Its fiber then never runs again, so its
//!   members do not either. But a thread that a member has begun in a `std::thread::scope` goes on, with what
//!   it borrowed. That is still there: a fiber that is leaked keeps its stack for ever, with every frame on
//!   it, so that nothing that these own (also on the heap) is dropped, and no borrow that they hold ends. And
//!   since the closure of a `Run` is `'static`, all that code on it can borrow for less is owned by these
//!   frames, or is lent to them until a call returns that now never will. The exception is what the end of a
//!   thread destroys in spite of its borrowers, thread-locals: a known hole of any leaked `Run`
//!   (`lib.rs`, "What will not work"), with and without this module. (`run_unchecked` forbids leaking.)
//! * The members of a group whose owner's frame was given up share its fate: they are owned by it.

#![allow(unsafe_code)]

use super::await_::{raise, try_await};
use super::ready::{MemberWaker, Ready, Task};
use super::run::Run;
use crate::fiber::{Site, Stack, current};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

/// Fibers that the owner's fiber drives; see the module docs.
#[derive(Default)]
pub(super) struct Group {
    members: RefCell<Members>,
    ready: RefCell<Ready>,
    /// Keys of members to poll that no waker was needed for: new ones, and those of [`Notice`].
    next: RefCell<VecDeque<usize>>,
    /// The member that is being polled, and its fiber.
    polling: Cell<Option<(usize, usize)>>,
    /// Takes no more members.
    is_ending: Cell<bool>,
    /// The first.
    panic: RefCell<Option<Box<dyn Any + Send>>>,
}

#[derive(Default)]
struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<usize>,
}

struct Member {
    /// `None` while it is being polled.
    run: Option<Run<()>>,
    waker: Weak<MemberWaker>,
    /// To be ended as soon as it waits.
    is_doomed: bool,
}

impl Group {
    /// Makes `f` a member, on `stack`; [`run_to_end`](Self::run_to_end) runs it. `None` if the group is
    /// being ended: `f` was dropped.
    ///
    /// # Safety
    ///
    /// What `f` borrows must live as long as the group.
    pub(super) unsafe fn add<F>(
        &self,
        site: Site,
        stack: Stack,
        name: Option<&str>,
        f: F,
    ) -> Option<usize>
    where
        F: FnOnce(),
    {
        if self.is_ending.get() {
            return None;
        }
        // SAFETY: the caller's promise, and the module's invariant: whether or not the fiber is ever leaked,
        // nothing of `f` runs after the group is gone.
        let run = unsafe { Run::new_unchecked(site, stack, name, f) };
        let member = Member { run: Some(run), waker: Weak::new(), is_doomed: false };
        let key = self.members.borrow_mut().insert(member);
        self.next.borrow_mut().push_back(key);
        Some(key)
    }

    /// Drives the members, which may add others, until all of them have ended. The calling fiber waits
    /// meanwhile.
    ///
    /// If one panics, or the calling fiber is cancelled, the rest are cancelled, and the caller unwinds: with
    /// the first panic, or as `await_` does.
    #[track_caller]
    pub(super) fn run_to_end(&self) {
        let waited = try_await(poll_fn(|context| self.poll(context)));
        self.end();
        let panicked = self.panic.borrow_mut().take();
        if let Some(payload) = panicked {
            panic::resume_unwind(payload);
        }
        if let Err(error) = waited {
            raise(error);
        }
    }

    /// Polls those that can go on. Ready when there are none left, or one has panicked.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let task = self.ready.borrow_mut().wake_with(context.waker());
        let mut woken = Vec::new();
        self.ready.borrow().drain(&mut woken);
        for key in woken {
            self.poll_member(key, &task);
            if self.panic.borrow().is_some() {
                return Poll::Ready(());
            }
        }
        // Whoever was woken through a waker meanwhile has its turn in the next poll: others of the thread
        // come first.
        loop {
            let Some(key) = self.next.borrow_mut().pop_front() else { break };
            self.poll_member(key, &task);
            if self.panic.borrow().is_some() {
                return Poll::Ready(());
            }
        }
        if self.members.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_member(&self, key: usize, task: &Arc<Task>) {
        let Some((mut run, waker)) = self.begin_poll(key, task) else { return };
        let outer = self.polling.replace(Some((key, run.address())));
        // What a panic leaves half done belongs to code that the panic ends, too.
        let polled = panic::catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut run).poll(&mut Context::from_waker(&waker))
        }));
        self.polling.set(outer);
        match polled {
            Ok(Poll::Pending) => {
                let mut members = self.members.borrow_mut();
                match &mut members.slots[key] {
                    Some(member) if !member.is_doomed => member.run = Some(run),
                    _ => {
                        members.remove(key);
                        drop(members);
                        self.end_member(run);
                    }
                }
            }
            Ok(Poll::Ready(())) => self.members.borrow_mut().remove(key),
            Err(payload) => {
                self.members.borrow_mut().remove(key);
                self.has_panicked(payload);
            }
        }
    }

    /// Takes a member out to be polled. `None` if it has ended.
    fn begin_poll(&self, key: usize, task: &Arc<Task>) -> Option<(Run<()>, Waker)> {
        let mut members = self.members.borrow_mut();
        let member = members.slots.get_mut(key)?.as_mut()?;
        let run = member.run.take()?;
        let waker = member.waker.upgrade().unwrap_or_else(|| {
            let waker = self.ready.borrow().waker(key, task);
            member.waker = Arc::downgrade(&waker);
            waker
        });
        waker.begin_poll();
        Some((run, Waker::from(waker)))
    }

    /// Ends the member `key`, which must not have ended: now, or, if the caller is inside of it, when it
    /// next waits.
    ///
    /// In a program with `panic = "abort"`, where nothing can be unwound, one that has begun goes on.
    pub(super) fn cancel(&self, key: usize) {
        let mut members = self.members.borrow_mut();
        let Some(member) = &mut members.slots[key] else { return };
        match member.run.take() {
            Some(run) if run.can_be_cancelled() => {
                members.remove(key);
                drop(members);
                let mut run = run;
                run.cancel();
            }
            Some(run) => member.run = Some(run),
            None => member.is_doomed = cfg!(panic = "unwind"),
        }
    }

    /// Cancels all members that there are. Panics of their destructors are kept, or forgotten.
    fn end(&self) {
        self.is_ending.set(true);
        loop {
            let Some(run) = self.members.borrow_mut().pop() else { break };
            self.end_member(run);
        }
    }

    fn end_member(&self, mut run: Run<()>) {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| run.cancel())) {
            self.has_panicked(payload);
        }
    }

    fn has_panicked(&self, payload: Box<dyn Any + Send>) {
        let mut first = self.panic.borrow_mut();
        if first.is_none() {
            *first = Some(payload);
        } else {
            // Its destructor might panic, too.
            mem::forget(payload);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
        // Only if the frame was left by another panic.
        mem::forget(self.panic.borrow_mut().take());
    }
}

impl Members {
    fn insert(&mut self, member: Member) -> usize {
        let key = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[key] = Some(member);
        key
    }

    fn remove(&mut self, key: usize) {
        self.slots[key] = None;
        self.free.push(key);
    }

    fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// Removes any member that is not being polled.
    fn pop(&mut self) -> Option<Run<()>> {
        while let Some(slot) = self.slots.pop() {
            if let Some(Member { run: Some(run), .. }) = slot {
                return Some(run);
            }
        }
        self.free.clear();
        None
    }
}

/// How code of a group hears that something has happened in another member of it.
///
/// Code that waits for it on a member's own fiber is polled next, without a waker; for anybody else a waker
/// is kept.
#[derive(Default)]
pub(super) struct Notice(Cell<Option<Listener>>);

enum Listener {
    Member(usize),
    Other(Waker),
}

impl Notice {
    /// Whoever polls is polled again after the next [`notify`](Self::notify).
    pub(super) fn listen(&self, group: &Group, context: &Context<'_>) {
        let listener = match group.polling.get() {
            Some((key, fiber)) if fiber == current::address() => Listener::Member(key),
            _ => Listener::Other(context.waker().clone()),
        };
        drop(self.0.replace(Some(listener)));
    }

    /// Tells whoever listens.
    pub(super) fn notify(&self, group: &Group) {
        match self.0.take() {
            Some(Listener::Member(key)) => group.next.borrow_mut().push_back(key),
            Some(Listener::Other(waker)) => waker.wake(),
            None => {}
        }
    }
}
