//! The borrowing form puts its promise into the caller's hands.
//~ E0133 unsafe

fn main() {
    let local = String::from("borrowed");
    let run = fiberback::run_unchecked(|| local.len());
    drop(run);
}
