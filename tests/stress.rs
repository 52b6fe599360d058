//! Thousands of fibers that wait, nest, panic, and are cancelled, forgotten and woken by changing
//! wakers, at random; every poll and drop is counted.
//!
//! `FIBERBACK_SEED=n cargo test --test stress` repeats one run.

mod support;

use fiberback::{Builder, Run, StackPool, await_, try_await};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// SplitMix64.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Things made, and how many of them are gone again.
#[derive(Default)]
struct Census {
    made: Cell<u64>,
    gone: Cell<u64>,
}

impl Census {
    fn alive(&self) -> u64 {
        self.made.get() - self.gone.get()
    }
}

fn add(cell: &Cell<u64>, n: u64) {
    cell.set(cell.get() + n);
}

/// What the code on the fibers of one task shares.
#[derive(Clone)]
struct World {
    random: Random,
    pool: StackPool,
    tokens: Rc<Census>,
    leaves: Rc<Census>,
    /// Polls of leaves; and how many there had to be.
    polled: Rc<Cell<u64>>,
    due: Rc<Cell<u64>>,
    /// The task waits for what never comes.
    stuck: Rc<Cell<bool>>,
}

impl World {
    fn new(random: &Random, pool: &StackPool) -> Self {
        Self {
            random: random.clone(),
            pool: pool.clone(),
            tokens: Rc::default(),
            leaves: Rc::default(),
            polled: Rc::default(),
            due: Rc::default(),
            stuck: Rc::default(),
        }
    }

    /// The same, for a fiber that the task does not depend on.
    fn apart(&self) -> Self {
        Self { stuck: Rc::default(), ..self.clone() }
    }
}

/// A value on a fiber's stack that knows its address: a stack used twice, or at once by two, is
/// noticed.
struct Token {
    census: Rc<Census>,
    mark: Cell<usize>,
}

impl Token {
    fn new(world: &World) -> Self {
        add(&world.tokens.made, 1);
        Self { census: world.tokens.clone(), mark: Cell::new(0) }
    }

    fn settle(&self) {
        self.mark.set(!(&raw const *self).addr());
    }

    fn check(&self) {
        assert_eq!(self.mark.get(), !(&raw const *self).addr());
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.check();
        self.mark.set(0);
        add(&self.census.gone, 1);
    }
}

struct Panicked;

/// Pending some times; every poll is counted.
struct Leaf {
    world: World,
    left: u64,
    done: bool,
}

impl Leaf {
    fn new(world: &World, left: u64) -> Self {
        add(&world.leaves.made, 1);
        add(&world.due, left + 1);
        Self { world: world.clone(), left, done: false }
    }
}

impl Future for Leaf {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        assert!(!self.done, "polled after it was ready");
        add(&self.world.polled, 1);
        if self.left == 0 {
            self.done = true;
            return Poll::Ready(1);
        }
        self.left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        add(&self.world.leaves.gone, 1);
        if !self.done {
            // The polls that did not happen.
            self.world.due.set(self.world.due.get() - self.left - 1);
        }
    }
}

fn spawn(world: &World, depth: u32) -> Run<u64> {
    let world = world.clone();
    Builder::new().pool(&world.pool.clone()).run(move || work(&world, depth)).unwrap()
}

fn work(world: &World, depth: u32) -> u64 {
    let token = Token::new(world);
    token.settle();
    let random = &world.random;
    let deeper = depth < 4;
    let mut sum = 0;
    for _ in 0..random.below(6) {
        match random.below(16) {
            0..6 => sum += await_(Leaf::new(world, random.below(4))),
            6 if deeper => sum += work(world, depth + 1),
            7 if deeper => sum += await_(spawn(world, depth + 1)),
            // Synchronous code that waits inside the poll of a future.
            8 if deeper => {
                sum += await_(async {
                    let before = Leaf::new(world, 1).await;
                    before + work(world, depth + 1) + Leaf::new(world, 2).await
                });
            }
            // Two such at once.
            9 if deeper => {
                let (a, b) = await_(async {
                    futures_util::join!(
                        async { Leaf::new(world, 2).await + work(world, depth + 1) },
                        spawn(world, depth + 1)
                    )
                });
                sum += a + b;
            }
            10 => {
                let caught = catch_unwind(AssertUnwindSafe(|| -> () {
                    let token = Token::new(world);
                    token.settle();
                    await_(Leaf::new(world, random.below(3)));
                    resume_unwind(Box::new(Panicked));
                }));
                // A cancellation must pass.
                match caught {
                    Err(payload) if !payload.is::<Panicked>() => resume_unwind(payload),
                    _ => {}
                }
            }
            11 if random.below(6) == 0 => resume_unwind(Box::new(Panicked)),
            // A nested run that is begun and dropped.
            12 if deeper => {
                let mut inner = spawn(&world.apart(), depth + 1);
                for _ in 0..random.below(3) {
                    let polled = await_(poll_fn(|cx| {
                        let poll = || Pin::new(&mut inner).poll(cx);
                        Poll::Ready(catch_unwind(AssertUnwindSafe(poll)))
                    }));
                    if !matches!(polled, Ok(Poll::Pending)) {
                        break;
                    }
                }
                drop(inner);
            }
            // A destructor that waits: it may, unless it runs in an unwinding.
            13 => {
                let _late = support::OnDrop(|| {
                    let _ = try_await(Leaf::new(world, 1));
                });
                sum += await_(Leaf::new(world, random.below(2)));
            }
            14 if random.below(10) == 0 => {
                world.stuck.set(true);
                await_(pending::<()>());
            }
            _ => sum += try_await(Leaf::new(world, 1)).unwrap_or(0),
        }
        token.check();
    }
    sum
}

/// Wakes a task only if it was given to the task's latest poll.
struct Ticket {
    task: usize,
    number: u64,
    woken: Arc<Mutex<VecDeque<(usize, u64)>>>,
}

impl Wake for Ticket {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push_back((self.task, self.number));
    }
}

struct Task {
    run: Option<Run<u64>>,
    world: World,
    ticket: u64,
    waker: Waker,
}

/// A run that goes on to panic while it cleans up does so out of its drop.
fn cancel(run: Run<u64>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(run))) {
        assert!(payload.is::<Panicked>(), "an assertion failed on a fiber");
    }
}

fn stress(seed: u64, tasks: usize, forgets: bool) {
    let random = Random(Rc::new(Cell::new(seed)));
    let pool = StackPool::builder()
        .stack_size(512 << 10)
        .warm_per_thread(8)
        .high_water_mark(32)
        .build()
        .unwrap();
    let woken = Arc::new(Mutex::new(VecDeque::new()));
    let ticket =
        |task, number| Waker::from(Arc::new(Ticket { task, number, woken: woken.clone() }));
    let mut all: Vec<Task> = Vec::new();
    let (mut returned, mut panicked, mut cancelled, mut forgotten) = (0, 0, 0, 0);
    let (mut lost_tokens, mut lost_leaves) = (0, 0);
    loop {
        if all.len() < tasks {
            let world = World::new(&random, &pool);
            let (index, run) = (all.len(), Some(spawn(&world, 0)));
            all.push(Task { run, world, ticket: 0, waker: ticket(index, 0) });
            woken.lock().unwrap().push_back((index, 0));
        }
        let next = woken.lock().unwrap().pop_front();
        let index = match next {
            // Now and then somebody is polled for no reason, or given up.
            Some((index, number)) if all[index].ticket == number => index,
            _ if random.below(4) == 0 => usize::try_from(random.next()).unwrap() % all.len(),
            Some(_) => continue,
            None if all.len() < tasks => continue,
            None => break,
        };
        let task = &mut all[index];
        let Some(run) = &mut task.run else { continue };
        if random.below(50) == 0 {
            let run = task.run.take().unwrap();
            if forgets && random.below(2) == 0 {
                std::mem::forget(run);
                forgotten += 1;
                lost_tokens += task.world.tokens.alive();
                lost_leaves += task.world.leaves.alive();
                continue;
            }
            cancel(run);
            cancelled += 1;
            continue;
        }
        // Most polls come with a waker of their own.
        if random.below(4) > 0 {
            task.ticket += 1;
            task.waker = ticket(index, task.ticket);
        }
        let mut context = Context::from_waker(&task.waker);
        match catch_unwind(AssertUnwindSafe(|| Pin::new(run).poll(&mut context))) {
            Ok(Poll::Pending) => continue,
            Ok(Poll::Ready(_)) => returned += 1,
            Err(payload) => {
                assert!(payload.is::<Panicked>(), "an assertion failed on a fiber");
                panicked += 1;
            }
        }
        assert!(!std::thread::panicking());
        task.run = None;
    }
    let mut stuck = 0;
    for (index, task) in all.iter_mut().enumerate() {
        if let Some(run) = task.run.take() {
            assert!(task.world.stuck.get(), "task {index}: a wake-up was lost");
            stuck += 1;
            cancel(run);
        }
    }
    println!(
        "seed {seed}: {returned} returned, {panicked} panicked, {cancelled} cancelled, \
         {forgotten} forgotten, {stuck} stuck"
    );
    assert_eq!(returned + panicked + cancelled + forgotten + stuck, tasks);
    let alive = |census: fn(&World) -> u64| all.iter().map(|task| census(&task.world)).sum::<u64>();
    assert_eq!(alive(|world| world.tokens.alive()), lost_tokens);
    assert_eq!(alive(|world| world.leaves.alive()), lost_leaves);
    for task in &all {
        if task.world.leaves.alive() == 0 {
            assert_eq!(task.world.polled.get(), task.world.due.get());
        }
    }
    let stats = pool.stats();
    if forgotten == 0 {
        assert_eq!(stats.in_use, 0);
    } else {
        assert!(stats.in_use >= forgotten);
    }
    assert_eq!(stats.in_use + stats.warm + stats.cold, stats.high_water);
    assert!(returned > 0 && panicked > 0 && cancelled > 0);
    assert_eq!(forgotten > 0, forgets);
}

fn seeds() -> Vec<u64> {
    match std::env::var("FIBERBACK_SEED") {
        Ok(seed) => vec![seed.parse().expect("FIBERBACK_SEED is a number")],
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let fresh = u64::from(now.unwrap().subsec_nanos());
            vec![1, 2, fresh]
        }
    }
}

#[test]
fn thousands_of_fibers() {
    for seed in seeds() {
        println!("FIBERBACK_SEED={seed}");
        stress(seed, 4000, false);
    }
}

#[test]
fn thousands_of_fibers_some_of_them_forgotten() {
    for seed in seeds() {
        println!("FIBERBACK_SEED={seed}");
        stress(seed, 2000, true);
    }
}

/// Each thread its own fibers, all of them one pool's stacks, which wander between threads.
#[test]
fn threads_share_stacks_but_not_fibers() {
    let pool = StackPool::builder()
        .stack_size(64 << 10)
        .warm_per_thread(4)
        .high_water_mark(16)
        .build()
        .unwrap();
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let pool = pool.clone();
            std::thread::spawn(move || {
                let random = Random(Rc::new(Cell::new(seed)));
                let builder = Builder::new().pool(&pool);
                let mut waiting = VecDeque::new();
                let mut context = Context::from_waker(Waker::noop());
                for n in 0..20_000u64 {
                    let mut run = builder
                        .run(move || {
                            let local = std::hint::black_box([n; 16]);
                            await_(support::yields(1));
                            assert_eq!(local, [n; 16]);
                        })
                        .unwrap();
                    assert!(Pin::new(&mut run).poll(&mut context).is_pending());
                    waiting.push_back(run);
                    if waiting.len() as u64 > random.below(100) {
                        for mut run in waiting.drain(..) {
                            if random.below(5) > 0 {
                                assert!(Pin::new(&mut run).poll(&mut context).is_ready());
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pool.stats().in_use, 0);
}
