/* Facts about CPython's structures, taken from the headers of the interpreter that we build for.
 *
 * Nothing here runs and nothing of this file is linked: `build/facts.rs` compiles it, finds the table in
 * the object file by its magic, and writes a Rust constant for each entry. All logic is in Rust.
 *
 * An entry that a version does not have is left out here; the Rust file of that version then does
 * not name it, and one that names it by mistake does not compile.
 */
#define Py_BUILD_CORE 1
#include <Python.h>

/* The headers are the target's, or nothing below is true of it. `build/headers.rs` has compared the version. */
#if FIBERBACK_FREE_THREADED && !defined(Py_GIL_DISABLED)
#  error "these are the headers of a default build of CPython, and the module is built for a free-threaded one"
#elif !FIBERBACK_FREE_THREADED && defined(Py_GIL_DISABLED)
#  error "these are the headers of a free-threaded CPython, and the module is built for a default build"
#endif
#if defined(_WIN32) && !defined(MS_WINDOWS)
#  error "this pyconfig.h is not that of a CPython for Windows"
#elif defined(__APPLE__) && !defined(HAVE_KQUEUE)
#  error "this pyconfig.h is not that of a CPython for macOS"
#elif defined(__linux__) && !defined(HAVE_EPOLL)
#  error "this pyconfig.h is not that of a CPython for Linux"
#endif
#define IS_SIZE_OF(size, type) \
    _Static_assert((size) == sizeof(type), "this pyconfig.h is that of a CPython where " #type " has another size")
IS_SIZE_OF(SIZEOF_VOID_P, void *);
IS_SIZE_OF(SIZEOF_INT, int);
IS_SIZE_OF(SIZEOF_LONG, long);
IS_SIZE_OF(SIZEOF_SIZE_T, size_t);
IS_SIZE_OF(SIZEOF_WCHAR_T, wchar_t);
IS_SIZE_OF(SIZEOF_TIME_T, time_t);
#ifdef SIZEOF_PTHREAD_T
IS_SIZE_OF(SIZEOF_PTHREAD_T, pthread_t);
#endif

#include <stddef.h>
#include "opcode.h"
#include "internal/pycore_code.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_context.h"
#include "internal/pycore_gc.h"
#if PY_VERSION_HEX >= 0x030C0000
#  include "internal/pycore_interp.h"
#endif
#if PY_VERSION_HEX >= 0x030D0000
#  include "internal/pycore_ceval.h"
#  include "internal/pycore_runtime.h"
#endif
#if PY_VERSION_HEX >= 0x030E0000
#  include "internal/pycore_genobject.h"
#  include "internal/pycore_interpframe.h"
#  include "internal/pycore_interpframe_structs.h"
#  include "internal/pycore_debug_offsets.h"
#endif

struct fact {
    char name[48];
    long long value;
};

#define FACT(name, value) { #name, (long long)(value) }
#define FIELD(name, type, field) FACT(name, offsetof(type, field))

struct table {
    char magic[16];
    long long count;
    struct fact facts[128];
};

const struct table fiberback_layout = {
    "fiberback-facts",
    0x0102030405060708LL, /* tells build/facts.rs the byte order, and that it found the real thing */
    {
        FACT(BUILT_VERSION_HEX, PY_VERSION_HEX),
#ifdef Py_DEBUG
        FACT(BUILT_DEBUG, 1),
#else
        FACT(BUILT_DEBUG, 0),
#endif
#ifdef Py_GIL_DISABLED
        FACT(BUILT_FREE_THREADED, 1),
#else
        FACT(BUILT_FREE_THREADED, 0),
#endif

        /* PyThreadState: Include/cpython/pystate.h, struct _ts. Never _PyThreadStateImpl, which
         * patch releases have grown in front of its own fields. */
        FIELD(TS_INTERP, PyThreadState, interp),
        FIELD(TS_ID, PyThreadState, id),
        FIELD(TS_THREAD_ID, PyThreadState, thread_id),
        FIELD(TS_TRACING, PyThreadState, tracing),
#if PY_VERSION_HEX >= 0x030C0000
        FIELD(TS_TRACED_EVENT, PyThreadState, what_event),
#else
        FIELD(TS_TRACED_EVENT, PyThreadState, tracing_what),
#endif
        FIELD(TS_TRACE_OBJECT, PyThreadState, c_traceobj),
        FIELD(TS_PROFILE_FUNCTION, PyThreadState, c_profilefunc),
        FIELD(TS_PROFILE_OBJECT, PyThreadState, c_profileobj),
        FIELD(TS_EXC_INFO, PyThreadState, exc_info),
        FIELD(TS_CONTEXT, PyThreadState, context),
        FIELD(TS_CONTEXT_VER, PyThreadState, context_ver),
        FIELD(TS_DATASTACK_CHUNK, PyThreadState, datastack_chunk),
        FIELD(TS_DATASTACK_TOP, PyThreadState, datastack_top),
        FIELD(TS_DATASTACK_LIMIT, PyThreadState, datastack_limit),
#if PY_VERSION_HEX < 0x030C0000
        FIELD(TS_RECURSION_REMAINING, PyThreadState, recursion_remaining),
        FIELD(TS_RECURSION_LIMIT, PyThreadState, recursion_limit),
        FIELD(TS_CURRENT_EXCEPTION, PyThreadState, curexc_type),
        FIELD(TS_TRASH_NESTING, PyThreadState, trash_delete_nesting),
#else
        FIELD(TS_PY_RECURSION_REMAINING, PyThreadState, py_recursion_remaining),
        FIELD(TS_PY_RECURSION_LIMIT, PyThreadState, py_recursion_limit),
        FIELD(TS_CURRENT_EXCEPTION, PyThreadState, current_exception),
#  if PY_VERSION_HEX < 0x030E0000
        FIELD(TS_C_RECURSION_REMAINING, PyThreadState, c_recursion_remaining),
#    ifdef Py_C_RECURSION_LIMIT
        FACT(C_RECURSION_LIMIT, Py_C_RECURSION_LIMIT),
#    else
        FACT(C_RECURSION_LIMIT, C_RECURSION_LIMIT),
#    endif
#  endif
#  if PY_VERSION_HEX < 0x030D0000
        FIELD(TS_TRASH_NESTING, PyThreadState, trash.delete_nesting),
#  endif
#endif
#if PY_VERSION_HEX < 0x030D0000
        FIELD(TS_CFRAME, PyThreadState, cframe),
        FACT(CFRAME_SIZE, sizeof(_PyCFrame)),
        FIELD(CFRAME_CURRENT_FRAME, _PyCFrame, current_frame),
        FIELD(CFRAME_PREVIOUS, _PyCFrame, previous),
#  if PY_VERSION_HEX < 0x030C0000
        FIELD(CFRAME_USE_TRACING, _PyCFrame, use_tracing),
#  endif
#else
        FIELD(TS_CURRENT_FRAME, PyThreadState, current_frame),
#endif
#if PY_VERSION_HEX >= 0x030E0000
        FIELD(TS_CURRENT_EXECUTOR, PyThreadState, current_executor),
#elif PY_VERSION_HEX >= 0x030D0000
        FIELD(TS_PREVIOUS_EXECUTOR, PyThreadState, previous_executor),
#endif
#if PY_VERSION_HEX >= 0x030D0000
        /* The version of what is instrumented; below it, requests. */
        FIELD(TS_EVAL_BREAKER, PyThreadState, eval_breaker),
        FACT(EVAL_EVENTS_MASK, _PY_EVAL_EVENTS_MASK),
#elif PY_VERSION_HEX >= 0x030C0000
        FIELD(INTERP_MONITORING_VERSION, PyInterpreterState, monitoring_version),
#endif
#if PY_VERSION_HEX >= 0x030F0000
        FIELD(TS_JIT_EXIT, PyThreadState, jit_exit),
#endif

        /* _PyErr_StackItem and _PyStackChunk: same header. */
        FACT(EXC_SIZE, sizeof(_PyErr_StackItem)),
        FIELD(EXC_VALUE, _PyErr_StackItem, exc_value),
        FIELD(EXC_PREVIOUS, _PyErr_StackItem, previous_item),
        FIELD(CHUNK_PREVIOUS, _PyStackChunk, previous),
        FIELD(CHUNK_SIZE, _PyStackChunk, size),
        FIELD(CHUNK_TOP, _PyStackChunk, top),
        FIELD(CHUNK_DATA, _PyStackChunk, data),

        /* _PyInterpreterFrame: internal/pycore_frame.h, from 3.14 pycore_interpframe_structs.h. */
        FACT(FRAME_SIZE, sizeof(_PyInterpreterFrame)),
        FIELD(FRAME_PREVIOUS, _PyInterpreterFrame, previous),
        FIELD(FRAME_OWNER, _PyInterpreterFrame, owner),
        FIELD(FRAME_FRAME_OBJ, _PyInterpreterFrame, frame_obj),
#if PY_VERSION_HEX >= 0x030E0000
        FACT(FRAME_BASE_OWNER, FRAME_OWNED_BY_INTERPRETER),
#else
        FACT(FRAME_BASE_OWNER, FRAME_OWNED_BY_THREAD),
#endif
#if PY_VERSION_HEX < 0x030D0000
        FIELD(FRAME_CODE, _PyInterpreterFrame, f_code),
        FIELD(FRAME_INSTR, _PyInterpreterFrame, prev_instr),
#else
        FIELD(FRAME_CODE, _PyInterpreterFrame, f_executable),
        FIELD(FRAME_INSTR, _PyInterpreterFrame, instr_ptr),
#endif
        FACT(FRAME_OWNED_BY_THREAD, FRAME_OWNED_BY_THREAD),
        FACT(FRAME_OWNED_BY_GENERATOR, FRAME_OWNED_BY_GENERATOR),
        FIELD(FRAME_LOCALS, _PyInterpreterFrame, f_locals),
        FIELD(FRAME_SLOTS, _PyInterpreterFrame, localsplus),
#if PY_VERSION_HEX < 0x030C0000
        FIELD(FRAME_FUNCTION, _PyInterpreterFrame, f_func),
#else
        FIELD(FRAME_FUNCTION, _PyInterpreterFrame, f_funcobj),
#endif
#if PY_VERSION_HEX < 0x030E0000
        FIELD(FRAME_STACK_TOP, _PyInterpreterFrame, stacktop),
#else
        FIELD(FRAME_STACK_POINTER, _PyInterpreterFrame, stackpointer),
#endif
        FIELD(FRAME_OBJ_FRAME, PyFrameObject, f_frame),

        /* PyCodeObject: cpython/code.h. */
        FIELD(CODE_SLOTS, PyCodeObject, co_nlocalsplus),
        FIELD(CODE_STACK_SIZE, PyCodeObject, co_stacksize),
        FIELD(CODE_FLAGS, PyCodeObject, co_flags),
        FIELD(CODE_ADAPTIVE, PyCodeObject, co_code_adaptive),
        FIELD(CODE_FIRST_TRACEABLE, PyCodeObject, _co_firsttraceable),
#if PY_VERSION_HEX >= 0x030C0000
        FIELD(CODE_INSTRUMENTATION_VERSION, PyCodeObject, _co_instrumentation_version),
        FIELD(CODE_MONITORING, PyCodeObject, _co_monitoring),
#  ifdef CO_NO_MONITORING_EVENTS
        FACT(CODE_NO_MONITORING_EVENTS, CO_NO_MONITORING_EVENTS),
#  else
        FACT(CODE_NO_MONITORING_EVENTS, 0),
#  endif
#endif
        FACT(CODE_UNIT_SIZE, sizeof(_Py_CODEUNIT)),
        /* What an `await` begins with, and how many units further on than a call it is. On 3.11 the first
         * of the two instructions of a call may do the work of both. */
        FACT(CODE_GET_AWAITABLE, GET_AWAITABLE),
        FACT(CODE_AFTER_CALL, 1 + INLINE_CACHE_ENTRIES_CALL),
#if PY_VERSION_HEX < 0x030C0000
        FACT(CODE_AFTER_PRECALL, 2 + INLINE_CACHE_ENTRIES_PRECALL + INLINE_CACHE_ENTRIES_CALL),
#else
        FACT(CODE_AFTER_PRECALL, 1 + INLINE_CACHE_ENTRIES_CALL),
#endif

        /* PyGenObject, which coroutines share: cpython/genobject.h, from 3.14 internal. */
        FIELD(GEN_FRAME, PyGenObject, gi_iframe),
        FIELD(GEN_FRAME_STATE, PyGenObject, gi_frame_state),
        FIELD(GEN_FINALIZER, PyAsyncGenObject, ag_origin_or_finalizer),
        FACT(GEN_CREATED, FRAME_CREATED),
        FACT(GEN_SUSPENDED, FRAME_SUSPENDED),
        FACT(GEN_EXECUTING, FRAME_EXECUTING),
        FACT(GEN_CLEARED, FRAME_CLEARED),

        /* PyGC_Head, in front of each object that the collector knows: internal/pycore_gc.h. */
        FACT(GC_HEAD_SIZE, sizeof(PyGC_Head)),
        FIELD(GC_PREV, PyGC_Head, _gc_prev),
        FACT(GC_FINALIZED, _PyGC_PREV_MASK_FINALIZED),

        /* PyMethodDescrObject: cpython/descrobject.h. */
        FIELD(METHOD_DESCR_METHOD, PyMethodDescrObject, d_method),

        /* PyContext: internal/pycore_context.h. */
        FIELD(CONTEXT_PREVIOUS, PyContext, ctx_prev),
        FIELD(CONTEXT_ENTERED, PyContext, ctx_entered),

#if PY_VERSION_HEX >= 0x030D0000
        /* What the running interpreter says about itself: _PyRuntime.debug_offsets. */
        FIELD(RUNTIME_DEBUG_OFFSETS, _PyRuntimeState, debug_offsets),
        FIELD(DEBUG_VERSION, _Py_DebugOffsets, version),
        FIELD(DEBUG_FREE_THREADED, _Py_DebugOffsets, free_threaded),
        FIELD(DEBUG_TS_INTERP, _Py_DebugOffsets, thread_state.interp),
        FIELD(DEBUG_TS_CURRENT_FRAME, _Py_DebugOffsets, thread_state.current_frame),
        FIELD(DEBUG_TS_THREAD_ID, _Py_DebugOffsets, thread_state.thread_id),
        FIELD(DEBUG_TS_DATASTACK_CHUNK, _Py_DebugOffsets, thread_state.datastack_chunk),
        FIELD(DEBUG_FRAME_SIZE, _Py_DebugOffsets, interpreter_frame.size),
        FIELD(DEBUG_FRAME_PREVIOUS, _Py_DebugOffsets, interpreter_frame.previous),
        FIELD(DEBUG_FRAME_EXECUTABLE, _Py_DebugOffsets, interpreter_frame.executable),
        FIELD(DEBUG_FRAME_INSTR, _Py_DebugOffsets, interpreter_frame.instr_ptr),
        FIELD(DEBUG_FRAME_OWNER, _Py_DebugOffsets, interpreter_frame.owner),
        FIELD(DEBUG_CODE_ADAPTIVE, _Py_DebugOffsets, code_object.co_code_adaptive),
        FIELD(DEBUG_INTERP_GC, _Py_DebugOffsets, interpreter_state.gc),
        FIELD(DEBUG_GC_COLLECTING, _Py_DebugOffsets, gc.collecting),
#  if PY_VERSION_HEX >= 0x030E0000
        FIELD(DEBUG_TS_EVAL_BREAKER, _Py_DebugOffsets, debugger_support.eval_breaker),
#  endif
#endif
    },
};
