//! Which functions and lines addresses of code belong to.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Arc;

/// A call on a stack.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) address: usize,
    pub(super) function: Option<String>,
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<u32>,
}

/// Looks each address up once: thousands of fibers wait in few places.
#[derive(Default)]
pub(super) struct Symbols {
    /// Innermost first: what the compiler has inlined is one address with its callers.
    known: HashMap<usize, Vec<Arc<Call>>>,
}

impl Symbols {
    /// The calls of the fiber's own code on a stack, innermost first, without the frames that make it wait and
    /// those that have called it.
    pub(super) fn own_calls(&mut self, returns_to: &[usize]) -> Vec<Arc<Call>> {
        let mut calls = Vec::with_capacity(returns_to.len());
        for &address in returns_to {
            calls.extend_from_slice(self.calls(address));
        }
        calls.truncate(calls.len() - ours_first(calls.iter().rev()));
        let called = calls.iter().rev().take_while(|call| call.is_of_std()).count();
        calls.truncate(calls.len() - called);
        calls.drain(..ours_first(calls.iter()));
        calls
    }

    fn calls(&mut self, address: usize) -> &[Arc<Call>] {
        self.known.entry(address).or_insert_with(|| look_up(address))
    }
}

fn look_up(address: usize) -> Vec<Arc<Call>> {
    let mut calls = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut::<c_void>(address), |symbol| {
        calls.push(Arc::new(Call {
            address,
            // Without the hash.
            function: symbol.name().map(|name| format!("{name:#}")),
            file: symbol.filename().map(PathBuf::from),
            line: symbol.lineno(),
        }));
    });
    if calls.is_empty() {
        calls.push(Arc::new(Call { address, function: None, file: None, line: None }));
    }
    calls
}

/// How many calls there are up to the last of ours at the beginning: what calls us, or we, may be the standard
/// library's.
fn ours_first<'a>(calls: impl Iterator<Item = &'a Arc<Call>>) -> usize {
    let of_nobody =
        calls.take_while(|call| call.is_ours() || call.is_of_std() || call.function.is_none());
    of_nobody.enumerate().filter(|(_, call)| call.is_ours()).last().map_or(0, |(n, _)| n + 1)
}

/// Where the sources of this crate are, in debugging information.
const OUR_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

impl Call {
    /// By its name, if that has its path; in debugging information it may have none, but there is a file.
    fn is_ours(&self) -> bool {
        self.is_of_crate(&["fiberback", "corosensei", "backtrace"])
            // Its first frame, which is written in assembly.
            || self.function.as_deref() == Some("stack_init_trampoline")
            || self.is_in(|file| {
                file.starts_with(OUR_FOLDER)
                    || file.contains("/corosensei-0.")
                    || file.contains("/backtrace-0.")
            })
    }

    fn is_of_std(&self) -> bool {
        self.is_of_crate(&["std", "core", "alloc"])
            || self.function.as_deref() == Some("__rust_try")
            || self.is_in(|file| file.starts_with("/rustc/") || file.contains("/library/core/src/"))
    }

    fn is_of_crate(&self, crates: &[&str]) -> bool {
        // `<fiberback::Type as Trait>::method`
        let name = self.function.as_deref().unwrap_or_default().trim_start_matches('<');
        let begins =
            |krate: &&str| name.strip_prefix(*krate).is_some_and(|rest| rest.starts_with("::"));
        crates.iter().any(begins)
    }

    fn is_in(&self, is: impl FnOnce(&str) -> bool) -> bool {
        self.file.as_deref().and_then(|file| file.to_str()).is_some_and(is)
    }
}
