# SPDX-License-Identifier: MIT
"""From start to stop: the socket's path, SIGTERM, SIGHUP, and what systemd has to do with it."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import time
from collections import Counter
from pathlib import Path

import pytest

from sandbox import SECOND, most_in_window
from support import (
    APP,
    EX_CONFIG,
    OTHER_APP,
    SANITIZERS,
    Writer,
    eventually,
    has_systemd,
    is_sanitized,
    message,
    patience,
    preload,
)

BOTH = {APP: {}, OTHER_APP: {}}

# Everything but the first message has to wait for long.
ONE_A_SECOND = {"rate": 1, "burst": 1}
LONG = {"max_age": "60s", "queue_max": 1000}


def outcomes(replies):
    """How many replies there are of each outcome and reason."""
    return Counter((reply["outcome"], reply.get("reason")) for reply in replies)


def listen(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def refused_start(daemon):
    """Launch a daemon that must not start; gives what it says about that."""
    daemon.launch()
    assert daemon.wait() == 1
    return daemon.log


def both_apps(host, **config):
    """A daemon for the two AppIDs that its sandbox knows."""
    return host.daemon(host.zego(apps={APP: 100, OTHER_APP: 100}), apps=BOTH, **config)


# The socket's path.


@pytest.mark.parametrize("mode", ("0660", "0600", "0666"))
def test_the_socket_has_the_mode_that_was_asked_for(host, mode):
    daemon = host.daemon(host.zego(), daemon={"socket_mode": mode, "socket_group": os.getgid()})
    status = daemon.socket.lstat()
    assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, int(mode, 8))
    assert status.st_gid == os.getgid()


def test_a_socket_whose_file_is_gone_is_noticed_by_an_idle_daemon(host):
    daemon = host.daemon()
    writer = daemon.connect()
    assert daemon.control("status")["socket_lost"] is False
    daemon.socket.unlink()
    daemon.wait_for_log("is gone or another's")
    assert daemon.control("status")["socket_lost"] is True
    writer.sync()
    assert daemon.log.count("is gone or another's") == 1


def test_a_daemon_does_without_a_control_socket_that_nobody_asked_for(host):
    usual = Path("/run/barraged")
    if usual.exists():
        pytest.skip(f"{usual} exists on this host, so the control socket can be had")
    daemon = host.daemon(host.zego(), daemon={"control_socket": None})
    assert "there is no control socket" in daemon.log
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_after_a_daemon_that_was_killed_the_next_one_says_so(host):
    daemon = host.daemon()
    daemon.process.kill()
    daemon.wait()
    daemon.start()
    assert "did not stop in order" in daemon.log
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.log.count("did not stop in order") == 1


def test_a_stale_socket_is_taken_over(host):
    daemon = host.daemon(host.zego(), start=False)
    listen(daemon.socket).close()
    daemon.start()
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_the_socket_of_a_daemon_that_was_killed_is_taken_over(host):
    daemon = host.daemon(host.zego())
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_a_second_daemon_is_refused_and_the_first_goes_on(host):
    first = host.daemon(host.zego())
    second = host.daemon(first.zego, start=False, daemon={"socket": first.socket})
    assert "already running" in refused_start(second)
    assert first.connect().ask(message(id=1))["outcome"] == "sent"


def test_a_second_daemon_is_refused_even_if_the_socket_was_removed(host):
    first = host.daemon(host.zego())
    first.socket.unlink()
    second = host.daemon(first.zego, start=False, daemon={"socket": first.socket})
    assert "already running" in refused_start(second)


def test_a_socket_that_somebody_else_listens_on_is_left_alone(host):
    daemon = host.daemon(start=False)
    with listen(daemon.socket) as listener:
        assert "already running" in refused_start(daemon)
        Writer(daemon.socket).close()
        listener.accept()[0].close()


def make_file(path):
    path.write_text("precious")


def make_link(path):
    path.with_suffix(".target").write_text("precious")
    path.symlink_to(path.with_suffix(".target"))


def make_dangling_link(path):
    path.symlink_to(path.with_suffix(".nowhere"))


@pytest.mark.parametrize(
    "make", (make_file, make_link, make_dangling_link, os.mkdir, os.mkfifo), ids=lambda make: make.__name__
)
def test_what_is_no_socket_is_left_alone(host, make):
    daemon = host.daemon(start=False)
    make(daemon.socket)
    before = daemon.socket.lstat()
    assert f"{daemon.socket}: is not a socket and is left alone" in refused_start(daemon)
    assert daemon.socket.lstat().st_ino == before.st_ino


def test_a_missing_directory_is_named_with_the_reason(host):
    missing = host.directory / "missing"
    log = refused_start(host.daemon(start=False, daemon={"socket": missing / "s"}))
    assert str(missing) in log and "No such file or directory" in log


def test_however_few_descriptors_it_may_have_it_starts_or_says_so(host):
    daemon = host.daemon(host.zego(), start=False)
    usual = daemon.command
    ends = Counter()
    for n in range(4, 40):  # the loader of libraries needs the fourth
        daemon.command = ["prlimit", f"--nofile={n}:{n}", *usual]
        began = len(daemon.log)
        daemon.launch()
        eventually(lambda: not daemon.is_running() or "listens on" in daemon.log[began:], "it starts, or does not")
        if daemon.is_running():
            assert daemon.stop() == 0
            ends["started"] += 1
        elif daemon.wait() == -signal.SIGABRT:
            ends["libuv's abort()"] += 1  # where it finds none for the pipe through which it hears of signals
        else:
            assert daemon.wait() in (1, EX_CONFIG)
            assert "oo many open files" in daemon.log[began:]
            ends["refused"] += 1
    assert ends["started"] > 0 and ends["refused"] > 2 and ends["libuv's abort()"] <= 2, ends


def test_the_socket_is_gone_after_the_end(host):
    daemon = host.daemon(host.zego())
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_socket_that_has_become_anothers_stays(host):
    daemon = host.daemon(host.zego())
    daemon.socket.unlink()
    with listen(daemon.socket):
        assert daemon.stop() == 0
        Writer(daemon.socket).close()


# Stopping.


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_what_is_queued_is_sent_before_the_end(host, number):
    zego = host.zego(apps={APP: 10}, latency=50)
    daemon = host.daemon(zego, app={"rate": 10, "room_rate": 0}, queue=LONG)
    writer = daemon.connect()
    writer.send(*(message(str(n), id=n) for n in range(15)))
    replies = writer.sync()
    daemon.signal(number)
    replies += writer.rest()
    assert daemon.wait() == 0
    assert Counter(reply["id"] for reply in replies) == Counter(range(15))
    assert outcomes(replies) == {("sent", None): 15}
    assert sorted(zego.contents(), key=int) == [str(n) for n in range(15)]
    assert "stopped: lines=16 sent=15 rejected/invalid=1" in daemon.log


def test_replies_that_nobody_has_read_at_the_end_are_counted(host):
    daemon = host.daemon(daemon={"drain_timeout": 0}, queue={"max_age": "60s", "queue_max": 20000}, app={"rate": 1})
    writer = daemon.connect()
    writer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for i in range(0, 10000, 100):
        writer.send(*[message("x", id=f"{j:050}") for j in range(i, i + 100)])
    eventually(lambda: daemon.control("status")["apps"][0]["lines"] == 10000, "all lines")
    assert daemon.stop() == 0
    while writer.hear():
        pass
    heard = writer.heard.count(b"\n")  # the last one may have been cut
    summary = daemon.summary()
    assert heard < 10000
    assert summary["lines"] == heard + summary["replies_lost"] + summary.get("replies_discarded", 0)


def test_an_idle_daemon_stops_at_once_and_lets_its_writers_go(host):
    daemon = host.daemon(host.zego(), daemon={"drain_timeout": "10m"})
    writers = [daemon.connect() for _ in range(3)]
    writers[0].sync()
    assert daemon.stop() == 0
    assert [writer.rest() for writer in writers] == [[], [], []]


def test_lines_that_come_after_sigterm_are_not_taken(host):
    zego = host.zego(latency=500)
    daemon = host.daemon(zego)
    writer = daemon.connect()
    writer.send(message("in time", id=1))
    writer.sync()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_log("taking no more lines")
    writer.send(message("late", id=2))
    assert [(reply["id"], reply["outcome"]) for reply in writer.rest()] == [(1, "sent")]
    assert daemon.wait() == 0
    assert zego.contents() == ["in time"]


def queue_up(host, n=20, **options):
    """A daemon that sends one message a second, and a writer with n of them queued."""
    daemon = host.daemon(host.zego(latency=100), app=ONE_A_SECOND, queue=LONG, **options)
    writer = daemon.connect()
    writer.send(*(message(str(i), id=i) for i in range(n)))
    return daemon, writer, writer.sync()


def assert_each_was_sent_or_dropped(daemon, replies, reason, n=20):
    """Each message has one reply, which is true; and some were dropped."""
    assert Counter(reply["id"] for reply in replies) == Counter(range(n))
    sent = [str(reply["id"]) for reply in replies if reply["outcome"] == "sent"]
    assert sorted(sent) == sorted(daemon.zego.contents())
    assert outcomes(replies) == Counter({("sent", None): len(sent), ("dropped", reason): n - len(sent)})
    assert 0 < len(sent) < n


def test_after_drain_timeout_the_rest_is_dropped(host):
    daemon, writer, replies = queue_up(host, daemon={"drain_timeout": "500ms"})
    daemon.signal(signal.SIGTERM)
    replies += writer.rest()
    assert daemon.wait() == 0
    assert_each_was_sent_or_dropped(daemon, replies, "shutdown")


def test_without_drain_timeout_only_what_is_under_way_is_waited_for(host):
    daemon, writer, replies = queue_up(host, daemon={"drain_timeout": 0})
    daemon.signal(signal.SIGTERM)
    replies += writer.rest()
    assert daemon.wait() == 0
    assert_each_was_sent_or_dropped(daemon, replies, "shutdown")


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_second_signal_ends_it_now(host, number):
    daemon, writer, replies = queue_up(host, daemon={"drain_timeout": "10m"})
    daemon.zego.rules([{"do": {"damage": "hang"}}])
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_log("taking no more lines")
    daemon.signal(number)
    replies += writer.rest()
    assert daemon.wait() == 0
    assert Counter(reply["id"] for reply in replies) == Counter(range(20))
    assert set(outcomes(replies)) <= {("sent", None), ("dropped", "shutdown"), ("failed", "network")}
    assert outcomes(replies)["dropped", "shutdown"] >= 15


def test_what_hangs_at_the_end_is_given_up(host):
    zego = host.zego(behave=[{"do": {"damage": "hang"}}])
    daemon = host.daemon(zego, daemon={"drain_timeout": "100ms"}, upstream={"timeout": "2m"})
    writer = daemon.connect()
    writer.send(message(id=1))
    zego.wait_for_requests(1)
    assert daemon.stop() == 0
    assert outcomes(writer.rest()) == {("failed", "network"): 1}


def test_a_writer_that_does_not_read_cannot_hold_up_the_end(host):
    daemon = host.daemon(host.zego(), daemon={"drain_timeout": "10m"})
    deaf = daemon.connect()
    deaf.send(*[b"refused"] * 10_000)
    daemon.connect().sync()
    assert daemon.stop() == 0


# Reloading.


def test_an_appid_added_by_a_reload_can_be_used(host):
    daemon = both_apps(host)
    assert daemon.reload(apps={APP: {}})
    writer = daemon.connect()
    assert writer.ask(message(id=1, AppId=OTHER_APP))["reason"] == "unknown_app"
    assert daemon.reload(apps=BOTH)
    assert writer.ask(message(id=2, AppId=OTHER_APP))["outcome"] == "sent"
    assert daemon.connect().ask(message(id=3, AppId=APP))["outcome"] == "sent"


def test_a_removed_appids_messages_are_dropped_but_for_those_under_way(host):
    daemon = both_apps(host, app=ONE_A_SECOND, queue=LONG)
    daemon.zego.settings(latency=500)
    writer = daemon.connect()
    writer.send(*(message(str(n), id=n, AppId=OTHER_APP) for n in range(10)), message(id="other", AppId=APP))
    daemon.zego.wait_for_requests(2)
    assert daemon.reload(apps={APP: {}})
    replies = writer.replies(11)
    gone = [reply for reply in replies if reply["id"] != "other"]
    assert sorted(reply["id"] for reply in gone) == list(range(10))
    assert outcomes(gone) == {("sent", None): 1, ("dropped", "app_removed"): 9}
    assert writer.ask(message(id=1, AppId=OTHER_APP))["reason"] == "unknown_app"


def test_the_summary_counts_a_removed_appids_lines_too(host):
    daemon = both_apps(host)
    assert daemon.connect().ask(message(id=1, AppId=OTHER_APP))["outcome"] == "sent"
    assert daemon.reload(apps={APP: {}})
    time.sleep(1.2)  # until nothing needs to be remembered of the AppID, its tokens above all
    assert daemon.connect().ask(message(id=2, AppId=APP))["outcome"] == "sent"
    assert daemon.stop() == 0
    assert "stopped: lines=2 sent=2" in daemon.log


def test_an_appid_that_comes_back_has_not_got_a_second_budget(host):
    zego = host.zego(apps={APP: 10, OTHER_APP: 10})
    daemon = host.daemon(zego, apps=BOTH, app={"rate": 10, "room_rate": 0}, queue=LONG)
    writer = daemon.connect()
    for _ in range(3):  # the sandbox counts, see Zego.check()
        writer.send(*(message(AppId=OTHER_APP) for _ in range(10)))
        writer.sync()
        assert daemon.reload(apps={APP: {}})
        assert daemon.reload(apps=BOTH)
    assert writer.ask(message(id="last", AppId=OTHER_APP))["outcome"] == "sent"


def test_a_lowered_limit_is_kept_to_at_once(host):
    zego = host.zego()
    daemon = host.daemon(zego, app={"burst": 30, "room_rate": 0}, queue=LONG)
    writer = daemon.connect()
    writer.ask(*(message("before", id=n) for n in range(30)))
    assert daemon.reload(app={"rate": 10, "burst": 10, "room_rate": 0})
    writer.ask(*(message("after", id=n) for n in range(25)))
    after = [arrival.ns for arrival in zego.seen() if arrival.content == "after"]
    assert len(after) == 25
    assert most_in_window(after, SECOND) <= 10


def test_a_raised_limit_helps_those_who_wait(host):
    daemon = host.daemon(host.zego(), app={"rate": 1, "burst": 1, "room_rate": 0}, queue=LONG | {"max_age": "20s"})
    writer = daemon.connect()
    writer.send(*(message(id=n) for n in range(60)))
    replies = writer.sync()
    assert daemon.reload(app={"rate": 100, "burst": 10})
    replies += writer.replies(60 - len(replies))
    assert outcomes(replies) == {("sent", None): 60}


def test_an_invalid_configuration_changes_nothing_and_says_why(host):
    daemon = host.daemon(host.zego())
    writer = daemon.connect()
    assert not daemon.reload(app={"rate": "fast"}, daemon={"drain_timeout": "5"})
    text = daemon.config.read_text().splitlines()
    for line in "rate = fast", "drain_timeout = 5":
        assert f"{daemon.config}:{text.index(line) + 1}: " in daemon.log
    assert writer.ask(message(id=1))["outcome"] == "sent"
    daemon.config.unlink()
    assert not daemon.reload()
    assert writer.ask(message(id=2))["outcome"] == "sent"
    assert daemon.reload(app={"rate": 50}, daemon={"drain_timeout": "5s"})


def test_a_secret_that_others_may_read_keeps_a_reload_out(host):
    daemon = host.daemon(host.zego())
    host.secret_file(APP).chmod(0o644)
    assert not daemon.reload()
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_a_reload_rotates_the_secret_of_what_is_queued_too(host):
    old = host.zego()
    daemon = host.daemon(old, app=ONE_A_SECOND, queue=LONG)
    writer = daemon.connect()
    writer.send(message("old", id=1), message("new", id=2))
    assert writer.reply()["outcome"] == "sent"
    host.new_secret(APP)
    new = host.zego()  # which knows the new secret only
    assert daemon.reload(upstream={"url": new.url})
    assert (writer.reply()["outcome"], new.contents()) == ("sent", ["new"])


def test_what_is_under_way_when_the_upstream_changes_ends_where_it_began(host):
    old, new = host.zego(latency=700), host.zego()
    daemon = host.daemon(old)
    writer = daemon.connect()
    writer.send(message("old", id=1))
    old.wait_for_requests(1)
    assert daemon.reload(upstream={"url": new.url})
    writer.send(message("new", id=2))
    assert outcomes(writer.replies(2)) == {("sent", None): 2}
    assert (old.contents(), new.contents()) == (["old"], ["new"])


def test_a_wrong_secret_that_a_reload_mends_halts_the_appid_no_longer(host):
    zego = host.zego()
    zego.expects_faults = True
    right = host.secret(APP)
    host.new_secret(APP)
    daemon = host.daemon(zego)
    writer = daemon.connect()
    assert writer.ask(message(id=1))["Code"] == 100000005
    assert writer.ask(message(id=2))["reason"] == "halted"
    host.secret_file(APP).write_text(right + "\n")
    assert daemon.reload()
    assert writer.ask(message(id=3))["outcome"] == "sent"


def test_what_takes_effect_at_the_next_start_is_told(host):
    daemon = host.daemon(host.zego())
    assert daemon.reload(daemon={"socket": host.directory / "elsewhere.sock"})
    daemon.wait_for_log("socket has changed: that takes effect at the next start")
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_max_clients_and_max_line_change_with_a_reload(host):
    daemon = host.daemon(host.zego())
    first, second = daemon.connect(), daemon.connect()
    second.send_bytes(b"x" * 10_000)
    first.sync()
    assert daemon.reload(daemon={"max_clients": 1, "max_line": "1KiB"})
    assert daemon.connect().rest()[0]["reason"] == "too_many_clients"
    first.send(b"x" * 1025)
    assert first.reply()["reason"] == "too_long"
    second.send(b"x", message(id=1))  # one who is connected stays, but for its long line
    assert [reply.get("reason") for reply in second.replies(2)] == ["too_long", None]


def test_nothing_is_lost_or_doubled_by_reloads_in_the_middle_of_traffic(host):
    daemon = both_apps(host, app={"room_rate": 0}, queue=LONG)
    writer = daemon.connect()
    writer.send(*(message(f"{n}", id=n, AppId=APP if n % 2 else OTHER_APP) for n in range(240)))
    for rate in 100, 60, 100, 80, 100:
        assert daemon.reload(app={"rate": rate})
    replies = writer.replies(240)
    assert outcomes(replies) == {("sent", None): 240}
    assert Counter(reply["id"] for reply in replies) == Counter(range(240))
    assert Counter(daemon.zego.contents()) == Counter(f"{n}" for n in range(240))


def files(daemon):
    """Its descriptors without sockets, which come and go with the connections upstream."""
    return [what for what in daemon.descriptors() if not what.startswith("socket:")]


def test_a_reload_does_not_wait_for_a_pipe(host):
    daemon = host.daemon(host.zego())
    daemon.config.unlink()
    os.mkfifo(daemon.config)
    assert not daemon.reload()
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    daemon.config.unlink()
    daemon.configure()


def test_fifty_rapid_reloads_leave_no_descriptors_and_lose_nothing(host):
    daemon = host.daemon(host.zego(), app={"room_rate": 0})
    writer = daemon.connect()
    writer.ask(message("warm", id="warm"))
    assert daemon.reload()
    before = files(daemon)
    for n in range(50):
        daemon.signal(signal.SIGHUP)
        writer.send(message(id=n))
    replies = writer.replies(50)
    assert outcomes(replies) == {("sent", None): 50}
    assert daemon.reload()
    assert files(daemon) == before


def test_a_sighup_before_it_is_ready_for_one_does_not_end_it(host, shims):
    daemon = host.daemon(host.zego(), environment=preload(shims("early_hangup")))
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    assert daemon.reload()


def test_a_hundred_reloads_a_second_leave_nothing_behind_and_hold_nothing_up(host):
    daemon = host.daemon(host.zego(), app={"room_rate": 0})
    writer = daemon.connect()

    def reload_for_three_seconds():
        for n in range(300):
            daemon.signal(signal.SIGHUP)
            writer.send(message(id=n) if n % 10 == 0 else b"\n")
            time.sleep(0.01)
        assert outcomes(writer.replies(30)) == {("sent", None): 30}

    reload_for_three_seconds()  # whatever is grown once and for all
    before, resident = files(daemon), daemon.resident()
    reload_for_three_seconds()
    assert files(daemon) == before
    assert is_sanitized() or daemon.resident() - resident < 256 * 1024  # less than a KiB for each


def memory_holds(pid, text):
    """Whether the text is anywhere in a process's memory."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            area, rights, *_, name = (line.rstrip() + " ").split(" ", 5)
            if "r" not in rights or name.strip() in ("[vvar]", "[vsyscall]"):
                continue
            start, end = (int(address, 16) for address in area.split("-"))
            memory.seek(start)
            with contextlib.suppress(OSError):  # reserved by a sanitizer, and not there
                while start < end and (piece := memory.read(min(end - start, 1 << 24))):
                    if text.encode() in piece:
                        return True
                    start += len(piece)
    return False


@pytest.mark.skipif(is_sanitized(), reason="sanitizers keep what was freed, and have too much memory to look through")
def test_a_secret_that_is_no_longer_used_is_in_no_corner_of_the_memory(host):
    daemon = both_apps(host)
    writer = daemon.connect()
    for app_id in BOTH:
        assert writer.ask(message(id=1, AppId=app_id))["outcome"] == "sent"
    removed, kept = host.secrets[OTHER_APP], host.secrets[APP]
    try:
        assert memory_holds(daemon.pid, removed) and memory_holds(daemon.pid, kept)
    except PermissionError:
        pytest.skip("the daemon hides its memory from all but root")
    assert daemon.reload(apps={APP: {}})
    assert not memory_holds(daemon.pid, removed) and memory_holds(daemon.pid, kept)
    new = host.new_secret(APP)
    assert daemon.reload()
    assert not memory_holds(daemon.pid, kept) and memory_holds(daemon.pid, new)


# The first second.


def test_nothing_is_sent_in_the_first_second(host):
    launched = time.monotonic_ns()
    daemon = host.daemon(host.zego(), daemon={"startup_hold": "1s"})
    writer = daemon.connect()
    assert outcomes(writer.ask(*(message(id=n) for n in range(3)))) == {("sent", None): 3}
    assert min(arrival.ns for arrival in daemon.zego.seen()) - launched >= SECOND


def test_a_restart_does_not_give_a_second_budget(host):
    zego = host.zego(apps={APP: 10})
    daemon = host.daemon(zego, app={"rate": 10, "room_rate": 0}, daemon={"startup_hold": "1s"})
    for _ in range(2):  # the sandbox counts, see Zego.check()
        writer = daemon.connect()
        assert outcomes(writer.ask(*(message(id=n) for n in range(10)))) == {("sent", None): 10}
        daemon.stop()
        daemon.start()


def test_an_appid_added_by_a_reload_is_held_for_its_first_second_too(host):
    daemon = both_apps(host, daemon={"startup_hold": "1s"})
    assert daemon.reload(apps={APP: {}})
    time.sleep(1.2)  # until the daemon has forgotten it
    reloaded = time.monotonic_ns()
    assert daemon.reload(apps=BOTH)
    assert daemon.connect().ask(message(id=1, AppId=OTHER_APP))["outcome"] == "sent"
    assert min(arrival.ns for arrival in daemon.zego.seen()) - reloaded >= SECOND


def test_root_and_nobody_else_is_told_that_there_is_no_need_for_root(daemon):
    assert daemon.log.count("runs as root") == (os.geteuid() == 0)


# Under systemd.

needs_systemd = pytest.mark.skipif(not has_systemd(), reason="built without libsystemd")


def activate(host, *options):
    """Launch a daemon by way of systemd-socket-activate; gives it and the path of the socket that it is passed."""
    passed = host.directory / "passed.sock"
    environment = [f"--setenv={name}={value}" for name, value in SANITIZERS.items()]
    command = ("systemd-socket-activate", f"--listen={passed}", "--fdname=intake", *options, *environment)
    if not shutil.which(command[0]):
        pytest.skip("there is no systemd-socket-activate")
    daemon = host.daemon(host.zego(), start=False, command=command)
    daemon.launch()
    daemon.wait_for_log("Listening on")
    return daemon, passed


@needs_systemd
def test_a_socket_passed_by_systemd_is_served_and_stays(host):
    daemon, passed = activate(host)
    writer = daemon.connect(passed)
    assert writer.ask(message(id=1))["outcome"] == "sent"
    assert "listens on systemd's socket" in daemon.log
    assert not daemon.socket.exists()
    assert daemon.stop() == 0
    assert passed.exists()


@needs_systemd
def test_a_passed_socket_survives_reloads(host):
    daemon, passed = activate(host)
    writer = daemon.connect(passed)
    writer.sync()
    assert daemon.reload()
    assert daemon.connect(passed).ask(message(id=1))["outcome"] == "sent"


def passing(files, fdnames):
    """A command that passes descriptors as systemd does; files are redirections of the shell."""
    variables = f"LISTEN_PID=$$ LISTEN_FDS={files.count('<')} LISTEN_FDNAMES={fdnames}"
    return ("sh", "-c", f'export {variables}; exec "$0" "$@" {files}')


WRONG_SOCKETS = {
    "not a socket": ("3</dev/null", "intake", "is not a listening Unix stream socket"),
    "nothing at all": ("3<&-", "intake", "systemd"),
    "another name": ("3</dev/null", "control-room", 'a socket named "control-room"'),
    "two of them": ("3</dev/null 4</dev/null", "intake:intake", 'a socket named "intake" twice'),
    "two for control": ("3</dev/null 4</dev/null", "control:control", 'a socket named "control" twice'),
    "no socket for control": ("3</dev/null", "control", "is not a listening Unix stream socket"),
}


@needs_systemd
@pytest.mark.parametrize("files, fdnames, error", WRONG_SOCKETS.values(), ids=WRONG_SOCKETS)
def test_a_wrong_descriptor_is_refused(host, files, fdnames, error):
    daemon = host.daemon(start=False, command=passing(files, fdnames))
    assert error in refused_start(daemon)
    assert not daemon.socket.exists()


@needs_systemd
def test_a_passed_socket_is_served_by_one_daemon_alone(host):
    path = host.directory / "passed.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        command = passing("3<&0", "intake")
        first = host.daemon(host.zego(), start=False, command=command)
        first.launch(stdin=listener)
        first.wait_for_log("listens on")
        second = host.daemon(start=False, command=command)
        second.launch(stdin=listener)
        assert second.wait() == 1
        assert "barraged is already running here" in second.log
        assert first.connect(path).ask(message(id=1))["outcome"] == "sent"


@needs_systemd
def test_a_datagram_socket_is_refused(host):
    daemon, passed = activate(host, "--datagram")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", str(passed))  # what systemd waits for
    assert daemon.wait() == 1
    assert "is not a listening Unix stream socket" in daemon.log


def test_descriptors_meant_for_another_process_are_not_touched(host):
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "intake"}
    daemon = host.daemon(host.zego(), environment=environment)
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def listen_for_notes(name):
    """A socket such as systemd's for sd_notify()."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.settimeout(patience())
    listener.bind(name)
    return listener


def told(listener):
    """The next note's lines."""
    return listener.recv(4096).decode().splitlines()


@needs_systemd
@pytest.mark.parametrize("abstract", (False, True), ids=("path", "abstract"))
def test_systemd_is_told_of_each_stage_of_life(host, abstract):
    name = f"\0{host.directory}/notify" if abstract else f"{host.directory}/notify"
    with listen_for_notes(name) as listener:
        daemon = host.daemon(host.zego(), environment={"NOTIFY_SOCKET": name.replace("\0", "@")})
        assert told(listener) == ["READY=1"]
        daemon.reload()
        reloading, monotonic = told(listener)
        assert reloading == "RELOADING=1" and monotonic.startswith("MONOTONIC_USEC=")
        assert told(listener) == ["READY=1"]
        daemon.signal(signal.SIGTERM)
        assert told(listener) == ["STOPPING=1"]
        assert daemon.wait() == 0


def test_the_journal_gets_a_level_with_every_line(host):
    daemon = host.daemon(host.zego(), start=False)
    daemon.log_file.touch()
    stream = daemon.log_file.stat()  # standard error is this file, taken for the journal's stream
    daemon.environment["JOURNAL_STREAM"] = f"{stream.st_dev}:{stream.st_ino}"
    daemon.start()
    assert not daemon.reload(daemon={"nonsense": 1})
    daemon.stop()
    before = len(daemon.log.splitlines())
    daemon.launch()  # with that configuration, which now forbids the start
    assert daemon.wait() == EX_CONFIG

    levels = [line[:3] for line in daemon.log.splitlines()]
    assert set(levels[:before]) >= {"<3>", "<6>"} and set(levels) <= {"<3>", "<4>", "<6>"}
    assert levels[before:] and set(levels[before:]) == {"<3>"}


def test_a_notify_socket_that_is_not_there_does_not_matter(host):
    daemon = host.daemon(host.zego(), environment={"NOTIFY_SOCKET": f"{host.directory}/nowhere"})
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


@needs_systemd
def test_the_watchdog_is_fed_while_the_loop_turns(host):
    name = f"{host.directory}/notify"
    with listen_for_notes(name) as listener:
        host.daemon(host.zego(), environment={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"})
        assert [told(listener) for _ in range(4)] == [["READY=1"], *[["WATCHDOG=1"]] * 3]


# What else the environment may hold.


@pytest.mark.parametrize("http", (True, False), ids=("http", "https"))
def test_a_proxy_in_the_environment_is_ignored(host, http):
    nowhere = "http://127.0.0.1:1/"
    names = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    daemon = host.daemon(host.zego(http=http), environment=dict.fromkeys(names, nowhere) | {"no_proxy": ""})
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_locale_and_time_zone_do_not_matter(host):
    daemon = host.daemon(host.zego(), environment={"LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"})
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


@pytest.mark.parametrize("closed", ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"))
def test_closed_standard_descriptors_are_not_mistaken_for_others(host, closed):
    daemon = host.daemon(host.zego(), start=False, command=("sh", "-c", f'exec "$0" "$@" {closed}'))
    daemon.launch()
    writer = daemon.connect_soon()
    daemon.signal(signal.SIGHUP)  # which is something to log about
    assert writer.ask(message(id=1))["outcome"] == "sent"
    assert daemon.stop() == 0
    assert writer.rest() == []
    assert {file.read_text() for file in host.directory.glob("*.lock")} == {""}


def test_a_standard_error_that_nobody_reads_holds_up_nothing(host):
    daemon = host.daemon(host.zego(), daemon={"log_level": "debug"}, start=False)
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb") as pipe:
        daemon.launch(stderr=pipe)
        client = daemon.connect_soon()
        client.ask(*[b"refused"] * 5_000)  # each of which is logged
        assert client.ask(message(id=1))["outcome"] == "sent"
        assert daemon.stop() == 0
