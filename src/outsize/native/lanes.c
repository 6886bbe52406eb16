/* What the threads that move a step's bytes have allocated and freed.
 *
 * While a meter stands still, because the step's own thread makes a plan, what that thread allocates is no step's. A
 * transfer that ends meanwhile lets go of bytes that are the step's all the same: those the meter has to take off. */
#include "native.h"

#include <stdatomic.h>

static _Thread_local int lane;
static _Atomic int64_t lane_bytes;

void outsize_lane_changed(int64_t bytes) {
    if (lane) atomic_fetch_add(&lane_bytes, bytes);
}

/* lane_thread(): the calling thread moves bytes of steps, for its life. */
static PyObject *lane_thread(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    lane = 1;
    Py_RETURN_NONE;
}

/* lane_change() -> change so far in the bytes that torch's libraries hold, by such threads. */
static PyObject *lane_change(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    return PyLong_FromLongLong(atomic_load(&lane_bytes));
}

PyMethodDef outsize_lane_methods[] = {
    {"lane_thread", lane_thread, METH_NOARGS, "The calling thread moves bytes of steps."},
    {"lane_change", lane_change, METH_NOARGS, "Change in bytes by such threads."},
    {NULL, NULL, 0, NULL}};
