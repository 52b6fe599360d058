//! One async object, called from every kind of place.
#![cfg(feature = "tokio")]

mod support;

use fiberback::{Facade, await_, run};
use std::cell::Cell;
use std::future::pending;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use support::{Drops, poll_once};
use tokio::runtime::{Builder, Handle, Id, Runtime};
use tokio::sync::{mpsc, oneshot};

/// Has a task, at its home, which answers.
struct Object {
    made_in: Id,
    ask: mpsc::Sender<oneshot::Sender<Id>>,
}

impl Object {
    fn new() -> Self {
        let (ask, mut asked) = mpsc::channel::<oneshot::Sender<Id>>(1);
        tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = answer.send(Handle::current().id());
            }
        });
        Self { made_in: Handle::current().id(), ask }
    }

    /// Where it was made, where its task runs, and where this is.
    async fn homes(&self) -> [Id; 3] {
        let (tell, told) = oneshot::channel();
        self.ask.send(tell).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        [self.made_in, told.await.unwrap(), Handle::current().id()]
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn at_home(facade: &Facade<Object>, home: Id) {
    assert_eq!(facade.call(Object::homes), [home; 3]);
    // A method that looks for its runtime before it is a future.
    facade.call(|_: &Object| tokio::time::sleep(Duration::from_millis(1)));
}

/// Calls it everywhere.
fn in_all_places(facade: Facade<Object>, home: Id) {
    let facade: &'static _ = Box::leak(Box::new(facade));
    // A plain thread.
    thread::spawn(move || at_home(facade, home)).join().unwrap();
    // Fibers of two runtimes, the first of which is gone by then.
    for _ in 0..2 {
        current_thread().block_on(run(move || at_home(facade, home)));
    }
    // A fiber without any runtime of its own.
    fiberback::block_on(run(move || at_home(facade, home)));
    // Threads that may block.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for runtime in [&runtime, &current_thread()] {
        runtime.block_on(runtime.spawn_blocking(move || at_home(facade, home))).unwrap();
    }
    runtime
        .block_on(async {
            tokio::spawn(async move { tokio::task::block_in_place(|| at_home(facade, home)) }).await
        })
        .unwrap();
    // Those that may not.
    let error = runtime.block_on(async { facade.try_call(Object::homes).unwrap_err() });
    assert!(error.is_in_runtime());
}

#[test]
fn its_home_is_the_background_runtime() {
    let home = fiberback::tokio::background::handle().unwrap().id();
    in_all_places(Facade::new(Object::new).unwrap(), home);
}

#[test]
fn or_another() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let facade = Facade::in_runtime(runtime.handle().clone(), Object::new);
    in_all_places(facade, runtime.handle().id());
}

#[test]
fn calls_of_two_fibers_overlap_and_leave_their_own_runtime_alone() {
    let facade = Rc::new(Facade::new(Object::new).unwrap());
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    current_thread().block_on(async move {
        let here = Handle::current().id();
        let calling = {
            let facade = Rc::clone(&facade);
            run(move || {
                let homes = facade.call(Object::homes);
                // Back in the fiber's own.
                assert_ne!(Handle::current().id(), homes[2]);
                assert_eq!(Handle::current().id(), here);
                await_(tokio::time::sleep(Duration::from_millis(1)));
            })
        };
        let other = async {
            loop {
                assert_eq!(Handle::current().id(), here);
                counted.set(counted.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = calling => {}, () = other => {} }
    });
    assert!(turns.get() > 0);
}

#[test]
fn a_call_is_cancelled_with_its_fiber_and_panics_with_its_method() {
    let facade: &'static Facade<()> = Box::leak(Box::new(Facade::new(|| ()).unwrap()));
    let drops = Drops::new();
    let guard = drops.guard();
    let mut waits = run(move || {
        facade.call(async |()| {
            let _guard = guard;
            pending::<()>().await;
        });
    });
    assert!(poll_once(&mut waits).is_pending());
    drop(waits);
    assert_eq!(drops.count(), 1);
    let panicked = catch_unwind(|| facade.call(async |()| panic!("in the method")));
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "in the method");
    assert_eq!(facade.call(async |()| 1), 1);
}
