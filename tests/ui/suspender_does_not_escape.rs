//! A `Suspender` is lent to the fiber's closure, and gone when that returns.
//~ E0521 escapes

use fiberback::fiber::{Fiber, StackPool, Suspender};
use std::cell::Cell;

thread_local! {
    static KEPT: Cell<Option<&'static Suspender<(), ()>>> = const { Cell::new(None) };
}

fn main() {
    let stack = StackPool::global().take().unwrap();
    let mut fiber = Fiber::new(stack, |suspender: &Suspender<(), ()>, ()| {
        KEPT.set(Some(suspender));
    });
    fiber.resume(());
}
