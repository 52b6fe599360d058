//! Compiles `src/interp/layout.c` against the headers of the interpreter that we build for, and
//! turns the facts in it into Rust constants. For the CPythons and the C library that need it, also
//! compiles `src/thread_exit.c` and links it in.
//!
//! * `refusals.rs`: interpreters that the native module is not for, and what to do there.
//! * `headers.rs`: where the target's headers are, whether they are the target's, and the C compiler.
//! * `facts.rs`: the table in the object file.

mod facts;
mod headers;
mod refusals;

use headers::Headers;

/// Versions that have a file in `src/interp/`, and hence a value of `cfg(cpython = "…")`.
const VERSIONS: [&str; 5] = ["3.11", "3.12", "3.13", "3.14", "3.15"];

fn main() {
    for file in ["build", "src/interp/layout.c", "src/thread_exit.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_extension_module_link_args();
    let known = VERSIONS.map(|version| format!("\"{version}\"")).join(", ");
    println!("cargo::rustc-check-cfg=cfg(cpython, values({known}))");
    println!("cargo::rustc-check-cfg=cfg(forced_unwinding)");

    let config = pyo3_build_config::get();
    refusals::check(config);
    let version = config.version().to_string();
    println!("cargo::rustc-cfg=cpython=\"{version}\"");

    let headers = Headers::of(config);
    facts::write(&facts::read(&headers.object("src/interp/layout.c")));
    let gnu = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if gnu && ["3.11", "3.12", "3.13"].contains(&version.as_str()) {
        headers.compile("src/thread_exit.c").compile("fiberback_thread_exit");
        println!("cargo::rustc-cfg=forced_unwinding");
        println!("cargo::rustc-cdylib-link-arg=-Wl,--wrap=_Unwind_GetLanguageSpecificData");
    }
}

/// Ends the build with this one sentence, not with the backtrace of a panic.
fn stop(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
