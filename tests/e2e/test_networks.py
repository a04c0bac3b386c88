# SPDX-License-Identifier: MIT
"""What becomes of messages when it is the network that is broken: in a network of the test's own, with addresses,
routes and a name server to order, of which nothing is left when its last program ends."""

import contextlib
import ctypes
import socket
import struct
import subprocess
import threading
import time
from collections import Counter

import pytest

from support import Sample, die_with_the_tests, eventually, has_systemd, message, outcome
from test_clocks import Stamping
from test_lifecycle import listen_for_notes, told

CLONE_NEWNET = 0x40000000


class Network:
    """A network namespace, and a mount namespace where the test's own name server is asked for every name, that of this
    host included (which may be spoken to without TLS)."""

    def __init__(self, stack, host):
        files = {
            "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            "nsswitch.conf": "hosts: dns\n",
        }
        for name, content in files.items():
            host.write(name, content, mode=0o644)
        binding = [f"mount --bind {host.directory / name} /etc/{name}" for name in files]
        command = ["unshare", "--net", "--mount", "sh", "-c"]
        command.append(" && ".join([*binding, "echo ready", "exec sleep infinity"]))
        self.holder = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=die_with_the_tests)
        )
        stack.callback(self.holder.kill)
        if self.holder.stdout.readline() != b"ready\n":
            pytest.skip("this user or this kernel makes no networks")
        # What goes before a program's command line to run it there.
        self.command = ("nsenter", f"--target={self.holder.pid}", "--net", "--mount")

    def ip(self, arguments):
        subprocess.run([*self.command, "ip", *arguments.split()], check=True)

    @contextlib.contextmanager
    def inside(self):
        """Sockets that this thread makes are sockets of that network, also afterwards."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.holder.pid}/ns/net") as other:
            set_namespace(other)
            try:
                yield
            finally:
                set_namespace(own)


def set_namespace(file):
    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def network(host):
    with contextlib.ExitStack() as stack:
        yield Network(stack, host)


NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
A, AAAA = 1, 28


class NameServer:
    """Answers what it is told to: addresses, a code of failure, or nothing at all."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.code = NOERROR
        self.addresses = []
        self.silent = False
        self.asked = 0

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_exception):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                query, sender = self.socket.recvfrom(512)
                if not query:
                    return
                self.asked += 1
                if not self.silent:
                    self.socket.sendto(self.answer(query), sender)

    def answer(self, query):
        end = query.index(0, 12) + 5  # of the question: a name, its type and class
        (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
        family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(kind)
        records = b""
        n = 0
        for address in self.addresses if family else []:
            if (":" in address) == (family == socket.AF_INET6):
                packed = socket.inet_pton(family, address)
                records += struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(packed)) + packed
                n += 1
        flags = 0x8180 | self.code
        return query[:2] + struct.pack(">HHHHH", flags, 1, n, 0, 0) + query[12:end] + records


@pytest.fixture
def name_server(network):
    network.ip("link set lo up")
    with network.inside():
        server = NameServer()
    with server:
        yield server


@pytest.fixture
def server(network, name_server):
    """A server in that network, on all addresses of the old kind."""
    with network.inside():
        listener = socket.create_server(("0.0.0.0", 0))
    with Stamping(listener=listener) as server:
        yield server


def by_name(server):
    return {"url": f"http://localhost:{server.port}/"}


# Names.

FAILURES = {"SERVFAIL": {"code": SERVFAIL}, "NXDOMAIN": {"code": NXDOMAIN}, "silence": {"silent": True}}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_name_server_that_fails_is_told_as_dns_spared_and_forgiven(host, network, name_server, server, failure):
    vars(name_server).update(FAILURES[failure])
    daemon = host.daemon(upstream=by_name(server) | {"connect_timeout": "500ms"}, command=network.command)
    writer, other = daemon.connect(), daemon.connect()
    began = time.monotonic()
    assert outcome(writer.ask(message(ttl_ms=60_000, id="first"))) == "dns"
    writer.send(*[message(room=f"{i}", id=i) for i in range(30)])
    for _ in range(10):
        assert outcome(other.ask(b"this is not JSON")) == "invalid"
    assert {outcome(reply) for reply in writer.replies(30)} <= {"dns", "expired"}
    took = time.monotonic() - began
    assert "the API cannot be reached reason=dns" in daemon.log
    assert name_server.asked <= 2 * (2 + took)  # for both kinds of addresses, once a second
    assert server.arrivals == []
    name_server.code, name_server.silent, name_server.addresses = NOERROR, False, ["127.0.0.1"]
    eventually(lambda: outcome(writer.ask(message(id=30))) == "sent", "the name is found")
    assert "the API can be reached again" in daemon.log


# No network at all.


def test_a_daemon_starts_without_a_network_and_sends_once_there_is_one(host, network):
    name = f"{host.directory}/notify"
    with listen_for_notes(name) as notes:
        environment = {"NOTIFY_SOCKET": name}
        daemon = host.daemon(
            upstream={"url": "http://localhost:4711/"}, command=network.command, environment=environment
        )
        assert not has_systemd() or told(notes) == ["READY=1"]
    writer = daemon.connect()
    assert outcome(writer.ask(message(ttl_ms=60_000, id="first"))) == "dns"
    replies = writer.ask(*[message(room=f"{i}", id=i) for i in range(10)])
    assert {outcome(reply) for reply in replies} <= {"dns", "expired"}
    assert "the API cannot be reached reason=dns" in daemon.log
    assert daemon.control("status")["upstream"]["state"] == "down"
    assert daemon.metrics()[Sample("barraged_upstream_up")] == 0
    network.ip("link set lo up")
    with network.inside():
        name_server = NameServer()
        listener = socket.create_server(("127.0.0.1", 4711))
    name_server.addresses = ["127.0.0.1"]
    with name_server, Stamping(listener=listener):
        eventually(lambda: outcome(writer.ask(message(id=10))) == "sent", "the network is found")
    assert daemon.metrics()[Sample("barraged_upstream_up")] == 1


def test_an_address_without_a_route_is_told_as_connect_until_there_is_one(host, network):
    daemon = host.daemon(upstream={"url": "http://127.0.0.1:4711/"}, command=network.command)
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "connect"
    network.ip("link set lo up")
    with network.inside():
        listener = socket.create_server(("127.0.0.1", 4711))
    with Stamping(listener=listener):
        eventually(lambda: outcome(writer.ask(message(id=2))) == "sent", "the network is found")


def test_what_was_lost_with_the_network_does_not_arrive_when_it_is_back(host, network, name_server, server):
    upstream = {"url": f"http://127.0.0.1:{server.port}/", "timeout": "3s"}
    daemon = host.daemon(upstream=upstream, command=network.command)
    writer = daemon.connect()
    fates = Counter(outcome(reply) for reply in writer.ask(*[message(room=f"{i}", id=i) for i in range(5)]))
    network.ip("link set lo down")
    replies = writer.ask(*[message(room=f"{i}", id=i) for i in range(20)])
    fates += Counter(outcome(reply) for reply in replies)
    network.ip("link set lo up")

    def is_sent():
        fates[outcome(writer.ask(message(id=20)))] += 1
        return fates["sent"] > 5

    eventually(is_sent, "the network is found again")
    fates += Counter(outcome(reply) for reply in writer.ask(*[message(room=f"{i}", id=i) for i in range(10)]))
    assert set(fates) <= {"sent", "timeout", "network", "connect", "expired"}
    assert len(server.arrivals) == fates["sent"]


# A network of which a part is broken.

BROKEN = {
    "without a route": "2001:db8::1",
    "that leads nowhere": "fd00::7",
    "that refuses": "fd00::1",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_ipv6_costs_no_attempt(host, network, name_server, server, broken):
    # At the other end nobody takes in what is sent to fd00::7.
    network.ip("link add outside type veth peer name nowhere")
    for name in "outside", "nowhere":
        network.ip(f"link set {name} up")
    network.ip("address add 192.0.2.1/24 dev outside")
    network.ip("address add fd00::1/64 dev outside nodad")
    network.ip("neighbour add fd00::7 lladdr 02:00:00:00:00:07 dev outside nud permanent")
    name_server.addresses = [BROKEN[broken], "192.0.2.1"]
    daemon = host.daemon(upstream=by_name(server), command=network.command)
    replies = daemon.connect().ask(*[message(room=f"{i}", id=i) for i in range(20)])
    assert {outcome(reply) for reply in replies} == {"sent"}
    assert "an attempt failed" not in daemon.log
