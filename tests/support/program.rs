//! A program of its own, with a profile and flags of its own, built in `target/`.
#![allow(unreachable_pub)]

use super::support::{output_within, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The program `name`, whose `main.rs` this is. `profile` are lines of `[profile.dev]`; `flags` are rustc's.
pub fn build(name: &str, profile: &str, flags: &str, main: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let path = root.display().to_string().replace('\\', "/");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nfiberback = {{ path = \"{path}\", default-features = false }}\n\n\
         [profile.dev]\n{profile}\n\n[workspace]\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/main.rs"), main).unwrap();
    // What is locked and downloaded already will do.
    let _ = fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--target-dir"])
        .arg(folder.join("target"))
        .current_dir(&folder)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = output_within(command, Duration::from_secs(300));
    assert!(output.status.success(), "{}", text(&output));
    folder.join("target/debug").join(name).with_extension(std::env::consts::EXE_EXTENSION)
}
