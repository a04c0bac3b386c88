# SPDX-License-Identifier: MIT
"""What reaches ZEGO, in which order, how often, and what its answers lead to."""

import contextlib
import json
import random
import re
import shutil
import socket
import subprocess

import pytest

from sandbox import make_certificates
from support import APP, OTHER_APP, die_with_the_tests, eventually, is_sanitized, message, outcome, preload

# Long enough to hand a daemon all that a test is about before it sends anything.
HOLD = {"startup_hold": "1s"}

# And enough not to send anything.
LONG_HOLD = {"startup_hold": "60s", "drain_timeout": 0}

MIB = 1 << 20


def outcomes(replies):
    return {reply["id"]: outcome(reply) for reply in replies}


def arrivals(zego, room):
    """Those to one room, in the order of arrival."""
    return [arrival for arrival in zego.seen() if arrival.room == room]


def gaps(arrivals):
    """Nanoseconds from one arrival to the next."""
    return [later.ns - earlier.ns for earlier, later in zip(arrivals, arrivals[1:])]


# What is sent is what was written.

TEXTS = {
    "reserved": "&a=b&c;d?e/f:g@h#i",
    "percent": "100% %41 %zz %%",
    "plus and blank": "1 + 1 +2",
    "unreserved": "AZaz09-._~",
    "quotes": "\"'`\\\\/<>",
    "line ends": "a\r\nb\rc\nd\te",
    "controls": "\x01\x08\x1f\x7f",
    "Chinese": "你好，世界",
    "emoji": "👍🏽👨‍👩‍👧🏴‍☠️",
    "right to left": "\u202bمرحبا\u202c שלום\u200f",
    "zero width": "a\u200bb\u200dc\ufeffd",
    "last of Unicode": "\U0010ffff\ufffd\ue000",
}


@pytest.fixture
def only(zego):
    """Makes the sandbox accept nothing but calls with exactly these parameters; None: one that is not sent."""

    def accept(*calls):
        rules = [{"match": parameters, "do": {"code": 0}} for parameters in calls]
        zego.rules(rules + [{"do": {"code": 3}}])

    return accept


@pytest.mark.parametrize("ascii", [True, False], ids=["escaped", "UTF-8"])
def test_every_text_arrives_unchanged_in_every_field(only, daemon, ascii):
    fields = ("RoomId", "UserId", "UserName", "MessageContent")
    calls = [dict.fromkeys(fields, text) for text in TEXTS.values()]
    only(*calls)
    writer = daemon.connect()
    for i, call in enumerate(calls):
        reply = writer.ask(json.dumps(call | {"id": i}, ensure_ascii=ascii).encode())
        assert outcome(reply) == "sent", call


def test_the_longest_of_each_field_arrives_unchanged(only, daemon):
    longest = {"RoomId": "房" * 42 + "r", "UserId": "用" * 21, "UserName": "名" * 85}
    longest["MessageContent"] = "语" * 341 + "x"
    assert [len(text.encode()) for text in longest.values()] == [127, 63, 255, 1024]
    only(longest)
    assert outcome(daemon.connect().ask(longest | {"id": 1})) == "sent"


def test_a_longer_content_arrives_unchanged_where_zego_has_raised_the_limit(host, zego):
    zego.rules([{"match": {"MessageContent": "&" * 10_000}, "do": {"code": 0}}])
    zego.expects_faults = True  # the sandbox has not raised it
    daemon = host.daemon(zego, app={"max_content": 10_000})
    assert outcome(daemon.connect().ask(message("&" * 10_000, id=1))) == "sent"


def test_any_text_arrives_unchanged(host):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    ranges = ((1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
    texts = ["".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 256))) for _ in range(300)]
    zego = host.zego(apps={APP: 100_000})
    daemon = host.daemon(zego, app={"rate": 1000, "room_rate": 0}, queue={"max_age": "30s"})
    replies = daemon.connect().ask(*[message(text, id=i) for i, text in enumerate(texts)])
    assert set(outcomes(replies).values()) == {"sent"}
    assert sorted(zego.contents()) == sorted(texts)


def test_a_user_name_is_sent_only_if_there_is_one(only, daemon):
    only({"UserName": None, "MessageContent": "without"}, {"UserName": "somebody", "MessageContent": "with"})
    writer = daemon.connect()
    assert outcome(writer.ask(message("without", id=1))) == "sent"
    assert outcome(writer.ask(message("with", UserName="somebody", id=2))) == "sent"


def test_a_message_is_chat_unless_it_says_that_it_is_of_the_system(only, daemon):
    wanted = {"unsaid": 2, "system": 1, "chat": 2}
    only(*[{"MessageContent": content, "MessageCategory": category} for content, category in wanted.items()])
    writer = daemon.connect()
    assert outcome(writer.ask(message("unsaid", id=1))) == "sent"
    assert outcome(writer.ask(message("system", MessageCategory=1, id=2))) == "sent"
    assert outcome(writer.ask(message("chat", MessageCategory=2, id=3))) == "sent"


IS_TEST = {
    APP: ({}, None),
    APP + 1: ({"is_test": "true"}, "true"),
    APP + 2: ({"is_test": "false"}, "false"),
    APP + 3: ({"test_mode": "yes"}, "true"),
    APP + 4: ({"test_mode": "yes", "is_test": "false"}, "false"),
}


def test_is_test_is_sent_as_configured_and_implied_by_test_mode(host):
    rules = [{"match": {"AppId": app, "IsTest": sent}, "do": {"code": 0}} for app, (_, sent) in IS_TEST.items()]
    zego = host.zego(apps=dict.fromkeys(IS_TEST, 100), behave=rules + [{"do": {"code": 3}}])
    writer = host.daemon(zego, apps={app: keys for app, (keys, _) in IS_TEST.items()}).connect()
    replies = writer.ask(*[message(AppId=app, id=app) for app in IS_TEST])
    assert outcomes(replies) == dict.fromkeys(IS_TEST, "sent")


# What is answered is what is told.


def test_the_ids_that_zego_gives_are_told_to_the_last_digit(zego, daemon):
    reply = daemon.connect().ask(message(id=1))
    assert reply["RequestId"] == "2237080460466033407"  # above 2^53
    assert re.fullmatch(r"1_\d{13}_1", reply["MessageId"])
    assert reply["waited_ms"] >= 0 and reply["took_ms"] >= 0


def test_a_refusal_is_told_with_code_message_and_request_id(zego, daemon):
    zego.rules([{"do": {"code": 50012, "message": 'zu "lang"\n消息内容过长'}}])
    reply = daemon.connect().ask(message(id=7))
    assert (reply["id"], reply["outcome"], reply["reason"], reply["Code"]) == (7, "failed", "api", 50012)
    assert reply["Message"] == 'zu "lang"\n消息内容过长'
    assert reply["RequestId"] == "2237080460466033407"


# Connections.


def test_a_connection_is_kept_and_used_again(zego, daemon):
    writer = daemon.connect()
    for i in range(30):
        assert outcome(writer.ask(message(room=f"{i}", id=i))) == "sent"
    assert zego.report()["connections"] == 1


@pytest.mark.parametrize("http", [True, False], ids=["http", "https"])
def test_there_are_no_more_connections_than_requests_under_way(host, http):
    zego = host.zego(apps={APP: 100_000}, http=http, latency=5)
    daemon = host.daemon(zego, upstream={"max_in_flight": 4}, app={"rate": 1000, "room_rate": 0})
    replies = daemon.connect().ask(*[message(id=i) for i in range(300)])
    assert set(outcomes(replies).values()) == {"sent"}
    assert zego.report()["connections"] <= 4


def test_a_server_that_speaks_only_http_1_is_spoken_to_in_it(host):
    zego = host.zego(http=False)
    daemon = host.daemon(zego, upstream={"http_version": 2})
    assert outcome(daemon.connect().ask(message(id=1))) == "sent"


NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate server.pem;
        ssl_certificate_key server.key;
        location / {{
            return 200 '{{"Code":0,"Data":{{"MessageId":"$connection"}},"RequestId":"$server_protocol $uri"}}';
        }}
    }}
}}
"""


@pytest.fixture
def nginx(host):
    """The [upstream] keys for an nginx. It answers with its connection's number, the protocol and the path."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    make_certificates(host.directory, "good")
    config = host.write("nginx.conf", NGINX.format(port=port))
    command = [program, "-p", host.directory, "-c", config, "-e", "stderr"]
    with subprocess.Popen(command, preexec_fn=die_with_the_tests) as process:
        eventually(lambda: is_listening(port), "nginx listens")
        yield {"url": f"https://127.0.0.1:{port}/", "ca_file": host.directory / "ca.pem"}
        process.terminate()


def is_listening(port):
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.parametrize("version, protocol", [("1.1", "HTTP/1.1"), ("2", "HTTP/2.0")])
def test_the_configured_http_is_spoken_where_the_server_speaks_both(host, nginx, version, protocol):
    daemon = host.daemon(upstream=nginx | {"http_version": version})
    assert daemon.connect().ask(message(id=1))["RequestId"] == f"{protocol} /"


def test_with_http_2_a_hundred_requests_share_a_connection(host, nginx):
    app = {"rate": 1000, "burst": 300, "room_rate": 0}
    daemon = host.daemon(upstream=nginx | {"http_version": 2, "max_in_flight": 100}, app=app)
    replies = daemon.connect().ask(*[message(id=i) for i in range(300)])
    assert set(outcomes(replies).values()) == {"sent"}
    assert {reply["RequestId"] for reply in replies} == {"HTTP/2.0 /"}
    assert len({reply["MessageId"] for reply in replies}) == 1


@pytest.mark.parametrize("path", ["/", "/v2/chat", "/v2/"])
def test_a_path_in_the_url_is_asked_for(host, nginx, path):
    daemon = host.daemon(upstream=nginx | {"url": nginx["url"].rstrip("/") + path})
    assert daemon.connect().ask(message(id=1))["RequestId"] == f"HTTP/1.1 {path}"


# Codes, class by class. Each code has a room of its own, so that one daemon shows them all.

RETRY = [1, 122, 151, 5202, 100000012, 100000015]
SLOW_APP = [206, 7]
SLOW_ROOM = [207]
DROP = [2, 3, 8, 105, 1008, 50002, 50012, 50014]
DROP_ROOM = [104, 5018, 5024, 50001]
UNKNOWN = [4, 6, 60001, 99999999, 100000100, 2**40]
HALT = [9, 100000000, 100000001, 100000002, 100000003, 100000005, 100000006, 100000007, 100000008, 100000009]
HALT += [100000010, 100000011, 100000013, 100000014, 100000016, 100000017]
UNKNOWN_OF_GATEWAY = [100000018, 100000099]


def answers(codes, **rule):
    """Rules that answer each code to the room that is named after it."""
    return [{"match": {"RoomId": str(code)}, "do": {"code": code}} | rule for code in codes]


def ask_for(writer, codes):
    return writer.ask(*[message(room=str(code), id=code) for code in codes])


def test_a_passing_failure_is_tried_again_after_a_while_until_it_is_sent(zego, daemon):
    zego.rules(answers(RETRY, times=2))
    replies = ask_for(daemon.connect(), RETRY)
    assert outcomes(replies) == dict.fromkeys(RETRY, "sent")
    for code in RETRY:
        first, second = gaps(arrivals(zego, str(code)))
        assert first >= 75e6 and second >= 150e6  # 100 ms and 200 ms, less a quarter


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_there_are_no_more_further_attempts_than_retries(host, zego, retries):
    zego.rules(answers(RETRY))
    daemon = host.daemon(zego, upstream={"retries": retries}, queue={"max_age": "30s"})
    replies = ask_for(daemon.connect(), RETRY)
    assert [reply["Code"] for reply in replies] == [reply["id"] for reply in replies]
    assert {len(arrivals(zego, str(code))) for code in RETRY} == {1 + retries}


def test_every_attempt_has_a_nonce_of_its_own(zego, daemon):
    zego.rules(answers(RETRY))
    ask_for(daemon.connect(), RETRY)
    nonces = [arrival.nonce for arrival in zego.seen()]
    assert len(set(nonces)) == len(nonces) == 3 * len(RETRY)


def test_no_further_attempt_is_made_beyond_a_messages_age(zego, daemon):
    writer = daemon.connect()
    assert outcome(writer.ask(message("opens a connection", id=0))) == "sent"
    zego.rules([{"do": {"code": 1}}])
    reply = writer.ask(message(ttl_ms=50, id=1))
    assert (outcome(reply), reply["Code"]) == ("api", 1)
    assert len(zego.seen()) == 2


def test_a_message_that_is_refused_for_its_own_sake_is_not_tried_again(zego, daemon):
    zego.rules(answers(DROP))
    replies = ask_for(daemon.connect(), DROP)
    assert {(outcome(reply), reply["Code"] == reply["id"]) for reply in replies} == {("api", True)}
    assert {len(arrivals(zego, str(code))) for code in DROP} == {1}
    replies = daemon.connect().ask(*[message("better", room=str(code), id=code) for code in DROP])
    assert {reply["Code"] for reply in replies} == set(DROP)  # the room is not held against it


def test_an_unknown_code_is_tried_once_more(zego, daemon):
    zego.rules(answers(UNKNOWN))
    replies = ask_for(daemon.connect(), UNKNOWN)
    assert {(outcome(reply), reply["Code"] == reply["id"]) for reply in replies} == {("api", True)}
    assert {len(arrivals(zego, str(code))) for code in UNKNOWN} == {2}


def test_a_room_that_does_not_exist_is_remembered_for_a_moment_and_no_other(zego, daemon):
    zego.rules(answers(DROP_ROOM, times=1))
    writer = daemon.connect()
    assert set(outcomes(ask_for(writer, DROP_ROOM)).values()) == {"api"}
    replies = ask_for(writer, DROP_ROOM)
    assert {(reply["outcome"], reply["reason"]) for reply in replies} == {("dropped", "no_room")}
    assert outcome(writer.ask(message(room="another", id=1))) == "sent"
    eventually(lambda: set(outcomes(ask_for(writer, DROP_ROOM)).values()) == {"sent"}, "the rooms are tried again")


def test_what_waits_for_a_room_that_does_not_exist_is_dropped_with_it(host, zego):
    zego.rules(answers([104]))
    writer = host.daemon(zego, daemon=HOLD, app={"room_in_flight": 1}).connect()
    replies = writer.ask(*[message(room="104", id=i) for i in range(10)])
    assert sorted(outcomes(replies).values()) == ["api"] + ["no_room"] * 9


# Too fast.


@pytest.mark.parametrize("do", [{"code": 206}, {"code": 7}, {"status": 429}], ids=["206", "7", "429"])
def test_too_fast_slows_the_appid_and_the_message_is_still_sent(zego, daemon, do):
    zego.rules([{"times": 1, "do": do}])
    writer = daemon.connect()
    assert outcome(writer.ask(message("too fast", id=1))) == "sent"
    assert zego.contents() == ["too fast"] * 2
    assert "requests a second from now on: 70" in daemon.log


def test_too_fast_for_a_room_slows_that_room(zego, daemon):
    zego.rules([{"times": 1, "do": {"code": 207}}])
    assert outcome(daemon.connect().ask(message("too fast", id=1))) == "sent"
    assert zego.contents() == ["too fast"] * 2
    assert "requests a second from now on: 14" in daemon.log


HOLD_FOR_A_SECOND = {
    "206": {"code": 206, "retry_after": "1"},
    "7": {"code": 7, "retry_after": "1"},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
}


@pytest.mark.parametrize("name", HOLD_FOR_A_SECOND)
def test_retry_after_holds_the_whole_appid_but_no_other(host, name):
    zego = host.zego(apps={APP: 100, OTHER_APP: 100}, behave=[{"times": 1, "do": HOLD_FOR_A_SECOND[name]}])
    daemon = host.daemon(zego, apps={APP: {}, OTHER_APP: {}})
    writer = daemon.connect()
    writer.send(message("too fast", AppId=APP, id=1))
    daemon.wait_for_attempts(1)
    writer.send(message("held", room="other", AppId=APP, id=2), message("free", AppId=OTHER_APP, id=3))
    assert set(outcomes(writer.replies(3)).values()) == {"sent"}
    first, free, *held = zego.seen()
    assert (first.content, free.content) == ("too fast", "free")
    assert {arrival.content for arrival in held} == {"too fast", "held"}
    assert min(arrival.ns for arrival in held) - first.ns >= 1e9


def test_retry_after_with_207_holds_the_room_but_no_other(host, zego):
    zego.rules([{"times": 1, "do": {"code": 207, "retry_after": "1"}}])
    daemon = host.daemon(zego)
    writer = daemon.connect()
    writer.send(message("too fast", id=1))
    daemon.wait_for_attempts(1)
    writer.send(message("held", id=2), message("free", room="other", id=3))
    assert set(outcomes(writer.replies(3)).values()) == {"sent"}
    first, free, *held = zego.seen()
    assert (first.content, free.content) == ("too fast", "free")
    assert min(arrival.ns for arrival in held) - first.ns >= 1e9


def test_an_appid_that_is_limited_lower_at_the_server_settles_there(host):
    zego = host.zego(apps={APP: 40}, enforce="log")
    daemon = host.daemon(zego, app={"room_rate": 0}, queue={"max_age": "30s"}, upstream={"retries": 10})
    replies = daemon.connect().ask(*[message(id=i) for i in range(150)])
    assert set(outcomes(replies).values()) == {"sent"}
    assert zego.report()["apps"][str(APP)]["answered"]["206"] < 75
    zego.settings(limits={str(APP): 100})  # that it was too fast is not the daemon's fault


# The AppID's configuration is at fault.


def test_a_fault_of_the_configuration_halts_its_appid_and_no_other(host):
    codes = HALT + UNKNOWN_OF_GATEWAY
    apps = {APP + i: code for i, code in enumerate(codes)} | {APP + len(codes): 0}
    rules = [{"match": {"AppId": app}, "do": {"code": code}} for app, code in apps.items()]
    zego = host.zego(apps=dict.fromkeys(apps, 100), behave=rules)
    writer = host.daemon(zego, apps={app: {} for app in apps}).connect()
    firsts = writer.ask(*[message(AppId=app, id=app) for app in apps])
    assert {reply["id"]: reply.get("Code", 0) for reply in firsts} == apps
    for app, code in apps.items():
        reply = writer.ask(message(AppId=app, id=app))
        assert (outcome(reply), reply.get("Code")) == (("halted", code) if code else ("sent", None))
    assert zego.report()["requests"] == len(apps) + 1


def test_what_waits_for_an_appid_is_failed_when_it_is_halted(host, zego):
    zego.rules([{"do": {"code": 100000005}}])
    writer = host.daemon(zego, daemon=HOLD, upstream={"max_in_flight": 1}).connect()
    replies = writer.ask(*[message(room=f"{i}", id=i) for i in range(10)])
    assert sorted(outcomes(replies).values()) == ["api"] + ["halted"] * 9
    assert {reply["Code"] for reply in replies} == {100000005}


def test_a_halted_appid_lets_one_message_through_each_probe_interval_until_it_is_mended(host, zego):
    zego.rules([{"do": {"code": 100000005}}])
    daemon = host.daemon(zego, upstream={"probe_interval": "300ms"})
    writer = daemon.connect()

    def ask():
        return outcome(writer.ask(message(id=1)))

    assert ask() == "api"
    eventually(lambda: ask() == "api" and zego.report()["requests"] >= 4, "some probes")
    assert min(gaps(zego.seen())) >= 300e6
    zego.rules([])
    eventually(lambda: ask() == "sent", "the AppID is found mended")
    assert [ask() for _ in range(5)] == ["sent"] * 5
    assert daemon.log.count("halted: the API refuses") == daemon.log.count("no longer halted") == 1


def test_a_probe_that_is_lost_does_not_keep_an_appid_halted(host, zego):
    zego.rules([{"times": 1, "do": {"code": 9}}, {"times": 2, "do": {"damage": "reset"}}])
    writer = host.daemon(zego, upstream={"probe_interval": "100ms"}).connect()
    seen = []

    def is_sent():
        seen.append(outcome(writer.ask(message(id=1))))
        return seen[-1] == "sent"

    eventually(is_sent, "the AppID is found mended")
    assert [fate for fate in seen if fate != "halted"] == ["api", "network", "network", "sent"]


def test_an_expired_signature_is_made_anew_once(zego, daemon):
    zego.rules([{"times": 1, "do": {"code": 100000004}}])
    assert outcome(daemon.connect().ask(message(id=1))) == "sent"
    first, second = zego.seen()
    assert first.nonce != second.nonce


def test_a_signature_that_stays_expired_halts_the_appid(zego, daemon):
    zego.rules([{"do": {"code": 100000004}}])
    writer = daemon.connect()
    reply = writer.ask(message(id=1))
    assert (outcome(reply), reply["Code"]) == ("api", 100000004)
    reply = writer.ask(message(id=2))
    assert (outcome(reply), reply["Code"]) == ("halted", 100000004)
    assert len(zego.seen()) == 2


# Unknown whether it arrived.

AMBIGUOUS = {
    "reset": ({"damage": "reset"}, "network"),
    "close": ({"damage": "close"}, "network"),
    "close_mid": ({"damage": "close_mid"}, "network"),
    "hang": ({"damage": "hang"}, "timeout"),
    "garbage": ({"damage": "garbage"}, "answer"),
    "html": ({"damage": "html"}, "answer"),
    "status 500": ({"status": 500}, "http"),
    "status 503": ({"status": 503}, "http"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_may_have_arrived_is_tried_again_only_if_asked_for(host, name):
    do, reason = AMBIGUOUS[name]
    zego = host.zego(behave=[{"match": {"RoomId": room}, "times": 1, "do": do} for room in ("no", "yes")])
    for room, expected in (("no", reason), ("yes", "sent")):
        daemon = host.daemon(zego, upstream={"retry_ambiguous": room, "timeout": "300ms"})
        assert outcome(daemon.connect().ask(message(room=room, id=1))) == expected
    assert (len(arrivals(zego, "no")), len(arrivals(zego, "yes"))) == (1, 2)


# Too old.


def test_a_message_that_has_waited_its_ttl_is_dropped_and_never_sent(host, zego):
    writer = host.daemon(zego, daemon={"startup_hold": "800ms"}).connect()
    replies = writer.ask(message("short", ttl_ms=200, id="short"), message("long", id="long"))
    assert outcomes(replies) == {"short": "expired", "long": "sent"}
    assert replies[0]["waited_ms"] >= 200  # and told at once, before the other
    assert zego.contents() == ["long"]


def test_max_age_is_the_ttl_of_messages_without_one_and_an_appids_own_comes_first(host):
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    apps = {APP: {}, OTHER_APP: {"max_age": "5s"}}
    writer = host.daemon(zego, daemon={"startup_hold": "800ms"}, queue={"max_age": "200ms"}, apps=apps).connect()
    lines = [message(AppId=APP, id="queue"), message(AppId=OTHER_APP, id="app")]
    lines += [message(AppId=APP, ttl_ms=5000, id="ttl")]
    assert outcomes(writer.ask(*lines)) == {"queue": "expired", "app": "sent", "ttl": "sent"}


def test_an_age_that_ends_under_way_changes_nothing(host):
    zego = host.zego(latency=400)
    assert outcome(host.daemon(zego).connect().ask(message(ttl_ms=100, id=1))) == "sent"


# Too many. What is sent during startup_hold piles up.


def piled_up(host, zego, lines, **queue):
    """What becomes of lines that all come before anything is sent."""
    daemon = host.daemon(zego, daemon=HOLD, queue={"max_age": "30s"} | queue, app={"room_rate": 0})
    return outcomes(daemon.connect().ask(*lines))


def test_the_oldest_of_the_longest_room_makes_way(host, zego):
    lines = [message("quiet", room="quiet", id="quiet")] + [message(f"{i}", room="flood", id=i) for i in range(8)]
    fates = piled_up(host, zego, lines, queue_max=5)
    assert [i for i, fate in fates.items() if fate == "queue_full"] == [0, 1, 2, 3]
    assert sorted(zego.contents()) == ["4", "5", "6", "7", "quiet"]


def test_the_newest_makes_way_if_that_is_wanted(host, zego):
    fates = piled_up(host, zego, [message(id=i) for i in range(8)], queue_max=5, overflow="newest")
    assert {i for i, fate in fates.items() if fate == "queue_full"} == {5, 6, 7}
    assert list(fates.values()).count("sent") == 5


def test_chat_makes_way_for_the_system_and_the_system_only_for_itself(host, zego):
    lines = [message(MessageCategory=category, id=f"{i}") for i, category in enumerate((2, 1, 1, 1, 2, 1))]
    fates = piled_up(host, zego, lines, queue_max=3)
    assert fates == {"0": "queue_full", "1": "queue_full", "2": "sent", "3": "sent", "4": "queue_full", "5": "sent"}


def test_queue_bytes_bounds_the_queue_too(host, zego):
    lines = [message("x" * 1000, room=f"{i % 4}", id=i) for i in range(100)]
    fates = list(piled_up(host, zego, lines, queue_bytes="64KiB", queue_max=1000).values())
    assert 40 <= fates.count("sent") <= 65
    assert fates.count("sent") + fates.count("queue_full") == 100


# What goes first. With one request under way at a time, the order of arrival is that of starting.


def order(host, zego, lines, **app):
    daemon = host.daemon(zego, daemon=HOLD, upstream={"max_in_flight": 1}, queue={"max_age": "30s"}, app=app)
    assert set(outcomes(daemon.connect().ask(*lines)).values()) == {"sent"}
    return zego.contents()


def test_the_system_goes_before_chat(host, zego):
    chat = [message(f"chat {i}", room=f"{i % 5}", id=f"c{i}") for i in range(15)]
    system = [message(f"system {i}", room=f"{i}", MessageCategory=1, id=f"s{i}") for i in range(5)]
    contents = order(host, zego, chat + system)
    assert {content.split()[0] for content in contents[:5]} == {"system"}


def test_a_flooding_room_does_not_silence_a_quiet_one(host, zego):
    flood = [message("flood", room="flood", id=f"f{i}") for i in range(40)]
    quiet = [message("quiet", room="quiet", id=f"q{i}") for i in range(4)]
    contents = order(host, zego, flood + quiet, room_rate=0)
    assert contents[:8].count("quiet") == 4


def test_a_room_is_first_in_first_out(host, zego):
    lines = [message(f"{i:02}", id=i) for i in range(15)]
    assert order(host, zego, lines) == [f"{i:02}" for i in range(15)]


def test_with_room_in_flight_1_a_room_keeps_its_order_through_jitter_and_retries(host):
    rule = {"match": {"MessageContent": "a 05"}, "times": 2, "do": {"code": 1}}
    zego = host.zego(jitter=20, behave=[rule])
    daemon = host.daemon(zego, app={"room_in_flight": 1}, queue={"max_age": "30s"})
    lines = [message(f"{room} {i:02}", room=room, id=f"{room} {i:02}") for i in range(15) for room in "ab"]
    assert set(outcomes(daemon.connect().ask(*lines)).values()) == {"sent"}
    for room in "ab":
        contents = [arrival.content for arrival in arrivals(zego, room)]
        assert contents == sorted(contents)
    assert len(arrivals(zego, "a")) == 17


def test_one_room_is_sent_no_more_than_room_rate_in_any_second_and_holds_up_no_other(host, zego):
    daemon = host.daemon(zego, app={"room_rate": 5}, queue={"max_age": "30s"})
    lines = [message(room="slow", id=f"s{i}") for i in range(12)]
    lines += [message(room="other", id=f"o{i}") for i in range(3)]
    replies = daemon.connect().ask(*lines)
    assert set(outcomes(replies).values()) == {"sent"}
    times = [arrival.ns for arrival in arrivals(zego, "slow")]
    assert min(later - earlier for earlier, later in zip(times, times[5:])) >= 1e9
    assert max(arrival.ns for arrival in arrivals(zego, "other")) < times[-1]


# What fills a queue, and how many times queue_bytes the daemon may then have grown: messages are charged, rooms are
# not, and a room takes more than a small message.
CROWDS = {
    "big messages": (lambda i: message("x" * 10_000, room=f"room {i % 50}"), 1.5),
    "small messages": (lambda i: message("x", room=f"room {i % 50}"), 1.5),
    "a room for each": (lambda i: message("x", room=f"room {i}"), 4.5),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_whatever_fills_the_queue_memory_is_bounded_by_queue_bytes(host, zego, crowd):
    line, factor = CROWDS[crowd]
    queue = {"queue_bytes": "8MiB", "queue_max": 1_000_000, "max_age": "60s"}
    daemon = host.daemon(zego, daemon=LONG_HOLD, app={"max_content": 10_000}, queue=queue)
    writer = daemon.connect()
    writer.sync()
    before = daemon.resident()
    for start in range(0, 24 * MIB // (len(json.dumps(line(0))) + 100), 1000):
        writer.send(*[line(i) for i in range(start, start + 1000)])
    writer.sync()
    assert is_sanitized() or daemon.resident() - before < factor * 8 * MIB
    assert daemon.stop() == 0
    fates = dict(re.findall(r"(\S+)=(\d+)", daemon.log.splitlines()[-1]))
    assert int(fates["dropped/queue_full"]) > int(fates["dropped/shutdown"]) > 0


def test_the_same_line_twice_is_two_messages(zego, daemon):
    line = message("once more", id=1)
    assert {outcome(reply) for reply in daemon.connect().ask(line, line)} == {"sent"}
    assert zego.contents() == ["once more"] * 2
    first, second = zego.seen()
    assert first.nonce != second.nonce


def test_without_random_bytes_nothing_is_sent_and_no_budget_spent(host, zego, shims):
    """A nonce that anybody could guess, or that comes twice, would be worse than a lost message."""
    failing = host.write("no-random-bytes", "")
    environment = preload(shims("failing_getrandom"), GETRANDOM_FAILS=str(failing))
    daemon = host.daemon(zego, app={"rate": 1, "burst": 1}, environment=environment)
    writer = daemon.connect()
    replies = writer.ask(*[message(id=i) for i in range(3)])
    assert [(reply["outcome"], reply["reason"]) for reply in replies] == [("failed", "internal")] * 3
    assert daemon.log.count("error: the kernel gives no random bytes") == 1
    failing.unlink()
    assert outcome(writer.ask(message("at last", ttl_ms=900, id=3))) == "sent"  # no token is away for a second
    assert zego.contents() == ["at last"]


def test_what_was_drawn_ahead_is_used_once_and_then_nothing_is_sent(host, zego, shims):
    failing = host.directory / "no-random-bytes"
    environment = preload(shims("failing_getrandom"), GETRANDOM_FAILS=str(failing))
    writer = host.daemon(zego, environment=environment).connect()
    assert outcome(writer.ask(message(id=0))) == "sent"
    failing.touch()
    replies = writer.ask(*[message(room=f"{i}", id=i) for i in range(1, 41)])
    assert {outcome(reply) for reply in replies} == {"sent", "internal"}
    nonces = [call.nonce for call in zego.seen()]
    assert len(set(nonces)) == len(nonces) <= 32
