/* SPDX-License-Identifier: MIT */
/*
 * Retry-After is what a stranger wishes for: a number of any size, a date in any century, or
 * neither. libcurl reads it, and says seconds; the rest of the daemon should not have to
 * fear them. So they come from here within bounds: long enough not to be a hammer, and
 * short enough that an AppID is not held for an hour by a slip.
 */
#include "edge/retry_after.h"

#include <string.h>

#include "core/base.h"

#define RETRY_AFTER_LEAST (NSEC_PER_SEC / 10)
#define RETRY_AFTER_MOST  (60 * NSEC_PER_SEC)

/* What libcurl reports as if there were none: "0", and numbers beyond its own. */
static uint64_t unreported(CURL *easy)
{
	struct curl_header *h;
	size_t n;

	if (curl_easy_header(easy, "Retry-After", 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
		return 0;
	n = strspn(h->value, "0123456789");
	if (n == 0 || h->value[n] != '\0')
		return 0;
	return h->value[strspn(h->value, "0")] == '\0' ? RETRY_AFTER_LEAST : RETRY_AFTER_MOST;
}

uint64_t retry_after_of(CURL *easy)
{
	curl_off_t seconds = 0;

	if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds) != CURLE_OK || seconds < 0)
		return 0;
	if (seconds == 0)
		return unreported(easy);
	if ((uint64_t)seconds >= RETRY_AFTER_MOST / NSEC_PER_SEC)
		return RETRY_AFTER_MOST;
	return max_u64((uint64_t)seconds * NSEC_PER_SEC, RETRY_AFTER_LEAST);
}
