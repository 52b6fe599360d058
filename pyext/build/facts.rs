//! The table of `layout.c`. It is read out of the *object file*, so nothing is run and cross-compiling
//! works: the build only needs a C compiler for the target and the target interpreter's headers.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

const MAGIC: &[u8; 16] = b"fiberback-facts\0";
const COUNT_MARK: u64 = 0x0102_0304_0506_0708;
const NAME_BYTES: usize = 48;
const MAX_FACTS: usize = 128;

/// A Rust constant for each, where `src/interp/facts.rs` includes them.
pub(crate) fn write(facts: &[(String, i64)]) {
    let mut source = String::new();
    for (name, value) in facts {
        writeln!(source, "pub(crate) const {name}: isize = {value};").unwrap();
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("facts.rs");
    fs::write(out, source).expect("OUT_DIR is writable");
}

pub(crate) fn read(object: &[u8]) -> Vec<(String, i64)> {
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
