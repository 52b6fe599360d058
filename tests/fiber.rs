//! The switch: values both ways, ends, cancellation, ambient state, misuse.

mod support;

use fiberback::fiber::{Ambient, Fiber, StackPool, Step, SuspendError, Suspender};
use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use support::{Drops, OnDrop};

fn stack() -> fiberback::fiber::Stack {
    StackPool::global().take().unwrap()
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("<not a message>")
}

#[test]
fn values_go_both_ways() {
    let mut fiber = Fiber::new(stack(), |suspender: &Suspender<u64, String>, first| {
        let mut sum = first;
        while sum < 100 {
            sum += suspender.suspend(format!("so far {sum}")).unwrap();
        }
        sum
    });
    assert!(!fiber.is_started());
    assert_eq!(fiber.resume(40), Step::Yield("so far 40".into()));
    assert!(fiber.is_started() && !fiber.is_done());
    assert_eq!(fiber.resume(50), Step::Yield("so far 90".into()));
    assert_eq!(fiber.resume(60), Step::Return(150));
    assert!(fiber.is_done());
}

#[test]
fn zero_sized_values_switch() {
    let mut fiber = Fiber::new(stack(), |suspender: &Suspender<(), ()>, ()| {
        for _ in 0..3 {
            suspender.suspend(()).unwrap();
        }
    });
    for _ in 0..3 {
        assert_eq!(fiber.resume(()), Step::Yield(()));
    }
    assert_eq!(fiber.resume(()), Step::Return(()));
}

#[test]
fn values_of_16_kib_and_more_switch_both_ways() {
    type Large = [u8; 20 << 10];
    let captured: Large = [3; 20 << 10];
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<Large, Large>, first| {
        let second = suspender.suspend([first[7] + captured[9]; 20 << 10]).unwrap();
        vec![second[0] + captured[1]; 20 << 10]
    });
    match fiber.resume([1; 20 << 10]) {
        Step::Yield(value) => assert!(value.iter().all(|&byte| byte == 4)),
        Step::Return(_) => panic!("returned"),
    }
    match fiber.resume([2; 20 << 10]) {
        Step::Return(value) => assert!(value.iter().all(|&byte| byte == 5)),
        Step::Yield(_) => panic!("suspended"),
    }
}

#[test]
fn a_large_result_is_returned_whole() {
    let mut fiber = Fiber::new(stack(), |_: &Suspender<(), ()>, ()| [7u16; 30_000]);
    match fiber.resume(()) {
        Step::Return(value) => assert!(value.iter().all(|&word| word == 7)),
        Step::Yield(()) => panic!("suspended"),
    }
}

#[test]
fn closures_of_every_size_run_and_are_dropped_once() {
    fn check<const N: usize>() {
        let drops = Drops::new();
        let (guard, bytes) = (drops.guard(), [5u8; N]);
        let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
            let _guard = guard;
            suspender.suspend(()).unwrap();
            bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>()
        });
        assert_eq!(fiber.resume(()), Step::Yield(()));
        assert_eq!(fiber.resume(()), Step::Return(5 * N));
        drop(fiber);
        assert_eq!(drops.count(), 1, "closure of {N} bytes");

        let (guard, bytes) = (drops.guard(), [5u8; N]);
        drop(Fiber::new(stack(), move |_: &Suspender<(), ()>, ()| {
            let _guard = &guard;
            bytes.len()
        }));
        assert_eq!(drops.count(), 2, "unstarted closure of {N} bytes");
    }
    check::<0>();
    check::<1>();
    check::<100>();
    check::<496>();
    check::<504>();
    check::<512>();
    check::<1024>();
    check::<16384>();
    check::<100_000>();
}

#[test]
fn over_aligned_captures_stay_aligned() {
    macro_rules! check {
        ($align:literal) => {{
            #[repr(align($align))]
            struct Aligned([u8; 3]);
            #[repr(align($align))]
            struct Empty;
            let (value, empty) = (Aligned([1, 2, 3]), Empty);
            let mut fiber = Fiber::new(stack(), move |_: &Suspender<(), ()>, ()| {
                let (value, empty) = (value, empty);
                assert_eq!(value.0, [1, 2, 3]);
                let addresses = [(&raw const value).addr(), (&raw const empty).addr()];
                addresses.map(|address| address % $align)
            });
            assert_eq!(fiber.resume(()), Step::Return([0, 0]));
            let empty = Empty;
            let mut fiber = Fiber::new(stack(), move |_: &Suspender<(), ()>, ()| {
                (&raw const empty).addr() % $align
            });
            assert_eq!(fiber.resume(()), Step::Return(0));
        }};
    }
    check!(16);
    check!(32);
    check!(64);
    check!(128);
    check!(512);
    check!(4096);
}

#[test]
fn fibers_nest_and_interleave() {
    let mut outer = Fiber::new(stack(), |suspender: &Suspender<i32, i32>, first| {
        let mut inner = Fiber::new(stack(), |suspender: &Suspender<i32, i32>, mut n| {
            loop {
                let Ok(next) = suspender.suspend(n * 2) else { return -1 };
                n = next;
            }
        });
        let mut n = first;
        for _ in 0..3 {
            let Step::Yield(doubled) = inner.resume(n) else { panic!("inner returned") };
            n = suspender.suspend(doubled + 1).unwrap();
        }
        n
    });
    assert_eq!(outer.resume(10), Step::Yield(21));
    assert_eq!(outer.resume(100), Step::Yield(201));
    assert_eq!(outer.resume(1000), Step::Yield(2001));
    assert_eq!(outer.resume(5), Step::Return(5));
}

#[test]
fn a_hundred_fibers_deep() {
    fn nest(levels: u32) -> u32 {
        if levels == 0 {
            return 0;
        }
        let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<u32, u32>, one| {
            let below = nest(levels - 1);
            one + suspender.suspend(below).unwrap()
        });
        let Step::Yield(below) = fiber.resume(1) else { panic!("returned") };
        let Step::Return(sum) = fiber.resume(below) else { panic!("suspended") };
        sum
    }
    assert_eq!(nest(100), 100);
}

#[test]
fn resuming_a_fiber_that_is_done_panics_and_says_so() {
    let mut fiber = Fiber::new(stack(), |_: &Suspender<String, ()>, text| text.len());
    assert_eq!(fiber.resume("four".into()), Step::Return(4));
    let payload = catch_unwind(AssertUnwindSafe(|| fiber.resume("x".into()))).unwrap_err();
    assert!(message(&*payload).contains("resumed a fiber that is done"));
    fiber.cancel();
    assert!(fiber.into_stack().is_some());
}

#[test]
fn a_panic_comes_out_of_resume_with_its_payload() {
    struct Payload(Box<u32>);
    let drops = Drops::new();
    let guard = drops.guard();
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
        let _guard = guard;
        suspender.suspend(()).unwrap();
        std::panic::resume_unwind(Box::new(Payload(Box::new(77))));
    });
    assert_eq!(fiber.resume(()), Step::<(), ()>::Yield(()));
    let payload = catch_unwind(AssertUnwindSafe(|| fiber.resume(()))).err().unwrap();
    assert_eq!(*payload.downcast::<Payload>().ok().unwrap().0, 77);
    assert!(fiber.is_done());
    assert_eq!(drops.count(), 1);
    assert!(!std::thread::panicking());
    assert!(fiber.into_stack().is_some());
}

#[test]
fn a_suspender_refuses_to_work_from_another_fiber() {
    let mut outer = Fiber::new(stack(), |outer_suspender: &Suspender<(), u8>, ()| {
        // SAFETY: the inner fiber ends within this call, and `outer_suspender` outlives it.
        let mut inner = unsafe {
            Fiber::new_unchecked(stack(), |_: &Suspender<(), u8>, ()| {
                let payload =
                    catch_unwind(AssertUnwindSafe(|| outer_suspender.suspend(9))).unwrap_err();
                assert!(message(&*payload).contains("from outside the fiber it belongs to"));
                1
            })
        };
        let Step::Return(one) = inner.resume(()) else { panic!("inner suspended") };
        // And still works from its own.
        outer_suspender.suspend(2).unwrap();
        one
    });
    assert_eq!(outer.resume(()), Step::Yield(2));
    assert_eq!(outer.resume(()), Step::Return(1));
}

#[test]
fn cancelling_refuses_suspension_and_discards_the_result() {
    let (drops, errors) = (Drops::new(), Rc::new(RefCell::new(Vec::new())));
    let (result, seen) = (drops.guard(), errors.clone());
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
        for _ in 0..3 {
            let error: SuspendError = suspender.suspend(()).unwrap_err();
            seen.borrow_mut().push((error.is_cancelled(), error.is_unwinding()));
        }
        result
    });
    assert!(matches!(fiber.resume(()), Step::Yield(())));
    fiber.cancel();
    assert_eq!(*errors.borrow(), [(true, false); 3]);
    assert!(fiber.is_done());
    assert_eq!(drops.count(), 1);
    fiber.cancel();
    assert!(fiber.into_stack().is_some());
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_cancelled_fiber_may_unwind_with_the_error() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
        let _guard = guard;
        match suspender.suspend(()) {
            Ok(()) => {}
            Err(error) => error.unwind(),
        }
    });
    assert_eq!(fiber.resume(()), Step::Yield(()));
    drop(fiber);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_panic_of_a_cancelled_fiber_comes_out_of_cancel() {
    let mut fiber = Fiber::new(stack(), |suspender: &Suspender<(), ()>, ()| {
        suspender.suspend(()).unwrap_err();
        std::panic::resume_unwind(Box::new("cleaning up failed"));
    });
    assert_eq!(fiber.resume(()), Step::<(), ()>::Yield(()));
    let payload = catch_unwind(AssertUnwindSafe(|| fiber.cancel())).unwrap_err();
    assert_eq!(message(&*payload), "cleaning up failed");
    assert!(fiber.is_done());
    assert!(fiber.into_stack().is_some());
}

#[test]
fn a_panic_in_the_result_of_a_cancelled_fiber_comes_out_of_drop_and_the_stack_goes_back() {
    let pool = StackPool::builder().stack_size(64 << 10).build().unwrap();
    let mut fiber = Fiber::new(pool.take().unwrap(), |suspender: &Suspender<(), ()>, ()| {
        suspender.suspend(()).unwrap_err();
        OnDrop(|| std::panic::resume_unwind(Box::new("in the result")))
    });
    assert!(matches!(fiber.resume(()), Step::Yield(())));
    assert_eq!(pool.stats().in_use, 1);
    let payload = catch_unwind(AssertUnwindSafe(|| drop(fiber))).unwrap_err();
    assert_eq!(message(&*payload), "in the result");
    assert_eq!(pool.stats().in_use, 0);
}

/// Its first drop panics, after which the compiler still drops the field.
struct Bomb(Drops, #[allow(dead_code)] Box<u32>);

impl Drop for Bomb {
    fn drop(&mut self) {
        drop(self.0.guard());
        std::panic::resume_unwind(Box::new("bomb"));
    }
}

#[test]
fn a_capture_of_an_unstarted_fiber_that_panics_when_dropped_is_dropped_once() {
    for cancel_first in [false, true] {
        let drops = Drops::new();
        let pool = StackPool::builder().stack_size(64 << 10).build().unwrap();
        let bomb = Bomb(drops.clone(), Box::new(1));
        let mut fiber = Fiber::new(pool.take().unwrap(), move |_: &Suspender<(), ()>, ()| {
            let _ = &bomb;
        });
        let payload = catch_unwind(AssertUnwindSafe(|| {
            if cancel_first {
                fiber.cancel();
            }
            drop(fiber);
        }))
        .unwrap_err();
        assert_eq!(message(&*payload), "bomb");
        assert_eq!(drops.count(), 1);
        assert_eq!(pool.stats().in_use, 0);
    }
}

#[test]
fn dropping_an_unstarted_fiber_drops_its_closure_without_running_it() {
    let (drops, ran) = (Drops::new(), Rc::new(Cell::new(false)));
    let (guard, flag) = (drops.guard(), ran.clone());
    drop(Fiber::new(stack(), move |_: &Suspender<(), ()>, ()| {
        let _guard = guard;
        flag.set(true);
    }));
    assert_eq!(drops.count(), 1);
    assert!(!ran.get());
}

#[test]
fn into_stack_gives_the_stack_for_the_next_fiber() {
    let pool = StackPool::builder().stack_size(64 << 10).build().unwrap();
    let first = pool.take().unwrap();
    let range = first.range();
    let mut fiber = Fiber::new(first, |_: &Suspender<(), ()>, ()| 1);
    assert_eq!(fiber.stack_range(), range);
    assert_eq!(fiber.resume(()), Step::Return(1));
    let again = fiber.into_stack().unwrap();
    assert_eq!(again.range(), range);
    let mut fiber = Fiber::new(again, |_: &Suspender<(), ()>, ()| 2);
    assert_eq!(fiber.resume(()), Step::Return(2));
    drop(fiber);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn into_stack_of_a_fiber_that_is_not_done_cancels_it() {
    let drops = Drops::new();
    let guard = drops.guard();
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
        let _guard = guard;
        let _ = suspender.suspend(());
    });
    assert_eq!(fiber.resume(()), Step::Yield(()));
    assert!(fiber.into_stack().is_none());
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_leaked_fiber_keeps_its_stack_for_ever() {
    for forget in [false, true] {
        let pool = StackPool::builder().stack_size(64 << 10).build().unwrap();
        let drops = Drops::new();
        let guard = drops.guard();
        let mut fiber =
            Fiber::new(pool.take().unwrap(), move |suspender: &Suspender<(), *const u64>, ()| {
                let _guard = guard;
                let local = std::hint::black_box(0x1234_5678_9abc_def0_u64);
                suspender.suspend(&raw const local).unwrap();
            });
        let range = fiber.stack_range();
        let Step::Yield(pointer) = fiber.resume(()) else { panic!("returned") };
        if forget {
            mem::forget(fiber);
        } else {
            fiber.leak();
        }
        assert_eq!(pool.stats().in_use, 1);
        for _ in 0..200 {
            let other = pool.take().unwrap();
            assert_ne!(other.range(), range);
            mem::forget(other);
        }
        pool.trim();
        drop(pool);
        // SAFETY: what this test is about: the frame is still there.
        assert_eq!(unsafe { *pointer }, 0x1234_5678_9abc_def0);
        assert_eq!(drops.count(), 0);
    }
}

#[test]
fn frames_are_inside_the_range() {
    let mut fiber = Fiber::new(stack(), |suspender: &Suspender<(), usize>, ()| {
        let local = std::hint::black_box(1u8);
        let _ = suspender.suspend((&raw const local).addr());
    });
    let range = fiber.stack_range();
    let Step::Yield(address) = fiber.resume(()) else { panic!("returned") };
    assert!(range.contains(&address));
}

#[test]
fn names_are_replaced_and_shown() {
    let mut fiber = Fiber::new(stack(), |_: &Suspender<(), ()>, ()| ());
    assert!(format!("{fiber:?}").contains("<unnamed>"));
    fiber.set_name("first");
    assert!(format!("{fiber:?}").contains("first"));
    fiber.set_name("second, with ünïcode");
    let shown = format!("{fiber:?}");
    assert!(shown.contains("second, with ünïcode") && !shown.contains("first"));
    assert!(shown.contains("started: false") && shown.contains("done: false"), "{shown}");
    fiber.set_name("");
    assert_eq!(fiber.resume(()), Step::Return(()));
    assert!(format!("{fiber:?}").contains("done: true"));
}

/// Records its calls; checks that they come in pairs.
#[derive(Default)]
struct Recorder {
    entered: bool,
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl Ambient for Recorder {
    fn enter(&mut self) {
        assert!(!self.entered);
        self.entered = true;
        self.log.borrow_mut().push("enter");
    }

    fn leave(&mut self) {
        assert!(self.entered);
        self.entered = false;
        self.log.borrow_mut().push("leave");
    }
}

#[test]
fn ambient_state_is_swapped_around_every_switch() {
    let mut ambient = Recorder::default();
    let (log, inside) = (ambient.log.clone(), ambient.log.clone());
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
        inside.borrow_mut().push("one");
        suspender.suspend(()).unwrap();
        inside.borrow_mut().push("two");
    });
    assert_eq!(fiber.resume_with(&mut ambient, ()), Step::Yield(()));
    assert_eq!(fiber.resume_with(&mut ambient, ()), Step::Return(()));
    assert_eq!(*log.borrow(), ["enter", "one", "leave", "enter", "two", "leave"]);
}

#[test]
fn ambient_state_is_swapped_back_when_the_fiber_panics() {
    let mut ambient = Recorder::default();
    let log = ambient.log.clone();
    let mut fiber = Fiber::new(stack(), |_: &Suspender<(), ()>, ()| {
        std::panic::resume_unwind(Box::new(()));
    });
    let result: Result<Step<(), ()>, _> =
        catch_unwind(AssertUnwindSafe(|| fiber.resume_with(&mut ambient, ())));
    assert!(result.is_err());
    assert_eq!(*log.borrow(), ["enter", "leave"]);
    fiber.cancel_with(&mut ambient);
    assert_eq!(*log.borrow(), ["enter", "leave"], "a fiber that is done is not entered");
}

#[test]
fn ambient_state_is_swapped_around_cancellation() {
    for panics in [false, true] {
        let mut ambient = Recorder::default();
        let (log, inside) = (ambient.log.clone(), ambient.log.clone());
        let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
            suspender.suspend(()).unwrap_err();
            inside.borrow_mut().push("cleans up");
            if panics {
                std::panic::resume_unwind(Box::new(()));
            }
        });
        assert_eq!(fiber.resume(()), Step::Yield(()));
        let result = catch_unwind(AssertUnwindSafe(|| fiber.cancel_with(&mut ambient)));
        assert_eq!(result.is_err(), panics);
        assert_eq!(*log.borrow(), ["enter", "cleans up", "leave"]);
    }
}

/// Sees, from `leave`, the thread off the fiber again.
#[test]
fn ambient_state_is_swapped_on_the_resumers_stack() {
    struct Where(Vec<usize>);
    impl Ambient for Where {
        fn enter(&mut self) {
            let here = 0u8;
            self.0.push((&raw const here).addr());
        }
        fn leave(&mut self) {
            let here = 0u8;
            self.0.push((&raw const here).addr());
            assert!(!fiberback::on_fiber());
        }
    }
    let mut fiber = Fiber::new(stack(), |_: &Suspender<(), ()>, ()| ());
    let range = fiber.stack_range();
    let mut ambient = Where(Vec::new());
    assert_eq!(fiber.resume_with(&mut ambient, ()), Step::Return(()));
    assert_eq!(ambient.0.len(), 2);
    assert!(ambient.0.iter().all(|address| !range.contains(address)));
}

#[test]
fn an_ambient_that_panics_in_enter_leaves_the_fiber_where_it_was() {
    struct Once(bool);
    impl Ambient for Once {
        fn enter(&mut self) {
            if !mem::replace(&mut self.0, true) {
                std::panic::resume_unwind(Box::new("enter"));
            }
        }
        fn leave(&mut self) {}
    }
    let mut fiber = Fiber::new(stack(), |suspender: &Suspender<u8, u8>, one| {
        one + suspender.suspend(one).unwrap()
    });
    let mut ambient = Once(false);
    let result = catch_unwind(AssertUnwindSafe(|| fiber.resume_with(&mut ambient, 1)));
    assert!(result.is_err());
    assert!(!fiber.is_started());
    assert_eq!(fiber.resume_with(&mut ambient, 2), Step::Yield(2));
    ambient.0 = false;
    let result = catch_unwind(AssertUnwindSafe(|| fiber.resume_with(&mut ambient, 1)));
    assert!(result.is_err());
    assert_eq!(fiber.resume_with(&mut ambient, 3), Step::Return(5));
}

/// Panics in `enter`, or in `leave`, when told to.
#[derive(Default)]
struct Unruly {
    panics: Cell<&'static str>,
}

impl Ambient for Unruly {
    fn enter(&mut self) {
        if self.panics.get() == "enter" {
            std::panic::resume_unwind(Box::new("enter"));
        }
    }
    fn leave(&mut self) {
        if self.panics.get() == "leave" {
            std::panic::resume_unwind(Box::new("leave"));
        }
    }
}

#[test]
fn a_fiber_is_cancelled_although_its_ambient_panics() {
    for panics in ["enter", "leave"] {
        let drops = Drops::new();
        let (inside, refused) = (drops.clone(), Rc::new(Cell::new(false)));
        let seen = refused.clone();
        let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), ()>, ()| {
            let _guard = inside.guard();
            let error = suspender.suspend(()).unwrap_err();
            // On the fiber, and not by an unwinding that nobody asked for.
            seen.set(error.is_cancelled() && !std::thread::panicking());
            assert!(suspender.suspend(()).unwrap_err().is_cancelled());
        });
        let mut ambient = Unruly::default();
        assert_eq!(fiber.resume_with(&mut ambient, ()), Step::Yield(()));
        ambient.panics.set(panics);
        let result = catch_unwind(AssertUnwindSafe(|| fiber.cancel_with(&mut ambient)));
        assert_eq!(message(&*result.unwrap_err()), panics);
        assert!(refused.get(), "{panics}");
        assert_eq!(drops.count(), 1, "{panics}");
        assert!(fiber.is_done());
        drop(fiber);
    }
}

#[test]
fn a_panic_on_the_fiber_comes_before_one_of_its_ambient() {
    let mut ambient = Unruly::default();
    ambient.panics.set("leave");
    let mut fiber = Fiber::new(stack(), |_: &Suspender<(), ()>, ()| {
        std::panic::resume_unwind(Box::new("the fiber"));
    });
    let result: Result<Step<(), ()>, _> =
        catch_unwind(AssertUnwindSafe(|| fiber.resume_with(&mut ambient, ())));
    assert_eq!(message(&*result.unwrap_err()), "the fiber");
}

#[test]
fn what_an_ambient_keeps_from_arriving_is_dropped() {
    struct Counted(#[allow(dead_code)] support::DropGuard);
    let drops = Drops::new();
    let inside = drops.clone();
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<Counted, Counted>, _| {
        drop(suspender.suspend(Counted(inside.guard())));
        Counted(inside.guard())
    });
    let mut ambient = Unruly::default();
    for (panics, dropped) in [("enter", 1), ("leave", 2), ("leave", 5)] {
        ambient.panics.set(panics);
        let input = Counted(drops.guard());
        let result = catch_unwind(AssertUnwindSafe(|| fiber.resume_with(&mut ambient, input)));
        assert!(result.is_err());
        drop(result);
        assert_eq!(drops.count(), dropped, "{panics}");
    }
    assert!(fiber.is_done());
}

#[test]
fn suspending_while_a_panic_unwinds_the_fiber_is_refused() {
    let seen = Rc::new(Cell::new(None));
    let inside = seen.clone();
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<(), String>, ()| {
        let _guard = OnDrop(|| {
            inside.set(Some(suspender.suspend("not delivered".into()).unwrap_err()));
        });
        std::panic::resume_unwind(Box::new("the panic"));
    });
    let result: Result<Step<String, ()>, _> = catch_unwind(AssertUnwindSafe(|| fiber.resume(())));
    assert_eq!(message(&*result.unwrap_err()), "the panic");
    assert!(seen.take().unwrap().is_unwinding());
    assert!(!std::thread::panicking());
}

#[test]
fn an_unread_input_and_an_undelivered_yield_are_dropped() {
    struct Counted(#[allow(dead_code)] support::DropGuard);
    let drops = Drops::new();
    let inside = drops.clone();
    let mut fiber = Fiber::new(stack(), move |suspender: &Suspender<Counted, Counted>, first| {
        drop(first);
        let second = suspender.suspend(Counted(inside.guard())).ok().unwrap();
        drop(second);
        // Cancelled here; the yielded value arrives all the same.
        assert!(suspender.suspend(Counted(inside.guard())).is_err());
        // Refused: the value is dropped.
        assert!(suspender.suspend(Counted(inside.guard())).is_err());
    });
    assert!(matches!(fiber.resume(Counted(drops.guard())), Step::Yield(_)));
    assert_eq!(drops.count(), 2);
    assert!(matches!(fiber.resume(Counted(drops.guard())), Step::Yield(_)));
    assert_eq!(drops.count(), 4);
    drop(fiber);
    assert_eq!(drops.count(), 5);
}

#[test]
fn a_backtrace_goes_on_into_the_resumer() {
    #[inline(never)]
    fn on_the_fiber() -> String {
        std::hint::black_box(std::backtrace::Backtrace::force_capture().to_string())
    }
    #[inline(never)]
    fn resumes_it() -> String {
        let stack = StackPool::global().take().unwrap();
        let mut fiber = Fiber::new(stack, |_: &Suspender<(), ()>, ()| on_the_fiber());
        match fiber.resume(()) {
            Step::Return(text) => std::hint::black_box(text),
            Step::Yield(()) => unreachable!("it does not suspend"),
        }
    }
    let text = resumes_it();
    let frames: Vec<_> = text.lines().filter(|line| !line.trim().starts_with("at ")).collect();
    let places = |name: &str| {
        let places = frames.iter().enumerate().filter(|(_, line)| line.ends_with(name));
        places.map(|(place, _)| place).collect::<Vec<_>>()
    };
    let (inner, outer) = (places("on_the_fiber"), places("resumes_it"));
    assert!(inner.len() == 1 && outer.len() == 1 && inner < outer, "{text}");
}
