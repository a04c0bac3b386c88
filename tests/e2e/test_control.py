# SPDX-License-Identifier: MIT
"""The control socket (docs/CONTROL.md), and what the daemon tells there of itself."""

import json
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import time

import pytest
from support import (
    APP,
    OTHER_APP,
    ROOT,
    SANITIZERS,
    Control,
    Sample,
    check_ledger,
    eventually,
    has_systemd,
    message,
    patience,
)


def app_of(status, app_id=APP):
    return next(app for app in status["apps"] if app["AppId"] == app_id)


def connect(daemon):
    return Control(daemon.control_socket)


# What is asked.


def test_the_status_tells_what_is(host):
    zego = host.zego(apps={APP: 100, OTHER_APP: 10})
    daemon = host.daemon(zego, apps={APP: {}, OTHER_APP: {"test_mode": "yes"}})
    writer = daemon.connect()
    replies = writer.ask(*(message(AppId=APP, room=f"r{i}", id=i) for i in range(20)), b"nonsense")
    assert [reply["outcome"] for reply in replies].count("sent") == 20
    status = daemon.control("status")
    assert status["ok"] and status["phase"] == "running" and status["ledger_consistent"]
    assert status["pid"] == daemon.pid
    assert status["clients"] == 1
    assert abs(status["started_at"] - time.time()) < patience()
    assert status["config"] == {
        "path": str(daemon.config),
        "last_reload_ok": True,
        "in_force_since": status["started_at"],
    }
    assert status["upstream"]["state"] == "up"
    assert f"http://{status['upstream']['host']}/" == zego.url
    assert status["upstream"]["connections_opened"] == len({arrival.connection for arrival in zego.seen()})
    assert status["fates"] == {"sent": 20, "dropped": 0, "failed": 0, "rejected": 1}
    assert status["reasons"] == {"invalid": 1}
    app = app_of(status)
    assert app["state"] == "running" and app["rate"] == app["limit"] == 100
    assert app["lines"] == app["fates"]["sent"] == 20
    assert app["queued"] == app["waiting"] == app["in_flight"] == app["oldest_ms"] == 0
    assert app_of(status, OTHER_APP)["rate"] == app_of(status, OTHER_APP)["tokens"] == 10


def test_metrics_count_what_becomes_of_lines(host):
    zego = host.zego()
    daemon = host.daemon(zego, app={"room_rate": 0})
    daemon.connect().ask(*(message(id=i) for i in range(30)), b"x")
    metrics = daemon.metrics()
    app = ("app", str(APP))
    assert metrics[Sample("barraged_lines_total", (app,))] == 30
    sent = (app, ("outcome", "sent"), ("reason", ""))
    assert metrics[Sample("barraged_requests_total", sent)] == 30
    invalid = (("app", ""), ("outcome", "rejected"), ("reason", "invalid"))
    assert metrics[Sample("barraged_requests_total", invalid)] == 1
    assert metrics[Sample("barraged_api_codes_total", (app, ("code", "0")))] == 30
    assert metrics[Sample("barraged_wait_seconds_count", (app,))] == 30
    assert metrics[Sample("barraged_upstream_seconds_count", (app,))] == 30
    assert metrics[Sample("barraged_clients")] == 1
    opened = len({arrival.connection for arrival in zego.seen()})
    assert metrics[Sample("barraged_connections_opened_total")] == opened


def test_every_scrape_adds_up_under_load(host):
    """Daemon.finish() looks once; here it is looked at all the time."""
    zego = host.zego(latency=30)
    daemon = host.daemon(zego, app={"room_rate": 0}, queue={"queue_max": 50})
    writer = daemon.connect()
    states = set()
    for i in range(40):
        writer.send(*(message(room=f"r{n % 7}", id=i * 50 + n) for n in range(50)))
        metrics = daemon.metrics()
        check_ledger(metrics)
        for state in ("queued", "in_flight"):
            if metrics[Sample(f"barraged_{state}", (("app", str(APP)),))] > 0:
                states.add(state)
    assert states == {"queued", "in_flight"}
    writer.replies(2000)
    assert daemon.control("status")["fates"]["sent"] + daemon.control("status")["fates"]["dropped"] == 2000


def test_metrics_are_as_their_formats_want_them(daemon):
    """By the word of the programs that read them."""
    daemon.connect().ask(message(id=1), b"x")
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = list(parser.text_string_to_metric_families(daemon.control("metrics")["metrics"]))
    assert len(families) > 20
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("there is no promtool")
    text = daemon.control("metrics", format="prometheus")["metrics"]
    check = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_log_lines_that_are_lost_are_counted(host):
    """Nobody reads the pipe that the daemon logs to."""
    reading, writing = os.pipe()
    daemon = host.daemon(host.zego(), start=False)
    daemon.launch(stderr=writing)
    daemon.connect_soon().sync()
    assert daemon.control("status")["log_lines_lost"] == 0
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    assert daemon.control("log", level="debug")["ok"]
    lost = daemon.control("status")["log_lines_lost"]
    assert lost >= 2  # that the level changes, and that the status is asked for
    assert daemon.metrics()[Sample("barraged_log_lines_lost_total")] > lost
    os.close(reading)
    os.close(writing)


# What is steered.


def test_a_reload_answers_when_it_was_done(host):
    daemon = host.daemon(host.zego(apps={APP: 100, OTHER_APP: 100}))
    daemon.configure(apps={APP: {"rate": 50}, OTHER_APP: {}})
    assert daemon.control("reload") == {"ok": True, "warnings": []}
    status = daemon.control("status")
    assert app_of(status)["rate"] == 50
    assert status["config"]["last_reload_ok"]
    assert daemon.metrics()[Sample("barraged_config_last_reload_successful")] == 1
    assert daemon.connect().ask(message(AppId=OTHER_APP, id=1))["outcome"] == "sent"
    assert "control: op=reload uid=" in daemon.log


def test_a_refused_reload_tells_every_error_and_changes_nothing(host):
    daemon = host.daemon(host.zego())
    before = daemon.control("status")["config"]["in_force_since"]
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("[upstream]", "[upstream]\nretries = 99\nno_such_key = 1"))
    answer = daemon.control("reload")
    line = text.splitlines().index("[upstream]") + 1
    assert not answer["ok"] and "all stays as it was" in answer["error"]
    assert [error.split(": ")[0] for error in answer["errors"]] == [
        f"{daemon.config}:{line + 1}",
        f"{daemon.config}:{line + 2}",
    ]
    status = daemon.control("status")
    assert not status["config"]["last_reload_ok"] and status["config"]["in_force_since"] == before
    assert daemon.metrics()[Sample("barraged_config_last_reload_successful")] == 0
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    # What was wrong is mended.
    daemon.config.write_text(text)
    assert daemon.control("reload")["ok"]
    assert daemon.control("status")["config"]["last_reload_ok"]
    assert daemon.metrics()[Sample("barraged_config_last_reload_successful")] == 1


def test_a_refused_sighup_is_told_too(host):
    daemon = host.daemon(host.zego())
    text = daemon.config.read_text()
    daemon.config.write_text("nonsense\n")
    assert not daemon.reload()
    assert not daemon.control("status")["config"]["last_reload_ok"]
    daemon.config.write_text(text)


def test_a_reload_warns_of_what_needs_a_restart(daemon):
    daemon.configure(daemon={"socket_mode": "0600"})
    warnings = daemon.control("reload")["warnings"]
    assert warnings == ["socket_mode has changed: that takes effect at the next start"]
    assert "warning: socket_mode has changed" in daemon.log


def test_what_is_paused_waits_until_it_is_resumed(host):
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    daemon = host.daemon(zego, apps={APP: {}, OTHER_APP: {}}, queue={"max_age": "60s"})
    writer = daemon.connect()
    assert daemon.control("pause", AppId=APP)["ok"]
    writer.send(message(AppId=APP, id="paused"))
    assert writer.ask(message(AppId=OTHER_APP, id="other"))["id"] == "other"
    status = daemon.control("status")
    assert app_of(status)["state"] == "paused" and app_of(status)["queued"] == 1
    assert app_of(status, OTHER_APP)["state"] == "running"
    # A reload does not change that.
    assert daemon.control("reload")["ok"]
    assert writer.ask(message(AppId=OTHER_APP, id="other"))["id"] == "other"
    assert app_of(daemon.control("status"))["state"] == "paused"
    assert {arrival.app_id for arrival in zego.seen()} == {OTHER_APP}
    assert daemon.control("resume", AppId=APP)["ok"]
    assert writer.reply()["id"] == "paused"
    assert app_of(daemon.control("status"))["state"] == "running"


def test_pausing_what_is_not_there_is_refused(daemon):
    answer = daemon.control("pause", AppId=OTHER_APP)
    assert answer == {"ok": False, "error": f"AppId {OTHER_APP} is not configured"}


def test_the_log_level_changes_until_the_next_reload(daemon):
    writer = daemon.connect()
    writer.ask(message(id="quiet"))
    assert daemon.control("log", level="debug")["ok"]
    writer.ask(message(id="loud"))
    assert 'id="loud" outcome=sent' in daemon.log
    assert daemon.control("reload")["ok"]
    writer.ask(message(id="hushed"))
    daemon.control("status")
    assert "quiet" not in daemon.log and "hushed" not in daemon.log


def test_it_can_be_asked_while_it_stops(host):
    daemon = host.daemon(host.zego(), app={"rate": 1, "burst": 1}, queue={"max_age": "60s"})
    writer = daemon.connect()
    control = connect(daemon)
    writer.send(*(message(id=i) for i in range(4)))
    eventually(lambda: app_of(control.ask("status"))["queued"] == 3, "one to be sent")
    daemon.signal(15)
    eventually(lambda: control.ask("status")["phase"] == "draining", "the daemon to stop")
    answer = control.ask("reload")
    assert not answer["ok"] and "stopping" in answer["error"]
    assert daemon.wait() == 0


# The connection.


def test_only_the_daemons_user_may_connect(daemon):
    assert stat.S_IMODE(os.stat(daemon.control_socket).st_mode) == 0o600
    assert daemon.stop() == 0
    assert not daemon.control_socket.exists()


def test_nonsense_is_refused_and_the_connection_goes_on(daemon):
    control = connect(daemon)
    for line in (b"x", b"[]", b'{"op":"explode"}', b'{"op":"status","AppId":1}', b"\xff", b'{"op":"pause"}'):
        answer = control.ask_bytes(line)
        assert not answer["ok"] and answer["error"]
    assert control.ask_bytes(b'{"op":"stauts"}')["error"] == 'unknown op "stauts"; did you mean "status"?'
    assert control.ask_bytes(b'\r\n\n{"op":"status"}\r')["ok"]


def test_many_requests_at_once_are_answered_in_turn(daemon):
    control = connect(daemon)
    ops = ["status", "metrics", "status", "log"] * 200
    requests = [{"op": op} | ({"level": "info"} if op == "log" else {}) for op in ops]
    control.socket.sendall(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
    for op in ops:
        answer = control.answer()
        assert answer["ok"]
        assert ("version" in answer, "metrics" in answer) == (op == "status", op == "metrics")


def test_an_unfinished_last_line_counts(daemon):
    control = connect(daemon)
    control.socket.sendall(b'{"op":"status"}\n{"op":"status"}')
    control.socket.shutdown(socket.SHUT_WR)
    assert control.answer()["ok"] and control.answer()["ok"]
    assert control.answers.readline() == b""


def test_a_long_line_ends_the_connection(daemon):
    control = connect(daemon)
    control.socket.sendall(b'{"op":"status"}\n' + b"x" * 5000)
    assert control.answer()["ok"]
    assert control.answer() == {"ok": False, "error": "the line is longer than 4095 bytes"}
    with pytest.raises((ConnectionResetError, AssertionError)):
        control.answer()
    longest = b'{"op":"status"' + b" " * (4095 - 15) + b"}"
    assert connect(daemon).ask_bytes(longest)["ok"]


def test_few_may_be_connected(daemon):
    controls = [connect(daemon) for _ in range(16)]
    assert all(control.ask("status")["ok"] for control in controls)
    assert "too many" in connect(daemon).answer()["error"]
    controls.pop().socket.close()

    def is_let_in():
        answer = None
        try:
            answer = connect(daemon).ask("status")
        except (ConnectionResetError, BrokenPipeError, AssertionError):
            return False
        return answer["ok"]

    eventually(is_let_in, "a place for another")
    for control in controls:
        control.socket.close()


def test_without_a_descriptor_operators_wait_in_peace(daemon):
    control = connect(daemon)
    assert control.ask("status")["ok"]
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays open
    waiting = [connect(daemon) for _ in range(3)]
    before = daemon.cpu_seconds()
    for _ in range(20):
        assert control.ask("status")["ok"]
        time.sleep(0.05)
    assert daemon.cpu_seconds() - before < 0.5
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    assert all(other.ask("status")["ok"] for other in waiting)


def test_who_does_not_read_holds_nobody_up(host):
    """A client has one answer waiting at most, however much it asks for."""
    apps = {APP + i: {} for i in range(200)}
    daemon = host.daemon(host.zego(apps={app: 100 for app in apps}), apps=apps)
    deaf = connect(daemon)
    before = daemon.resident()
    deaf.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while True:
            deaf.socket.sendall(b'{"op":"metrics"}\n' * 200)
    assert daemon.control("status")["ok"]
    assert daemon.connect().ask(message(AppId=APP, id=1))["outcome"] == "sent"
    assert daemon.resident() - before < 32 << 20
    deaf.socket.close()


def test_without_a_control_socket_there_is_none(host):
    daemon = host.daemon(host.zego(), daemon={"control_socket": ""})
    assert not daemon.control_socket.exists()
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_a_control_socket_that_cannot_be_made_is_an_error(host):
    daemon = host.daemon(start=False, daemon={"control_socket": "/nonexistent/control"})
    daemon.launch()
    assert daemon.wait() == 1
    assert "/nonexistent/control: its folder is not there" in daemon.log
    assert not daemon.socket.exists()


def test_two_daemons_cannot_share_a_control_socket(host):
    first = host.daemon(zego=None)
    second = host.daemon(start=False, daemon={"control_socket": first.control_socket})
    second.launch()
    assert second.wait() == 1
    assert "already running here" in second.log
    assert first.control("status")["ok"]
    second.control_socket = host.directory / "none"


needs_systemd = pytest.mark.skipif(not has_systemd(), reason="built without libsystemd")


def activate(host, *names):
    """Launch a daemon by way of systemd-socket-activate with a socket of each name; gives it and their paths."""
    paths = {name: host.directory / f"passed.{name}" for name in names}
    listen = [f"--listen={path}" for path in paths.values()]
    environment = [f"--setenv={name}={value}" for name, value in SANITIZERS.items()]
    command = ("systemd-socket-activate", *listen, f"--fdname={':'.join(names)}", *environment)
    if not shutil.which(command[0]):
        pytest.skip("there is no systemd-socket-activate")
    daemon = host.daemon(host.zego(), start=False, command=command)
    daemon.launch()
    daemon.wait_for_log("Listening on", len(names))
    return daemon, paths


@needs_systemd
@pytest.mark.parametrize("names", [("intake", "control"), ("control", "intake")])
def test_systemd_passes_both_sockets_in_any_order(host, names):
    daemon, paths = activate(host, *names)
    assert Control(paths["control"]).ask("status")["fates"]["sent"] == 0
    assert daemon.connect(paths["intake"]).ask(message(id=1))["outcome"] == "sent"
    assert Control(paths["control"]).ask("status")["fates"]["sent"] == 1
    assert not daemon.socket.exists() and not daemon.control_socket.exists()
    assert daemon.stop() == 0
    assert all(path.exists() for path in paths.values())


@needs_systemd
def test_systemd_may_pass_a_control_socket_alone(host):
    daemon, paths = activate(host, "control")
    assert Control(paths["control"]).ask("status")["ok"]
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    assert not daemon.control_socket.exists()


# The documentation.


def test_every_metric_is_documented_and_nothing_else(daemon):
    text = (ROOT / "docs/CONTROL.md").read_text()
    table = text[text.index("| metric | labels |") :]
    documented = set(re.findall(r"`(barraged_\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:])))
    there = {re.sub("_(bucket|count|sum)$", "", sample.name) for sample in daemon.metrics()}
    assert documented == there


def test_every_member_of_the_status_is_documented(daemon):
    text = (ROOT / "docs/CONTROL.md").read_text()
    status = daemon.control("status")
    members = {*status, *status["config"], *status["upstream"], *status["fates"], *status["apps"][0]} - {"ok"}
    section = text[text.index("## status") : text.index("## Metrics")]
    assert {name for name in members if f"`{name}`" not in section} == set()
