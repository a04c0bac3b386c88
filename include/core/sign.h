/* SPDX-License-Identifier: MIT */
/* ZEGO's signature, version 2.0 (zego-api.md, "The call"). */
#pragma once

#include <stdint.h>

#include "core/base.h"

#define SIGN_NONCE_BYTES 8

/* The three parameters that one attempt is signed with, NUL-terminated. */
struct signature {
	char nonce[2 * SIGN_NONCE_BYTES + 1]; /* SignatureNonce */
	char timestamp[21];                   /* Timestamp, decimal */
	char hex[33];                         /* Signature */
};

/* The fetched digest and its context, so that a signature costs no look-up. */
struct signer {
	struct evp_md_st *md5;
	struct evp_md_ctx_st *context;
};

/* Returns 0, -ENOMEM, or -ENOTSUP where OpenSSL has no MD5 (a FIPS provider alone). */
int signer_init(struct signer *s);
void signer_deinit(struct signer *s);

/* Signs one attempt: lowercase hex of MD5(AppId ‖ nonce ‖ secret ‖ timestamp). @nonce is
 * random, @unix_seconds the wall clock. Keeps no copy of the secret. Returns 0 or -EIO. */
int signer_sign(struct signer *s, struct signature *out, uint32_t app_id, const char *secret,
		const unsigned char nonce[SIGN_NONCE_BYTES], int64_t unix_seconds);
