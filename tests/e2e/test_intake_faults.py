# SPDX-License-Identifier: MIT
"""What writers, and the kernel between them and the daemon, can do wrong.

The rules of the protocol itself are in test_protocol.py; here they meet processes that are killed, descriptors that run
out, crowds, and other users.
"""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support import APP, BARRAGED, NOBODY, OTHER_APP, SOMEBODY, Writer, eventually, is_sanitized, message, outcome
from test_lifecycle import needs_systemd, passing, refused_start
from test_protocol import GOOD_LINE, KIB, MIB, encode

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


def idle_cost(daemon):
    """Processor time that it takes in a second in which nothing happens."""
    before = daemon.cpu_seconds()
    time.sleep(1)
    return daemon.cpu_seconds() - before


# Lines in pieces, and many at once.


def test_a_line_in_single_bytes_is_one_line_and_its_rest_is_waited_for_in_peace(host):
    daemon = host.daemon(host.zego())
    writer = daemon.connect()
    line = encode(message(id="slowly")) + b"\n"
    for byte in line[:-20]:
        writer.send_bytes(bytes([byte]))
    assert idle_cost(daemon) < 0.3
    for byte in line[-20:]:
        writer.send_bytes(bytes([byte]))
    assert writer.reply()["id"] == "slowly"
    assert daemon.summary() == {"lines": 1, "sent": 1}


def test_a_writer_of_many_lines_is_read_in_turns_with_the_others(host):
    # Nobody reads the replies meanwhile, and all are to come.
    daemon = host.daemon(daemon={"log_level": "debug", "max_reply_backlog": "8MiB"})
    flooding, other = daemon.connect(), daemon.connect()
    flooding.sync()
    other.sync()
    with daemon.stopped():  # so that all of it lies there when it wakes up
        flooding.send(*[b"refused"] * 6000)
        other.send(message(AppId=7))
    assert other.reply()["reason"] == "unknown_app"
    assert [reply["line"] for reply in flooding.replies(6000)] == list(range(2, 6002))
    reasons = re.findall(r"outcome=rejected reason=(\w+)", daemon.log)[2:]
    assert len(reasons) == 6001
    assert reasons.index("unknown_app") <= 16 * KIB // len(b"refused\n")  # what is read of a writer in one turn


def test_a_line_that_is_too_long_counts_once_however_long_it_is(host):
    daemon = host.daemon(host.zego())
    writer = daemon.connect()
    for _ in range(8):
        writer.send_bytes(b"x" * (MIB // 8))
    writer.send(b"", message(id="next"))
    assert [reply.get("reason", reply["outcome"]) for reply in writer.replies(2)] == ["too_long", "sent"]
    assert daemon.summary() == {"lines": 2, "sent": 1, "rejected/too_long": 1}


def test_lines_that_never_end_cost_a_buffer_each_and_a_place_among_the_writers(host):
    daemon = host.daemon(host.zego(), daemon={"max_clients": 200})
    patient = daemon.connect()
    assert patient.ask(message(id="warm"))["outcome"] == "sent"
    before = daemon.resident()
    slow = [daemon.connect() for _ in range(199)]
    for writer in slow:
        writer.send_bytes(b"x" * 16_000)
    for _ in range(3):
        for writer in slow:
            writer.send_bytes(b"x")
    assert daemon.connect().rest()[0]["reason"] == "too_many_clients"
    assert patient.ask(message(id="others"))["outcome"] == "sent"
    assert is_sanitized() or daemon.resident() - before < 199 * 20 * KIB + MIB


# What a line costs that is made to be expensive.

BOMBS = {
    "brackets": b"[" * 100_000,
    "brackets in a field": GOOD_LINE[:-1] + b', "x": ' + b"[" * 100_000,
    "an array": b"[" + b"0," * 32_000 + b"0]",
    "an array in a field": GOOD_LINE[:-1] + b', "x": [' + b"0," * 32_000 + b"0]}",
    "fields": b"{" + b'"a": 0, ' * 10_000 + b'"a": 0}',
}


def high_water_mark(daemon):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{daemon.pid}/status").read_text())[1]) * KIB


@pytest.mark.parametrize("line", BOMBS.values(), ids=BOMBS)
def test_a_line_of_a_great_many_values_is_refused_without_memory_for_them(host, line):
    max_line = 128 * KIB
    daemon = host.daemon(host.zego(), daemon={"max_line": "128KiB"})
    writer = daemon.connect()
    assert writer.ask(b"x" * max_line)["reason"] == "invalid"  # so that the buffer for a line has been there once
    before = high_water_mark(daemon)
    assert writer.ask(line)["reason"] == "invalid"
    assert writer.ask(message(id="after"))["outcome"] == "sent"
    assert is_sanitized() or high_water_mark(daemon) - before < 2 * max_line


NUMBERS = {
    "beyond 53 bits": b"9007199254740993",
    "beyond 64 bits": b"%d" % (APP + 2**64),
    "beyond every double": b"1e999",
    "minus zero": b"-0",
    "a leading zero": b"0123",
    "a cut number": b"1.",
    "a fraction of nothing": b"%d.0" % APP,
    "scientific": b"1.234567890e9",
}


@pytest.mark.parametrize("raw", NUMBERS.values(), ids=NUMBERS)
def test_only_plain_digits_in_range_are_an_integer(standing_daemon, raw):
    with contextlib.closing(standing_daemon.connect()) as writer:
        for field in b"AppId", b"MessageCategory", b"ttl_ms":
            assert writer.ask(GOOD_LINE[:-1] + b', "%b": %b}' % (field, raw))["reason"] == "invalid"


def test_empty_lines_are_no_lines_and_what_is_refused_is_never_queued(host):
    daemon = host.daemon(host.zego())
    writer = daemon.connect()
    writer.send(b"", b"\r", b" \t ", b"\xef\xbb\xbf" + GOOD_LINE, message("x" * 1025), message("sent", id=1))
    reasons = [reply.get("reason") for reply in writer.replies(3)]
    assert reasons == ["invalid", "invalid", None]
    assert daemon.zego.contents() == ["sent"]
    assert daemon.summary() == {"lines": 3, "sent": 1, "rejected/invalid": 2}


# Writers that leave.

WRITE_AND_WAIT = """
import socket, sys, time
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(sys.argv[1])
daemon.sendall(sys.argv[2].encode())
print("written", flush=True)
time.sleep(1000)
"""


def killed_writer(daemon, text):
    """A program that writes this and is then killed."""
    with subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, daemon.socket, text], stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == b"written\n"
        program.kill()


def test_a_writer_that_is_killed_within_a_line_leaves_a_refused_one_and_is_not_answered(host, odd_socket):
    daemon = host.daemon(host.zego(), environment=odd_socket | {"TELL_SENDS": "1"})
    for _ in range(3):
        killed_writer(daemon, encode(message(id="cut"))[:-9].decode())
    killed_writer(daemon, encode(message("whole")).decode() + "\n" + '{"RoomId": "r')
    daemon.zego.wait_for_requests(1)
    assert daemon.summary() == {"lines": 5, "sent": 1, "rejected/invalid": 4, "replies_lost": 4}
    assert daemon.zego.contents() == ["whole"]
    assert "send() of" not in daemon.log


def test_what_a_writer_asked_for_before_it_was_killed_is_sent_and_its_replies_count_as_lost(host):
    zego = host.zego(latency=300)
    daemon = host.daemon(zego)
    killed_writer(daemon, "".join(encode(message(str(n), id=n)).decode() + "\n" for n in range(5)))
    zego.wait_for_requests(5)
    assert daemon.summary() == {"lines": 5, "sent": 5, "replies_lost": 5}


def test_replies_that_nobody_reads_are_counted_and_their_lines_too(host):
    daemon = host.daemon(host.zego(), daemon={"max_reply_backlog": "4KiB"})
    deaf = daemon.connect()
    deaf.send(*[b"refused"] * 20_000, *(message(str(n), id=n) for n in range(5)))
    daemon.zego.wait_for_requests(5)
    deaf.half_close()
    told = deaf.rest()
    counts = daemon.summary()
    assert (counts["lines"], counts["sent"], counts["rejected/invalid"]) == (20_005, 5, 20_000)
    assert counts["replies_discarded"] == 20_005 - len(told)
    assert counts["replies_discarded"] > 0


# Crowds, and few descriptors.


def open_to_all(host, **options):
    """A daemon that other users can connect to."""
    host.directory.chmod(0o755)
    options["daemon"] = {"socket_mode": "0666"} | options.get("daemon", {})
    return host.daemon(host.zego(**options.pop("zego", {})), **options)


@contextlib.contextmanager
def many_descriptors(n):
    """This process may have so many while the test runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        pytest.skip(f"{n} descriptors are needed, {hard} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cost_of_lines(daemon, writer, n):
    """Processor time for lines each of which is a turn of the loop."""
    before = daemon.cpu_seconds()
    for _ in range(n):
        writer.ask(b"refused")
    return daemon.cpu_seconds() - before


def test_ten_thousand_idle_writers_cost_a_kibibyte_each_and_no_time(host):
    crowd_size = 10_000
    with many_descriptors(2 * crowd_size):
        daemon = open_to_all(host, daemon={"max_clients": crowd_size + 1})
        writer = daemon.connect()
        assert writer.ask(message(id="before"))["outcome"] == "sent"
        alone = cost_of_lines(daemon, writer, 5000)
        before = daemon.resident()
        for _ in range(crowd_size // 1000):
            if os.getuid() == 0:  # half of them are somebody else's: nobody may have nearly all descriptors
                daemon.connect_as(SOMEBODY, 500)
            for _ in range(500 if os.getuid() == 0 else 1000):
                daemon.connect()
            writer.sync()  # the backlog is finite
        assert is_sanitized() or daemon.resident() - before < crowd_size * KIB
        assert idle_cost(daemon) < 0.3
        assert is_sanitized() or cost_of_lines(daemon, writer, 5000) < 3 * alone + 0.1
        assert daemon.reload(daemon={"max_clients": 100})
        for _ in range(5):
            assert [reply["reason"] for reply in daemon.connect().rest()] == ["too_many_clients"]
        assert writer.ask(message(id="among them"))["outcome"] == "sent"
        assert daemon.summary()["rejected/too_many_clients"] == 5


def test_a_daemon_that_gets_no_descriptor_waits_in_peace_and_says_so_once(host):
    daemon = host.daemon(host.zego())
    writer = daemon.connect()
    assert writer.ask(message(id="warm"))["outcome"] == "sent"
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays open
    waiting = [daemon.connect() for _ in range(3)]
    daemon.wait_for_log("a writer cannot be taken in: Too many open files")
    assert idle_cost(daemon) < 0.3
    assert writer.ask(message(id="still"))["outcome"] == "sent"
    assert daemon.log.count("cannot be taken in") == 1
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    for other in waiting:
        assert other.ask(b"refused")["line"] == 1


def errors(*names):
    return " ".join(str(getattr(errno, name)) for name in names)


def test_an_error_of_accept_keeps_nobody_out(host, odd_socket):
    names = ("ECONNABORTED", "EINTR", "EPROTO", "EPERM", "ENOBUFS", "ENOMEM", "ENFILE", "EMFILE", "ECONNABORTED")
    daemon = host.daemon(host.zego(), environment=odd_socket | {"ACCEPT_ERRORS": errors(*names)})
    for n in range(3):
        assert daemon.connect().ask(message(id=n))["outcome"] == "sent"
    assert daemon.log.count("a writer cannot be taken in: No buffer space available") == 1


def test_an_error_of_recv_is_retried_or_ends_that_writer_only(host, odd_socket):
    environment = odd_socket | {"RECV_ERRORS": errors("EINTR", "EAGAIN", "EINTR", "ENOBUFS")}
    daemon = host.daemon(host.zego(), environment=environment)
    unlucky = daemon.connect()
    unlucky.send(message("lost", id=1))
    # The first three errors only delay it; but it is the kernel that says ENOBUFS, and then nothing is owed to it.
    assert unlucky.rest() == []
    for n in range(3):
        assert daemon.connect().ask(message("sent", id=n))["outcome"] == "sent"
    assert daemon.summary() == {"lines": 3, "sent": 3}


# A writer's groups.


@needs_root
@pytest.mark.parametrize(
    "groups, fate",
    [([4711], "sent"), ([1, 2, 4711, 3], "sent"), ([4712], "unknown_app"), (range(4711, 5711), "unknown_app")],
    ids=["the one", "among others", "another", "a thousand, which are not looked at"],
)
def test_all_groups_of_a_writer_count(host, groups, fate):
    daemon = open_to_all(host, app={"allow_groups": "4711"})
    (writer,) = daemon.connect_as(NOBODY, groups=groups)
    assert outcome(writer.ask(message(id=1))) == fate


# One user's flood, and the others.


@needs_root
def test_a_user_with_too_many_connections_keeps_no_other_out(host):
    daemon = open_to_all(host, daemon={"max_clients": 20})
    flood = [daemon.connect() for _ in range(60)]
    told = [writer.ask(b"refused")["reason"] for writer in flood[:20]]
    assert told == ["invalid"] * 20
    assert {reply["reason"] for writer in flood[20:] for reply in writer.rest()} == {"too_many_clients"}
    for writer in daemon.connect_as(SOMEBODY, 5):
        assert writer.ask(message(id=1))["outcome"] == "sent"
    assert len(re.findall(r"^warning: uid=0 .*connections", daemon.log, re.MULTILINE)) == 1
    assert "uid=4711" not in daemon.log
    for writer in flood[:5]:
        writer.close()
    eventually(lambda: "invalid" in [reply["reason"] for reply in ask_and_end(daemon)], "a place for one more")


def ask_and_end(daemon):
    """What a new writer hears that says one wrong thing."""
    with contextlib.suppress(BrokenPipeError):
        writer = daemon.connect()
        writer.send(b"refused")
        writer.half_close()
    return writer.rest()


@needs_root
def test_a_user_who_fills_the_queue_takes_no_room_from_another(host):
    patient = {"queue_bytes": "256KiB", "max_age": "60s", "queue_max": 10_000}
    daemon = open_to_all(host, app={"rate": 1, "burst": 1}, queue=patient, daemon={"drain_timeout": 0})
    flooding = daemon.connect()
    (other,) = daemon.connect_as(SOMEBODY)
    # Each in a room of its own, so that the other's room is the longest.
    flooding.send(*(message("x" * 1000, room=f"x{n}", id=n) for n in range(500)))
    flooding.sync()
    other.send(*(message("y" * 1000, id=n) for n in range(50)))
    assert [reply for reply in other.sync() if reply["outcome"] == "dropped"] == []
    flooding.send(*(message("z" * 1000, room=f"z{n}", id=n) for n in range(500)))
    flooding.sync()
    assert [reply for reply in other.sync() if reply["outcome"] == "dropped"] == []
    assert len(re.findall(r"^warning: .*uid: 0$", daemon.log, re.MULTILINE)) == 1
    daemon.signal(signal.SIGTERM)
    fates = Counter(reply.get("reason", reply["outcome"]) for reply in other.rest())
    assert fates["queue_full"] == 0 and fates["shutdown"] + fates["sent"] == 50
    assert daemon.wait() == 0
    assert "uid: 4711" not in daemon.log


@needs_root
def test_a_user_who_reads_no_replies_leaves_memory_for_those_of_another(host):
    daemon = open_to_all(host, daemon={"max_reply_backlog": "8MiB"})
    # Half of the 64 MiB that there are for all, however many connections there are.
    deaf = [daemon.connect() for _ in range(6)]
    for writer in deaf:
        writer.send_bytes(b"x\n" * 100_000)
    daemon.wait_for_log("uid=0 leaves its replies unread; more are discarded")
    assert deaf[0].hear()
    (other,) = daemon.connect_as(SOMEBODY)
    assert len(other.ask(*[b"x"] * 1000)) == 1000
    assert daemon.log.count("leaves its replies unread") == 1
    assert is_sanitized() or daemon.resident() < 128 * MIB
    for writer in deaf:
        writer.close()
    assert daemon.summary()["replies_discarded"] > 1000


@needs_root
def test_users_who_may_use_no_appid_are_each_named_once(host):
    daemon = open_to_all(host, app={"allow_users": "12345"})
    writers = [daemon.connect(), daemon.connect(), *daemon.connect_as(SOMEBODY, 2)]
    for writer in writers * 2:
        replies = writer.ask(*([message(id=1)] * 50))
        assert {(reply["outcome"], reply["reason"]) for reply in replies} == {("rejected", "unknown_app")}
    for uid in 0, SOMEBODY:
        assert len(re.findall(rf"^warning: .*\buid={uid}\b.*not for this", daemon.log, re.MULTILINE)) == 1
    assert daemon.summary() == {"lines": 400, "rejected/unknown_app": 400}


# The socket's path.


def test_a_path_may_have_107_bytes_but_not_one_more(host):
    longest = f"{host.directory}/".ljust(107, "s")
    daemon = host.daemon(host.zego(), daemon={"socket": longest})
    assert daemon.connect(longest).ask(message(id=1))["outcome"] == "sent"
    text = host.config_text(daemon={"socket": longest + "s"})
    result = host.run("--config", host.write("long.conf", text), "--check-config")
    assert result.returncode != 0 and "socket" in result.stderr


def for_somebody(daemon):
    """Makes the daemon run as another user, who may read all that it needs."""
    directory = daemon.host.directory
    directory.chmod(0o755)
    daemon.configure(daemon={"control_socket": ""})  # which would be in a folder of ours
    program = directory / "barraged"
    shutil.copy(BARRAGED, program)  # which may lie where others do not come
    daemon.config.chmod(0o644)
    for secret in directory.glob("*.secret"):
        os.chown(secret, SOMEBODY, SOMEBODY)
    ids = (f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups", "--pdeathsig=KILL")
    daemon.command = ["setpriv", *ids, str(program), "--config", str(daemon.config)]
    return daemon


@needs_root
def test_a_user_who_may_not_make_the_socket_as_configured_is_told_why(host):
    directory = host.directory / "run"
    directory.mkdir()
    directory.chmod(0o1777)
    config = {"socket": directory / "sock", "socket_group": 0}
    daemon = for_somebody(host.daemon(host.zego(), start=False, daemon=config))
    assert "sock: cannot be given to socket_group: Operation not permitted" in refused_start(daemon)
    assert not (directory / "sock").exists()
    listening(socket.AF_UNIX, str(directory / "sock")).close()  # root's, and in such a folder only root may remove it
    (directory / "sock").chmod(0o666)
    daemon.configure(daemon={"socket_group": SOMEBODY})
    assert "sock: is stale and cannot be removed: Operation not permitted" in refused_start(daemon)


@needs_root
def test_a_directory_without_permission_is_named_with_the_reason(host):
    for name, mode in ("closed", 0o700), ("readable", 0o755):
        directory = host.directory / name
        directory.mkdir()
        directory.chmod(mode)
        daemon = for_somebody(host.daemon(start=False, daemon={"socket": directory / "s"}))
        log = refused_start(daemon)
        assert f"{directory}/s" in log and "Permission denied" in log


# What systemd passes.


def listening(family, address):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()
    return listener


def not_listening(host):
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def of_internet(host):
    return listening(socket.AF_INET, ("127.0.0.1", 0))


def one_end_of_a_connection(host):
    return socket.socketpair()[0]


@needs_systemd
@pytest.mark.parametrize("make", (not_listening, of_internet, one_end_of_a_connection), ids=lambda make: make.__name__)
def test_a_passed_socket_of_another_kind_is_refused(host, make):
    with make(host) as passed:
        daemon = host.daemon(start=False, command=passing("3<&0", "intake"))
        daemon.launch(stdin=passed)
        assert daemon.wait() == 1
        assert "is not a listening Unix stream socket" in daemon.log


@needs_systemd
def test_a_passed_socket_is_kept_to_the_daemon_itself(host, odd_socket):
    with listening(socket.AF_UNIX, str(host.directory / "passed.sock")) as passed:
        daemon = host.daemon(
            host.zego(),
            start=False,
            command=passing("3<&0", "intake"),
            environment=odd_socket | {"TELL_ENVIRONMENT": "1"},
        )
        daemon.launch(stdin=passed)
        writer = daemon.connect(host.directory / "passed.sock")
        assert writer.ask(message(id=1))["outcome"] == "sent"
        daemon.descriptors()  # which skips the test where they cannot be seen
        flags = int(re.search(r"flags:\s+(\d+)", Path(f"/proc/{daemon.pid}/fdinfo/3").read_text())[1], 8)
        assert flags & os.O_CLOEXEC and flags & os.O_NONBLOCK
        assert daemon.stop() == 0
    for name in "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES":
        assert f"at the end {name}=(unset)" in daemon.log
