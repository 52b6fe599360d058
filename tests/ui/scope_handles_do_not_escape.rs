//! What a fiber returns may be borrowed for the time of its scope.
//~ error lifetime may not live long enough

fn main() {
    let _ = fiberback::run(|| {
        let _handle = fiberback::scope(|s| s.spawn(|| 1));
    });
}
