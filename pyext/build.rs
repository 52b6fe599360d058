//! Compiles `src/interp/layout.c` against the headers of the interpreter that we build for, and
//! turns the facts in it into Rust constants.
//!
//! The table is read out of the *object file*, so nothing is run and cross-compiling works: the
//! build only needs a C compiler for the target and the target interpreter's headers.
//!
//! For the CPythons and the C library that need it, also compiles `src/thread_exit.c` and links it in.
//!
//! The headers are those of the interpreter that PyO3 found. Where that cannot be asked (cross
//! builds with `PYO3_CONFIG_FILE`), `FIBERBACK_PYTHON_INCLUDE` names the directory that holds
//! `Python.h`; several directories are separated as in `PATH`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

/// Versions that have a file in `src/interp/`, and hence a value of `cfg(cpython = "…")`.
const VERSIONS: [&str; 5] = ["3.11", "3.12", "3.13", "3.14", "3.15"];
const MAGIC: &[u8; 16] = b"fiberback-facts\0";
const COUNT_MARK: u64 = 0x0102_0304_0506_0708;
const NAME_BYTES: usize = 48;
const MAX_FACTS: usize = 128;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/interp/layout.c");
    println!("cargo::rerun-if-changed=src/thread_exit.c");
    println!("cargo::rerun-if-env-changed=FIBERBACK_PYTHON_INCLUDE");

    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_extension_module_link_args();

    let known = VERSIONS.map(|version| format!("\"{version}\"")).join(", ");
    println!("cargo::rustc-check-cfg=cfg(cpython, values({known}))");

    let config = pyo3_build_config::get();
    let version = config.version().to_string();
    assert!(
        VERSIONS.contains(&version.as_str()),
        "fiberback has no interpreter file for CPython {version}, only for {}; \
         see src/interp/README.md, \"Adding a CPython version\"",
        VERSIONS.join(", ")
    );
    println!("cargo::rustc-cfg=cpython=\"{version}\"");

    println!("cargo::rustc-check-cfg=cfg(forced_unwinding)");
    let gnu = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if gnu && ["3.11", "3.12", "3.13"].contains(&version.as_str()) {
        link_thread_exit(&include_dirs(config));
    }

    let facts = read_facts(&compile_layout(&include_dirs(config)));
    let built = facts.iter().find(|(name, _)| name == "BUILT_VERSION_HEX").map(|(_, hex)| *hex);
    let built = built.expect("layout.c always states its version");
    let built = format!("{}.{}", built >> 24, (built >> 16) & 0xff);
    assert_eq!(built, version, "the headers found are not those of the interpreter PyO3 found");

    let mut source = String::new();
    for (name, value) in facts {
        writeln!(source, "pub(crate) const {name}: isize = {value};").unwrap();
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("facts.rs");
    fs::write(out, source).expect("OUT_DIR is writable");
}

fn include_dirs(config: &pyo3_build_config::InterpreterConfig) -> Vec<PathBuf> {
    if let Some(dirs) = env::var_os("FIBERBACK_PYTHON_INCLUDE") {
        return env::split_paths(&dirs).collect();
    }
    let script = "import sysconfig; p = sysconfig.get_paths(); \
                  print(p['include']); print(p['platinclude'])";
    let printed = config.run_python_script(script).unwrap_or_else(|error| {
        panic!(
            "cannot ask the interpreter where its headers are ({error}); \
             set FIBERBACK_PYTHON_INCLUDE to the directory that holds Python.h"
        )
    });
    printed.lines().map(PathBuf::from).collect()
}

/// A build of a C file that includes the interpreter's headers.
fn with_headers(file: &str, include_dirs: &[PathBuf]) -> cc::Build {
    let mut build = cc::Build::new();
    build.file(file).warnings(false).pic(true);
    // Cargo's profile may ask for link-time optimisation, whose objects hold no plain data, and no
    // symbols for the linker to wrap.
    build.flag_if_supported("-fno-lto");
    for dir in include_dirs {
        // `-idirafter`: a chroot's /usr/include must not shadow the compiler's own headers.
        for dir in [dir.clone(), dir.join("internal"), dir.join("internal/mimalloc")] {
            build.flag("-idirafter").flag(&dir);
        }
        println!("cargo::rerun-if-changed={}", dir.join("Python.h").display());
    }
    build
}

fn link_thread_exit(include_dirs: &[PathBuf]) {
    with_headers("src/thread_exit.c", include_dirs).compile("fiberback_thread_exit");
    println!("cargo::rustc-cfg=forced_unwinding");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--wrap=_Unwind_GetLanguageSpecificData");
}

/// The object file's bytes.
fn compile_layout(include_dirs: &[PathBuf]) -> Vec<u8> {
    let mut build = with_headers("src/interp/layout.c", include_dirs);
    build.cargo_metadata(false);
    let objects = build.compile_intermediates();
    let object = objects.first().expect("one source file gives one object");
    fs::read(object).expect("the object file was just written")
}

fn read_facts(object: &[u8]) -> Vec<(String, i64)> {
    let little = env::var("CARGO_CFG_TARGET_ENDIAN").unwrap() == "little";
    let word = |at: usize| -> Option<u64> {
        let bytes: [u8; 8] = object.get(at..at + 8)?.try_into().ok()?;
        Some(if little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    };
    let start = (0..object.len())
        .find(|&at| object[at..].starts_with(MAGIC) && word(at + 16) == Some(COUNT_MARK))
        .expect("layout.c's table is not in its object file");
    let facts_start = start + MAGIC.len() + 8;
    let mut facts = Vec::new();
    for index in 0..MAX_FACTS {
        let at = facts_start + index * (NAME_BYTES + 8);
        let name = &object[at..at + NAME_BYTES];
        let length = name.iter().position(|&byte| byte == 0).expect("names end in a zero byte");
        if length == 0 {
            break;
        }
        let name = String::from_utf8(name[..length].to_vec()).expect("names are ASCII");
        facts.push((name, word(at + NAME_BYTES).expect("the table is complete") as i64));
    }
    facts
}
