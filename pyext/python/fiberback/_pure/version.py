"""The version of the package, as `Cargo.toml` has it: metadata may not be there."""

VERSION = "0.1.0"
