# SPDX-License-Identifier: MIT
"""Tests of the sandbox itself: a stand-in that errs would make every test that leans on it worthless."""

import contextlib
import gzip
import json
import os
import random
import signal
import socket
import ssl
import re
import time
from urllib.parse import quote

import pytest

from sandbox import (
    DAMAGES,
    MILLISECOND,
    SECOND,
    UNWANTED_HEADERS,
    FixedWindow,
    Sandbox,
    SlidingLog,
    TokenBucket,
    Unlimited,
    most_in_window,
    parse_rules,
    sign,
)

APP = "12345"
SECRET = "9193cc662a4c0ec135ec71fb57194b38"
OTHER_APP = "67890"

HEADERS = ("Host: 127.0.0.1", "User-Agent: test", "Accept: */*")


def parameters(**changes):
    """The parameters of a good call, with changes; None takes one away. What is signed is what is sent."""
    nonce = os.urandom(8).hex()
    values = {
        "Action": "SendBarrageMessage",
        "AppId": APP,
        "SignatureNonce": nonce,
        "Timestamp": str(int(time.time())),
        "SignatureVersion": "2.0",
        "RoomId": "room",
        "UserId": "user",
        "MessageCategory": "2",
        "MessageContent": "你好 world",
    } | changes
    signed = sign(values["AppId"], values["SignatureNonce"], SECRET, values["Timestamp"])
    values = {"Signature": signed} | values
    return {name: value for name, value in values.items() if value is not None}


def query(**changes):
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters(**changes).items())


def head(target, method="GET", version="HTTP/1.1", headers=HEADERS):
    return "\r\n".join([f"{method} {target} {version}", *headers, "", ""]).encode()


def good_head(**changes):
    return head("/?" + query(**changes))


class Client:
    """A connection that hides nothing."""

    def __init__(self, sandbox):
        port = int(sandbox.url.rstrip("/").rpartition(":")[2])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        if sandbox.ca_file:
            context = ssl.create_default_context(cafile=sandbox.ca_file)
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def read_until(self, end):
        while end not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def read_answer(self):
        """(status, {lowercase header: value}, body) of the next answer."""
        status, *lines = self.read_until(b"\r\n\r\n").decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(self.buffer) < int(headers["content-length"]):
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        length = int(headers["content-length"])
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(status.split()[1]), headers, body

    def calls(self, count, **changes):
        """The Codes of so many calls, all of which arrive at one moment."""
        self.send(b"".join(good_head(**changes) for _ in range(count)))
        return [json.loads(self.read_answer()[2])["Code"] for _ in range(count)]

    def read_to_end(self):
        """Everything up to the end of the connection."""
        with contextlib.suppress(EOFError):
            self.read_until(b"never sent")
        return self.buffer

    def call(self, **changes):
        """The answer to a good call with changes, as JSON."""
        self.send(good_head(**changes))
        return json.loads(self.read_answer()[2])

    def close(self):
        self.socket.close()


@pytest.fixture(scope="module")
def http_sandbox():
    with Sandbox(http=True, app=[f"{APP}:{SECRET}:5", f"{OTHER_APP}:{SECRET}:7"]) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def https_sandbox():
    with Sandbox(app=f"{APP}:{SECRET}") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(http_sandbox):
    """The shared sandbox as it was started."""
    http_sandbox.rules([])
    http_sandbox.settings(
        latency=0, jitter=0, spike="0:0", enforce="none", room_limit=0, pause_accept=False, refuse=False
    )
    http_sandbox.reset()
    return http_sandbox


@pytest.fixture
def client(sandbox):
    with contextlib.closing(Client(sandbox)) as connection:
        yield connection


def faults(sandbox):
    return {(fault["kind"], fault["detail"]): fault["count"] for fault in sandbox.report()["client_faults"]}


def wait_until(condition):
    """Wait for what is about to happen; how long it takes is not the point."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not happen within 5 s")


# The definitions that other tests lean on.


def without_times(value):
    """A name for a case that is the same whenever the tests are collected."""
    return re.sub(r"\d{10}", "time", str(value))


@pytest.mark.parametrize(
    "times, window, most",
    [
        ([], 10, 0),
        ([5], 10, 1),
        ([5, 5, 5], 10, 3),
        ([0, 10], 10, 1),
        ([0, 9], 10, 2),
        ([0, 10, 20, 30], 10, 1),
        ([0, 9, 10, 19], 10, 2),
        ([0, 1, 2, 10, 11, 12], 10, 3),
        ([0, 1, 2, 9, 11, 12], 10, 4),
        ([12, 0, 11, 9, 2, 1], 10, 4),
        ([0, 1, 2, 3], 1, 1),
    ],
)
def test_most_in_window_is_half_open(times, window, most):
    assert most_in_window(times, window) == most


def test_most_in_window_agrees_with_brute_force():
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(300):
        times = [rng.randrange(60) for _ in range(rng.randrange(40))]
        window = rng.randrange(1, 30)
        brute = max((sum(start <= t < start + window for t in times) for start in times), default=0)
        assert most_in_window(times, window) == brute, (times, window)


def test_signature_is_the_published_one():
    assert sign(12345, "4fd24687296dd9f3", SECRET, 1615186943) == "43e5cfcca828314675f91b001390566a"


# Limiters.


def admitted(limiter, times):
    return [limiter.admit(t) for t in times]


def test_sliding_log_holds_in_any_second():
    times = [0, 900 * MILLISECOND, 999 * MILLISECOND, SECOND, SECOND + 1, 1900 * MILLISECOND]
    assert admitted(SlidingLog(2), times) == [True, True, False, True, False, True]


def test_fixed_window_starts_afresh_each_second():
    times = [900 * MILLISECOND, 950 * MILLISECOND, 999 * MILLISECOND, SECOND, SECOND + 1, SECOND + 2]
    assert admitted(FixedWindow(2), times) == [True, True, False, True, True, False]


def test_token_bucket_drips():
    times = [0, 0, 0, SECOND // 2 - 1, SECOND // 2, SECOND // 2, 10 * SECOND, 10 * SECOND, 10 * SECOND]
    assert admitted(TokenBucket(2), times) == [True, True, False, False, True, False, True, True, False]


def test_unlimited_is():
    assert all(admitted(Unlimited(1), [0] * 10))


@pytest.mark.parametrize("limiter", [SlidingLog, TokenBucket])
def test_limiters_never_admit_more_than_they_say(limiter):
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    times = sorted(rng.randrange(5 * SECOND) for _ in range(1000))
    within = [t for t, is_in in zip(times, admitted(limiter(20), times)) if is_in]
    allowed = {SlidingLog: 20, TokenBucket: 40}[limiter]
    assert most_in_window(within, SECOND) <= allowed
    assert len(within) >= 5 * 20 - 20


@pytest.mark.parametrize("enforce, served", [("none", 8), ("log", 5), ("fixed", 5), ("bucket", 5)])
def test_app_limit_is_enforced(sandbox, client, enforce, served):
    sandbox.settings(enforce=enforce)
    assert client.calls(8) == [0] * served + [206] * (8 - served)
    assert client.call(AppId=OTHER_APP)["Code"] == 0


def test_room_limit_is_enforced(sandbox, client):
    sandbox.settings(room_limit=2)
    assert client.calls(3, RoomId="a") == [0, 0, 207]
    assert client.call(RoomId="b")["Code"] == 0


def test_a_changed_limit_counts(sandbox, client):
    sandbox.settings(enforce="log", limits={APP: 1})
    try:
        assert client.calls(2) == [0, 206]
        assert sandbox.report()["apps"][APP]["limit"] == 1
    finally:
        sandbox.settings(limits={APP: 5})


# A good call.


def test_a_good_call_is_answered_as_published(client, sandbox):
    client.send(good_head())
    status, headers, body = client.read_answer()
    answer = json.loads(body)
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    assert "date" in headers
    assert list(answer) == ["Code", "Data", "Message", "RequestId"]
    assert answer["Code"] == 0
    assert answer["Data"]["MessageId"].startswith("1_")
    assert len(answer["RequestId"]) == 19 and int(answer["RequestId"]) > 2**53
    assert faults(sandbox) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"IsTest": "true"},
        {"IsTest": "false"},
        {"UserName": "观众 & 100% +1"},
        {"UserName": "n" * 255},
        {"MessageCategory": "1"},
        {"RoomId": "r" * 127, "UserId": "u" * 63},
        {"MessageContent": "c" * 1024},
        {"MessageContent": "".join(map(chr, range(1, 128)))},
        {"MessageContent": "🎉" * 256},
        {"Timestamp": str(int(time.time()) - 500)},
        {"Timestamp": str(int(time.time()) + 500)},
    ],
    ids=without_times,
)
def test_what_is_allowed_is_no_fault(client, sandbox, changes):
    assert client.call(**changes)["Code"] == 0
    assert faults(sandbox) == {}


def test_no_two_answers_have_the_same_ids(client):
    answers = [client.call() for _ in range(20)]
    assert len({answer["RequestId"] for answer in answers}) == 20
    assert len({answer["Data"]["MessageId"] for answer in answers}) == 20


def test_a_head_may_come_in_pieces_and_two_at_once(client):
    for byte in good_head():
        client.send(bytes([byte]))
    assert json.loads(client.read_answer()[2])["Code"] == 0
    client.send(good_head() + good_head())
    assert [json.loads(client.read_answer()[2])["Code"] for _ in range(2)] == [0, 0]


# Client faults.


@pytest.mark.parametrize(
    "changes, code, kind, detail",
    [
        ({"Action": None}, 100000006, "Action", "is missing"),
        ({"Action": "SendCustomCommand"}, 100000007, "Action", "is not SendBarrageMessage"),
        ({"AppId": "0123"}, 100000001, "AppId", "is not a decimal number"),
        ({"AppId": "54321"}, 100000001, "AppId", "is not served here"),
        ({"SignatureVersion": None}, 100000013, "SignatureVersion", "is missing"),
        ({"SignatureVersion": "1.0"}, 100000014, "SignatureVersion", "is not 2.0"),
        ({"Timestamp": "1e9"}, 100000003, "Timestamp", "is not a decimal number"),
        ({"Timestamp": str(int(time.time()) - 700)}, 100000004, "Timestamp", "is more than 600 s off"),
        ({"Timestamp": str(int(time.time()) + 700)}, 100000004, "Timestamp", "is more than 600 s off"),
        ({"SignatureNonce": "4FD24687296DD9F3"}, 100000008, "SignatureNonce", "is not 16 lowercase hexadecimal digits"),
        ({"SignatureNonce": "4fd2468729"}, 100000008, "SignatureNonce", "is not 16 lowercase hexadecimal digits"),
        ({"Signature": None}, 100000009, "Signature", "is missing"),
        ({"Signature": ""}, 100000009, "Signature", "is empty"),
        ({"Signature": "0" * 32}, 100000005, "Signature", "is wrong"),
        ({"Signature": "A" * 32}, 100000005, "Signature", "is not 32 lowercase hexadecimal digits"),
        ({"IsTest": "yes"}, 2, "IsTest", "is not true or false"),
        ({"RoomId": None}, 2, "RoomId", "is missing"),
        ({"RoomId": ""}, 2, "RoomId", "is empty"),
        ({"RoomId": "r" * 128}, 2, "RoomId", "is longer than 127 bytes"),
        ({"UserId": None}, 2, "UserId", "is missing"),
        ({"UserId": "u" * 64}, 50002, "UserId", "is longer than 63 bytes"),
        ({"UserName": ""}, 2, "UserName", "is empty"),
        ({"UserName": "n" * 256}, 50014, "UserName", "is longer than 255 bytes"),
        ({"MessageCategory": None}, 2, "MessageCategory", "is missing"),
        ({"MessageCategory": "3"}, 2, "MessageCategory", "is not 1 or 2"),
        ({"MessageContent": None}, 1008, "MessageContent", "is missing"),
        ({"MessageContent": ""}, 1008, "MessageContent", "is empty"),
        ({"MessageContent": "好" * 342}, 50012, "MessageContent", "is longer than 1024 bytes"),
        ({"RoomId": "a\0b"}, 8, "NUL", "RoomId has a NUL"),
        ({"FromUserId": "x"}, 2, "unknown parameter", "'FromUserId'"),
    ],
    ids=without_times,
)
def test_wrong_parameters_are_noticed(client, sandbox, changes, code, kind, detail):
    assert client.call(**changes)["Code"] == code
    assert faults(sandbox) == {(kind, detail): 1}


@pytest.mark.parametrize("name, code", [("AppId", 100000001), ("Timestamp", 100000002), ("SignatureNonce", 100000008)])
def test_missing_signed_parameters_are_noticed(client, sandbox, name, code):
    target = "/?" + "&".join(pair for pair in query().split("&") if not pair.startswith(name + "="))
    client.send(head(target))
    assert json.loads(client.read_answer()[2])["Code"] == code
    assert faults(sandbox)[name, "is missing"] == 1


@pytest.mark.parametrize(
    "addition, code, kind, detail",
    [
        ("UserName=a+b", 8, "encoding", "UserName has a bare '+'"),
        ("UserName=a%2", 8, "encoding", "UserName has a '%' without two hexadecimal digits"),
        ("UserName=%zz", 8, "encoding", "UserName has a '%' without two hexadecimal digits"),
        ("UserName=a!b", 8, "encoding", "UserName has a byte that must be encoded"),
        ("UserName=a#b", 8, "encoding", "UserName has a byte that must be encoded"),
        ("UserName=a=b", 8, "encoding", "UserName has a byte that must be encoded"),
        ("UserName=%e4%bd%a0", 8, "encoding", "UserName has lowercase hexadecimal digits"),
        ("UserName=%41", 8, "encoding", "UserName has an encoded byte that must be bare"),
        ("UserName=%7E", 8, "encoding", "UserName has an encoded byte that must be bare"),
        ("UserName", 8, "encoding", "UserName has no '='"),
        ("UserName=%FF", 8, "UTF-8", "UserName is not UTF-8"),
        ("UserName=%ED%A0%80", 8, "UTF-8", "UserName is not UTF-8"),
        ("UserName=%C0%AF", 8, "UTF-8", "UserName is not UTF-8"),
        ("RoomId=other", 2, "duplicate parameter", "RoomId"),
        ("", 2, "unknown parameter", "''"),
        ("roomid=a", 2, "unknown parameter", "'roomid'"),
    ],
)
def test_wrong_queries_are_noticed(client, sandbox, addition, code, kind, detail):
    client.send(head(f"/?{query()}&{addition}"))
    assert json.loads(client.read_answer()[2])["Code"] == code
    assert faults(sandbox) == {(kind, detail): 1}


def test_raw_utf8_is_noticed(client, sandbox):
    client.send(head(f"/?{query()}&UserName=你"))
    assert json.loads(client.read_answer()[2])["Code"] == 8
    assert faults(sandbox) == {("encoding", "UserName has a byte that must be encoded"): 1}


@pytest.mark.parametrize(
    "changes, code, kind, detail",
    [
        ({"method": "POST"}, 2, "method", "'POST' instead of GET"),
        ({"version": "HTTP/1.0"}, 2, "version", "'HTTP/1.0' instead of HTTP/1.1"),
        ({"headers": ()}, 100000000, "header", "host is missing"),
        ({"headers": (*HEADERS, "Host: a")}, 2, "header", "host is given twice"),
        ({"headers": (*HEADERS, "no header")}, 2, "header", "'no header' is not a header"),
    ],
    ids=without_times,
)
def test_wrong_heads_are_noticed(client, sandbox, changes, code, kind, detail):
    client.send(head("/?" + query(), **changes))
    assert json.loads(client.read_answer()[2])["Code"] == code
    assert faults(sandbox) == {(kind, detail): 1}


@pytest.mark.parametrize("name", UNWANTED_HEADERS)
def test_unwanted_headers_are_noticed(client, sandbox, name):
    client.send(head("/?" + query(), headers=(*HEADERS, f"{name.decode().title()}: 1")))
    assert json.loads(client.read_answer()[2])["Code"] == 2
    assert faults(sandbox) == {("header", f"{name.decode()}: {UNWANTED_HEADERS[name]}"): 1}


def test_a_wrong_path_is_noticed(client, sandbox):
    client.send(head("/v2/?" + query()))
    assert json.loads(client.read_answer()[2])["Code"] == 2
    assert faults(sandbox) == {("path", "'/v2/' instead of /"): 1}


def test_what_is_not_http_is_noticed(client, sandbox):
    client.send(b"\x16\x03\x01 hello\r\n\r\n")
    assert b'"Code":2' in client.read_to_end()
    assert faults(sandbox) == {("request line", "is not HTTP"): 1}


def test_an_endless_head_is_cut_off(client, sandbox):
    with contextlib.suppress(ConnectionError):
        client.send(b"GET /?" + b"x" * 100_000)
        client.read_to_end()
    assert faults(sandbox) == {("head", "is longer than 65536 bytes"): 1}


def test_a_body_is_never_taken_for_a_request(client, sandbox):
    body = good_head()
    client.send(head("/?" + query(), headers=(*HEADERS, f"Content-Length: {len(body)}")) + body)
    client.read_answer()
    with contextlib.suppress(ConnectionError):
        assert client.read_to_end() == b""
    assert sandbox.report()["requests"] == 1


def test_connection_close_is_heeded(client, sandbox):
    client.send(head("/?" + query(), headers=(*HEADERS, "Connection: close")))
    assert json.loads(client.read_answer()[2])["Code"] == 0
    assert client.read_to_end() == b""
    assert faults(sandbox) == {}


def test_a_nonce_is_good_for_one_call_of_each_app(client, sandbox):
    nonce = os.urandom(8).hex()
    assert client.call(SignatureNonce=nonce)["Code"] == 0
    assert client.call(SignatureNonce=nonce, AppId=OTHER_APP)["Code"] == 0
    sandbox.reset()
    assert client.call(SignatureNonce=nonce)["Code"] == 100000008
    assert faults(sandbox) == {("SignatureNonce", "was used before"): 1}


def test_all_faults_of_a_call_are_counted_and_the_first_is_answered(client, sandbox):
    for _ in range(3):
        assert client.call(MessageCategory="9", SignatureVersion="1")["Code"] == 100000014
    assert faults(sandbox) == {("SignatureVersion", "is not 2.0"): 3, ("MessageCategory", "is not 1 or 2"): 3}


# Damages. Each test says what a client sees.


def damaged(sandbox, client, name):
    """A call on which the damage is done."""
    sandbox.rules([{"do": {"damage": name}}])
    client.send(good_head())
    return client


def test_every_damage_is_described_and_counted(sandbox):
    for name, damage in DAMAGES.items():
        assert damage.__doc__
        with contextlib.closing(Client(sandbox)) as client:
            damaged(sandbox, client, name)
            # The request has arrived once anything is heard; only a hanging one makes no sound at all.
            with contextlib.suppress(ConnectionError):
                client.socket.settimeout(0.1 if name == "hang" else 5)
                with contextlib.suppress(TimeoutError):
                    client.socket.recv(1)
    report = sandbox.report()
    assert report["apps"][APP]["damaged"] == dict.fromkeys(DAMAGES, 1)
    assert report["apps"][APP]["requests"] == len(DAMAGES)


def test_close_closes(sandbox, client):
    assert damaged(sandbox, client, "close").read_to_end() == b""


def test_reset_resets(sandbox, client):
    with pytest.raises(ConnectionResetError):
        damaged(sandbox, client, "reset").read_to_end()


def test_hang_is_silent_and_the_connection_stays(sandbox, client):
    damaged(sandbox, client, "hang").socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    wait_until(lambda: sandbox.report()["open_connections"] == 1)


def test_close_mid_cuts_the_body(sandbox, client):
    with pytest.raises(EOFError):
        damaged(sandbox, client, "close_mid").read_answer()
    assert client.buffer.startswith(b'{"Code":0')


def test_reset_mid_cuts_the_body(sandbox, client):
    with pytest.raises(ConnectionResetError):
        damaged(sandbox, client, "reset_mid").read_answer()
    assert client.buffer.startswith(b'{"Code":0')


def test_short_length_sends_less_than_it_says(sandbox, client):
    with pytest.raises(EOFError):
        damaged(sandbox, client, "short_length").read_answer()
    assert json.loads(client.buffer)["Code"] == 0


def test_garbage_is_not_http(sandbox, client):
    data = damaged(sandbox, client, "garbage").read_to_end()
    assert data and b"HTTP/" not in data


@pytest.mark.parametrize(
    "name, is_right",
    [
        ("empty", lambda body: body == b""),
        ("html", lambda body: body.startswith(b"<!DOCTYPE html>")),
        ("not_json", lambda body: body.startswith(b'{"Code":0') and not body.endswith(b"}")),
        ("no_code", lambda body: "Message" in json.loads(body) and "Code" not in json.loads(body)),
        ("code_string", lambda body: json.loads(body)["Code"] == "0"),
        ("huge", lambda body: len(body) > 200_000 and json.loads(body)["Code"] == 0),
        ("gzip", lambda body: json.loads(gzip.decompress(body))["Code"] == 0),
    ],
)
def test_other_bodies(sandbox, client, name, is_right):
    status, headers, body = damaged(sandbox, client, name).read_answer()
    assert status == 200
    assert headers.get("content-encoding") == ("gzip" if name == "gzip" else None)
    assert is_right(body)
    sandbox.rules([])
    assert client.call()["Code"] == 0  # the connection goes on


def test_redirect_redirects(sandbox, client):
    status, headers, _ = damaged(sandbox, client, "redirect").read_answer()
    assert (status, headers["location"]) == (302, "http://127.0.0.1:1/")


def test_headers_flood_floods(sandbox, client):
    assert len(damaged(sandbox, client, "headers_flood").read_until(b"\r\n\r\n")) > 400_000


def test_endless_goes_on_and_ends_with_the_connection(sandbox, client):
    assert b"content-length" not in damaged(sandbox, client, "endless").read_until(b"\r\n\r\n").lower()
    while len(client.buffer) < 100_000:
        client.buffer += client.socket.recv(65536)
    client.close()
    wait_until(lambda: sandbox.report()["open_connections"] == 0)


def test_slow_sends_single_bytes(sandbox, client):
    damaged(sandbox, client, "slow")
    pieces = [client.socket.recv(65536) for _ in range(12)]
    assert b"".join(pieces).startswith(b"HTTP/1.1 200")
    # Who is kept waiting finds some of them together.
    assert [len(piece) for piece in pieces].count(1) >= 3


def test_continue_forever_never_gets_to_the_answer(sandbox, client):
    damaged(sandbox, client, "continue_forever")
    assert [client.read_until(b"\r\n\r\n") for _ in range(3)] == [b"HTTP/1.1 100 Continue"] * 3


def test_close_after_answers_first(sandbox, client):
    assert damaged(sandbox, client, "close_after").read_answer()[0] == 200
    assert client.read_to_end() == b""


def test_bad_chunk_is_chunked_badly(sandbox, client):
    data = damaged(sandbox, client, "bad_chunk").read_to_end()
    assert b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n" in data


# Rules.


def test_a_rule_skips_then_applies_a_number_of_times(sandbox, client):
    sandbox.rules([{"skip": 2, "times": 3, "do": {"code": 1}}])
    assert client.calls(7) == [0, 0, 1, 1, 1, 0, 0]


def test_the_first_rule_that_applies_decides(sandbox, client):
    sandbox.rules([{"times": 1, "do": {"code": 1}}, {"times": 2, "do": {"code": 151}}])
    assert client.calls(4) == [1, 151, 151, 0]


@pytest.mark.parametrize(
    "match, hits",
    [
        ({}, True),
        ({"AppId": int(APP)}, True),
        ({"AppId": APP, "RoomId": "room", "UserId": "user"}, True),
        ({"AppId": OTHER_APP}, False),
        ({"RoomId": "roo"}, False),
        ({"UserId": "user", "RoomId": "other"}, False),
        ({"content": "好 w"}, True),
        ({"content": "bye"}, False),
        ({"UserName": None}, True),
        ({"MessageCategory": 2, "UserName": "name"}, False),
    ],
    ids=without_times,
)
def test_a_rule_matches_what_it_says(sandbox, client, match, hits):
    sandbox.rules([{"match": match, "do": {"code": 104}}])
    assert client.call()["Code"] == (104 if hits else 0)


@pytest.mark.parametrize("probability, least, most", [(0, 0, 0), (1, 40, 40), (0.5, 1, 39)])
def test_a_rule_applies_with_its_probability(sandbox, client, probability, least, most):
    sandbox.rules([{"probability": probability, "do": {"code": 1}}])
    assert least <= client.calls(40).count(1) <= most


def test_a_seed_repeats_the_random_parts():
    def run():
        rules = [{"probability": 0.5, "do": {"code": 1}}]
        with Sandbox(http=True, app=f"{APP}:{SECRET}", seed=7, behave=rules) as sandbox:
            with contextlib.closing(Client(sandbox)) as client:
                return client.calls(30)

    assert run() == run()


def test_a_code_may_come_with_a_message_and_retry_after(sandbox, client):
    sandbox.rules([{"do": {"code": 206, "message": "慢一点", "retry_after": "2"}}])
    client.send(good_head())
    status, headers, body = client.read_answer()
    assert (status, headers["retry-after"]) == (200, "2")
    assert json.loads(body)["Message"] == "慢一点"


def test_a_status_brings_its_headers_and_body(sandbox, client):
    headers = {
        "Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT",
        "date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "X": ["1", "2"],
    }
    sandbox.rules([{"do": {"status": 503, "headers": headers, "body": "down"}}])
    client.send(good_head())
    raw = client.read_until(b"down").decode()
    assert raw.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert raw.lower().count("date:") == 1
    assert "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n" in raw
    assert "X: 1\r\nX: 2\r\n" in raw
    assert sandbox.report()["apps"][APP]["damaged"] == {"http_503": 1}


def test_a_delay_only_delays(sandbox, client):
    sandbox.rules([{"times": 1, "do": {"delay": 100}}])
    before = time.monotonic()
    assert client.call()["Code"] == 0
    assert time.monotonic() - before >= 0.1
    assert sandbox.report()["apps"][APP]["answered"] == {"0": 1}


def test_rules_do_not_hide_client_faults(sandbox, client):
    sandbox.rules([{"do": {"code": 0}}])
    assert client.call(Signature="0" * 32)["Code"] == 0
    assert faults(sandbox) == {("Signature", "is wrong"): 1}


@pytest.mark.parametrize(
    "rule",
    [
        "rule",
        {},
        {"do": {}},
        {"do": {"code": 1, "damage": "hang"}},
        {"do": {"code": "1"}},
        {"do": {"code": True}},
        {"do": {"code": 1, "headers": {}}},
        {"do": {"damage": "melt"}},
        {"do": {"damage": []}},
        {"do": {"status": 503, "headers": []}},
        {"do": {"delay": -1}},
        {"do": {"code": 1}, "time": 2},
        {"do": {"code": 1}, "times": -1},
        {"do": {"code": 1}, "probability": 1.5},
        {"do": {"code": 1}, "match": {"Room": "x"}},
        {"do": {"code": 1}, "match": {"content": 5}},
    ],
    ids=without_times,
)
def test_rules_that_make_no_sense_are_refused(rule):
    with pytest.raises(ValueError):
        parse_rules([rule])


# Settings and switches.


@pytest.mark.parametrize(
    "settings", [{"latency": 100}, {"spike": "1:100"}, {"latency": 60, "spike": "1:40", "jitter": 10}], ids=str
)
def test_answers_take_the_time_that_is_set(sandbox, client, settings):
    sandbox.settings(**settings)
    before = time.monotonic()
    client.call()
    assert time.monotonic() - before >= 0.1


def test_an_arrival_is_stamped_before_the_latency(sandbox, client):
    sandbox.settings(latency=200)
    client.send(good_head())
    wait_until(lambda: sandbox.arrivals(APP))
    client.read_answer()
    answered = time.monotonic_ns()
    assert answered - sandbox.arrivals(APP)[0] >= 200 * MILLISECOND


@pytest.mark.parametrize(
    "settings",
    [
        {"latency": -1},
        {"latency": "soon"},
        {"spike": "2:1"},
        {"spike": 1},
        {"enforce": "sometimes"},
        {"room_limit": 1.5},
        {"limits": {"1": 5}},
        {"limits": {APP: 0}},
        {"pause_accept": "yes"},
        {"speed": 1},
    ],
    ids=without_times,
)
def test_settings_that_make_no_sense_are_refused(sandbox, settings):
    with pytest.raises(ValueError):
        sandbox.settings(**settings)


def test_paused_accepting_leaves_clients_waiting(sandbox):
    sandbox.settings(pause_accept=True)
    with contextlib.closing(Client(sandbox)) as client:
        client.send(good_head())
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read_answer()
        client.socket.settimeout(5)
        sandbox.settings(pause_accept=False)
        assert client.read_answer()[0] == 200


def test_refusing_closes_the_port_and_brings_it_back(sandbox, client):
    sandbox.settings(refuse=True)
    with pytest.raises(ConnectionRefusedError):
        Client(sandbox)
    assert client.call()["Code"] == 0  # connections live on
    sandbox.settings(refuse=False)
    with contextlib.closing(Client(sandbox)) as another:
        assert another.call()["Code"] == 0


def test_unknown_control_requests_are_refused(sandbox):
    for method, path in (("GET", "/nothing"), ("POST", "/report"), ("GET", "/arrivals"), ("GET", "/arrivals?AppId=1")):
        with pytest.raises(ValueError):
            sandbox.ask(method, path)


# The report and the log.


def test_the_report_adds_up(sandbox, client):
    sandbox.rules(
        [
            {"match": {"RoomId": "limited"}, "do": {"code": 206}},
            {"match": {"RoomId": "cut"}, "do": {"damage": "close"}},
        ]
    )
    client.calls(3, RoomId="a")
    client.calls(2, RoomId="limited")
    client.call(AppId=OTHER_APP)
    client.call(AppId="54321")
    client.send(good_head(RoomId="cut"))
    client.read_to_end()

    report = sandbox.report()
    app = report["apps"][APP]
    arrivals = sandbox.arrivals(APP)
    assert report["requests"] == 8
    assert report["connections"] == 1
    assert report["apps"][OTHER_APP]["requests"] == 1
    assert report["apps"][OTHER_APP]["utilisation"] is None
    assert app["requests"] == len(arrivals) == 6
    assert app["answered"] == {"0": 3, "206": 2}
    assert app["damaged"] == {"close": 1}
    assert app["rooms"] == 3
    assert app["limit"] == 5
    assert (app["first_ns"], app["last_ns"]) == (min(arrivals), max(arrivals))
    assert app["most_in_a_second"] == most_in_window(arrivals, SECOND)
    assert app["most_in_100ms"] == most_in_window(arrivals, SECOND // 10)
    assert app["utilisation"] == pytest.approx(6 / (5 * (max(arrivals) - min(arrivals)) / SECOND))


def test_a_reset_forgets_counts_and_keeps_rules(sandbox, client):
    sandbox.rules([{"do": {"code": 1}}])
    client.call(MessageCategory="9")
    sandbox.reset()
    report = sandbox.report()
    assert (report["requests"], report["client_faults"], report["apps"][APP]["requests"]) == (0, [], 0)
    assert sandbox.arrivals(APP) == []
    assert client.call()["Code"] == 1


def test_connections_are_counted(sandbox):
    with contextlib.closing(Client(sandbox)) as one, contextlib.closing(Client(sandbox)) as two:
        one.call(), two.call()
        assert sandbox.report()["connections"] == 2
    wait_until(lambda: sandbox.report()["open_connections"] == 0)
    assert sandbox.report()["connections"] == 2


def test_the_log_has_a_row_for_each_request(tmp_path):
    path = tmp_path / "log"
    nonce = os.urandom(8).hex()
    content = 'tab\there, "quotes", 你好\n'
    rules = [{"skip": 1, "do": {"damage": "empty"}}]
    with Sandbox(http=True, app=f"{APP}:{SECRET}", log=path, behave=rules) as sandbox:
        with contextlib.closing(Client(sandbox)) as client:
            client.call(SignatureNonce=nonce, MessageContent=content, RoomId="a\tb\\c")
            client.send(good_head())
            client.read_answer()
        arrivals = sandbox.arrivals(APP)
        sandbox.report()
        first, second = [line.split("\t") for line in path.read_text().splitlines()]
    assert first[:-1] == [str(arrivals[0]), APP, "a\\tb\\\\c", "user", "0", "1", nonce]
    assert json.loads(first[-1]) == content
    assert second[4] == "empty"


# TLS, and the process.


def test_it_speaks_tls(https_sandbox):
    assert https_sandbox.url.startswith("https://")
    with contextlib.closing(Client(https_sandbox)) as client:
        assert client.calls(3) == [0, 0, 0]


def test_tls_names_are_those_of_loopback(https_sandbox):
    context = ssl.create_default_context(cafile=https_sandbox.ca_file)
    port = int(https_sandbox.url.rstrip("/").rpartition(":")[2])
    for name in ("127.0.0.1", "::1", "localhost"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            context.wrap_socket(plain, server_hostname=name).close()


@pytest.mark.parametrize(
    "name, is_reset",
    [("close", False), ("close_mid", False), ("close_after", False), ("reset", True), ("reset_mid", True)],
)
def test_connections_end_as_they_should_under_tls(https_sandbox, name, is_reset):
    with contextlib.closing(Client(https_sandbox)) as client:
        # Seen from below TLS: the ssl module takes both for an end of file, and would answer the close_notify.
        with socket.socket(fileno=os.dup(client.socket.fileno())) as plain:
            plain.settimeout(5)
            damaged(https_sandbox, client, name)
            with pytest.raises(ConnectionResetError) if is_reset else contextlib.nullcontext():
                while plain.recv(65536):
                    pass
    https_sandbox.rules([])


@pytest.mark.parametrize(
    "certificate, reason",
    [("expired", "expired"), ("self-signed", "self-signed"), ("wrong-host", "IP address mismatch")],
)
def test_bad_certificates_are_bad_in_the_right_way(certificate, reason):
    with Sandbox(app=f"{APP}:{SECRET}", certificate=certificate) as sandbox:
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            Client(sandbox)
        wait_until(lambda: sandbox.report()["failed_handshakes"] == 1)
        assert sandbox.report()["connections"] == 0


def test_certificates_are_left_where_asked(tmp_path):
    directory = tmp_path / "new"
    with Sandbox(dir=directory, app=f"{APP}:{SECRET}") as sandbox:
        assert sandbox.ca_file == str(directory / "ca.pem")
    assert {path.name for path in directory.iterdir()} == {"ca.pem", "server.pem", "server.key"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_when_told_to(number):
    with Sandbox(app=f"{APP}:{SECRET}") as sandbox:
        client = Client(sandbox)
        damaged(sandbox, client, "hang")
        os.kill(sandbox.pid, number)
        assert sandbox.process.wait(timeout=10) == 0
        assert not os.path.exists(sandbox.ca_file)
        client.close()


def test_it_does_not_outlive_whoever_holds_its_stdin():
    with Sandbox(http=True) as sandbox:
        sandbox.process.stdin.close()
        assert sandbox.process.wait(timeout=10) == 0


def test_a_wrong_option_is_explained(capfd):
    with pytest.raises(RuntimeError):
        Sandbox(behave=[{"do": {"damage": "melt"}}]).__enter__()
    assert "cannot have 'damage': 'melt'" in capfd.readouterr().err
