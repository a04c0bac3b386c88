/* SPDX-License-Identifier: MIT */
/*
 * How long it takes from a writer's write until a request is on the wire. This program is
 * the writer and the server, so that both ends are timed by one clock:
 *
 *     lone beside SOCKET PORT TIMES CPU    one message at a time after a pause, and after each
 *                                          a bare libcurl request, made on that processor
 *     lone paced SOCKET PORT TIMES RATE    so many a second, at random as independent writers
 *     lone refused SOCKET PORT TIMES       until the reply to a line that is refused
 *
 * It listens on PORT of the loopback address and answers, by plain HTTP, as the API does.
 * Written is a line for each time: what was timed ("ours" or "reference"), a tab,
 * nanoseconds.
 */
#include <curl/curl.h>
#include <err.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MOST 300
#define REQUEST_MOST     4096
#define NSEC_PER_SEC     INT64_C(1000000000)
#define PAUSE            (5 * NSEC_PER_SEC / 1000)
#define PATIENCE         (30 * NSEC_PER_SEC)

/* Each request tells its number by this. */
#define KEY "MessageContent="

struct connection {
	char bytes[REQUEST_MOST + 1];
	size_t len;
};

struct server {
	int port;
	struct pollfd polls[1 + CONNECTIONS_MOST]; /* the first one listens */
	struct connection *connections;            /* beside them */
	size_t n;
	size_t times;
	_Atomic int64_t *arrived; /* by number; 0: not yet */
	atomic_size_t n_arrived;
};

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static void sleep_until(int64_t at)
{
	struct timespec ts = { .tv_sec = at / NSEC_PER_SEC, .tv_nsec = at % NSEC_PER_SEC };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		continue;
}

/* The server. */

static void server_accept(struct server *s)
{
	int one = 1;
	int fd = accept(s->polls[0].fd, NULL, NULL);

	if (fd < 0 || s->n == 1 + CONNECTIONS_MOST)
		err(EX_OSERR, "accept");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	s->connections[s->n].len = 0;
	s->polls[s->n++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

static void server_close(struct server *s, size_t i)
{
	close(s->polls[i].fd);
	s->n--;
	s->polls[i] = s->polls[s->n];
	s->connections[i] = s->connections[s->n];
}

static void server_answer(const struct server *s, size_t i)
{
	static const char answer[] =
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 106\r\n\r\n"
		"{\"Code\":0,\"Message\":\"success\",\"RequestId\":\"2237080460466033406\","
		"\"Data\":{\"MessageId\":\"1_1611647493487_29\"}}";

	if (send(s->polls[i].fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
		err(EX_OSERR, "send");
}

static void server_read(struct server *s, size_t i)
{
	struct connection *c = &s->connections[i];
	ssize_t n = recv(s->polls[i].fd, c->bytes + c->len, REQUEST_MOST - c->len, 0);
	int64_t at = now();
	const char *key;
	size_t number;

	if (n <= 0) {
		server_close(s, i);
		return;
	}
	c->len += (size_t)n;
	c->bytes[c->len] = '\0';
	if (!strstr(c->bytes, "\r\n\r\n"))
		return;
	c->len = 0;
	key = strstr(c->bytes, KEY);
	number = key ? strtoul(key + strlen(KEY), NULL, 10) : s->times;
	if (number >= s->times)
		errx(EX_PROTOCOL, "not a request of ours: %s", c->bytes);
	s->arrived[number] = at;
	s->n_arrived++;
	server_answer(s, i);
}

static void *serve(void *arg)
{
	struct server *s = arg;

	for (;;) {
		if (poll(s->polls, s->n, -1) < 0)
			err(EX_OSERR, "poll");
		for (size_t i = s->n - 1; i > 0; i--) {
			if (s->polls[i].revents)
				server_read(s, i);
		}
		if (s->polls[0].revents)
			server_accept(s);
	}
	return NULL;
}

static void server_start(struct server *s, int port, size_t times)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int one = 1;
	pthread_t thread;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		err(EX_OSERR, "port %d", port);
	s->port = port;
	s->times = times;
	s->arrived = calloc(times, sizeof(*s->arrived));
	s->connections = calloc(1 + CONNECTIONS_MOST, sizeof(*s->connections));
	s->polls[0] = (struct pollfd){ .fd = fd, .events = POLLIN };
	s->n = 1;
	if (!s->arrived || !s->connections || pthread_create(&thread, NULL, serve, s) != 0)
		err(EX_OSERR, "memory");
}

static void server_await(struct server *s, size_t n)
{
	int64_t until = now() + PATIENCE;

	while (s->n_arrived < n) {
		if (now() > until)
			errx(EX_PROTOCOL, "%zu of %zu requests have arrived", (size_t)s->n_arrived,
			     n);
		usleep(1000);
	}
}

/* The writer. */

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		err(EX_OSERR, "%s", path);
	return fd;
}

/* Returns when it was written. */
static int64_t write_line(int fd, const char *id, size_t number)
{
	char line[256];
	int n = snprintf(
		line, sizeof(line),
		"{%s\"RoomId\":\"room\",\"UserId\":\"user\",\"MessageContent\":\"%08zu\"}\n", id,
		number);
	int64_t at = now();

	if (write(fd, line, (size_t)n) != n)
		err(EX_OSERR, "write");
	return at;
}

static void read_reply(int fd, const char *expected)
{
	char reply[1024];
	size_t len = 0;

	while (len == 0 || reply[len - 1] != '\n') {
		ssize_t n = read(fd, reply + len, sizeof(reply) - 1 - len);

		if (n <= 0)
			errx(EX_PROTOCOL, "the daemon has hung up");
		len += (size_t)n;
	}
	reply[len] = '\0';
	if (!strstr(reply, expected))
		errx(EX_PROTOCOL, "another reply than %s: %s", expected, reply);
}

/* What is held against each other. */

static void move_to(size_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
}

static size_t swallow(char *bytes, size_t size, size_t n, void *arg)
{
	return size * n;
}

/* As many bytes as the daemon's request has. Returns when it was begun. */
static int64_t request(CURL *easy, const struct server *s, size_t number)
{
	char url[512];
	int64_t at;

	snprintf(url, sizeof(url),
		 "http://127.0.0.1:%d/?AppId=1234567890&Signature=0123456789abcdef0123456789abcdef"
		 "&SignatureNonce=0123456789abcdef&SignatureVersion=2.0&Timestamp=1700000000"
		 "&Action=SendBarrageMessage&RoomId=room&UserId=user&MessageCategory=2"
		 "&" KEY "%08zu",
		 s->port, number);
	at = now();
	if (curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK ||
	    curl_easy_perform(easy) != CURLE_OK)
		errx(EX_PROTOCOL, "libcurl");
	return at;
}

static void tell(const char *what, int64_t ns)
{
	printf("%s\t%lld\n", what, (long long)ns);
}

/* The first of each makes its connection and is not told. */
static void beside(struct server *s, int fd, size_t times, size_t cpu)
{
	CURL *easy = curl_easy_init();
	cpu_set_t usual;

	if (!easy || curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow) != CURLE_OK ||
	    sched_getaffinity(0, sizeof(usual), &usual) < 0)
		errx(EX_OSERR, "libcurl");
	for (size_t i = 0; i < times; i++) {
		int64_t ours, reference;

		sleep_until(now() + PAUSE);
		ours = write_line(fd, "\"id\":1,", 2 * i);
		read_reply(fd, "\"sent\"");
		move_to(cpu);
		sleep_until(now() + PAUSE);
		reference = request(easy, s, 2 * i + 1);
		(void)sched_setaffinity(0, sizeof(usual), &usual);
		if (i == 0)
			continue;
		tell("ours", s->arrived[2 * i] - ours);
		tell("reference", s->arrived[2 * i + 1] - reference);
	}
	curl_easy_cleanup(easy);
}

/* Independent writers come at random; these always at the same random times. */
static void paced(struct server *s, int fd, size_t times, double rate)
{
	int64_t *written = calloc(times, sizeof(*written));
	unsigned short random[3] = { 4, 7, 11 };
	double at = (double)now();

	if (!written)
		err(EX_OSERR, "memory");
	for (size_t i = 0; i < times; i++) {
		at += -log(1 - erand48(random)) / rate * (double)NSEC_PER_SEC;
		sleep_until((int64_t)at);
		written[i] = write_line(fd, "", i);
	}
	server_await(s, times);
	for (size_t i = 0; i < times; i++)
		tell("ours", s->arrived[i] - written[i]);
	free(written);
}

static void refused(int fd, size_t times)
{
	for (size_t i = 0; i < times; i++) {
		int64_t at;

		sleep_until(now() + PAUSE);
		at = write_line(fd, "\"id\":1,", i);
		read_reply(fd, "\"queue_full\"");
		tell("ours", now() - at);
	}
}

int main(int argc, char **argv)
{
	static struct server s; /* its thread outlives this function */
	size_t times;
	int fd;

	if (argc < 5)
		errx(EX_USAGE, "see the top of lone.c");
	times = strtoul(argv[4], NULL, 10);
	server_start(&s, (int)strtoul(argv[3], NULL, 10), 2 * times);
	fd = dial(argv[2]);
	if (strcmp(argv[1], "beside") == 0 && argc == 6)
		beside(&s, fd, times, strtoul(argv[5], NULL, 10));
	else if (strcmp(argv[1], "paced") == 0 && argc == 6)
		paced(&s, fd, times, strtod(argv[5], NULL));
	else if (strcmp(argv[1], "refused") == 0 && argc == 5)
		refused(fd, times);
	else
		errx(EX_USAGE, "see the top of lone.c");
	return 0;
}
