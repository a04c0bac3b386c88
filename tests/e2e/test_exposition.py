# SPDX-License-Identifier: MIT
"""The metrics over HTTP, as those that collect them see it."""

import contextlib
import http.client
import signal
import socket

import pytest
from support import (
    EX_CONFIG,
    Sample,
    check_ledger,
    eventually,
    free_port,
    has_exposition,
    message,
    parse_metrics,
    patience,
)

needs_exposition = pytest.mark.skipif(not has_exposition(), reason="built without libmicrohttpd")

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"

# What Prometheus sends.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def serving(host, **options):
    """A daemon that serves metrics at its `port`."""
    port = free_port()
    daemon = host.daemon(host.zego(), daemon={"metrics_listen": f"127.0.0.1:{port}"}, **options)
    daemon.port = port
    return daemon


@contextlib.contextmanager
def connection(daemon):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=patience())
    try:
        yield connection
    finally:
        connection.close()


def ask(connection, path="/metrics", method="GET", body=None, **headers):
    """The response, with its body in `text`."""
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    response.text = response.read().decode()
    return response


@needs_exposition
def test_whoever_collects_gets_openmetrics_and_people_get_text(host):
    daemon = serving(host)
    daemon.connect().ask(message(id=1))
    with connection(daemon) as c:
        collected = ask(c, Accept=ACCEPT)
        assert collected.status == 200
        assert collected.getheader("Content-Type") == OPENMETRICS
        assert collected.text.endswith("# EOF\n")
        seen = ask(c, Accept="*/*")
        assert seen.status == 200
        assert seen.getheader("Content-Type") == PLAIN
        assert "# TYPE barraged_lines_total counter" in seen.text
    for text in (collected.text, seen.text):
        check_ledger(parse_metrics(text))
    assert parse_metrics(collected.text) == parse_metrics(daemon.control("metrics")["metrics"])
    host.check_secrecy(collected.text.encode())


@needs_exposition
def test_a_query_or_a_head_is_fine(host):
    daemon = serving(host)
    with connection(daemon) as c:
        assert ask(c, "/metrics?x=y").status == 200
        head = ask(c, method="HEAD")
        assert head.status == 200 and head.text == "" and int(head.getheader("Content-Length")) > 1000
        assert ask(c).status == 200  # on the same connection


@needs_exposition
def test_anything_else_is_refused(host):
    daemon = serving(host)
    with connection(daemon) as c:
        for path in ("/", "/metric", "/metrics/", "/metrics/x", "//metrics"):
            assert ask(c, path).status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        with connection(daemon) as c:
            refused = ask(c, method=method, body=b"x" * 100000)
            assert refused.status == 405 and refused.getheader("Allow") == "GET, HEAD"


@needs_exposition
def test_an_ipv6_address_is_served(host):
    try:
        port = free_port(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("this host has no IPv6")
    host.daemon(host.zego(), daemon={"metrics_listen": f"[::1]:{port}"})
    c = http.client.HTTPConnection("::1", port, timeout=patience())
    assert ask(c).status == 200
    c.close()


@needs_exposition
def test_nobody_who_is_slow_or_wrong_holds_up_messages_or_others(host):
    daemon = serving(host)
    address = ("127.0.0.1", daemon.port)
    crowd = [socket.create_connection(address) for _ in range(12)]
    wrong = [b"GET /metrics HT", b"\x00\xff\r\n\r\n", b"GET /metrics HTTP/1.1\r\nA: " + b"x" * 100000, b""]
    for i, s in enumerate(crowd):
        s.sendall(wrong[i % 4])
    with connection(daemon) as c:
        assert ask(c).status == 200
    # As many as there may be, and more: whoever comes then has to wait, but messages go out.
    crowd += [socket.create_connection(address) for _ in range(20)]
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    for s in crowd:
        s.close()
    with connection(daemon) as c:
        assert ask(c).status == 200
    assert daemon.metrics()[Sample("barraged_ledger_consistent")] == 1


@needs_exposition
def test_who_does_not_read_what_it_asked_for_costs_nobody_else(host):
    daemon = serving(host)
    deaf = socket.create_connection(("127.0.0.1", daemon.port))
    deaf.settimeout(0.5)
    with pytest.raises((TimeoutError, ConnectionError)):
        while True:
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    with connection(daemon) as c:
        assert ask(c).status == 200
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    deaf.close()


@needs_exposition
def test_it_is_served_until_the_daemon_ends(host):
    daemon = serving(host, app={"rate": 1, "burst": 1}, queue={"max_age": "60s"})
    writer = daemon.connect()
    writer.send(*(message(id=i) for i in range(4)))
    eventually(lambda: daemon.control("status")["apps"][0]["lines"] == 4, "the lines to arrive")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_log("stopping")
    with connection(daemon) as c:
        assert ask(c).status == 200
    assert daemon.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", daemon.port))


@needs_exposition
def test_a_port_that_is_taken_is_an_error(host):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon = host.daemon(start=False, daemon={"metrics_listen": f"127.0.0.1:{port}"})
        daemon.launch()
        assert daemon.wait() == 1
    assert f"metrics_listen: 127.0.0.1:{port}: Address already in use" in daemon.log
    assert not daemon.socket.exists()


@needs_exposition
def test_another_address_needs_a_restart(host):
    daemon = serving(host)
    daemon.configure(daemon={"metrics_listen": f"127.0.0.1:{free_port()}"})
    assert daemon.control("reload")["warnings"] == ["metrics_listen has changed: that takes effect at the next start"]
    with connection(daemon) as c:
        assert ask(c).status == 200


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464", "[2001:db8::1]:9464", "128.0.0.1:1"]
)
def test_only_this_host_may_ask(host, address):
    daemon = host.daemon(start=False, daemon={"metrics_listen": address})
    checked = host.run("--config", daemon.config, "--check-config")
    assert checked.returncode == EX_CONFIG
    assert "metrics_listen: " in checked.stderr
    assert ("only a loopback address" if has_exposition() else "this build serves no metrics") in checked.stderr


@pytest.mark.skipif(has_exposition(), reason="built with libmicrohttpd")
def test_a_build_that_serves_no_metrics_says_so(host):
    daemon = host.daemon(start=False, daemon={"metrics_listen": "127.0.0.1:9464"})
    checked = host.run("--config", daemon.config, "--check-config")
    assert checked.returncode == EX_CONFIG and "this build serves no metrics" in checked.stderr
