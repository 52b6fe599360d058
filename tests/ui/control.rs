//! Compiles: that the others do not is for the reasons they give.

use fiberback::fiber::{Fiber, StackPool, Suspender};

fn main() {
    let owned = String::from("owned");
    drop(fiberback::run(move || owned.len()));
    let stack = StackPool::global().take().unwrap();
    let mut fiber = Fiber::new(stack, |suspender: &Suspender<&'static str, ()>, text| {
        let _ = suspender.suspend(());
        text.len()
    });
    fiber.resume("static");
    let local = String::from("borrowed");
    // SAFETY: dropped before `local`.
    drop(unsafe { fiberback::run_unchecked(|| local.len()) });
}
