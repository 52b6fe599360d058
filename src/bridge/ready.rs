//! Which members of a group (fibers, or futures) were woken, and how their wake-ups reach the task that
//! drives them all.
//!
//! The group itself must not keep its task's waker while it waits: where wakers own their task (as in
//! `async-task`), the task would own itself through the group, and never be dropped when everybody else has
//! forgotten it. So that waker is shared by the wakers of the members, which are kept by whatever those wait
//! for, and the group only knows where it is as long as one of them does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};

/// The group's share.
#[derive(Default)]
pub(super) struct Ready {
    woken: Arc<Woken>,
    task: Weak<Task>,
}

/// Keys of members that were woken since they were last polled.
#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

/// The task that drives the group.
#[derive(Default)]
pub(super) struct Task(Mutex<Option<Waker>>);

/// What wakes one member.
pub(super) struct MemberWaker {
    key: usize,
    /// Its key is in `woken`.
    queued: AtomicBool,
    woken: Arc<Woken>,
    task: Arc<Task>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    /// The task to wake from now on, in `members`' wakers old and new. Comes before
    /// [`drain`](Self::drain), so that no wake-up falls in between.
    pub(super) fn wake_with(&mut self, waker: &Waker) -> Arc<Task> {
        let task = self.task.upgrade().unwrap_or_else(|| {
            let task = Arc::default();
            self.task = Arc::downgrade(&task);
            task
        });
        let waker = waker.clone();
        let replaced = lock(&task.0).replace(waker);
        // With nothing locked: this may run any code.
        drop(replaced);
        task
    }

    /// Moves the keys of those that were woken to `keys`, which is empty.
    pub(super) fn drain(&self, keys: &mut Vec<usize>) {
        std::mem::swap(&mut *lock(&self.woken.0), keys);
    }

    /// A waker for the member `key`, for as long as somebody keeps it.
    pub(super) fn waker(&self, key: usize, task: &Arc<Task>) -> Arc<MemberWaker> {
        let (woken, task) = (Arc::clone(&self.woken), Arc::clone(task));
        Arc::new(MemberWaker { key, queued: AtomicBool::new(false), woken, task })
    }
}

impl MemberWaker {
    /// Its member is about to be polled: whoever wakes it from now on means the next poll.
    pub(super) fn begin_poll(&self) {
        // Sees what was done before the wake-ups that it puts an end to.
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for MemberWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = lock(&self.woken.0);
        woken.push(self.key);
        let first = woken.len() == 1;
        drop(woken);
        // Whoever comes after the first finds the task on its way to `drain`.
        if first {
            self.task.wake();
        }
    }
}

impl Task {
    /// Wakes the task, unless somebody has since it was last polled.
    pub(super) fn wake(&self) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
