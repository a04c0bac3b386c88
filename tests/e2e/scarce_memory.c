/* SPDX-License-Identifier: MIT */
/*
 * Memory that runs out now and then, for LD_PRELOAD. The file that SCARCE_MEMORY names holds
 * one byte: of so many allocations of the program one fails, none for 0; SCARCE_SEED says
 * which. Those of its libraries are left alone: most of them end the process instead of
 * saying so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static const volatile unsigned char *one_in;
static uintptr_t program_start;
static uintptr_t program_end;
static uint64_t random_state;

/* The program is the first object. */
static int find_program(struct dl_phdr_info *info, size_t size, void *arg)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
			program_start = info->dlpi_addr + p->p_vaddr;
			program_end = program_start + p->p_memsz;
		}
	}
	return 1;
}

__attribute__((__constructor__)) static void set_up(void)
{
	int fd = open(getenv("SCARCE_MEMORY"), O_RDONLY | O_CLOEXEC);
	void *mapped = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);

	if (mapped == MAP_FAILED)
		abort();
	close(fd);
	random_state = strtoull(getenv("SCARCE_SEED"), NULL, 10) * 88172645463325253u | 1;
	dl_iterate_phdr(find_program, NULL);
	one_in = mapped;
}

/* What comes after main() is the compiler's, which may count there what was run: nothing
 * fails for it. */
static int (*real_main)(int argc, char **argv, char **environment);

static int whole_main(int argc, char **argv, char **environment)
{
	int status = real_main(argc, argv, environment);

	one_in = NULL;
	return status;
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
		      void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
	__typeof__(__libc_start_main) *real = (__typeof__(real))dlsym(RTLD_NEXT, __func__);

	real_main = main;
	return real(whole_main, argc, argv, init, fini, rtld_fini, stack_end);
}

static bool is_refused(const void *caller)
{
	unsigned n = one_in ? *one_in : 0;

	if (n == 0 || (uintptr_t)caller < program_start || (uintptr_t)caller >= program_end)
		return false;
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	errno = ENOMEM;
	return random_state % n == 0;
}

void *malloc(size_t n)
{
	return is_refused(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	return is_refused(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	return is_refused(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

void *reallocarray(void *p, size_t n, size_t size)
{
	if (size && n > SIZE_MAX / size)
		return NULL;
	return is_refused(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n * size);
}

/* The C library's own would allocate by itself. */
char *strdup(const char *text)
{
	size_t n = strlen(text) + 1;
	char *copy = is_refused(__builtin_return_address(0)) ? NULL : __libc_malloc(n);

	return copy ? memcpy(copy, text, n) : NULL;
}
