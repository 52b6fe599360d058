//! Compares what we were built for with the interpreter that runs us (to be completed).
pub(crate) fn run() -> Result<(), String> { Ok(()) }
