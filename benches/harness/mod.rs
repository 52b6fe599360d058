//! Measures cases in turn, in one process, so that whatever else the machine does hits all of them
//! alike, and compares them round by round.
//!
//! In each round every case is timed once, over so many iterations that a sample takes about a
//! millisecond. What is reported is the median over the rounds: of a case's time, or of the ratio
//! of two cases' times in the same round. Not every bench uses everything here.

#![allow(dead_code)]

pub(crate) mod runtimes;

use std::task::Poll;
use std::time::{Duration, Instant};

/// True under `cargo bench`; otherwise (`cargo test --benches`) a bench only shows that it works.
pub(crate) fn in_earnest() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Pending once.
pub(crate) async fn yielding() {
    let mut had = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One way to do something, and its samples so far, in nanoseconds per iteration.
struct Case<'a> {
    name: &'static str,
    iterations: u64,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
    samples: Vec<f64>,
}

/// Cases that are measured in turn.
#[derive(Default)]
pub(crate) struct Bench<'a> {
    cases: Vec<Case<'a>>,
}

impl<'a> Bench<'a> {
    /// Adds a case: `run` does something the given number of times and says how long that took.
    pub(crate) fn case(&mut self, name: &'static str, run: impl FnMut(u64) -> Duration + 'a) {
        self.cases.push(Case { name, iterations: 1, run: Box::new(run), samples: Vec::new() });
    }

    /// With `--only CASE N` on the command line: runs that case N times, and says true. For tools that count,
    /// as callgrind does: the difference of two runs with different N is what is in the loop.
    pub(crate) fn runs_only_one(&mut self) -> bool {
        let mut arguments = std::env::args().skip_while(|argument| argument != "--only").skip(1);
        let Some(name) = arguments.next() else { return false };
        let times = arguments.next().and_then(|times| times.parse().ok()).expect("how many times");
        let case = self.cases.iter_mut().find(|case| case.name == name);
        (case.unwrap_or_else(|| panic!("no case is called '{name}'")).run)(times);
        true
    }

    /// Takes `rounds` samples of each case.
    pub(crate) fn measure(&mut self, rounds: usize) {
        let sample = Duration::from_millis(1);
        let rounds = if in_earnest() { rounds } else { 3 };
        for case in &mut self.cases {
            let began = Instant::now();
            // The shortest of three: where others take the processor, one alone says that it is enough too early.
            while (0..3).map(|_| (case.run)(case.iterations)).min() < Some(sample / 2)
                && began.elapsed() < 60 * sample
            {
                case.iterations *= 2;
            }
        }
        for _ in 0..rounds {
            for case in &mut self.cases {
                let took = (case.run)(case.iterations);
                case.samples.push(took.as_nanos() as f64 / case.iterations as f64);
            }
        }
    }

    fn samples(&self, name: &str) -> &[f64] {
        let case = self.cases.iter().find(|case| case.name == name);
        &case.unwrap_or_else(|| panic!("no case is called '{name}'")).samples
    }

    /// Nanoseconds per iteration.
    pub(crate) fn nanoseconds(&self, name: &str) -> f64 {
        median(self.samples(name).to_vec())
    }

    /// How many times longer `name` takes than all of `base` together.
    pub(crate) fn ratio(&self, name: &str, base: &[&str]) -> f64 {
        let rounds = self.samples(name).iter().enumerate();
        median(
            rounds
                .map(|(round, sample)| {
                    sample / base.iter().map(|name| self.samples(name)[round]).sum::<f64>()
                })
                .collect(),
        )
    }

    /// Prints what each case takes.
    pub(crate) fn print_times(&self) {
        let width = self.cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for case in &self.cases {
            println!("{:width$}  {:>10}", case.name, show(self.nanoseconds(case.name)));
        }
    }

    /// Prints one ratio, with its target if it has one.
    pub(crate) fn print_ratio(&self, name: &str, base: &[&str], target: Option<Target>) {
        let ratio = self.ratio(name, base);
        let verdict = target.map_or(String::new(), |target| target.verdict(ratio));
        println!("{name} / {}: {ratio:.2}{verdict}", base.join(" + "));
    }
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    /// To print behind the figure.
    pub(crate) fn verdict(self, figure: f64) -> String {
        let (met, sign, bound) = match self {
            Self::AtMost(bound) => (figure <= bound, "<=", bound),
            Self::AtLeast(bound) => (figure >= bound, ">=", bound),
        };
        format!("   (target {sign} {bound}: {})", if met { "met" } else { "MISSED" })
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A time in its best unit.
pub(crate) fn show(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}
