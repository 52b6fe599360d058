//! Settings for a fiber.

use super::run::Run;
use crate::error::StackError;
use crate::fiber::{Site, Stack, StackPool};

/// Runs synchronous code like [`run`](crate::run), with a name, a stack size or a pool of one's
/// choice, and with an error instead of a panic when no stack can be had.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fiberback::StackError> {
/// let answer = fiberback::Builder::new()
///     .name("parser")
///     .stack_size(256 * 1024)
///     .run(|| 6 * 7)?
///     .await;
/// assert_eq!(answer, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `run`"]
pub struct Builder {
    name: Option<String>,
    stack: StackChoice,
}

#[derive(Clone, Debug, Default)]
enum StackChoice {
    #[default]
    Global,
    Size(usize),
    Pool(StackPool),
}

impl Builder {
    /// The default settings: no name, a stack from the process's pool: 2 MiB, or what the environment
    /// variable `RUST_MIN_STACK` says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the fiber, for the reports of an overflown stack or a refused cancellation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Usable bytes of the fiber's stack, rounded up to whole pages; from a pool that all fibers of
    /// that size share. This is address space; only touched pages cost memory. Replaces
    /// [`pool`](Self::pool).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack = StackChoice::Size(bytes);
        self
    }

    /// The pool that the stack comes from. Replaces [`stack_size`](Self::stack_size).
    pub fn pool(mut self, pool: &StackPool) -> Self {
        self.stack = StackChoice::Pool(pool.clone());
        self
    }

    /// Prepares to run `f`, as [`run`](crate::run) does.
    ///
    /// # Errors
    ///
    /// If the stack size is out of range, or no more stacks can be had.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> Result<Run<T>, StackError>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.run_at(Site::caller(), f)
    }

    /// [`run`](Self::run), which somebody has asked for there.
    pub(crate) fn run_at<F, T>(&self, site: Site, f: F) -> Result<Run<T>, StackError>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        Ok(Run::new(site, self.take_stack()?, self.fiber_name(), f))
    }

    pub(super) fn take_stack(&self) -> Result<Stack, StackError> {
        match &self.stack {
            StackChoice::Global => StackPool::global().take(),
            StackChoice::Size(bytes) => StackPool::of_size(*bytes)?.take(),
            StackChoice::Pool(pool) => pool.take(),
        }
    }

    pub(super) fn fiber_name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}
