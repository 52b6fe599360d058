//! How many fibers can be suspended at once, and what each costs.
//!
//! ```text
//! cargo bench --bench million                # a million, on stacks of 64 KiB, then of 1 MiB
//! cargo bench --bench million -- 50000       # so many
//! ```
//!
//! Makes the fibers, polls each until it waits, measures memory, lets them go, polls each to its
//! end, and checks the value of each. Measured against nobody but the targets: what a thread, or a
//! stack guarded by `mprotect`, costs ends at 32,000 (`vm.max_map_count`). Memory is what
//! `/proc/self` says: RSS and page tables (`VmRSS`, `VmPTE`), less what they were before; and
//! mappings, the lines of `maps`, all of them. A million fibers need 5 to 7 GB. Linux only.

mod harness;

use fiberback::{Builder, Run, StackPool, await_};
use harness::Target;
use std::cell::Cell;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What the process uses, in KiB, and its mappings.
#[derive(Clone, Copy)]
struct Usage {
    resident: f64,
    page_tables: f64,
    mappings: usize,
}

impl Usage {
    fn now() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().nth(1));
            number
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| io::Error::other(format!("no {name} in /proc/self/status")))
        };
        Ok(Self {
            resident: field("VmRSS")?,
            page_tables: field("VmPTE")?,
            mappings: fs::read_to_string("/proc/self/maps")?.lines().count(),
        })
    }
}

/// Time, and time on the processor, which other programs on the machine do not add to.
struct Clock {
    began: Instant,
    on_cpu: u64,
}

impl Clock {
    fn start() -> io::Result<Self> {
        Ok(Self { began: Instant::now(), on_cpu: on_cpu()? })
    }

    fn show(&self, count: u64) -> io::Result<String> {
        let took = self.began.elapsed().as_nanos() as f64;
        let on_cpu = (on_cpu()? - self.on_cpu) as f64;
        Ok(format!(
            "{}, {} on the processor: {} each",
            harness::show(took),
            harness::show(on_cpu),
            harness::show(on_cpu / count as f64)
        ))
    }
}

/// Nanoseconds that this thread has run.
fn on_cpu() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = stat.split_whitespace().next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| io::Error::other("no time in /proc/thread-self/schedstat"))
}

fn poll(run: &mut Run<u64>) -> Poll<u64> {
    Pin::new(run).poll(&mut Context::from_waker(Waker::noop()))
}

/// A fiber that waits until the gate is open.
fn waiter(pool: &StackPool, value: u64, open: &Rc<Cell<bool>>) -> Run<u64> {
    let open = Rc::clone(open);
    let run = Builder::new().pool(pool).run(move || {
        await_(poll_fn(|_| if open.get() { Poll::Ready(()) } else { Poll::Pending }));
        value
    });
    run.unwrap_or_else(|error| panic!("after {value} fibers: {error}"))
}

fn suspend_and_resume(count: u64, stack_size: usize) -> io::Result<()> {
    let pool = StackPool::builder().stack_size(stack_size).build().map_err(io::Error::from)?;
    let open = Rc::new(Cell::new(false));
    let mut fibers: Vec<Run<u64>> = Vec::with_capacity(count as usize);
    let before = Usage::now()?;

    let clock = Clock::start()?;
    for value in 0..count {
        let mut fiber = waiter(&pool, value, &open);
        assert!(poll(&mut fiber).is_pending(), "the gate is closed");
        fibers.push(fiber);
    }
    let suspended = clock.show(count)?;
    let during = Usage::now()?;
    assert_eq!(pool.stats().in_use as u64, count);

    open.set(true);
    let clock = Clock::start()?;
    for (value, fiber) in (0..count).zip(&mut fibers) {
        assert_eq!(poll(fiber), Poll::Ready(value));
    }
    let resumed = clock.show(count)?;
    assert_eq!(pool.stats().in_use, 0);
    let reserved = pool.stats().reserved_bytes;
    drop(fibers);

    let each = (during.resident - before.resident) / count as f64;
    println!("{count} fibers suspended at once, stacks of {} KiB:", stack_size >> 10);
    println!("  made and suspended  {suspended}");
    println!("  resumed to the end  {resumed}; every value is right");
    println!("  resident            {each:.2} KiB each{}", Target::AtMost(4.5).verdict(each));
    println!(
        "  page tables         {:.0} MiB, {:.2} KiB each",
        (during.page_tables - before.page_tables) / 1024.0,
        (during.page_tables - before.page_tables) / count as f64
    );
    println!(
        "  mappings            {}{}",
        during.mappings,
        Target::AtMost(999.0).verdict(during.mappings as f64)
    );
    println!("  address space       {:.1} GiB", reserved as f64 / f64::from(1 << 30));
    Ok(())
}

fn main() -> io::Result<()> {
    if !cfg!(target_os = "linux") {
        println!("This bench reads /proc/self, which is Linux's.");
        return Ok(());
    }
    let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let count = given.unwrap_or(if harness::in_earnest() { 1_000_000 } else { 1000 });
    suspend_and_resume(count, 64 << 10)?;
    suspend_and_resume(count, StackPool::global().stack_size())
}
