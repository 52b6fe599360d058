//! Interpreters that the native module is not for. pip comes here wherever no wheel fits, so each refusal
//! says what to install instead.

use crate::{VERSIONS, stop};
use pyo3_build_config::{InterpreterConfig, PythonImplementation};

/// Set to `free-threaded` to compile for a free-threaded build nevertheless: that the code stays
/// compilable is checked so (`.ci/cross-check`). What comes out refuses to be imported.
const CHECK_ONLY: &str = "FIBERBACK_CHECK_BUILD";

const INSTEAD: &str = "portals without native code are in the wheel for any Python: \
                       pip install --only-binary :all: fiberback";

pub(crate) fn check(config: &InterpreterConfig) {
    println!("cargo::rerun-if-env-changed={CHECK_ONLY}");
    let version = config.version().to_string();
    if config.implementation() != PythonImplementation::CPython {
        stop(&format!(
            "fiberback's native module is for CPython, and this is {} {version}; {INSTEAD}",
            config.implementation()
        ));
    }
    if !VERSIONS.contains(&version.as_str()) {
        stop(&format!(
            "this fiberback's native module is for CPython {}, and this is {version}: each version has \
             a file of its own (src/interp/README.md, \"Adding a CPython version\"); install a newer \
             fiberback or one of these CPythons, or: {INSTEAD}",
            VERSIONS.join(", ")
        ));
    }
    let check_only = std::env::var(CHECK_ONLY).is_ok_and(|what| what == "free-threaded");
    if config.is_free_threaded() && !check_only {
        stop(&format!(
            "fiberback's native module is not for free-threaded builds of CPython (suspended fibers would \
             hide references from their garbage collector): use python{version} instead of \
             python{version}t; {INSTEAD}"
        ));
    }
}
