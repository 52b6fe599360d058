//! Compares what we were built for with the interpreter that runs us, before any of its private
//! fields is written.
//!
//! Every offset that [`State`](super::State) uses is read through at least one check here that has
//! another source for the same value: the public API, or what the interpreter says about itself
//! (`_PyRuntime.debug_offsets`). Where a field can be made to change by a public call, it is
//! watched while it changes.

use super::facts::{self, field};
use super::shared::{Chunk, ErrStackItem, Frame};
use super::unlike;
use super::version::Version;
use crate::messages;
use pyo3::ffi::{self, PyObject, PyThreadState};
use std::ffi::CStr;
use std::fmt::Debug;
use std::ptr::{self, NonNull};

/// Checks everything. The error is for people.
pub(crate) fn run() -> Result<(), String> {
    refuse_other_builds()?;
    check_all().map_err(|what| unlike::text(&what))
}

/// What can be told from public facts alone, with the message that each deserves.
fn refuse_other_builds() -> Result<(), String> {
    // SAFETY: reads a constant of the interpreter.
    let running = unsafe { ffi::Py_Version } as u32;
    let built = facts::BUILT_VERSION_HEX as u32;
    if running >> 16 != built >> 16 {
        let minor = |version: u32| format!("{}.{}", version >> 24, version >> 16 & 0xff);
        return Err(messages::OTHER_PYTHON
            .replace("{built}", &minor(built))
            .replace("{running}", &minor(running)));
    }
    // SAFETY: attached; a borrowed reference or null.
    let flags = unsafe {
        let flags = ffi::PySys_GetObject(c"abiflags".as_ptr());
        let text = if flags.is_null() { ptr::null() } else { ffi::PyUnicode_AsUTF8(flags) };
        if text.is_null() {
            ffi::PyErr_Clear();
            String::new()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    if flags.contains('t') || facts::BUILT_FREE_THREADED != 0 {
        return Err(messages::FREE_THREADED.to_string());
    }
    if flags.contains('d') || facts::BUILT_DEBUG != 0 {
        return Err(messages::DEBUG_BUILD.to_string());
    }
    // SAFETY: attached.
    if unsafe { ffi::PyInterpreterState_Get() != ffi::PyInterpreterState_Main() } {
        return Err(messages::SUB_INTERPRETER.to_string());
    }
    Ok(())
}

fn expect<T: PartialEq + Debug>(what: &str, expected: T, found: T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, found {found:?}"))
}

fn check_all() -> Result<(), String> {
    #[cfg(not(any(cpython = "3.11", cpython = "3.12")))]
    check_debug_offsets()?;
    Version::preflight()?;
    // SAFETY: attached, so there is a thread state.
    let ts = unsafe { ffi::PyThreadState_Get() };
    check_identity(ts)?;
    check_recursion(ts)?;
    check_raised_exception(ts)?;
    check_handled_exception(ts)?;
    check_context(ts)?;
    check_tracing(ts)?;
    check_data_stack(ts)?;
    check_frames(ts)?;
    #[cfg(not(cpython = "3.11"))]
    check_instrumentation(ts)?;
    check_coroutines()
}

/// The interpreter's own table of offsets, made for debuggers.
#[cfg(not(any(cpython = "3.11", cpython = "3.12")))]
fn check_debug_offsets() -> Result<(), String> {
    // SAFETY: looks a name up among the symbols of the process.
    let runtime: *mut u8 =
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_PyRuntime".as_ptr()) }.cast();
    if runtime.is_null() {
        // Not exported by this interpreter; the other checks remain.
        return Ok(());
    }
    // SAFETY: the table is the first thing in the structure, and begins with a cookie; it is read
    // no further unless that is right.
    let (table, cookie) = unsafe {
        let table = runtime.byte_offset(facts::RUNTIME_DEBUG_OFFSETS);
        (table, table.cast::<[u8; 8]>().read())
    };
    expect("_PyRuntime.debug_offsets.cookie", *b"xdebugpy", cookie)?;
    // SAFETY: a table with the cookie has these entries, by the headers.
    let entry = |offset: isize| unsafe { *field::<_, u64>(table, offset) } as isize;
    expect(
        "minor version in debug_offsets",
        facts::BUILT_VERSION_HEX >> 16,
        entry(facts::DEBUG_VERSION) >> 16,
    )?;
    expect("free-threaded in debug_offsets", 0, entry(facts::DEBUG_FREE_THREADED))?;
    for (what, expected, offset) in [
        ("PyThreadState.interp", facts::TS_INTERP, facts::DEBUG_TS_INTERP),
        ("PyThreadState.current_frame", facts::TS_CURRENT_FRAME, facts::DEBUG_TS_CURRENT_FRAME),
        ("PyThreadState.thread_id", facts::TS_THREAD_ID, facts::DEBUG_TS_THREAD_ID),
        #[cfg(any(cpython = "3.14", cpython = "3.15"))]
        ("PyThreadState.eval_breaker", facts::TS_EVAL_BREAKER, facts::DEBUG_TS_EVAL_BREAKER),
        (
            "PyThreadState.datastack_chunk",
            facts::TS_DATASTACK_CHUNK,
            facts::DEBUG_TS_DATASTACK_CHUNK,
        ),
        ("sizeof(_PyInterpreterFrame)", facts::FRAME_SIZE, facts::DEBUG_FRAME_SIZE),
        ("_PyInterpreterFrame.previous", facts::FRAME_PREVIOUS, facts::DEBUG_FRAME_PREVIOUS),
        ("_PyInterpreterFrame.f_executable", facts::FRAME_CODE, facts::DEBUG_FRAME_EXECUTABLE),
        ("_PyInterpreterFrame.instr_ptr", facts::FRAME_INSTR, facts::DEBUG_FRAME_INSTR),
        ("_PyInterpreterFrame.owner", facts::FRAME_OWNER, facts::DEBUG_FRAME_OWNER),
        ("PyCodeObject.co_code_adaptive", facts::CODE_ADAPTIVE, facts::DEBUG_CODE_ADAPTIVE),
    ] {
        expect(&format!("offset of {what}"), expected, entry(offset))?;
    }
    Ok(())
}

fn check_identity(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: attached; reads fields of the thread state.
    unsafe {
        let interp: *mut ffi::PyInterpreterState = *field(ts, facts::TS_INTERP);
        expect("tstate->interp", ffi::PyInterpreterState_Get(), interp)?;
        expect("tstate->id", ffi::PyThreadState_GetID(ts) as u64, super::thread_state_id(ts))?;
        let thread: std::ffi::c_ulong = *field(ts, facts::TS_THREAD_ID);
        expect("tstate->thread_id", ffi::PyThread_get_thread_ident(), thread)
    }
}

fn check_recursion(ts: *mut PyThreadState) -> Result<(), String> {
    #[cfg(cpython = "3.11")]
    let (limit_at, remaining_at) = (facts::TS_RECURSION_LIMIT, facts::TS_RECURSION_REMAINING);
    #[cfg(not(cpython = "3.11"))]
    let (limit_at, remaining_at) = (facts::TS_PY_RECURSION_LIMIT, facts::TS_PY_RECURSION_REMAINING);
    // SAFETY: attached; reads fields of the thread state. The limit is put back.
    unsafe {
        let read = || (*field::<_, i32>(ts, limit_at), *field::<_, i32>(ts, remaining_at));
        let limit = ffi::Py_GetRecursionLimit();
        let before = read();
        expect("the thread's recursion limit", limit, before.0)?;
        ffi::Py_SetRecursionLimit(limit + 7);
        let moved = read();
        ffi::Py_SetRecursionLimit(limit);
        expect("recursion limit and remainder after +7", (before.0 + 7, before.1 + 7), moved)?;
    }
    #[cfg(any(cpython = "3.11", cpython = "3.12", cpython = "3.13"))]
    // SAFETY: as above; the call that is entered is left again.
    unsafe {
        #[cfg(cpython = "3.11")]
        let at = facts::TS_RECURSION_REMAINING;
        #[cfg(not(cpython = "3.11"))]
        let at = facts::TS_C_RECURSION_REMAINING;
        let before = *field::<_, i32>(ts, at);
        if ffi::Py_EnterRecursiveCall(c" in fiberback's self-check".as_ptr()) != 0 {
            ffi::PyErr_Clear();
            return Err("Py_EnterRecursiveCall failed".to_string());
        }
        let entered = *field::<_, i32>(ts, at);
        ffi::Py_LeaveRecursiveCall();
        expect("C recursion counter after one call", before - 1, entered)?;
    }
    Ok(())
}

fn check_raised_exception(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: attached; reads a field of the thread state. No error is set, before and after.
    unsafe {
        let raised = || *field::<_, *mut PyObject>(ts, facts::TS_CURRENT_EXCEPTION);
        expect("tstate's raised exception when there is none", ptr::null_mut(), raised())?;
        ffi::PyErr_SetString(ffi::PyExc_LookupError, c"fiberback's self-check".as_ptr());
        let now = raised();
        let exception = crate::error::take();
        // 3.11 keeps the class apart from the instance.
        let expected = if cfg!(cpython = "3.11") { ffi::PyExc_LookupError } else { exception };
        let result = expect("tstate's raised exception", expected, now);
        ffi::Py_DECREF(exception);
        result
    }
}

fn check_handled_exception(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: attached. What is handled is replaced by a fresh exception and put back; both calls
    // borrow (`PyErr_SetHandledException` takes its own reference).
    unsafe {
        let before = ffi::PyErr_GetHandledException();
        let sample = ffi::PyObject_CallNoArgs(ffi::PyExc_LookupError);
        ffi::PyErr_SetHandledException(sample);
        let item: *mut ErrStackItem = *field(ts, facts::TS_EXC_INFO);
        let found = if item.is_null() { ptr::null_mut() } else { (*item).exc_value() };
        ffi::PyErr_SetHandledException(before);
        let result = expect("tstate->exc_info->exc_value", sample, found);
        ffi::Py_XDECREF(before);
        ffi::Py_XDECREF(sample);
        result
    }
}

fn check_context(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: attached; the context that is entered is left again.
    unsafe {
        let context = ffi::PyContext_CopyCurrent();
        if context.is_null() || ffi::PyContext_Enter(context) != 0 {
            ffi::PyErr_Clear();
            ffi::Py_XDECREF(context);
            return Err("a context could not be entered".to_string());
        }
        let version = *field::<_, u64>(ts, facts::TS_CONTEXT_VER);
        let found = *field::<_, *mut PyObject>(ts, facts::TS_CONTEXT);
        ffi::PyContext_Exit(context);
        let after = *field::<_, u64>(ts, facts::TS_CONTEXT_VER);
        let result = expect("tstate->context", context, found)
            .and_then(|()| expect("tstate->context_ver after an exit", version + 1, after));
        ffi::Py_DECREF(context);
        result
    }
}

fn check_tracing(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: attached; what is entered is left again.
    unsafe {
        let before = *field::<_, i32>(ts, facts::TS_TRACING);
        ffi::PyThreadState_EnterTracing(ts);
        let entered = *field::<_, i32>(ts, facts::TS_TRACING);
        ffi::PyThreadState_LeaveTracing(ts);
        expect("tstate->tracing after entering", before + 1, entered)?;
        // Next to it: what is being traced, one of few events, or nothing.
        let event = *field::<_, i32>(ts, facts::TS_TRACED_EVENT);
        if !(-1..32).contains(&event) {
            return Err(format!("the event being traced: expected -1 to 31, found {event}"));
        }
        Ok(())
    }
}

fn check_data_stack(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: reads fields of the thread state; the chunk is read only if its place is plausible.
    unsafe {
        let chunk = Chunk::current(ts);
        let top: usize = *field(ts, facts::TS_DATASTACK_TOP);
        let limit: usize = *field(ts, facts::TS_DATASTACK_LIMIT);
        let start = chunk.addr();
        if chunk.is_null() && top == 0 && limit == 0 {
            // No Python function has run on this thread yet.
            return Ok(());
        }
        let data = start + facts::CHUNK_DATA as usize;
        if start % 8 != 0 || !(data <= top && top <= limit) {
            return Err(format!(
                "the data stack: expected chunk <= top <= limit, found {start:#x}, {top:#x}, \
                 {limit:#x}"
            ));
        }
        expect("the data stack chunk's size", limit - start, (*chunk).size())
    }
}

fn check_frames(ts: *mut PyThreadState) -> Result<(), String> {
    // SAFETY: attached; `PyThreadState_GetFrame` gives a new reference or null. The chain of
    // frames is followed from a field that the next lines check, no further than to the frame that
    // the public API names, and at most a few steps: only incomplete frames are above that.
    unsafe {
        let object: *mut PyObject = ffi::PyThreadState_GetFrame(ts).cast();
        if object.is_null() {
            return Ok(());
        }
        let expected: *mut Frame = *field(object, facts::FRAME_OBJ_FRAME);
        let mut frame = Version::current_frame(ts);
        let first = frame;
        for _ in 0..4 {
            if frame.is_null() || frame == expected {
                break;
            }
            frame = *field(frame, facts::FRAME_PREVIOUS);
        }
        ffi::Py_DECREF(object);
        if frame != expected {
            return Err(format!(
                "the current frame: expected {expected:?} or an incomplete frame above it, found \
                 {first:?}"
            ));
        }
        let back: *mut PyObject = *field(frame, facts::FRAME_FRAME_OBJ);
        expect("the current frame's frame object", object, back)
    }
}

/// The code that runs is up to date with what the interpreter instruments: it is on a thread's chain.
#[cfg(not(cpython = "3.11"))]
fn check_instrumentation(ts: *mut PyThreadState) -> Result<(), String> {
    use super::instrumentation::{Instrumented, is_instrumentable};
    // SAFETY: attached; new references, null only where there is no frame.
    unsafe {
        let frame = ffi::PyThreadState_GetFrame(ts);
        if frame.is_null() {
            return Ok(());
        }
        let code: *mut PyObject = ffi::PyFrame_GetCode(frame).cast();
        let mut found = Instrumented::of_code(code);
        let expected = Instrumented::now(ts);
        if !is_instrumentable(code) {
            found = expected; // It never is.
        }
        ffi::Py_DECREF(code);
        ffi::Py_DECREF(frame.cast());
        expect("the version that running code is instrumented for", expected, found)
    }
}

fn check_coroutines() -> Result<(), String> {
    let source = c"(lambda: (yield))()";
    // SAFETY: attached; plain API calls. A generator has a coroutine's layout.
    unsafe {
        let scope = ffi::PyDict_New();
        let generator = ffi::PyRun_StringFlags(
            source.as_ptr(),
            ffi::Py_eval_input,
            scope,
            scope,
            ptr::null_mut(),
        );
        ffi::Py_XDECREF(scope);
        if generator.is_null() {
            ffi::PyErr_Clear();
            return Err("a generator could not be made".to_string());
        }
        let created = super::coroutine_state(generator);
        let yielded = ffi::PyIter_Next(generator);
        let suspended = super::coroutine_state(generator);
        ffi::Py_XDECREF(yielded);
        let end = ffi::PyIter_Next(generator);
        let finished = super::coroutine_state(generator);
        let marked = {
            let before = super::references::set_finalized(generator, true);
            let marked = ffi::PyObject_GC_IsFinalized(generator) != 0;
            super::references::set_finalized(generator, before);
            (before, marked, ffi::PyObject_GC_IsFinalized(generator) != 0)
        };
        ffi::Py_XDECREF(end);
        ffi::PyErr_Clear();
        ffi::Py_DECREF(generator);
        use super::CoroutineState::{Created, Finished, Suspended};
        expect("the collector's mark on a generator", (false, true, false), marked)?;
        expect(
            "a generator's states",
            [Created, Suspended, Finished],
            [created, suspended, finished],
        )
    }
}

/// After the first write: with a fiber's state in place, the interpreter must still see the frames
/// below as if nothing were there, and with it taken out all must be as before.
pub(crate) fn rehearse() -> Result<(), String> {
    // SAFETY: attached. The state is entered and left without a switch in between, which is no
    // different to the interpreter from a fiber that does nothing; it is boxed, hence pinned, and
    // what it has for a data stack is dropped after it. Its
    // stack range is only a number here, and is the thread's own as far as a check could tell.
    unsafe {
        let ts = ffi::PyThreadState_Get();
        let here = (&raw const ts).addr();
        let mut data_stack = Box::new([0usize; 512]);
        let memory = NonNull::from(&mut *data_stack).cast::<u8>();
        let memory = NonNull::slice_from_raw_parts(memory, size_of_val(&*data_stack));
        let stack = here - 256 * 1024..here + 64 * 1024;
        let mut state = Box::new(super::State::new(stack, memory));
        state.pin();
        let before = ffi::PyThreadState_GetFrame(ts);
        state.enter(ts, None);
        let inside = ffi::PyThreadState_GetFrame(ts);
        state.leave(ts);
        let after = ffi::PyThreadState_GetFrame(ts);
        let clean = super::State::settle(&raw mut *state);
        state.free();
        for frame in [before, inside, after] {
            ffi::Py_XDECREF(frame.cast());
        }
        expect("the frame seen from a fiber", before, inside)?;
        expect("the frame seen after a fiber", before, after)?;
        expect("a fiber's state after doing nothing", true, clean)
    }
    .map_err(|what| unlike::text(&format!("in a rehearsal, {what}")))
}
