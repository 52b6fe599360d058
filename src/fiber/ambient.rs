//! State of a call stack that lives in the thread, not on the stack.

/// State that belongs to a fiber's call stack but is kept by the thread it runs on, and so must be
/// swapped whenever the thread switches between stacks.
///
/// Both methods run on the *resumer's* stack, so they may be switched around like any other code.
/// They are called in pairs: `enter` right before the switch to the fiber, `leave` right after the
/// switch back, whether the fiber suspended, returned or panicked.
///
/// Neither should panic. A panic in `enter` comes out of the `resume`, which then has not happened;
/// a `cancel` happens without it. A panic in `leave` takes with it what the fiber has sent; after a
/// panic of the fiber's own it is ignored.
///
/// Pass one to [`Fiber::resume_with`](super::Fiber::resume_with). `()` is the ambient state of a
/// fiber that has none.
pub trait Ambient {
    /// Takes the resumer's state out of the thread and puts the fiber's in.
    fn enter(&mut self);
    /// Takes the fiber's state out of the thread and puts the resumer's back.
    fn leave(&mut self);
}

impl Ambient for () {
    #[inline]
    fn enter(&mut self) {}
    #[inline]
    fn leave(&mut self) {}
}
