//! Real `greenlet` in the same process (SQLAlchemy, Playwright).
//!
//! greenlet moves slices of the C stack to the heap and back to the *same addresses*. Two things
//! follow for portals:
//!
//! * While a task may have greenlets with slices on its stack, it must keep that stack: as soon as
//!   `greenlet` is loaded, a portal keeps its worker for life (see `portal.rs`).
//! * A fiber must not be suspended while a greenlet that was started on it is current: greenlet's
//!   idea of "current" belongs to the thread, not to the fiber. `await_` compares.

use crate::interp;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

type GetCurrent = unsafe extern "C" fn() -> *mut PyObject;

/// `PyGreenlet_GetCurrent`, or null while greenlet is not loaded.
static GET_CURRENT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// `sys.modules`, owned, and the length that it had without greenlet in it.
static MODULES: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
static SEEN_LENGTH: AtomicIsize = AtomicIsize::new(-1);
/// The interned string "greenlet".
static NAME: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// Index of `PyGreenlet_GetCurrent` in the C API capsule; part of greenlet's ABI since 0.4.
const GET_CURRENT_INDEX: usize = 4;

/// True once greenlet has been found by [`look`].
#[inline(always)]
pub(crate) fn is_loaded() -> bool {
    !GET_CURRENT.load(Ordering::Relaxed).is_null()
}

/// True if greenlet may have been imported since [`look`] last looked: `sys.modules` has another
/// length. Cheap enough for every `await_`, and for a fiber it must be known before the first
/// suspension after the import.
///
/// # Safety
///
/// Attached, after [`init`].
#[inline(always)]
pub(crate) unsafe fn may_be_loaded() -> bool {
    let modules = MODULES.load(Ordering::Relaxed).cast::<ffi::PyDictObject>();
    // SAFETY: a dict that is kept alive for ever, and only changed with the GIL held.
    let length = unsafe { (*modules).ma_used };
    length != SEEN_LENGTH.load(Ordering::Relaxed)
}

/// Looks whether greenlet has been imported since, and remembers it.
///
/// # Safety
///
/// Attached, with no exception set, after [`init`].
#[inline]
pub(crate) unsafe fn look() -> bool {
    // SAFETY: passed on.
    is_loaded() || unsafe { may_be_loaded() && look_up() }
}

#[cold]
unsafe fn look_up() -> bool {
    let modules = MODULES.load(Ordering::Relaxed);
    // SAFETY: attached; the look-up neither fails nor runs code for a `str` key in a plain dict.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(modules, NAME.load(Ordering::Relaxed));
        if found.is_null() {
            let length = (*modules.cast::<ffi::PyDictObject>()).ma_used;
            SEEN_LENGTH.store(length, Ordering::Relaxed);
            return false;
        }
        // `sys.modules["greenlet"] = None` forbids the import. The length is not noted, since the
        // module may come in None's place.
        if found == ffi::Py_None() {
            return false;
        }
        // Where this fails (half imported), the length is not noted: the next look looks again.
        // Where it succeeds neither, so that `may_be_loaded` stays true unless by accident; hence
        // whoever asks that asks `is_loaded` too.
        bind()
    }
}

/// Gets the C API of a greenlet that has been imported.
#[cold]
unsafe fn bind() -> bool {
    // SAFETY: attached. The capsule's array has at least 8 entries in every release since 0.4.
    unsafe {
        let api: *const *mut c_void = ffi::PyCapsule_Import(c"greenlet._C_API".as_ptr(), 0).cast();
        if api.is_null() {
            // Half imported (look again later), or not the greenlet we know.
            ffi::PyErr_Clear();
            return false;
        }
        GET_CURRENT.store(*api.add(GET_CURRENT_INDEX), Ordering::Relaxed);
        true
    }
}

/// The current greenlet as a new reference, or null if greenlet is not loaded.
///
/// # Safety
///
/// Attached.
#[inline]
pub(crate) unsafe fn current() -> *mut PyObject {
    let get_current = GET_CURRENT.load(Ordering::Relaxed);
    if get_current.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the function of that type that greenlet published.
    unsafe {
        let get_current: GetCurrent = std::mem::transmute::<*mut c_void, GetCurrent>(get_current);
        let current = get_current();
        if current.is_null() {
            ffi::PyErr_Clear();
        }
        current
    }
}

/// Whether the current greenlet is the thread's main one, or there is none.
///
/// # Safety
///
/// Attached, no error set.
pub(crate) unsafe fn is_main() -> bool {
    // SAFETY: attached; owned references.
    unsafe {
        let now = current();
        if now.is_null() {
            return true;
        }
        let parent = ffi::PyObject_GetAttr(now, crate::names::PARENT.get());
        ffi::Py_DECREF(now);
        ffi::PyErr_Clear();
        ffi::Py_XDECREF(parent);
        parent == ffi::Py_None()
    }
}

/// A thread's main greenlet, and what tells that it is current without asking greenlet, which would
/// take as long as all else in a portal's step.
///
/// A greenlet has a data stack of its own (`PythonState` in greenlet's sources swaps
/// `tstate->datastack_chunk`). The first chunk of the main one's is the thread state's, which frees
/// it last of all. So nobody else's chunk has its address as long as the thread state lives, and where
/// frames go to it, the main greenlet is current.
pub(crate) struct MainGreenlet {
    /// Only compared. It lives as long as the thread.
    greenlet: *mut PyObject,
    chunk: *const c_void,
    /// Whose chunk that is. A thread that Python did not make may have one thread state after another.
    tstate_id: u64,
}

impl MainGreenlet {
    pub(crate) const UNKNOWN: Self =
        Self { greenlet: ptr::null_mut(), chunk: ptr::null(), tstate_id: 0 };

    /// Whether `greenlet` is the main one, and is current: the quick answer, which may be a false no.
    ///
    /// # Safety
    ///
    /// `ts` must be the attached thread state, of the thread that this is about, and its frames go
    /// to no fiber's data stack.
    #[inline(always)]
    pub(crate) unsafe fn is_current(
        &self,
        greenlet: *mut PyObject,
        ts: *mut PyThreadState,
    ) -> bool {
        // SAFETY: passed on.
        let (chunk, id) = unsafe { (interp::data_stack_chunk(ts), interp::thread_state_id(ts)) };
        ptr::eq(chunk, self.chunk)
            && ptr::eq(greenlet, self.greenlet)
            && id == self.tstate_id
            && !greenlet.is_null()
    }

    /// Learns from `now`, the current greenlet.
    ///
    /// # Safety
    ///
    /// As [`is_current`](Self::is_current); no error set.
    #[cold]
    pub(crate) unsafe fn learn(&mut self, now: *mut PyObject, ts: *mut PyThreadState) {
        // SAFETY: passed on.
        unsafe {
            if !self.is_current(now, ts) && interp::is_on_first_chunk(ts) && is_main() {
                let (chunk, tstate_id) =
                    (interp::data_stack_chunk(ts), interp::thread_state_id(ts));
                *self = Self { greenlet: now, chunk, tstate_id };
            }
        }
    }
}

/// Whether there is a greenlet of this thread that has been started and waits: its slices belong to
/// the stack that it was started on, and nothing tells which that is.
///
/// Looks at every object that the collector knows, which takes a millisecond for a hundred thousand.
///
/// # Safety
///
/// Attached, no error set; greenlet is loaded.
pub(crate) unsafe fn any_waits() -> bool {
    // SAFETY: attached; owned references. What is asked of a greenlet allocates nothing.
    unsafe {
        let now = current();
        if now.is_null() {
            return false;
        }
        let main = root_of(now);
        // The class at the root: `greenlet.greenlet`.
        let mut class = ffi::Py_TYPE(now);
        while !(*class).tp_base.is_null() && (*class).tp_base != &raw mut ffi::PyBaseObject_Type {
            class = (*class).tp_base;
        }
        let mut search = Search { class, now, main, found: false };
        visit(&mut search);
        ffi::Py_XDECREF(main);
        ffi::Py_DECREF(now);
        search.found
    }
}

struct Search {
    class: *mut ffi::PyTypeObject,
    now: *mut PyObject,
    main: *mut PyObject,
    found: bool,
}

impl Search {
    /// Looks at one object.
    unsafe fn look_at(&mut self, object: *mut PyObject) {
        // SAFETY: attached; a valid object.
        unsafe {
            if ffi::PyObject_TypeCheck(object, self.class) == 0
                || object == self.now
                || object == self.main
                || ffi::PyObject_IsTrue(object) != 1
            {
                return;
            }
            // True means started and not finished.
            let root = root_of(object);
            ffi::Py_XDECREF(root);
            self.found |= root == self.main;
        }
    }
}

#[cfg(not(cpython = "3.11"))]
unsafe fn visit(search: &mut Search) {
    type Visit = unsafe extern "C" fn(*mut PyObject, *mut c_void) -> std::ffi::c_int;
    unsafe extern "C" {
        fn PyUnstable_GC_VisitObjects(callback: Visit, argument: *mut c_void);
    }
    unsafe extern "C" fn callback(object: *mut PyObject, search: *mut c_void) -> std::ffi::c_int {
        // SAFETY: what `visit` passed.
        unsafe {
            let search = &mut *search.cast::<Search>();
            search.look_at(object);
            (!search.found).into()
        }
    }
    // SAFETY: attached; the callback neither makes nor drops objects that the collector knows.
    unsafe { PyUnstable_GC_VisitObjects(callback, ptr::from_mut(search).cast()) }
}

#[cfg(cpython = "3.11")]
unsafe fn visit(search: &mut Search) {
    // SAFETY: attached; the list owns its items.
    unsafe {
        let gc = ffi::PyImport_ImportModule(c"gc".as_ptr());
        let all = if gc.is_null() {
            gc
        } else {
            ffi::PyObject_CallMethod(gc, c"get_objects".as_ptr(), ptr::null())
        };
        ffi::Py_XDECREF(gc);
        if all.is_null() {
            ffi::PyErr_Clear();
            search.found = true; // as far as we know
            return;
        }
        for index in 0..ffi::PyList_GET_SIZE(all) {
            search.look_at(ffi::PyList_GET_ITEM(all, index));
        }
        ffi::Py_DECREF(all);
    }
}

/// The greenlet at the root of `greenlet`'s line of parents (its thread's main greenlet), as a new
/// reference; null if `greenlet` is null or has parents that cannot be read.
///
/// # Safety
///
/// Attached; `greenlet` borrowed, or null.
pub(crate) unsafe fn root_of(greenlet: *mut PyObject) -> *mut PyObject {
    if greenlet.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: attached; each step owns the reference that it looks at.
    unsafe {
        let mut root = ffi::Py_NewRef(greenlet);
        loop {
            let parent = ffi::PyObject_GetAttr(root, crate::names::PARENT.get());
            if parent.is_null() {
                ffi::PyErr_Clear();
                ffi::Py_DECREF(root);
                return ptr::null_mut();
            }
            if parent == ffi::Py_None() {
                ffi::Py_DECREF(parent);
                return root;
            }
            ffi::Py_DECREF(root);
            root = parent;
        }
    }
}

/// Whether a greenlet whose parent is `greenlet` (borrowed) would end in `now`: they are the same,
/// or all from `greenlet` up to `now` are dead, and greenlet goes on to the parent of a dead one.
///
/// # Safety
///
/// Attached, no error set; both valid.
pub(crate) unsafe fn ends_in(greenlet: *mut PyObject, now: *mut PyObject) -> bool {
    // SAFETY: attached; each step owns the reference that it looks at.
    unsafe {
        let mut parent = ffi::Py_NewRef(greenlet);
        loop {
            if parent == now {
                ffi::Py_DECREF(parent);
                return true;
            }
            let dead = ffi::PyObject_GetAttr(parent, crate::names::DEAD.get());
            let is_dead = !dead.is_null() && ffi::PyObject_IsTrue(dead) == 1;
            ffi::Py_XDECREF(dead);
            let next = if is_dead {
                ffi::PyObject_GetAttr(parent, crate::names::PARENT.get())
            } else {
                ptr::null_mut()
            };
            ffi::Py_DECREF(parent);
            if next.is_null() || next == ffi::Py_None() {
                ffi::Py_XDECREF(next);
                ffi::PyErr_Clear();
                return false;
            }
            parent = next;
        }
    }
}

/// False with an error set on failure.
///
/// # Safety
///
/// Attached.
pub(crate) unsafe fn init() -> bool {
    // SAFETY: attached; the reference is kept for ever.
    let name = unsafe { ffi::PyUnicode_InternFromString(c"greenlet".as_ptr()) };
    NAME.store(name, Ordering::Relaxed);
    // SAFETY: attached; the reference is kept for ever.
    let modules = unsafe { ffi::Py_XNewRef(ffi::PyImport_GetModuleDict()) };
    MODULES.store(modules, Ordering::Relaxed);
    if modules.is_null() {
        crate::error::set_runtime("the interpreter has no sys.modules");
    }
    !name.is_null() && !modules.is_null()
}
