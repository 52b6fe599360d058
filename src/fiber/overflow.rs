//! The fault handler that names an overflown stack.
//!
//! A fiber that runs off its stack hits its guard pages: SIGSEGV (SIGBUS on some systems). Without
//! help that is a bare crash. The handler here recognises the case, says which fiber it was, how
//! large its stack is and, in the words of the pool's owner, which setting to raise, and aborts.
//! Every other fault goes to the handler that was there before, as if ours were not.
//!
//! # Invariant
//!
//! Everything that [`on_fault`] calls is async-signal-safe: atomics, memory that is mapped for sure,
//! `write`, `abort`, `sigaction`. It uses no thread-local storage, whose first use on a thread may
//! allocate when the crate is in a shared library.

#![allow(unsafe_code)]

use super::header::{Header, LIVE};
use super::memory::registry;
use super::overflow_report;
use std::cell::Cell;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Enough for our handler, and for a chained one that formats a report.
const ALTERNATE_STACK: usize = 64 << 10;

/// How far below the guard the stack pointer may be when a frame larger than the rest of the stack
/// has been entered but not touched.
const SKIPPED_AT_MOST: usize = 256 << 10;

/// What was installed for the [`SIGNALS`] before us; leaked, so that a handler can read it.
static PREVIOUS: [AtomicPtr<libc::sigaction>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

/// Those that we handle at times; SIGABRT is for `cannot_unwind.rs`.
const SIGNALS: [libc::c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT];

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Makes sure that an overflow on a fiber of this thread will be reported: the process has our
/// handler, and the thread has a stack to run it on.
pub(super) fn prepare_thread() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            install(signal, on_fault);
        }
    });
    let _ = ALTERNATE.try_with(|alternate| {
        if !alternate.checked.replace(true) {
            alternate.provide();
        }
    });
}

/// Makes `handler` that of `signal`, one of [`SIGNALS`]. To be called once for each.
pub(super) fn install(signal: libc::c_int, handler: Handler) {
    // SAFETY: plain data, for which all zeroes is valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both structures are valid; the old action is read before ours is installed, so
    // that `PREVIOUS` is set when the first signal arrives.
    unsafe {
        let mut old = Box::new(mem::zeroed::<libc::sigaction>());
        libc::sigaction(signal, ptr::null(), &mut *old);
        previous(signal).store(Box::into_raw(old), Ordering::Release);
        libc::sigaction(signal, &action, ptr::null_mut());
    }
}

fn previous(signal: libc::c_int) -> &'static AtomicPtr<libc::sigaction> {
    let index = SIGNALS.iter().position(|&ours| ours == signal);
    &PREVIOUS[index.unwrap_or_default()]
}

/// This thread's alternate signal stack, if we had to provide it. (The Rust runtime has one for
/// each of its threads; threads made by C have none.)
struct Alternate {
    checked: Cell<bool>,
    ours: Cell<*mut libc::c_void>,
}

thread_local! {
    static ALTERNATE: Alternate =
        const { Alternate { checked: Cell::new(false), ours: Cell::new(ptr::null_mut()) } };
}

impl Alternate {
    fn provide(&self) {
        // SAFETY: `sigaltstack` fills the structure it is given; the mapping is fresh, ours, and
        // stays until this thread-local is dropped, which first disables the stack.
        unsafe {
            let mut current = MaybeUninit::<libc::stack_t>::zeroed().assume_init();
            libc::sigaltstack(ptr::null(), &mut current);
            if current.ss_flags & libc::SS_DISABLE == 0 {
                return;
            }
            let stack = libc::mmap(
                ptr::null_mut(),
                ALTERNATE_STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if stack == libc::MAP_FAILED {
                return;
            }
            let new = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: ALTERNATE_STACK };
            if libc::sigaltstack(&new, ptr::null_mut()) == 0 {
                self.ours.set(stack);
            } else {
                libc::munmap(stack, ALTERNATE_STACK);
            }
        }
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        let stack = self.ours.get();
        if stack.is_null() {
            return;
        }
        // SAFETY: the mapping is ours. It is unmapped only if the thread no longer uses it: either
        // somebody replaced it, or we disable it here.
        unsafe {
            let mut current = MaybeUninit::<libc::stack_t>::zeroed().assume_init();
            libc::sigaltstack(ptr::null(), &mut current);
            if current.ss_sp == stack {
                let off = libc::stack_t {
                    ss_sp: ptr::null_mut(),
                    ss_flags: libc::SS_DISABLE,
                    ss_size: 0,
                };
                libc::sigaltstack(&off, ptr::null_mut());
            }
            libc::munmap(stack, ALTERNATE_STACK);
        }
    }
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes both, valid for the time of the handler. `si_addr`
    // is meaningful for faults (`si_code` > 0); a signal sent by `kill` is not ours.
    let (address, sent, stack_pointer) =
        unsafe { ((*info).si_addr().addr(), (*info).si_code <= 0, stack_pointer(context)) };
    let found = registry::find(address).filter(|found| {
        let plausible = found.guard.start - SKIPPED_AT_MOST..found.record;
        !sent
            && found.guard.contains(&address)
            && stack_pointer.is_none_or(|pointer| plausible.contains(&pointer))
    });
    if let Some(found) = found {
        let header = ptr::with_exposed_provenance::<Header>(found.record);
        // SAFETY: the faulting thread's stack pointer is in this slot (or, on architectures where
        // we cannot read it, the fault is in its guard), so a thread runs on it and its top page
        // is mapped; a header, or zeroes, sit there.
        let header = unsafe { &*header };
        if header.live.get() == LIVE {
            report(header, found.record - found.guard.end);
        }
    }
    chain(signal, info, context);
}

/// The stack pointer at the fault, where we know how to find it.
///
/// # Safety
///
/// `context` must be what the kernel passed to the signal handler.
pub(super) unsafe fn stack_pointer(context: *mut libc::c_void) -> Option<usize> {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the caller's promise; the field is plain data.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        usize::try_from((*context).uc_mcontext.gregs[libc::REG_RSP as usize]).ok()
    }
    // SAFETY: the caller's promise; the field is plain data.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        usize::try_from((*context).uc_mcontext.sp).ok()
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        None
    }
}

/// Says what happened, on standard error, and aborts.
fn report(header: &Header, stack_size: usize) -> ! {
    overflow_report::say(header, stack_size, |part| {
        // SAFETY: the bytes are valid; errors cannot be helped here.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    });
    // SAFETY: async-signal-safe, and does not return.
    unsafe { libc::abort() }
}

/// Does what would have happened without our handler.
pub(super) fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let place = previous(signal);
    // SAFETY: set before our handler was installed, and never freed.
    let previous = unsafe { &*place.load(Ordering::Acquire) };
    // SAFETY: the kernel's own, valid for the time of the handler.
    let sent = unsafe { (*info).si_code <= 0 };
    match previous.sa_sigaction {
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // Returning runs the faulting instruction again, now with the old disposition. (The
            // kernel does not ignore a real fault, whatever is set: force_sig_fault.) A signal sent
            // by somebody is sent again, to act when we return.
            // SAFETY: the action is valid; both calls are async-signal-safe.
            unsafe {
                libc::sigaction(signal, previous, ptr::null_mut());
                if sent {
                    libc::raise(signal);
                }
            }
        }
        handler => {
            let handler = ptr::with_exposed_provenance::<()>(handler);
            if previous.sa_flags & libc::SA_RESETHAND != 0 {
                // It is called once; after that, and within it, the default is in force.
                place.store((&raw const DEFAULT.0).cast_mut(), Ordering::Release);
            }
            // On top of what is blocked already: our own action has an empty mask, and leaves out
            // SA_NODEFER, so that the signal itself is blocked here.
            let mask = Mask::enter(signal, previous);
            if previous.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: with SA_SIGINFO set, this is what the field holds.
                let handler = unsafe { mem::transmute::<*const (), Handler>(handler) };
                handler(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO, the field holds a one-argument handler.
                let handler =
                    unsafe { mem::transmute::<*const (), extern "C" fn(libc::c_int)>(handler) };
                handler(signal);
            }
            mask.leave();
        }
    }
}

/// An action that is the default, for [`PREVIOUS`].
struct DefaultAction(libc::sigaction);

// SAFETY: never written to.
unsafe impl Sync for DefaultAction {}

// SAFETY: plain data, for which all zeroes is valid: `SIG_DFL` is 0.
static DEFAULT: DefaultAction = DefaultAction(unsafe { mem::zeroed() });

/// The signals that the kernel would have blocked for a handler, sigaction(2).
struct Mask(libc::sigset_t);

impl Mask {
    fn enter(signal: libc::c_int, action: &libc::sigaction) -> Self {
        // SAFETY: all sets are valid; `pthread_sigmask` and `sigismember` are async-signal-safe
        // (signal-safety(7)).
        unsafe {
            let mut before = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &action.sa_mask, &mut before);
            let deferred = action.sa_flags & libc::SA_NODEFER == 0
                || libc::sigismember(&action.sa_mask, signal) == 1;
            if !deferred {
                let mut own = mem::zeroed();
                libc::sigemptyset(&mut own);
                libc::sigaddset(&mut own, signal);
                libc::pthread_sigmask(libc::SIG_UNBLOCK, &own, ptr::null_mut());
            }
            Self(before)
        }
    }

    fn leave(self) {
        // SAFETY: as in `enter`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
