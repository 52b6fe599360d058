//! A harness for tests that need a server which a machine may lack: there they are reported as
//! ignored, each with what it needs, and never as passed.
//!
//! Included by path, by test files with `harness = false`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::future::Future;
use std::process::ExitCode;

/// A test file's tests, some of which need `server`.
pub(crate) struct Suite {
    server: &'static str,
    present: bool,
    trials: Vec<Trial>,
}

impl Suite {
    /// `found` says why the server is not there. With the variable `require` set its tests run all
    /// the same, and fail.
    pub(crate) fn new(server: &'static str, found: Result<(), String>, require: &str) -> Self {
        if let Err(reason) = &found {
            eprintln!("these tests need {server}: {reason}");
        }
        let present = found.is_ok() || std::env::var_os(require).is_some();
        Self { server, present, trials: Vec::new() }
    }

    /// A test that needs no server.
    #[allow(dead_code)] // one of the two files has such tests
    pub(crate) fn free(&mut self, name: &str, test: fn()) {
        self.trials.push(trial(name, test));
    }

    /// A test that needs the server.
    pub(crate) fn needing(&mut self, name: &str, test: fn()) {
        let trial = trial(name, test).with_kind(format!("needs {}", self.server));
        self.trials.push(trial.with_ignored_flag(!self.present));
    }

    /// Runs what the command line asks for.
    pub(crate) fn run(self) -> ExitCode {
        libtest_mimic::run(&Arguments::from_args(), self.trials).exit_code()
    }
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok::<(), Failed>(())
    })
}

/// What `#[tokio::test]` makes of an async function.
#[allow(dead_code)] // one of the files has no such tests
pub(crate) fn current_thread(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// What `#[tokio::test(flavor = "multi_thread")]` makes of one.
#[allow(dead_code)] // one of the two files has such tests
pub(crate) fn multi_thread(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

/// `tests!(suite.needing(current_thread): one, two)`; without a runtime's name for plain functions.
/// A function that no list names is dead code, which is a warning.
macro_rules! tests {
    ($suite:ident.$add:ident: $($test:ident),+ $(,)?) => {
        $($suite.$add(stringify!($test), $test);)+
    };
    ($suite:ident.$add:ident($runtime:ident): $($test:ident),+ $(,)?) => {
        $($suite.$add(stringify!($test), || needs::$runtime($test()));)+
    };
}
pub(crate) use tests;
