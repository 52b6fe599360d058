//! The exception handler that names an overflown stack, on Windows.
//!
//! The system grows a stack a page at a time, and raises STATUS_STACK_OVERFLOW when there is no more of it. The
//! handler here says which fiber it was, and what to type, and leaves the exception to whoever comes next: nobody,
//! as a rule, and the process ends.
//!
//! # Invariant
//!
//! The handler runs on the overflown stack, in the pages that are kept for that (`GUARANTEE`): what it calls
//! needs little of it, and neither allocates nor locks.

#![allow(unsafe_code)]

use super::{current, overflow_report};
use std::ptr;
use std::sync::Once;
use windows_sys::Win32::Foundation::EXCEPTION_STACK_OVERFLOW;
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::Threading::SetThreadStackGuarantee;

/// Bytes of each stack for what handles its overflow; as many as Rust's own threads keep.
const GUARANTEE: u32 = 0x5000;

/// How far below its frames a fiber's stack goes on at most: its guard, and the pages of the guarantee.
const BELOW: usize = 256 << 10;

/// Makes sure that an overflow of a stack that is made on this thread will be reported: the process has our
/// handler, and `DefaultStack::new` finds how much it has to keep.
pub(super) fn prepare_thread() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: a function of that type, which is there for good. First, because Rust's own names the thread.
        unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) };
    });
    let mut kept = 0;
    // SAFETY: 0 asks what there is; another number asks for more.
    unsafe {
        SetThreadStackGuarantee(&raw mut kept);
        if kept < GUARANTEE {
            kept = GUARANTEE;
            SetThreadStackGuarantee(&raw mut kept);
        }
    }
}

unsafe extern "system" fn on_exception(info: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system's, valid for the time of the call.
    if unsafe { (*(*info).ExceptionRecord).ExceptionCode } == EXCEPTION_STACK_OVERFLOW {
        current::with(|current| {
            let (lowest, end) = (current.lowest.get(), ptr::from_ref(&*current).addr());
            let here = (&raw const info).addr();
            // Not if it is on a stack that somebody else has switched to.
            if lowest != 0 && (lowest.saturating_sub(BELOW)..end).contains(&here) {
                overflow_report::say(&current, end - lowest, write);
            }
        });
    }
    EXCEPTION_CONTINUE_SEARCH
}

fn write(part: &str) {
    let length = u32::try_from(part.len()).unwrap_or(0);
    let mut written = 0;
    // SAFETY: the bytes are valid; errors cannot be helped here.
    unsafe {
        WriteFile(
            GetStdHandle(STD_ERROR_HANDLE),
            part.as_ptr(),
            length,
            &raw mut written,
            ptr::null_mut(),
        )
    };
}
