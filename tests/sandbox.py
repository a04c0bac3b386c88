#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A stand-in for ZEGO's server API v2 on loopback: strict, fast, and ill-behaved on demand.

The real API cannot be used in tests: it needs an account, shows its messages to people, and keeps its limits and
failures to itself. This one checks each call as the published documents describe it, stamps when each call arrived
(the pace seen by the server is what the daemon promises), and fails in every way that rules ask for.

It is three things in one file, and needs nothing but the standard library and the openssl command:

  * a program (see --help) that serves the API on one port and is steered through another;
  * the class Sandbox, with which a test starts that program, steers it and reads its report;
  * most_in_window() and sign(), the two definitions that tests share with it.

How a call goes through: Connection collects a request head and stamps it; parse_request() and PARAMETERS find what the
client did wrong; Server.judge() counts the arrival, asks the limiters and the rules, and settles on a Verdict;
Connection sends the verdict's answer, or lets one of DAMAGES loose on it.
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import email.utils
import functools
import hashlib
import http
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from array import array
from collections import Counter, deque
from pathlib import Path
from typing import Callable, NamedTuple, Optional
from urllib.parse import parse_qs, quote_from_bytes, unquote_to_bytes

SECOND = 1_000_000_000
MILLISECOND = 1_000_000

DEFAULT_APP = "1234567890:0123456789abcdef0123456789abcdef:100"

# ZEGO's documents: a Timestamp may be ten minutes off the server's clock.
TIMESTAMP_TOLERANCE = 600

# The longest legal call is below 5 KiB, all of it percent-encoded.
HEAD_MAX = 64 * 1024


def most_in_window(times, window):
    """The largest number of `times` in any half-open window [t, t + window)."""
    times = sorted(times)
    most = start = 0
    for end, last in enumerate(times):
        while last - times[start] >= window:
            start += 1
        most = max(most, end - start + 1)
    return most


def sign(app_id, nonce, secret, timestamp):
    """ZEGO's signature, version 2.0."""
    return hashlib.md5(f"{app_id}{nonce}{secret}{timestamp}".encode()).hexdigest()


# What the API answers. Only the Code of an answer means anything to a client; the texts are here so that clients meet
# UTF-8 where the real API sends it.

BAD_PARAMETER = 2
UNDECODABLE = 8
APP_LIMITED = 206
ROOM_LIMITED = 207
NO_HOST = 100000000

MESSAGES = {
    0: "success",
    1: "系统繁忙，请稍后重试",
    BAD_PARAMETER: "输入参数错误",
    UNDECODABLE: "请求解码失败",
    APP_LIMITED: "App QPS 超限",
    ROOM_LIMITED: "房间 QPS 超限",
    1008: "消息内容为空",
    50002: "用户 ID 不合法",
    50012: "消息内容过长",
    50014: "用户名过长",
    NO_HOST: "请求 Host 不合法",
    100000001: "AppId 不合法",
    100000002: "Timestamp 为空",
    100000003: "Timestamp 格式错误",
    100000004: "签名已过期",
    100000005: "签名错误",
    100000006: "Action 为空",
    100000007: "Action 不支持",
    100000008: "SignatureNonce 不合法",
    100000009: "Signature 为空",
    100000013: "SignatureVersion 为空",
    100000014: "SignatureVersion 不支持",
}


@functools.lru_cache(maxsize=1)
def http_date(second):
    """The Date header's value: the same for every answer within a second, and costly to format."""
    return email.utils.formatdate(second, usegmt=True)


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer. Its own headers replace the usual ones of the same name, however wrong that makes them."""

    body: bytes
    status: int = 200
    headers: tuple = ()

    def wire(self):
        own = {name.lower() for name, _ in self.headers}
        usual = (
            ("Date", http_date(int(time.time()))),
            ("Content-Type", "application/json; charset=utf-8"),
            ("Content-Length", len(self.body)),
            ("Connection", "keep-alive"),
        )
        lines = [f"HTTP/1.1 {self.status} {reason_phrase(self.status)}"]
        lines += [f"{name}: {value}" for name, value in usual if name.lower() not in own]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def reason_phrase(status):
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Ids:
    """Numbers for RequestId and MessageId, as long as the real ones.

    A RequestId has 19 digits and is above 2^53, so that a client which lets it pass through a double gives itself away.
    """

    def __init__(self):
        self.count = 0

    def request_id(self):
        self.count += 1
        return str(2237080460466033406 + self.count)

    def message_id(self):
        return f"1_{int(time.time() * 1000)}_{self.count}"


def api_body(ids, code, message=None):
    """The JSON that the API answers, its members in the order in which the real one sends them."""
    request_id = ids.request_id()
    body = {"Code": code}
    if code == 0:
        body["Data"] = {"MessageId": ids.message_id()}
    body["Message"] = MESSAGES.get(code, "未知错误") if message is None else message
    body["RequestId"] = request_id
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


# What clients do wrong.


class Fault(NamedTuple):
    """A client fault: `code` is answered, `kind` and `detail` are reported.

    A detail never holds values that change from call to call, so that equal faults add up.
    """

    kind: str
    detail: str
    code: int = BAD_PARAMETER


@dataclasses.dataclass
class Request:
    """A request head, taken apart. `is_last`: the connection cannot or shall not be used for another one."""

    parameters: dict = dataclasses.field(default_factory=dict)
    faults: list = dataclasses.field(default_factory=list)
    is_last: bool = False
    is_http: bool = True

    def text(self, name):
        return self.parameters.get(name, b"").decode(errors="backslashreplace")


REQUEST_LINE = re.compile(rb"([!-~]+) ([^ ]+) (HTTP/\d\.\d)")
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)

UNWANTED_HEADERS = {
    b"accept-encoding": "a compressed answer could grow without bound",
    b"authorization": "the signature is all the authorization there is",
    b"content-length": "a GET has no body",
    b"cookie": "the API keeps no state",
    b"expect": "a GET has no body",
    b"proxy-authorization": "this is no proxy",
    b"referer": "it would pass on a signed address",
    b"transfer-encoding": "a GET has no body",
}


def parse_request(head):
    """Take a request head apart, noting every fault rather than stopping at the first."""
    line, _, header_block = head.partition(b"\r\n")
    match = REQUEST_LINE.fullmatch(line)
    if not match:
        return Request(faults=[Fault("request line", "is not HTTP")], is_last=True, is_http=False)
    method, target, version = match.groups()
    path, _, query = target.partition(b"?")
    expected = (
        ("method", method, b"GET"),
        ("path", path, b"/"),
        ("version", version, b"HTTP/1.1"),
    )
    header_faults, is_last = check_headers(header_block)
    request = Request(is_last=is_last or version != b"HTTP/1.1")
    request.faults += [
        Fault(kind, f"{clip(got)} instead of {wanted.decode()}") for kind, got, wanted in expected if got != wanted
    ]
    request.faults += header_faults
    parse_query(query, request)
    return request


def clip(raw):
    """Foreign bytes, made fit for a report."""
    return ascii(raw[:40].decode("latin-1"))


# A client sends the same headers with every request, so each block needs to be looked at only once.
@functools.lru_cache(maxsize=64)
def check_headers(block):
    """The faults of a header block, and whether the connection ends with this request."""
    faults = []
    headers = {}
    for line in block.split(b"\r\n") if block else ():
        match = HEADER_LINE.fullmatch(line)
        if not match:
            faults.append(Fault("header", f"{clip(line)} is not a header"))
            continue
        name = match[1].lower()
        if name in headers:
            faults.append(Fault("header", f"{name.decode()} is given twice"))
        headers[name] = match[2]
    if not headers.get(b"host"):
        faults.append(Fault("header", "host is missing", NO_HOST))
    faults += [Fault("header", f"{name.decode()}: {why}") for name, why in UNWANTED_HEADERS.items() if name in headers]
    # Bodies are not read, so that what follows one cannot be taken for a request.
    has_body = b"content-length" in headers or b"transfer-encoding" in headers
    return tuple(faults), has_body or headers.get(b"connection", b"").lower() == b"close"


def parse_query(query, request):
    for pair in query.split(b"&") if query else ():
        raw_name, equals, raw_value = pair.partition(b"=")
        name = raw_name.decode("latin-1")
        if name not in PARAMETERS:
            request.faults.append(Fault("unknown parameter", clip(raw_name)))
        elif name in request.parameters:
            request.faults.append(Fault("duplicate parameter", name))
        elif not equals:
            request.faults.append(Fault("encoding", f"{name} has no '='", UNDECODABLE))
        else:
            request.parameters[name] = unquote_to_bytes(raw_value)
            request.faults += encoding_faults(name, raw_value, request.parameters[name])


# Why an encoding is not the one right one, the likeliest mistakes first.
ENCODING_MISTAKES = (
    (re.compile(rb"\+"), "a bare '+'"),
    (re.compile(rb"%(?![0-9A-Fa-f]{2})"), "a '%' without two hexadecimal digits"),
    (re.compile(rb"[^A-Za-z0-9._~%-]"), "a byte that must be encoded"),
    (re.compile(rb"%(?:[a-f].|.[a-f])"), "lowercase hexadecimal digits"),
    (re.compile(rb""), "an encoded byte that must be bare"),
)


def encoding_faults(name, raw, value):
    """Faults of a value as it was sent. Encoding what was decoded is right only if it gives the same again."""
    # quote_from_bytes leaves A-Z a-z 0-9 - . _ ~ bare and writes all else as %XX in uppercase: ZEGO's rule.
    if quote_from_bytes(value, safe="").encode() != raw:
        mistake = next(mistake for pattern, mistake in ENCODING_MISTAKES if pattern.search(raw))
        yield Fault("encoding", f"{name} has {mistake}", UNDECODABLE)
    if not is_utf8(value):
        yield Fault("UTF-8", f"{name} is not UTF-8", UNDECODABLE)
    if b"\0" in value:
        yield Fault("NUL", f"{name} has a NUL", UNDECODABLE)


def is_utf8(value):
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class Call(NamedTuple):
    """What the checks of a parameter may look at. `app` is None unless AppId names one of ours."""

    parameters: dict
    app: Optional["App"]
    now: float


# Checks: check(value, call) says what is wrong with a value, or gives None.


def is_any_of(*allowed):
    def check(value, _call):
        return None if value in allowed else "is not " + " or ".join(word.decode() for word in allowed)

    return check


def looks_like(pattern, description):
    compiled = re.compile(pattern)

    def check(value, _call):
        return None if compiled.fullmatch(value) else f"is not {description}"

    return check


def is_not_empty(value, _call):
    return None if value else "is empty"


def is_at_most(limit):
    def check(value, _call):
        return None if len(value) <= limit else f"is longer than {limit} bytes"

    return check


def is_one_of_ours(_value, call):
    return None if call.app else "is not served here"


def is_on_time(value, call):
    return None if abs(int(value) - call.now) <= TIMESTAMP_TOLERANCE else f"is more than {TIMESTAMP_TOLERANCE} s off"


def is_new(value, call):
    if not call.app:
        return None
    if value in call.app.nonces:
        return "was used before"
    call.app.nonces.add(value)
    return None


def is_right(value, call):
    """Check a signature over the bytes that were sent, so that it is judged apart from what it signs."""
    if not call.app:
        return None
    signed = (call.parameters.get(name, b"").decode("latin-1") for name in ("AppId", "SignatureNonce", "Timestamp"))
    app_id, nonce, timestamp = signed
    return None if sign(app_id, nonce, call.app.secret, timestamp).encode() == value else "is wrong"


class Parameter(NamedTuple):
    """`if_missing` is the Code for a call without it (None: it is optional); then (check, Code if it fails) in turn."""

    if_missing: Optional[int]
    checks: tuple


# In the order in which faults are found, the first of which is answered: the gateway comes before the service.
PARAMETERS = {
    "Action": Parameter(100000006, ((is_any_of(b"SendBarrageMessage"), 100000007),)),
    "AppId": Parameter(
        100000001,
        (
            (looks_like(rb"[1-9][0-9]{0,9}", "a decimal number"), 100000001),
            (is_one_of_ours, 100000001),
        ),
    ),
    "SignatureVersion": Parameter(100000013, ((is_any_of(b"2.0"), 100000014),)),
    "Timestamp": Parameter(
        100000002,
        (
            (looks_like(rb"[1-9][0-9]{0,18}", "a decimal number"), 100000003),
            (is_on_time, 100000004),
        ),
    ),
    "SignatureNonce": Parameter(
        100000008,
        (
            (looks_like(rb"[0-9a-f]{16}", "16 lowercase hexadecimal digits"), 100000008),
            (is_new, 100000008),
        ),
    ),
    "Signature": Parameter(
        100000009,
        (
            (is_not_empty, 100000009),
            (looks_like(rb"[0-9a-f]{32}", "32 lowercase hexadecimal digits"), 100000005),
            (is_right, 100000005),
        ),
    ),
    "IsTest": Parameter(None, ((is_any_of(b"true", b"false"), BAD_PARAMETER),)),
    "RoomId": Parameter(BAD_PARAMETER, ((is_not_empty, BAD_PARAMETER), (is_at_most(127), BAD_PARAMETER))),
    "UserId": Parameter(BAD_PARAMETER, ((is_not_empty, BAD_PARAMETER), (is_at_most(63), 50002))),
    "UserName": Parameter(None, ((is_not_empty, BAD_PARAMETER), (is_at_most(255), 50014))),
    "MessageCategory": Parameter(BAD_PARAMETER, ((is_any_of(b"1", b"2"), BAD_PARAMETER),)),
    "MessageContent": Parameter(1008, ((is_not_empty, 1008), (is_at_most(1024), 50012))),
}


def parameter_faults(call):
    for name, (if_missing, checks) in PARAMETERS.items():
        value = call.parameters.get(name)
        if value is None:
            if if_missing is not None:
                yield Fault(name, "is missing", if_missing)
            continue
        for check, code in checks:
            detail = check(value, call)
            if detail:
                yield Fault(name, detail, code)
                break


# Limiters: admit(now) says whether a call that arrives now is within the limit. Calls that are turned away do not count
# against it. Which of them ZEGO uses, and whether it counts those, is not known.


class Unlimited:
    def __init__(self, limit):
        pass

    def admit(self, _now):
        return True


class SlidingLog:
    """At most `limit` calls in any second: the strictest reading."""

    def __init__(self, limit):
        self.admitted = deque(maxlen=limit)

    def admit(self, now):
        is_full = len(self.admitted) == self.admitted.maxlen
        if is_full and now - self.admitted[0] < SECOND:
            return False
        self.admitted.append(now)
        return True


class FixedWindow:
    """At most `limit` calls from one full second of the clock to the next."""

    def __init__(self, limit):
        self.limit = limit
        self.window = None
        self.count = 0

    def admit(self, now):
        if now // SECOND != self.window:
            self.window = now // SECOND
            self.count = 0
        if self.count == self.limit:
            return False
        self.count += 1
        return True


class TokenBucket:
    """A bucket of `limit` tokens into which `limit` drip each second. Counted in integers, for exactness."""

    def __init__(self, limit):
        self.limit = limit
        self.depth = limit * SECOND
        self.level = self.depth
        self.filled_at = None

    def admit(self, now):
        if self.filled_at is not None:
            self.level = min(self.depth, self.level + (now - self.filled_at) * self.limit)
        self.filled_at = now
        if self.level < SECOND:
            return False
        self.level -= SECOND
        return True


LIMITERS = {
    "none": Unlimited,
    "log": SlidingLog,
    "fixed": FixedWindow,
    "bucket": TokenBucket,
}


class App:
    """An AppID: its secret, its limits, and what has been counted since the last reset."""

    def __init__(self, app_id, secret, limit):
        self.app_id = app_id
        self.secret = secret
        self.limit = limit
        # Not forgotten by a reset: a nonce may never come again.
        self.nonces = set()
        self.enforce("none", room_limit=0)
        self.reset()

    def enforce(self, limiter, room_limit):
        self.limiter = LIMITERS[limiter](self.limit)
        new_room = functools.partial(SlidingLog, room_limit) if room_limit else functools.partial(Unlimited, 0)
        self.room_limiters = collections.defaultdict(new_room)

    def admit(self, room, now):
        """The Code that the limits alone would give a call."""
        if not self.limiter.admit(now):
            return APP_LIMITED
        return 0 if self.room_limiters[room].admit(now) else ROOM_LIMITED

    def reset(self):
        self.arrivals = array("Q")
        self.answered = Counter()
        self.damaged = Counter()
        self.rooms = set()

    def count(self, room, verdict, now):
        self.arrivals.append(now)
        if room is not None:
            self.rooms.add(room)
        counter = self.damaged if verdict.damaged else self.answered
        counter[verdict.name] += 1

    def report(self):
        first = min(self.arrivals, default=None)
        last = max(self.arrivals, default=None)
        requests = len(self.arrivals)
        return {
            "requests": requests,
            "answered": dict(self.answered),
            "damaged": dict(self.damaged),
            "most_in_a_second": most_in_window(self.arrivals, SECOND),
            "most_in_100ms": most_in_window(self.arrivals, 100 * MILLISECOND),
            "first_ns": first,
            "last_ns": last,
            "utilisation": requests / (self.limit * (last - first) / SECOND) if first != last else None,
            "rooms": len(self.rooms),
            "limit": self.limit,
        }


# Damages: damage(connection, answer) is a coroutine that does something to the connection instead of sending the
# answer. It is cancelled when the connection is lost, so it may go on forever. Its docstring is what --help says.


def sends(alter):
    """Make a damage of a function that makes another answer: that one is sent."""

    @functools.wraps(alter)
    async def damage(connection, answer):
        connection.write(alter(answer).wire())

    return damage


async def close(connection, _answer):
    """close the connection without a byte"""
    connection.close()


async def reset(connection, _answer):
    """reset the connection (RST) without a byte"""
    connection.reset()


async def hang(_connection, _answer):
    """never answer"""
    await asyncio.Event().wait()


async def close_mid(connection, answer):
    """half of the answer, then close"""
    connection.write(first_half(answer))
    connection.close()


async def reset_mid(connection, answer):
    """half of the answer, then reset"""
    connection.write(first_half(answer))
    await asyncio.sleep(0.05)  # a reset overtakes what the client has not read yet
    connection.reset()


def first_half(answer):
    """The head and half of the body."""
    wire = answer.wire()
    return wire[: len(wire) - len(answer.body) // 2]


async def short_length(connection, answer):
    """announce 100 bytes more than are sent, then close"""
    longer = (("Content-Length", len(answer.body) + 100),)
    connection.write(dataclasses.replace(answer, headers=longer).wire())
    connection.close()


async def garbage(connection, _answer):
    """bytes that are not HTTP, then close"""
    connection.write(b"\x00\x01\x02 this is not HTTP \xff\xfe\r\n\r\n")
    connection.close()


@sends
def empty(answer):
    """status 200 and an empty body"""
    return dataclasses.replace(answer, body=b"")


@sends
def html(answer):
    """status 200 and a page of HTML"""
    page = "<!DOCTYPE html><html><body>服务维护中</body></html>".encode()
    return dataclasses.replace(answer, body=page, headers=(("Content-Type", "text/html; charset=utf-8"),))


@sends
def not_json(answer):
    """the answer's JSON without its last brace"""
    return dataclasses.replace(answer, body=answer.body[:-1])


def with_members(answer, **members):
    body = json.loads(answer.body) | members
    return dataclasses.replace(answer, body=json.dumps(body).encode())


@sends
def no_code(answer):
    """JSON without Code"""
    members = json.loads(answer.body)
    del members["Code"]
    return dataclasses.replace(answer, body=json.dumps(members).encode())


@sends
def code_string(answer):
    """Code as a string"""
    return with_members(answer, Code=str(json.loads(answer.body)["Code"]))


@sends
def huge(answer):
    """valid JSON of 200 KB"""
    return with_members(answer, Padding="x" * 200_000)


async def endless(connection, _answer):
    """a body without length and without end, 16 KiB each 20 ms"""
    connection.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"Padding":"')
    while True:
        if not connection.is_clogged():
            connection.write(b"x" * 16384)
        await asyncio.sleep(0.02)


async def slow(connection, answer):
    """the answer, one byte each 200 ms"""
    for byte in answer.wire():
        connection.write(bytes([byte]))
        await asyncio.sleep(0.2)


@sends
def headers_flood(answer):
    """400 KB of headers, 1 KB each"""
    return dataclasses.replace(answer, headers=tuple((f"X-Flood-{i}", "x" * 1000) for i in range(400)))


@sends
def redirect(_answer):
    """status 302 to http://127.0.0.1:1/"""
    return Answer(b"", status=302, headers=(("Location", "http://127.0.0.1:1/"),))


@sends
def gzip(answer):
    """the body compressed, though nobody asked for it"""
    compressed = zlib.compress(answer.body, wbits=31)
    return dataclasses.replace(answer, body=compressed, headers=(("Content-Encoding", "gzip"),))


async def continue_forever(connection, _answer):
    """100 Continue each 100 ms"""
    while True:
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.1)


async def close_after(connection, answer):
    """answer well, then close the connection if it is still idle 50 ms later"""
    connection.write(answer.wire())
    connection.close_if_idle_in(0.05)


async def bad_chunk(connection, answer):
    """chunked encoding with a chunk size that is no number, then close"""
    connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" + answer.body + b"\r\n0\r\n\r\n")
    connection.close()


DAMAGES = {
    damage.__name__: damage
    for damage in (
        close, reset, hang, close_mid, reset_mid, short_length, garbage, empty, html, not_json, no_code, code_string,
        huge, endless, slow, headers_flood, redirect, gzip, continue_forever, close_after, bad_chunk,
    )
}  # fmt: skip


class Verdict(NamedTuple):
    """What becomes of a request. `name` is what it is counted and logged as: a Code, or what was done instead."""

    name: str
    answer: Answer
    damaged: bool = False
    damage: Optional[Callable] = None
    delay: float = 0.0


# Deeds: act(argument, do, code, ids) makes a verdict of a rule's "do". The argument is its member of the deed's name,
# and `code` what the call would be answered without the rule.


def ordinary(code, ids):
    return Verdict(str(code), Answer(api_body(ids, code)))


def do_code(argument, do, _code, ids):
    headers = (("Retry-After", do["retry_after"]),) if "retry_after" in do else ()
    return Verdict(str(argument), Answer(api_body(ids, argument, do.get("message")), headers=headers))


def do_status(argument, do, _code, _ids):
    answer = Answer(do.get("body", "").encode(), argument, tuple(header_pairs(do.get("headers", {}))))
    return Verdict(f"http_{argument}", answer, damaged=True)


def header_pairs(headers):
    """(name, value) for each header; a list of values repeats it."""
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            yield name, value


def do_damage(argument, _do, code, ids):
    return ordinary(code, ids)._replace(name=argument, damaged=True, damage=DAMAGES[argument])


def do_delay(argument, _do, code, ids):
    return ordinary(code, ids)._replace(delay=argument / 1000)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def is_count(value):
    return is_number(value) and isinstance(value, int)


def is_text(value):
    return isinstance(value, str)


def is_object(value):
    return isinstance(value, dict)


class Deed(NamedTuple):
    act: Callable
    is_valid: Callable  # of the argument
    options: dict = {}  # what else may stand in the "do": name, and whether a value is valid


DEEDS = {
    "code": Deed(do_code, is_count, {"message": is_text, "retry_after": is_text}),
    "status": Deed(do_status, is_count, {"headers": is_object, "body": is_text}),
    "damage": Deed(do_damage, lambda value: is_text(value) and value in DAMAGES),
    "delay": Deed(do_delay, is_number),
}


class Rule:
    """One rule of behaviour: which requests it is for, how often it applies, and what it does to them."""

    MEMBERS = {
        "match": is_object,
        "times": is_count,
        "probability": lambda value: is_number(value) and value <= 1,
        "skip": is_count,
        "do": is_object,
    }

    def __init__(self, source):
        if not is_object(source) or "do" not in source:
            raise ValueError(f'a rule is an object with a "do", not {source!r}')
        check_members("a rule", source, self.MEMBERS)
        self.set_match(**source.get("match", {}))
        self.set_deed(source["do"])
        self.times = source.get("times")
        self.probability = source.get("probability", 1)
        self.skip = source.get("skip", 0)
        self.matched = 0
        self.applied = 0

    def set_match(self, content="", **parameters):
        unknown = parameters.keys() - PARAMETERS.keys()
        if unknown or not is_text(content):
            raise ValueError(f"a rule cannot match {', '.join(sorted(unknown)) or content!r}")
        self.content = content.encode()
        self.parameters = {name: None if value is None else str(value).encode() for name, value in parameters.items()}

    def set_deed(self, do):
        kinds = do.keys() & DEEDS.keys()
        if len(kinds) != 1:
            raise ValueError(f"a rule does exactly one of {', '.join(DEEDS)}, not {do!r}")
        (kind,) = kinds
        deed = DEEDS[kind]
        check_members('a "do"', do, {kind: deed.is_valid, **deed.options})
        self.deed = functools.partial(deed.act, do[kind], do)

    def matches(self, parameters):
        return self.content in parameters.get("MessageContent", b"") and all(
            parameters.get(name) == value for name, value in self.parameters.items()
        )

    def applies(self, parameters, rng):
        """Whether to apply the rule to this request; counts it if so."""
        if self.applied == self.times or not self.matches(parameters):
            return False
        self.matched += 1
        if self.matched <= self.skip or (self.probability < 1 and rng.random() >= self.probability):
            return False
        self.applied += 1
        return True


def check_members(what, source, checks):
    for name, value in source.items():
        if name not in checks or not checks[name](value):
            raise ValueError(f"{what} cannot have {name!r}: {value!r}")


def parse_rules(source):
    """Rules from JSON, given as text or already parsed."""
    rules = json.loads(source) if isinstance(source, str) else source
    if not isinstance(rules, list):
        raise ValueError("rules are a list")
    return [Rule(rule) for rule in rules]


# Settings. Each parser takes what a command line option or a member of POST /settings gives, and raises ValueError.


def milliseconds(source):
    """Milliseconds, kept as seconds."""
    if isinstance(source, bool) or float(source) < 0:
        raise ValueError(f"not a number of milliseconds: {source!r}")
    return float(source) / 1000


def spike(source):
    """PROBABILITY:MS, kept as (probability, seconds)."""
    probability, _, duration = source.partition(":")
    if not 0 <= float(probability) <= 1:
        raise ValueError(f"not a probability: {probability!r}")
    return float(probability), milliseconds(duration)


def limiter_name(source):
    if source not in LIMITERS:
        raise ValueError(f"not a limiter: {source!r}")
    return source


def whole_number(source):
    if isinstance(source, (bool, float)) or int(source) < 0:
        raise ValueError(f"not a whole number: {source!r}")
    return int(source)


def limits(source):
    """{AppId: requests per second}"""
    parsed = {str(app_id).encode(): whole_number(limit) for app_id, limit in source.items()}
    if 0 in parsed.values():
        raise ValueError("a limit is at least 1")
    return parsed


def switch(source):
    if not isinstance(source, bool):
        raise ValueError(f"neither true nor false: {source!r}")
    return source


SETTINGS = {
    "latency": milliseconds,
    "jitter": milliseconds,
    "spike": spike,
    "enforce": limiter_name,
    "room_limit": whole_number,
    "limits": limits,
    "pause_accept": switch,
    "refuse": switch,
}


@dataclasses.dataclass
class Settings:
    latency: float = 0.0
    jitter: float = 0.0
    spike: tuple = (0.0, 0.0)
    enforce: str = "none"
    room_limit: int = 0
    pause_accept: bool = False
    refuse: bool = False


def parse_settings(source):
    """The members of a POST /settings, parsed: all of them, or ValueError."""
    if not isinstance(source, dict):
        raise ValueError("settings are an object")
    unknown = source.keys() - SETTINGS.keys()
    if unknown:
        raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
    return {name: SETTINGS[name](value) for name, value in source.items()}


# Tabs and line ends would break a row; backslashes are escaped so that the others can be told.
CELL_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class RequestLog:
    """One row of tab-separated values a request, see --help; written out when the report is read, and at the end."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8", buffering=1 << 20) if path else None

    def write(self, arrival, request, verdict, connection):
        if not self.file:
            return
        ids = (request.text(name).translate(CELL_ESCAPES) for name in ("AppId", "RoomId", "UserId"))
        nonce = request.text("SignatureNonce").translate(CELL_ESCAPES)
        cells = (str(arrival), *ids, verdict.name, str(connection), nonce, json.dumps(request.text("MessageContent")))
        self.file.write("\t".join(cells) + "\n")

    def flush(self):
        if self.file:
            self.file.flush()

    def close(self):
        if self.file:
            self.file.close()


class Server:
    """The API itself, without its sockets: judges requests, and keeps the counts."""

    def __init__(self, apps, settings, rules, rng, log):
        self.apps = {app.app_id: app for app in apps}
        self.settings = settings
        self.rules = rules
        self.rng = rng
        self.log = log
        self.ids = Ids()
        self.open_connections = set()
        self.enforce()
        self.reset()

    def enforce(self):
        for app in self.apps.values():
            app.enforce(self.settings.enforce, self.settings.room_limit)

    def reset(self):
        self.faults = Counter()
        self.connections = 0
        self.failed_handshakes = 0
        self.requests = 0
        for app in self.apps.values():
            app.reset()

    def opened(self, connection):
        """Count a connection in; gives its number."""
        self.connections += 1
        self.open_connections.add(connection)
        return self.connections

    def closed(self, connection):
        self.open_connections.discard(connection)

    def blame(self, faults):
        for fault in faults:
            self.faults[fault.kind, fault.detail] += 1

    def judge(self, request, arrival, connection):
        """Count a request, which arrived at monotonic nanosecond `arrival`, and decide what becomes of it."""
        parameters = request.parameters
        app = self.apps.get(parameters.get("AppId"))
        room = parameters.get("RoomId")
        faults = list(request.faults)
        if request.is_http:
            faults += parameter_faults(Call(parameters, app, time.time()))
        self.requests += 1
        self.blame(faults)
        # Limits are asked in any case: what arrives has arrived, whatever else is wrong with it.
        limited = app.admit(room, arrival) if app else 0
        verdict = self.verdict(parameters, faults[0].code if faults else limited)
        if app:
            app.count(room, verdict, arrival)
        self.log.write(arrival, request, verdict, connection)
        return verdict

    def verdict(self, parameters, code):
        for rule in self.rules:
            if rule.applies(parameters, self.rng):
                return rule.deed(code, self.ids)
        return ordinary(code, self.ids)

    def delay(self):
        """Seconds from a request's arrival to its answer."""
        settings = self.settings
        probability, duration = settings.spike
        delay = settings.latency
        if settings.jitter:
            delay += self.rng.uniform(0, settings.jitter)
        if probability and self.rng.random() < probability:
            delay += duration
        return delay

    def change(self, settings):
        """Take over parsed settings."""
        new_limits = settings.pop("limits", {})
        unknown = new_limits.keys() - self.apps.keys()
        if unknown:
            raise ValueError(f"no such app: {b', '.join(sorted(unknown)).decode()}")
        for app_id, limit in new_limits.items():
            self.apps[app_id].limit = limit
        self.settings = dataclasses.replace(self.settings, **settings)
        # Only when asked to: new limiters know nothing of the calls before.
        if new_limits or settings.keys() & {"enforce", "room_limit"}:
            self.enforce()

    def report(self):
        self.log.flush()
        return {
            "apps": {app_id.decode(): app.report() for app_id, app in self.apps.items()},
            "client_faults": [
                {"kind": kind, "detail": detail, "count": count}
                for (kind, detail), count in sorted(self.faults.items())
            ],
            "connections": self.connections,
            "open_connections": len(self.open_connections),
            "failed_handshakes": self.failed_handshakes,
            "requests": self.requests,
        }


class Connection(asyncio.Protocol):
    """One client connection: reads requests one after the other, and does to each what the server decides."""

    def __init__(self, server):
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.is_busy = False  # with a request that is not done with
        self.requests = 0
        self.pending = None  # the timer or task that will be done with it

    def connection_made(self, transport):
        self.transport = transport
        self.socket = transport.get_extra_info("socket")
        self.number = self.server.opened(self)

    def connection_lost(self, _exception):
        self.server.closed(self)
        if self.pending:
            self.pending.cancel()

    def data_received(self, data):
        self.received_at = time.monotonic_ns()
        self.buffer += data
        self.advance()

    def advance(self):
        """Begin what requests are in the buffer, one at a time."""
        while not self.is_busy and not self.transport.is_closing():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                break
            head = bytes(self.buffer[:end])
            del self.buffer[: end + 4]
            self.begin(parse_request(head))
        if len(self.buffer) > HEAD_MAX:
            self.server.blame([Fault("head", f"is longer than {HEAD_MAX} bytes")])
            self.transport.abort()

    def begin(self, request):
        self.is_busy = True
        self.requests += 1
        verdict = self.server.judge(request, self.received_at, self.number)
        delay = self.server.delay() + verdict.delay
        if delay:
            self.pending = self.loop.call_later(delay, self.on_due, request, verdict)
        else:
            self.carry_out(request, verdict)

    def on_due(self, request, verdict):
        self.carry_out(request, verdict)
        self.advance()

    def carry_out(self, request, verdict):
        if verdict.damage:
            self.pending = self.loop.create_task(self.suffer(request, verdict))
        else:
            self.write(verdict.answer.wire())
            self.end(request)

    async def suffer(self, request, verdict):
        await verdict.damage(self, verdict.answer)
        self.end(request)
        self.advance()

    def end(self, request):
        self.is_busy = False
        self.pending = None
        if request.is_last:
            self.transport.close()

    # What damages are made of.

    def write(self, data):
        self.transport.write(data)

    def is_clogged(self):
        """Whether the client has left much unread."""
        return self.transport.get_write_buffer_size() > 1 << 20

    def close(self):
        """Close as web servers do, with TLS's close_notify and TCP's FIN in one go.

        asyncio alone would send the close_notify and then wait for the client's, so that the connection would look
        alive to whoever looks at its socket only. Not for use behind more data than a socket takes at once.
        """
        self.transport.close()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Close with a RST, which is what closing does when lingering for zero seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def close_if_idle_in(self, seconds):
        self.loop.call_later(seconds, self.close_if_idle, self.requests)

    def close_if_idle(self, requests):
        if self.requests == requests and not self.transport.is_closing():
            self.close()


class Listener:
    """The API's listening socket, which can be told not to accept, or not to be there.

    asyncio's own servers can do neither and come back on the same port, hence the accept loop.
    """

    def __init__(self, server, address, port, tls):
        self.server = server
        self.address = address
        self.port = port
        self.tls = tls
        self.socket = None
        self.accepting = None
        self.handshakes = set()

    async def apply(self, pause_accept, refuse):
        """Be in the state that the two switches say."""
        if self.accepting and not pause_accept and not refuse:
            return
        await self.stop_accepting()
        if refuse:
            self.close()
            return
        self.open()
        if not pause_accept:
            self.accepting = asyncio.create_task(self.accept())

    def open(self):
        if self.socket:
            return
        self.socket = socket.create_server((self.address, self.port), backlog=1024)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]

    def close(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    async def stop_accepting(self):
        if not self.accepting:
            return
        self.accepting.cancel()
        # The loop lets go of the socket before the task has ended, so that it can be closed afterwards.
        await asyncio.wait([self.accepting])
        self.accepting = None

    async def accept(self):
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self.socket)
            except OSError:
                await asyncio.sleep(0.05)  # out of descriptors, which some connection will give back
                continue
            handshake = loop.create_task(self.welcome(client))
            self.handshakes.add(handshake)  # the loop alone would let it be collected half-way
            handshake.add_done_callback(self.handshakes.discard)

    async def welcome(self, client):
        # A client has to close its side within a second of our closing; asyncio's 30 s would outlast a test.
        timeouts = {"ssl_handshake_timeout": 30, "ssl_shutdown_timeout": 1} if self.tls else {}
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: Connection(self.server), client, ssl=self.tls, **timeouts)
        except OSError:
            self.server.failed_handshakes += 1


class Control:
    """The control port: JSON over HTTP, one request a connection."""

    def __init__(self, server, listener):
        self.server = server
        self.listener = listener
        self.routes = {
            ("GET", "/report"): self.get_report,
            ("GET", "/arrivals"): self.get_arrivals,
            ("POST", "/reset"): self.post_reset,
            ("POST", "/rules"): self.post_rules,
            ("POST", "/settings"): self.post_settings,
        }

    async def serve(self, reader, writer):
        """Answer the request of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            status, result = await self.handle(*await self.read(reader))
            headers = (("Connection", "close"),)
            writer.write(Answer(json.dumps(result).encode(), status, headers).wire())
            await writer.drain()
        writer.close()

    async def read(self, reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        return method, target, body

    async def handle(self, method, target, body):
        path, _, query = target.partition("?")
        route = self.routes.get((method, path))
        if not route:
            return 404, {"error": f"no {method} {path} here"}
        try:
            return 200, await route(parse_qs(query), json.loads(body or "null"))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}

    async def get_report(self, _query, _body):
        return self.server.report()

    async def get_arrivals(self, query, _body):
        return list(self.server.apps[query["AppId"][0].encode()].arrivals)

    async def post_reset(self, _query, _body):
        self.server.reset()

    async def post_rules(self, _query, body):
        self.server.rules = parse_rules(body)

    async def post_settings(self, _query, body):
        self.server.change(parse_settings(body))
        await self.listener.apply(self.server.settings.pause_accept, self.server.settings.refuse)


# Certificates, made on the spot, so that none in the repository can expire.

OURSELVES = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"
SOMEBODY_ELSE = "subjectAltName=DNS:wrong.example"

# Of OpenSSL 3.0's commands only "ca" can be told the dates of a certificate, and it wants all this to be said.
CA_CONFIG = """
[ca]
default_ca = sandbox
[sandbox]
certificate = ca.pem
private_key = ca.key
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


def openssl(directory, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed:\n{done.stderr}")


def new_key(path):
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def validity(first_day, last_day):
    """When a certificate is valid, in days from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = (now + datetime.timedelta(days=day) for day in (first_day, last_day))
    return ("-startdate", first.strftime("%Y%m%d%H%M%SZ"), "-enddate", last.strftime("%Y%m%d%H%M%SZ"))


def sign_with_ca(directory, names, dates):
    about = ("-subj", "/CN=sandbox", "-addext", names)
    openssl(directory, "req", *new_key("server.key"), "-out", "server.csr", *about)
    files = ("-in", "server.csr", "-out", "server.pem")
    openssl(directory, "ca", "-batch", "-notext", "-config", "ca.conf", *dates, *files)


def sign_with_itself(directory, names):
    about = ("-days", "2", "-subj", "/CN=sandbox", "-addext", names)
    openssl(directory, "req", "-x509", *new_key("server.key"), "-out", "server.pem", *about)


CERTIFICATES = {
    "good": lambda directory, names: sign_with_ca(directory, names, validity(-1, 2)),
    "expired": lambda directory, names: sign_with_ca(directory, names, validity(-3, -1)),
    "self-signed": sign_with_itself,
    "wrong-host": lambda directory, _names: sign_with_ca(directory, SOMEBODY_ELSE, validity(-1, 2)),
}


def make_certificates(directory, kind, address="127.0.0.1"):
    """Write ca.pem, server.pem and server.key. The key of the CA does not survive this function."""
    with tempfile.TemporaryDirectory(prefix="sandbox-ca-") as scratch:
        Path(scratch, "ca.conf").write_text(CA_CONFIG)
        Path(scratch, "index.txt").touch()
        about = ("-days", "2", "-subj", "/CN=sandbox CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl(scratch, "req", "-x509", *new_key("ca.key"), "-out", "ca.pem", *about)
        CERTIFICATES[kind](scratch, f"{OURSELVES},IP:{address}")
        for name in ("ca.pem", "server.pem", "server.key"):
            shutil.copy(Path(scratch, name), directory)


def tls_context(directory, kind, address):
    make_certificates(directory, kind, address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(Path(directory, "server.pem"), Path(directory, "server.key"))
    return context


# The program.


def parse_app(source):
    """APPID:SECRET[:LIMIT]"""
    match = re.fullmatch(r"([1-9]\d{0,9}):([^:]+)(?::([1-9]\d*))?", source)
    if not match:
        raise ValueError(f"not an app: {source!r}")
    return App(match[1].encode(), match[2], int(match[3] or 100))


EPILOG = """
When it listens it prints one line of JSON: {"url", "control", "ca_file" (null with --http), "pid"}.
SIGTERM and SIGINT end it with status 0.

rules (--behave, POST /rules)
  A JSON list. The first rule that applies decides; where none does, the answer is the ordinary one. A request counts as
  arrived whatever is done to it.
  {"match": {"AppId": …, "RoomId": …, "content": …}
                        which requests, all if absent: any parameter by its whole value, null for one that is not sent;
                        "content" by a part of MessageContent
   "skip": N            let the first N that match pass
   "times": N           apply N times at most
   "probability": P     apply to each with this probability
   "do": …}             exactly one of
      {"code": 206, "message": "…", "retry_after": "2"}
                        the API answers this Code; message and the Retry-After header may be absent
      {"status": 503, "headers": {…}, "body": "…"}
                        an HTTP answer; its headers replace the usual ones, a list of values repeats one; headers and
                        body may be absent
      {"damage": NAME}  see below
      {"delay": MS}     the ordinary answer, so much later

damages
@damages@

control port
  JSON over HTTP, one request a connection; errors are {"error"} with status 400 or 404.
  GET /report           {"apps": {APPID: {"requests", "answered": {CODE: count},
                           "damaged": {NAME or http_STATUS: count}, "most_in_a_second", "most_in_100ms",
                           "first_ns", "last_ns", "utilisation", "rooms", "limit"}},
                         "client_faults": [{"kind", "detail", "count"}],
                         "connections", "open_connections", "failed_handshakes", "requests"}
                        utilisation is requests / (limit * seconds from first to last), null where those are the same;
                        the last "requests" includes those without a known AppId. While a report is made, nothing is
                        served: do not ask for one in the middle of a measurement.
  GET /arrivals?AppId=N when each request arrived, monotonic nanoseconds
  POST /reset           forgets counts, arrivals and faults; keeps rules, settings, limiters and used nonces
  POST /rules           replaces the rules
  POST /settings        changes what is given: latency, jitter, spike, enforce, room_limit (as the options), limits
                        ({APPID: N}), pause_accept (the listening socket does not accept), refuse (it is closed, and
                        back on the same port when false). New limits start all limiters afresh.

log
  One row a request, tab-separated: arrival (monotonic ns), AppId, RoomId, UserId, the Code answered or the damage or
  http_STATUS, number of the connection, nonce, MessageContent as a JSON string. Tab, line feed, carriage return and
  backslash in the others are escaped as in C. Written out at each report and at the end.

client faults
  Whatever the documents do not allow, counted by kind and detail. The first one of a request decides its Code.
"""


def argument(parse):
    """A parser for argparse, which would keep the text of a ValueError to itself."""

    def convert(source):
        try:
            return parse(source)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def parse_arguments(arguments):
    damages = "\n".join(f"  {name:<21} {damage.__doc__}" for name, damage in DAMAGES.items())
    parser = argparse.ArgumentParser(
        description="A stand-in for ZEGO's server API v2 on loopback.",
        epilog=EPILOG.replace("@damages@", damages),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(flag, help, **keywords):
        if "type" in keywords:
            keywords["type"] = argument(keywords["type"])
        parser.add_argument(flag, help=help, **keywords)

    add("--app", f"an AppID and its requests per second, 100 if absent; repeatable (default: {DEFAULT_APP})",
        type=parse_app, action="append", metavar="APPID:SECRET[:LIMIT]")
    add("--address", "address of the API (default: 127.0.0.1)", default="127.0.0.1")
    add("--port", "port of the API, 0 for any (default)", type=whole_number, default=0)
    add("--control-port", "port to steer it by, 0 for any (default)", type=whole_number, default=0, metavar="PORT")
    add("--http", "plain HTTP instead of HTTPS", action="store_true")
    add("--certificate", "the server's certificate (default: good)", choices=CERTIFICATES, default="good")
    add("--dir", "where to write ca.pem, server.pem and server.key (default: a temporary directory)", metavar="DIR")
    add("--enforce", "the limiter behind Code 206: none (default), a sliding log, fixed seconds, a bucket of LIMIT",
        choices=LIMITERS, default="none")
    add("--room-limit", "requests per second for one room, more are answered 207; 0 for no limit (default)",
        type=whole_number, default=0, metavar="N")
    add("--latency", "time from a request's arrival to its answer", type=milliseconds, default=0.0, metavar="MS")
    add("--jitter", "add up to this much to it, evenly distributed", type=milliseconds, default=0.0, metavar="MS")
    add("--spike", "add this much to some", type=spike, default=(0.0, 0.0), metavar="PROBABILITY:MS")
    add("--behave", "rules, see below", type=parse_rules, default=[], metavar="JSON")
    add("--seed", "for jitter, spikes and probabilities; printed to stderr first (default: a random one)",
        type=whole_number, default=random.SystemRandom().getrandbits(32), metavar="N")
    add("--log", "write a row for each request, see below", metavar="FILE")
    add("--with-stdin", "exit when standard input ends, so as not to outlive a test", action="store_true")
    return parser.parse_args(arguments)


def watch_stdin(on_end):
    """Call on_end from another thread at the end of standard input, which may be a file and then cannot be polled."""

    def read():
        while os.read(0, 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended for another reason
            on_end()

    threading.Thread(target=read, daemon=True).start()


def stop_event(with_stdin):
    """An event that is set when the program shall end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_stdin:
        watch_stdin(functools.partial(loop.call_soon_threadsafe, stop.set))
    return stop


async def serve(options, server, directory):
    """Serve until told to stop."""
    stop = stop_event(options.with_stdin)
    tls = None if options.http else tls_context(directory, options.certificate, options.address)
    listener = Listener(server, options.address, options.port, tls)
    await listener.apply(pause_accept=False, refuse=False)
    control = await asyncio.start_server(Control(server, listener).serve, "127.0.0.1", options.control_port)
    ready = {
        "url": f"{'https' if tls else 'http'}://{options.address}:{listener.port}/",
        "control": f"http://127.0.0.1:{control.sockets[0].getsockname()[1]}/",
        "ca_file": str(Path(directory, "ca.pem").absolute()) if tls else None,
        "pid": os.getpid(),
    }
    print(json.dumps(ready), flush=True)
    await stop.wait()
    control.close()
    await listener.apply(pause_accept=False, refuse=True)
    for connection in list(server.open_connections):
        connection.transport.abort()


@contextlib.contextmanager
def certificate_directory(path):
    """The directory at `path`, made if need be; without a path, one that is removed afterwards."""
    if path:
        os.makedirs(path, exist_ok=True)
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="sandbox-") as temporary:
            yield temporary


def main(arguments=None):
    options = parse_arguments(arguments)
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    # Until the loop takes over: leave through the cleaning up of directories, whenever the signal comes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    settings = Settings(
        **{name: getattr(options, name) for name in ("latency", "jitter", "spike", "enforce", "room_limit")}
    )
    apps = options.app or [parse_app(DEFAULT_APP)]
    with contextlib.closing(RequestLog(options.log)) as log, certificate_directory(options.dir) as directory:
        server = Server(apps, settings, options.behave, random.Random(options.seed), log)
        asyncio.run(serve(options, server, directory))


# For tests.


class Sandbox:
    """A sandbox as a process of its own, for the length of a with statement.

    Keywords are the options of the command line: room_limit=20 for --room-limit 20, True for an option without value,
    a list to repeat one. `behave` may be given as rules rather than as JSON. Once started it has url, control, ca_file
    and pid.
    """

    program = __file__

    def __init__(self, **options):
        self.arguments = [argument for name, value in options.items() for argument in self.flags(name, value)]
        self.process = None

    @staticmethod
    def flags(name, value):
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            return [flag] if value else []
        if name == "behave" and not isinstance(value, str):
            value = json.dumps(value)
        values = value if isinstance(value, (list, tuple)) else [value]
        return [f"{flag}={item}" for item in values]

    def __enter__(self):
        command = [sys.executable, self.program, "--with-stdin", *self.arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        if not ready:
            raise RuntimeError(f"the sandbox did not start, status {self.stop()}")
        for name, value in json.loads(ready).items():
            setattr(self, name, value)
        return self

    def __exit__(self, *_exception):
        self.stop()

    def stop(self):
        """End it, if it has not ended yet; gives its exit status."""
        self.process.terminate()
        status = self.process.wait(timeout=10)
        self.process.stdin.close()
        self.process.stdout.close()
        return status

    def ask(self, method, path, body=None):
        """A request to the control port; ValueError if it is refused."""
        port = int(self.control.rstrip("/").rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            result = json.load(response)
        if response.status != 200:
            raise ValueError(result["error"])
        return result

    def report(self):
        return self.ask("GET", "/report")

    def arrivals(self, app_id):
        return self.ask("GET", f"/arrivals?AppId={app_id}")

    def reset(self):
        self.ask("POST", "/reset")

    def rules(self, rules):
        self.ask("POST", "/rules", rules)

    def settings(self, **settings):
        self.ask("POST", "/settings", settings)


if __name__ == "__main__":
    main()
