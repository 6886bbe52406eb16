/* Let the shared objects of one library call our function instead of one that they import.
 *
 * A preloaded allocator would serve the whole process and needs the user's command line. Only torch's tensors matter
 * here, so the import slots of torch's own objects (their global offset tables, as the dynamic linker filled them)
 * are rewritten in place; every other object keeps calling the C library. */
#include "native.h"

#if defined(__linux__) && defined(__GLIBC__) && defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __x86_64__
enum { SLOT_JUMP = R_X86_64_JUMP_SLOT, SLOT_DATA = R_X86_64_GLOB_DAT, SLOT_WORD = R_X86_64_64 };
#else
enum { SLOT_JUMP = R_AARCH64_JUMP_SLOT, SLOT_DATA = R_AARCH64_GLOB_DAT, SLOT_WORD = R_AARCH64_ABS64 };
#endif

struct job {
    const char *const *prefixes;
    int prefix_count;
    const struct outsize_redirect *redirects;
    int redirect_count;
    int slots; /* rewritten; -1 after a failure */
};

struct tables {
    const ElfW(Sym) * symbols;
    const char *strings;
    const ElfW(Rela) * rela[2]; /* jump slots, then the rest */
    size_t count[2];
    uintptr_t relro, relro_end; /* made read-only after linking */
};

static struct tables find_tables(const struct dl_phdr_info *object) {
    struct tables t = {0};
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        uintptr_t at = object->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_GNU_RELRO) t.relro = at, t.relro_end = at + header->p_memsz;
        if (header->p_type != PT_DYNAMIC) continue;
        for (const ElfW(Dyn) *d = (const void *)at; d->d_tag != DT_NULL; d++) {
            if (d->d_tag == DT_SYMTAB) t.symbols = (const void *)d->d_un.d_ptr;
            if (d->d_tag == DT_STRTAB) t.strings = (const void *)d->d_un.d_ptr;
            if (d->d_tag == DT_JMPREL) t.rela[0] = (const void *)d->d_un.d_ptr;
            if (d->d_tag == DT_PLTRELSZ) t.count[0] = d->d_un.d_val / sizeof(ElfW(Rela));
            if (d->d_tag == DT_RELA) t.rela[1] = (const void *)d->d_un.d_ptr;
            if (d->d_tag == DT_RELASZ) t.count[1] = d->d_un.d_val / sizeof(ElfW(Rela));
        }
    }
    return t;
}

static int write_slot(void **slot, void *to, const struct tables *t) {
    uintptr_t at = (uintptr_t)slot, page = (uintptr_t)sysconf(_SC_PAGESIZE), start = at / page * page;
    int sealed = at >= t->relro && at < t->relro_end;
    if (sealed && mprotect((void *)start, page, PROT_READ | PROT_WRITE)) return 0;
    __atomic_store_n(slot, to, __ATOMIC_SEQ_CST);
    if (sealed) mprotect((void *)start, page, PROT_READ);
    return 1;
}

static int visit(struct dl_phdr_info *object, size_t size, void *data) {
    struct job *job = data;
    (void)size;
    const char *slash = strrchr(object->dlpi_name, '/'), *name = slash ? slash + 1 : object->dlpi_name;
    int wanted = 0;
    for (int i = 0; i < job->prefix_count; i++)
        wanted |= strncmp(name, job->prefixes[i], strlen(job->prefixes[i])) == 0;
    if (!wanted) return 0;
    struct tables t = find_tables(object);
    if (!t.symbols || !t.strings) return 0;
    for (int which = 0; which < 2; which++)
        for (size_t i = 0; t.rela[which] && i < t.count[which]; i++) {
            const ElfW(Rela) *entry = &t.rela[which][i];
            unsigned kind = (unsigned)ELF64_R_TYPE(entry->r_info);
            if (kind != SLOT_JUMP && kind != SLOT_DATA && kind != SLOT_WORD) continue;
            const char *symbol = t.strings + t.symbols[ELF64_R_SYM(entry->r_info)].st_name;
            for (int r = 0; r < job->redirect_count; r++) {
                if (strcmp(symbol, job->redirects[r].name) != 0) continue;
                if (!write_slot((void **)(object->dlpi_addr + entry->r_offset), job->redirects[r].to, &t)) {
                    job->slots = -1;
                    return 1;
                }
                job->slots++;
            }
        }
    return 0;
}

int outsize_redirect_symbols(const char *const *prefixes, int prefix_count,
                             const struct outsize_redirect *redirects, int redirect_count) {
    struct job job = {prefixes, prefix_count, redirects, redirect_count, 0};
    dl_iterate_phdr(visit, &job);
    return job.slots;
}

#else

int outsize_redirect_symbols(const char *const *prefixes, int prefix_count,
                             const struct outsize_redirect *redirects, int redirect_count) {
    (void)prefixes, (void)prefix_count, (void)redirects, (void)redirect_count;
    return 0;
}
#endif
