/* SPDX-License-Identifier: MIT */
#include "core/sign.h"

#include <errno.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/app.h"
#include "core/room.h"
#include "core/target.h"

/* The vector that ZEGO publishes (zego-api.md, "The call"). */
static void test_the_published_vector_is_signed_as_published(void **state)
{
	static const unsigned char nonce[SIGN_NONCE_BYTES] = { 0x4f, 0xd2, 0x46, 0x87,
							       0x29, 0x6d, 0xd9, 0xf3 };
	struct signature s;
	struct signer signer;

	assert_int_equal(signer_init(&signer), 0);
	for (int i = 0; i < 2; i++) {
		memset(&s, 'x', sizeof(s));
		assert_int_equal(signer_sign(&signer, &s, 12345, "9193cc662a4c0ec135ec71fb57194b38",
					     nonce, 1615186943),
				 0);
		assert_string_equal(s.nonce, "4fd24687296dd9f3");
		assert_string_equal(s.timestamp, "1615186943");
		assert_string_equal(s.hex, "43e5cfcca828314675f91b001390566a");
	}
	signer_deinit(&signer);
}

/* As where the system allows approved algorithms only. */
static void test_without_md5_there_is_no_signer(void **state)
{
	struct signer signer;

	assert_int_equal(EVP_set_default_properties(NULL, "fips=yes"), 1);
	assert_int_equal(signer_init(&signer), -ENOTSUP);
	signer_deinit(&signer);
	assert_int_equal(EVP_set_default_properties(NULL, ""), 1);
	assert_int_equal(signer_init(&signer), 0);
	signer_deinit(&signer);
}

static void put(struct request *r, const char *room, const char *user, const char *name,
		const char *content)
{
	char *p = r->data;

	r->room_id_len = (uint8_t)strlen(room);
	r->user_id_len = (uint8_t)strlen(user);
	r->user_name_len = (uint8_t)strlen(name);
	r->content_len = (uint16_t)strlen(content);
	p = stpcpy(p, room) + 1;
	p = stpcpy(p, user) + 1;
	p = stpcpy(p, name) + 1;
	stpcpy(p, content);
}

/* One request's target, for an AppID with the given IsTest. */
static void print(struct buffer *out, struct request *r, uint64_t is_test)
{
	static const struct signature s = { "0011223344556677", "1700000000", "ffee" };
	struct app_config config = { .is_test = is_test };
	struct app app = { .app_id = 4294967295, .config = &config };
	struct room room = { .app = &app };

	r->room = &room;
	out->len = 0;
	target_print(out, "/", r, &s);
	assert_false(out->failed);
}

static void test_every_value_is_encoded_once_and_nothing_else_is(void **state)
{
	struct request *r = calloc(1, sizeof(*r) + 256);
	struct buffer b = { 0 };

	put(r, "r 1", "u+2", "A-Za_9.~", "嗨&=%/?#\r\n'\"");
	r->class = CLASS_CHAT;
	print(&b, r, IS_TEST_UNSET);
	assert_string_equal(b.data, "/?Action=SendBarrageMessage&AppId=4294967295"
				    "&SignatureNonce=0011223344556677&Timestamp=1700000000"
				    "&Signature=ffee&SignatureVersion=2.0&RoomId=r%201&UserId=u%2B2"
				    "&UserName=A-Za_9.~&MessageCategory=2"
				    "&MessageContent=%E5%97%A8%26%3D%25%2F%3F%23%0D%0A%27%22");
	buffer_deinit(&b);
	free(r);
}

static void test_absent_parameters_are_not_sent(void **state)
{
	static const char *const is_test[] = { NULL, "&IsTest=true&", "&IsTest=false&" };
	struct request *r = calloc(1, sizeof(*r) + 64);
	struct buffer b = { 0 };

	put(r, "r", "u", "", "c");
	r->class = CLASS_SYSTEM;
	for (uint64_t i = 0; i < ARRAY_SIZE(is_test); i++) {
		print(&b, r, i);
		assert_null(strstr(b.data, "UserName"));
		assert_non_null(strstr(b.data, "&MessageCategory=1&"));
		if (is_test[i])
			assert_non_null(strstr(b.data, is_test[i]));
		else
			assert_null(strstr(b.data, "IsTest"));
	}
	buffer_deinit(&b);
	free(r);
}

static void test_a_long_text_is_encoded_whole(void **state)
{
	struct request *r = calloc(1, sizeof(*r) + 20000);
	struct buffer b = { 0 };
	char *content = malloc(16385);

	memset(content, ' ', 16384);
	content[16384] = '\0';
	put(r, "r", "u", "", content);
	print(&b, r, IS_TEST_UNSET);
	assert_int_equal(strlen(strstr(b.data, "MessageContent=")), 15 + 3 * 16384);
	buffer_deinit(&b);
	free(content);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_published_vector_is_signed_as_published),
		cmocka_unit_test(test_without_md5_there_is_no_signer),
		cmocka_unit_test(test_every_value_is_encoded_once_and_nothing_else_is),
		cmocka_unit_test(test_absent_parameters_are_not_sent),
		cmocka_unit_test(test_a_long_text_is_encoded_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
