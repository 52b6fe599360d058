//! Which portals serve a task for the length of one call (`with_portal_run…`).
//!
//! Such a portal is not the task's coroutine, so asking the task does not tell. It is noted here,
//! under the task's address, from when it is made until its coroutine has ended or it is dropped;
//! calls in one task nest, so each portal remembers the one that it is inside of.
//!
//! # Invariant
//!
//! A portal's record is in the table, or reached from there along `outer`, exactly while its `task` is
//! not null; `tp_dealloc` takes it out. Neither keeps the other alive. A portal that is never dropped,
//! since it is suspended in a leaked cycle, stays; so an entry counts only for the very task that
//! it was made for, not for a later one at the same address: a weak reference tells.
//!
//! All of it is used with the GIL held only.

use crate::error;
use pyo3::ffi::{self, PyObject};
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr;

/// What a portal knows of the call that it serves. All null for the others.
pub(crate) struct Scope {
    /// A weak reference to the task; owned.
    task: *mut PyObject,
    address: usize,
    /// Borrowed.
    portal: *mut PyObject,
    /// That of the call around this one in the same task.
    outer: *mut Self,
}

impl Scope {
    pub(crate) const NONE: Self =
        Self { task: ptr::null_mut(), address: 0, portal: ptr::null_mut(), outer: ptr::null_mut() };

    #[inline(always)]
    fn is_some(&self) -> bool {
        !self.task.is_null()
    }
}

/// Addresses are as good as random from the fourth bit on.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an address is hashed as usize")
    }

    fn write_usize(&mut self, address: usize) {
        // The table takes the bucket from the low bits and a tag from the high ones.
        let mixed = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Scopes = HashMap<usize, *mut Scope, BuildHasherDefault<AddressHasher>>;

struct Table(UnsafeCell<Option<Scopes>>);

// SAFETY: only touched with the GIL held (module docs), and no borrow of it lasts over a call that
// could release that.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new(None));

/// The table; for one expression.
///
/// # Safety
///
/// Attached, and no other borrow is alive.
#[inline(always)]
unsafe fn table<'a>() -> &'a mut Scopes {
    // SAFETY: the contract.
    unsafe { (*TABLE.0.get()).get_or_insert_with(Scopes::default) }
}

/// Notes that `portal`, whose record is `scope`, serves `task` from now on. False with an error set on
/// failure.
///
/// # Safety
///
/// Attached; valid objects, and the record stays where it is until [`leave`].
pub(crate) unsafe fn enter(scope: *mut Scope, portal: *mut PyObject, task: *mut PyObject) -> bool {
    // SAFETY: attached; the table is borrowed for single expressions, and what is in it is alive.
    unsafe {
        if (*scope).is_some() {
            return true;
        }
        let weak = ffi::PyWeakref_NewRef(task, ptr::null_mut());
        if weak.is_null() {
            return false;
        }
        if table().try_reserve(1).is_err() {
            ffi::Py_DECREF(weak);
            error::set_no_memory();
            return false;
        }
        let address = task.addr();
        let outer = table().insert(address, scope).unwrap_or(ptr::null_mut());
        *scope = Scope { portal, task: weak, address, outer };
        true
    }
}

/// Forgets a portal, if it was noted.
///
/// # Safety
///
/// Attached; the record of a portal that is alive, be it for the last time.
#[inline(always)]
pub(crate) unsafe fn leave(scope: *mut Scope) {
    // SAFETY: passed on.
    unsafe {
        if (*scope).is_some() {
            take_out(scope);
        }
    }
}

unsafe fn take_out(scope: *mut Scope) {
    // SAFETY: attached. The portals of one task form a list, by the invariant, and all in it are
    // alive. Dropping the weak reference, which has no callback, runs no code.
    unsafe {
        let Scope { task, address, outer, .. } = std::mem::replace(&mut *scope, Scope::NONE);
        let innermost = table().get(&address).copied().unwrap_or(ptr::null_mut());
        if innermost == scope {
            if outer.is_null() {
                table().remove(&address);
            } else {
                table().insert(address, outer);
            }
        } else {
            let mut inner = innermost;
            while !inner.is_null() {
                if (*inner).outer == scope {
                    (*inner).outer = outer;
                    break;
                }
                inner = (*inner).outer;
            }
        }
        ffi::Py_DECREF(task);
    }
}

/// The portal that serves `task`, as a new reference: that of its innermost call. Null if there is none,
/// or with an error set.
///
/// # Safety
///
/// Attached, no error set; a valid object.
pub(crate) unsafe fn portal_for(task: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; lent. The portal found is held while its weak reference is called.
    unsafe {
        let scope = table().get(&task.addr()).copied().unwrap_or(ptr::null_mut());
        if scope.is_null() {
            return ptr::null_mut();
        }
        let portal = ffi::Py_NewRef((*scope).portal);
        let of = ffi::PyObject_CallNoArgs((*scope).task);
        ffi::Py_XDECREF(of);
        if of == task {
            return portal;
        }
        ffi::Py_DECREF(portal);
        ptr::null_mut()
    }
}
