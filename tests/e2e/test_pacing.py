# SPDX-License-Identifier: MIT
"""Never too fast, by the clock of the one who counts: the sandbox stamps what arrives, and the tests read its stamps.

That there are at most N arrivals in any second is asserted strictly, whatever is done to the daemon, to the sandbox and
to the line between them: a slow machine must not break it either. That the budget is used is asserted loosely, since a
slow machine does break that. Every test leaves a backlog waiting all the time, in many rooms and for a long age.
"""

import contextlib
import os
import signal
import time

import pytest

from sandbox import MILLISECOND, SECOND, most_in_window
from support import APP, OTHER_APP, message

PATIENT = {"max_age": "60s"}
ALL_ROOMS = {"room_rate": 0}


def lines(n, app=APP, **fields):
    return [message(f"{app} {i}", room=f"room {i % 50}", AppId=app, id=f"{app} {i}", **fields) for i in range(n)]


def most_in_a_second(times):
    return most_in_window(times, SECOND)


def most_in_100ms_under_load(times):
    """Apart from the first second, when an AppID that has rested may send its burst."""
    return most_in_window([at for at in times if at >= times[0] + SECOND], 100 * MILLISECOND)


def utilisation(times, limit):
    """Of the budget, between the first arrival and the last."""
    return (len(times) - 1) / (limit * (times[-1] - times[0]) / SECOND)


def assert_sent(replies, n):
    assert [reply["outcome"] for reply in replies] == ["sent"] * n


LINKS = {
    "prompt": {},
    "near": {"latency": 5, "jitter": 2},
    "far": {"latency": 60, "jitter": 40, "spike": "0.02:300"},
}


@pytest.mark.parametrize("link", LINKS)
def test_a_backlog_uses_the_budget_and_never_exceeds_it(host, link):
    limits = {APP: 100, APP + 1: 100, APP + 2: 10, APP + 3: 10}
    zego = host.zego(apps=limits, **LINKS[link])
    writers = {}
    for credit, (app, tested) in {"auto": (APP, APP + 2), "none": (APP + 1, APP + 3)}.items():
        apps = {app: {}, tested: {"test_mode": "yes"}}
        daemon = host.daemon(zego, queue=PATIENT, upstream={"credit": credit}, app=ALL_ROOMS, apps=apps)
        writer = writers[app] = daemon.connect()
        writer.send(*lines(350, app), *lines(35, tested))
    for writer in writers.values():
        assert_sent(writer.replies(385), 385)
    for app, limit in limits.items():
        times = zego.arrivals(app)
        assert most_in_a_second(times) <= limit
        assert utilisation(times, limit) > 0.7


def test_a_backlog_leaves_evenly(host):
    zego = host.zego(latency=5, jitter=5)
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS)
    assert_sent(daemon.connect().ask(*lines(350)), 350)
    assert most_in_100ms_under_load(zego.arrivals(APP)) <= 25


def test_a_rested_appid_sends_its_burst_at_once_and_no_more(host):
    zego = host.zego(apps={APP: 10})
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS | {"test_mode": "yes", "burst": 5})
    writer = daemon.connect()
    assert_sent(writer.ask(*lines(12)), 12)
    time.sleep(2)
    assert_sent(writer.ask(*lines(12)), 12)
    times = zego.arrivals(APP)
    assert most_in_a_second(times) <= 10
    assert most_in_window(times, 50 * MILLISECOND) <= 6


def test_further_attempts_spend_the_budget_too(host):
    rules = [{"probability": 0.2, "do": {"code": 1}}, {"probability": 0.1, "do": {"damage": "reset"}}]
    zego = host.zego(latency=5, behave=rules)
    upstream = {"retries": 10, "retry_ambiguous": "yes"}
    daemon = host.daemon(zego, queue=PATIENT, upstream=upstream, app=ALL_ROOMS)
    assert_sent(daemon.connect().ask(*lines(200)), 200)
    times = zego.arrivals(APP)
    assert len(times) > 230
    assert most_in_a_second(times) <= 100


def test_what_is_never_answered_spends_the_budget_too(host):
    zego = host.zego(behave=[{"probability": 0.3, "do": {"damage": "hang"}}])
    upstream = {"timeout": "300ms", "max_in_flight": 1000}
    daemon = host.daemon(zego, queue=PATIENT, upstream=upstream, app=ALL_ROOMS)
    replies = daemon.connect().ask(*lines(200))
    assert {reply.get("reason", "sent") for reply in replies} == {"sent", "timeout"}
    assert most_in_a_second(zego.arrivals(APP)) <= 100


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


def test_a_daemon_that_stood_still_does_not_catch_up(host):
    zego = host.zego(latency=20)
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS)
    writer = daemon.connect()
    writer.send(*lines(300))
    time.sleep(1.3)
    with stopped(daemon.pid):
        time.sleep(3)
    assert_sent(writer.replies(300), 300)
    assert most_in_a_second(zego.arrivals(APP)) <= 100


def test_a_server_that_stood_still_is_not_overrun(host):
    zego = host.zego(latency=5)
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS)
    writer = daemon.connect()
    writer.send(*lines(300))
    time.sleep(1.3)
    with stopped(zego.pid):
        time.sleep(2.5)
    assert_sent(writer.replies(300), 300)
    assert most_in_a_second(zego.arrivals(APP)) <= 100


def test_a_server_that_accepts_nobody_for_a_while_is_not_overrun(host):
    zego = host.zego()
    zego.settings(pause_accept=True)
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS)
    writer = daemon.connect()
    writer.send(*lines(200))
    time.sleep(1)
    zego.settings(pause_accept=False)
    assert_sent(writer.replies(200), 200)
    assert most_in_a_second(zego.arrivals(APP)) <= 100


def test_a_server_that_was_gone_for_a_while_is_not_overrun(host):
    zego = host.zego()
    zego.settings(refuse=True)
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS)
    writer = daemon.connect()
    writer.send(*lines(200))
    time.sleep(1)
    zego.settings(refuse=False)
    replies = writer.replies(200)
    assert {reply.get("reason", "sent") for reply in replies} <= {"sent", "connect"}
    assert most_in_a_second(zego.arrivals(APP)) <= 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_daemon_and_the_next_one_together_are_not_too_fast(host, number):
    zego = host.zego()
    daemon = host.daemon(zego, daemon={"startup_hold": "1s", "drain_timeout": "300ms"}, queue=PATIENT, app=ALL_ROOMS)
    daemon.connect().send(*lines(500))
    zego.wait_for_requests(120)
    daemon.signal(number)
    daemon.wait()
    before = zego.report()["requests"]
    daemon.start()
    assert_sent(daemon.connect().ask(*lines(150)), 150)
    assert before >= 120
    assert most_in_a_second(zego.arrivals(APP)) <= 100


def test_an_appid_that_was_removed_and_comes_back_is_not_too_fast(host):
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS, apps={APP: {}, OTHER_APP: {}})
    writer = daemon.connect()
    writer.send(*lines(300))
    zego.wait_for_requests(150)
    assert daemon.reload(apps={OTHER_APP: {}})
    assert daemon.reload(apps={APP: {}, OTHER_APP: {}})
    writer.send(*lines(150))
    replies = writer.replies(450)
    assert {reply.get("reason", "sent") for reply in replies} == {"sent", "app_removed"}
    assert most_in_a_second(zego.arrivals(APP)) <= 100


def test_a_rate_that_is_lowered_by_a_reload_holds_at_once(host):
    zego = host.zego()
    daemon = host.daemon(zego, queue=PATIENT, app=ALL_ROOMS)
    writer = daemon.connect()
    writer.send(*lines(180))
    zego.wait_for_requests(120)
    assert daemon.reload(app=ALL_ROOMS | {"rate": 20})
    reloaded = time.monotonic_ns()
    assert_sent(writer.replies(180), 180)
    times = zego.arrivals(APP)
    assert most_in_a_second(times) <= 100
    assert most_in_a_second([at for at in times if at > reloaded + SECOND]) <= 20
    assert times[-1] > reloaded + SECOND
