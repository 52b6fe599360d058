//! What a call takes of its stacks: measured by painting what it may write to.
//!
//! # Invariant
//!
//! Only memory below the stack pointer is painted, by instructions that use no stack themselves: so it holds
//! whatever the compiler makes of the code around it, with or without optimisation.

use std::hint::black_box;

/// What a call takes of a stack, or what is left of one. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) c_stack: usize,
    /// For interpreter frames.
    pub(crate) data_stack: usize,
}

impl Needs {
    pub(crate) const NONE: Self = Self { c_stack: 0, data_stack: 0 };
    /// Nobody knows.
    const UNKNOWN: Self = Self { c_stack: usize::MAX, data_stack: usize::MAX };
}

/// More than a page of C frames, and than the interpreter frames of one, are of no interest.
const C_WINDOW: usize = 4096;
const DATA_WINDOW: usize = 2048;
const WORD: usize = size_of::<u64>();
const PAINT: u64 = 0x5AA5_5AA5_5AA5_5AA5;

/// Calls, and looks how far down and up memory has been written to.
///
/// # Safety
///
/// To be called on a stack that is mapped for more than a page further down, with nothing alive on it below
/// this function's frame. The 2048 bytes from `data_stack` on must be writable and aligned to 8, and hold
/// nothing; the call may write to them.
#[inline(never)]
pub(crate) unsafe fn measure(data_stack: *mut u8, call: impl FnOnce()) -> Needs {
    let data = data_stack.cast::<u64>();
    // SAFETY: the contract.
    let top = unsafe {
        for index in 0..DATA_WINDOW / WORD {
            data.add(index).write(PAINT);
        }
        paint()
    };
    call();
    let Some(top) = top else { return Needs::UNKNOWN };
    let mut lowest = top - C_WINDOW;
    // SAFETY: this stack's memory, which is mapped. What is there is of no interest, so it does not matter
    // who writes to it meanwhile.
    let word = |at: usize| unsafe {
        black_box(std::ptr::with_exposed_provenance::<u64>(at)).read_volatile()
    };
    while lowest < top && word(lowest) == PAINT {
        lowest += WORD;
    }
    let mut highest = DATA_WINDOW / WORD;
    // SAFETY: as above; interpreter frames are only there while somebody runs them.
    while highest > 0 && unsafe { data.add(highest - 1).read_volatile() } == PAINT {
        highest -= 1;
    }
    Needs { c_stack: top - lowest, data_stack: highest * WORD }
}

/// Paints a page below the stack pointer, and says where that was. None where it cannot be done.
///
/// # Safety
///
/// As [`measure`].
#[inline(always)]
unsafe fn paint() -> Option<usize> {
    // SAFETY: without `nostack`, "asm! code may push to the stack or write to the red zone" (The Rust
    // Reference, Inline assembly, Options): nothing of the compiler's is below the stack pointer, and the
    // caller says that nothing of anybody else's is. A signal handler's frames come and go between two
    // instructions. The direction flag is clear on entry ("Rules for inline assembly").
    #[cfg(target_arch = "x86_64")]
    unsafe {
        let top: usize;
        std::arch::asm!(
            "mov {top}, rsp",
            "lea rdi, [rsp - {size}]",
            "rep stosq",
            top = out(reg) top,
            size = const C_WINDOW,
            inout("rcx") C_WINDOW / WORD => _,
            out("rdi") _,
            in("rax") PAINT,
        );
        Some(top)
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        let top: usize;
        std::arch::asm!(
            "mov {top}, sp",
            "sub {at}, {top}, {size}",
            "2:",
            "str {paint}, [{at}], #8",
            "cmp {at}, {top}",
            "b.lo 2b",
            top = out(reg) top,
            at = out(reg) _,
            size = in(reg) C_WINDOW,
            paint = in(reg) PAINT,
        );
        Some(top)
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    None
}
