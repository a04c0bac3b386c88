/* SPDX-License-Identifier: MIT */
/*
 * Lets one call of the daemon to the world fail: in barraged-torture the linker puts the
 * functions below in the place of those that the daemon calls (-Wl,--wrap). Calls that the
 * libraries make among themselves are not seen, but for the memory of libcurl and libuv, for
 * which both let their user provide: "libuv", "libcurl_acting" for what libcurl asks for in
 * curl_multi_socket_action(), and "libcurl" for the rest.
 *
 * The environment says which call: BARRAGED_FAIL="NAME N ERROR TIMES" makes TIMES calls of
 * NAME fail from the N-th on, the way that function does, with ERROR for its errno or for
 * its own kind of code; TIMES is 0 for all of them. All that allocates is one NAME, "memory".
 *
 * The file BARRAGED_CALLS gets, at the end, a line "NAME CALLS" for each function that was
 * called, and at once, when a call fails, "failed" and whence it came.
 */
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <netdb.h>
#include <openssl/x509_vfy.h>
#include <poll.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <uv.h>

#include "build.h"
#if HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif
#if HAVE_EXPOSITION
#include <microhttpd.h>
#endif
#if HAVE_HIREDIS
#include <hiredis/hiredis.h>
#endif

/* What calls of a name are counted together. */
static struct point {
	const char *name;
	unsigned calls;
} points[80];

static struct {
	char name[64];
	unsigned at;
	int error;
	unsigned times;
} order;

static int report_fd = -1;

__attribute__((__constructor__)) static void begin(void)
{
	const char *fail = getenv("BARRAGED_FAIL");
	const char *calls = getenv("BARRAGED_CALLS");

	if (fail &&
	    sscanf(fail, "%63s %u %d %u", order.name, &order.at, &order.error, &order.times) != 4)
		abort();
	/* creat() is not one of the daemon's functions. */
	if (calls && (report_fd = creat(calls, 0600)) < 0)
		abort();
}

__attribute__((__destructor__)) static void end(void)
{
	/* What still comes is the compiler's, which may count there what was run. */
	order.name[0] = '\0';
	if (report_fd < 0)
		return;
	for (size_t i = 0; i < sizeof(points) / sizeof(*points) && points[i].name; i++)
		dprintf(report_fd, "%s %u\n", points[i].name, points[i].calls);
	close(report_fd); /* valgrind tells of what is open */
	report_fd = -1;
}

static void tell_failure(void)
{
	void *callers[12];
	int n = backtrace(callers, 12);

	if (report_fd < 0)
		return;
	dprintf(report_fd, "failed\n");
	backtrace_symbols_fd(callers, n, report_fd);
}

static struct point *point_of(const char *name)
{
	struct point *p = points;

	while (p->name && strcmp(p->name, name) != 0)
		p++;
	if (p == points + sizeof(points) / sizeof(*points) - 1)
		abort(); /* make it longer */
	p->name = name;
	return p;
}

static bool count(struct point *p)
{
	p->calls++;
	if (strcmp(p->name, order.name) != 0 || p->calls < order.at ||
	    (order.times > 0 && p->calls - order.at >= order.times))
		return false;
	if (p->calls == order.at)
		tell_failure();
	errno = order.error;
	return true;
}

#define FAILS(what)                                                                                \
	({                                                                                         \
		static struct point *point_;                                                       \
		if (!point_)                                                                       \
			point_ = point_of(what);                                                   \
		count(point_);                                                                     \
	})

#define WRAP(name, what, type, params, args, failure)                                              \
	type __real_##name params;                                                                 \
	type __wrap_##name params;                                                                 \
	type __wrap_##name params                                                                  \
	{                                                                                          \
		if (FAILS(what))                                                                   \
			return failure;                                                            \
		return __real_##name args;                                                         \
	}

/* clang-format off */

/* Descriptors, files and the process. */
WRAP(read, "read", ssize_t, (int fd, void *p, size_t n), (fd, p, n), -1)
WRAP(write, "write", ssize_t, (int fd, const void *p, size_t n), (fd, p, n), -1)
WRAP(recv, "recv", ssize_t, (int fd, void *p, size_t n, int flags), (fd, p, n, flags), -1)
WRAP(send, "send", ssize_t, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags), -1)
WRAP(poll, "poll", int, (struct pollfd *p, nfds_t n, int ms), (p, n, ms), -1)
WRAP(fdopen, "fdopen", FILE *, (int fd, const char *mode), (fd, mode), NULL)
WRAP(fstat64, "fstat", int, (int fd, struct stat *st), (fd, st), -1)
WRAP(lstat64, "lstat", int, (const char *path, struct stat *st), (path, st), -1)
WRAP(chmod, "chmod", int, (const char *path, mode_t mode), (path, mode), -1)
WRAP(chown, "chown", int, (const char *path, uid_t uid, gid_t gid), (path, uid, gid), -1)
WRAP(unlink, "unlink", int, (const char *path), (path), -1)
WRAP(pread64, "pread", ssize_t, (int fd, void *p, size_t n, off_t at), (fd, p, n, at), -1)
WRAP(pwrite64, "pwrite", ssize_t, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), -1)
WRAP(ftruncate64, "ftruncate", int, (int fd, off_t n), (fd, n), -1)
WRAP(flock, "flock", int, (int fd, int operation), (fd, operation), -1)
WRAP(getrlimit64, "getrlimit", int, (int what, struct rlimit *l), (what, l), -1)
WRAP(setrlimit64, "setrlimit", int, (int what, const struct rlimit *l), (what, l), -1)
WRAP(getrandom, "getrandom", ssize_t, (void *p, size_t n, unsigned flags), (p, n, flags), -1)
WRAP(getpwnam_r, "getpwnam_r", int,
     (const char *name, struct passwd *p, char *entry, size_t n, struct passwd **found),
     (name, p, entry, n, found), (*found = NULL, order.error))
WRAP(getgrnam_r, "getgrnam_r", int,
     (const char *name, struct group *g, char *entry, size_t n, struct group **found),
     (name, g, entry, n, found), (*found = NULL, order.error))

/* Sockets. */
WRAP(socket, "socket", int, (int family, int type, int protocol), (family, type, protocol), -1)
WRAP(bind, "bind", int, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
WRAP(listen, "listen", int, (int fd, int backlog), (fd, backlog), -1)
WRAP(connect, "connect", int, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
WRAP(accept4, "accept4", int, (int fd, struct sockaddr *a, socklen_t *n, int flags),
     (fd, a, n, flags), -1)
WRAP(getsockopt, "getsockopt", int, (int fd, int level, int name, void *p, socklen_t *n),
     (fd, level, name, p, n), -1)
WRAP(setsockopt, "setsockopt", int, (int fd, int level, int name, const void *p, socklen_t n),
     (fd, level, name, p, n), -1)
WRAP(getpeername, "getpeername", int, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
WRAP(getnameinfo, "getnameinfo", int,
     (const struct sockaddr *a, socklen_t n, char *host, socklen_t hosts, char *port,
      socklen_t ports, int flags),
     (a, n, host, hosts, port, ports, flags), order.error)

/* Memory. */
WRAP(malloc, "memory", void *, (size_t n), (n), NULL)
WRAP(calloc, "memory", void *, (size_t n, size_t size), (n, size), NULL)
WRAP(realloc, "memory", void *, (void *p, size_t n), (p, n), NULL)
WRAP(reallocarray, "memory", void *, (void *p, size_t n, size_t size), (p, n, size), NULL)
WRAP(strdup, "memory", char *, (const char *text), (text), NULL)
WRAP(strndup, "memory", char *, (const char *text, size_t n), (text, n), NULL)
WRAP(mmap64, "mmap", void *, (void *at, size_t n, int protection, int flags, int fd, off_t offset),
     (at, n, protection, flags, fd, offset), MAP_FAILED)
WRAP(madvise, "madvise", int, (void *p, size_t n, int advice), (p, n, advice), -1)
WRAP(mlock, "mlock", int, (const void *p, size_t n), (p, n), -1)

/* libuv. */
WRAP(uv_loop_init, "uv_loop_init", int, (uv_loop_t *l), (l), -order.error)
WRAP(uv_poll_init, "uv_poll_init", int, (uv_loop_t *l, uv_poll_t *p, int fd), (l, p, fd),
     -order.error)
WRAP(uv_poll_start, "uv_poll_start", int, (uv_poll_t *p, int events, uv_poll_cb fn),
     (p, events, fn), -order.error)
WRAP(uv_signal_init, "uv_signal_init", int, (uv_loop_t *l, uv_signal_t *s), (l, s), -order.error)
WRAP(uv_signal_start, "uv_signal_start", int, (uv_signal_t *s, uv_signal_cb fn, int number),
     (s, fn, number), -order.error)
WRAP(uv_fs_event_start, "uv_fs_event_start", int,
     (uv_fs_event_t *e, uv_fs_event_cb fn, const char *path, unsigned flags), (e, fn, path, flags),
     -order.error)
WRAP(uv_getaddrinfo, "uv_getaddrinfo", int,
     (uv_loop_t *l, uv_getaddrinfo_t *request, uv_getaddrinfo_cb fn, const char *node,
      const char *service, const struct addrinfo *hints),
     (l, request, fn, node, service, hints), -order.error)

/* libcurl. */
WRAP(curl_easy_init, "curl_easy_init", CURL *, (void), (), NULL)
WRAP(curl_easy_header, "curl_easy_header", CURLHcode,
     (CURL *h, const char *name, size_t i, unsigned origin, int request, struct curl_header **out),
     (h, name, i, origin, request, out), (CURLHcode)order.error)
WRAP(curl_multi_init, "curl_multi_init", CURLM *, (void), (), NULL)
WRAP(curl_multi_add_handle, "curl_multi_add_handle", CURLMcode, (CURLM *m, CURL *h), (m, h),
     (CURLMcode)order.error)
WRAP(curl_slist_append, "curl_slist_append", struct curl_slist *,
     (struct curl_slist *l, const char *text), (l, text), NULL)
WRAP(curl_url, "curl_url", CURLU *, (void), (), NULL)
WRAP(curl_url_dup, "curl_url_dup", CURLU *, (CURLU * url), (url), NULL)
WRAP(curl_url_get, "curl_url_get", CURLUcode,
     (const CURLU *u, CURLUPart part, char **text, unsigned flags), (u, part, text, flags),
     (CURLUcode)order.error)
WRAP(curl_url_set, "curl_url_set", CURLUcode,
     (CURLU *u, CURLUPart part, const char *text, unsigned flags), (u, part, text, flags),
     (CURLUcode)order.error)

/* Other libraries. */
WRAP(ini_parse_stream, "ini_parse_stream", int,
     (ini_reader reader, void *stream, ini_handler handler, void *user),
     (reader, stream, handler, user), order.error)
WRAP(X509_STORE_new, "X509_STORE_new", X509_STORE *, (void), (), NULL)
WRAP(X509_STORE_load_file, "X509_STORE_load_file", int, (X509_STORE *s, const char *file),
     (s, file), 0)
#if HAVE_SYSTEMD
WRAP(sd_listen_fds_with_names, "sd_listen_fds_with_names", int, (int unset, char ***names),
     (unset, names), -order.error)
WRAP(sd_notify, "sd_notify", int, (int unset, const char *state), (unset, state), -order.error)
WRAP(sd_watchdog_enabled, "sd_watchdog_enabled", int, (int unset, uint64_t *us), (unset, us),
     -order.error)
#endif
#if HAVE_HIREDIS
WRAP(redisConnectNonBlock, "redisConnectNonBlock", redisContext *, (const char *ip, int port),
     (ip, port), NULL)
WRAP(redisConnectUnixNonBlock, "redisConnectUnixNonBlock", redisContext *, (const char *path),
     (path), NULL)
WRAP(redisAppendCommandArgv, "redisAppendCommandArgv", int,
     (redisContext *c, int n, const char **words, const size_t *lengths), (c, n, words, lengths),
     REDIS_ERR)
WRAP(redisBufferRead, "redisBufferRead", int, (redisContext *c), (c), REDIS_ERR)
WRAP(redisBufferWrite, "redisBufferWrite", int, (redisContext *c, int *done), (c, done), REDIS_ERR)
WRAP(redisGetReplyFromReader, "redisGetReplyFromReader", int, (redisContext *c, void **reply),
     (c, reply), REDIS_ERR)
#endif
#if HAVE_EXPOSITION
WRAP(MHD_create_response_from_buffer_with_free_callback, "MHD_create_response",
     struct MHD_Response *, (size_t n, void *p, MHD_ContentReaderFreeCallback fn), (n, p, fn),
     NULL)
WRAP(MHD_add_response_header, "MHD_add_response_header", enum MHD_Result,
     (struct MHD_Response *r, const char *name, const char *value), (r, name, value), MHD_NO)
WRAP(MHD_queue_response, "MHD_queue_response", enum MHD_Result,
     (struct MHD_Connection *c, unsigned status, struct MHD_Response *r), (c, status, r), MHD_NO)
#endif

/* clang-format on */

/* Those with arguments of many kinds. */

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	return FAILS("open") ? -1 : __real_open64(path, flags, mode);
}

/* The C library reads a pointer too, whatever it is. */
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...)
{
	va_list args;
	void *value;

	va_start(args, command);
	value = va_arg(args, void *);
	va_end(args);
	return FAILS("fcntl") ? -1 : __real_fcntl64(fd, command, value);
}

/* All that is used takes integers. */
int __real_prctl(int what, ...);
int __wrap_prctl(int what, ...);
int __wrap_prctl(int what, ...)
{
	va_list args;
	unsigned long value;

	va_start(args, what);
	value = va_arg(args, int);
	va_end(args);
	return FAILS("prctl") ? -1 : __real_prctl(what, value, 0, 0, 0);
}

int __wrap_asprintf(char **out, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));
int __wrap_asprintf(char **out, const char *format, ...)
{
	va_list args;
	int n = -1;

	va_start(args, format);
	if (!FAILS("memory"))
		n = vasprintf(out, format, args);
	va_end(args);
	return n;
}

/* A file that cannot be read on. */
static bool is_broken;

int __real_getc(FILE *file);
int __wrap_getc(FILE *file);
int __wrap_getc(FILE *file)
{
	is_broken = FAILS("getc");
	return is_broken ? EOF : __real_getc(file);
}

int __real_ferror(FILE *file);
int __wrap_ferror(FILE *file);
int __wrap_ferror(FILE *file)
{
	return is_broken || __real_ferror(file);
}

#if HAVE_EXPOSITION
struct MHD_Daemon *__wrap_MHD_start_daemon(unsigned flags, uint16_t port,
					   MHD_AcceptPolicyCallback accept, void *accept_arg,
					   MHD_AccessHandlerCallback fn, void *arg, ...);
struct MHD_Daemon *__wrap_MHD_start_daemon(unsigned flags, uint16_t port,
					   MHD_AcceptPolicyCallback accept, void *accept_arg,
					   MHD_AccessHandlerCallback fn, void *arg, ...)
{
	struct MHD_Daemon *http = NULL;
	va_list args;

	va_start(args, arg);
	if (!FAILS("MHD_start_daemon"))
		http = MHD_start_daemon_va(flags, port, accept, accept_arg, fn, arg, args);
	va_end(args);
	return http;
}
#endif

/* An option's value can be one that libcurl does not know, or must copy; taking a value
 * back, or a number that it has known for ever, it never refuses, but who relies on that? */
CURLcode __real_curl_easy_setopt(CURL *h, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *h, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *h, CURLoption option, ...)
{
	long number = 0;
	void *pointer = NULL;
	va_list args;

	va_start(args, option);
	if (option < CURLOPTTYPE_OBJECTPOINT)
		number = va_arg(args, long);
	else if (option < CURLOPTTYPE_OFF_T)
		pointer = va_arg(args, void *);
	else
		abort(); /* none is used */
	va_end(args);
	if (option < CURLOPTTYPE_OBJECTPOINT)
		return FAILS("curl_easy_setopt") ? (CURLcode)order.error
						 : __real_curl_easy_setopt(h, option, number);
	if (pointer && FAILS("curl_easy_setopt"))
		return (CURLcode)order.error;
	return __real_curl_easy_setopt(h, option, pointer);
}

/* What the daemon has stored itself it always gets back. */
CURLcode __real_curl_easy_getinfo(CURL *h, CURLINFO what, ...);
CURLcode __wrap_curl_easy_getinfo(CURL *h, CURLINFO what, ...);
CURLcode __wrap_curl_easy_getinfo(CURL *h, CURLINFO what, ...)
{
	void *pointer;
	va_list args;

	va_start(args, what);
	pointer = va_arg(args, void *);
	va_end(args);
	if (what != CURLINFO_PRIVATE && FAILS("curl_easy_getinfo"))
		return (CURLcode)order.error;
	return __real_curl_easy_getinfo(h, what, pointer);
}

CURLMcode __real_curl_multi_setopt(CURLM *m, CURLMoption option, ...);
CURLMcode __wrap_curl_multi_setopt(CURLM *m, CURLMoption option, ...);
CURLMcode __wrap_curl_multi_setopt(CURLM *m, CURLMoption option, ...)
{
	long number = 0;
	void *pointer = NULL;
	va_list args;

	va_start(args, option);
	if ((unsigned)option < CURLOPTTYPE_OBJECTPOINT)
		number = va_arg(args, long);
	else
		pointer = va_arg(args, void *);
	va_end(args);
	if (FAILS("curl_multi_setopt"))
		return (CURLMcode)order.error;
	if ((unsigned)option < CURLOPTTYPE_OBJECTPOINT)
		return __real_curl_multi_setopt(m, option, number);
	return __real_curl_multi_setopt(m, option, pointer);
}

/* libcurl's own look-ups stop the loop, so that it must never have to make one. The
 * libraries find this function before the C library's. Every name is this host's. */
__attribute__((__visibility__("default"))) int getaddrinfo(const char *node, const char *service,
							   const struct addrinfo *hints,
							   struct addrinfo **out)
{
	__typeof__(getaddrinfo) *real = (__typeof__(real))dlsym(RTLD_NEXT, "getaddrinfo");
	Dl_info caller;

	if (report_fd >= 0 && dladdr(__builtin_return_address(0), &caller) != 0)
		dprintf(report_fd, "looked up by %s\n", caller.dli_fname);
	return real(node ? "127.0.0.1" : NULL, service, hints, out);
}

/* The libraries' own memory. */

/* libcurl 7.88 does not bear it everywhere; see tests/e2e/test_torture.py. */
static bool is_acting;

CURLMcode __real_curl_multi_socket_action(CURLM *m, curl_socket_t fd, int flags, int *running);
CURLMcode __wrap_curl_multi_socket_action(CURLM *m, curl_socket_t fd, int flags, int *running);
CURLMcode __wrap_curl_multi_socket_action(CURLM *m, curl_socket_t fd, int flags, int *running)
{
	CURLMcode code;

	is_acting = true;
	code = __real_curl_multi_socket_action(m, fd, flags, running);
	is_acting = false;
	return code;
}

static bool is_refused_to_curl(void)
{
	return is_acting ? FAILS("libcurl_acting") : FAILS("libcurl");
}

static void *curl_malloc(size_t n)
{
	return is_refused_to_curl() ? NULL : __real_malloc(n);
}

static void *curl_calloc(size_t n, size_t size)
{
	return is_refused_to_curl() ? NULL : __real_calloc(n, size);
}

static void *curl_realloc(void *p, size_t n)
{
	return is_refused_to_curl() ? NULL : __real_realloc(p, n);
}

static char *curl_strdup(const char *text)
{
	return is_refused_to_curl() ? NULL : __real_strdup(text);
}

static void *uv_malloc(size_t n)
{
	return FAILS("libuv") ? NULL : __real_malloc(n);
}

static void *uv_calloc(size_t n, size_t size)
{
	return FAILS("libuv") ? NULL : __real_calloc(n, size);
}

static void *uv_realloc(void *p, size_t n)
{
	return FAILS("libuv") ? NULL : __real_realloc(p, n);
}

/* Both are to be told before anything else is asked of them, and this comes first. */
CURLcode __wrap_curl_global_init(long flags);
CURLcode __wrap_curl_global_init(long flags)
{
	if (FAILS("curl_global_init"))
		return (CURLcode)order.error;
	if (uv_replace_allocator(uv_malloc, uv_realloc, uv_calloc, free) < 0)
		abort();
	return curl_global_init_mem(flags, curl_malloc, free, curl_realloc, curl_strdup,
				    curl_calloc);
}
