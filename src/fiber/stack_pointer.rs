//! Where the stack is now.
//!
//! # Invariant
//!
//! The only `unsafe` here reads a register.

#![allow(unsafe_code)]

/// Where the stack is now, more or less. Not by a local variable where it can be helped: with
/// AddressSanitizer those may lie elsewhere.
pub(super) fn stack_pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let here = std::hint::black_box(0_u8);
        pointer = (&raw const here).addr();
    }
    pointer
}
