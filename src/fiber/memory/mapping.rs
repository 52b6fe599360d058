//! Address space from the system.
//!
//! # Invariant
//!
//! A [`Mapping`] owns its range alone, from `mmap` to `munmap`.

#![allow(unsafe_code)]

use std::ops::Range;
use std::{io, ptr};

/// A private, writable mapping; unmapped when dropped.
pub(super) struct Mapping(Range<usize>);

impl Mapping {
    /// Maps so many bytes, which cost nothing until they are touched, and never come in huge pages: a
    /// fiber that uses 4 KiB would otherwise cost 2 MiB.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice; MAP_STACK and
        // MAP_NORESERVE are hints.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: our mapping. Failure (a kernel without huge pages says EINVAL) changes nothing.
        unsafe { libc::madvise(mapping, bytes, libc::MADV_NOHUGEPAGE) };
        let start = mapping.expose_provenance();
        Ok(Self(start..start + bytes))
    }

    /// Its addresses; their provenance is exposed.
    pub(super) fn range(&self) -> Range<usize> {
        self.0.clone()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of what `new` mapped. Whoever made stacks of it drops it only when none
        // is in use.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.0.start), self.0.len()) };
    }
}

/// The system's page size.
pub(in crate::fiber) fn page_size() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
