/* SPDX-License-Identifier: MIT */
/* libcurl will take nearly anything for a URL. What it would make of one is asked of
 * its own parser, so that there is no second opinion, and what it should not do is
 * refused here: sending signatures in the clear to another host, carrying a user and
 * password that would then be in --dump-config, or appending our query to another.
 * A refused URL is not repeated in the sentence: it may hold a password. */
#include "edge/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

DEFINE_CLEANUP(CURLU *, curl_url_cleanup)

static void part_free(char *part)
{
	curl_free(part);
}
DEFINE_CLEANUP(char *, part_free)

/* *@out is NULL where the URL has none. Returns 0 or -ENOMEM. */
static int part(CURLU *u, CURLUPart what, char **out)
{
	CURLUcode r = curl_url_get(u, what, out, 0);

	if (r != CURLUE_OK)
		*out = NULL;
	return r == CURLUE_OUT_OF_MEMORY ? -ENOMEM : 0;
}

/* Returns 0, 1 or -ENOMEM. */
static int has(CURLU *u, CURLUPart what)
{
	_cleanup_(part_freep) char *text = NULL;
	int r = part(u, what, &text);

	return r < 0 ? r : text != NULL;
}

static bool is_loopback(const char *host)
{
	unsigned char v4[4];

	if (inet_pton(AF_INET, host, v4) == 1)
		return v4[0] == 127;
	return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

static bool begins(const char *text, const char *scheme)
{
	return strncasecmp(text, scheme, strlen(scheme)) == 0;
}

/* What goes for both keys. */
static int parse(CURLU *u, const char *key, const char *text, struct config_error *why)
{
	CURLUcode r;
	int found;

	if (!begins(text, "https://") && !begins(text, "http://"))
		return config_refuse(why, "%s: must begin with https:// or http://", key);
	r = curl_url_set(u, CURLUPART_URL, text, 0);
	if (r == CURLUE_OUT_OF_MEMORY)
		return -ENOMEM;
	if (r != CURLUE_OK)
		return config_refuse(why, "%s: is not a URL: %s", key, curl_url_strerror(r));
	found = has(u, CURLUPART_USER);
	if (found == 0)
		found = has(u, CURLUPART_PASSWORD);
	if (found < 0)
		return found;
	if (found)
		return config_refuse(why, "%s: must not contain a user or password", key);
	/* libcurl forgets an empty query, which would still be in the way of ours. */
	if (strpbrk(text, "?#"))
		return config_refuse(why, "%s: must not contain a query or fragment", key);
	return 0;
}

int url_check(const char *text, struct config_error *why)
{
	_cleanup_(curl_url_cleanupp) CURLU *u = curl_url();
	_cleanup_(part_freep) char *host = NULL;
	int r;

	if (!u)
		return -ENOMEM;
	r = parse(u, "url", text, why);
	if (r)
		return r;
	r = part(u, CURLUPART_HOST, &host);
	if (r)
		return r;
	if (!host)
		return config_refuse(why, "url: names no host");
	if (begins(text, "http://") && !is_loopback(host))
		return config_refuse(why, "url: must begin with https://, "
					  "as only a loopback address may do without");
	return 0;
}

int url_check_proxy(const char *text, struct config_error *why)
{
	_cleanup_(curl_url_cleanupp) CURLU *u = curl_url();
	_cleanup_(part_freep) char *path = NULL;
	int r;

	if (!*text)
		return 0;
	if (!u)
		return -ENOMEM;
	r = parse(u, "proxy", text, why);
	if (r)
		return r;
	r = part(u, CURLUPART_PATH, &path);
	if (r)
		return r;
	r = has(u, CURLUPART_PORT);
	if (r < 0)
		return r;
	if (!r || !path || strcmp(path, "/") != 0)
		return config_refuse(why, "proxy: is not http://host:port or https://host:port");
	return 0;
}
