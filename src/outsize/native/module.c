/* The one native module. Each .c file beside this one owns a subject and exports a method table;
 * this file only gathers them. Functions take addresses and sizes as integers, so no torch or numpy
 * header is needed and one abi3 build serves every Python from 3.11. */
#include "native.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Kernels of outsize: see the .c files beside it.", -1, NULL,
    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    PyMethodDef *tables[] = {
        outsize_memory_methods,
        outsize_arena_methods,
        outsize_lane_methods,
        outsize_codec_methods,
        outsize_sync_methods,
        outsize_update_methods,
        outsize_npi_methods,
        outsize_trees_methods,
        outsize_tree_layer_methods,
        outsize_plan_evict_methods,
        outsize_plan_place_methods,
        outsize_plan_score_methods,
    };
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0) {
            Py_DECREF(module);
            return NULL;
        }
    return module;
}
