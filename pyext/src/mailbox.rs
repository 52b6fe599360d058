//! What other threads leave for a thread that only it can do.
//!
//! # Invariant
//!
//! Mail is read by the thread that owns the mailbox, attached. A mailbox outlives its thread: closed, it takes
//! nothing any more, and what was in it stays undone for ever.

use crate::fallbacks;
use pyo3::ffi::PyObject;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module docs.
pub(crate) struct Mailbox {
    has_mail: AtomicBool,
    /// `None` once the thread is dead.
    mail: Mutex<Option<Vec<Mail>>>,
}

/// Something that only the thread that it is for can do with an object.
pub(crate) struct Mail {
    /// What is called with the object, attached and with no error set, which takes the reference over.
    pub(crate) action: unsafe fn(*mut PyObject),
    /// Owned.
    pub(crate) object: *mut PyObject,
}

// SAFETY: the object is only given to the action, by the thread that owns the mailbox, which is attached.
unsafe impl Send for Mail {}

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self { has_mail: AtomicBool::new(false), mail: Mutex::new(Some(Vec::new())) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Mail>>> {
        // A panic cannot leave the vector half changed.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread is dead.
    pub(crate) fn close(&self) {
        drop(self.lock().take());
    }

    /// Whether the thread is dead.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    /// Has the thread look for what is to be done soon, as if there were mail.
    #[inline]
    pub(crate) fn ring(&self) {
        self.has_mail.store(true, Ordering::Release);
    }

    /// Leaves `mail` for the thread. Gives it back if the thread is dead.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), Mail> {
        match &mut *self.lock() {
            Some(box_) => {
                box_.push(mail);
                self.has_mail.store(true, Ordering::Release);
                Ok(())
            }
            None => Err(mail),
        }
    }

    /// Does what other threads have left to do.
    ///
    /// # Safety
    ///
    /// Attached, on the thread that the mailbox is of.
    #[inline(always)]
    pub(crate) unsafe fn read(this: &Arc<Self>) {
        if this.has_mail.load(Ordering::Relaxed) {
            // SAFETY: passed on. The mailbox is held meanwhile: what is done may be any code.
            unsafe { Arc::clone(this).read_slowly() }
        }
    }

    #[cold]
    unsafe fn read_slowly(&self) {
        self.has_mail.store(false, Ordering::Relaxed);
        // SAFETY: attached.
        unsafe { fallbacks::tell_due() };
        let mail = self.lock().as_mut().map(std::mem::take).unwrap_or_default();
        for Mail { action, object } in mail {
            // SAFETY: attached; the reference is handed over.
            unsafe { action(object) }
        }
    }
}
