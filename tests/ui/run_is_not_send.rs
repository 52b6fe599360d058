//! A fiber's stack may be tied to the thread.
//~ E0277 SoUsePinnedPool

fn main() {
    let run = fiberback::run(|| 1);
    std::thread::spawn(move || drop(run));
}
