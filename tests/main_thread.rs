//! What must be tried on the main thread, which no test of the usual harness runs on: an overflow.
//! Without a harness; the program runs itself.

mod support;

use std::hint::black_box;

#[allow(unconditional_recursion)]
#[inline(never)]
fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 32]);
    recurse(n + 1) + black_box(frame)[7]
}

fn main() {
    if !cfg!(any(target_os = "linux", windows)) {
        return;
    }
    if support::is_child("main") {
        let main = fiberback::Builder::new().name("on main").stack_size(192 << 10);
        let _ = support::poll_once(&mut main.run(|| recurse(0)).unwrap());
        return;
    }
    // Like every test binary, this one is asked for its list, and is given filters.
    if std::env::args().any(|argument| argument == "--list") {
        return println!("on_the_main_thread: test");
    }
    let output = support::run_child("on_the_main_thread", "main");
    let text = support::text(&output);
    #[cfg(unix)]
    assert_eq!(support::signal(&output), Some(6), "{text}");
    assert!(text.contains("fiberback: stack overflow: the fiber 'on main'"), "{text}");
    assert!(text.contains(" 192 KiB"), "{text}");
    println!("test on_the_main_thread ... ok");
}
