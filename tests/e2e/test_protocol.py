# SPDX-License-Identifier: MIT
"""The socket protocol: what a line may be, what is answered, and what writers may do to a connection."""

import contextlib
import json
import os
import random
import re
import signal
import socket

import pytest

from support import APP, OTHER_APP, eventually, is_sanitized, message

MAX_LINE = 16 * 1024
SAFE_INTEGER = 2**53 - 1
KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def writer(standing_daemon):
    with contextlib.closing(standing_daemon.connect()) as writer:
        yield writer


def has_descriptors(daemon, n):
    """Whether the daemon comes to have n descriptors, or fewer since it closes idle connections upstream."""
    eventually(lambda: len(daemon.descriptors()) <= n, f"no more than {n} descriptors")
    return True


def encode(line):
    """A line as it is written, with characters beyond ASCII as they are."""
    return json.dumps(line, ensure_ascii=False).encode()


def line_with_id(raw):
    """A good line whose id is written just like that."""
    return encode(message())[:-1] + b', "id": ' + raw + b"}"


# What a line may be.

GOOD = {
    "RoomId of 1 byte": {"RoomId": "r"},
    "RoomId of 127 bytes": {"RoomId": "r" * 127},
    "RoomId of 127 bytes in UTF-8": {"RoomId": "é" * 63 + "r"},
    "UserId of 1 byte": {"UserId": "u"},
    "UserId of 63 bytes": {"UserId": "用" * 21},
    "UserName of 1 byte": {"UserName": "n"},
    "UserName of 255 bytes": {"UserName": "名" * 85},
    "MessageContent of 1 byte": {"MessageContent": "m"},
    "MessageContent of 1024 bytes": {"MessageContent": "内" * 341 + "x"},
    "MessageCategory 1": {"MessageCategory": 1},
    "MessageCategory 2": {"MessageCategory": 2},
    "AppId": {"AppId": APP},
    "ttl_ms": {"ttl_ms": 60000},
    "id of 64 bytes": {"id": "é" * 32},
}


@pytest.mark.parametrize("fields", GOOD.values(), ids=GOOD)
def test_a_value_within_its_limits_is_sent(writer, fields):
    assert writer.ask(message(**{"id": 1} | fields))["outcome"] == "sent"


BAD = {
    "no RoomId": ({"RoomId": None}, "RoomId is missing"),
    "no UserId": ({"UserId": None}, "UserId is missing"),
    "no MessageContent": ({"MessageContent": None}, "MessageContent is missing"),
    "RoomId empty": ({"RoomId": ""}, "RoomId is empty"),
    "RoomId of 128 bytes": ({"RoomId": "é" * 64}, "RoomId is 128 bytes; at most 127 are allowed"),
    "RoomId a number": ({"RoomId": 1}, "RoomId must be a string"),
    "UserId empty": ({"UserId": ""}, "UserId is empty"),
    "UserId of 64 bytes": ({"UserId": "u" * 64}, "UserId is 64 bytes; at most 63 are allowed"),
    "UserId a list": ({"UserId": ["u"]}, "nested array or object"),
    "UserName empty": ({"UserName": ""}, "UserName is empty"),
    "UserName of 256 bytes": ({"UserName": "n" * 256}, "UserName is 256 bytes; at most 255 are allowed"),
    "UserName true": ({"UserName": True}, "UserName must be a string"),
    "MessageContent empty": ({"MessageContent": ""}, "MessageContent is empty"),
    "MessageContent of 1030 bytes": (
        {"MessageContent": "x" * 1030},
        "MessageContent is 1030 bytes; at most 1024 are allowed",
    ),
    "MessageContent an object": ({"MessageContent": {"a": "b"}}, "nested array or object"),
    "MessageCategory 0": ({"MessageCategory": 0}, "from 1 to 2"),
    "MessageCategory 3": ({"MessageCategory": 3}, "from 1 to 2"),
    "MessageCategory a string": ({"MessageCategory": "2"}, "MessageCategory must be an integer"),
    "MessageCategory 2.0": ({"MessageCategory": 2.0}, "MessageCategory is 2.0"),
    "AppId 0": ({"AppId": 0}, "from 1 to 4294967295"),
    "AppId of 33 bits": ({"AppId": APP + 2**32}, "from 1 to 4294967295"),
    "AppId negative": ({"AppId": -APP}, "from 1 to 4294967295"),
    "AppId a string": ({"AppId": str(APP)}, "AppId must be an integer"),
    "ttl_ms 0": ({"ttl_ms": 0}, "from 1 to 60000"),
    "ttl_ms 60001": ({"ttl_ms": 60001}, "from 1 to 60000"),
    "ttl_ms false": ({"ttl_ms": False}, "ttl_ms must be an integer"),
    "id empty": ({"id": ""}, "id is empty"),
    "id of 65 bytes": ({"id": "é" * 32 + "x"}, "id is 65 bytes; at most 64 are allowed"),
    "id false": ({"id": False}, "id must be a string or an integer"),
    "a field mistyped": ({"Roomid": "r"}, "did you mean RoomId?"),
    "a field half right": ({"MessageContents": "r"}, "did you mean MessageContent?"),
    "a field in the wrong case": ({"ID": 1}, "did you mean id?"),
    "a field with swapped letters": ({"tlt_ms": 1}, "did you mean ttl_ms?"),
    "a field from nowhere": ({"priority": 1}, 'unknown field "priority"'),
}


@pytest.mark.parametrize("fields, error", BAD.values(), ids=BAD)
def test_a_line_is_refused_with_the_reason(writer, fields, error):
    reply = writer.ask(message(**fields))
    assert error in reply.pop("error")
    assert reply == {"outcome": "rejected", "reason": "invalid", "line": 1}


# What comes after a good line's last member, or instead of all of it.
GOOD_LINE = encode(message())
NO_JSON = {
    "a word": b"hello",
    "a string": b'"hello"',
    "a number": b"1",
    "an array": b"[" + GOOD_LINE + b"]",
    "an object cut short": GOOD_LINE[:-1],
    "a string cut short": GOOD_LINE[:-2],
    "two objects": GOOD_LINE + GOOD_LINE,
    "trailing bytes": GOOD_LINE + b" x",
    "a trailing comma": GOOD_LINE[:-1] + b",}",
    "a comment": GOOD_LINE + b" // hello",
    "single quotes": GOOD_LINE.replace(b'"', b"'"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD_LINE,
    "a name twice": GOOD_LINE[:-1] + b', "RoomId": "r"}',
    "a name twice, once in escapes": GOOD_LINE[:-1] + rb', "\u0052oomId": "r"}',
    "a NUL in a string": GOOD_LINE.replace(b"hello", b"he\0lo"),
    "a NUL after the object": GOOD_LINE + b"\0",
    "an escaped NUL": GOOD_LINE.replace(b"hello", rb"he\u0000lo"),
    "an escaped NUL in a name": GOOD_LINE.replace(b"RoomId", rb"RoomId\u0000"),
    "a tab in a string": GOOD_LINE.replace(b"hello", b"he\tlo"),
    "a carriage return in a string": GOOD_LINE.replace(b"hello", b"he\rlo"),
    "a lone high surrogate": GOOD_LINE.replace(b"hello", rb"\ud83d"),
    "a lone low surrogate": GOOD_LINE.replace(b"hello", rb"\ude00\ud83d"),
    "a surrogate in UTF-8": GOOD_LINE.replace(b"hello", b"\xed\xa0\xbd"),
    "an overlong slash": GOOD_LINE.replace(b"hello", b"\xc0\xaf"),
    "a cut character": GOOD_LINE.replace(b"hello", b"\xe4\xbd"),
    "Latin-1": GOOD_LINE.replace(b"hello", b"caf\xe9"),
    "beyond Unicode": GOOD_LINE.replace(b"hello", b"\xf4\x90\x80\x80"),
    "an unknown escape": GOOD_LINE.replace(b"hello", rb"\x41"),
    "a cut escape": GOOD_LINE.replace(b"hello", rb"\u12"),
    "a number with a leading zero": GOOD_LINE[:-1] + b', "MessageCategory": 02}',
    "a number in scientific notation": GOOD_LINE[:-1] + b', "ttl_ms": 1e3}',
    "a number beyond every double": GOOD_LINE[:-1] + b', "ttl_ms": 1e999}',
    "a cut number": GOOD_LINE[:-1] + b', "ttl_ms": 1.}',
    "a very long number": GOOD_LINE[:-1] + b', "ttl_ms": ' + b"1" * 10_000 + b"}",
    "deep nesting": b"[" * 10_000,
    "a deeply nested field": GOOD_LINE[:-1] + b', "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a long array": GOOD_LINE[:-1] + b', "x": [' + b"0," * 6_000 + b"0]}",
}


@pytest.mark.parametrize("line", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_object_of_ours_is_refused_and_the_connection_goes_on(writer, line):
    refused, sent = writer.ask(line, message(id="after"))
    assert (refused["outcome"], refused["reason"], refused["line"]) == ("rejected", "invalid", 1)
    assert (sent["outcome"], sent["id"]) == ("sent", "after")


@pytest.mark.parametrize(
    "line, offset", ((b'{"RoomId"?', 9), (GOOD_LINE + b" x", len(GOOD_LINE) + 1), (b'{"a":"\xff"}', 6))
)
def test_an_error_in_the_json_tells_where_it_is(writer, line, offset):
    assert writer.ask(line)["error"].endswith(f" at byte offset {offset}")


def test_an_error_quotes_no_raw_bytes_of_a_writer(writer):
    writer.send(b'{"\xff\x1b[31m": 1}', rb'{"\u001b[31m' + b"x" * 200 + b'": 1}', b'{"RoomId": \xff}')
    for _ in range(3):
        raw = writer.raw_reply()
        assert b"\x1b" not in raw and len(raw) < 400
        assert json.loads(raw.decode())["reason"] == "invalid"


def test_lengths_are_those_of_the_decoded_text(writer):
    escaped = rb'{"RoomId": "r", "UserId": "u", "id": 1, "MessageContent": "' + rb"\u5185" * 341 + b'x"}'
    longer = escaped.replace(b'x"', b'xy"')
    sent, refused = sorted(writer.ask(escaped, longer), key=lambda reply: reply["outcome"], reverse=True)
    assert sent["outcome"] == "sent"
    assert refused["error"] == "MessageContent is 1025 bytes; at most 1024 are allowed"


TEXTS = {
    "signs with a meaning in a URL": "a&b=c?d#e%41+f;g/h:i@j",
    "signs with a meaning in JSON": '"quoted" \\ /slash',
    "control characters": "line\r\nfeed\ttab\x01\x7f",
    "Chinese": "你好，世界",
    "an emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "right to left": "\u202eשלום\u202c مرحبا",
    "zero width": "a\u200bb\ufeffc",
    "the edges of UTF-8's lengths": "\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff",
    "blanks around": "  x  ",
}


@pytest.mark.parametrize("ascii_only", (True, False), ids=("escaped", "raw"))
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_arrives_as_it_was_written(standing_daemon, writer, text, ascii_only):
    line = json.dumps(message(text, id=1), ensure_ascii=ascii_only).encode()
    assert writer.ask(line)["outcome"] == "sent"
    assert standing_daemon.zego.contents()[-1] == text


def test_what_a_line_does_not_give_is_not_sent(zego, daemon):
    zego.rules(
        [
            {"match": {"UserName": None, "IsTest": None, "MessageCategory": "2"}, "do": {"code": 1008}},
            {"match": {"UserName": "Ann", "IsTest": None, "MessageCategory": "1"}, "do": {"code": 50014}},
        ]
    )
    writer = daemon.connect()
    assert writer.ask(message(id=1))["Code"] == 1008
    assert writer.ask(message(id=2, UserName="Ann", MessageCategory=1))["Code"] == 50014


# Replies.


IDS = {
    "a word": b'"a1"',
    "escapes": rb'"\u0061\/\n\"\\"',
    "a surrogate pair": rb'"\ud83d\ude00"',
    "lowercase hexadecimal digits": rb'"\u00e9\u00E9"',
    "UTF-8": '"é 名 \U0001f600"'.encode(),
    "64 escaped bytes": b'"' + rb"\u0061" * 64 + b'"',
    "zero": b"0",
    "one": b"1",
    "negative": b"-1",
    "largest": b"%d" % SAFE_INTEGER,
    "smallest": b"%d" % -SAFE_INTEGER,
}


@pytest.mark.parametrize("raw", IDS.values(), ids=IDS)
def test_an_id_comes_back_byte_for_byte(writer, raw):
    writer.send(line_with_id(raw))
    assert writer.raw_reply().startswith(b'{"id":' + raw + b',"outcome":"sent",')


@pytest.mark.parametrize("raw", IDS.values(), ids=IDS)
def test_a_refused_line_gets_its_id_back_too(writer, raw):
    writer.send(line_with_id(raw).replace(b"RoomId", b"Room"))
    assert writer.raw_reply().startswith(b'{"id":' + raw + b',"outcome":"rejected","reason":"invalid","line":1,')


@pytest.mark.parametrize(
    "raw",
    (b"%d" % (SAFE_INTEGER + 1), b"%d" % -(SAFE_INTEGER + 1), b"-0", b"1.0", b"1e3", b"1E400", b"true", b"null", b"[]"),
    ids=bytes.decode,
)
def test_an_id_that_could_come_back_changed_is_refused(writer, raw):
    writer.send(line_with_id(raw))
    reply = writer.reply()
    assert reply["reason"] == "invalid"
    assert "id" not in reply


def test_each_fate_has_its_form_of_reply(host):
    zego = host.zego()
    zego.rules(
        [
            {"match": {"content": "api"}, "do": {"code": 50012, "message": "内容 \"过长\""}},
            {"match": {"content": "http"}, "do": {"status": 404}},
            {"match": {"content": "hang"}, "do": {"damage": "hang"}},
        ]
    )
    writer = host.daemon(zego, upstream={"timeout": "200ms"}).connect()
    sent = writer.ask(message("sent", id="a"))
    api = writer.ask(message("api", id=2))
    http = writer.ask(message("http", id="c"))
    timeout = writer.ask(message("hang", id="d"))
    assert list(sent) == ["id", "outcome", "MessageId", "RequestId", "waited_ms", "took_ms"]
    assert re.fullmatch(r"[0-9]{19}", sent["RequestId"]) and sent["MessageId"]
    assert list(api) == ["id", "outcome", "reason", "Code", "Message", "RequestId", "waited_ms", "took_ms"]
    assert (api["id"], api["outcome"], api["reason"], api["Code"]) == (2, "failed", "api", 50012)
    assert api["Message"] == '内容 "过长"'
    assert list(http) == ["id", "outcome", "reason", "status", "waited_ms", "took_ms"]
    assert (http["reason"], http["status"]) == ("http", 404)
    assert list(timeout) == ["id", "outcome", "reason", "waited_ms", "took_ms"]
    assert timeout["reason"] == "timeout"


def test_a_message_dropped_before_it_was_tried_tells_how_long_it_waited(host):
    daemon = host.daemon(host.zego(), app={"rate": 1, "burst": 1})
    writer = daemon.connect()
    replies = writer.ask(message(id="first"), message(id="second", ttl_ms=50))
    dropped, sent = sorted(replies, key=lambda reply: reply["outcome"])
    assert (sent["id"], sent["outcome"]) == ("first", "sent")
    assert dropped.pop("waited_ms") >= 50
    assert dropped == {"id": "second", "outcome": "dropped", "reason": "expired"}


def test_a_line_without_id_is_answered_only_if_it_is_refused(standing_daemon, writer):
    before = len(standing_daemon.zego.contents())
    writer.send(message("quiet"), message(room=""), message("quiet too"))
    writer.half_close()
    assert [(reply["outcome"], reply["line"]) for reply in writer.rest()] == [("rejected", 2)]
    standing_daemon.zego.wait_for_requests(before + 2)
    assert sorted(standing_daemon.zego.contents()[before:]) == ["quiet", "quiet too"]


def test_refused_lines_are_numbered_on_their_connection_empty_ones_counted(standing_daemon):
    for _ in range(2):
        writer = standing_daemon.connect()
        writer.send(b"a", b"", message(), b"\r", b"  ", b"b", b"c")
        assert [reply["line"] for reply in writer.replies(3)] == [1, 6, 7]


# How lines may come.


def test_empty_lines_are_skipped_and_crlf_ends_a_line(writer):
    writer.send_bytes(b"\r\n\n  \n" + encode(message(id=1)) + b"\r\n\r\n")
    writer.half_close()
    assert [reply["outcome"] for reply in writer.rest()] == ["sent"]


def test_only_one_carriage_return_belongs_to_the_line_end(writer):
    assert writer.ask(encode(message(id=1)) + b"\r")["outcome"] == "sent"
    assert writer.ask(encode(message(id=2))[:-1] + b'\r, "ttl_ms": "x\r"}')["outcome"] == "rejected"


def test_a_line_may_come_byte_by_byte(writer):
    for byte in encode(message(id="slowly")) + b"\r\n":
        writer.send_bytes(bytes([byte]))
    assert writer.reply()["outcome"] == "sent"


def test_many_lines_in_one_write_are_all_taken_in_order(writer):
    lines = [b"refused"] * 2000
    writer.send(*lines, message(id="last"))
    assert [reply["line"] for reply in writer.replies(2000)] == list(range(1, 2001))
    assert writer.reply()["id"] == "last"


def test_each_of_many_messages_gets_exactly_one_reply(zego, daemon):
    writer = daemon.connect()
    writer.send(*(message(str(n), f"room{n % 10}", id=n) for n in range(150)))
    writer.half_close()
    replies = writer.rest()
    assert sorted(reply["id"] for reply in replies) == list(range(150))
    assert {reply["outcome"] for reply in replies} == {"sent"}
    assert sorted(zego.contents(), key=int) == [str(n) for n in range(150)]


def padded(line, n):
    """The line with blanks before its last brace, so that it has n bytes."""
    encoded = encode(line)
    return encoded[:-1] + b" " * (n - len(encoded)) + b"}"


@pytest.mark.parametrize("end", (b"\n", b"\r\n"), ids=("lf", "crlf"))
def test_a_line_may_have_max_line_bytes_but_not_one_more(writer, end):
    writer.send_bytes(padded(message(id="fits"), MAX_LINE) + end)
    assert writer.reply()["outcome"] == "sent"
    writer.send_bytes(padded(message(id="too long"), MAX_LINE + 1) + end)
    refused = writer.reply()
    assert "max_line" in refused.pop("error")
    assert refused == {"outcome": "rejected", "reason": "too_long", "line": 2}


def test_an_endless_line_is_refused_once_and_early_and_the_next_one_works(writer):
    writer.send_bytes(b"x" * MIB)
    assert writer.reply()["reason"] == "too_long"
    writer.send_bytes(b"y" * MIB + b"\n")
    writer.send(message(id="next"), b"refused")
    replies = writer.replies(2)
    assert {"next"} == {reply.get("id") for reply in replies if reply["outcome"] == "sent"}
    assert [reply["line"] for reply in replies if reply["outcome"] == "rejected"] == [3]


def test_endless_lines_take_no_memory(standing_daemon):
    writers = [standing_daemon.connect() for _ in range(20)]
    before = standing_daemon.resident()
    for writer in writers:
        writer.send_bytes(b"x" * 4 * MIB)
        assert writer.reply()["reason"] == "too_long"
    assert is_sanitized() or standing_daemon.resident() - before < 2 * MIB


# How writers may leave.


def test_a_writer_that_half_closes_gets_its_outstanding_replies_and_then_the_end(host):
    writer = host.daemon(host.zego(latency=200)).connect()
    writer.send(*(message(id=n) for n in range(3)))
    writer.half_close()
    replies = writer.rest()
    assert sorted(reply["id"] for reply in replies) == [0, 1, 2]
    assert {reply["outcome"] for reply in replies} == {"sent"}


def test_a_writer_that_asked_for_nothing_is_let_go_at_once(host):
    daemon = host.daemon(host.zego(latency=500))
    writer = daemon.connect()
    writer.send(message("still sent"))
    writer.half_close()
    assert writer.rest() == []
    daemon.zego.wait_for_requests(1)


def test_an_unfinished_last_line_counts_as_a_line(writer):
    writer.send_bytes(b"\n" + encode(message(id="unfinished")))
    writer.half_close()
    assert [(reply["id"], reply["outcome"]) for reply in writer.rest()] == [("unfinished", "sent")]


def test_a_last_line_that_was_cut_is_refused(writer):
    writer.send_bytes(encode(message(id="cut"))[:-3])
    writer.half_close()
    (reply,) = writer.rest()
    assert (reply["reason"], reply["line"]) == ("invalid", 1)


def test_an_endless_last_line_is_refused_once(writer):
    writer.send_bytes(b"x" * (MAX_LINE + 1))
    writer.half_close()
    assert [reply["reason"] for reply in writer.rest()] == ["too_long"]


def test_a_writer_that_leaves_does_not_take_its_messages_with_it(host):
    zego = host.zego(latency=200)
    daemon = host.daemon(zego)
    writer = daemon.connect()
    writer.send(*(message(str(n), id=n) for n in range(5)))
    writer.close()
    eventually(lambda: sorted(zego.contents()) == ["0", "1", "2", "3", "4"], "five messages at the sandbox")
    assert daemon.connect().ask(message(id="other"))["outcome"] == "sent"


def has_place(daemon):
    """Whether a new writer is let in."""
    writer = daemon.connect()
    with contextlib.suppress(BrokenPipeError):
        writer.send(b"refused")
    return writer.reply()["reason"] == "invalid"


def test_a_writer_that_has_left_holds_no_place(host):
    zego = host.zego(behave=[{"do": {"damage": "hang"}}])
    daemon = host.daemon(zego, daemon={"max_clients": 1, "drain_timeout": 0}, upstream={"timeout": "2m"})
    gone = daemon.connect()
    gone.send(message(id="nobody waits for this reply"))
    zego.wait_for_requests(1)
    gone.close()
    eventually(lambda: has_place(daemon), "the place of a writer that has left")


def test_a_writer_that_leaves_with_a_reply_unread_takes_no_line_with_it(host):
    daemon = host.daemon(host.zego())
    writer = daemon.connect()
    writer.send(b"garbage")  # the reply to which it never reads: the kernel resets the connection
    writer.send(*[message(str(i)) for i in range(2000)])
    writer.close()
    eventually(lambda: sum(app["lines"] for app in daemon.control("status")["apps"]) == 2000, "its lines")
    assert daemon.summary()["lines"] == 2001


def test_a_writer_that_leaves_before_it_is_answered_takes_no_line_with_it(host):
    daemon = host.daemon(host.zego(), daemon={"log_level": "debug"})
    writer = daemon.connect()
    writer.ask(b"taken in")
    daemon.signal(signal.SIGSTOP)
    writer.send(*[b"x" * 200] * 500)  # more than is read at once, and the first replies find nobody
    writer.close()
    daemon.signal(signal.SIGCONT)
    daemon.wait_for_log("reason=invalid", 501)
    daemon.stop()
    assert "stopped: lines=501 rejected/invalid=501" in daemon.log


def test_a_writer_that_dies_within_a_line_harms_nobody(standing_daemon, writer):
    assert writer.ask(message(id="before"))["outcome"] == "sent"
    before = len(standing_daemon.descriptors())
    for _ in range(50):
        dying = standing_daemon.connect()
        dying.send_bytes(encode(message(id="dying"))[:20])
        dying.close()
    assert writer.ask(message(id="living"))["outcome"] == "sent"
    assert has_descriptors(standing_daemon, before)


def test_a_writer_that_never_reads_is_not_waited_for(host):
    daemon = host.daemon(host.zego())
    deaf, other = daemon.connect(), daemon.connect()
    deaf.send(*[b"refused"] * 10_000)  # more replies than the socket and max_reply_backlog hold
    assert other.ask(message("other", id=1))["outcome"] == "sent"
    before = daemon.resident()
    deaf.send(*[b"refused"] * 20_000, *(message("deaf", id=n) for n in range(5)))
    eventually(lambda: daemon.zego.contents().count("deaf") == 5, "the messages of one who does not listen")
    assert other.ask(message("other", id=2))["outcome"] == "sent"
    assert is_sanitized() or daemon.resident() - before < MIB


def test_replies_are_discarded_as_a_whole(host):
    daemon = host.daemon(host.zego(), daemon={"max_reply_backlog": "4KiB"})
    writer = daemon.connect()
    writer.send(*[b"refused"] * 20_000)
    other = daemon.connect()
    other.ask(b"refused")
    writer.half_close()
    lines = [reply["line"] for reply in writer.rest()]  # which takes each line for JSON
    assert lines == sorted(set(lines))
    assert lines[:10] == list(range(1, 11)) and len(lines) < 20_000


# Many writers, and hostile ones.


def test_a_writer_too_many_is_told_and_turned_away_until_another_leaves(host):
    daemon = host.daemon(host.zego(), daemon={"max_clients": 2})
    first, second, third = (daemon.connect() for _ in range(3))
    (reply,) = third.rest()
    assert "max_clients" in reply.pop("error")
    assert reply == {"outcome": "rejected", "reason": "too_many_clients"}
    first.close()
    eventually(lambda: has_place(daemon), "the place of a writer that has left")
    assert second.ask(message(id=1))["outcome"] == "sent"


def test_where_descriptors_are_few_writers_leave_enough_for_messages(host):
    daemon = host.daemon(host.zego(), upstream={"max_in_flight": 16}, command=("prlimit", "--nofile=132:132"))
    assert "20 writers at most, half of them of one user" in daemon.log
    first = daemon.connect()
    crowd = [daemon.connect() for _ in range(60)]
    assert {reply["reason"] for writer in crowd[9:] for reply in writer.rest()} == {"too_many_clients"}
    replies = first.ask(*[message(str(i), room=f"room{i}", id=i) for i in range(50)])
    assert {reply["outcome"] for reply in replies} == {"sent"}


def test_writers_of_the_shortest_lines_do_not_keep_messages_from_going_out(host):
    zego = host.zego()
    daemon = host.daemon(zego, queue={"max_age": "60s", "queue_max": 1000}, app={"room_rate": 0})
    crowd = [daemon.connect() for _ in range(100)]
    writer = daemon.connect()
    writer.send(*[message(str(i)) for i in range(500)])
    for writing in crowd * 3:
        writing.send_bytes(b"{}\n" * 5000)  # refused, each of them, and none of the replies is read
    zego.wait_for_requests(500)
    assert writer.ask(message(id=1))["outcome"] == "sent"


def test_writers_come_and_go_without_a_trace(standing_daemon, writer):
    writer.sync()
    before = len(standing_daemon.descriptors())
    for _ in range(3):
        others = [standing_daemon.connect() for _ in range(100)]
        for other in others:
            assert other.ask(b"refused")["line"] == 1
            other.close()
    assert has_descriptors(standing_daemon, before)


def test_descriptors_passed_along_with_a_line_are_not_kept(standing_daemon, writer):
    writer.sync()
    before = len(standing_daemon.descriptors())
    with open("/dev/null") as passed:
        for _ in range(20):
            socket.send_fds(writer.socket, [b"refused\n"], [passed.fileno()] * 50)
            writer.reply()
    assert has_descriptors(standing_daemon, before)


def new_seed():
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_random_bytes_are_refused_and_nothing_worse(standing_daemon):
    rng = new_seed()
    for _ in range(20):
        writer = standing_daemon.connect()
        writer.send_bytes(rng.randbytes(rng.randrange(100 * KIB)))
        writer.half_close()
        assert {reply["outcome"] for reply in writer.rest()} <= {"rejected"}
    assert standing_daemon.connect().ask(message(id="after"))["outcome"] == "sent"


def mutated(line, rng):
    line = bytearray(line)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(line))
        line[at : at + rng.randrange(3)] = rng.choice((b"", b'"', b"\\", b"{", b"\0", b"\xff", rng.randbytes(1)))
    return bytes(line)


def test_lines_with_random_mistakes_get_an_answer_or_are_sent(host):
    rng = new_seed()
    daemon = host.daemon(host.zego(), app={"queue_max": 10_000}, queue={"max_age": "1s"})
    writer = daemon.connect()
    original = line_with_id(rb'"\u0061"').replace(b"hello", "h\\u00e9llo 你好".encode())
    writer.send(*(mutated(original, rng) for _ in range(2000)), message(id="after"))
    writer.half_close()
    replies = writer.rest()
    assert {reply["outcome"] for reply in replies} <= {"sent", "dropped", "rejected"}
    assert "after" in [reply.get("id") for reply in replies]


def test_a_slow_line_costs_the_others_nothing(standing_daemon, writer):
    slow = [standing_daemon.connect() for _ in range(100)]
    for other in slow:
        other.send_bytes(b'{"RoomId":')
    assert writer.ask(message(id=1))["outcome"] == "sent"
    for other in slow:
        other.send_bytes(b"]\n")
        assert other.reply()["reason"] == "invalid"


# For which AppID, and whose.


def test_appid_is_required_where_two_are_configured(host):
    daemon = host.daemon(host.zego(apps={APP: 100, OTHER_APP: 100}), apps={APP: {}, OTHER_APP: {}})
    writer = daemon.connect()
    refused = writer.ask(message())
    assert (refused["reason"], "AppId is missing" in refused["error"]) == ("invalid", True)
    for app_id in APP, OTHER_APP:
        assert writer.ask(message(id=1, AppId=app_id))["outcome"] == "sent"
    assert [arrival.app_id for arrival in daemon.zego.seen()] == [APP, OTHER_APP]


def test_an_appid_of_others_is_answered_like_one_that_does_not_exist(host):
    apps = {APP: {}, OTHER_APP: {"allow_users": os.getuid() + 1}}
    daemon = host.daemon(host.zego(apps={APP: 100, OTHER_APP: 100}), apps=apps)
    writer = daemon.connect()
    foreign, unknown = (writer.ask(message(id=1, AppId=app_id)) for app_id in (OTHER_APP, 7))
    assert foreign["reason"] == "unknown_app"
    assert foreign["error"].replace(str(OTHER_APP), "7") == unknown["error"]
    assert {**foreign, "error": ""} == {**unknown, "error": "", "line": 1}
    assert daemon.zego.seen() == []
    daemon.wait_for_log(f"app={OTHER_APP} uid={os.getuid()}")
    assert "this AppID is not for this user" in daemon.log


def test_a_single_appid_of_others_does_not_show_either(host):
    daemon = host.daemon(host.zego(), app={"allow_users": os.getuid() + 1})
    reply = daemon.connect().ask(message(id=1))
    assert (reply["outcome"], reply["reason"]) == ("rejected", "unknown_app")
    assert str(APP) not in reply["error"]


@pytest.mark.parametrize("key, names", (("allow_users", f"4711, {os.getuid()}"), ("allow_groups", os.getgid())))
def test_an_appid_is_open_to_those_it_names(host, key, names):
    daemon = host.daemon(host.zego(), app={key: names})
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_max_content_is_the_appids_own(host):
    apps = {APP: {"max_content": 10}, OTHER_APP: {"max_content": 20}}
    writer = host.daemon(host.zego(apps={APP: 100, OTHER_APP: 100}), apps=apps).connect()
    refused = writer.ask(message("x" * 11, AppId=APP))
    assert refused["error"] == "MessageContent is 11 bytes; at most 10 are allowed"
    assert writer.ask(message("x" * 11, AppId=OTHER_APP, id=1))["outcome"] == "sent"
