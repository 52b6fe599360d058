//! The arrows between the layers, and where `unsafe` may be.

#[path = "support/imports.rs"]
mod imports;

use imports::{Sources, circle};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            out.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn all() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"), &mut out);
    assert!(out.len() > 15, "sources not found");
    out
}

/// The code of a file: no comments, and nothing from `#[cfg(test)]` on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| !line.trim().starts_with("#[cfg(test)]"))
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

fn layer(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// Lower layers first; each may name only those before it.
const LAYERS: [&str; 4] = ["fiber", "ambient", "bridge", "adapters"];

#[test]
fn arrows_run_down_only() {
    for (file, text) in all() {
        let Some(own) = LAYERS.iter().position(|&name| name == layer(&file)) else { continue };
        for (number, line) in code(&text) {
            for above in &LAYERS[own + 1..] {
                // `super::ambient` in `fiber/` is the trait's own file.
                assert!(
                    !line.contains(&format!("crate::{above}"))
                        && !line.contains(&format!("use crate::{{{above}")),
                    "src/{file}:{number}: {} must not name {above}: {line}",
                    LAYERS[own]
                );
            }
            // What `lib.rs` re-exports from above is no way around.
            if own < 2 {
                for name in ["crate::run", "crate::await_", "crate::try_await", "crate::Builder"] {
                    assert!(!line.contains(name), "src/{file}:{number}: {line}");
                }
            }
        }
    }
}

#[test]
fn the_fiber_layer_knows_no_futures_and_nobody_knows_python() {
    for (file, text) in all() {
        for (number, line) in code(&text) {
            let words: Vec<_> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if layer(&file) == "fiber" {
                for word in ["Future", "Waker", "Poll", "Context", "tokio"] {
                    assert!(!words.contains(&word), "src/{file}:{number}: {line}");
                }
            }
            // `error.rs` mentions it in what it tells the user to type.
            if !["adapters", "lib", "error"].contains(&layer(&file)) {
                assert!(!line.contains("tokio::"), "src/{file}:{number}: {line}");
            }
            for word in ["pyo3", "PyObject", "PyThreadState"] {
                assert!(!words.contains(&word), "src/{file}:{number}: {line}");
            }
        }
    }
}

#[test]
fn no_circle_of_files() {
    let arrows = Sources::read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")).arrows();
    // The reader of imports sees what it must.
    for (from, to) in [
        ("fiber/switch.rs", "fiber/current.rs"),
        ("bridge/await_.rs", "bridge/waiter.rs"),
        ("adapters/stream/producer.rs", "bridge/run.rs"),
    ] {
        assert!(arrows[from].contains(to), "src/{from} names something of src/{to}: {arrows:?}");
    }
    if let Some(files) = circle(&arrows) {
        panic!(
            "these files of src/ import each other in a circle: {}. Move what both sides need into a \
             file of its own below them, named after that one thing",
            files.join(" -> ")
        );
    }
}

/// The rooms of the native module, lowest first: what a file may name lies in its own room or in one above it
/// here. `lib.rs`, which lists what the module exports, names all.
const NATIVE: &[(&str, &[&str])] = &[
    (
        "what every room stands on",
        &[
            "messages",
            "error",
            "barrier",
            "names",
            "notices",
            "arguments",
            "no_collections",
            "lines",
            "since",
            "position",
            "hook",
            "modules",
            "type_tables",
        ],
    ),
    (
        "coroutines as the interpreter has them, and what of asyncio we must know",
        &["coroutine_methods", "delegate", "asyncio_future", "current_loop", "thrown"],
    ),
    ("the interpreter: what of PyThreadState belongs to a C stack", &["interp"]),
    ("what is counted", &["leaks", "fallbacks"]),
    ("stacks", &["needs", "stacks", "side_stack"]),
    (
        "fibers, and the threads that have them",
        &["mailbox", "switch_call", "owner", "worker", "roster", "thread"],
    ),
    ("one step of what is awaited", &["step"]),
    (
        "waits: of a portal, of a whole stack, of a greenlet",
        &[
            "awaitable",
            "no_portal",
            "task_waits",
            "usable_portal",
            "wait_here",
            "parking",
            "greenlet",
            "guest",
            "guest_await",
        ],
    ),
    (
        "what a task and await_ are made of",
        &["call", "portal", "task_scopes", "current_task", "scope", "await_", "hooks"],
    ),
    (
        "what the module exports, and tasks and loops of others",
        &[
            "backends",
            "c_api",
            "close_all",
            "ended",
            "greenlet_api",
            "lend",
            "on_portal",
            "masked",
            "other_threads",
            "own_stack",
            "signal_pipe",
            "stack_memory",
            "thread_exit",
        ],
    ),
];

fn native_room(file: &str) -> Option<usize> {
    let name = file.split(['/', '.']).next().unwrap();
    NATIVE.iter().position(|(_, files)| files.contains(&name))
}

fn native_arrows() -> BTreeMap<String, std::collections::BTreeSet<String>> {
    let mut arrows =
        Sources::read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pyext/src")).arrows();
    arrows.remove("lib.rs");
    arrows
}

#[test]
fn arrows_of_the_native_module_run_up_its_list() {
    let arrows = native_arrows();
    for (from, to) in [
        ("await_.rs", "worker.rs"),
        ("interp/mod.rs", "interp/cp311.rs"),
        ("interp/level.rs", "interp/cp315.rs"),
        ("interp/level.rs", "interp/instrumentation.rs"),
        ("interp/level.rs", "interp/uninstrumented.rs"),
    ] {
        assert!(arrows[from].contains(to), "pyext/src/{from} names something of {to}: {arrows:?}");
    }
    let mut wrong = Vec::new();
    for (file, targets) in arrows {
        let own = native_room(&file).unwrap_or_else(|| {
            panic!("pyext/src/{file} is in no room of tests/layering.rs: say what it stands on")
        });
        for target in targets {
            let Some(other) = native_room(&target) else { continue };
            if other > own {
                wrong.push(format!(
                    "pyext/src/{file} ({}) names something of pyext/src/{target}, which stands on it ({}). \
                     The line belongs there, or what both need in a file of its own in the lower room",
                    NATIVE[own].0, NATIVE[other].0,
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_circle_of_native_files() {
    if let Some(files) = circle(&native_arrows()) {
        panic!(
            "these files of pyext/src/ import each other in a circle: {}. Move what both sides need into a \
             file of its own below them, named after that one thing",
            files.join(" -> ")
        );
    }
}

#[test]
fn a_circle_would_be_found() {
    let arrow = |from: &str, to: &str| (from.to_owned(), [to.to_owned()].into());
    let arrows = [arrow("a", "b"), arrow("b", "c"), arrow("c", "b")].into();
    assert_eq!(circle(&arrows).unwrap(), ["b", "c"]);
    let arrows = [arrow("a", "b"), arrow("b", "c"), arrow("d", "b")].into();
    assert_eq!(circle(&arrows), None);
}

/// The modules that opt in to `unsafe`. A new one belongs here only with an invariant of its own.
const UNSAFE: &[&str] = &[
    "adapters/loader_lock.rs",
    "adapters/tokio/fork.rs",
    "bridge/await_.rs",
    "bridge/concurrent.rs",
    "bridge/group.rs",
    "bridge/run.rs",
    "bridge/scope.rs",
    "bridge/waiter.rs",
    "fiber/current.rs",
    "fiber/depot.rs",
    "fiber/header.rs",
    "fiber/memory/guard.rs",
    "fiber/memory/linux.rs",
    "fiber/memory/mapping.rs",
    "fiber/memory/portable.rs",
    "fiber/memory/probe.rs",
    "fiber/memory/registry.rs",
    "fiber/overflow.rs",
    "fiber/overflow_windows.rs",
    "fiber/cannot_unwind.rs",
    "fiber/coarse_clock.rs",
    "fiber/pool.rs",
    "fiber/report.rs",
    "fiber/roster.rs",
    "fiber/stack.rs",
    "fiber/stack_pointer.rs",
    "fiber/switch.rs",
    "fiber/walk.rs",
    "fiber/warm.rs",
];

#[test]
fn unsafe_is_where_it_is_listed() {
    let sources = all();
    assert!(sources["lib.rs"].contains("#![deny(unsafe_code)]"));
    let allowed: Vec<_> = sources
        .iter()
        .filter(|(_, text)| text.contains("allow(unsafe_code)"))
        .map(|(file, _)| file.as_str())
        .collect();
    let unlisted: Vec<_> = allowed.iter().filter(|file| !UNSAFE.contains(file)).collect();
    assert!(unlisted.is_empty(), "not in the list of tests/layering.rs: {unlisted:?}");
    for file in UNSAFE {
        assert!(allowed.contains(file), "{file} needs no unsafe any more: shorten the list");
    }
}

/// What clippy's `undocumented_unsafe_blocks` cannot see: that the words after `SAFETY:` are there.
#[test]
fn every_unsafe_block_is_argued() {
    for (file, text) in all() {
        let lines: Vec<_> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let bare = line.split("//").next().unwrap_or_default();
            if !bare.contains("unsafe {") && !bare.contains("unsafe impl") {
                continue;
            }
            let argued = lines[index.saturating_sub(16)..=index].iter().any(|line| {
                line.split("SAFETY:").nth(1).is_some_and(|words| words.trim().len() > 3)
            });
            assert!(argued, "src/{file}:{}: no argument: {line}", index + 1);
        }
    }
}
