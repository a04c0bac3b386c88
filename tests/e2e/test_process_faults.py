# SPDX-License-Identifier: MIT
"""What can happen to the process itself: signals, a killed predecessor, logs that go nowhere, wrong rights."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from support import APP, BARRAGED, EX_CONFIG, SANITIZERS, SOMEBODY, UNDER, is_sanitized, message
from test_intake_faults import for_somebody, listening, needs_root
from test_lifecycle import listen_for_notes, needs_systemd, passing, told
from test_protocol import MIB


# A predecessor that was killed.


@needs_systemd
def test_writers_wait_in_a_passed_socket_while_the_daemon_is_replaced(host):
    path = host.directory / "passed.sock"
    with listening(socket.AF_UNIX, str(path)) as passed:
        daemon = host.daemon(host.zego(), start=False, command=passing("3<&0", "intake"))
        daemon.launch(stdin=passed)
        connected = daemon.connect(path)
        assert connected.ask(message("before", id=1))["outcome"] == "sent"
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        assert connected.rest() == []
        waiting = [daemon.connect(path) for _ in range(10)]
        for n, writer in enumerate(waiting):
            writer.send(message(f"during {n}", id=n))
        daemon.launch(stdin=passed)
        assert {writer.reply()["outcome"] for writer in waiting} == {"sent"}
        assert sorted(daemon.zego.contents()) == sorted(["before", *(f"during {n}" for n in range(10))])


# Logs that go nowhere.


@contextlib.contextmanager
def pipe_to_read():
    """A pipe: its end to read from, unbuffered, and the end that a daemon gets."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as reading, open(writer, "wb", buffering=0) as writing:
        yield reading, writing


def test_log_lines_that_a_full_pipe_does_not_take_are_counted_and_told(host):
    daemon = host.daemon(host.zego(), daemon={"log_level": "debug"}, start=False)
    with pipe_to_read() as (reading, writing):
        daemon.launch(stderr=writing)
        writer = daemon.connect_soon()
        writer.ask(*[b"refused"] * 5000)
        os.set_blocking(reading.fileno(), False)
        log = b""
        while chunk := reading.read(1 << 20):
            log += chunk
        lines_before = log.count(b"reason=invalid")
        assert 0 < lines_before < 5000 and b"were lost" not in log
        writer.ask(b"refused")
        assert daemon.stop() == 0
        os.set_blocking(reading.fileno(), True)
        writing.close()
        log = reading.readall().decode()
        (lost,) = re.findall(r"^warning: (\d+) log lines were lost$", log, re.MULTILINE)
        # The last of those before may be cut by the pipe's end, but none is both there and lost.
        assert int(lost) == 5000 - lines_before
        assert "stopped: lines=5001 rejected/invalid=5001" in log


def stream_that_ends():
    """What is left of the journal's socket when the journal is gone."""
    reading, writing = socket.socketpair()
    reading.close()
    return writing


def pipe_that_ends():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "wb")


def full_disk():
    return open("/dev/full", "wb")


@pytest.mark.parametrize("level", ("info", "debug"))
@pytest.mark.parametrize("make", (stream_that_ends, pipe_that_ends, full_disk), ids=lambda make: make.__name__)
def test_a_log_that_takes_nothing_costs_nothing(host, make, level):
    daemon = host.daemon(host.zego(), daemon={"log_level": level}, start=False)
    with make() as nowhere:
        daemon.launch(stdout=nowhere, stderr=nowhere)
    writer = daemon.connect_soon()
    assert len(writer.ask(*[b"refused"] * 500)) == 500
    assert writer.ask(message(id=1))["outcome"] == "sent"
    daemon.signal(signal.SIGHUP)
    before = daemon.cpu_seconds()
    time.sleep(0.5)
    assert daemon.cpu_seconds() - before < 0.25
    assert writer.ask(message(id=2))["outcome"] == "sent"
    assert daemon.stop() == 0


def test_an_answer_to_the_command_line_that_cannot_be_written_is_an_error(host):
    config = host.write("barraged.conf", host.config_text())
    for arguments in ["--help"], ["--version"], ["--config", config, "--dump-config"]:
        with full_disk() as nowhere:
            assert subprocess.run([BARRAGED, *arguments], stdout=nowhere, check=False).returncode == 1


def test_what_happens_again_and_again_is_not_logged_each_time(host):
    apps = {APP: {"queue_max": 10, "room_rate": 0}}
    daemon = host.daemon(apps=apps, queue={"max_age": "200ms"}, upstream={"connect_timeout": "100ms"})
    writer = daemon.connect()
    deadline = time.monotonic() + 3
    n = 0
    while time.monotonic() < deadline:  # nobody listens where it sends to
        for _ in range(10):
            writer.send(message(id=n), message(AppId=7), b"refused")
            n += 1
        time.sleep(0.1)
    counts = daemon.summary()
    assert counts["lines"] == 3 * n and counts["rejected/unknown_app"] == n
    assert daemon.log.count("the API cannot be reached") == 1
    assert daemon.log.count("no such AppID is configured") == 1
    assert len(daemon.log.splitlines()) < 10


def test_each_room_that_is_too_fast_is_not_logged_each_time(host):
    zego = host.zego(behave=[{"do": {"code": 207}}])
    daemon = host.daemon(zego, upstream={"retries": 0})
    replies = daemon.connect().ask(*(message(id=n, room=f"room{n}") for n in range(150)))
    assert {reply["Code"] for reply in replies} == {207}
    daemon.stop()
    assert daemon.log.count("the API finds the room too fast") == 1


# Signals.

HARMLESS = (signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH)


@pytest.mark.parametrize(
    "numbers", (HARMLESS, (signal.SIGSTOP, signal.SIGCONT), (signal.SIGHUP,)), ids=("harmless", "stop", "hang-up")
)
def test_a_storm_of_signals_changes_nothing(host, numbers):
    daemon = host.daemon(host.zego(latency=5), app={"room_rate": 0})
    is_over = threading.Event()

    def storm():
        while not is_over.is_set():
            for number in numbers:
                daemon.signal(number)
            time.sleep(0.0005)  # the daemon needs the processor too

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        writer = daemon.connect()
        replies = [writer.ask(message(str(n), id=n)) for n in range(200)]
    finally:
        is_over.set()
        thread.join()
    assert [(reply["id"], reply["outcome"]) for reply in replies] == [(n, "sent") for n in range(200)]
    daemon.signal(signal.SIGCONT)
    assert sorted(daemon.zego.contents(), key=int) == [str(n) for n in range(200)]
    assert daemon.summary() == {"lines": 200, "sent": 200}


# systemd's ear.


@needs_systemd
def test_the_watchdog_is_not_fed_while_the_loop_stands_still(host):
    name = f"{host.directory}/notify"
    with listen_for_notes(name) as listener:
        daemon = host.daemon(host.zego(), environment={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"})
        assert [told(listener) for _ in range(3)] == [["READY=1"], *[["WATCHDOG=1"]] * 2]
        with daemon.stopped():
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while told(listener):
                    pass
            time.sleep(1)
            with pytest.raises(BlockingIOError):
                told(listener)
        listener.setblocking(True)
        assert told(listener) == ["WATCHDOG=1"]


WRONG_EARS = {
    "a file": "file",
    "a relative path": "notify",
    "nothing": "",
    "only an at sign": "@",
    "far too long": "/" + "n" * 300,
    "another kind": "stream",
}


@pytest.mark.parametrize("name", WRONG_EARS.values(), ids=WRONG_EARS)
def test_a_wrong_notify_socket_does_not_matter(host, name):
    host.write("file", "")
    with listening(socket.AF_UNIX, str(host.directory / "stream")):
        if name in ("file", "stream"):
            name = str(host.directory / name)
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"}
        daemon = host.daemon(host.zego(), environment=environment)
        assert daemon.reload()
        assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
        assert daemon.stop() == 0


@needs_systemd
def test_a_notify_socket_that_nobody_reads_holds_up_nothing(host):
    name = f"{host.directory}/notify"
    with listen_for_notes(name) as listener:
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000" if not UNDER else "200000"}
        daemon = host.daemon(host.zego(), environment=environment)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling, contextlib.suppress(BlockingIOError):
            filling.setblocking(False)
            while True:
                filling.sendto(b"full", name)
        writer = daemon.connect()
        for n in range(20):
            assert writer.ask(message(id=n))["outcome"] == "sent"
        assert told(listener) == ["READY=1"]


# What is left behind.


def flow(daemon, n):
    """Send n messages, with all that comes and goes beside them; gives the memory that is then occupied."""
    writer = daemon.connect()
    for start in range(0, n, 1000):
        replies = writer.ask(*(message(id=i, room=f"room{i % 100}") for i in range(start, start + 1000)))
        assert {reply["outcome"] for reply in replies} == {"sent"}
        with contextlib.closing(daemon.connect()) as other:
            other.send(b"refused", message(), message(room="room", id="whose reply nobody waits for"))
    writer.close()
    daemon.connect().sync()
    return daemon.resident()


def test_twenty_thousand_messages_leave_nothing_behind(host):
    zego = host.zego(apps={APP: 100_000})
    wide_open = {"rate": 100_000, "burst": 1000, "room_rate": 0}
    # What was freed is kept apart for a while, and should be all of it before the first look.
    environment = {"ASAN_OPTIONS": SANITIZERS["ASAN_OPTIONS"] + ":quarantine_size_mb=32"}
    daemon = host.daemon(
        zego, app=wide_open, queue={"max_age": "60s"}, upstream={"max_in_flight": 32}, environment=environment
    )
    early = flow(daemon, 10_000)
    descriptors = len(daemon.descriptors())
    late = flow(daemon, 10_000)
    assert late - early < (MIB if not is_sanitized() else 64 * MIB)
    # One writer more that this test has not closed; connections to ZEGO may come and go.
    assert len(daemon.descriptors()) <= descriptors + 1 + 32
    assert daemon.summary()["sent"] >= 20_000


def test_valgrind_finds_neither_leaks_nor_open_descriptors(host):
    if is_sanitized() or not shutil.which("valgrind"):
        pytest.skip("valgrind is not there, or cannot be had together with sanitizers")
    report = host.directory / "valgrind"
    command = ("valgrind", "--track-fds=yes", "--leak-check=full", f"--log-file={report}", "--error-exitcode=9")
    zego = host.zego(http=False)
    daemon = host.daemon(zego, command=command, app={"room_rate": 0}, upstream={"timeout": "3s"})
    writer = daemon.connect()
    writer.ask(*(message(id=n, room=f"room{n}") for n in range(100)), b"refused", message(AppId=7))
    zego.rules([{"match": {"content": "again"}, "do": {"code": 2}}, {"match": {"content": "hang"}, "do": {"damage": "hang"}}])
    assert writer.ask(message("again", id=1))["outcome"] == "failed"
    assert writer.ask(message("hang", id=1))["reason"] == "timeout"
    with contextlib.closing(daemon.connect()) as leaving:
        leaving.send(message(id=1), b"half")
        leaving.send_bytes(b'{"RoomId"')
    assert daemon.reload(app={"rate": 50})
    assert not daemon.reload(app={"rate": "fast"})
    daemon.configure(app={"rate": 50})
    assert writer.ask(message(id=2))["outcome"] == "sent"
    assert daemon.stop() == 0
    found = report.read_text()
    assert "FILE DESCRIPTORS: " in found
    assert len(re.findall(r"== Open ", found)) == found.count("<inherited from parent>"), found
    assert "ERROR SUMMARY: 0 errors" in found, found
    assert "definitely lost: 0 bytes" in found or "no leaks are possible" in found, found


# Rights, and what the environment says.


@needs_root
def test_a_configuration_that_may_not_be_read_is_named(host):
    daemon = for_somebody(host.daemon(start=False))
    daemon.config.chmod(0o600)  # root's
    daemon.launch()
    assert daemon.wait() == EX_CONFIG
    assert f"{daemon.config}: " in daemon.log and "Permission denied" in daemon.log


@needs_root
def test_a_secret_that_may_not_be_read_is_named_and_one_of_another_user_is_not_used(host):
    daemon = for_somebody(host.daemon(start=False))
    for uid, error in (0, "Permission denied"), (os.getuid() + 1, "Permission denied"):
        os.chown(host.secret_file(APP), uid, uid)
        daemon.launch()
        assert daemon.wait() == EX_CONFIG
        assert str(host.secret_file(APP)) in daemon.log and error in daemon.log
    daemon = host.daemon(start=False)  # as root, who may read everything
    os.chown(host.secret_file(APP), 1, 1)
    daemon.launch()
    assert daemon.wait() == EX_CONFIG
    assert "belongs to user 1, not to the daemon's or root" in daemon.log


def test_a_secret_that_others_may_read_keeps_the_daemon_from_starting(host):
    daemon = host.daemon(start=False)
    host.secret_file(APP).chmod(0o640)
    daemon.launch()
    assert daemon.wait() == EX_CONFIG
    assert f"{daemon.config}:" in daemon.log and str(host.secret_file(APP)) in daemon.log and "0640" in daemon.log
    assert not daemon.socket.exists()


@needs_root
def test_a_user_without_any_right_is_enough(host):
    (host.directory / "run").mkdir()
    os.chown(host.directory / "run", SOMEBODY, SOMEBODY)
    daemon = for_somebody(host.daemon(host.zego(), start=False, daemon={"socket": host.directory / "run/sock"}))
    daemon.start()
    assert daemon.connect(host.directory / "run/sock").ask(message(id=1))["outcome"] == "sent"
    assert "as root" not in daemon.log


def test_no_locale_is_ever_set():
    """So that numbers are printed and read alike everywhere, whatever LC_NUMERIC says."""
    wanted = subprocess.run(["nm", "-D", "--undefined-only", BARRAGED], capture_output=True, text=True, check=True).stdout
    assert " getrandom" in wanted  # it is the right list
    assert not re.findall(r" (setlocale|newlocale|uselocale)\b", wanted)
