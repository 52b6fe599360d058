//! A fiber stays on the thread that resumed it.
//~ E0277 cannot be sent between threads safely

use fiberback::fiber::{Fiber, StackPool, Suspender};

fn main() {
    let stack = StackPool::global().take().unwrap();
    let fiber = Fiber::new(stack, |_: &Suspender<(), ()>, ()| ());
    std::thread::spawn(move || drop(fiber));
}
