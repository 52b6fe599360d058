//! What a thread of this process does at this moment, as the system sees it.

use std::fmt;

/// What a thread that does not come back is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It is not in a system call, or not waiting in it.
    Computes,
    /// A lock, a condition, another thread's end.
    Locked,
    Sleeps,
    /// A file, a socket, a pipe, a process.
    Input,
    /// Another system call.
    Other(i64),
    /// The system does not tell.
    Unknown,
}

impl Activity {
    /// That of the thread with this number.
    pub(super) fn of(thread: Option<u64>) -> Self {
        let Some(thread) = thread else { return Self::Unknown };
        // Not by a path that begins with the process's number: a forked child would ask about its parent.
        let path = format!("/proc/self/task/{thread}/syscall");
        std::fs::read_to_string(path).map_or(Self::Unknown, |text| Self::parse(&text))
    }

    /// proc_pid_syscall(5): "running", or the number of the call and its arguments, or -1 if the thread is stopped
    /// outside of one.
    fn parse(text: &str) -> Self {
        let Some(first) = text.split_whitespace().next() else { return Self::Unknown };
        match first.parse() {
            Ok(call) if call >= 0 => Self::in_call(call),
            Ok(_) => Self::Unknown,
            Err(_) => Self::Computes,
        }
    }

    #[cfg(target_os = "linux")]
    fn in_call(call: i64) -> Self {
        const INPUT: &[libc::c_long] = &[
            libc::SYS_accept4,
            libc::SYS_connect,
            libc::SYS_epoll_pwait,
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_read,
            libc::SYS_readv,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_sendto,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_write,
            libc::SYS_writev,
            // Older ones, which newer architectures do not have.
            #[cfg(target_arch = "x86_64")]
            libc::SYS_accept,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select,
        ];
        match libc::c_long::try_from(call) {
            Ok(libc::SYS_futex) => Self::Locked,
            Ok(libc::SYS_nanosleep | libc::SYS_clock_nanosleep) => Self::Sleeps,
            Ok(call) if INPUT.contains(&call) => Self::Input,
            _ => Self::Other(call),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn in_call(call: i64) -> Self {
        Self::Other(call)
    }
}

/// As what follows "the thread".
impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computes => f.write_str(
                "computes: call `fiberback::yield_now()` or spend a `fiberback::Budget` now and then, or send the \
                 work to `await_(tokio::task::spawn_blocking(..))`",
            ),
            Self::Locked => f.write_str(
                "waits for a lock, a channel or another thread: await an async one, `await_(mutex.lock())`, \
                 `await_(receiver.recv())`, `await_(once_cell.get_or_init(..))`",
            ),
            Self::Sleeps => f.write_str("sleeps: `await_(tokio::time::sleep(..))` instead"),
            Self::Input => f.write_str(
                "waits for input, output or a process: await an async one, or send it to \
                 `await_(tokio::task::spawn_blocking(..))`",
            ),
            Self::Other(call) => write!(
                f,
                "is in system call {call}: send what blocks to `await_(tokio::task::spawn_blocking(..))`"
            ),
            Self::Unknown => f.write_str(
                "blocks or computes: send that to `await_(tokio::task::spawn_blocking(..))`, or await an async one",
            ),
        }
    }
}
