/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into User-Mode Linux on processors whose register state is larger than it expects.
 *
 * UML 6.1 keeps 2,696 bytes of it (up to AVX-512 and PKRU). The host takes back the whole state or
 * nothing (EFAULT, xstateregs_set in arch/x86/kernel/fpu/regset.c), and AMX alone has 8 KB more. So
 * what UML restores is laid over what the process has: nothing in UML can use AMX anyway.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define XSTATE_BYTES_MAX 65536

typedef long (*ptrace_function)(int request, pid_t pid, void *address, void *data);

/* Not on the stack: those of UML's kernel are small. UML has one thread. */
static unsigned char state[XSTATE_BYTES_MAX] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_function next;
	struct iovec whole = {state, sizeof(state)};
	const struct iovec *asked;
	va_list arguments;
	void *address, *data;
	pid_t pid;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	asked = data;
	if (!next)
		next = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE ||
	    asked->iov_len > sizeof(state))
		return next(request, pid, address, data);
	if (next(PTRACE_GETREGSET, pid, address, &whole) < 0)
		return -1;
	memcpy(state, asked->iov_base, asked->iov_len);
	return next(PTRACE_SETREGSET, pid, address, &whole);
}
