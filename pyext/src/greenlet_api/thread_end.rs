//! The end of a thread whose greenlets are suspended: GreenletExit is raised in them, while its thread state can
//! still run their code. No other can.

use super::layout::{Greenlet, Record, drop_ref, new_ref};
use super::object::is_exiting;
use super::{switch, thread};
use crate::thread::Thread;
use crate::worker::Worker;

/// To be called once, at import.
pub(super) fn init() {
    thread::set_at_end(end_greenlets);
}

/// Those that do not end are left suspended, and given up when they are dropped.
unsafe fn end_greenlets(record: *mut Record) {
    if is_exiting() {
        return;
    }
    // SAFETY: attached, on the thread, no error set. Workers in the list are alive, and so are the greenlets that
    // have them; one that is being ended is owned.
    unsafe {
        let thread = Thread::this();
        // What other threads have let go of.
        Thread::read_mail(thread);
        let mut stubborn: Vec<*mut Greenlet> = Vec::new();
        // Ending one may begin others: not for ever.
        let [_, count, _] = Thread::counts(thread);
        for _ in 0..count.saturating_mul(2).saturating_add(64) {
            let mut at = Thread::first_suspended(thread);
            while !at.is_null() && !is_to_end(at, record, &stubborn) {
                at = Thread::next(at);
            }
            if at.is_null() {
                break;
            }
            let greenlet = new_ref((*at).guest.cast());
            switch::kill(record, greenlet);
            if (*(*greenlet).inner).is_active() {
                stubborn.push(greenlet);
            }
            drop_ref(greenlet);
        }
    }
}

unsafe fn is_to_end(worker: *mut Worker, record: *mut Record, stubborn: &[*mut Greenlet]) -> bool {
    // SAFETY: a worker of the thread's list.
    unsafe {
        let greenlet: *mut Greenlet = (*worker).guest.cast();
        !greenlet.is_null()
            && (*(*greenlet).inner).is_away
            && (*(*greenlet).inner).main == (*record).main
            && !stubborn.contains(&greenlet)
    }
}
