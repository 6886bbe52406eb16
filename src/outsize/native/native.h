/* Shared by the .c files of this folder: Python's limited API and the method tables. */
#ifndef OUTSIZE_NATIVE_H
#define OUTSIZE_NATIVE_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <stdint.h>

extern PyMethodDef outsize_memory_methods[]; /* memory.c: bytes in use and their peak */

extern PyMethodDef outsize_npi_methods[];    /* npi.c: programs/npi over compiled tables */

/* arena.c: all zero while the arena is not installed. */
size_t outsize_arena_in_use(void);    /* bytes of the blocks handed out */
size_t outsize_arena_shadow(void);    /* the part of them that glibc's own count includes */
size_t outsize_arena_take_high(void); /* highest in_use since the previous call */

#endif
