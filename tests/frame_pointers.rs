//! Whoever follows frame pointers (`perf record -g`, eBPF, PEP 831) goes from a fiber's frames on into those of
//! whoever resumed it, down to the thread's first, and ends. Builds a program with frame pointers in `target/`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/needs.rs"]
mod needs;
#[path = "support/program.rs"]
mod program;
#[path = "support/mod.rs"]
mod support;

use needs::{Suite, tests};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

const MAIN: &str = r##"
use std::cell::Cell;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Where the frame of the function that calls this is.
macro_rules! frame {
    () => {{
        let frame: usize;
        unsafe { std::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) };
        frame
    }};
}

thread_local! {
    /// Frames of functions below, outermost first.
    static FRAMES: Cell<[usize; 4]> = const { Cell::new([0; 4]) };
}

fn note(n: usize, frame: usize) {
    let mut frames = FRAMES.get();
    frames[n] = frame;
    FRAMES.set(frames);
}

/// Follows the chain up to the frame of `outermost`. True if it passes through all that were noted.
#[inline(never)]
fn walk() -> bool {
    let mut noted = FRAMES.get().to_vec();
    let mut seen = Vec::new();
    let mut frame = frame!();
    while noted.len() > 0 {
        assert!(!seen.contains(&frame), "a circle");
        seen.push(frame);
        if frame == *noted.last().unwrap() {
            noted.pop();
        }
        if noted.is_empty() {
            break;
        }
        assert!(frame != 0 && frame % 8 == 0, "ends at {frame:x}, before {noted:x?}; was at {seen:x?}");
        // SAFETY: a frame's first word is where the next one is.
        frame = unsafe { *(frame as *const usize) };
    }
    println!("{} frames", seen.len());
    true
}

fn yields() {
    let mut pending = true;
    fiberback::await_(std::future::poll_fn(move |context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut pending) { Poll::Pending } else { Poll::Ready(()) }
    }));
}

#[inline(never)]
fn innermost() {
    note(3, frame!());
    assert!(walk());
    yields(); // and then resumed from elsewhere
    note(3, frame!());
    assert!(black_box(walk()));
}

/// Its fiber resumes another one, that of `innermost`.
#[inline(never)]
fn on_the_outer_fiber() {
    note(2, frame!());
    fiberback::scope(|s| drop(s.spawn(innermost)));
    black_box(());
}

#[inline(never)]
fn spins_on_a_fiber() {
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(600) {
        for n in 0..10_000 {
            black_box(n);
        }
    }
    black_box(());
}

#[inline(never)]
fn resumes_it() {
    note(1, frame!());
    let spins = std::env::args().count() > 1;
    let mut context = Context::from_waker(Waker::noop());
    let mut run = pin!(fiberback::run(move || if spins { spins_on_a_fiber() } else { single() }));
    while run.as_mut().poll(&mut context).is_pending() {}
    black_box(());
}

#[inline(never)]
fn single() {
    note(2, frame!());
    innermost();
    black_box(());
}

#[inline(never)]
fn resumes_nested() {
    note(1, frame!());
    let mut context = Context::from_waker(Waker::noop());
    let mut run = pin!(fiberback::run(on_the_outer_fiber));
    while run.as_mut().poll(&mut context).is_pending() {}
    black_box(());
}

fn main() {
    note(0, frame!());
    resumes_it();
    resumes_nested();
    black_box(());
}
"##;

/// The program, built once.
fn built() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        program::build("frame-pointers", "debug = 0", "-Cforce-frame-pointers=yes", MAIN)
    })
}

fn piped(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = support::text(&output);
    assert!(output.status.success(), "{text}");
    text
}

fn the_chain_goes_on_into_the_resumer_and_never_loops() {
    let text = piped(&mut Command::new(built()));
    // Before and after a suspension, on a fiber and on one that another resumes.
    assert_eq!(text.matches(" frames").count(), 4, "{text}");
}

fn perf_sees_who_resumed_a_fiber() {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frame-pointers/perf.data");
    let mut record = Command::new("perf");
    record.args(["record", "--quiet", "--call-graph", "fp", "--freq", "499", "--output"]);
    piped(record.arg(&data).arg(built()).arg("spin"));
    let mut script = Command::new("perf");
    let text = piped(script.args(["script", "--fields", "ip,sym", "--input"]).arg(&data));
    // One paragraph for each sample, innermost first.
    let spins: Vec<_> =
        text.split("\n\n").filter(|sample| sample.contains("spins_on_a_fiber")).collect();
    let whole = spins.iter().filter(|sample| {
        let place = |name: &str| sample.find(name);
        let (inner, outer) = (place("spins_on_a_fiber"), place("resumes_it"));
        let first = place("frame_pointers::main");
        inner < outer && outer < first && sample.matches("spins_on_a_fiber").count() == 1
    });
    // A sample between two instructions that make a frame lacks its caller.
    let whole = whole.count();
    assert!(
        !spins.is_empty() && whole * 10 >= spins.len() * 9,
        "{whole} of {}: {text}",
        spins.len()
    );
}

/// perf is there, and may sample.
fn find() -> Result<(), String> {
    let output = Command::new("perf")
        .args(["record", "--quiet", "--output", "/dev/null", "--", "true"])
        .output()
        .map_err(|error| format!("perf: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(support::text(&output)) }
}

fn main() -> ExitCode {
    let mut suite = Suite::new("perf", find(), "FIBERBACK_REQUIRE_PERF");
    tests!(suite.free: the_chain_goes_on_into_the_resumer_and_never_loops);
    tests!(suite.needing: perf_sees_who_resumed_a_fiber);
    suite.run()
}
