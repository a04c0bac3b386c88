/* SPDX-License-Identifier: MIT */
/*
 * The parts are fed to the digest one after the other, so the string that is hashed,
 * which holds the ServerSecret, never exists in memory of ours; what OpenSSL buffered of
 * it is wiped when the context is reset for the next signature.
 */
#include "core/sign.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int signer_init(struct signer *s)
{
	s->context = EVP_MD_CTX_new();
	if (!s->context)
		return -ENOMEM;
	s->md5 = EVP_MD_fetch(NULL, "MD5", NULL);
	if (!s->md5) {
		EVP_MD_CTX_free(s->context);
		s->context = NULL;
		return -ENOTSUP;
	}
	return 0;
}

void signer_deinit(struct signer *s)
{
	EVP_MD_CTX_free(s->context);
	EVP_MD_free(s->md5);
	*s = (struct signer){ 0 };
}

static void put_hex(char *out, const unsigned char *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * n] = '\0';
}

static bool feed(struct signer *s, const char *text)
{
	return EVP_DigestUpdate(s->context, text, strlen(text)) == 1;
}

int signer_sign(struct signer *s, struct signature *out, uint32_t app_id, const char *secret,
		const unsigned char nonce[SIGN_NONCE_BYTES], int64_t unix_seconds)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char app_text[11];
	bool ok;

	snprintf(app_text, sizeof(app_text), "%" PRIu32, app_id);
	snprintf(out->timestamp, sizeof(out->timestamp), "%" PRId64, unix_seconds);
	put_hex(out->nonce, nonce, SIGN_NONCE_BYTES);

	ok = EVP_DigestInit_ex2(s->context, s->md5, NULL) == 1 && feed(s, app_text) &&
	     feed(s, out->nonce) && feed(s, secret) && feed(s, out->timestamp) &&
	     EVP_DigestFinal_ex(s->context, digest, NULL) == 1;
	EVP_MD_CTX_reset(s->context);
	if (!ok)
		return -EIO;
	put_hex(out->hex, digest, 16);
	return 0;
}
