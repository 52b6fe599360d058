//! Address space for stacks, in one file per platform with the same shape:
//!
//! * `Slot`: one stack's memory, `Copy`, with `usable()`, `record()`, `reserved()` and corosensei's
//!   `Stack`;
//! * `Arena`: makes slots (`carve`), gives their pages back to the system (`discard`), and frees
//!   all memory when dropped, by which time no slot may be in use.
//!
//! No slot ever leaves an arena without its guard pages in place.

#[cfg(target_os = "linux")]
mod guard;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(super) mod registry;
#[cfg(target_os = "linux")]
pub(super) use linux::{Arena, Slot, page_size};

#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{Arena, Slot};

/// How the pages below a stack are made to fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GuardPages {
    /// The best the system has: `MADV_GUARD_INSTALL` on Linux 6.13 or later, which costs no memory
    /// mapping; `mprotect` on older Linux; the platform's own elsewhere.
    #[default]
    Auto,
    /// `mprotect` even where better is available. Every stack then costs two memory mappings, so
    /// their number is limited (`vm.max_map_count`). For tools that do not know guard regions,
    /// such as valgrind, and for tests.
    Mprotect,
}

/// What an [`Arena`] is to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Bytes that frames can use, at least; a multiple of the page size.
    pub(super) stack_size: usize,
    pub(super) page_size: usize,
    /// Bytes that fault, below the stack; a multiple of the page size. A hint on platforms that
    /// size their own guards.
    pub(super) guard_size: usize,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) guard_pages: GuardPages,
    /// Bytes above each fiber's record that its owner uses; a multiple of [`RESERVE_ALIGNMENT`].
    pub(super) reserve: usize,
}

/// What the reserved bytes, and with them the base of the stack below, are aligned to.
pub(super) const RESERVE_ALIGNMENT: usize = 64;

impl Geometry {
    /// Bytes of address space of one stack with its guard.
    pub(super) fn stride(&self) -> usize {
        self.guard_size + self.stack_size + self.reserve.next_multiple_of(self.page_size)
    }
}
