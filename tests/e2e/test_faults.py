# SPDX-License-Identifier: MIT
"""What becomes of messages when the way to ZEGO, or ZEGO itself, is broken.

Whatever goes wrong, three things must hold: the writer is told what is known and no more, the slot that the request
held is free again, and what comes afterwards is sent.
"""

import contextlib
import gzip
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sandbox import DAMAGES, make_certificates
from support import APP, EX_CONFIG, Host, eventually, is_sanitized, message, outcome, preload, some_ms

GOOD_BODY = b'{"Code":0,"Data":{"MessageId":"1_1_1"},"Message":"success","RequestId":"2237080460466033406"}'


def http_answer(body=GOOD_BODY, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Link:
    """A daemon that may have one request under way at a time: a slot that is not given back stops it for good."""

    def __init__(self, host, http):
        self.zego = host.zego(http=http)
        self.daemon = host.daemon(self.zego, upstream={"timeout": some_ms(600), "max_in_flight": 1})
        self.writer = self.daemon.connect()
        self.messages = 0

    def fate_of(self, do):
        """The reply to a message that the sandbox treats so, every time that it sees it."""
        self.messages += 1
        content = f"message {self.messages}."
        self.zego.rules([{"match": {"content": content}, "do": do}])
        return self.writer.ask(message(content, id=self.messages))

    def attempts(self):
        """How often the last message has arrived."""
        return self.zego.contents().count(f"message {self.messages}.")


@pytest.fixture(scope="module", params=["http", "https"])
def link(request):
    with contextlib.ExitStack() as stack:
        yield Link(Host(stack), http=request.param == "http")


# A request that was written and then lost may have arrived; one whose answer cannot be read, too. None is repeated.
REASONS = {
    "close": "network",
    "reset": "network",
    "hang": "timeout",
    "close_mid": "network",
    "reset_mid": "network",
    "short_length": "network",
    "garbage": "answer",
    "empty": "answer",
    "html": "answer",
    "not_json": "answer",
    "no_code": "answer",
    "code_string": "answer",
    "huge": "answer",
    "endless": "answer",
    "slow": "timeout",
    "headers_flood": "answer",
    "redirect": "http",
    "gzip": "answer",
    "continue_forever": "timeout",
    "close_after": "sent",
    "bad_chunk": "answer",
}


def test_every_damage_that_the_sandbox_knows_has_a_row_here():
    assert REASONS.keys() == DAMAGES.keys()


@pytest.mark.parametrize("damage", REASONS)
def test_a_damaged_answer_has_its_reason_is_not_repeated_and_frees_its_slot(link, damage):
    assert outcome(link.fate_of({"damage": damage})) == REASONS[damage]
    assert link.attempts() == 1
    assert outcome(link.fate_of({"code": 0})) == "sent"


ANSWERS = {
    "status 500": ({"status": 500}, "http"),
    "status 502": ({"status": 502}, "http"),
    "status 503": ({"status": 503}, "http"),
    "status 504": ({"status": 504}, "http"),
    "status 404": ({"status": 404}, "http"),
    "status 301": ({"status": 301, "headers": {"Location": "https://127.0.0.1:1/"}}, "http"),
    "redirect to a file": ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "http"),
    "status 204": ({"status": 204}, "answer"),
    "status 500 with a good body": ({"status": 500, "body": GOOD_BODY.decode()}, "sent"),
    "Code 0 twice": ({"status": 200, "body": '{"Code":0,"Code":0}'}, "answer"),
    "Code 0.5": ({"status": 200, "body": '{"Code":0.5}'}, "answer"),
    "Code null": ({"status": 200, "body": '{"Code":null}'}, "answer"),
    "a list": ({"status": 200, "body": '[{"Code":0}]'}, "answer"),
    "two values": ({"status": 200, "body": '{"Code":0}{"Code":0}'}, "answer"),
    "negative length": ({"status": 200, "headers": {"Content-Length": "-5"}, "body": "{}"}, "answer"),
    "a giant length": ({"status": 200, "headers": {"Content-Length": "99999999999"}, "body": "{}"}, "answer"),
    "two lengths": ({"status": 200, "headers": {"Content-Length": ["91", "10"]}, "body": GOOD_BODY.decode()}, "answer"),
    "one giant header": ({"status": 200, "headers": {"X-Giant": "x" * 400_000}}, "answer"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_answer_has_its_reason_is_not_repeated_and_frees_its_slot(link, name):
    do, reason = ANSWERS[name]
    reply = link.fate_of(do)
    assert outcome(reply) == reason
    assert reply.get("status") == (do["status"] if reason == "http" else None)
    assert link.attempts() == 1
    assert outcome(link.fate_of({"code": 0})) == "sent"


class RawServer:
    """What the sandbox does not do: each connection is handed to `serve`, in a thread of its own."""

    def __init__(self, serve, address=("127.0.0.1", 0), tls=None, listener=None):
        self.serve = serve
        self.tls = tls
        self.connections = 0
        self.open = []
        self.listener = listener or socket.create_server(address)
        host, self.port = self.listener.getsockname()[:2]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}/"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_exception):
        for closing in (self.listener, *self.open):
            with contextlib.suppress(OSError):
                closing.shutdown(socket.SHUT_RDWR)
            closing.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                self.open.append(connection)
                threading.Thread(target=self.run, args=(connection,), daemon=True).start()

    def run(self, connection):
        # What goes wrong here is what the tests are about: clients that hang up, or refuse to shake hands.
        with contextlib.suppress(OSError, EOFError):
            with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as wrapped:
                self.serve(wrapped)
        self.open.remove(connection)


def read_head(connection):
    """A request's head, or what there is of it at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (data := connection.recv(65536)):
        head += data
    return head


def read_exactly(connection, n):
    data = b""
    while len(data) < n:
        more = connection.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def hold(connection):
    """Take what comes and say nothing."""
    while connection.recv(65536):
        pass


def server_context(directory, *alpn):
    make_certificates(directory, "good")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def test_what_a_proxy_refuses_was_not_written_and_is_tried_again(host):
    def refuse(connection):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with RawServer(refuse) as proxy:
        upstream = {"url": "https://127.0.0.1:1/", "proxy": f"http://127.0.0.1:{proxy.port}"}
        daemon = host.daemon(upstream=upstream)
        assert daemon.connect().ask(message(id=1))["outcome"] == "failed"
        assert proxy.connections == 3


def test_a_request_that_is_given_up_is_not_delivered_any_more(host):
    """The connection is reset, so that nothing of it can leave the kernel when its token is long at home."""
    ends = []

    def never_answer(connection):
        read_head(connection)
        try:
            ends.append(connection.recv(1))
        except ConnectionResetError:
            ends.append("reset")

    with RawServer(never_answer) as server:
        daemon = host.daemon(upstream={"url": server.url, "timeout": "200ms"})
        assert outcome(daemon.connect().ask(message(id=1))) == "timeout"
        eventually(lambda: ends, "the end of the connection")
    assert ends == ["reset"]


def test_an_idle_connection_is_closed_in_peace(host):
    ends = []

    def answer_and_wait(connection):
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD_BODY), GOOD_BODY))
        try:
            ends.append(connection.recv(1))
        except ConnectionResetError:
            ends.append("reset")

    with RawServer(answer_and_wait) as server:
        daemon = host.daemon(upstream={"url": server.url})
        assert outcome(daemon.connect().ask(message(id=1))) == "sent"
        daemon.stop()
        eventually(lambda: ends, "the end of the connection")
    assert ends == [b""]


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def black_hole(address="127.0.0.1", port=0):
    """An address that does not even say no: a listener whose backlog is full. Gives its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=0) as listener, contextlib.ExitStack() as filling:
        for _ in range(100):
            client = filling.enter_context(socket.socket(family))
            client.settimeout(0.2)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            pytest.skip("this kernel's listeners are never full")
        yield listener.getsockname()[1]


# A first request has no connection to find dead, so what is lost on it is lost in another way.


@pytest.mark.parametrize("damage", ["close", "reset", "garbage"])
@pytest.mark.parametrize("http", [True, False], ids=["http", "https"])
def test_a_fresh_connection_that_breaks_is_told_and_not_tried_again(host, http, damage):
    zego = host.zego(http=http, behave=[{"times": 1, "do": {"damage": damage}}])
    writer = host.daemon(zego).connect()
    assert outcome(writer.ask(message("lost", id=1))) == REASONS[damage]
    assert outcome(writer.ask(message("next", id=2))) == "sent"
    assert zego.contents() == ["lost", "next"]


@pytest.mark.parametrize("damage", ["close", "reset"])
def test_a_request_is_never_sent_twice_by_itself_however_many_connections_die(host, damage):
    zego = host.zego(apps={APP: 100_000}, behave=[{"probability": 0.3, "do": {"damage": damage}}])
    daemon = host.daemon(zego, app={"rate": 1000, "room_rate": 0, "burst": 50}, queue={"max_age": "30s"})
    lines = [message(f"m{i}", id=i) for i in range(300)]
    outcomes = {reply["id"]: outcome(reply) for reply in daemon.connect().ask(*lines)}
    seen = zego.seen()
    assert set(outcomes.values()) <= {"sent", "network"}
    assert sorted(arrival.content for arrival in seen) == sorted(line["MessageContent"] for line in lines)
    assert len({arrival.nonce for arrival in seen}) == len(seen)
    assert {int(arrival.content[1:]) for arrival in seen if arrival.verdict == "0"} == {
        i for i, fate in outcomes.items() if fate == "sent"
    }


def test_a_kept_connection_that_the_server_closes_while_idle_costs_no_message(host):
    zego = host.zego(behave=[{"do": {"damage": "close_after"}}])
    writer = host.daemon(zego).connect()
    for i in range(3):
        assert outcome(writer.ask(message(id=i))) == "sent"
        eventually(lambda: zego.report()["open_connections"] == 0, "the server closes the idle connection")
    assert zego.report()["connections"] == 3


def test_a_server_that_never_answers_is_given_no_more_than_max_in_flight(host):
    with RawServer(hold) as server:
        upstream = {"url": server.url, "timeout": "300ms", "max_in_flight": 4}
        daemon = host.daemon(upstream=upstream, app={"room_rate": 0}, queue={"max_age": "1s"})
        replies = daemon.connect().ask(*[message(id=i) for i in range(40)])
        assert [outcome(reply) for reply in replies].count("timeout") >= 4
        assert {outcome(reply) for reply in replies} == {"timeout", "expired"}
        assert server.connections <= 40
        # With every slot lost there would be none for this one; with all of them in use, none within its age.
        assert outcome(daemon.connect().ask(message(id=40))) == "timeout"


def test_an_appid_that_is_never_answered_leaves_connections_to_the_others(host):
    rule = {"match": {"AppId": APP}, "do": {"damage": "hang"}}
    zego = host.zego(apps={APP: 100, APP + 1: 100}, behave=[rule])
    daemon = host.daemon(
        zego,
        daemon={"drain_timeout": 0},
        upstream={"max_in_flight": 8, "timeout": "2m"},
        app={"room_rate": 0},
        apps={APP: {}, APP + 1: {}},
        queue={"max_age": "60s"},
    )
    writer = daemon.connect()
    writer.send(*[message("hangs", AppId=APP, id=f"h{i}") for i in range(50)])
    eventually(lambda: zego.contents().count("hangs") >= 4, "a few of them hang")
    replies = daemon.connect().ask(*[message("sent", AppId=APP + 1, id=i) for i in range(50)])
    assert {outcome(reply) for reply in replies} == {"sent"}
    assert zego.contents().count("hangs") < 8


def test_answers_without_end_do_not_grow_the_daemon(host):
    zego = host.zego(behave=[{"match": {"RoomId": "endless"}, "do": {"damage": "endless"}}])
    daemon = host.daemon(zego, upstream={"timeout": "10s"}, app={"burst": 40, "room_rate": 0})
    writer = daemon.connect()
    writer.ask(message(id=0))
    before = daemon.resident()
    replies = writer.ask(*[message(room="endless", id=i) for i in range(30)])
    assert {outcome(reply) for reply in replies} == {"answer"}
    assert daemon.resident() - before < 32 << 20


def test_a_server_whose_answers_cannot_be_used_is_not_taken_for_unreachable(host):
    zego = host.zego(behave=[{"do": {"damage": "huge"}}])
    daemon = host.daemon(zego)
    replies = daemon.connect().ask(*[message(id=i) for i in range(10)])
    assert {outcome(reply) for reply in replies} == {"answer"}
    assert "cannot be reached" not in daemon.log


# The server says when to come back.


def retried_after(host, retry_after):
    """The reply to a message that is first answered 503 with this Retry-After, and the times between its arrivals."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    zego = host.zego(behave=[{"times": 1, "do": {"status": 503, "headers": headers}}])
    writer = host.daemon(zego, queue={"max_age": "10s"}).connect()
    reply = writer.ask(message(id=1))
    times = [arrival.ns for arrival in zego.seen()]
    assert outcome(writer.ask(message(id=2))) == "sent"
    return outcome(reply), [later - earlier for earlier, later in zip(times, times[1:])]


def test_retry_after_is_waited_for(host):
    fate, (gap,) = retried_after(host, "1")
    assert fate == "sent"
    assert gap >= 1e9


def test_retry_after_may_be_a_date(host):
    fate, (gap,) = retried_after(host, formatdate(time.time() + 3, usegmt=True))
    assert fate == "sent"
    assert gap >= 1e9


def test_retry_after_nothing_is_soon(host):
    assert retried_after(host, "0")[0] == "sent"


@pytest.mark.parametrize(
    "retry_after",
    [None, "", "-5", "soon", "Wed, 99 Foo 2026 25:61:61 GMT", "99999999999999", "9" * 40, "60"]
    + ["Fri, 31 Dec 9999 23:59:59 GMT"],
)
def test_a_retry_after_that_helps_no_message_ends_it_at_once_and_harms_nothing(host, retry_after):
    assert retried_after(host, retry_after) == ("http", [])


# The last two are more than libcurl counts to.
@pytest.mark.parametrize("retry_after", ["99999999999999", "9223372036854775808", "9" * 100])
def test_a_retry_after_beyond_reason_holds_an_appid_for_a_minute_at_most_and_no_other(host, retry_after):
    rule = {"match": {"AppId": APP}, "times": 1, "do": {"code": 206, "retry_after": retry_after}}
    zego = host.zego(apps={APP: 100, APP + 1: 100}, behave=[rule])
    daemon = host.daemon(zego, apps={APP: {}, APP + 1: {}}, queue={"max_age": "300ms"})
    writer = daemon.connect()
    assert outcome(writer.ask(message(AppId=APP, id=1))) == "api"
    assert outcome(writer.ask(message(AppId=APP, id=2))) == "expired"
    assert outcome(writer.ask(message(AppId=APP + 1, id=3))) == "sent"


# Nothing gets through.


def assert_is_well(daemon):
    """It still takes in writers, and ends when it is told to: connections that never were must leave no trace."""
    for _ in range(3):
        assert daemon.connect().ask(b"this is not JSON")["reason"] == "invalid"
    assert daemon.stop() == 0


def test_a_refused_connection_is_tried_again_and_then_told(host):
    url = f"http://127.0.0.1:{closed_port()}/"
    daemon = host.daemon(upstream={"url": url}, daemon={"log_level": "debug"})
    assert outcome(daemon.connect().ask(message(id=1))) == "connect"
    assert daemon.log.count("started") == 3
    assert_is_well(daemon)


def test_a_black_hole_is_given_up_after_connect_timeout(host):
    with black_hole() as port:
        upstream = {"url": f"http://127.0.0.1:{port}/", "connect_timeout": "200ms", "timeout": "60s"}
        daemon = host.daemon(upstream=upstream, daemon={"log_level": "debug"})
        assert outcome(daemon.connect().ask(message(id=1))) == "connect"
        assert daemon.log.count("started") == 3
        assert_is_well(daemon)


def test_an_upstream_that_is_down_is_probed_by_one_message_at_a_time_until_it_is_back(host):
    zego = host.zego()
    zego.settings(refuse=True)
    daemon = host.daemon(zego, daemon={"log_level": "debug"}, queue={"max_age": "1500ms"}, app={"room_rate": 0})
    writer = daemon.connect()
    replies = writer.ask(*[message(f"early {i}", id=i) for i in range(100)])
    assert {outcome(reply) for reply in replies} <= {"connect", "expired"}
    assert [outcome(reply) for reply in replies].count("expired") >= 70
    # Ten at once, five failures on end, then a probe after 100 ms, 200 ms and so on.
    assert daemon.log.count("started") <= 30
    assert daemon.log.count("the API cannot be reached") == 1

    zego.settings(refuse=False)
    eventually(lambda: outcome(writer.ask(message("late", id=0))) == "sent", "the upstream is found again")
    assert daemon.log.count("the API can be reached again") == 1
    replies = writer.ask(*[message(f"late {i}", room=f"room {i}", id=i) for i in range(20)])
    assert {outcome(reply) for reply in replies} == {"sent"}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_gateway_that_reaches_nobody_is_probed_and_a_server_that_fails_is_not(host, zego, status):
    gateway = status > 500
    zego.rules([{"do": {"status": status}}])
    daemon = host.daemon(zego, app={"room_rate": 0}, queue={"max_age": "1s" if gateway else "60s"})
    writer = daemon.connect()
    replies = writer.ask(*[message(id=i) for i in range(50)])
    assert "http" in {outcome(reply) for reply in replies} <= {"http", "expired"}
    assert {reply["status"] for reply in replies if outcome(reply) == "http"} == {status}
    if gateway:
        assert f"the API cannot be reached reason=http status={status}" in daemon.log
        assert len(zego.seen()) <= 30  # ten at once, and then one at a time
    else:
        assert "cannot be reached" not in daemon.log
        assert len(zego.seen()) == 50
    zego.rules([])
    eventually(lambda: outcome(writer.ask(message(id=50))) == "sent", "it is found mended")
    assert ("the API can be reached again" in daemon.log) == gateway


def test_probes_are_never_two_at_a_time(host):
    at_once = []

    def serve(connection):
        at_once.append(len(server.open))
        hold(connection)

    # Of another test's daemon that looks for a server which had the same port nobody must be counted here.
    with RawServer(serve, address=("127.77.0.1", 0)) as server:
        upstream = {"url": server.url.replace("http:", "https:"), "connect_timeout": some_ms(200)}
        daemon = host.daemon(upstream=upstream, queue={"max_age": some_ms(2000)}, app={"room_rate": 0})
        writer = daemon.connect()
        writer.send(*[message(id=i) for i in range(50)])
        daemon.wait_for_log("the API cannot be reached")
        eventually(lambda: len(server.open) <= 1, "what was under way by then has ended")
        at_once.clear()
        writer.replies(50)
        assert 1 <= len(at_once) <= 10
        assert max(at_once) == 1


def test_messages_that_wait_for_a_dead_upstream_do_not_outlive_their_age(host):
    url = f"http://127.0.0.1:{closed_port()}/"
    writer = host.daemon(upstream={"url": url}, queue={"max_age": "1s"}).connect()
    writer.ask(*[message(id=i) for i in range(5)])
    replies = writer.ask(*[message(room="late", ttl_ms=300, id=i) for i in range(20)])
    assert all(reply["waited_ms"] >= 300 for reply in replies if outcome(reply) == "expired")
    assert "expired" in {outcome(reply) for reply in replies} <= {"expired", "connect"}


# Names.


class Names:
    """The name server that a daemon uses."""

    def __init__(self, host, shims):
        self.script = host.directory / "names"
        self.log = host.write("names.log", "")
        self.environment = preload(
            shims("slow_getaddrinfo"), GETADDRINFO_SCRIPT=str(self.script), GETADDRINFO_LOG=str(self.log)
        )

    def answer(self, addresses, after_ms=0):
        """From now on look-ups end so; without addresses they fail."""
        fresh = self.script.with_suffix(".new")
        fresh.write_text(f"{after_ms} {' '.join(addresses) or '-'}\n")
        fresh.rename(self.script)

    def looked_up(self):
        return self.log.read_text().split()


@pytest.fixture
def names(host, shims):
    return Names(host, shims)


def test_a_name_that_does_not_exist_is_told_as_dns(host):
    daemon = host.daemon(upstream={"url": "https://zego.invalid/"})
    assert outcome(daemon.connect().ask(message(id=1))) == "dns"


def test_a_name_that_failed_is_not_asked_for_again_by_every_message(host, names):
    names.answer([])
    daemon = host.daemon(upstream={"url": "https://zego.example/"}, environment=names.environment)
    writer = daemon.connect()
    began = time.monotonic()
    replies = writer.ask(*[message(id=i, ttl_ms=900) for i in range(4)])
    took = time.monotonic() - began
    assert {outcome(reply) for reply in replies} <= {"dns", "expired"}
    assert len(names.looked_up()) <= 2 + took


def test_a_name_that_comes_to_exist_is_found(host, zego, names):
    names.answer([])
    url = zego.url.replace("127.0.0.1", "localhost")
    daemon = host.daemon(zego, upstream={"url": url}, environment=names.environment)
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "dns"
    names.answer(["127.0.0.1"])
    eventually(lambda: outcome(writer.ask(message(id=2))) == "sent", "the name is found")


def test_a_name_server_that_hangs_does_not_freeze_the_loop(host, names):
    names.answer([], after_ms=60_000)
    upstream = {"url": "https://zego.example/", "connect_timeout": "500ms"}
    daemon = host.daemon(upstream=upstream, daemon={"drain_timeout": "100ms"}, environment=names.environment)
    asking, refused = daemon.connect(), daemon.connect()
    asking.send(*[message(id=i) for i in range(10)])
    eventually(names.looked_up, "the look-up begins")
    for _ in range(20):
        assert refused.ask(b"this is not JSON")["reason"] == "invalid"
        time.sleep(0.05)
    assert {outcome(reply) for reply in asking.replies(10)} <= {"dns", "expired"}
    assert names.looked_up() == ["zego.example"]
    asking.send(message(id=10))
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 30


def test_a_look_up_that_hangs_holds_nothing_up_once_the_host_is_another(host, names):
    names.answer([], after_ms=60_000)
    upstream = {"url": "https://old.example/", "connect_timeout": "300ms"}
    daemon = host.daemon(upstream=upstream, environment=names.environment)
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "dns"
    names.answer(["127.0.0.1"])
    with RawServer(hold) as server:
        assert daemon.reload(upstream={"url": f"https://zego.example:{server.port}/"})
        writer.ask(message(id=2))
        assert server.connections > 0


def test_what_waits_for_the_address_of_a_host_that_is_no_longer_the_one_is_tried_anew(host, zego, names):
    names.answer([], after_ms=60_000)
    upstream = {"url": "https://old.example/", "max_in_flight": 2}
    daemon = host.daemon(zego, upstream=upstream, environment=names.environment)
    writer = daemon.connect()
    writer.send(*[message(room=f"{i}", id=i, ttl_ms=20_000) for i in range(20)])
    eventually(names.looked_up, "the look-up begins")
    names.answer(["127.0.0.1"], after_ms=500)
    # More may be under way now, and so a message asks for the new address at once.
    assert daemon.reload(upstream={"url": zego.url.replace("127.0.0.1", "localhost"), "max_in_flight": 20})
    replies = writer.replies(20)
    assert {outcome(reply) for reply in replies} == {"sent"}
    assert names.looked_up() == ["old.example", "localhost"]


def test_one_look_up_serves_all_that_wait_for_it(host, zego, names):
    names.answer(["127.0.0.1"], after_ms=500)
    url = zego.url.replace("127.0.0.1", "localhost")
    daemon = host.daemon(zego, upstream={"url": url}, environment=names.environment)
    replies = daemon.connect().ask(*[message(room=f"{i}", id=i) for i in range(10)])
    assert {outcome(reply) for reply in replies} == {"sent"}
    assert names.looked_up() == ["localhost"]


@pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
def test_an_address_that_refuses_is_passed_over(host, zego, names, dead):
    names.answer([dead, "127.0.0.1"])
    url = zego.url.replace("127.0.0.1", "localhost")
    daemon = host.daemon(zego, upstream={"url": url}, environment=names.environment)
    replies = daemon.connect().ask(*[message(room=f"{i}", id=i) for i in range(10)])
    assert {outcome(reply) for reply in replies} == {"sent"}


@pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
def test_a_black_hole_among_the_addresses_is_passed_over(host, zego, names, dead):
    url = zego.url.replace("127.0.0.1", "localhost")
    with black_hole(dead, urlsplit(zego.url).port):
        names.answer([dead, "127.0.0.1"])
        daemon = host.daemon(zego, upstream={"url": url}, environment=names.environment)
        replies = daemon.connect().ask(*[message(room=f"{i}", id=i, ttl_ms=10_000) for i in range(5)])
        assert {outcome(reply) for reply in replies} == {"sent"}
        assert_is_well(daemon)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_ipv6_address_is_as_good_as_a_name(host, scheme):
    heads = []

    def serve(connection):
        while head := read_head(connection):
            heads.append(head)
            connection.sendall(http_answer())

    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 here")
    tls = server_context(host.directory) if scheme == "https" else None
    with RawServer(serve, tls=tls, listener=listener) as server:
        authority = f"[::1]:{server.port}"
        upstream = {"url": f"{scheme}://{authority}/", "ca_file": host.directory / "ca.pem" if tls else ""}
        replies = host.daemon(upstream=upstream).connect().ask(*[message(id=i) for i in range(3)])
        assert {outcome(reply) for reply in replies} == {"sent"}
        assert len(heads) == 3 and all(f"\r\nHost: {authority}\r\n".encode() in head for head in heads)


# TLS.


@pytest.mark.parametrize("certificate", ["expired", "self-signed", "wrong-host"])
def test_a_certificate_that_is_not_right_is_told_as_tls_and_nothing_is_sent(host, certificate):
    zego = host.zego(http=False, certificate=certificate)
    assert outcome(host.daemon(zego).connect().ask(message(id=1))) == "tls"
    assert zego.report()["requests"] == 0


def test_why_certificates_are_refused_is_told_once_a_minute(host):
    zego = host.zego(http=False, certificate="wrong-host")
    daemon = host.daemon(zego, app={"room_rate": 0})
    writer = daemon.connect()
    for i in range(3):
        assert outcome(writer.ask(message(id=i, ttl_ms=60_000))) == "tls"
    assert daemon.log.count("warning: an attempt failed: ") == 1
    assert re.search("warning: an attempt failed: .*(certificate|subject|host)", daemon.log)
    assert daemon.log.count("error: the API cannot be reached reason=tls") == 1


def test_a_certificate_of_an_unknown_authority_is_told_as_tls_and_nothing_is_sent(host):
    zego = host.zego(http=False)
    make_certificates(host.directory, "good")
    daemon = host.daemon(zego, upstream={"ca_file": host.directory / "ca.pem"})
    assert outcome(daemon.connect().ask(message(id=1))) == "tls"
    assert zego.report()["requests"] == 0


def test_the_systems_authorities_count_for_nothing_beside_a_ca_file_nor_a_ca_file_for_a_daemon_without(host):
    zego = host.zego(http=False)
    daemon = host.daemon(zego, upstream={"ca_file": None})
    assert outcome(daemon.connect().ask(message(id=1))) == "tls"
    assert zego.report()["requests"] == 0


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"])
def test_a_ca_file_that_cannot_be_used_is_found_at_the_start_and_on_reload(host, content):
    zego = host.zego(http=False)
    path = host.directory / "authorities.pem"
    if content is not None:
        host.write(path.name, content)
    daemon = host.daemon(zego)
    assert not daemon.reload(upstream={"ca_file": path})
    assert outcome(daemon.connect().ask(message(id=1))) == "sent"
    check = host.run("--config", daemon.config, "--check-config")
    assert check.returncode == EX_CONFIG
    assert "ca_file" in check.stderr
    fresh = host.daemon(zego, start=False, upstream={"ca_file": path})
    fresh.launch()
    assert fresh.wait() == EX_CONFIG
    assert "ca_file" in fresh.log


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_a_server_that_knows_only_old_tls_is_told_as_tls(host):
    context = server_context(host.directory)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with RawServer(hold, tls=context) as server:
        upstream = {"url": server.url, "ca_file": host.directory / "ca.pem"}
        assert outcome(host.daemon(upstream=upstream).connect().ask(message(id=1))) == "tls"


def test_plain_http_where_https_is_expected_is_told_as_tls(host):
    def serve(connection):
        connection.recv(65536)
        connection.sendall(http_answer(b"", "400 Bad Request"))

    with RawServer(serve) as server:
        upstream = {"url": server.url.replace("http:", "https:")}
        assert outcome(host.daemon(upstream=upstream).connect().ask(message(id=1))) == "tls"


def test_a_handshake_that_hangs_is_told_as_tls_after_connect_timeout(host):
    with RawServer(hold) as server:
        upstream = {"url": server.url.replace("http:", "https:"), "connect_timeout": "200ms"}
        assert outcome(host.daemon(upstream=upstream).connect().ask(message(id=1))) == "tls"


# Elsewhere.


def test_a_proxy_in_the_environment_is_not_asked(host, zego):
    proxy = f"http://127.0.0.1:{closed_port()}"
    environment = {name: proxy for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY")}
    daemon = host.daemon(zego, environment=environment)
    assert outcome(daemon.connect().ask(message(id=1))) == "sent"


def test_a_redirect_is_not_followed_not_even_to_the_same_server(host):
    def serve(connection):
        while head := read_head(connection):
            paths.append(head.split()[1].partition(b"?")[0])
            location = f"Location: {server.url}elsewhere"
            connection.sendall(http_answer(b"", "302 Found", location))

    paths = []
    with RawServer(serve) as server:
        reply = host.daemon(upstream={"url": server.url}).connect().ask(message(id=1))
        assert (outcome(reply), reply["status"]) == ("http", 302)
    assert paths == [b"/"]


REDIRECTIONS = (301, 302, 303, 307, 308)


def test_nothing_of_a_request_goes_where_a_redirect_points(host):
    """Not even by plain HTTP on this host, which the daemon may speak: the query holds text and signature."""

    def redirect(connection):
        while read_head(connection):
            status = REDIRECTIONS[len(asked) % len(REDIRECTIONS)]
            asked.append(status)
            connection.sendall(http_answer(b"", f"{status} Elsewhere", f"Location: {elsewhere.url}?{len(asked)}"))

    asked = []
    with RawServer(redirect) as server, RawServer(hold) as elsewhere:
        writer = host.daemon(upstream={"url": server.url}).connect()
        replies = [writer.ask(message(id=i)) for i in range(len(REDIRECTIONS))]
        assert [(outcome(reply), reply["status"]) for reply in replies] == [("http", status) for status in REDIRECTIONS]
        assert (len(asked), elsewhere.connections) == (len(REDIRECTIONS), 0)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_no_encoding_is_asked_for_and_none_undone(host, encoding):
    """An answer of a few bytes could otherwise become one of gigabytes."""

    def serve(connection):
        while head := read_head(connection):
            heads.append(head.lower())
            connection.sendall(http_answer(bomb, "200 OK", f"Content-Encoding: {encoding}"))

    heads = []
    bomb = gzip.compress(bytes(40 << 20))
    assert len(bomb) < 64 * 1024
    with RawServer(serve) as server:
        daemon = host.daemon(upstream={"url": server.url})
        writer = daemon.connect()
        writer.sync()
        before = daemon.resident()
        assert {outcome(writer.ask(message(id=i))) for i in range(5)} == {"answer"}
        assert is_sanitized() or daemon.resident() - before < 8 << 20
    assert len(heads) == 5
    assert not [head for head in heads if b"accept-encoding" in head]


PIECES = {
    "nothing": (b"", "network"),
    "half a head": (b"HTTP/1.1 200 OK\r\n", "answer"),
    "all but a byte": (http_answer()[:-1], "network"),
    "more than it": (http_answer() + b"and more", "sent"),
}


@pytest.mark.parametrize("name", PIECES)
def test_whatever_piece_of_an_answer_comes_the_next_message_is_sent(host, name):
    piece, expected = PIECES[name]

    def serve(connection):
        read_head(connection)
        connection.sendall(piece if server.connections == 1 else http_answer())

    with RawServer(serve) as server:
        writer = host.daemon(upstream={"url": server.url}).connect()
        assert outcome(writer.ask(message(id=1))) == expected
        assert outcome(writer.ask(message(id=2))) == "sent"


def test_an_answer_that_nobody_asked_for_is_not_taken_for_that_of_the_next_message(host):
    unasked = http_answer(GOOD_BODY.replace(b"1_1_1", b"stale"))

    def serve(connection):
        while read_head(connection):
            connection.sendall(http_answer() + unasked)

    with RawServer(serve) as server:
        writer = host.daemon(upstream={"url": server.url}).connect()
        for i in range(5):
            assert writer.ask(message(id=i))["MessageId"] == "1_1_1"
            time.sleep(0.02)


# HTTP/2 lets a server say what it has surely not processed.

HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 0, 2, 7, 11
ACK, END_STREAM, END_HEADERS = 1, 1, 4


def frame(kind, stream, payload=b"", flags=0):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def answer_stream(stream):
    status_200 = b"\x88"
    return frame(HEADERS, stream, status_200, END_HEADERS) + frame(0, stream, GOOD_BODY, END_STREAM)


def reset_stream(stream, error):
    return frame(RST_STREAM, stream, struct.pack(">I", error))


def go_away(last_stream, error):
    return frame(GOAWAY, 0, struct.pack(">II", last_stream, error))


class Http2Server(RawServer):
    """Just enough of HTTP/2. `react(stream, n)` gives the frames for the n-th request, and whether to close then."""

    def __init__(self, directory, react):
        super().__init__(self.talk, tls=server_context(directory, "h2"))
        self.react = react
        self.requests = 0

    def talk(self, connection):
        read_exactly(connection, len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        connection.sendall(frame(SETTINGS, 0))
        while True:
            head = read_exactly(connection, 9)
            read_exactly(connection, int.from_bytes(head[:3], "big"))
            if head[3] == SETTINGS and not head[4] & ACK:
                connection.sendall(frame(SETTINGS, 0, flags=ACK))
            elif head[3] == HEADERS:
                self.requests += 1
                frames, close = self.react(int.from_bytes(head[5:], "big"), self.requests)
                connection.sendall(frames)
                if close:
                    return


@pytest.fixture
def over_http2(host):
    """Starts a server that reacts so and a daemon that speaks HTTP/2 to it; gives both."""
    with contextlib.ExitStack() as stack:

        def start(react, **keys):
            server = stack.enter_context(Http2Server(host.directory, react))
            upstream = {"url": server.url, "ca_file": host.directory / "ca.pem", "http_version": 2}
            return server, host.daemon(upstream=upstream | keys)

        yield start


def first_gets(frames, close):
    """Make a reaction: this for the first request, a good answer for the others."""

    def react(stream, n):
        return (frames(stream), close) if n == 1 else (answer_stream(stream), False)

    return react


def test_after_a_time_out_an_http2_connection_is_not_trusted_any_more(over_http2):
    server, daemon = over_http2(first_gets(lambda stream: b"", False), timeout=some_ms(300))
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "timeout"
    assert outcome(writer.ask(message(id=2))) == "sent"
    assert server.connections == 2


SURELY_NOT_PROCESSED = {
    "REFUSED_STREAM": first_gets(lambda stream: reset_stream(stream, REFUSED_STREAM), False),
    "GOAWAY before it": first_gets(lambda stream: go_away(0, NO_ERROR), True),
}

MAYBE_PROCESSED = {
    "RST_STREAM": first_gets(lambda stream: reset_stream(stream, INTERNAL_ERROR), False),
    "ENHANCE_YOUR_CALM": first_gets(lambda stream: reset_stream(stream, ENHANCE_YOUR_CALM), False),
    "GOAWAY after it": first_gets(lambda stream: go_away(stream, ENHANCE_YOUR_CALM), True),
    "the end": first_gets(lambda stream: b"", True),
}


@pytest.mark.parametrize("name", SURELY_NOT_PROCESSED)
def test_what_http2_surely_has_not_processed_is_not_told_from_what_it_may_have(over_http2, name):
    """The careful side: libcurl would send it again by itself, unseen by the pacing, and is not let."""
    server, daemon = over_http2(SURELY_NOT_PROCESSED[name])
    assert outcome(daemon.connect().ask(message(id=1))) == "network"
    assert server.requests == 1


@pytest.mark.parametrize("name", MAYBE_PROCESSED)
def test_what_http2_may_have_processed_is_not_tried_again(over_http2, name):
    server, daemon = over_http2(MAYBE_PROCESSED[name])
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "network"
    assert outcome(writer.ask(message(id=2))) == "sent"
    assert server.requests == 2


@pytest.mark.parametrize("extra", [go_away(1, NO_ERROR), frame(PING, 0, b"ping" * 2) * 3], ids=["GOAWAY", "PING"])
def test_what_http2_says_on_an_idle_connection_costs_no_message_and_no_time(over_http2, extra):
    server, daemon = over_http2(lambda stream, n: (answer_stream(stream) + (extra if n == 1 else b""), False))
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "sent"
    before = cpu_seconds(daemon.pid)
    time.sleep(0.5)
    assert cpu_seconds(daemon.pid) - before < 0.25
    assert outcome(writer.ask(message(id=2))) == "sent"


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Memory. The core is asked about every single allocation in tests/sim/test_torture.c; here some fail, anywhere.


has_own_allocator = pytest.mark.skipif(is_sanitized(), reason="sanitizers have an allocator of their own")


@pytest.fixture
def scarcity(host, shims):
    """A file whose byte says how scarce memory is, and the environment for that."""
    path = host.write("scarcity", "\0")
    seed = random.randrange(1 << 32)
    print("seed", seed)
    return path, preload(shims("scarce_memory"), SCARCE_MEMORY=str(path), SCARCE_SEED=str(seed))


def make_scarce(path, one_in):
    """Not by a new file, which would be empty for a moment: the daemon has it mapped, and may just be busy."""
    with path.open("r+b") as file:
        file.write(bytes([one_in]))


@has_own_allocator
@pytest.mark.parametrize("one_in", [2, 5, 20])
def test_a_daemon_that_is_short_of_memory_loses_what_has_none_and_nothing_else(host, scarcity, one_in):
    path, environment = scarcity
    zego = host.zego(apps={APP: 100_000}, behave=[{"probability": 0.2, "do": {"damage": "close_after"}}])
    upstream = {"url": zego.url.replace("127.0.0.1", "localhost"), "connect_timeout": "300ms"}
    daemon = host.daemon(zego, upstream=upstream, app={"rate": 1000, "room_rate": 0}, environment=environment)
    fates = Counter()

    def is_sent():
        fate = outcome(daemon.connect().ask(message("enough", id=0)))
        fates[fate] += 1
        return fate == "sent"

    for attempt in range(10):
        make_scarce(path, one_in)
        for _ in range(10):
            writer = daemon.connect()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # there was no memory for the writer
                writer.send(*[message(room=f"{i}", id=i) for i in range(10)])
                writer.half_close()
                fates += Counter(outcome(reply) for reply in writer.rest())
        daemon.reload()
        make_scarce(path, 0)
        eventually(is_sent, "it recovers")
    assert "memory" in set(fates) <= {"sent", "memory", "internal", "answer", "dns", "connect", "network", "expired"}
    assert zego.report()["requests"] >= fates["sent"]
    assert daemon.stop() == 0
    told = Counter({name: int(n) for name, n in re.findall(r"(\S+)=(\d+)", daemon.log.splitlines()[-1])})
    lines, discarded, lost = (told.pop(name, 0) for name in ("lines", "replies_discarded", "replies_lost"))
    assert sum(told.values()) == lines == fates.total() + discarded + lost


@has_own_allocator
@pytest.mark.parametrize("one_in", [2, 10, 50])
def test_a_daemon_that_finds_too_little_memory_at_its_start_says_so_and_ends(host, scarcity, one_in):
    path, environment = scarcity
    make_scarce(path, one_in)
    for i in range(20):
        seed = str(int(environment["SCARCE_SEED"]) + i)
        daemon = host.daemon(start=False, environment=environment | {"SCARCE_SEED": seed})
        daemon.launch()
        eventually(lambda: not daemon.is_running() or "listens on" in daemon.log, "it starts, or does not")
        if daemon.is_running():
            make_scarce(path, 0)
            assert daemon.stop() == 0
            make_scarce(path, one_in)
        else:
            assert daemon.wait() in (1, EX_CONFIG)
            assert "Cannot allocate memory" in daemon.log
