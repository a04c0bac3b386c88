/* SPDX-License-Identifier: MIT */
/* When a server wants to be asked again. */
#pragma once

#include <curl/curl.h>
#include <stdint.h>

/* What the answer that this handle has received says in its Retry-After
 * header, seconds or a date: ns from 0.1 s to 60 s, or 0 where there is none that can be
 * understood and lies ahead. */
uint64_t retry_after_of(CURL *easy);
