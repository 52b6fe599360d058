//! What fibers there are, and what each of them does, for whoever looks from another thread.
//!
//! # Invariant
//!
//! A fiber's [`Seen::state`] says who may touch the fiber's coroutine. `SUSPENDED` is nobody's: its owner
//! claims it ([`Seen::begin_turn`]) before it resumes the fiber, and one walker at a time, on any thread, before
//! it has the fiber report its stack ([`Seen::begin_walk`]). Whoever finds it claimed by another does not
//! touch the fiber: a walker goes without if that is the owner, and both wait until a walk is over. All other
//! states are the owner's. What a claim's holder has written is seen by the next one (acquire, release).

#![allow(unsafe_code)]

use super::coarse_clock::{self, Time};
use super::report::Report;
use super::site::Site;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// The rosters of all threads.
static ALL: Mutex<Vec<Weak<Roster>>> = Mutex::new(Vec::new());

thread_local! {
    static HERE: Arc<Roster> = Roster::list();
}

/// The fibers of one thread, which is the one that resumes them.
pub(crate) struct Roster {
    thread: ThreadId,
    thread_name: Option<Box<str>>,
    #[cfg(target_os = "linux")]
    thread_number: i32,
    fibers: Mutex<Vec<Arc<Seen>>>,
    /// The innermost fiber that the thread runs, or null. Only to be compared.
    runs: AtomicPtr<Seen>,
    /// How often the thread has switched to a fiber and back.
    switches: AtomicU64,
}

/// What others see of one fiber.
pub(crate) struct Seen {
    state: AtomicU8,
    /// Where it is in its roster, which locks that.
    index: AtomicUsize,
    roster: Arc<Roster>,
    /// The fiber's record. For the holder of a claim.
    record: NonNull<()>,
    name: Mutex<Option<Arc<str>>>,
    made_at: &'static Location<'static>,
    made: Time,
    /// Where it has waited last, or null.
    waits_at: AtomicPtr<Location<'static>>,
    /// When it was suspended last.
    suspended: AtomicU64,
    /// Where it is to report its stack to, while it is walked.
    report: AtomicPtr<Report>,
}

// SAFETY: all but the record is; that is a number to all but the holder of a claim.
unsafe impl Send for Seen {}
// SAFETY: as above; and the report is for the fiber alone, which the walker waits for.
unsafe impl Sync for Seen {}

const NOT_BEGUN: u8 = 0;
const SUSPENDED: u8 = 1;
const RUNNING: u8 = 2;
const WALKED: u8 = 3;
const DONE: u8 = 4;

/// What a fiber does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    NotBegun,
    Suspended,
    Running,
    Done,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    fn new() -> Self {
        let thread = thread::current();
        Self {
            thread: thread.id(),
            thread_name: thread.name().map(Box::from),
            #[cfg(target_os = "linux")]
            // SAFETY: no preconditions.
            thread_number: unsafe { libc::gettid() },
            fibers: Mutex::default(),
            runs: AtomicPtr::new(ptr::null_mut()),
            switches: AtomicU64::new(0),
        }
    }

    /// One for this thread, which others find.
    fn list() -> Arc<Self> {
        let roster = Arc::new(Self::new());
        let mut all = lock(&ALL);
        all.retain(|roster| roster.strong_count() > 0);
        all.push(Arc::downgrade(&roster));
        roster
    }

    /// Those of all threads that have a fiber, or may have.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        lock(&ALL).iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn fibers(&self) -> Vec<Arc<Seen>> {
        lock(&self.fibers).clone()
    }

    pub(crate) fn thread(&self) -> ThreadId {
        self.thread
    }

    pub(crate) fn thread_name(&self) -> Option<&str> {
        self.thread_name.as_deref()
    }

    /// What the system calls the thread.
    pub(crate) fn thread_number(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        return self.thread_number.try_into().ok();
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// The innermost fiber that the thread runs, and a number that is another one after every switch.
    pub(crate) fn running(&self) -> Option<(u64, Arc<Seen>)> {
        let switches = self.switches.load(Ordering::Acquire);
        let runs = self.runs.load(Ordering::Acquire).cast_const();
        if runs.is_null() {
            return None;
        }
        let seen = lock(&self.fibers).iter().find(|seen| Arc::as_ptr(seen) == runs)?.clone();
        // Otherwise the two may not belong together.
        (self.switches.load(Ordering::Acquire) == switches).then_some((switches, seen))
    }

    /// Called by the thread itself.
    fn switch_to(&self, runs: *mut Seen) -> *mut Seen {
        self.switches.store(self.switches.load(Ordering::Relaxed) + 1, Ordering::Release);
        let previous = self.runs.load(Ordering::Relaxed);
        self.runs.store(runs, Ordering::Release);
        previous
    }
}

impl Seen {
    /// Lists a fiber of this thread.
    pub(super) fn list(record: NonNull<()>, made_at: Site) -> Arc<Self> {
        // At the end of a thread its roster may be gone. Then nobody finds this one.
        let roster = HERE.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(Roster::new()));
        let seen = Arc::new(Self {
            state: AtomicU8::new(NOT_BEGUN),
            index: AtomicUsize::new(0),
            roster,
            record,
            name: Mutex::default(),
            made_at: made_at.location(),
            made: coarse_clock::now(),
            waits_at: AtomicPtr::new(ptr::null_mut()),
            suspended: AtomicU64::new(0),
            report: AtomicPtr::new(ptr::null_mut()),
        });
        let mut fibers = lock(&seen.roster.fibers);
        seen.index.store(fibers.len(), Ordering::Relaxed);
        fibers.push(Arc::clone(&seen));
        drop(fibers);
        seen
    }

    /// The fiber is done, or given up.
    pub(super) fn unlist(&self) {
        if self.state() != State::Done {
            self.claim();
            self.state.store(DONE, Ordering::Release);
        }
        let mut fibers = lock(&self.roster.fibers);
        let index = self.index.load(Ordering::Relaxed);
        let removed = fibers.swap_remove(index);
        if let Some(moved) = fibers.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
        drop(fibers);
        // With nothing locked.
        drop(removed);
    }

    pub(super) fn set_name(&self, name: &str) {
        *lock(&self.name) = Some(Arc::from(name));
    }

    pub(crate) fn name(&self) -> Option<Arc<str>> {
        lock(&self.name).clone()
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            NOT_BEGUN => State::NotBegun,
            RUNNING => State::Running,
            DONE => State::Done,
            _ => State::Suspended,
        }
    }

    pub(crate) fn made_at(&self) -> &'static Location<'static> {
        self.made_at
    }

    /// How long ago the fiber was made.
    pub(crate) fn age(&self) -> Duration {
        coarse_clock::since(self.made)
    }

    /// How long ago it was suspended last. Meaningless if it never was.
    pub(crate) fn suspended_for(&self) -> Duration {
        coarse_clock::since(self.suspended.load(Ordering::Relaxed))
    }

    /// Where it waits, or has waited last.
    pub(crate) fn waits_at(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or of `'static` (`set_waits_at`).
        unsafe { self.waits_at.load(Ordering::Relaxed).as_ref() }
    }

    /// The fiber waits there from now on, if it does. Returns what it was before.
    #[inline(always)]
    pub(super) fn set_waits_at(
        &self,
        location: *const Location<'static>,
    ) -> *const Location<'static> {
        let previous = self.waits_at.load(Ordering::Relaxed);
        self.waits_at.store(location.cast_mut(), Ordering::Relaxed);
        previous
    }

    /// Takes a fiber that is not done for its owner.
    #[inline]
    fn claim(&self) {
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        if self.state.compare_exchange(SUSPENDED, RUNNING, success, failure).is_err() {
            self.claim_slowly();
        }
    }

    #[cold]
    fn claim_slowly(&self) {
        if self.state.load(Ordering::Relaxed) == NOT_BEGUN {
            self.state.store(RUNNING, Ordering::Relaxed);
            return;
        }
        // A walk takes some ten microseconds, during which the walker waits for nobody.
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        while self.state.compare_exchange_weak(SUSPENDED, RUNNING, success, failure).is_err() {
            thread::yield_now();
        }
    }

    /// The owner is about to switch to the fiber, which is not done.
    #[inline]
    pub(super) fn begin_turn(&self) -> Turn<'_> {
        self.claim();
        Turn { outer: self.roster.switch_to(ptr::from_ref(self).cast_mut()), seen: self }
    }

    /// Takes the fiber if it is suspended, to have it report to `report` on this thread. After any other walker,
    /// who waits for nobody.
    pub(super) fn begin_walk(&self, report: &mut Report) -> Option<Walk<'_>> {
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        while let Err(state) = self.state.compare_exchange(SUSPENDED, WALKED, success, failure) {
            if state != WALKED {
                return None;
            }
            thread::yield_now();
        }
        self.report.store(report, Ordering::Relaxed);
        Some(Walk(self))
    }

    /// Called by the fiber when it is resumed: where it is to report to, and suspend again.
    #[inline(always)]
    pub(super) fn report(&self) -> *mut Report {
        self.report.load(Ordering::Relaxed)
    }
}

/// The owner's claim on a fiber while it runs. Dropped when it is done; or else [suspended](Self::suspended).
pub(super) struct Turn<'a> {
    seen: &'a Seen,
    outer: *mut Seen,
}

impl Turn<'_> {
    /// The fiber has suspended itself.
    #[inline]
    pub(super) fn suspended(self) {
        self.seen.suspended.store(coarse_clock::now(), Ordering::Relaxed);
        self.end(SUSPENDED);
        std::mem::forget(self);
    }

    #[inline]
    fn end(&self, state: u8) {
        self.seen.roster.switch_to(self.outer);
        self.seen.state.store(state, Ordering::Release);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.end(DONE);
    }
}

/// A walker's claim.
pub(super) struct Walk<'a>(&'a Seen);

impl Walk<'_> {
    /// The fiber's record, whose coroutine is the holder's.
    pub(super) fn record(&self) -> NonNull<()> {
        self.0.record
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.0.report.store(ptr::null_mut(), Ordering::Relaxed);
        self.0.state.store(SUSPENDED, Ordering::Release);
    }
}
