//! What the crate's documentation says under "Stability", where the sources can tell.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The attributes right above a line.
fn attributes(lines: &[&str], line: usize) -> Vec<String> {
    let above = lines[..line].iter().rev().map(|line| line.trim());
    above
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        .map(str::to_owned)
        .collect()
}

/// Public enums, and structs with public fields, are `#[non_exhaustive]`, so that one more breaks nobody.
#[test]
fn what_may_grow_is_non_exhaustive() {
    /// Has exactly these, for good.
    const COMPLETE: [&str; 1] = ["Step"];
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let (mut seen, mut open) = (Vec::new(), Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some((kind, rest)) = ["pub enum ", "pub struct "]
                .iter()
                .find_map(|kind| Some((*kind, line.strip_prefix(kind)?)))
            else {
                continue;
            };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            let has_fields = lines[number + 1..]
                .iter()
                .take_while(|line| !line.starts_with('}'))
                .any(|line| line.starts_with("    pub "))
                && !line.ends_with(';');
            if kind == "pub struct " && !has_fields {
                continue;
            }
            if !attributes(&lines, number).iter().any(|line| line == "#[non_exhaustive]")
                && !COMPLETE.contains(&name.as_str())
            {
                open.push(format!("{}: {name}", file.display()));
            }
            seen.push(name);
        }
    }
    assert!(open.is_empty(), "{open:#?}");
    for known in ["PoolStats", "GuardPages", "Step"] {
        assert!(seen.iter().any(|name| name == known), "{known} was not seen among {seen:?}");
    }
}

/// The sentence that names what others' types are in our API is that of `Cargo.toml`.
#[test]
fn the_versions_of_public_dependencies_are_the_documented_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let docs = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let dependencies = manifest.split("\n[dependencies]").nth(1).unwrap();
    for (name, documented) in [
        ("tokio", "`tokio` 1"),
        ("futures-core", "`futures-core`, `futures-io` and `futures-sink` 0.3"),
        ("futures-io", "`futures-core`, `futures-io` and `futures-sink` 0.3"),
        ("futures-sink", "`futures-core`, `futures-io` and `futures-sink` 0.3"),
        ("diesel", "`diesel` 2"),
        ("diesel-async", "`diesel-async` 0.9"),
        ("tokio-postgres", "`tokio-postgres` 0.7"),
    ] {
        assert!(docs.contains(documented), "{documented}");
        let line =
            dependencies.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
        let version = line.split("version = \"").nth(1).unwrap();
        let (_, compatible) = documented.rsplit_once(' ').unwrap();
        assert!(version.starts_with(&format!("{compatible}.")), "{line}: {documented}");
    }
}
