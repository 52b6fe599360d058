//! Which fiber keeps its thread from the others.

use super::activity::Activity;
use super::who::{Who, who_methods};
use crate::fiber::roster::{Roster, Seen, State};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// How many names a report's text has.
const MAX_NAMES: usize = 10;

/// Calls `report` whenever a fiber has kept its thread for longer than `threshold` while other fibers of that
/// thread are suspended: it blocks (a `std::sync::Mutex`, a `OnceLock`, a channel's `recv`, `thread::sleep`), or it
/// computes. Once for each such time.
///
/// All fibers of the process are watched, on whichever executor, [`LocalSet`] or [`PinnedPool`], until the guard
/// that this returns is dropped. A report has the fiber's name, where it was made, where it waited last, what
/// its thread does, and the names of those that are suspended. With the feature `tracing` it is an event, too (level
/// `WARN`, target `fiberback`).
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let _watching = fiberback::watch(Duration::from_millis(100), |blocked| eprintln!("{blocked}"))?;
/// // ... the program
/// # Ok(())
/// # }
/// ```
///
/// `report` is called on a thread named `fiberback-watch`, which there is only as long as the guard. It looks four
/// times in each `threshold` (at least 1 ms apart), so a report comes up to half a `threshold` late. Time in
/// which the whole process is stopped (by a debugger, by a laptop's lid) does not count.
///
/// # No stack
///
/// The report has no stack of the fiber, for there is none that can be taken soundly: another thread cannot unwind
/// a stack that is in use, and a signal handler on the blocked thread cannot, either, since neither the unwinder nor
/// what looks up symbols is async-signal-safe (signal-safety(7)): where the thread is blocked in the allocator or
/// the loader, the handler would wait for what it has interrupted. From outside `gdb -p PID -batch -ex bt` shows it.
/// Those that wait are suspended, and [`dump`](crate::dump()) has their stacks.
///
/// # Errors
///
/// If the system refuses the thread.
///
/// # Panics
///
/// If `report` panics, this stops watching.
///
/// [`LocalSet`]: https://docs.rs/tokio/1/tokio/task/struct.LocalSet.html
/// [`PinnedPool`]: https://docs.rs/fiberback/latest/fiberback/tokio/struct.PinnedPool.html
pub fn watch<F>(threshold: Duration, report: F) -> io::Result<Watch>
where
    F: FnMut(&Blocked) + Send + 'static,
{
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = Watcher {
        threshold,
        period: (threshold / 4).max(Duration::from_millis(1)),
        turns: HashMap::new(),
        is_over: Arc::clone(&is_over),
    };
    let name = "fiberback-watch".to_owned();
    let thread = thread::Builder::new().name(name).spawn(move || watcher.watch(report))?;
    Ok(Watch { is_over, thread: thread.thread().clone() })
}

/// Watches until it is dropped. Made by [`watch`].
///
/// A report that is under way then is finished, and none begins afterwards.
#[must_use = "dropping it stops watching"]
pub struct Watch {
    is_over: Arc<AtomicBool>,
    thread: Thread,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

struct Watcher {
    threshold: Duration,
    period: Duration,
    /// Of the threads that were on a fiber when last looked at.
    turns: HashMap<ThreadId, Turn>,
    is_over: Arc<AtomicBool>,
}

/// The time from one of a thread's switches to the next.
struct Turn {
    /// Which switch it began with.
    switch: u64,
    /// At least.
    lasted: Duration,
    is_reported: bool,
}

impl Watcher {
    fn watch(mut self, mut report: impl FnMut(&Blocked)) {
        let mut looked = Instant::now();
        while !self.is_over.load(Ordering::Acquire) {
            thread::park_timeout(self.period);
            let now = Instant::now();
            // If more has passed, this thread did not run, and perhaps none did.
            let passed = (now - looked).min(2 * self.period);
            looked = now;
            for roster in Roster::all() {
                let Some(blocked) = self.look_at(&roster, passed) else { continue };
                if self.is_over.load(Ordering::Acquire) {
                    return;
                }
                crate::events::thread_blocked(&blocked);
                report(&blocked);
                // However long that took.
                looked = Instant::now();
            }
        }
    }

    /// What is to be reported of a thread.
    fn look_at(&mut self, roster: &Roster, passed: Duration) -> Option<Blocked> {
        let Some((switch, seen)) = roster.running() else {
            self.turns.remove(&roster.thread());
            return None;
        };
        let begun = Turn { switch, lasted: Duration::ZERO, is_reported: false };
        let turn = match self.turns.entry(roster.thread()) {
            Entry::Occupied(entry) => {
                let turn = entry.into_mut();
                if turn.switch == switch {
                    turn.lasted += passed;
                } else {
                    *turn = begun;
                }
                turn
            }
            Entry::Vacant(entry) => entry.insert(begun),
        };
        if turn.is_reported || turn.lasted < self.threshold {
            return None;
        }
        let blocked = Blocked::look_at(roster, &seen, turn.lasted)?;
        // It may just have gone on.
        if roster.running().is_none_or(|(now, _)| now != switch) {
            return None;
        }
        turn.is_reported = true;
        Some(blocked)
    }
}

/// A fiber that keeps its thread from others, as [`watch`] reports it.
#[derive(Clone, Debug)]
pub struct Blocked {
    who: Who,
    lasted: Duration,
    activity: Activity,
    waited_at: Option<&'static Location<'static>>,
    waiting: Vec<Waiting>,
}

/// A fiber that is suspended while another one keeps its thread.
#[derive(Clone, Debug)]
pub struct Waiting {
    name: Option<Arc<str>>,
    waits_at: Option<&'static Location<'static>>,
}

impl Blocked {
    /// `None` if nobody waits.
    fn look_at(roster: &Roster, seen: &Seen, lasted: Duration) -> Option<Self> {
        let fibers = roster.fibers();
        let suspended = fibers.iter().filter(|other| other.state() == State::Suspended);
        let waiting: Vec<_> = suspended
            .map(|other| Waiting { name: other.name(), waits_at: other.waits_at() })
            .collect();
        (!waiting.is_empty()).then(|| Self {
            who: Who::of(roster, seen),
            lasted,
            activity: Activity::of(roster.thread_number()),
            waited_at: seen.waits_at(),
            waiting,
        })
    }

    who_methods!("The thread that it keeps.");

    /// For how long, so far; at least.
    pub fn lasted(&self) -> Duration {
        self.lasted
    }

    /// Where it waited last, before it came to where it is; `None` if it never has.
    pub fn waited_at(&self) -> Option<&'static Location<'static>> {
        self.waited_at
    }

    /// The fibers of the thread that are suspended meanwhile.
    pub fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }
}

impl Waiting {
    /// The fiber's name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it waits.
    pub fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.waits_at
    }
}

/// A name, or that there is none.
struct Name<'a>(Option<&'a str>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "{name:?}"),
            None => f.write_str("without a name"),
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasted.as_secs_f64();
        let (fiber, thread) = (Name(self.name()), Name(self.thread_name()));
        write!(
            f,
            "fiberback: fiber {fiber} has kept thread {thread} for {seconds:.1} s so far. It {}",
            self.activity
        )?;
        write!(f, "\n  made at {}", self.made_at())?;
        match self.waited_at {
            Some(location) => write!(f, "\n  waited last at {location}")?,
            None => f.write_str("\n  has not waited yet")?,
        }
        let count = self.waiting.len();
        write!(f, "\n{count} suspended meanwhile: ")?;
        for (n, waiting) in self.waiting.iter().take(MAX_NAMES).enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, Name(waiting.name()))?;
        }
        if count > MAX_NAMES { f.write_str(", ...") } else { Ok(()) }
    }
}
