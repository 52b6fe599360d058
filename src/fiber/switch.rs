//! Resume, suspend, cancel.
//!
//! # Invariant
//!
//! A [`Fiber`] owns the record at the top of its stack (`Record`) from [`Fiber::new`] until it ends.
//! While the fiber runs, `Header::transfer` points at the [`Transfer`] union in the frame of the
//! `resume` call that runs it; the two sides take turns on it: the resumer writes an input, the
//! fiber reads it; the fiber writes a yield or return value, the resumer reads it. Nothing else
//! ever touches it, and nobody reads what was not the last thing written.
//!
//! Values go through that union rather than through `corosensei`, which then switches with `()`
//! in both directions: one register each way, whatever the types and however large.

#![allow(unsafe_code)]

use super::ambient::Ambient;
use super::current;
#[cfg(target_os = "linux")]
use super::header;
use super::header::Header;
use super::memory::{RECORD_SIZE, Slot};
#[cfg(feature = "dump")]
use super::roster::{Seen, State};
use super::site::Site;
use super::stack::Stack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use scopeguard::ScopeGuard;
use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;
#[cfg(feature = "dump")]
use std::sync::Arc;
use std::{fmt, thread};

/// What [`Fiber::resume`] came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step<Y, R> {
    /// The fiber suspended itself with this value and can be resumed.
    Yield(Y),
    /// The fiber's closure returned this value; the fiber is done.
    Return(R),
}

/// Why [`Suspender::suspend`] did not deliver an input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SuspendError(Refusal);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Cancelled,
    Unwinding,
}

impl SuspendError {
    pub(crate) const CANCELLED: Self = Self(Refusal::Cancelled);

    /// The fiber's owner dropped or cancelled it: clean up and return.
    pub fn is_cancelled(&self) -> bool {
        self.0 == Refusal::Cancelled
    }

    /// A panic is unwinding this fiber: other tasks must not run inside it.
    pub fn is_unwinding(&self) -> bool {
        self.0 == Refusal::Unwinding
    }

    /// Unwinds the fiber's stack with this error as the payload, running destructors but not the
    /// panic hook. The [`Fiber::cancel`] that asked for it stops the unwinding at the fiber's root.
    pub fn unwind(self) -> ! {
        #[cfg(target_os = "linux")]
        super::cannot_unwind::prepare();
        panic::resume_unwind(Box::new(self))
    }
}

impl fmt::Debug for SuspendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SuspendError").field(&self.0).finish()
    }
}

impl fmt::Display for SuspendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Refusal::Cancelled => "the fiber was cancelled by its owner",
            Refusal::Unwinding => "a fiber cannot suspend while a panic is unwinding it",
        })
    }
}

impl std::error::Error for SuspendError {}

/// The values exchanged during one resume. `repr(C)`, so that all start at offset 0: a
/// `Suspender<I, Y>` reads and writes them without knowing `R`.
#[repr(C)]
union Transfer<I, Y, R> {
    input: ManuallyDrop<I>,
    yielded: ManuallyDrop<Y>,
    returned: ManuallyDrop<R>,
    empty: (),
}

/// What sits at the top of the stack of a live fiber.
#[repr(C)]
struct Record {
    header: Header,
    coroutine: Coroutine<(), (), (), Slot>,
    /// What all this sits on; taken out when the fiber ends.
    stack: ManuallyDrop<Stack>,
}

const _: () = assert!(mem::size_of::<Record>() <= RECORD_SIZE && mem::align_of::<Record>() <= 16);

/// A closure running on a stack of its own, which can stop in the middle and be resumed.
///
/// `I` goes in with each [`resume`](Self::resume), `Y` comes out with each suspension, `R` when the
/// closure returns. The types are `'static`, because a fiber that is forgotten
/// ([`mem::forget`], [`Fiber::leak`]) keeps its frames for ever.
///
/// # Threads
///
/// A fiber is `!Send`: what is on its stack may be tied to the thread.
///
/// # Cancellation
///
/// Dropping a suspended fiber [cancels](Self::cancel) it. In a program built with
/// `panic = "abort"`, where nothing can unwind, [`Suspender::suspend`] still returns its error, and
/// code that answers it by returning still ends in order.
///
/// # Panics
///
/// A panic on the fiber comes out of `resume`; the fiber is then done.
pub struct Fiber<I: 'static, Y: 'static, R: 'static> {
    record: NonNull<Record>,
    /// `!Send`, `!Sync`; neither co- nor contravariant in anything.
    marker: PhantomData<*mut (I, Y, R)>,
}

/// The inside of a fiber: how its code switches back to the resumer.
///
/// Handed to the fiber's closure by reference; the reference is valid, at one address, until the
/// closure returns.
pub struct Suspender<I: 'static, Y: 'static> {
    header: NonNull<Header>,
    marker: PhantomData<*mut (I, Y)>,
}

/// Closures up to this size are moved to the fiber's stack as they are, larger ones are boxed:
/// `corosensei` refuses to place more than 1024 bytes (`allocate_obj_on_stack`), padding included,
/// so those with a large alignment are boxed, too.
const MAX_INLINE_CLOSURE: usize = 512;
const MAX_INLINE_ALIGNMENT: usize = 64;

impl<I: 'static, Y: 'static, R: 'static> Fiber<I, Y, R> {
    /// A fiber that will run `f` on `stack` when first resumed.
    ///
    /// `f` gets the [`Suspender`] and the input of that first resume.
    #[track_caller]
    pub fn new<F>(stack: Stack, f: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R + 'static,
    {
        // SAFETY: `F`, `I`, `Y` and `R` are 'static.
        unsafe { Self::new_unchecked(stack, f) }
    }

    /// [`Fiber::new`] for a closure that borrows.
    ///
    /// # Safety
    ///
    /// Whatever `f` borrows must stay valid until the fiber has ended, and for ever if it is
    /// leaked while suspended.
    #[track_caller]
    pub unsafe fn new_unchecked<F>(stack: Stack, f: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R,
    {
        // SAFETY: the caller's promise, passed on.
        unsafe { Self::new_at(Site::caller(), stack, f) }
    }

    /// [`new_unchecked`](Self::new_unchecked), which somebody has asked for there.
    ///
    /// # Safety
    ///
    /// As for [`Self::new_unchecked`].
    #[inline]
    pub(crate) unsafe fn new_at<F>(site: Site, stack: Stack, f: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R,
    {
        if mem::size_of::<F>() > MAX_INLINE_CLOSURE || mem::align_of::<F>() > MAX_INLINE_ALIGNMENT {
            let f = Box::new(f);
            // SAFETY: the caller's promise, passed on.
            unsafe {
                let f = move |suspender: &Suspender<I, Y>, input| f(suspender, input);
                Self::place(site, stack, f)
            }
        } else {
            // SAFETY: the caller's promise, passed on.
            unsafe { Self::place(site, stack, f) }
        }
    }

    /// Writes the record and the closure to the stack.
    ///
    /// # Safety
    ///
    /// As for [`Self::new_unchecked`].
    #[inline]
    unsafe fn place<F>(site: Site, stack: Stack, f: F) -> Self
    where
        F: FnOnce(&Suspender<I, Y>, I) -> R,
    {
        let slot = stack.slot();
        let record = slot.record().cast::<Record>();
        let header = record.cast::<Header>();
        let body = move |yielder: &Yielder<(), ()>, ()| {
            let suspender = Suspender::<I, Y> { header, marker: PhantomData };
            // SAFETY: `Self::resume_with` runs us and has just put the input of this resume into
            // the union that `transfer` points at; it is taken out once.
            let input = unsafe {
                header.as_ref().yielder.set(yielder);
                let transfer = header.as_ref().transfer.get().cast::<Transfer<I, Y, R>>();
                ManuallyDrop::take(&mut (*transfer).input)
            };
            let returned = f(&suspender, input);
            // SAFETY: `transfer` was renewed by whichever resume runs us now, and that resume
            // reads `returned` next. On the last resume of a cancelled fiber, `cancel_with`
            // provides the union and drops the value.
            unsafe {
                let transfer = header.as_ref().transfer.get().cast::<Transfer<I, Y, R>>();
                (*transfer).returned = ManuallyDrop::new(returned);
            }
        };
        // SAFETY: `slot.record()` is `RECORD_SIZE` bytes of writable memory, aligned to 64, above
        // the base that `Slot` reports to corosensei, so nothing else uses it; the const assertion
        // above says that `Record` fits. The coroutine's closure may borrow: the caller promises
        // that what it borrows outlives the fiber.
        unsafe {
            let coroutine = Coroutine::with_stack_unchecked(slot, body);
            let pool = stack.pool();
            let stack = ManuallyDrop::new(stack);
            record.write(Record { header: Header::off_fiber(), coroutine, stack });
            let header = header.as_ref();
            header.lowest.set(slot.usable().start);
            header.pool.set(pool);
            #[cfg(target_os = "linux")]
            header.live.set(header::LIVE);
            #[cfg(feature = "dump")]
            header.seen.set(Arc::into_raw(Seen::list(record.cast(), site)));
        }
        let _ = site;
        Self { record, marker: PhantomData }
    }

    /// Names the fiber, for the stack-overflow and cancellation reports.
    pub fn set_name(&mut self, name: &str) {
        self.free_name();
        let name: Box<Box<str>> = Box::new(Box::from(name));
        #[cfg(feature = "dump")]
        self.seen().set_name(&name);
        self.header().name.set(Box::into_raw(name));
    }

    fn free_name(&mut self) {
        let name = self.header().name.take_ptr();
        if !name.is_null() {
            // SAFETY: `set_name` made this of a box, and the word is now cleared.
            drop(unsafe { Box::from_raw(name.cast_mut()) });
        }
    }

    #[inline(always)]
    fn header(&self) -> &Header {
        // SAFETY: the module's invariant: the record is ours until `end`, which consumes the fiber.
        // Only shared references to the header are ever made, as the running fiber makes them too.
        unsafe { &*self.record.as_ptr().cast::<Header>() }
    }

    /// What other threads see of it.
    #[cfg(feature = "dump")]
    #[inline(always)]
    fn seen(&self) -> &Seen {
        self.header().seen().expect("a fiber's header has it from `place` to `end`")
    }

    /// Which fiber this is: what [`current::address`] says on it.
    pub(crate) fn address(&self) -> usize {
        self.record.as_ptr().addr()
    }

    /// `Header::state`, as the code on the fiber has left it.
    #[inline(always)]
    pub(crate) fn state(&self) -> *const () {
        self.header().state.get()
    }

    #[inline(always)]
    fn coroutine(&self) -> *mut Coroutine<(), (), (), Slot> {
        // SAFETY: in bounds of the record. Formed without a reference to the whole record, since
        // the running fiber holds a shared one to the header part.
        unsafe { &raw mut (*self.record.as_ptr()).coroutine }
    }

    /// True once the closure has been entered.
    pub fn is_started(&self) -> bool {
        // The coroutine itself may be a walker's now.
        #[cfg(feature = "dump")]
        return self.seen().state() != State::NotBegun;
        // SAFETY: the record is ours, and the fiber is not running (`&self` excludes `resume`).
        #[cfg(not(feature = "dump"))]
        unsafe {
            (*self.coroutine()).started()
        }
    }

    /// True once the closure has returned or panicked.
    #[inline]
    pub fn is_done(&self) -> bool {
        #[cfg(feature = "dump")]
        return self.seen().state() == State::Done;
        // SAFETY: as in `is_started`.
        #[cfg(not(feature = "dump"))]
        unsafe {
            (*self.coroutine()).done()
        }
    }

    /// The stack addresses that the closure's frames can use, lowest to highest.
    pub fn stack_range(&self) -> std::ops::Range<usize> {
        self.slot().usable()
    }

    /// The bytes that the pool [reserves](super::StackPoolBuilder::reserve) for the fiber's owner,
    /// as [`Stack::reserved`] gives them.
    pub fn reserved(&self) -> NonNull<[u8]> {
        self.slot().reserved()
    }

    fn slot(&self) -> Slot {
        // SAFETY: in the record from `place` to `end`, and written by nobody in between.
        unsafe { (*self.record.as_ptr()).stack.slot() }
    }

    /// Switches to the fiber until it suspends or returns.
    ///
    /// # Panics
    ///
    /// Panics if the fiber is [done](Self::is_done), and with the fiber's own panic if it panics.
    #[inline]
    pub fn resume(&mut self, input: I) -> Step<Y, R> {
        self.resume_with(&mut (), input)
    }

    /// [`resume`](Self::resume), with `ambient` entered for the time on the fiber.
    ///
    /// # Panics
    ///
    /// As [`resume`](Self::resume).
    #[inline]
    pub fn resume_with<A: Ambient>(&mut self, ambient: &mut A, input: I) -> Step<Y, R> {
        assert!(!self.is_done(), "fiberback: resumed a fiber that is done");
        ambient.enter();
        let mut transfer = Transfer::<I, Y, R> { input: ManuallyDrop::new(input) };
        // SAFETY: not done.
        let (switched, ambient) = unsafe { self.switch(ambient, &raw mut transfer) };
        // SAFETY: what came back tells which field the fiber wrote last.
        let step = unsafe {
            match switched {
                CoroutineResult::Yield(()) => {
                    Step::Yield(ManuallyDrop::into_inner(transfer.yielded))
                }
                CoroutineResult::Return(()) => {
                    Step::Return(ManuallyDrop::into_inner(transfer.returned))
                }
            }
        };
        ambient.leave();
        step
    }

    /// Switches in, with the thread's view of "current fiber" swapped meanwhile. `ambient` has been
    /// entered; it is given back to be left, or left here if a panic comes out of the fiber.
    ///
    /// # Safety
    ///
    /// The fiber must not be done, and `transfer` must hold what the fiber will read next.
    #[inline(always)]
    unsafe fn switch<'a, A: Ambient>(
        &mut self,
        ambient: &'a mut A,
        transfer: *mut Transfer<I, Y, R>,
    ) -> (CoroutineResult<(), ()>, &'a mut A) {
        let header = self.header();
        #[cfg(feature = "dump")]
        let turn = self.seen().begin_turn();
        header.transfer.set(transfer.cast());
        header.resumed_panicking.set(thread::panicking());
        let ambient = scopeguard::guard(ambient, leave_unwinding);
        // Dropped before `ambient`, so that the thread is off the fiber again when that is left.
        // SAFETY: the header lives until `end`, which needs the fiber that we hold `&mut`; guards
        // nest as calls do.
        let entered = unsafe { current::enter(header) };
        // SAFETY: the coroutine is initialised and ours. A `&mut` to it exists only here, while
        // the fiber's own code reaches the header alone.
        let switched = unsafe { (*self.coroutine()).resume(()) };
        #[cfg(feature = "dump")]
        if matches!(switched, CoroutineResult::Yield(())) {
            turn.suspended();
        } else {
            drop(turn);
        }
        drop(entered);
        (switched, ScopeGuard::into_inner(ambient))
    }

    /// Ends a suspended fiber: resumes it one last time, with every [`Suspender::suspend`] from
    /// now on returning an error at once, so that it cleans up and returns. Does nothing to a fiber
    /// that is done. A fiber that never started just drops its closure.
    ///
    /// The closure's result, or the unwinding that [`SuspendError::unwind`] began, is discarded.
    ///
    /// A fiber that goes on suspending regardless is refused each time; when it has done so many
    /// thousand times over, the process is aborted with a message that names it.
    ///
    /// # Panics
    ///
    /// If a destructor on the fiber panics, that panic comes out of here, unless the thread is
    /// panicking already.
    pub fn cancel(&mut self) {
        self.cancel_with(&mut ());
    }

    /// [`cancel`](Self::cancel), with `ambient` entered for the time on the fiber.
    ///
    /// # Panics
    ///
    /// As [`cancel`](Self::cancel).
    pub fn cancel_with<A: Ambient>(&mut self, ambient: &mut A) {
        if self.is_done() {
            return;
        }
        if !self.is_started() {
            let coroutine = self.coroutine();
            // corosensei marks the coroutine done only after it has dropped the closure. If that
            // panics, it must not be dropped a second time.
            // SAFETY: nothing on the stack is left to be dropped, or is in anybody's use.
            let _done = scopeguard::guard((), |()| unsafe { (*coroutine).force_reset() });
            #[cfg(feature = "dump")]
            let _turn = self.seen().begin_turn();
            // SAFETY: the coroutine is ours and not running; this drops the closure in place.
            unsafe { (*coroutine).force_unwind() };
            return;
        }
        self.header().cancelled.set(true);
        let mut ended = panic::catch_unwind(AssertUnwindSafe(|| self.run_to_the_end(ambient)));
        if !self.is_done() {
            // `enter` has panicked. The fiber must end here and now all the same, and on its own
            // terms: it is about to lose its stack.
            let again = panic::catch_unwind(AssertUnwindSafe(|| self.run_to_the_end(&mut ())));
            // The first panic is the one to tell of.
            if ended.is_ok() {
                ended = again;
            } else {
                mem::forget(again);
            }
        }
        if let Err(payload) = ended {
            rethrow_unless_cancellation(payload);
        }
    }

    /// Resumes a cancelled fiber, and drops its result.
    fn run_to_the_end<A: Ambient>(&mut self, ambient: &mut A) {
        ambient.enter();
        let mut transfer = Transfer::<I, Y, R> { empty: () };
        // SAFETY: not done; a cancelled fiber reads no input.
        let (switched, ambient) = unsafe { self.switch(ambient, &raw mut transfer) };
        let CoroutineResult::Return(()) = switched else {
            unreachable!("a cancelled fiber is refused every further suspension")
        };
        // SAFETY: a return means that the fiber wrote its result last.
        let _returned = unsafe { ManuallyDrop::into_inner(transfer.returned) };
        ambient.leave();
    }

    /// Takes back the stack of a fiber that is done, to start another on it.
    ///
    /// `None` if the fiber is not done; it is then cancelled, as by dropping it.
    pub fn into_stack(mut self) -> Option<Stack> {
        let done = self.is_done();
        if !done {
            return None;
        }
        let stack = self.end();
        mem::forget(self);
        Some(stack)
    }

    /// Gives the fiber up where it stands: its code never runs again, its destructors never run,
    /// and its stack is never reused, so that pointers into it stay valid. The pool
    /// [counts](super::PoolStats::leaked) it.
    pub fn leak(self) {
        #[cfg(feature = "dump")]
        self.seen().unlist();
        // SAFETY: in the record from `place` to `end`, and written by nobody in between.
        unsafe { (*self.record.as_ptr()).stack.count_leak() };
        mem::forget(self);
    }

    /// Takes the record apart. Afterwards nothing of `self` may be used.
    #[inline]
    fn end(&mut self) -> Stack {
        debug_assert!(self.is_done());
        if !self.header().name.get().is_null() {
            self.free_name();
        }
        #[cfg(target_os = "linux")]
        self.header().live.set(0);
        #[cfg(feature = "dump")]
        {
            self.seen().unlist();
            // SAFETY: `place` has made it of an `Arc`. Afterwards nobody looks for it.
            drop(unsafe { Arc::from_raw(self.header().seen.replace(std::ptr::null())) });
        }
        // SAFETY: the fiber is done, so dropping the coroutine only does corosensei's own
        // book-keeping (sanitizer, Windows TEB). Both are taken out once: the callers never touch the
        // record again.
        unsafe {
            let stack = ManuallyDrop::take(&mut (*self.record.as_ptr()).stack);
            std::ptr::drop_in_place(self.coroutine());
            stack
        }
    }
}

impl<I: 'static, Y: 'static, R: 'static> Drop for Fiber<I, Y, R> {
    #[inline]
    fn drop(&mut self) {
        // Whether or not a destructor on the fiber panics, the stack goes back.
        let mut fiber = scopeguard::guard(self, |fiber| drop(fiber.end()));
        if !fiber.is_done() {
            fiber.cancel();
        }
    }
}

/// Leaves the ambient state while a panic unwinds from the fiber. Another panic now would abort the
/// process, so it is swallowed; its payload is not even dropped, since that might panic, too.
#[cold]
fn leave_unwinding<A: Ambient>(ambient: &mut A) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| ambient.leave())) {
        mem::forget(payload);
    }
}

fn rethrow_unless_cancellation(payload: Box<dyn Any + Send>) {
    let ours = payload.downcast_ref::<SuspendError>().is_some_and(SuspendError::is_cancelled);
    if ours {
        return;
    }
    if thread::panicking() {
        // As in `leave_unwinding`: its destructor might panic, too.
        mem::forget(payload);
    } else {
        panic::resume_unwind(payload);
    }
}

impl<I: 'static, Y: 'static, R: 'static> fmt::Debug for Fiber<I, Y, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber")
            .field("name", &self.header().display_name())
            .field("started", &self.is_started())
            .field("done", &self.is_done())
            .finish_non_exhaustive()
    }
}

impl<I: 'static, Y: 'static> Suspender<I, Y> {
    /// Switches back to the resumer with `value`, and waits for the next input.
    ///
    /// # Errors
    ///
    /// With [`is_cancelled`](SuspendError::is_cancelled) when the owner ends the fiber, now or
    /// earlier: the code should clean up and return. With
    /// [`is_unwinding`](SuspendError::is_unwinding), without a switch, when called by a destructor
    /// during a panic. `value` is dropped when no switch happens.
    ///
    /// # Panics
    ///
    /// Panics if called from another fiber than the one it belongs to.
    #[track_caller]
    #[inline]
    pub fn suspend(&self, value: Y) -> Result<I, SuspendError> {
        // SAFETY: the header outlives the fiber's closure, and `self` cannot leave it: it is only
        // lent to the closure, and is neither `Send` nor `Sync`.
        let header = unsafe { self.header.as_ref() };
        assert!(
            current::is(header),
            "fiberback: a Suspender was used from outside the fiber it belongs to"
        );
        if header.is_cancelled() && !header.is_unwinding() {
            header.count_refusal();
            return Err(SuspendError(Refusal::Cancelled));
        }
        header.waits_at(Site::caller());
        // SAFETY: just checked; the types are those of the fiber's closure, to which `self` was lent.
        unsafe { suspend_current(header, value) }
    }
}

/// [`Suspender::suspend`] by whoever knows what fiber the code is on.
///
/// # Safety
///
/// `header` must be that of the fiber which the caller runs on, inside of its closure, and `I` and `Y` the
/// types that this was made with. The fiber must not be cancelled, unless a panic is unwinding it.
#[inline(always)]
pub(crate) unsafe fn suspend_current<I: 'static, Y: 'static>(
    header: &Header,
    value: Y,
) -> Result<I, SuspendError> {
    if header.is_unwinding() {
        return Err(SuspendError(Refusal::Unwinding));
    }
    debug_assert!(!header.is_cancelled(), "a cancelled fiber is never left again");
    let slot = header.transfer.get().cast::<ManuallyDrop<Y>>();
    // SAFETY: we are on the fiber, so a `resume` frame is alive and `transfer` points at its union, which
    // is aligned and large enough for all three types. `yielder` was set before the closure was called,
    // and is valid until that returns.
    unsafe {
        slot.write(ManuallyDrop::new(value));
        (*header.yielder.get()).suspend(());
        #[cfg(feature = "dump")]
        report_if_asked(header);
    }
    if header.is_cancelled() {
        return Err(SuspendError(Refusal::Cancelled));
    }
    // SAFETY: resumed without cancellation means resumed by `resume_with`, which set `transfer` to a union
    // that holds an input.
    Ok(unsafe { header.transfer.get().cast::<I>().read() })
}

/// Called by a fiber that was just resumed, perhaps by a walker, and not on its own thread: then it reports,
/// and suspends itself again.
///
/// # Safety
///
/// `header` must be that of the fiber which the caller runs on.
#[cfg(feature = "dump")]
#[inline(always)]
unsafe fn report_if_asked(header: &Header) {
    let Some(seen) = header.seen() else { return };
    // SAFETY: the walker lends it for the time that it has resumed the fiber.
    while let Some(report) = unsafe { seen.report().as_mut() } {
        report.write(header.lowest.get()..std::ptr::from_ref(header).addr());
        // SAFETY: we are on the fiber, inside of its closure.
        unsafe { (*header.yielder.get()).suspend(()) };
    }
}

/// Has a suspended fiber report its stack.
///
/// # Safety
///
/// `record` must be that of a suspended fiber, on which the caller has a [claim](super::roster), and which it
/// has told where to report to.
#[cfg(feature = "dump")]
pub(super) unsafe fn resume_to_report(record: NonNull<()>) {
    // SAFETY: in bounds of the record, and by its claim the caller's. The fiber is in `suspend_current`, the one
    // place where fibers suspend themselves, and suspends itself again there.
    unsafe {
        let coroutine = &raw mut (*record.cast::<Record>().as_ptr()).coroutine;
        (*coroutine).resume(());
    }
}

impl<I: 'static, Y: 'static> fmt::Debug for Suspender<I, Y> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspender").finish_non_exhaustive()
    }
}

/// `Cell<*const T>::take` needs `Default`, which raw pointers lack.
trait TakePtr<T> {
    fn take_ptr(&self) -> *const T;
}

impl<T> TakePtr<T> for Cell<*const T> {
    fn take_ptr(&self) -> *const T {
        self.replace(std::ptr::null())
    }
}
