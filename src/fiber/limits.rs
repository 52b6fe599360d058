//! How much of its stack the running code has left.

use super::current;
use super::stack_pointer::stack_pointer;
use std::ops::Range;

/// The addresses of the stack that the calling code runs on, lowest to highest, if that is a fiber's; `None`
/// on a thread's own stack.
///
/// For whatever measures the thread's stack and would be wrong here: collectors that scan it, interpreters
/// that are told its limits (QuickJS: `JS_UpdateStackTop` and `JS_SetMaxStackSize`), V8.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use fiberback::fiber::current_stack;
///
/// assert_eq!(current_stack(), None);
/// let stack = fiberback::run(|| current_stack().unwrap()).await;
/// assert!(stack.len() >= 64 * 1024);
/// # }
/// ```
pub fn current_stack() -> Option<Range<usize>> {
    current::with(|current| {
        let lowest = current.lowest.get();
        (lowest != 0).then(|| lowest..std::ptr::from_ref(&*current).addr())
    })
}

/// How many bytes the calling code has left on the fiber's stack that it runs on; `None` on a thread's own
/// stack.
///
/// For code that recurses as deep as its input says: a parser, a deserializer, a regular expression. Crates
/// that ask the system for the thread's stack (`stacker`, `recursive`) get an answer that has nothing to do
/// with the fiber's: ask here first, and stop, or go on with an error, below some reserve.
///
/// ```
/// fn depth(n: u32) -> Result<u32, &'static str> {
///     match fiberback::stack_remaining() {
///         Some(left) if left < 32 * 1024 => Err("nested too deep"),
///         _ if n == 0 => Ok(0),
///         _ => Ok(depth(n - 1)? + 1),
///     }
/// }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(fiberback::run(|| depth(10)).await, Ok(10));
/// assert_eq!(fiberback::run(|| depth(1_000_000)).await, Err("nested too deep"));
/// # });
/// ```
#[inline(never)]
pub fn stack_remaining() -> Option<usize> {
    // 0 if this should be called on yet another stack, which somebody else has switched to.
    current_stack().map(|stack| {
        let here = stack_pointer();
        if stack.contains(&here) { here - stack.start } else { 0 }
    })
}
