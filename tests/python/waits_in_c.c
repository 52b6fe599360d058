/* An extension module that waits from C, by the header that the package brings. */
#include <fiberback.h>

static const fiberback_api *api;

static PyObject *wait_for(PyObject *self, PyObject *awaitable)
{
    (void)self;
    return api->await_(awaitable);
}

/* As no extension should: with an exception set. */
static PyObject *wait_while_raising(PyObject *self, PyObject *awaitable)
{
    (void)self;
    PyErr_SetString(PyExc_KeyError, "set before");
    return api->await_(awaitable);
}

static PyObject *event(PyObject *self, PyObject *nothing)
{
    (void)self;
    (void)nothing;
    return api->event();
}

static PyMethodDef functions[] = {
    {"wait_for", wait_for, METH_O, NULL},
    {"wait_while_raising", wait_while_raising, METH_O, NULL},
    {"event", event, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "waits_in_c", NULL, -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_waits_in_c(void)
{
    api = fiberback_import();
    if (api == NULL)
        return NULL;
    return PyModule_Create(&definition);
}
