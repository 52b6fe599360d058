//! The process's background runtime: where sockets and timers are seen to when synchronous code waits
//! on a thread that has no runtime.
//!
//! [`block_on`](crate::block_on) starts it when it first needs it: a current-thread runtime on a thread
//! named `fiberback-rt`, with everything enabled. There is one for all threads, and it always runs. So
//! what is made there on one thread (a client, a pool of connections, with their tasks) works on every
//! other, whether or not somebody waits; and no thread has descriptors of its own.
//!
//! A program that wants another one, with more threads for instance, [installs](install) it first. It
//! ends with the process, or by [`shutdown`].
//!
//! ```
//! use fiberback::tokio::background;
//! use std::time::Duration;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let runtime = tokio::runtime::Builder::new_multi_thread()
//!         .worker_threads(2)
//!         .thread_name("clients")
//!         .enable_all()
//!         .build()?;
//!     background::install(runtime)?;
//!
//!     // A plain thread.
//!     fiberback::block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
//!
//!     background::shutdown(Duration::from_secs(1));
//!     Ok(())
//! }
//! ```
//!
//! One that is built with `enable_time()` alone has no descriptor. Futures find sockets and signals of a runtime
//! by looking, and panic if there are none (tokio's "IO is disabled"), so that a runtime cannot get them when
//! they turn out to be needed: which is why the usual one has everything from its start.
//!
//! # Fork
//!
//! Threads do not survive `fork`. A child that waits starts a background runtime of its own; what was
//! made in the parent's does not work there.

use super::blocking::{self, Place};
use super::fork::{Generation, generation};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::time::Duration;
use std::{error, fmt, io, thread};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::oneshot;

/// The first background runtime of all; the last of the chain is the one in charge. What has ended stays
/// in it, a few words each, since others may be just reading it; its handle, which has descriptors, does not.
static FIRST: OnceLock<Background> = OnceLock::new();

/// The process in which somebody is starting a runtime now, or 0. Not a mutex: a forked child would
/// find it locked for ever.
static STARTING: AtomicU32 = AtomicU32::new(0);

struct Background {
    /// Taken when it ends. Whoever has it keeps two of the runtime's descriptors open. Not asked in a forked
    /// child, which may find it locked for ever.
    handle: RwLock<Option<Handle>>,
    /// The process that its threads are in.
    process: Generation,
    /// How to end it; taken by whoever does.
    end: Mutex<Option<End>>,
    has_ended: AtomicBool,
    next: OnceLock<Box<Background>>,
}

enum End {
    /// It has threads of its own.
    MultiThread(Runtime),
    /// Our thread drives it: tell that how long it may take, and hear when it has.
    Thread { stop: oneshot::Sender<Duration>, ended: mpsc::Receiver<()> },
}

impl Background {
    /// `None` once it has ended.
    fn handle(&self) -> Option<Handle> {
        self.handle.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handle of the background runtime, which is started if need be: to spawn tasks there, or to make
/// something in its context (`background::handle()?.enter()`).
///
/// # Errors
///
/// If the system has no thread or no descriptors left for it.
pub fn handle() -> io::Result<Handle> {
    if let Some(handle) = running().and_then(Background::handle) {
        return Ok(handle);
    }
    let _starting = Starting::begin();
    match running().and_then(Background::handle) {
        Some(handle) => Ok(handle),
        None => start(Builder::new_current_thread().enable_all().build()?),
    }
}

/// Makes `runtime` the background runtime. A current-thread runtime is driven by a thread of its own,
/// named `fiberback-rt`.
///
/// # Errors
///
/// [`InstallError`], with the runtime in it, if there is one already (something has waited without one
/// before, or it was installed twice), or the system refuses the thread.
pub fn install(runtime: Runtime) -> Result<(), InstallError> {
    let _starting = Starting::begin();
    if running().is_some() {
        return Err(InstallError(io::ErrorKind::AlreadyExists.into()));
    }
    start(runtime).map(drop).map_err(InstallError)
}

/// Ends the background runtime: its tasks are dropped, and its threads end. Waits for code that runs on
/// them, `spawn_blocking`'s included, but not beyond `timeout`; and not at all where this thread must
/// not block, inside of another runtime.
///
/// Whoever still waits for a socket or timer of it gets an error, or tokio's panic, instead. The next
/// [`block_on`](crate::block_on) that needs one starts another.
pub fn shutdown(timeout: Duration) {
    let Some(background) = running() else { return };
    if background.has_ended.swap(true, Ordering::AcqRel) {
        return;
    }
    let handle = background.handle.write().unwrap_or_else(PoisonError::into_inner).take();
    drop(handle);
    let timeout = match blocking::place() {
        Place::Driving => Duration::ZERO,
        _ => timeout,
    };
    match background.end.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(End::MultiThread(runtime)) => runtime.shutdown_timeout(timeout),
        Some(End::Thread { stop, ended }) => {
            let _ = stop.send(timeout);
            // Its thread takes this long at most once it listens; a task that blocks it never lets it.
            let _ = ended.recv_timeout(timeout);
        }
        None => {}
    }
}

/// Runs `task` in the runtime that is current here, or else in the background if that has started; it
/// may be dropped if the runtime shuts down.
#[cfg_attr(not(any(feature = "diesel-postgres", feature = "diesel-mysql")), allow(dead_code))]
pub(in crate::adapters) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    let here = Handle::try_current().ok();
    if let Some(handle) = here.or_else(|| running()?.handle()) {
        handle.spawn(task);
    }
}

/// The background runtime, if it runs in this process.
fn running() -> Option<&'static Background> {
    last().filter(|background| {
        background.process == generation() && !background.has_ended.load(Ordering::Acquire)
    })
}

fn last() -> Option<&'static Background> {
    let mut last = FIRST.get()?;
    while let Some(next) = last.next.get() {
        last = next;
    }
    Some(last)
}

/// Puts a runtime in charge. Called by whoever holds [`Starting`].
fn start(runtime: Runtime) -> io::Result<Handle> {
    let handle = runtime.handle().clone();
    let end = if handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
        let (stop, stopped) = oneshot::channel();
        let (has_ended, ended) = mpsc::channel();
        thread::Builder::new().name("fiberback-rt".to_owned()).spawn(move || {
            // The sender is kept for as long as nobody uses it.
            let timeout = runtime.block_on(stopped).unwrap_or_default();
            runtime.shutdown_timeout(timeout);
            let _ = has_ended.send(());
        })?;
        End::Thread { stop, ended }
    } else {
        End::MultiThread(runtime)
    };
    let background = Background {
        handle: RwLock::new(Some(handle.clone())),
        process: generation(),
        end: Mutex::new(Some(end)),
        has_ended: AtomicBool::new(false),
        next: OnceLock::new(),
    };
    match last() {
        None => FIRST.get_or_init(|| background),
        Some(last) => last.next.get_or_init(|| Box::new(background)),
    };
    Ok(handle)
}

/// The turn of one thread of this process to start a runtime; over when dropped.
struct Starting;

impl Starting {
    fn begin() -> Self {
        let own = generation();
        loop {
            match STARTING.load(Ordering::Relaxed) {
                // Another thread, for some ten microseconds.
                starting if starting == own => thread::yield_now(),
                free_or_the_parents => {
                    let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
                    let won = STARTING.compare_exchange(free_or_the_parents, own, success, failure);
                    if won.is_ok() {
                        return Self;
                    }
                }
            }
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        STARTING.store(0, Ordering::Release);
    }
}

/// Why [`install`] refused a runtime, which has been shut down.
pub struct InstallError(io::Error);

impl InstallError {
    /// There is a background runtime already.
    pub fn is_running(&self) -> bool {
        self.0.kind() == io::ErrorKind::AlreadyExists
    }
}

impl fmt::Debug for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InstallError").field(&self.0).finish()
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_running() {
            return f.write_str(
                "fiberback: the background runtime runs already: call `background::install` before \
                 anything waits without a runtime, or `background::shutdown` first",
            );
        }
        write!(f, "fiberback: the background runtime's thread could not be started: {}", self.0)
    }
}

impl error::Error for InstallError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.0)
    }
}
