//! A `serde` type whose deserialisation awaits: references in the document are resolved while it is
//! being read.
//!
//! ```text
//! cargo run --example serde_fetch
//! ```
//!
//! `Deserialize` is synchronous and called by the format in the depth of its parser. Without fibers
//! one would read all references first and resolve them in a second pass over a second set of types.

use serde::de::{Deserialize, Deserializer, Error};
use std::time::Duration;

/// Stands for a database.
async fn name_of(user: u64) -> Option<String> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    [None, Some("Ada"), Some("Grace")].get(user as usize)?.map(str::to_owned)
}

/// In the document a number; in the program the user's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserName(pub(crate) String);

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = u64::deserialize(deserializer)?;
        // An error, rather than unwinding, if the future was dropped meanwhile.
        match fiberback::try_await(name_of(id)).map_err(D::Error::custom)? {
            Some(name) => Ok(Self(name)),
            None => Err(D::Error::custom(format!("there is no user {id}"))),
        }
    }
}

#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Comment {
    pub(crate) author: UserName,
    pub(crate) text: String,
}

/// Parses a document, looking up its users on the way.
pub(crate) async fn comments(json: &'static str) -> Result<Vec<Comment>, serde_json::Error> {
    fiberback::run(move || serde_json::from_str(json)).await
}

pub(crate) const DOCUMENT: &str = r#"[
    {"author": 1, "text": "first"},
    {"author": 2, "text": "second"}
]"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serde_json::Error> {
    for Comment { author, text } in comments(DOCUMENT).await? {
        println!("{}: {text}", author.0);
    }
    Ok(())
}
