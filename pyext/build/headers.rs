//! Where the headers of the target's interpreter are, and whether they are the target's.
//!
//! They are those of the interpreter that PyO3 found. Where that cannot be asked (cross builds with
//! `PYO3_CONFIG_FILE`), `FIBERBACK_PYTHON_INCLUDE` names the directory that holds `Python.h`; several
//! directories are separated as in `PATH`.

use crate::stop;
use pyo3_build_config::InterpreterConfig;
use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "FIBERBACK_PYTHON_INCLUDE";

pub(crate) struct Headers {
    dirs: Vec<PathBuf>,
    version: String,
    free_threaded: bool,
}

impl Headers {
    pub(crate) fn of(config: &InterpreterConfig) -> Headers {
        println!("cargo::rerun-if-env-changed={VARIABLE}");
        let mut dirs = match env::var_os(VARIABLE) {
            Some(dirs) => env::split_paths(&dirs).collect(),
            None => ask(config),
        };
        for dir in dirs.clone() {
            dirs.extend(dir_of_multiarch(&dir));
        }
        let headers = Headers {
            dirs,
            version: config.version().to_string(),
            free_threaded: config.is_free_threaded(),
        };
        headers.check();
        headers
    }

    /// A build of a C file that includes them.
    pub(crate) fn compile(&self, file: &str) -> cc::Build {
        let mut build = cc::Build::new();
        build.file(file).warnings(false).pic(true);
        // Cargo's profile may ask for link-time optimisation, whose objects hold no plain data, and no
        // symbols for the linker to wrap.
        build.flag_if_supported("-fno-lto");
        build.define("FIBERBACK_FREE_THREADED", if self.free_threaded { "1" } else { "0" });
        for dir in &self.dirs {
            // `-idirafter`: a chroot's /usr/include must not shadow the compiler's own headers.
            for dir in [dir.clone(), dir.join("internal"), dir.join("internal/mimalloc")] {
                build.flag("-idirafter").flag(&dir);
            }
        }
        build
    }

    /// The object file's bytes.
    pub(crate) fn object(&self, file: &str) -> Vec<u8> {
        let mut build = self.compile(file);
        build.cargo_metadata(false);
        match build.try_compile_intermediates() {
            Ok(objects) => fs::read(objects.first().expect("one source file gives one object"))
                .expect("the object file was just written"),
            Err(error) => stop(&format!(
                "{file} does not compile with the headers in {} for {}; a C compiler for that target is \
                 needed (CC), and the headers of CPython {} of that target ({VARIABLE}): {}",
                self.names(),
                env::var("TARGET").unwrap_or_default(),
                self.version,
                error.to_string().replace('\n', " ")
            )),
        }
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
        names.join(", ")
    }

    /// Another interpreter's headers would give offsets into other structures. (What only the
    /// preprocessor can tell is checked at the head of `layout.c`.)
    fn check(&self) {
        let version = &self.version;
        for name in ["Python.h", "pyconfig.h", "internal/pycore_frame.h"] {
            if !self.dirs.iter().any(|dir| dir.join(name).is_file()) {
                stop(&format!(
                    "there is no {name} of CPython {version} in {}; install CPython's headers \
                     (Debian, Ubuntu: apt-get install python{version}-dev; Fedora: dnf install \
                     python{version}-devel; Alpine: apk add python3-dev; macOS: brew install \
                     python@{version}), or set {VARIABLE} to the directory that holds them",
                    self.names()
                ));
            }
        }
        for dir in &self.dirs {
            let file = dir.join("patchlevel.h");
            println!("cargo::rerun-if-changed={}", file.display());
            println!("cargo::rerun-if-changed={}", dir.join("pyconfig.h").display());
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let found = format!(
                "{}.{}",
                defined(&text, "PY_MAJOR_VERSION"),
                defined(&text, "PY_MINOR_VERSION")
            );
            if found != *version {
                stop(&format!(
                    "the headers in {} are those of CPython {found}, and the module is built for {version}; \
                     set {VARIABLE} to the directory that holds the headers of {version}",
                    dir.display()
                ));
            }
        }
    }
}

/// What `#define NAME VALUE` gives in a header.
fn defined<'a>(text: &'a str, name: &str) -> &'a str {
    let mut words = text.lines().map(str::split_whitespace);
    let found = words.find_map(|mut words| {
        (words.next() == Some("#define") && words.next() == Some(name))
            .then(|| words.next())
            .flatten()
    });
    found.unwrap_or("?")
}

fn ask(config: &InterpreterConfig) -> Vec<PathBuf> {
    if config.executable().is_none() {
        stop(&format!(
            "there is no interpreter to ask where its headers are (a cross build?); set {VARIABLE} to the \
             directory that holds the Python.h of CPython {} of the target",
            config.version()
        ));
    }
    let script = "import os, sysconfig; paths = sysconfig.get_paths()\n\
                  print(paths['include']); print(paths['platinclude'])\n\
                  print(os.path.dirname(sysconfig.get_config_h_filename()))";
    let printed = config.run_python_script(script).unwrap_or_else(|error| {
        stop(&format!(
            "the interpreter does not say where its headers are ({error}); set {VARIABLE} to the directory \
             that holds Python.h"
        ))
    });
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in printed.lines().map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// Debian's `pyconfig.h` only includes `<ARCHITECTURE/pythonX.Y/pyconfig.h>`, which is found from the
/// directory above; not every compiler looks there (zig's does not).
fn dir_of_multiarch(dir: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(dir.join("pyconfig.h")).ok()?;
    let above = dir.parent()?;
    let mut included = text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix('#')?.trim().strip_prefix("include")?.trim();
        name.strip_prefix('<')?.strip_suffix('>')
    });
    included.any(|name| above.join(name).is_file()).then(|| above.to_owned())
}
