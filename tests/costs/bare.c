/* SPDX-License-Identifier: MIT */
/*
 * What a request costs with libcurl's multi interface and nothing else: the same request
 * again and again, over kept connections, on handles that are used again, with all that is
 * known to spare it work (a URL that is parsed once, a target as it is to be sent, small
 * buffers). A program that sends by libcurl cannot cost much less.
 *
 *     bare URL TARGET CA_FILE IN_FLIGHT REQUESTS
 *
 * Written is the processor time for a request, in nanoseconds; IN_FLIGHT requests, which
 * connect, are not counted.
 */
#include <curl/curl.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sysexits.h>
#include <time.h>

#define EVENTS     64
#define NSEC_PER_S INT64_C(1000000000)

struct load {
	CURLM *multi;
	int epoll;
	int wait; /* ms; -1: until something happens */
	size_t left;
	size_t in_flight;
};

static int64_t processor_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * NSEC_PER_S + ts.tv_nsec;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct load *l = arg;
	struct epoll_event e = { .data.fd = fd };

	if (what == CURL_POLL_REMOVE) {
		(void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
		curl_multi_assign(l->multi, fd, NULL);
		return 0;
	}
	e.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) |
		   (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
	if (epoll_ctl(l->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) < 0)
		err(EX_OSERR, "epoll_ctl");
	curl_multi_assign(l->multi, fd, l);
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
	struct load *l = arg;

	l->wait = (int)ms;
	return 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	return size * n;
}

static CURL *make(CURLU *url, const char *target, const char *ca_file)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		errx(EX_OSERR, "no handle");
	curl_easy_setopt(easy, CURLOPT_CURLU, url);
	curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, target);
	curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 1024L);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 16384L);
	curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
	return easy;
}

static void start(struct load *l, CURL *easy)
{
	if (curl_multi_add_handle(l->multi, easy) != CURLM_OK)
		errx(EX_SOFTWARE, "curl_multi_add_handle");
	l->left--;
	l->in_flight++;
}

static void reap(struct load *l)
{
	CURLMsg *m;
	int more;

	while ((m = curl_multi_info_read(l->multi, &more))) {
		CURL *easy = m->easy_handle;
		long status = 0;

		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (m->data.result != CURLE_OK || status != 200)
			errx(EX_PROTOCOL, "%s, status %ld", curl_easy_strerror(m->data.result),
			     status);
		curl_multi_remove_handle(l->multi, easy);
		l->in_flight--;
		if (l->left > 0)
			start(l, easy);
	}
}

static void turn(struct load *l)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(l->epoll, events, EVENTS, l->wait);
	int running;

	if (n < 0)
		err(EX_OSERR, "epoll_wait");
	if (n == 0) {
		l->wait = -1;
		curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	for (int i = 0; i < n; i++) {
		int what = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
			   (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			   (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

		curl_multi_socket_action(l->multi, events[i].data.fd, what, &running);
	}
	reap(l);
}

static void send_all(struct load *l, CURL **handles, size_t most, size_t requests)
{
	l->left = requests;
	for (size_t i = 0; i < most && l->left > 0; i++)
		start(l, handles[i]);
	while (l->in_flight > 0)
		turn(l);
}

int main(int argc, char **argv)
{
	struct load l = { .wait = -1 };
	size_t most, requests;
	CURL **handles;
	CURLU *url;
	int64_t before;

	if (argc != 6)
		errx(EX_USAGE, "usage: bare URL TARGET CA_FILE IN_FLIGHT REQUESTS");
	most = strtoul(argv[4], NULL, 10);
	requests = strtoul(argv[5], NULL, 10);
	url = curl_url();
	if (!url || curl_url_set(url, CURLUPART_URL, argv[1], 0) != CURLUE_OK)
		errx(EX_USAGE, "not a URL: %s", argv[1]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	l.multi = curl_multi_init();
	l.epoll = epoll_create1(EPOLL_CLOEXEC);
	handles = calloc(most, sizeof(CURL *));
	if (!l.multi || l.epoll < 0 || !handles)
		err(EX_OSERR, "cannot begin");
	curl_multi_setopt(l.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(l.multi, CURLMOPT_SOCKETDATA, &l);
	curl_multi_setopt(l.multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(l.multi, CURLMOPT_TIMERDATA, &l);
	curl_multi_setopt(l.multi, CURLMOPT_MAXCONNECTS, (long)most);
	for (size_t i = 0; i < most; i++)
		handles[i] = make(url, argv[2], argv[3]);
	send_all(&l, handles, most, most);
	before = processor_ns();
	send_all(&l, handles, most, requests);
	printf("%.1f\n", (double)(processor_ns() - before) / (double)requests);
	for (size_t i = 0; i < most; i++)
		curl_easy_cleanup(handles[i]);
	curl_multi_cleanup(l.multi);
	curl_url_cleanup(url);
	free(handles);
	return 0;
}
