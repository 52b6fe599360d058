/* The C API of the Python package fiberback: waiting from native code, below Python code.
 *
 *     #include <fiberback.h>
 *
 *     static const fiberback_api *api;      // once, in the module's initialisation:
 *     api = fiberback_import();             // NULL with an error set if fiberback is not there
 *     ...
 *     PyObject *result = api->await_(coroutine);
 *
 * `python -c "import fiberback; print(fiberback.__path__[0] + '/include')"` prints the folder of
 * this file. Rust code takes the crate fiberback-pyo3 instead, which also keeps PyO3's own records
 * in order.
 */
#ifndef FIBERBACK_H
#define FIBERBACK_H

#include <Python.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FIBERBACK_API_NAME "fiberback._C_API"
#define FIBERBACK_API_VERSION 1

typedef struct {
    /* FIBERBACK_API_VERSION. Another number means another layout. */
    uint32_t version;
    /* Bytes of this structure in the fiberback that is loaded: fields may be added at the end. */
    uint32_t size;
    /* What fiberback.await_(awaitable) does: waits for any awaitable, wherever Python's await_ can,
     * and returns its result as a new reference, or NULL with the exception set, which is also how
     * cancellation arrives: let it through.
     *
     * To be called attached (with the GIL), with a reference to `awaitable` that lasts for the
     * call. The C stack of the caller is suspended meanwhile, and other code of the same thread
     * runs: hold no lock, keep nothing in thread-local variables over the call, and no pointer to
     * what other code may change. The call returns on the same thread. */
    PyObject *(*await_)(PyObject *awaitable);
    /* A new fiberback event: `event.set()` may be called from any thread that is attached, and
     * api->await_(event.wait()) returns after that, on every event loop and without one. NULL with
     * an exception set on failure. */
    PyObject *(*event)(void);
} fiberback_api;

/* The API of the fiberback that is installed, imported if need be; NULL with ImportError set. */
static inline const fiberback_api *fiberback_import(void)
{
    const fiberback_api *api =
        (const fiberback_api *)PyCapsule_Import(FIBERBACK_API_NAME, 0);
    if (api != NULL && (api->version != FIBERBACK_API_VERSION || api->size < sizeof(fiberback_api))) {
        PyErr_Format(PyExc_ImportError,
                     "this extension was built for version %d of fiberback's C API, and the "
                     "installed fiberback has version %u: build it again with the fiberback-pyo3 or the "
                     "fiberback.h of that release [fiberback:extension-version]",
                     FIBERBACK_API_VERSION, (unsigned)api->version);
        return NULL;
    }
    return api;
}

#ifdef __cplusplus
}
#endif

#endif /* FIBERBACK_H */
