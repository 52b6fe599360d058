//! What may cross threads, and what the compiler must refuse.

use fiberback::fiber::{Fiber, PoolStats, Stack, StackPoolBuilder, Suspender};
use fiberback::{AwaitError, Builder, Remote, Run, Scope, ScopedJoinHandle, StackError, StackPool};
use std::fs;
use std::path::Path;
use std::process::Command;

/// `yes!(Type: Trait)` and `no!(Type: Trait)`, at compile time.
macro_rules! yes {
    ($type:ty: $($bound:tt)+) => {
        const _: fn() = || {
            fn check<T: ?Sized + $($bound)+>() {}
            check::<$type>();
        };
    };
}

/// Ambiguous, hence an error, if the type does implement the trait.
macro_rules! no {
    ($type:ty: $bound:path) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Implements;
            impl<T: ?Sized + $bound> Ambiguous<Implements> for T {}
            <$type as Ambiguous<_>>::check();
        };
    };
}

no!(Run<()>: Send);
no!(Run<()>: Sync);
yes!(Run<*const ()>: Unpin);
no!(Scope<'static, 'static>: Send);
no!(Scope<'static, 'static>: Sync);
no!(ScopedJoinHandle<'static, ()>: Send);
no!(ScopedJoinHandle<'static, ()>: Sync);
no!(Fiber<(), (), ()>: Send);
no!(Fiber<(), (), ()>: Sync);
no!(Suspender<(), ()>: Send);
no!(Suspender<(), ()>: Sync);
no!(Suspender<(), ()>: Clone);
no!(Stack: Send);
no!(Stack: Sync);
no!(Stack: Clone);
yes!(StackPool: Send + Sync + Clone + Unpin);
yes!(StackPoolBuilder: Send + Sync + Clone);
yes!(PoolStats: Send + Sync + Copy);
yes!(Remote: Send + Sync + Clone + Unpin + 'static);
yes!(Builder: Send + Sync + Clone);
yes!(StackError: Send + Sync + std::error::Error + 'static);
yes!(AwaitError: Send + Sync + Copy + Eq + std::hash::Hash + std::error::Error + 'static);

#[test]
fn sizes_stay_small() {
    assert!(size_of::<Run<[u8; 4096]>>() <= 64);
    assert_eq!(size_of::<Fiber<(), (), ()>>(), size_of::<usize>());
    assert!(size_of::<Result<Run<()>, StackError>>() <= size_of::<Run<()>>() + size_of::<usize>());
    assert!(size_of::<AwaitError>() <= 2);
}

/// Each file of `tests/ui` names, in a `//~` line, the error code (`error` for none) and words that it must fail with;
/// `control.rs` must compile.
#[test]
fn the_compiler_refuses_what_is_unsound() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut refused = 0;
    for entry in fs::read_dir(ui).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        let (compiled, messages) = compile(&path);
        match source.lines().find_map(|line| line.strip_prefix("//~ ")) {
            Some(expected) => {
                let (code, words) = expected.split_once(' ').unwrap();
                assert!(!compiled, "{path:?} compiles");
                assert!(messages.contains(words), "{path:?}: {messages}");
                refused += 1;
                if code == "error" {
                    // Without a code; the words come first, before those of internals.
                    let first = messages.split("\nerror").next().unwrap();
                    assert!(first.contains(words), "{path:?}: {messages}");
                    continue;
                }
                assert!(messages.contains(&format!("error[{code}]")), "{path:?}: {messages}");
                let codes = messages.matches("error[E").count();
                assert_eq!(
                    messages.matches(&format!("error[{code}]")).count(),
                    codes,
                    "{messages}"
                );
            }
            None => assert!(compiled, "{path:?}: {messages}"),
        }
    }
    assert!(refused >= 11);
}

/// Checks one program against the library that this test was linked with, or its latest sibling.
fn compile(program: &Path) -> (bool, String) {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let library = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("libfiberback-") && name.ends_with(".rlib")
        })
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap())
        .expect("cargo has built the library");
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--emit=metadata", "-o", "-", "--crate-type=bin"])
        .arg("--extern")
        .arg(format!("fiberback={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg(program)
        .stdout(std::process::Stdio::null())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}
