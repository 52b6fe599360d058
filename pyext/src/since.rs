//! When a wait began, cheaply enough to be noted for each.

use std::time::Duration;

/// A moment, in hundredths of a second of a clock that never goes back; it wraps around after 497 days.
#[derive(Clone, Copy)]
pub(crate) struct Since(u32);

impl Since {
    /// About now: the kernel's clock of the last tick, which is read in some 5 ns and is 1 to 10 ms late.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        let now = clock();
        Self((now.as_secs() * 100) as u32 + now.subsec_millis() / 10)
    }

    /// How long ago it was, in seconds.
    pub(crate) fn seconds(self) -> f64 {
        f64::from(Self::now().0.wrapping_sub(self.0)) / 100.0
    }
}

#[cfg(target_os = "linux")]
#[inline(always)]
fn clock() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is written. It cannot fail: the clock is there since Linux 2.6.32 (clock_gettime(2)).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
#[inline(always)]
fn clock() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGIN.elapsed()
}
