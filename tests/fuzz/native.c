/* The part of the native module that works on what files hold, gathered as `module.c` gathers the whole: compiled under
 * the sanitizers in seconds. */
#include "native.h"

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    PyMethodDef *tables[] = {outsize_npi_methods, outsize_trees_methods, outsize_tree_layer_methods};
    PyObject *module = PyModule_Create(&definition);
    for (size_t i = 0; module != NULL && i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0) return NULL;
    return module;
}
