//! Let ordinary synchronous code, however deep in the call stack, wait for async work on the event
//! loop that is already running: no threads, no nested loop, no rewriting of the callers.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Synchronous code that you cannot, or do not want to, rewrite ...
//! fn total(prices: &[u64]) -> u64 {
//!     prices.iter().map(|&price| converted(price)).sum()
//! }
//!
//! // ... waits for a future at the bottom ...
//! fn converted(price: u64) -> u64 {
//!     fiberback::await_(async move {
//!         tokio::time::sleep(std::time::Duration::from_millis(1)).await;
//!         price * 2
//!     })
//! }
//!
//! // ... and is a future at the top.
//! assert_eq!(fiberback::run(|| total(&[1, 2, 3])).await, 12);
//! # }
//! ```
//!
//! # What do you want to do?
//!
//! | you want to | use |
//! |---|---|
//! | call synchronous code from async code, so that it can wait | [`run`] |
//! | wait for a future in synchronous code | [`await_`], or [`try_await`] in destructors and I/O traits |
//! | wait in code that may run anywhere, inside a runtime or not | [`block_on`], or [`try_block_on`] |
//! | wait for several things at once in synchronous code | [`scope`](scope()), [`join`], [`map_concurrent`] |
//! | wait on a thread of its own for what the fiber's loop does | [`remote`] |
//! | keep a second fiber out of what one waits in (an interpreter) | [`Exclusive`] |
//! | know how deep code may still recurse | [`stack_remaining`] |
//! | see what hangs: every fiber with its stack, and where it waits | [`dump`] (feature `dump`) |
//! | see what blocks: the fiber that keeps its thread from the others | [`watch`] (feature `dump`) |
//! | give a fiber a name or another stack size, or handle the lack of memory | [`Builder`] |
//! | give an async library a synchronous face | [`Facade`] (feature `tokio`) |
//! | do all this on a multi-threaded runtime | [`fiberback::tokio::PinnedPool`] (feature `tokio`) |
//! | build something else on the same switch | [`fiber`] |
//!
//! # How it works
//!
//! [`run`] starts a *fiber*: a call stack of its own, on the same thread. [`await_`] polls the
//! future right there; if it is pending, the fiber is switched away from, [`Run::poll`](Run) returns
//! `Pending`, and the executor does other work. When the future's waker fires, the next poll
//! switches back in. A switch saves a handful of registers; nothing is copied or allocated.
//!
//! # Layers
//!
//! ```text
//! adapters   other crates' terms: tokio, io, stream, diesel      (feature-gated)
//!    |
//! bridge     futures: run, await_, try_await, scope, Builder
//!    |
//! ambient    what follows a fiber around: tracing spans          (feature `tracing`)
//!    |
//! fiber      stacks, the switch, the current fiber; knows no futures
//! ```
//!
//! Arrows run down only. [`fiber`] is public: it is what the Python package stands on.
//!
//! # Features
//!
//! * `tokio` (default): [`fiberback::tokio`], [`Facade`], and a tokio runtime under [`block_on`] where none is current.
//! * `tracing`: spans entered on a fiber leave the thread when it suspends and come back when it
//!   resumes; the crate's own events, target `fiberback`.
//! * `io`, `futures-io`: [`fiberback::io`], synchronous readers and writers over async ones, and back.
//! * `stream`: [`fiberback::stream`], iterators over streams, and back.
//! * `dump`: [`dump`], all fibers of the process with their stacks, and [`watch`], which says who blocks a thread of
//!   fibers. Each suspension then stores where it was.
//! * `diesel-postgres` and the other `diesel-...`: [`fiberback::diesel`], the synchronous Diesel API
//!   over async connections.
//!
//! In a build with `-Zsanitizer=address` the sanitizer is told about every stack switch.
//!
//! # What will not work
//!
//! A wait in synchronous code looks like any call, so the compiler cannot warn as it does for
//! `.await`. While a fiber is suspended, its thread does other things:
//!
//! * **Lock guards.** A `std::sync::MutexGuard` or `RefCell` borrow that is alive across a wait
//!   stays locked while other tasks of the thread run. If one of them locks it, the thread
//!   deadlocks (or the borrow panics), for the one that would unlock it is suspended below.
//! * **Scoped thread-locals.** `tokio::runtime::Handle::enter` guards, `tokio::task_local!` scopes
//!   and anything else that sets a thread-local for the time of a call must not be open across a
//!   wait: other tasks would see the setting, and the fiber would miss it on return when
//!   suspensions interleave. This includes futures awaited on the fiber whose own `poll` calls
//!   synchronous code that waits. Crates that keep a *pointer to the stack* in such a scope
//!   (`scoped-tls`) are unsound with any stackful coroutine when scopes of two fibers overlap:
//!   the scopes end out of order, and one restores a pointer to a frame that is gone. (Tracing
//!   spans are handled: feature `tracing`.)
//! * **Waits in a `tracing` subscriber.** Where one is set for a scope (`with_default`), `tracing` keeps it
//!   borrowed while it is told of something: a wait there is refused (feature `tracing`). Give what is to be
//!   sent to a task, by a channel.
//! * **Thread-locals whose initialiser waits.** Two fibers of a thread may be in it at once.
//!   `std::thread_local!` then drops the first value while references to it are in use: freed memory,
//!   from safe code, with this as with every stackful coroutine
//!   ([unsafe-code-guidelines #602](https://github.com/rust-lang/unsafe-code-guidelines/issues/602)).
//!   With `LazyLock` and `OnceLock` the second fiber blocks the thread for ever instead. Make what waits
//!   first, `await_(tokio::sync::OnceCell::get_or_init(..))`, and keep the rest of the initialiser free
//!   of waits.
//! * **Thread-locals borrowed across a wait** (`LOCAL.with(|value| await_(..))`) are gone at the end of the
//!   thread. A [`Run`] that is dropped there, as a thread-local value itself, is leaked with a message
//!   if our own thread-local is gone, which was made before the thread's first fiber; one whose holder was
//!   first used later is unwound, and may find what it borrowed destroyed. Likewise a [`Run`] that is
//!   forgotten (`mem::forget`) while a scoped thread uses a thread-local borrowed on it. Keep each
//!   [`Run`] in a variable, a task or a `LocalSet`, not in a thread-local.
//! * **Libraries that call back under a lock, and interpreters.** While a callback waits, another fiber may
//!   call the same library: it finds the lock held, or the interpreter's frames interleaved (Lua,
//!   QuickJS). [`Exclusive`] refuses the second entry with words; `await_(tokio_mutex.lock())` around the
//!   call waits for its turn.
//! * **Crates that measure the thread's stack** (`stacker`, QuickJS, collectors that scan it) find the wrong
//!   one: [`stack_remaining`] and [`fiber::current_stack`] know the fiber's.
//! * **`extern "C"` frames** cannot be unwound: a cancellation that meets one ends the process ("panic in a
//!   function that cannot unwind"; on Linux with the fiber's name, by a handler of `SIGABRT` that the first
//!   cancellation installs, and that goes on to the one that was there). Below a C library's callback use
//!   [`try_await`] and return its error.
//! * **CPU-bound code.** It runs on the executor's thread and holds everything else up. Let others
//!   run now and then: `await_(tokio::task::yield_now())`.
//! * **Blocking waits.** `std::thread::sleep`, a blocking channel or join still block the thread.
//!   So does rayon's `install`. [`watch`] tells which fiber does. Send what blocks to a thread, `await_(tokio::task::spawn_blocking(..))`; threads
//!   wait for the fiber's loop by [`remote`], and get an error if that is blocked until they are done.
//!   Under cancellation too: a `std::thread::scope` on a cancelled fiber joins its threads. Of tokio's
//!   channels and locks, `blocking_recv()`, `blocking_send(x)` and `blocking_lock()` panic inside a runtime:
//!   `await_(x.recv())`, `await_(x.send(x))`, `await_(x.lock())`.
//! * **tokio's own `block_on` on a fiber** panics like anywhere inside a runtime, and so does what is built on
//!   it (`reqwest::blocking`); use [`block_on`], with the async client.
//! * **Moving threads.** A fiber stays on the thread that first polled it: [`Run`] is `!Send`.
//! * **Waiting during a panic.** A destructor that runs because of a panic cannot suspend:
//!   [`await_`] then panics unless the future is ready, which aborts the process. Use [`try_await`]
//!   in destructors. A `Mutex` guard dropped by a cancellation poisons its lock, as by a panic.
//! * **`panic = "abort"`.** Dropping a waiting [`Run`] cannot unwind its stack; it is leaked.
//! * **Deep recursion.** A fiber's stack is finite: 2 MiB, or `RUST_MIN_STACK`, unless set otherwise with
//!   [`Builder::stack_size`]. Running off its end aborts with a message that names the fiber.
//!
//! # Stability
//!
//! The crate follows [Semantic Versioning](https://semver.org/) as Cargo reads it: while it is 0.x, the second
//! number is raised for what may break callers, the third for everything else.
//!
//! Held to that:
//!
//! * Every public item, in every module and feature, [`fiber`] included; and that features only add.
//! * Which types are `Send`, `Sync` and `Unpin` (`tests/auto_traits.rs` holds us to it).
//! * Errors are opaque: their predicates stay, new reasons may be added, and one of them may be told by a new
//!   predicate as well. [`GuardPages`](fiber::GuardPages) and [`PoolStats`](fiber::PoolStats) are
//!   `#[non_exhaustive]`. [`Step`](fiber::Step) is not, and gets no third variant: whoever resumes a fiber
//!   must deal with both.
//! * What is documented of cancellation, panics, and which thread or runtime code runs on.
//! * The versions of the crates whose types are part of ours, as dependencies of those features: `tokio` 1;
//!   `futures-core`, `futures-io` and `futures-sink` 0.3; `diesel` 2, `diesel-async` 0.9, `tokio-postgres` 0.7.
//!   (`corosensei` is none of them: it may be exchanged.)
//!
//! Not held to it: the wording of messages and of `Debug`, names of threads and tracing events, defaults of
//! sizes and times, how much stack or memory something takes, which Linux calls are made. The minimum Rust
//! version (1.85; 1.86 with a `diesel-...` feature) may rise in a minor version, to one that is at least a
//! year old.
//!
//! The C API of the *Python package* has a number of its own, `FIBERBACK_API_VERSION` in `fiberback.h`: fields are
//! only added, at the end, under the same number, and `size` says how many there are; anything else is another
//! number, which `fiberback_import` and the crate `fiberback-pyo3` refuse with an `ImportError`.
//!
//! # Platforms
//!
//! Linux on x86-64 is what the test suite runs on. Other Unixes and Windows use `corosensei`'s own
//! stacks, which are limited in number; they are checked to compile, not tested.
//!
//! On Linux 6.13 and later the guard pages of a stack cost no memory mapping, and a million fibers
//! fit into a few dozen. On older kernels guards cost two mappings a stack, the number of stacks is
//! limited by `vm.max_map_count`, and running out is an error ([`StackError`]), never an unguarded
//! stack.
//!
// Where a feature is off, its items are elsewhere.
#![cfg_attr(feature = "tokio", doc = "[`Facade`]: Facade")]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "[`Facade`]: https://docs.rs/fiberback/latest/fiberback/struct.Facade.html"
)]
#![cfg_attr(feature = "tokio", doc = "[`fiberback::tokio`]: mod@tokio")]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "[`fiberback::tokio`]: https://docs.rs/fiberback/latest/fiberback/tokio/index.html"
)]
#![cfg_attr(feature = "tokio", doc = "[`fiberback::tokio::PinnedPool`]: crate::tokio::PinnedPool")]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "[`fiberback::tokio::PinnedPool`]: https://docs.rs/fiberback/latest/fiberback/tokio/struct.PinnedPool.html"
)]
#![cfg_attr(feature = "io", doc = "[`fiberback::io`]: mod@io")]
#![cfg_attr(
    not(feature = "io"),
    doc = "[`fiberback::io`]: https://docs.rs/fiberback/latest/fiberback/io/index.html"
)]
#![cfg_attr(feature = "stream", doc = "[`fiberback::stream`]: mod@stream")]
#![cfg_attr(
    not(feature = "stream"),
    doc = "[`fiberback::stream`]: https://docs.rs/fiberback/latest/fiberback/stream/index.html"
)]
#![cfg_attr(feature = "dump", doc = "[`dump`]: dump()")]
#![cfg_attr(
    not(feature = "dump"),
    doc = "[`dump`]: https://docs.rs/fiberback/latest/fiberback/fn.dump.html
[`watch`]: https://docs.rs/fiberback/latest/fiberback/fn.watch.html"
)]
#![cfg_attr(feature = "diesel", doc = "[`fiberback::diesel`]: mod@diesel")]
#![cfg_attr(
    not(feature = "diesel"),
    doc = "[`fiberback::diesel`]: https://docs.rs/fiberback/latest/fiberback/diesel/index.html"
)]
// `unsafe` is confined to the modules that opt in, each of which opens with its invariant.
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod adapters;
mod ambient;
mod bridge;
mod error;
mod events;
pub mod fiber;

#[cfg(feature = "diesel")]
pub use adapters::diesel;
#[cfg(feature = "io")]
pub use adapters::io;
#[cfg(feature = "stream")]
pub use adapters::stream;
#[cfg(feature = "tokio")]
pub use adapters::tokio::{self, facade::Facade};
#[cfg(feature = "dump")]
pub use adapters::{Blocked, Dump, FiberDump, Frame, Waiting, Watch, dump, watch};

pub use adapters::{
    Budget, Remote, block_on, remote, try_block_on, try_remote, try_yield_now, yield_now,
};
pub use bridge::{
    Builder, Exclusive, Occupied, Run, Scope, ScopedJoinHandle, await_, join, map_concurrent,
    on_fiber, run, run_unchecked, scope, try_await,
};
pub use error::{AwaitError, StackError};
pub use fiber::{StackPool, stack_remaining};

/// The README's code blocks, run as tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
