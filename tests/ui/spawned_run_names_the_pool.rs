//! `tokio::spawn(async { fiberback::run(..).await })`: the compiler's words lead to `PinnedPool`.
//~ error SoUsePinnedPool

fn spawn<F: Future + Send + 'static>(_: F) {}

fn main() {
    spawn(async { fiberback::run(|| 1).await });
}
