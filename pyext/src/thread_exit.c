/* Threads that the interpreter ends while it exits: they stay where they are.
 *
 * Until 3.13 CPython ends a daemon thread that wants the GIL while the interpreter exits by
 * `pthread_exit` (`take_gil` in Python/ceval_gil.c), which glibc does by a forced unwinding of its stack.
 * Whether that gets through a Rust function is luck: the compiler takes calls of C functions for ones that
 * never unwind, and where one of these is inlined into a function that has something to clean up, the
 * function's table has no entry for it. Rust's personality routine then says so, the unwinding ends,
 * and glibc aborts ("We better do not get here" in nptl/unwind.c). Nor may it run what there is to clean up,
 * without the GIL, or get past the end of a fiber's stack.
 *
 * So the first Rust frame that has a table stops the thread there for the rest of the process's life,
 * without the GIL: what CPython itself does since 3.14 (`PyThread_hang_thread`). Frames without one have
 * nothing to clean up. The personality routine begins by asking for the table (library/std/src/sys/personality/
 * gcc.rs); the linker has that question of this module's come here (`--wrap`, see build/main.rs).
 */
#define _GNU_SOURCE
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#if PY_VERSION_HEX < 0x030D0000
#  define Py_IsFinalizing _Py_IsFinalizing
#endif

struct _Unwind_Context;

#define HIDDEN __attribute__((visibility("hidden")))

HIDDEN void fiberback_exits_in_this_thread(void);
void *__real__Unwind_GetLanguageSpecificData(struct _Unwind_Context *);
HIDDEN void *__wrap__Unwind_GetLanguageSpecificData(struct _Unwind_Context *);

static pthread_t exits_in;
static atomic_int exits;

/* To be called by an exit handler. */
void fiberback_exits_in_this_thread(void)
{
    exits_in = pthread_self();
    atomic_store(&exits, 1);
}

/* From when the interpreter is finalizing on, no other thread than that runs Python code again; so what
 * unwinds there is its end. */
void *__wrap__Unwind_GetLanguageSpecificData(struct _Unwind_Context *context)
{
    if (atomic_load(&exits) && Py_IsFinalizing() && !pthread_equal(pthread_self(), exits_in)) {
        for (;;) {
            pause();
        }
    }
    return __real__Unwind_GetLanguageSpecificData(context);
}
