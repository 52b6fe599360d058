//! Making the pages below each stack fault.
//!
//! `MADV_GUARD_INSTALL` (Linux 6.13, `include/uapi/asm-generic/mman-common.h`) marks page-table
//! entries, so it splits no mapping and a slab of any number of stacks stays one. Many guards go in
//! one `process_madvise(2)` on ourselves, which costs less than half per guard. Where the kernel
//! has neither, or only says that it has (`probe.rs`), `mprotect` serves, at two mappings a stack, up to a budget that leaves the rest of
//! the process its share of `vm.max_map_count`.

#![allow(unsafe_code)]

use super::geometry::GuardPages;
use super::probe::{self, MADV_GUARD_INSTALL};
use crate::error::StackError;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, io};

/// The largest number of ranges in one `process_madvise` call, `UIO_MAXIOV` being 1024.
const BATCH: usize = 512;

/// Guards set by `mprotect` in this process, counted against [`mprotect_budget`].
static MPROTECT_GUARDS: AtomicUsize = AtomicUsize::new(0);

/// Cleared for good when `process_madvise` turns out not to work here (an older kernel, or a
/// seccomp filter).
static BATCHING: AtomicBool = AtomicBool::new(true);

/// Installs guards, by one method, and counts what it must give back.
pub(super) struct Installer {
    regions: bool,
    mprotected: usize,
}

impl Installer {
    pub(super) fn new(kind: GuardPages) -> Self {
        let regions = match kind {
            GuardPages::Auto => probe::guard_regions_work(),
            GuardPages::Mprotect => false,
        };
        Self { regions, mprotected: 0 }
    }

    /// Guards the low `guard` bytes of `count` strides from `first` on, and returns how many were
    /// guarded: at least one.
    ///
    /// # Safety
    ///
    /// The strides must be mapped, the caller's own, and hold nothing of value.
    pub(super) unsafe fn install(
        &mut self,
        first: usize,
        stride: usize,
        count: usize,
        guard: usize,
    ) -> Result<usize, StackError> {
        if self.regions {
            // SAFETY: the caller's promise.
            let guarded = unsafe { install_regions(first, stride, count, guard) };
            if guarded > 0 {
                return Ok(guarded);
            }
            // A locked mapping (mlockall) takes no guard regions: madvise(2), EINVAL.
            self.regions = false;
        }
        // SAFETY: the caller's promise.
        unsafe { self.install_mprotect(first, stride, count, guard) }
    }

    unsafe fn install_mprotect(
        &mut self,
        first: usize,
        stride: usize,
        count: usize,
        guard: usize,
    ) -> Result<usize, StackError> {
        if !probe::mprotect_works() {
            return Err(StackError::unguarded());
        }
        let budget = mprotect_budget();
        for index in 0..count {
            if MPROTECT_GUARDS.fetch_add(1, Ordering::Relaxed) >= budget {
                MPROTECT_GUARDS.fetch_sub(1, Ordering::Relaxed);
                return if index > 0 {
                    Ok(index)
                } else {
                    Err(StackError::out_of_mappings(budget))
                };
            }
            let start = ptr::with_exposed_provenance_mut(first + index * stride);
            // SAFETY: the caller's promise.
            if unsafe { libc::mprotect(start, guard, libc::PROT_NONE) } != 0 {
                let error = io::Error::last_os_error();
                MPROTECT_GUARDS.fetch_sub(1, Ordering::Relaxed);
                return if index > 0 { Ok(index) } else { Err(StackError::out_of_memory(error)) };
            }
            self.mprotected += 1;
        }
        Ok(count)
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        MPROTECT_GUARDS.fetch_sub(self.mprotected, Ordering::Relaxed);
    }
}

/// Returns how many of the `count` guards are in place.
///
/// # Safety
///
/// As for [`Installer::install`].
unsafe fn install_regions(first: usize, stride: usize, count: usize, guard: usize) -> usize {
    // SAFETY: the caller's promise.
    let mut done = unsafe { install_batched(first, stride, count, guard) };
    while done < count {
        let start = ptr::with_exposed_provenance_mut(first + done * stride);
        // SAFETY: the caller's promise.
        if unsafe { libc::madvise(start, guard, MADV_GUARD_INSTALL) } != 0 {
            break;
        }
        done += 1;
    }
    done
}

/// As [`install_regions`], with `process_madvise`; 0 where that does not work.
///
/// # Safety
///
/// As for [`Installer::install`].
unsafe fn install_batched(first: usize, stride: usize, count: usize, guard: usize) -> usize {
    if count < 2 || !BATCHING.load(Ordering::Relaxed) {
        return 0;
    }
    // Opened each time: a descriptor kept across `fork` would name the parent.
    // SAFETY: no memory is passed.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    let Ok(pidfd @ 0..) = libc::c_int::try_from(pidfd) else {
        BATCHING.store(false, Ordering::Relaxed);
        return 0;
    };
    let mut done = 0;
    while done < count {
        let ranges: Vec<libc::iovec> = (done..count.min(done + BATCH))
            .map(|index| libc::iovec {
                iov_base: ptr::with_exposed_provenance_mut(first + index * stride),
                iov_len: guard,
            })
            .collect();
        // SAFETY: the iovecs are valid for the call and name the caller's own memory.
        let advised = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                pidfd,
                ranges.as_ptr(),
                ranges.len(),
                MADV_GUARD_INSTALL,
                0,
            )
        };
        // A short count is in bytes, of whole ranges; less than one range is no progress.
        let guarded = usize::try_from(advised).unwrap_or(0) / guard;
        if guarded == 0 {
            BATCHING.store(false, Ordering::Relaxed);
            break;
        }
        // Believed only once seen: an emulator may know one call and not the other.
        static SEEN: AtomicBool = AtomicBool::new(false);
        if !SEEN.load(Ordering::Relaxed) {
            if !probe::faults(first + (done + guarded - 1) * stride) {
                BATCHING.store(false, Ordering::Relaxed);
                break;
            }
            SEEN.store(true, Ordering::Relaxed);
        }
        done += guarded;
    }
    // SAFETY: ours, opened above.
    unsafe { libc::close(pidfd) };
    done
}

/// How many stacks `mprotect` may guard: three quarters of the process's mappings at two each.
fn mprotect_budget() -> usize {
    static BUDGET: OnceLock<usize> = OnceLock::new();
    *BUDGET.get_or_init(|| {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            // The kernel's default, `DEFAULT_MAX_MAP_COUNT`.
            .unwrap_or(65_530usize);
        limit / 4 * 3 / 2
    })
}
