//! Whether the thread that a fiber's loop is on sleeps, for whoever has woken its task to no avail.
//!
//! A loop that waits for events is woken with its task. So a thread that sleeps on, without having run at
//! all, waits for something else: it is blocked. Linux tells in `/proc`, without which nothing is known.

/// A thread that can be asked about from others.
#[derive(Clone)]
pub(super) struct LoopThread {
    /// What Linux calls it; `None` where there is no telling.
    id: Option<u64>,
}

impl LoopThread {
    /// The thread that calls this.
    pub(super) fn here() -> Self {
        Self { id: id() }
    }

    /// If the thread sleeps: how often it has been put to sleep, which is the same again only if it has not
    /// run meanwhile. `None` if it runs, is stopped (by a debugger, for instance), is gone, or if nobody knows.
    pub(super) fn sleeps(&self) -> Option<u64> {
        // Not by a path that begins with the process's number: a forked child would ask about its parent.
        let status =
            std::fs::read_to_string(format!("/proc/self/task/{}/status", self.id?)).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim())
        };
        // proc_pid_status(5): S is sleeping. Nobody waits for another thread in state D, "disk sleep".
        if !field("State:")?.starts_with('S') {
            return None;
        }
        field("voluntary_ctxt_switches:")?.parse().ok()
    }
}

#[cfg(target_os = "linux")]
fn id() -> Option<u64> {
    // proc(5): /proc/thread-self is a link to `<pid>/task/<tid>`.
    std::fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn id() -> Option<u64> {
    None
}
