//! Stacks: where they come from, go back to, and what they cost.

mod support;

#[cfg(target_os = "linux")]
use fiberback::fiber::GuardPages;
use fiberback::fiber::{Fiber, Stack, StackPool, Step, Suspender};
use std::sync::mpsc;
use std::thread;
#[cfg(target_os = "linux")]
use std::time::Duration;

const SIZE: usize = 64 << 10;
const SMALLEST: usize = 64 << 10;
/// What sizes are rounded up to.
const PAGE: usize = if cfg!(target_os = "linux") { 4096 } else { 64 << 10 };

fn small_pool() -> StackPool {
    StackPool::builder().stack_size(SIZE).build().unwrap()
}

fn touch(stack: Stack) -> Stack {
    let mut fiber = Fiber::new(stack, |_: &Suspender<(), ()>, ()| {
        std::hint::black_box([1u8; 4096]);
    });
    assert_eq!(fiber.resume(()), Step::Return(()));
    fiber.into_stack().unwrap()
}

#[test]
fn the_stack_returned_last_is_taken_first() {
    let pool = small_pool();
    let (a, b, c) = (pool.take().unwrap(), pool.take().unwrap(), pool.take().unwrap());
    let (range_a, range_b, range_c) = (a.range(), b.range(), c.range());
    drop(b);
    drop(a);
    drop(c);
    let taken: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
    let ranges: Vec<_> = taken.iter().map(Stack::range).collect();
    assert_eq!(ranges, [range_c, range_a, range_b]);
}

#[test]
fn stacks_do_not_overlap_and_lie_apart_by_their_guards() {
    let pool = StackPool::builder().stack_size(SIZE).guard_size(32 << 10).build().unwrap();
    let stacks: Vec<_> = (0..1000).map(|_| pool.take().unwrap()).collect();
    let mut ranges: Vec<_> = stacks.iter().map(Stack::range).collect();
    ranges.sort_by_key(|range| range.start);
    // Elsewhere guards are as large as the platform makes them.
    let guard = if cfg!(target_os = "linux") { 32 << 10 } else { 4096 };
    for pair in ranges.windows(2) {
        assert!(pair[0].end + guard <= pair[1].start, "{pair:x?}");
    }
    assert!(ranges.iter().all(|range| range.len() > SIZE - 1024 && range.len() <= SIZE));
}

#[test]
fn the_high_water_mark_sends_pages_back() {
    let pool = StackPool::builder()
        .stack_size(SIZE)
        .warm_per_thread(16)
        .high_water_mark(64)
        .build()
        .unwrap();
    let stacks: Vec<_> = (0..500).map(|_| touch(pool.take().unwrap())).collect();
    let stats = pool.stats();
    assert_eq!(stats.in_use, 500);
    assert!(stats.high_water >= 500);
    drop(stacks);
    let stats = pool.stats();
    assert_eq!(stats.in_use, 0);
    // Elsewhere stacks keep their pages.
    assert!(stats.warm <= 64 + 16 || cfg!(not(target_os = "linux")), "{stats:?}");
    assert_eq!(stats.warm + stats.cold, stats.high_water);
    // What is idle is used again before more is made.
    let stacks: Vec<_> = (0..500).map(|_| pool.take().unwrap()).collect();
    assert_eq!(pool.stats().high_water, stats.high_water);
    assert_eq!(pool.stats().reserved_bytes, stats.reserved_bytes);
    drop(stacks);
}

#[test]
fn trim_gives_back_what_the_thread_and_the_depot_keep() {
    let pool = small_pool();
    let stacks: Vec<_> = (0..300).map(|_| touch(pool.take().unwrap())).collect();
    let in_use = touch(pool.take().unwrap());
    drop(stacks);
    let before = pool.stats();
    assert!(before.warm >= 300);
    let trimmed = pool.trim();
    let after = pool.stats();
    assert_eq!(after.in_use, 1);
    if cfg!(target_os = "linux") {
        assert_eq!(trimmed, before.warm * before.stack_size);
        assert_eq!(after.warm, 0);
        assert_eq!(after.cold, after.high_water - 1);
    } else {
        // Other platforms' stacks keep their pages.
        assert_eq!(trimmed, 0);
        assert_eq!(after.warm + after.cold, after.high_water - 1);
    }
    assert_eq!(pool.trim(), 0);
    drop(in_use);
    drop(touch(pool.take().unwrap()));
}

/// Takes and touches so many stacks, all at once, and returns where they lie.
#[cfg(target_os = "linux")]
fn burst(pool: &StackPool, stacks: usize, bytes: usize) -> Vec<std::ops::Range<usize>> {
    burst_of(pool, stacks, |_| bytes)
}

/// The same with as many bytes as `bytes` says of each.
#[cfg(target_os = "linux")]
fn burst_of(
    pool: &StackPool,
    stacks: usize,
    bytes: impl Fn(usize) -> usize,
) -> Vec<std::ops::Range<usize>> {
    let stacks: Vec<_> = (0..stacks).map(|_| pool.take().unwrap()).collect();
    for (number, stack) in stacks.iter().enumerate() {
        let end = stack.range().end;
        for address in (end - bytes(number)..end).step_by(4096) {
            // SAFETY: within a stack of our own.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
        }
    }
    stacks.iter().map(fiberback::fiber::Stack::range).collect()
}

#[cfg(target_os = "linux")]
fn resident_bytes(ranges: &[std::ops::Range<usize>]) -> usize {
    ranges.iter().map(|range| resident(range) * 4096).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_burst_leaves_is_counted_in_bytes() {
    const TOUCHED: usize = 400 << 10;
    let pool =
        StackPool::builder().stack_size(512 << 10).high_water_bytes(8 << 20).build().unwrap();
    let (sent, ranges) = mpsc::channel();
    for _ in 0..2 {
        sent.send(burst(&pool, 300, TOUCHED)).unwrap();
        // The thread keeps an eighth, and up to four are not looked at.
        let left = resident_bytes(&ranges.recv().unwrap());
        assert!(left <= (8 << 20) + (1 << 20) + 5 * TOUCHED, "{left} bytes");
        assert!(pool.stats().warm_bytes <= 8 << 20);
    }
    assert!(pool.stats().warm_bytes > 0);
    pool.trim();
    assert_eq!(pool.stats().warm_bytes, 0);
    assert_eq!(pool.stats().warm, 0);
    // Stacks of which little was touched are kept as before.
    let left = resident_bytes(&burst(&pool, 300, 4096));
    assert!(left >= 300 * 4096, "{left} bytes");
}

/// Whatever shape a burst has, it leaves what the documentation says.
#[cfg(target_os = "linux")]
#[test]
fn what_a_burst_leaves_is_bounded() {
    const DEEP: usize = 800 << 10;
    const POOL: usize = 16 << 20;
    const THREAD: usize = (2 << 20) + 5 * DEEP;
    // All are deep, or so many are of which one is.
    for one_in in [1, 2, 7, 16, 64] {
        let pool = StackPool::builder().build().unwrap();
        let ranges = burst_of(&pool, 1000, |n| if n % one_in == 0 { DEEP } else { 4096 });
        let left = resident_bytes(&ranges);
        // It is estimated from samples.
        let most = if one_in == 1 { POOL + THREAD } else { 2 * POOL + THREAD };
        assert!(left <= most, "one in {one_in} is deep: {left} bytes");
        // What the depot has kept is not taken over by threads in addition to what it then keeps.
        for _ in 0..3 {
            burst_of(&pool, 10, |_| 4096);
        }
        let left = resident_bytes(&ranges);
        assert!(left <= most, "one in {one_in} is deep: {left} bytes, later on");
    }
    // On four threads, which stay.
    let pool = StackPool::builder().build().unwrap();
    let (sent, ranges) = mpsc::channel();
    thread::scope(|scope| {
        let mut to_end = Vec::new();
        for _ in 0..4 {
            let (end, may_end) = mpsc::channel::<()>();
            to_end.push(end);
            let (pool, sent) = (&pool, sent.clone());
            scope.spawn(move || {
                sent.send(burst(pool, 250, DEEP)).unwrap();
                let _ = may_end.recv();
            });
        }
        let ranges: Vec<_> = (0..4).flat_map(|_| ranges.recv().unwrap()).collect();
        let left = resident_bytes(&ranges);
        assert!(left <= POOL + 4 * THREAD, "on four threads: {left} bytes");
        drop(to_end);
    });
    assert!(pool.stats().warm_bytes <= POOL);
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_burst_leaves_is_given_back_in_time() {
    use std::time::Instant;

    const IDLE: Duration = Duration::from_millis(200);
    let pool =
        StackPool::builder().stack_size(SIZE).warm_per_thread(200).idle_trim(IDLE).build().unwrap();
    let begin = Instant::now();
    let ranges = burst(&pool, 1000, 8192);
    // Where the machine is so busy that the burst itself takes as long, it may be given back already.
    assert!(resident_bytes(&ranges) >= 1000 * 8192 || begin.elapsed() > IDLE);
    // Fibers still run now and then, a few at a time.
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        for _ in 0..20 {
            drop((touch(pool.take().unwrap()), touch(pool.take().unwrap())));
        }
        if pool.stats().warm <= 4 {
            assert!(resident_bytes(&ranges) <= 4 * 3 * 4096);
            return;
        }
    }
    panic!("still there: {:?}", pool.stats());
}

#[cfg(target_os = "linux")]
#[test]
fn trimmed_pages_are_gone_and_guards_stay() {
    let pool = small_pool();
    let range = {
        let stack = touch(pool.take().unwrap());
        stack.range()
    };
    assert!(resident(&range) > 0);
    pool.trim();
    assert_eq!(resident(&range), 0);
    assert!(!readable(range.start - 1));
    assert!(readable(range.start));
}

#[test]
fn warm_lists_never_exceed_their_limit() {
    let pool = StackPool::builder().stack_size(SIZE).warm_per_thread(1).build().unwrap();
    for count in [1, 2, 7, 100] {
        let stacks: Vec<_> = (0..count).map(|_| pool.take().unwrap()).collect();
        drop(stacks);
        assert_eq!(pool.stats().in_use, 0);
    }
    assert_eq!(pool.stats().high_water, 100);
}

#[test]
fn stats_count_across_threads_and_a_thread_that_ends_returns_its_stacks() {
    let pool = small_pool();
    let mine = pool.take().unwrap();
    let (taken, is_taken) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let shared = pool.clone();
    let worker = thread::spawn(move || {
        let theirs: Vec<_> = (0..10).map(|_| shared.take().unwrap()).collect();
        taken.send(()).unwrap();
        may_go_on.recv().unwrap();
        drop(theirs);
        taken.send(()).unwrap();
        may_go_on.recv().unwrap();
    });
    is_taken.recv().unwrap();
    assert_eq!(pool.stats().in_use, 11);
    go_on.send(()).unwrap();
    is_taken.recv().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.warm + stats.cold), (1, stats.high_water - 1));
    go_on.send(()).unwrap();
    worker.join().unwrap();
    // Its list is in the depot now; we can have all of it.
    let high_water = pool.stats().high_water;
    let all: Vec<_> = (0..high_water - 1).map(|_| pool.take().unwrap()).collect();
    assert_eq!(pool.stats().in_use, high_water);
    assert_eq!(pool.stats().high_water, high_water);
    drop((all, mine));
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn many_threads_take_and_return_at_once() {
    let pool = StackPool::builder()
        .stack_size(SIZE)
        .warm_per_thread(8)
        .high_water_mark(32)
        .build()
        .unwrap();
    let workers: Vec<_> = (0..8u64)
        .map(|seed| {
            let pool = pool.clone();
            thread::spawn(move || {
                let mut state = seed * 2 + 1;
                let mut held = Vec::new();
                for _ in 0..2000 {
                    state =
                        state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    match state >> 61 {
                        0..4 => held.push(pool.take().unwrap()),
                        4..7 => drop(held.pop()),
                        _ if state & (1 << 40) != 0 => drop(pool.trim()),
                        _ => held.truncate(held.len() / 2),
                    }
                    if let Some(stack) = held.pop() {
                        held.push(touch(stack));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let stats = pool.stats();
    assert_eq!(stats.in_use, 0);
    assert_eq!(stats.warm + stats.cold, stats.high_water);
    assert!(stats.high_water <= 8 * 2000);
}

#[test]
fn sizes_have_pools_of_their_own_and_equal_sizes_one() {
    let pool = StackPool::of_size(100_000).unwrap();
    assert!(pool.stack_size() >= 100_000);
    let _stack = pool.take().unwrap();
    let again = StackPool::of_size(pool.stack_size()).unwrap();
    assert_eq!(again.stats().in_use, pool.stats().in_use);
    assert!(again.stats().in_use >= 1);
    let other = StackPool::of_size(300_000).unwrap();
    assert!(other.stack_size() >= 300_000);
    assert_eq!(StackPool::of_size(1 << 20).unwrap().stack_size(), 1 << 20);
    // What `spawn_blocking` and `thread::spawn` give.
    assert_eq!(StackPool::global().stack_size(), 2 << 20);
    assert_eq!(StackPool::builder().build().unwrap().stack_size(), 2 << 20);
}

#[test]
fn many_sizes_share_few_pools() {
    let mut sizes = std::collections::BTreeSet::new();
    for n in 0..2000 {
        let wanted = (64 << 10) + n * 5000;
        let given = StackPool::of_size(wanted).unwrap().stack_size();
        assert!((wanted..=wanted + wanted / 4 + PAGE).contains(&given), "{wanted}: {given}");
        sizes.insert(given);
    }
    // From 64 KiB to 10 MiB: four for each doubling.
    assert!(sizes.len() <= 4 * 8, "{sizes:?}");
    assert!(StackPool::of_size(1 << 36).is_ok());
}

#[test]
fn bad_sizes_are_errors_that_name_the_setting() {
    let error = StackPool::builder().reserve(usize::MAX).build().unwrap_err();
    assert!(error.is_bad_size());
    assert!(error.to_string().contains("reserve"), "{error}");
    for size in [0, 1, SMALLEST - 1, (1 << 36) + 1, usize::MAX] {
        let error = StackPool::builder().stack_size(size).build().unwrap_err();
        assert!(error.is_bad_size() && !error.is_exhausted());
        assert!(error.to_string().contains("stack_size"), "{error}");
        assert!(StackPool::of_size(size).unwrap_err().is_bad_size());
        assert!(fiberback::Builder::new().stack_size(size).run(|| ()).unwrap_err().is_bad_size());
    }
    let error = StackPool::builder().guard_size(usize::MAX).build().unwrap_err();
    assert!(error.is_bad_size());
    assert!(error.to_string().contains("guard_size"), "{error}");
    // The extremes themselves are fine.
    drop(StackPool::builder().stack_size(SMALLEST).guard_size(0).build().unwrap().take().unwrap());
    drop(StackPool::builder().stack_size(SMALLEST).guard_size(1 << 30).build().unwrap());
}

/// A message with the longest backtrace there is, at the end of a stack of the least size.
#[test]
fn the_smallest_stack_holds_a_panic_with_its_backtrace() {
    const TEST: &str = "the_smallest_stack_holds_a_panic_with_its_backtrace";
    if support::is_child("small") {
        let mut caught = fiberback::Builder::new()
            .stack_size(SMALLEST)
            .run(|| {
                let number = std::hint::black_box("seven").parse::<u32>();
                let panic = std::panic::catch_unwind(|| number.expect("a number"));
                format!("caught {}", panic.unwrap_err().downcast_ref::<String>().unwrap())
            })
            .unwrap();
        println!("{}", support::poll_to_end(&mut caught, 1));
        return;
    }
    for backtrace in ["0", "1", "full"] {
        let output = support::run_child_with(TEST, "small", |command| {
            command.env("RUST_BACKTRACE", backtrace);
        });
        let text = support::text(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("caught a number: ParseIntError"), "{text}");
        assert_eq!(text.contains("stack backtrace:"), backtrace != "0", "{text}");
    }
}

#[test]
fn the_default_size_is_what_threads_are_told() {
    const TEST: &str = "the_default_size_is_what_threads_are_told";
    if support::is_child("told") {
        let size = StackPool::global().stack_size();
        assert_eq!(StackPool::of_size(size).unwrap().stack_size(), size);
        let mut on_fiber = fiberback::run(|| 1);
        assert_eq!(support::poll_to_end(&mut on_fiber, 1), 1);
        println!("the size is {size}.");
        return;
    }
    for (told, size) in [
        ("4194304", 4 << 20),
        ("100000", 100_000_usize.next_multiple_of(PAGE)),
        ("60000", SMALLEST), // not less: with musl, the test's own thread has no more than this
        ("99999999999999999999", 2 << 20), // no number that fits
        ("many", 2 << 20),
    ] {
        let output = support::run_child_with(TEST, "told", |command| {
            command.env("RUST_MIN_STACK", told);
        });
        let text = support::text(&output);
        assert!(text.contains(&format!("the size is {size}.")), "{told}: {text}");
    }
}

#[test]
fn max_stacks_is_an_error_and_then_works_again() {
    let pool = StackPool::builder().stack_size(SIZE).max_stacks(10).build().unwrap();
    let mut stacks: Vec<_> = (0..10).map(|_| pool.take().unwrap()).collect();
    for _ in 0..3 {
        let error = pool.take().unwrap_err();
        assert!(error.is_exhausted() && !error.is_bad_size());
        assert!(error.to_string().contains("max_stacks"), "{error}");
    }
    assert!(fiberback::Builder::new().pool(&pool).run(|| ()).unwrap_err().is_exhausted());
    stacks.pop();
    let again = pool.take().unwrap();
    assert!(pool.take().is_err());
    drop((stacks, again));
    assert_eq!(pool.stats().in_use, 0);
    assert_eq!(pool.stats().high_water, 10);
    let none = StackPool::builder().max_stacks(0).build().unwrap();
    assert!(none.take().unwrap_err().is_exhausted());
}

#[test]
fn idle_stacks_of_a_limited_pool_serve_every_thread() {
    let pool = StackPool::builder().stack_size(SIZE).max_stacks(4).build().unwrap();
    let mine = pool.take().unwrap();
    drop(pool.take().unwrap());
    let shared = pool.clone();
    let taken = thread::spawn(move || {
        let stacks: Vec<_> = (0..3).map(|_| shared.take()).collect();
        assert!(shared.take().is_err());
        stacks.iter().filter(|stack| stack.is_ok()).count()
    });
    assert_eq!(taken.join().unwrap(), 3);
    drop(mine);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn a_pool_lives_as_long_as_its_stacks() {
    let pool = small_pool();
    let mut fiber = Fiber::new(pool.take().unwrap(), |suspender: &Suspender<u32, ()>, one| {
        one + suspender.suspend(()).unwrap()
    });
    assert_eq!(fiber.resume(1), Step::Yield(()));
    drop(pool);
    assert_eq!(fiber.resume(2), Step::Return(3));
    let stack = touch(fiber.into_stack().unwrap());
    drop(stack);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_unmapped_when_the_last_stack_of_a_dropped_pool_is_back() {
    // On whichever thread the last handle goes, and with a stack kept warm by the other.
    let pool = StackPool::builder().stack_size(SIZE).build().unwrap();
    let (idle, last) = (touch(pool.take().unwrap()), touch(pool.take().unwrap()));
    let range = last.range();
    drop(idle);
    thread::spawn(move || drop(pool)).join().unwrap();
    assert!(is_mapped(range.start));
    drop(last);
    assert!(!is_mapped(range.start));
}

#[cfg(target_os = "linux")]
#[test]
fn every_stack_has_its_guard() {
    for guards in [GuardPages::Auto, GuardPages::Mprotect] {
        let pool = StackPool::builder().stack_size(SIZE).guard_pages(guards).build().unwrap();
        let guard = pool.stats().guard_size;
        assert!(guard >= 16 << 10);
        // More than one slab, and batches of every kind.
        let stacks: Vec<_> = (0..300).map(|_| pool.take().unwrap()).collect();
        for stack in &stacks {
            let bottom = stack.range().start;
            for address in [bottom - 1, bottom - guard / 2, bottom - guard] {
                assert!(!readable(address), "{guards:?}: no guard at {address:x}");
            }
            assert!(readable(bottom) && readable(stack.range().end - 1));
        }
    }
}

/// Makes the kernel answer these calls of `madvise` as emulators do: success, and nothing done.
#[cfg(target_os = "linux")]
fn pretend(advice: &[libc::c_int]) {
    let code = |code: u32| u16::try_from(code).unwrap();
    // SAFETY: no preconditions; it makes a plain structure.
    let statement = |k: u32, value: u32| unsafe { libc::BPF_STMT(code(k), value) };
    // SAFETY: as above.
    let unless_equal = |value: u32, skip: u8| unsafe {
        libc::BPF_JUMP(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), value, 0, skip)
    };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let leave = |answer| statement(libc::BPF_RET | libc::BPF_K, answer);
    let checks = u8::try_from(advice.len() * 2 + 1).unwrap();
    // `struct seccomp_data`: the number at 0, the arguments from 16 on.
    let mut filter =
        vec![load(0), unless_equal(libc::SYS_madvise as u32, checks), load(16 + 2 * 8)];
    for &advice in advice {
        filter.push(unless_equal(u32::try_from(advice).unwrap(), 1));
        filter.push(leave(libc::SECCOMP_RET_ERRNO));
    }
    filter.push(leave(libc::SECCOMP_RET_ALLOW));
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: a valid program, which is copied.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn advice_that_only_seems_to_be_taken_is_not_relied_on() {
    const TEST: &str = "advice_that_only_seems_to_be_taken_is_not_relied_on";
    if support::is_child("guards") {
        pretend(&[102 /* MADV_GUARD_INSTALL */]);
        let pool = small_pool();
        let stacks: Vec<_> = (0..100).map(|_| pool.take().unwrap()).collect();
        for stack in &stacks {
            assert!(!readable(stack.range().start - 1), "no guard");
            assert!(readable(stack.range().start));
        }
        // As seen by those who run into it.
        let mut run = fiberback::Builder::new().name("deep").run(|| recurse(0)).unwrap();
        let _ = support::poll_once(&mut run);
        return;
    }
    if support::is_child("pages") {
        pretend(&[libc::MADV_DONTNEED]);
        let pool = small_pool();
        drop(touch(pool.take().unwrap()));
        assert_eq!(pool.trim(), 0, "nothing was given back");
        let stats = pool.stats();
        assert!(stats.warm >= 1, "{stats:?}");
        assert_eq!(stats.cold, 0, "{stats:?}");
        drop(touch(pool.take().unwrap()));
        return;
    }
    let output = support::run_child(TEST, "guards");
    let text = support::text(&output);
    assert!(text.contains("stack overflow: the fiber 'deep'"), "{text}");
    let output = support::run_child(TEST, "pages");
    assert!(output.status.success(), "{}", support::text(&output));
}

#[cfg(target_os = "linux")]
#[expect(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(n + 1)) + 1)
}

#[cfg(target_os = "linux")]
#[test]
fn guard_regions_cost_no_mappings_and_no_huge_pages_are_used() {
    if !has_guard_regions() {
        eprintln!("this kernel has no MADV_GUARD_INSTALL");
        return;
    }
    let pool = small_pool();
    let stacks: Vec<_> = (0..5000).map(|_| pool.take().unwrap()).collect();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut mappings, mut no_huge) = (0, 0);
    let mut ours = false;
    for line in smaps.lines() {
        if let Some((start, end)) = mapping(line) {
            ours = stacks.iter().any(|stack| (start..end).contains(&stack.range().start));
            mappings += usize::from(ours);
        } else if ours && line.starts_with("VmFlags:") {
            no_huge += usize::from(line.split_whitespace().any(|flag| flag == "nh"));
        }
    }
    assert!((1..20).contains(&mappings), "{mappings} mappings");
    assert_eq!(no_huge, mappings, "every slab is advised MADV_NOHUGEPAGE");
}

/// The reserved bytes of a stack, and of nobody else, are its owner's: a fiber runs below them and
/// they keep what was written to them, until the stack is back.
#[test]
fn reserved_bytes_are_the_owners_while_fibers_run_below_them() {
    for bytes in [0, 1, 64, 4000, 20_000] {
        let pool = StackPool::builder().stack_size(64 << 10).reserve(bytes).build().unwrap();
        let mut fibers: Vec<_> = (0..70u8)
            .map(|number| {
                let stack = pool.take().unwrap();
                let reserved = stack.reserved();
                assert_eq!(reserved.len(), bytes.next_multiple_of(64));
                assert_eq!(reserved.cast::<u8>().addr().get() % 64, 0);
                let start = reserved.cast::<u8>().addr().get();
                if cfg!(target_os = "linux") {
                    assert_eq!(stack.range().end + StackPool::RECORD_SIZE, start);
                }
                assert!(stack.range().len() >= 63 << 10);
                // SAFETY: ours, while we have the stack.
                unsafe { reserved.cast::<u8>().write_bytes(number, reserved.len()) };
                let fiber = Fiber::new(stack, move |suspender: &Suspender<(), u8>, ()| {
                    let frame = [number; 4096];
                    suspender.suspend(std::hint::black_box(&frame)[4095]).unwrap();
                });
                assert_eq!(fiber.reserved(), reserved);
                (fiber, number)
            })
            .collect();
        for (fiber, number) in &mut fibers {
            assert_eq!(fiber.resume(()), Step::Yield(*number));
        }
        for (mut fiber, number) in fibers {
            let reserved = fiber.reserved();
            assert_eq!(fiber.resume(()), Step::Return(()));
            // SAFETY: ours, while we have the fiber.
            let bytes = unsafe { reserved.as_ref() };
            assert!(bytes.iter().all(|&byte| byte == number));
        }
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_first_frames_share_a_page_with_the_first_reserved_bytes() {
    // Half a page for frames and record, half for the owner.
    let pool = StackPool::builder().reserve(3 * 4096 + 2048).warm_per_thread(1).build().unwrap();
    let stack = pool.take().unwrap();
    let whole = stack.range().start..stack.range().end + StackPool::RECORD_SIZE + 3 * 4096 + 2048;
    assert_eq!(whole.end % 4096, 0);
    let reserved = stack.reserved();
    // SAFETY: ours, while we have the stack.
    unsafe { reserved.cast::<u8>().write_bytes(1, 2048) };
    let mut fiber = Fiber::new(stack, |suspender: &Suspender<(), ()>, ()| {
        suspender.suspend(()).unwrap();
    });
    fiber.resume(());
    if !cfg!(debug_assertions) {
        assert_eq!(resident(&whole), 1);
    } else {
        assert!(resident(&whole) <= 2, "frames of debug builds are large");
    }
    fiber.resume(());
}

#[cfg(target_os = "linux")]
#[test]
fn an_untouched_stack_costs_no_page_and_a_used_one_few() {
    let pool = StackPool::builder().stack_size(1 << 20).build().unwrap();
    let stacks: Vec<_> = (0..64).map(|_| touch(pool.take().unwrap())).collect();
    for stack in &stacks {
        let pages = resident(&stack.range());
        assert!((1..16).contains(&pages), "{pages} pages");
    }
}

/// In a child, since the budget is one for the process: other tests would run short.
#[cfg(target_os = "linux")]
#[test]
fn the_mprotect_budget_ends_in_an_error_and_not_in_a_crash() {
    if support::is_child("budget") {
        let pool = StackPool::builder()
            .stack_size(SMALLEST)
            .guard_pages(GuardPages::Mprotect)
            .build()
            .unwrap();
        let mut stacks = Vec::new();
        let error = loop {
            match pool.take() {
                Ok(stack) => stacks.push(stack),
                Err(error) => break error,
            }
        };
        assert!(error.is_exhausted());
        assert!(error.to_string().contains("vm.max_map_count"), "{error}");
        assert!(stacks.len() > 1000, "only {}", stacks.len());
        // The rest of the process still has mappings, and guards are still there.
        thread::spawn(|| ()).join().unwrap();
        assert!(!readable(stacks.last().unwrap().range().start - 1));
        stacks.truncate(stacks.len() - 100);
        stacks.push(touch(pool.take().unwrap()));
        // A second pool gets its share once the first is gone.
        let second = StackPool::builder()
            .stack_size(SMALLEST)
            .guard_pages(GuardPages::Mprotect)
            .build()
            .unwrap();
        assert!(second.take().is_err());
        drop((stacks, pool));
        drop(touch(second.take().unwrap()));
        println!("survived");
        return;
    }
    let output =
        support::run_child("the_mprotect_budget_ends_in_an_error_and_not_in_a_crash", "budget");
    assert!(output.status.success(), "{}", support::text(&output));
    assert!(support::text(&output).contains("survived"));
}

#[cfg(target_os = "linux")]
#[test]
fn running_out_of_address_space_is_an_error_and_then_works_again() {
    if support::is_child("rlimit") {
        let used = vm_bytes();
        let limit = libc::rlimit { rlim_cur: used + (256 << 20), rlim_max: used + (256 << 20) };
        // SAFETY: a valid structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let pool = StackPool::builder().stack_size(1 << 20).build().unwrap();
        let mut stacks = Vec::new();
        let error = loop {
            match pool.take() {
                Ok(stack) => stacks.push(touch(stack)),
                Err(error) => break error,
            }
            assert!(stacks.len() < 10_000);
        };
        assert!(error.is_exhausted());
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::OutOfMemory);
        assert!(stacks.len() > 100, "smaller slabs were tried: {}", stacks.len());
        assert_eq!(pool.stats().in_use, stacks.len());
        // Nothing is lost.
        stacks.pop();
        stacks.push(touch(pool.take().unwrap()));
        assert!(pool.take().is_err());
        drop((stacks, pool));
        let pool = StackPool::builder().stack_size(1 << 20).build().unwrap();
        let again: Vec<_> = (0..100).map(|_| touch(pool.take().unwrap())).collect();
        drop(again);
        println!("survived");
        return;
    }
    let output = support::run_child(
        "running_out_of_address_space_is_an_error_and_then_works_again",
        "rlimit",
    );
    assert!(output.status.success(), "{}", support::text(&output));
    assert!(support::text(&output).contains("survived"));
}

#[test]
fn run_panics_where_the_builder_returns_an_error() {
    let pool = StackPool::builder().stack_size(SIZE).max_stacks(1).build().unwrap();
    let builder = fiberback::Builder::new().pool(&pool);
    let first = builder.run(|| 1).unwrap();
    assert!(builder.run(|| 2).is_err());
    drop(first);
    assert_eq!(support::poll_to_end(&mut builder.run(|| 3).unwrap(), 1), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stack_used_in_thread_teardown_goes_back() {
    use std::cell::RefCell;
    thread_local! { static LATE: RefCell<Vec<Late>> = const { RefCell::new(Vec::new()) } }
    struct Late(StackPool, Option<Stack>);
    impl Drop for Late {
        fn drop(&mut self) {
            drop(self.1.take());
            drop(touch(self.0.take().unwrap()));
        }
    }
    for early in [false, true] {
        let pool = small_pool();
        let shared = pool.clone();
        thread::spawn(move || {
            // Thread-locals are dropped in either order, before and after the pool's own.
            if early {
                LATE.with_borrow_mut(Vec::clear);
            }
            let stack = shared.take().unwrap();
            LATE.with_borrow_mut(|late| late.push(Late(shared.clone(), Some(stack))));
        })
        .join()
        .unwrap();
        let stats = pool.stats();
        assert_eq!(stats.in_use, 0);
        assert_eq!(stats.warm + stats.cold, stats.high_water);
    }
}

/// Whether the kernel can read the byte at an address, asked by letting it try.
#[cfg(target_os = "linux")]
fn readable(address: usize) -> bool {
    let mut pipe = [0; 2];
    // SAFETY: the kernel fills the array; a bad address in `write` is the error EFAULT.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let written = libc::write(pipe[1], std::ptr::with_exposed_provenance(address), 1);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        written == 1
    }
}

#[cfg(target_os = "linux")]
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter_map(mapping).any(|(start, end)| (start..end).contains(&address))
}

/// The addresses that a line of `/proc/self/maps` starts with, if it does.
#[cfg(target_os = "linux")]
fn mapping(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

/// How many pages of a range are present, from `/proc/self/pagemap`.
#[cfg(target_os = "linux")]
fn resident(range: &std::ops::Range<usize>) -> usize {
    use std::os::unix::fs::FileExt;
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    let (first, end) = (range.start / 4096, range.end.div_ceil(4096));
    let mut entries = vec![0; (end - first) * 8];
    pagemap.read_exact_at(&mut entries, u64::try_from(first * 8).unwrap()).unwrap();
    let is_present = |entry: &&[u8]| u64::from_ne_bytes((*entry).try_into().unwrap()) >> 63 == 1;
    entries.chunks(8).filter(is_present).count()
}

#[cfg(target_os = "linux")]
fn vm_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[cfg(target_os = "linux")]
fn has_guard_regions() -> bool {
    // SAFETY: a mapping of our own.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let works = libc::madvise(page, 4096, 102) == 0;
        libc::munmap(page, 4096);
        works
    }
}
