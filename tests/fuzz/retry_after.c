/* SPDX-License-Identifier: MIT */
/* The Retry-After of a stranger's answer, the whole way: libcurl gets the answer from a socket
 * in this process, and is then asked as it is when a request has ended.
 *
 * Input: what follows "Retry-After:", more headers included. */
#include "edge/retry_after.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "core/buffer.h"
#include "core/text.h"
#include "fuzz.h"

#define LEAST (NSEC_PER_SEC / 10)
#define MOST  (60 * NSEC_PER_SEC)

/* A socket holds that much before anyone reads. */
#define INPUT_MAX 16384

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	return n;
}

static struct {
	CURLM *multi;
	CURL *easy;
	int listener;
} client;

/* The kernel finds a name that no one has. */
static void listen_somewhere(struct sockaddr_un *address, socklen_t *size)
{
	const struct sockaddr_un any = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0);
	CHECK(bind(fd, (const struct sockaddr *)&any, sizeof(any.sun_family)) == 0);
	CHECK(listen(fd, 1) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)address, size) == 0);
	client.listener = fd;
}

#define SET(option, value) CHECK(curl_easy_setopt(easy, CURLOPT_##option, value) == CURLE_OK)

static void prepare(void)
{
	struct sockaddr_un address = { 0 };
	socklen_t size = sizeof(address) - 1;
	CURL *easy = curl_easy_init();

	CHECK(easy);
	listen_somewhere(&address, &size);
	SET(ABSTRACT_UNIX_SOCKET, address.sun_path + 1);
	SET(URL, "http://127.0.0.1/");
	SET(PROXY, "");
	SET(WRITEFUNCTION, on_body);
	SET(FORBID_REUSE, 1L);
	SET(NOSIGNAL, 1L);
	client.easy = easy;
	client.multi = curl_multi_init();
	CHECK(client.multi);
}

/* The answer, then the end of the stream. */
static void answer(int fd, const uint8_t *data, size_t size)
{
	struct buffer b = { 0 };

	buffer_puts(&b, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After:");
	buffer_append(&b, (const char *)data, size);
	buffer_puts(&b, "\r\n\r\n");
	CHECK(!b.failed);
	CHECK(send(fd, b.data, b.len, MSG_NOSIGNAL) == (ssize_t)b.len);
	CHECK(shutdown(fd, SHUT_WR) == 0);
	buffer_deinit(&b);
}

/* Where nothing but a number stands there, what it must come to. */
static void check_number(const char *text, uint64_t found)
{
	bool negative = *text == '-';
	uint64_t seconds;

	if (!parse_u64(text + negative, strlen(text + negative), INT64_MAX, &seconds))
		return;
	if (seconds > 0 && negative) /* some such are dates to libcurl: -99920323 */
		CHECK(found == 0 || curl_getdate(text, NULL) != -1);
	else if (seconds == 0 && !negative)
		CHECK(found == LEAST);
	else if (!negative)
		CHECK(found == min_u64(seconds, 60) * NSEC_PER_SEC);
}

/* Where a date stands there, what must come of it if it is certainly past, or far away. The
 * answer was read between @before and @after. */
static void check_date(const char *text, time_t before, time_t after, uint64_t found)
{
	time_t date = curl_getdate(text, NULL);
	bool is_letter = (*text >= 'A' && *text <= 'Z') || (*text >= 'a' && *text <= 'z');

	if (!is_letter || date == -1)
		return;
	if (date < before)
		CHECK(found == 0);
	if (date >= after + 60)
		CHECK(found == MOST);
}

static void check_value(const uint8_t *data, size_t size, time_t before, uint64_t found)
{
	char *copy = fuzz_copy(data, size);
	const char *text = copy + strspn(copy, " \t");

	check_number(text, found);
	check_date(text, before, time(NULL), found);
	if (*text == '\0')
		CHECK(found == 0);
	free(copy);
}

/* Returns the connection's other end. */
static int meet(void)
{
	int running;
	int fd;

	CHECK(curl_multi_add_handle(client.multi, client.easy) == CURLM_OK);
	do {
		CHECK(curl_multi_perform(client.multi, &running) == CURLM_OK && running);
		fd = accept4(client.listener, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && errno == EAGAIN);
	CHECK(fd >= 0);
	return fd;
}

static CURLcode finish(void)
{
	int running;
	CURLMsg *message;
	CURLcode result;

	for (;;) {
		CHECK(curl_multi_perform(client.multi, &running) == CURLM_OK);
		if (!running)
			break;
		CHECK(curl_multi_poll(client.multi, NULL, 0, 1000, NULL) == CURLM_OK);
	}
	message = curl_multi_info_read(client.multi, &running);
	CHECK(message && message->msg == CURLMSG_DONE);
	result = message->data.result;
	CHECK(curl_multi_remove_handle(client.multi, client.easy) == CURLM_OK);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool is_one = !memchr(data, '\n', size) && !memchr(data, '\r', size);
	time_t before = time(NULL);
	uint64_t found;
	int fd;

	if (size > INPUT_MAX)
		return 0;
	if (!client.multi)
		prepare();
	fd = meet();
	answer(fd, data, size);
	if (finish() == CURLE_OK) {
		found = retry_after_of(client.easy);
		CHECK(found == 0 || (found >= LEAST && found <= MOST));
		if (is_one)
			check_value(data, size, before, found);
	} else {
		/* A header that holds a NUL is refused; others may say what they like of a body. */
		CHECK(!is_one || memchr(data, '\0', size));
	}
	close(fd);
	return 0;
}
