//! A value that one fiber at a time may be inside of.

use crate::fiber::current;
use std::cell::{Cell, RefCell};
use std::fmt;

/// A value that code enters and leaves again, and that refuses a second entry meanwhile.
///
/// For what is not made to be entered twice, and whose owner calls back into code that may wait: an
/// interpreter (Lua, QuickJS), a template engine, a library that holds a lock while it calls back. A fiber
/// that waits inside suspends with all that is on its stack, and other fibers of the thread run on. If one
/// of them then enters, such an owner sees its call frames interleaved, which is undefined behaviour in many
/// C libraries, or waits for a lock that is held below, for ever. Here it gets an error that says so.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use fiberback::Exclusive;
/// use std::rc::Rc;
///
/// let interpreter = Rc::new(Exclusive::new(Vec::new())); // some engine
/// let first = {
///     let interpreter = Rc::clone(&interpreter);
///     fiberback::run(move || {
///         interpreter.enter(|stack| {
///             stack.push("called back");
///             fiberback::await_(tokio::task::yield_now()); // waits inside
///         })
///     })
/// };
/// let second = fiberback::run(move || interpreter.try_enter(|stack| stack.len()).is_err());
/// let ((), refused) = tokio::join!(first, second);
/// assert!(refused);
/// # }
/// ```
///
/// To wait for one's turn instead, put a `tokio::sync::Mutex` around it, and
/// `fiberback::await_(mutex.lock())`; or have one engine for each fiber.
#[derive(Default)]
pub struct Exclusive<T: ?Sized> {
    /// The fiber that is inside, by its address; only ever compared.
    inside: Cell<usize>,
    value: RefCell<T>,
}

impl<T> Exclusive<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self { inside: Cell::new(0), value: RefCell::new(value) }
    }

    /// The value, with nobody inside.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Exclusive<T> {
    /// Calls `f` inside.
    ///
    /// # Panics
    ///
    /// If code is inside already: of another fiber, which waits there, or further up in this call stack.
    #[track_caller]
    pub fn enter<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        match self.try_enter(f) {
            Ok(returned) => returned,
            Err(occupied) => panic!("{occupied}"),
        }
    }

    /// Calls `f` inside, or returns an error where [`enter`](Self::enter) panics.
    ///
    /// # Errors
    ///
    /// If code is inside already; `f` was not called.
    ///
    /// # Cancellation
    ///
    /// What unwinds `f` leaves the value, and it can be entered again.
    pub fn try_enter<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R, Occupied> {
        let here = current::address();
        let Ok(mut value) = self.value.try_borrow_mut() else {
            return Err(Occupied { by_itself: self.inside.get() == here });
        };
        self.inside.set(here);
        Ok(f(&mut value))
    }

    /// The value: whoever can borrow this mutably knows that nobody is inside.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: fmt::Debug> fmt::Debug for Exclusive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exclusive").field(&self.value).finish()
    }
}

/// Why [`Exclusive::try_enter`] refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Occupied {
    by_itself: bool,
}

impl Occupied {
    /// The code that is inside is the caller's own, further up in its call stack: waiting would not help.
    pub fn is_reentrant(&self) -> bool {
        self.by_itself
    }
}

impl fmt::Debug for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Occupied")
    }
}

impl fmt::Display for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by_itself {
            "fiberback: this code is inside the `Exclusive` already, and was called back from there: \
             hand it the value that `enter` gave, instead of entering again"
        } else {
            "fiberback: another fiber waits inside this `Exclusive`: wait until it is out (keep it in an \
             async `Mutex`, and `fiberback::await_(mutex.lock())`), or have one for each fiber"
        })
    }
}

impl std::error::Error for Occupied {}
