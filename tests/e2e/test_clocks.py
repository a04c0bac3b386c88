# SPDX-License-Identifier: MIT
"""What becomes of messages when time does what it should not: a wall clock that steps, a host that sleeps, a daemon
that stands still. And what is due only after a while, for which nobody wants to wait."""

import contextlib
import email.utils
import mmap
import signal
import struct
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from sandbox import SECOND, most_in_window
from support import Control, Sample, eventually, has_systemd, message, outcome, patience, preload
from test_faults import GOOD_BODY, Http2Server, RawServer, answer_stream, black_hole, hold, http_answer, read_head
from test_faults import names  # noqa: F401
from test_lifecycle import listen_for_notes, told

HOUR = 3600

# Everything but the first message has to wait for long.
ONE_A_SECOND = {"rate": 1, "burst": 1, "room_rate": 0}
PATIENT = {"max_age": "60s", "queue_max": 1000}


class Clocks:
    """A daemon's clocks, by shifted_clocks.c. Seconds that are added pass for it at once, whenever it looks next."""

    def __init__(self, host, shims):
        path = host.directory / "clocks"
        path.write_bytes(bytes(24))
        with open(path, "r+b") as file:
            self.shift = mmap.mmap(file.fileno(), 24)
        self.environment = preload(shims("shifted_clocks"), CLOCKS_SHIFT=str(path))

    def advance(self, wall=0, monotonic=0, boot=0):
        seconds = (wall, monotonic, boot)
        now = struct.unpack("=3q", self.shift)
        self.shift[:] = struct.pack("=3q", *(ns + s * SECOND for ns, s in zip(now, seconds)))

    def step(self, seconds):
        """Somebody sets the wall clock."""
        self.advance(wall=seconds)

    def suspend(self, seconds):
        """The host sleeps; the monotonic clock does too."""
        self.advance(wall=seconds, boot=seconds)

    def wait(self, seconds):
        """Time passes, but not by the wall clock, by which the sandbox would find signatures expired."""
        self.advance(monotonic=seconds, boot=seconds)


@pytest.fixture
def clocks(host, shims):
    return Clocks(host, shims)


def together(*environments):
    """One environment of several, each with something to preload."""
    merged = {name: value for environment in environments for name, value in environment.items()}
    return merged | {"LD_PRELOAD": ":".join(environment["LD_PRELOAD"] for environment in environments)}


class Stamping(RawServer):
    """Accepts every message; notes when each came, on which connection, and with which Timestamp."""

    def __init__(self, **options):
        super().__init__(self.talk, **options)
        self.arrivals = []  # (ns, connection, Timestamp)
        self.before_answer = lambda: None

    def talk(self, connection):
        number = self.connections
        while head := read_head(connection):
            query = parse_qs(urlsplit(head.split()[1].decode()).query)
            self.arrivals.append((time.monotonic_ns(), number, int(query["Timestamp"][0])))
            self.before_answer()
            connection.sendall(http_answer())

    def times(self):
        return [ns for ns, _, _ in self.arrivals]

    def timestamps(self):
        return [timestamp for _, _, timestamp in self.arrivals]


# The wall clock steps.


@pytest.mark.parametrize("step", [HOUR, -HOUR, 365 * 24 * HOUR], ids=["forth", "back", "a year"])
def test_a_wall_clock_that_steps_changes_the_timestamp_and_nothing_else(host, clocks, step):
    with Stamping() as server:
        upstream = {"url": server.url, "credit": "none"}
        app = {"rate": 5, "burst": 5, "room_rate": 0}
        daemon = host.daemon(upstream=upstream, app=app, queue=PATIENT, environment=clocks.environment)
        writer = daemon.connect()
        assert outcome(writer.ask(message(id="before"))) == "sent"
        # One is under way when it steps, others wait, one of them not for long.
        server.before_answer = lambda: (clocks.step(step), setattr(server, "before_answer", lambda: None))
        writer.send(*[message(id=i) for i in range(12)], message(ttl_ms=300, id="short"))
        fates = {reply["id"]: outcome(reply) for reply in writer.replies(13)}
        assert fates == dict.fromkeys(range(12), "sent") | {"short": "expired"}
        before, *during, last = server.timestamps()
        assert abs(before - time.time()) < 60
        assert abs(last - time.time() - step) < 60
        assert most_in_window(server.times(), SECOND) <= 5
        daemon.wait_for_log(f"the wall clock was stepped by {'+' if step > 0 else '-'}{abs(step)} s")
        assert daemon.metrics()[Sample("barraged_clock_steps_total")] == 1


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
def test_a_clock_that_is_not_the_apis_is_told_once_a_minute(host, ahead):
    def talk(connection):
        while read_head(connection):
            date = email.utils.formatdate(time.time() + ahead, usegmt=True)
            connection.sendall(http_answer(GOOD_BODY, "200 OK", f"Date: {date}"))

    with RawServer(talk) as server:
        daemon = host.daemon(upstream={"url": server.url})
        writer = daemon.connect()
        for i in range(3):
            assert outcome(writer.ask(message(id=i))) == "sent"
        assert daemon.log.count("this host's clock is") == 1
        assert ("s behind the API's" if ahead > 0 else "s ahead of the API's") in daemon.log
        assert abs(daemon.control("status")["upstream"]["clock_skew_ms"] - ahead * 1000) < 60000


@pytest.mark.parametrize("date", ["yesterday", "Thu, 99 Foo 2026 25:61:61 GMT", "", "9" * 300])
def test_a_date_that_is_none_is_passed_over(host, date):
    def talk(connection):
        while read_head(connection):
            connection.sendall(http_answer(GOOD_BODY, "200 OK", f"Date: {date}"))

    with RawServer(talk) as server:
        daemon = host.daemon(upstream={"url": server.url})
        assert outcome(daemon.connect().ask(message(id=1))) == "sent"
        assert "this host's clock is" not in daemon.log


# The host sleeps.


def test_what_waited_when_the_host_fell_asleep_is_dropped_when_it_wakes_and_not_sent_an_hour_late(host, clocks):
    with Stamping() as server:
        daemon = host.daemon(
            upstream={"url": server.url}, app=ONE_A_SECOND, queue=PATIENT, environment=clocks.environment
        )
        writer = daemon.connect()
        writer.send(*[message(id=i) for i in range(10)])
        eventually(lambda: server.arrivals, "the first message")
        replies = writer.sync()
        clocks.suspend(HOUR)
        replies += writer.replies(10 - len(replies))
        fates = [outcome(reply) for reply in replies]
        assert set(fates) == {"sent", "expired"}
        assert fates.count("sent") == len(server.arrivals) <= 3
        assert all(reply["waited_ms"] >= HOUR * 1000 for reply in replies if outcome(reply) == "expired")
        assert outcome(writer.ask(message(id="awake"))) == "sent"
        assert abs(server.timestamps()[-1] - time.time() - HOUR) < 60
        daemon.wait_for_log(f"the host was suspended for {HOUR} s")
        assert "stepped" not in daemon.log


def test_a_connection_that_ended_while_the_host_slept_costs_no_message(host, clocks):
    with Stamping() as server:
        daemon = host.daemon(upstream={"url": server.url}, environment=clocks.environment)
        writer = daemon.connect()
        assert outcome(writer.ask(message(id=1))) == "sent"
        daemon.signal(signal.SIGSTOP)
        for connection in list(server.open):
            connection.shutdown(2)
        clocks.suspend(HOUR)
        daemon.signal(signal.SIGCONT)
        assert outcome(writer.ask(message(id=2))) == "sent"
        assert [number for _, number, _ in server.arrivals] == [1, 2]


@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_no_connection_from_before_the_host_slept_is_trusted(host, clocks, http_version):
    """The other end, or something on the way, may have forgotten it long ago and not answer any more."""

    def answer_once(connection):
        read_head(connection)
        connection.sendall(http_answer())
        hold(connection)

    def react(stream, n):
        return (answer_stream(stream) if server.connections == 2 or n == 1 else b"", False)

    make = Http2Server(host.directory, react) if http_version == "2" else RawServer(answer_once)
    with make as server:
        upstream = {"url": server.url, "http_version": http_version}
        if http_version == "2":
            upstream["ca_file"] = host.directory / "ca.pem"
        writer = host.daemon(upstream=upstream, environment=clocks.environment).connect()
        assert outcome(writer.ask(message(id=1))) == "sent"
        clocks.suspend(HOUR)
        assert outcome(writer.ask(message(id=2))) == "sent"
        assert server.connections == 2


# The daemon stands still.


@pytest.mark.skipif(not has_systemd(), reason="built without libsystemd")
def test_a_daemon_that_stood_still_tells_what_grew_too_old_and_fed_no_watchdog(host, zego):
    name = f"{host.directory}/notify"
    with listen_for_notes(name) as notes:
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}
        upstream, queue = {"timeout": "30s"}, PATIENT | {"max_age": "2s"}
        daemon = host.daemon(zego, upstream=upstream, app=ONE_A_SECOND, queue=queue, environment=environment)
        assert told(notes) == ["READY=1"]
        writer = daemon.connect()
        writer.send(*[message(id=i) for i in range(20)])
        replies = writer.sync()
        daemon.signal(signal.SIGSTOP)
        eventually(lambda: process_state(daemon.pid) == "T", "the daemon stands still")
        notes.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while told(notes):
                pass
        time.sleep(5)
        with pytest.raises(BlockingIOError):
            told(notes)
        notes.settimeout(patience())
        daemon.signal(signal.SIGCONT)
        replies += writer.replies(20 - len(replies))
        fates = [outcome(reply) for reply in replies]
        assert fates.count("sent") + fates.count("expired") == 20
        assert fates.count("sent") == len(zego.seen()) <= 2
        assert told(notes) == ["WATCHDOG=1"]
        assert daemon.stop() == 0
        assert f"dropped/expired={fates.count('expired')}" in daemon.log


def process_state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


# What is due after a while: names are looked up again, and connections do not live for ever.


@pytest.mark.parametrize("after_ms", [0, 60_000], ids=["fails", "hangs"])
def test_addresses_go_on_being_used_while_a_name_can_no_longer_be_looked_up(
    host, zego, names, clocks, after_ms  # noqa: F811
):
    names.answer(["127.0.0.1"])
    url = zego.url.replace("127.0.0.1", "localhost")
    daemon = host.daemon(zego, upstream={"url": url}, environment=together(names.environment, clocks.environment))
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "sent"
    names.answer([], after_ms)
    for i in range(2, 4):
        clocks.wait(61)
        assert outcome(writer.ask(message(id=i))) == "sent"
        eventually(lambda: len(names.looked_up()) >= 2, "it is looked up again")
    assert zego.report()["connections"] == 3  # each is too old for the next message


def test_a_server_that_moves_is_followed_by_every_connection_within_its_life(host, names, clocks):  # noqa: F811
    with Stamping() as old, Stamping(address=("127.0.0.2", old.port)) as new:
        names.answer(["127.0.0.1"])
        environment = together(names.environment, clocks.environment)
        daemon = host.daemon(upstream={"url": f"http://localhost:{old.port}/"}, environment=environment)
        writer = daemon.connect()
        assert outcome(writer.ask(message(id=0))) == "sent"
        names.answer(["127.0.0.2"])
        for i in range(1, 9):
            clocks.wait(40)  # never idle for so long that it would be closed for that
            assert outcome(writer.ask(message(id=i))) == "sent"
            eventually(lambda: i < 2 or len(names.looked_up()) >= 2, "it is looked up again")
            for room in range(10 if i == 2 else 0):  # meanwhile the answer comes
                assert outcome(writer.ask(message(room=f"{room}", id=f"{i} {room}"))) == "sent"
        assert len(old.arrivals) + len(new.arrivals) == 19
        assert (old.connections, new.connections) == (1, 1)
        # 300 seconds after its first message, at the latest.
        assert len(new.arrivals) >= 1 and len(old.arrivals) <= 18


def test_after_a_pause_the_next_message_finds_a_server_that_has_moved(host, names, clocks):  # noqa: F811
    with Stamping() as old, Stamping(address=("127.0.0.2", old.port)) as new:
        names.answer(["127.0.0.1"])
        environment = together(names.environment, clocks.environment)
        daemon = host.daemon(upstream={"url": f"http://localhost:{old.port}/"}, environment=environment)
        writer = daemon.connect()
        assert outcome(writer.ask(message(id=1))) == "sent"
        names.answer(["127.0.0.2"])
        clocks.wait(61)
        assert outcome(writer.ask(message(id=2))) == "sent"  # and has the name looked up again
        eventually(lambda: len(names.looked_up()) == 2, "it is looked up again")
        # What was found reaches the daemon a moment after it was asked for.
        def arrives_there():
            clocks.wait(51)
            assert outcome(writer.ask(message(id=3))) == "sent"
            return new.arrivals

        eventually(arrives_there, "a message at the new address")


def test_an_operator_who_is_silent_for_a_minute_makes_room_for_others(host, clocks):
    daemon = host.daemon(environment=clocks.environment)
    silent, busy = Control(daemon.control_socket), Control(daemon.control_socket)
    assert silent.ask("status")["ok"]
    for _ in range(3):
        assert busy.ask("status")["ok"]
        clocks.wait(40)
    assert silent.answers.readline() == b""
    assert busy.ask("status")["ok"]


@pytest.mark.parametrize("retry_after", ["99999999999999", "3600", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_reason_holds_an_appid_for_a_minute_and_no_longer(host, zego, clocks, retry_after):
    zego.rules([{"times": 1, "do": {"code": 206, "retry_after": retry_after}}])
    daemon = host.daemon(zego, queue={"max_age": "300ms"}, environment=clocks.environment)
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "api"
    clocks.wait(50)
    assert outcome(writer.ask(message(id=2))) == "expired"
    clocks.wait(10)
    assert outcome(writer.ask(message(id=3, ttl_ms=60_000))) == "sent"


@pytest.mark.parametrize("place", ["first", "last"])
def test_one_address_of_several_that_leads_nowhere_costs_no_message_also_when_it_is_looked_up_again(
    host, names, clocks, place  # noqa: F811
):
    living = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    dead = "127.0.0.9"
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Stamping())]
        port = servers[0].port
        servers += [stack.enter_context(Stamping(address=(address, port))) for address in living[1:]]
        stack.enter_context(black_hole(dead, port))
        names.answer([dead, *living] if place == "first" else [*living, dead])
        daemon = host.daemon(
            upstream={"url": f"http://localhost:{port}/"},
            daemon={"log_level": "debug"},
            environment=together(names.environment, clocks.environment),
        )
        writer = daemon.connect()
        for minute in range(5):
            replies = writer.ask(*[message(room=f"{i}", id=i) for i in range(20)])
            assert {outcome(reply) for reply in replies} == {"sent"}
            clocks.wait(61)
        eventually(lambda: len(names.looked_up()) >= 4, "it is looked up again and again")
        assert sum(len(server.arrivals) for server in servers) == 100
        # Only those of the beginning have met the dead one.
        assert daemon.log.count("debug: attempt failed") <= 20


def test_a_certificate_that_expires_is_noticed_by_the_next_connection_and_told_once_a_minute(host, clocks):
    zego = host.zego(http=False)
    daemon = host.daemon(zego, environment=clocks.environment, app={"room_rate": 0})
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "sent"
    clocks.advance(wall=30 * 24 * HOUR, monotonic=61, boot=61)
    before = zego.report()["requests"]
    replies = writer.ask(*[message(id=i) for i in range(10)])
    assert {outcome(reply) for reply in replies} <= {"tls", "expired"}
    assert "tls" in {outcome(reply) for reply in replies}
    assert zego.report()["requests"] == before
    assert daemon.log.count("certificate has expired") == 1
    clocks.advance(wall=-30 * 24 * HOUR, monotonic=61, boot=61)
    eventually(lambda: outcome(writer.ask(message(id=2))) == "sent", "the certificate is good again")
