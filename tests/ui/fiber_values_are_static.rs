//! A leaked fiber keeps what it was given for ever.
//~ E0597 does not live long enough

use fiberback::fiber::{Fiber, StackPool, Suspender};

fn main() {
    let stack = StackPool::global().take().unwrap();
    let mut fiber = Fiber::new(stack, |_: &Suspender<&str, ()>, text| text.len());
    let local = String::from("borrowed");
    fiber.resume(&local);
}
