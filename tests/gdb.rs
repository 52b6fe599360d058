//! `tools/fiberback-gdb.py` shows gdb what fibers there are, and their stacks.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/needs.rs"]
mod needs;

use fiberback::{Builder, Run, await_};
use needs::{Suite, tests};
use std::future::pending;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll, Waker};

const IN_GDB: &str = "FIBERBACK_TEST_IN_GDB";

#[inline(never)]
fn reads_a_page() {
    std::hint::black_box(());
    await_(pending::<()>());
    std::hint::black_box(());
}

#[inline(never)]
fn writes_a_page() {
    std::hint::black_box(());
    reads_a_page();
    std::hint::black_box(());
}

/// What gdb looks at.
fn three_fibers() {
    fn named<T>(name: &str, f: impl FnOnce() -> T + 'static) -> Run<T> {
        Builder::new().name(name).run(f).unwrap()
    }
    fn poll<T>(run: &mut Run<T>) -> Poll<T> {
        std::pin::Pin::new(run).poll(&mut Context::from_waker(Waker::noop()))
    }
    let mut reader = named("the reader", reads_a_page);
    let mut writer = named("the writer", writes_a_page);
    assert!(poll(&mut reader).is_pending() && poll(&mut writer).is_pending());
    let _begun_later = named("the late one", reads_a_page);
    let mut runs = named("the one that runs", || {
        // SAFETY: no preconditions. gdb stops here.
        unsafe { libc::raise(libc::SIGUSR1) };
        "went on in order"
    });
    match poll(&mut runs) {
        Poll::Ready(text) => println!("{text}"),
        Poll::Pending => unreachable!("it does not wait"),
    }
}

fn gdb(commands: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/fiberback-gdb.py");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    for command in [&["run", &format!("source {script}")], commands].concat() {
        gdb.args(["-ex", command]);
    }
    gdb.arg("--args").arg(std::env::current_exe().unwrap());
    let output = gdb.env(IN_GDB, "1").output().unwrap();
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// gdb is there, knows Python, and may trace.
fn find() -> Result<(), String> {
    let text = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "run", "-ex", "python print('has', 'python')"])
        .args(["--args", "true"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .map_err(|error| format!("gdb: {error}"))?;
    if text.contains("exited normally") && text.contains("has python") { Ok(()) } else { Err(text) }
}

fn lists_them_with_name_and_state() {
    let text = gdb(&["info fibers"]);
    let has = |state: &str, name: &str| {
        text.lines().any(|line| line.contains(state) && line.contains(&format!(" {name} ")))
    };
    assert!(has("suspended", "the reader") && has("suspended", "the writer"), "{text}");
    assert!(has("not begun", "the late one") && has("running", "the one that runs"), "{text}");
}

fn shows_the_stack_of_each_suspended_one() {
    let text = gdb(&["fiber apply all bt"]);
    let (before, writers) = text.split_once("(the writer):").expect(&text);
    let (_, readers) = before.split_once("(the reader):").expect(&text);
    assert!(readers.contains("reads_a_page") && !readers.contains("writes_a_page"), "{text}");
    let (lower, higher) = (writers.find("reads_a_page"), writers.find("writes_a_page"));
    assert!(lower.is_some() && lower < higher, "{text}");
    assert!(!text.contains("late one"), "{text}");
    assert!(readers.contains("switch.rs") && !readers.contains("?? ()"), "up to the root: {text}");
}

fn selects_one_and_goes_back() {
    let text = gdb(&[
        "fiber 2",
        "bt 24",
        "echo back:\\n",
        "fiber back",
        "bt 3",
        "handle SIGUSR1 nopass",
        "continue",
    ]);
    let (on_it, back) = text.split_once("\nback:").expect(&text);
    assert!(on_it.contains("[Fiber 2, ") && on_it.contains("reads_a_page"), "{text}");
    assert!(back.contains("raise") || back.contains("kill"), "{text}");
    assert!(!back.contains("reads_a_page"), "{text}");
    // The registers are what they were.
    assert!(text.contains("went on in order") && text.contains("exited normally"), "{text}");
}

fn says_what_to_type() {
    let text = gdb(&["fiber 99", "fiber back", "fiber 3"]);
    assert!(text.contains("fiber N, with N from 1 to 4 (`info fibers`)"), "{text}");
    assert!(text.contains("own stack is selected already"), "{text}");
    assert!(text.contains("only a suspended one"), "{text}");
}

fn main() -> ExitCode {
    if std::env::var_os(IN_GDB).is_some() {
        three_fibers();
        return ExitCode::SUCCESS;
    }
    let mut suite = Suite::new("gdb", find(), "FIBERBACK_REQUIRE_GDB");
    tests!(suite.needing:
        lists_them_with_name_and_state,
        shows_the_stack_of_each_suspended_one,
        selects_one_and_goes_back,
        says_what_to_type,
    );
    suite.run()
}
