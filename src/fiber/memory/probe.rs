//! Whether the system does what it says it has done.
//!
//! Emulators answer advice that they do not know with success: under qemu-user `MADV_GUARD_INSTALL`
//! guards nothing, and `MADV_DONTNEED` keeps what was there. A stack without a guard runs into its
//! neighbour. So each way is tried once in a process, on a page of our own, and its effect looked at.

#![allow(unsafe_code)]

use super::mapping::{Mapping, page_size};
use std::io;
use std::sync::OnceLock;

/// Not in libc yet. `include/uapi/asm-generic/mman-common.h`.
pub(super) const MADV_GUARD_INSTALL: libc::c_int = 102;

/// Whether reading at `address` faults, found out without a fault: the kernel is asked to read a path
/// there, and says EFAULT if it cannot (access(2)). An empty path, which is what fresh memory is, does not
/// exist.
pub(super) fn faults(address: usize) -> bool {
    let path = std::ptr::with_exposed_provenance(address);
    // SAFETY: the kernel reads the memory, and not we; it stops at the first zero, or at the end of what
    // it can read.
    let found = unsafe { libc::access(path, libc::F_OK) };
    found == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Whether `MADV_GUARD_INSTALL` makes a page fault.
pub(super) fn guard_regions_work() -> bool {
    static WORK: OnceLock<bool> = OnceLock::new();
    *WORK.get_or_init(|| {
        on_a_page(|page, size| {
            // SAFETY: the whole of a page of our own, which nobody uses.
            unsafe { libc::madvise(page, size, MADV_GUARD_INSTALL) == 0 }
        })
    })
}

/// Whether `mprotect` makes a page fault.
pub(super) fn mprotect_works() -> bool {
    static WORK: OnceLock<bool> = OnceLock::new();
    *WORK.get_or_init(|| {
        on_a_page(|page, size| {
            // SAFETY: the whole of a page of our own, which nobody uses.
            unsafe { libc::mprotect(page, size, libc::PROT_NONE) == 0 }
        })
    })
}

fn on_a_page(guard: impl FnOnce(*mut libc::c_void, usize) -> bool) -> bool {
    let Ok(page) = Mapping::new(page_size()) else { return false };
    let start = page.range().start;
    let accessible = !faults(start);
    accessible && guard(std::ptr::with_exposed_provenance_mut(start), page_size()) && faults(start)
}

/// Whether `MADV_DONTNEED` gives a page back: it then reads as zeroes.
pub(super) fn discarding_works() -> bool {
    static WORK: OnceLock<bool> = OnceLock::new();
    *WORK.get_or_init(|| {
        let Ok(page) = Mapping::new(page_size()) else { return false };
        let start = std::ptr::with_exposed_provenance_mut::<u8>(page.range().start);
        // SAFETY: a writable page of our own, which nobody else uses.
        unsafe {
            start.write_volatile(1);
            libc::madvise(start.cast(), page_size(), libc::MADV_DONTNEED) == 0
                && start.read_volatile() == 0
        }
    })
}
