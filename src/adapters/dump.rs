//! What fibers there are in the process, and where each waits.

use super::symbols::{Call, Symbols};
use super::who::{Who, who_methods};
use crate::fiber::roster::{Roster, Seen, State};
use crate::fiber::{Report, walk};
use std::cmp::Reverse;
use std::fmt;
use std::panic::Location;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

/// What every fiber of the process does at this moment: its name, its age, where it was made, where it waits, for
/// how long, and its stack.
///
/// May be called anywhere, on any thread, on a fiber or not. `Display` is the text for people;
/// [`Dump::fibers`] are objects for programs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::future::pending;
/// use std::pin::pin;
///
/// fn reads_a_page() {
///     fiberback::await_(pending::<()>());
/// }
///
/// let mut reader = pin!(fiberback::Builder::new().name("reader").run(reads_a_page).unwrap());
/// assert!(futures_util::poll!(reader.as_mut()).is_pending());
///
/// let dump = fiberback::dump();
/// let fiber = dump.fibers().iter().find(|fiber| fiber.name() == Some("reader")).unwrap();
/// assert!(fiber.is_suspended());
/// assert_eq!(fiber.waits_at().unwrap().file(), file!());
/// assert!(fiber.frames().next().unwrap().function().unwrap().ends_with("reads_a_page"));
/// println!("{dump}");
/// # }
/// ```
///
/// # How
///
/// The unwinder walks only the stack that it runs on. So each suspended fiber is resumed for a moment, by the
/// thread that calls this, whichever thread the fiber belongs to: it writes down where its calls will return
/// to, and suspends itself again. None of the fiber's code runs, no thread-local is touched, and the fiber's own
/// thread, if it wants to resume the fiber meanwhile, waits for the some ten microseconds that it takes. The
/// unwinder takes up to two pages more of each stack, which stay until the fiber ends.
///
/// Fibers that run have no stack here ([`FiberDump::no_stack`]): it changes while one looks.
///
/// # Cost
///
/// With the feature `dump` each suspension of a fiber stores where and when it was, and each resumption takes an
/// atomic exchange: some 15 to 30 ns for both (docs/costs.md says how that was measured). Without it nothing is stored. The
/// first call reads the program's debugging information, which may take a second.
///
/// # Forked children
///
/// What is asked here, and what makes a fiber, takes locks for some instructions. A child that is forked while another
/// thread dumps, or [watches](crate::watch()), may find one taken for ever, as the allocator's: fork(2) promises such a
/// child async-signal-safe functions only.
#[must_use = "prints nothing by itself: `eprintln!(\"{}\", fiberback::dump())`"]
pub fn dump() -> Dump {
    let mut fibers = Vec::new();
    for roster in Roster::all() {
        let first = fibers.len();
        fibers.extend(roster.fibers().iter().filter_map(|seen| FiberDump::of(&roster, seen)));
        fibers[first..].sort_by_key(|fiber: &(FiberDump, _)| Reverse(fiber.0.age));
    }
    // Looking up symbols takes longest.
    let mut symbols = Symbols::default();
    let symbolised = fibers.into_iter().map(|(mut fiber, report): (_, Option<Report>)| {
        let returns_to = report.as_ref().map_or(&[][..], Report::returns_to);
        fiber.calls = symbols.own_calls(returns_to);
        fiber
    });
    Dump { fibers: symbolised.collect() }
}

/// All fibers of a process, as [`dump`] found them. By thread, and the oldest first.
#[derive(Clone, Debug)]
pub struct Dump {
    fibers: Vec<FiberDump>,
}

impl Dump {
    /// What each fiber did.
    pub fn fibers(&self) -> &[FiberDump] {
        &self.fibers
    }
}

/// What one fiber did when [`dump`] looked.
#[derive(Clone, Debug)]
pub struct FiberDump {
    who: Who,
    state: State,
    age: Duration,
    suspended_for: Option<Duration>,
    waits_at: Option<&'static Location<'static>>,
    calls: Vec<Arc<Call>>,
    no_stack: Option<&'static str>,
    is_cut: bool,
}

impl FiberDump {
    /// Without its calls, for which there is a report if it is suspended. `None` if it has ended.
    fn of(roster: &Roster, seen: &Seen) -> Option<(Self, Option<Report>)> {
        let report = walk(seen);
        let is_suspended = report.is_some();
        let state = match seen.state() {
            _ if is_suspended => State::Suspended,
            // It ran a moment ago.
            State::Suspended => State::Running,
            state => state,
        };
        let no_stack = match (state, &report) {
            (State::Done, _) => return None,
            (State::NotBegun, _) => Some("has not begun"),
            (State::Suspended, Some(report)) => {
                report.is_refused().then_some("too little of its stack is left to walk it")
            }
            (State::Running | State::Suspended, _) => Some("runs"),
        };
        let fiber = Self {
            who: Who::of(roster, seen),
            state,
            age: seen.age(),
            suspended_for: is_suspended.then(|| seen.suspended_for()),
            waits_at: is_suspended.then(|| seen.waits_at()).flatten(),
            is_cut: report.as_ref().is_some_and(Report::is_cut),
            calls: Vec::new(),
            no_stack,
        };
        Some((fiber, report))
    }

    who_methods!("The thread that runs it.");

    /// It waits.
    pub fn is_suspended(&self) -> bool {
        self.state == State::Suspended
    }

    /// It runs, or waits for a fiber that it resumes itself (that of a stream which it reads, for instance).
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// How long ago it was made. In the steps of a coarse clock, as the next: some milliseconds.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// How long it has been suspended, if it is. A future that wakes the fiber now and then makes it begin anew.
    pub fn suspended_for(&self) -> Option<Duration> {
        self.suspended_for
    }

    /// Where it waits, if it is suspended: the call of [`await_`](crate::await_) or another function of this
    /// crate. Traits of others (`Read`, `Iterator`) hide that call; it is in a file of this crate then, and the
    /// stack tells who called it.
    pub fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.waits_at
    }

    /// Its stack, if it is suspended: the calls of its own code, from the innermost, up to 128 frames. Frames of
    /// this crate that lead to the wait, and those below the code's first, are left out.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        self.calls.iter().map(|call| Frame(call))
    }

    /// Why there are no frames, in a few words; `None` if there are.
    pub fn no_stack(&self) -> Option<&str> {
        self.no_stack
    }
}

/// One call on a fiber's stack.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a>(&'a Call);

impl<'a> Frame<'a> {
    /// The function, demangled; `None` in a program without symbols.
    pub fn function(&self) -> Option<&'a str> {
        self.0.function.as_deref()
    }

    /// Its source file; `None` without debugging information (`debug = "line-tables-only"` is enough).
    pub fn file(&self) -> Option<&'a Path> {
        self.0.file.as_deref()
    }

    /// The line that it is in.
    pub fn line(&self) -> Option<u32> {
        self.0.line
    }

    /// Where it goes on, for other tools that look up symbols.
    pub fn address(&self) -> usize {
        self.0.address
    }
}

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function() {
            Some(function) => f.write_str(function)?,
            None => write!(f, "{:#x}", self.address())?,
        }
        if let Some(file) = self.file() {
            write!(f, "\n      at {}", file.display())?;
            if let Some(line) = self.line() {
                write!(f, ":{line}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for FiberDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "fiber {name:?}, ")?,
            None => f.write_str("fiber without a name, ")?,
        }
        match (self.state, self.suspended_for) {
            (State::Suspended, Some(time)) => {
                write!(f, "has waited for {:.1} s", time.as_secs_f64())?
            }
            (State::NotBegun, _) => f.write_str("has not begun")?,
            _ => f.write_str("runs")?,
        }
        write!(f, ", is {:.1} s old\n  made at {}", self.age.as_secs_f64(), self.made_at())?;
        if let Some(location) = self.waits_at {
            write!(f, "\n  waits at {location}")?;
        }
        for frame in self.frames() {
            write!(f, "\n    {frame}")?;
        }
        match self.no_stack {
            Some(reason) if self.is_suspended() => write!(f, "\n    no stack: {reason}")?,
            _ if self.is_cut => f.write_str("\n    ... and more")?,
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suspended = self.fibers.iter().filter(|fiber| fiber.is_suspended()).count();
        let all = self.fibers.len();
        let s = if all == 1 { "" } else { "s" };
        write!(f, "Process {}: {all} fiber{s}, of which {suspended} suspended", process::id())?;
        let mut thread = None;
        for fiber in &self.fibers {
            if thread.replace(fiber.thread()) != Some(fiber.thread()) {
                match fiber.thread_name() {
                    Some(name) => write!(f, "\n\nThread {name:?}")?,
                    None => write!(f, "\n\n{:?}", fiber.thread())?,
                }
            }
            write!(f, "\n{fiber}")?;
        }
        Ok(())
    }
}
