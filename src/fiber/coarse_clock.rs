//! The time in some milliseconds' steps, for what is asked with every suspension.

#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use std::time::Duration;

/// A time, as [`now`] gives it: nanoseconds since some time in the past.
pub(super) type Time = u64;

/// What the time is: on Linux what the last tick of the kernel's has left, which takes no reading of a counter.
#[cfg(target_os = "linux")]
pub(super) fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the structure that it is given. clock_getres(2): the clock is there since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    // Neither is negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What the time is.
#[cfg(not(target_os = "linux"))]
pub(super) fn now() -> Time {
    use std::sync::OnceLock;
    use std::time::Instant;

    static BEGIN: OnceLock<Instant> = OnceLock::new();
    // Centuries fit.
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as Time
}

/// How long ago that was.
pub(super) fn since(time: Time) -> Duration {
    Duration::from_nanos(now().saturating_sub(time))
}
