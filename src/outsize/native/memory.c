/* Bytes in use by the C allocator, over all arenas and threads, read without the GIL. */
#include "native.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

/* bytes_in_use() -> int: small and heap chunks in use plus mapped chunks (glibc's mallinfo2). */
static PyObject *bytes_in_use(PyObject *self, PyObject *args) {
    (void)self, (void)args;
#ifdef __GLIBC__
    struct mallinfo2 info;
    Py_BEGIN_ALLOW_THREADS
    info = mallinfo2();
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(info.uordblks + info.hblkhd);
#else
    PyErr_SetString(PyExc_NotImplementedError, "the C library gives no count of the bytes in use");
    return NULL;
#endif
}

PyMethodDef outsize_memory_methods[] = {
    {"bytes_in_use", bytes_in_use, METH_NOARGS, "Bytes in use by the C allocator."},
    {NULL, NULL, 0, NULL}};
