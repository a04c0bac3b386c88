/* SPDX-License-Identifier: MIT */
/*
 * Retry-After is what a stranger wishes for: a number of any size, a date in any century, or
 * neither. libcurl reads it, and says seconds; the rest of the daemon should not have to
 * fear them. So they come from here within bounds: long enough not to be a hammer, and
 * short enough that an AppID is not held for an hour by a slip.
 */
#include "edge/retry_after.h"

#include <stdbool.h>
#include <string.h>

#include "core/base.h"

#define RETRY_AFTER_LEAST (NSEC_PER_SEC / 10)
#define RETRY_AFTER_MOST  (60 * NSEC_PER_SEC)

/* "Retry-After: 0", which libcurl reports as if there were none. */
static bool is_zero(CURL *easy)
{
	struct curl_header *h;

	return curl_easy_header(easy, "Retry-After", 0, CURLH_HEADER, -1, &h) == CURLHE_OK &&
	       strcmp(h->value, "0") == 0;
}

uint64_t retry_after_of(CURL *easy)
{
	curl_off_t seconds = 0;

	if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds) != CURLE_OK || seconds < 0)
		return 0;
	if (seconds == 0)
		return is_zero(easy) ? RETRY_AFTER_LEAST : 0;
	if ((uint64_t)seconds >= RETRY_AFTER_MOST / NSEC_PER_SEC)
		return RETRY_AFTER_MOST;
	return max_u64((uint64_t)seconds * NSEC_PER_SEC, RETRY_AFTER_LEAST);
}
