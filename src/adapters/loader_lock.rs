//! Whether this thread holds the lock of Windows' loader, below which nothing may wait for another thread.
//!
//! Windows runs destructors of thread-local values in `DLL_THREAD_DETACH`, and holds that lock meanwhile: a thread
//! that begins or ends needs it, too, so that whoever waits for one waits for ever.
//!
//! # Invariant
//!
//! What is read is there in every process, and is never written: the process environment block, and the critical
//! section that it names.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use windows_sys::Win32::System::Threading::{CRITICAL_SECTION, GetCurrentThreadId};

/// Of `PEB.LoaderLock`, which has been there in all versions (winternl.h shows it as reserved).
#[cfg(target_pointer_width = "64")]
const LOADER_LOCK: usize = 0x110;
#[cfg(target_pointer_width = "32")]
const LOADER_LOCK: usize = 0xa0;

/// True if this thread holds it. False where that is not known.
pub(super) fn is_held() -> bool {
    let Some(peb) = process_environment_block() else { return false };
    // SAFETY: the module's invariant. Others change the owner meanwhile, but none to or from this thread.
    unsafe {
        let lock = peb.byte_add(LOADER_LOCK).cast::<*mut CRITICAL_SECTION>().read();
        if lock.is_null() {
            return false;
        }
        let owner = AtomicUsize::from_ptr((&raw mut (*lock).OwningThread).cast());
        owner.load(Ordering::Relaxed) == GetCurrentThreadId() as usize
    }
}

fn process_environment_block() -> Option<*const u8> {
    let peb: *const u8;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a word of the thread's own block (winternl.h).
    unsafe {
        std::arch::asm!("mov {}, gs:[0x60]", out(reg) peb, options(nostack, readonly, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; x18 holds the block's address on Windows.
    unsafe {
        std::arch::asm!("ldr {}, [x18, #0x60]", out(reg) peb, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        peb = ptr::null();
    }
    (!ptr::eq(peb, ptr::null())).then_some(peb)
}
