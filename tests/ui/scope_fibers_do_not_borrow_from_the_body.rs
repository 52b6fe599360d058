//! The body ends, or is cancelled, before the fibers do.
//~ E0373 may outlive borrowed value `local`

fn main() {
    let _ = fiberback::run(|| {
        fiberback::scope(|s| {
            let local = String::new();
            s.spawn(|| println!("{local}"));
        });
    });
}
