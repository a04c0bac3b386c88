# SPDX-License-Identifier: MIT
"""Tests of what tests/comparison measures with: a line that garbled or a server that judged amiss would be unfair to
whoever it befell."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from test_sandbox import APP, SECRET, Client, good_head, query

COMPARISON = Path(__file__).resolve().parent / "comparison"
sys.path[:0] = [str(COMPARISON), str(COMPARISON.parent / "e2e")]

from compare import Barraged, Place, Tolerant  # noqa: E402

FORM = "Content-Type: application/x-www-form-urlencoded"


def code(client, request=b""):
    """The Code of the next answer, after sending a request."""
    client.send(request)
    return json.loads(client.read_answer()[2])["Code"]


def post(body, *headers):
    lines = ["POST / HTTP/1.1", "Host: 127.0.0.1", *headers, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


def test_a_post_is_judged_as_the_get_with_its_body_as_query():
    with Tolerant(app=f"{APP}:{SECRET}:100", http=True) as server, contextlib.closing(Client(server)) as client:
        assert code(client, post(query(), FORM)) == 0
        assert code(client, good_head()) == 0
        assert code(client, post(query(Signature="0" * 32), FORM)) == 100000005
        faults = server.report()["client_faults"]
        assert [(fault["kind"], fault["count"]) for fault in faults] == [("Signature", 1)]
        # In pieces of all sizes, and several in one piece.
        requests = b"".join(post(query(MessageContent=f"{i}"), FORM) + good_head() for i in range(20))
        sent = 0
        for size in range(1, len(requests)):
            client.send(requests[sent : sent + size])
            sent += size
            if sent >= len(requests):
                break
        assert [code(client) for _ in range(40)] == [0] * 40
        assert server.report()["apps"][APP]["requests"] == 43


@contextlib.contextmanager
def line_to(port, **options):
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, COMPARISON / "link.py", str(port), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.terminate()


def test_the_line_delays_and_keeps_all_in_order_to_the_end():
    seed = int.from_bytes(os.urandom(2), "big")
    print(f"seed {seed}")
    listener = socket.create_server(("127.0.0.1", 0))
    pieces = [b"%d\n" % i for i in range(300)]
    arrived = []

    def serve():
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1 << 16):
                arrived.append(time.monotonic())
                connection.sendall(data)

    server = threading.Thread(target=serve)
    server.start()
    with listener, line_to(listener.getsockname()[1], delay=20, jitter=10, seed=seed) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(20)
            began = time.monotonic()
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.001)
            heard = b""
            while len(heard) < len(b"".join(pieces)):
                heard += client.recv(1 << 16)
            assert time.monotonic() - began >= 0.04
        assert heard == b"".join(pieces)
        assert arrived[0] - began >= 0.02
        server.join(timeout=20)  # the end of the connection has come through
        assert not server.is_alive()


def test_the_configuration_is_one():
    with contextlib.ExitStack() as stack:
        command = Barraged("barraged").command(Place(stack, seed=1))
        checked = subprocess.run([*command, "--check-config"], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
