//! Another thread cannot suspend this one's fiber.
//~ E0277 cannot be shared between threads safely

use fiberback::fiber::{Fiber, StackPool, Suspender};

fn main() {
    let stack = StackPool::global().take().unwrap();
    let mut fiber = Fiber::new(stack, |suspender: &Suspender<(), ()>, ()| {
        std::thread::scope(|scope| {
            scope.spawn(|| suspender.suspend(()));
        });
    });
    fiber.resume(());
}
