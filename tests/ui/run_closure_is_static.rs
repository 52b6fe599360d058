//! A suspended `Run` can be leaked, so what it borrowed would be used after it is gone.
//~ E0373 may outlive borrowed value `local`

fn main() {
    let local = String::from("borrowed");
    let run = fiberback::run(|| local.len());
    drop(run);
}
