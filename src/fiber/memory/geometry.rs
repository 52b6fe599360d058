//! The shape of a stack: how many bytes of its slot are for what.

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

/// What an [`Arena`](super::Arena) is to make.
#[derive(Clone, Copy, Debug)]
pub(in crate::fiber) struct Geometry {
    /// Bytes that frames can use, at least; a multiple of the page size.
    pub(in crate::fiber) stack_size: usize,
    pub(in crate::fiber) page_size: usize,
    /// Bytes that fault, below the stack; a multiple of the page size. A hint on platforms that
    /// size their own guards.
    pub(in crate::fiber) guard_size: usize,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(in crate::fiber) guard_pages: GuardPages,
    /// Bytes above each fiber's record that its owner uses; a multiple of [`RESERVE_ALIGNMENT`].
    pub(in crate::fiber) reserve: usize,
}

/// What the reserved bytes, and with them the base of the stack below, are aligned to.
pub(in crate::fiber) const RESERVE_ALIGNMENT: usize = 64;

/// Bytes kept free for the fiber layer's record of a fiber, right above the stack's base. A multiple of
/// the stack alignment on every platform, and of [`RESERVE_ALIGNMENT`]. With the feature `dump` and the address
/// sanitizer it takes 200.
pub(in crate::fiber) const RECORD_SIZE: usize = if cfg!(feature = "dump") { 256 } else { 192 };

impl Geometry {
    /// Bytes of address space of one stack with its guard.
    pub(in crate::fiber) fn stride(&self) -> usize {
        self.guard_size + self.stack_size + self.reserve.next_multiple_of(self.page_size)
    }
}
