//! A paused clock stands still while a job runs elsewhere.
//!
//! tokio's clock, once paused for a test, jumps to the next timer when its runtime has nothing else to do;
//! except while there are `spawn_blocking` threads (`tokio::time::pause`, "auto-advance is inhibited").
//! A job on a worker of ours is such work, of which the runtime does not know: a timeout around it would
//! pass at once.

use std::sync::mpsc;
use std::time::Instant;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Keeps the clock of the runtime that was current from advancing by itself, until dropped.
pub(super) struct Hold(Option<mpsc::Sender<()>>);

impl Hold {
    /// `None` if no paused clock is current.
    pub(super) fn new() -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        // Only those have clocks that can be paused (`tokio::time::pause`).
        if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread || !is_paused() {
            return None;
        }
        let (hold, held) = mpsc::channel();
        runtime.spawn_blocking(move || {
            let _ = held.recv();
        });
        Some(Self(Some(hold)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let hold = self.0.take();
        // Dropped with its job, before the job's handle is woken: the clock must not jump in between. A
        // worker's next task runs after that.
        match Handle::try_current() {
            Ok(worker) => drop(worker.spawn(async move { drop(hold) })),
            Err(_) => drop(hold),
        }
    }
}

/// Whether the current runtime's clock stands still while the real one ticks.
fn is_paused() -> bool {
    let stands = ::tokio::time::Instant::now();
    let began = Instant::now();
    while Instant::now() == began {
        std::hint::spin_loop();
    }
    ::tokio::time::Instant::now() == stands
}
