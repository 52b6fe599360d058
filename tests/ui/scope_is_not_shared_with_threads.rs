//! Fibers are spawned on the scope's own thread.
//~ E0277 cannot be shared between threads safely

fn main() {
    let _ = fiberback::run(|| {
        fiberback::scope(|s| {
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    s.spawn(|| ());
                });
            });
        });
    });
}
