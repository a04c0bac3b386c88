# SPDX-License-Identifier: MIT
"""Several hosts that share AppIDs: each in a network of its own, with an engine and a sandbox in one more between them.

    cluster = Cluster(host)
    daemons = [cluster.daemon(i) for i in range(4)]
    chats = [cluster.chat(daemon) for daemon in daemons]

tests/e2e/test_many_hosts.py plays a few scenes of it, tests/many_hosts all of them for as long as they take.
"""

import contextlib
import gzip
import os
import random
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from support import APP, die_with_the_tests, eventually, free_port, message
from test_networks import Network

ENGINES = [name for name in ("redis-server", "valkey-server") if shutil.which(name)]

SECOND = 1_000_000_000

WORDS = "主播好 哈哈哈 666 gg lol 嗨🎉 ¡vamos! 응원합니다 a&b=c #1 100% +1 👏 再来一局".split()


class Engine:
    """A Redis or Valkey of the test's own, with a password, on a Unix socket and, where there is an address, over TCP.

    It keeps nothing on disk: each start is with no data.
    """

    def __init__(self, host, program="redis-server", address=None):
        self.directory = host.directory / "engine"
        self.directory.mkdir()
        self.socket = self.directory / "socket"
        self.program = program
        self.address = address
        self.port = free_port(address=address) if address else 0
        self.password = secrets.token_hex(16)
        host.canaries.append(self.password)
        self.password_file = host.write("engine.password", self.password + "\n")
        self.process = None
        host.stack.callback(self.finish)

    @property
    def url(self):
        """Where it is, as [shared] wants it."""
        return f"tcp:{self.address}:{self.port}" if self.address else f"unix:{self.socket}"

    def start(self):
        keys = {
            "port": self.port,
            "bind": self.address or "127.0.0.1",
            "unixsocket": self.socket,
            "unixsocketperm": "700",
            "requirepass": self.password,
            "dir": self.directory,
            "save": '""',
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        config = "".join(f"{name} {value}\n" for name, value in keys.items())
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log, preexec_fn=die_with_the_tests
            )
        with self.process.stdin as stdin:
            stdin.write(config.encode())
        eventually(lambda: self.ask("PING", check=False) == "PONG", f"an answer of {self.program}")
        return self

    def ask(self, *words, check=True):
        """One command, by redis-cli."""
        command = ["redis-cli", "-s", self.socket, *words]
        environment = os.environ | {"REDISCLI_AUTH": self.password}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def calls(self):
        """How often each command has been called."""
        rows = self.ask("INFO", "commandstats").splitlines()[1:]
        return {row.split(":")[0].removeprefix("cmdstat_"): int(row.split("calls=")[1].split(",")[0]) for row in rows}

    def kill(self):
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def frozen(self):
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    def finish(self):
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


def read_texts(path):
    """What the API takes of a trace: rows of milliseconds, room, text."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as rows:
        texts = [row.rstrip("\n").split("\t", 2)[2] for row in rows]
    return [text for text in texts if 0 < len(text.encode()) <= 1024]


class Chat:
    """Lively chat into one daemon, and the books of it: every line has at most one fate, and one fate if the daemon lives."""

    def __init__(self, daemon, rate, rng, texts=None, apps=None):
        self.daemon = daemon
        self.rate = rate
        self.rng = rng
        self.texts = texts  # real ones
        self.apps = apps  # None: the daemon has just one
        self.offered = 0
        self.heard = []  # (ns, reply)
        self.is_over = threading.Event()
        self.broke = False  # the daemon went away under it
        self.writer = daemon.connect()
        self.writer.socket.settimeout(None)
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.write, self.listen)]
        for thread in self.threads:
            thread.start()

    def write(self):
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while not self.is_over.wait(0.02):
                due = int((time.monotonic() - began) * self.rate) - self.offered
                lines = [self.line(self.offered + i) for i in range(due)]
                if lines:
                    self.writer.send(*lines)
                    self.offered += due
            self.writer.half_close()
            return
        self.broke = True

    def line(self, number):
        if self.texts:
            text = self.texts[number % len(self.texts)]
        else:
            text = " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, 6)))
        app = self.rng.choice(self.apps) if self.apps else None
        return message(text, room=f"room{number % 16}", user=f"user{number % 97}", id=number, AppId=app)

    def listen(self):
        with contextlib.suppress(OSError):
            while True:
                try:
                    reply = self.writer.reply()
                except AssertionError:
                    break
                self.heard.append((time.monotonic_ns(), reply))

    def end(self):
        """No more lines; waits for the fates of those that there were."""
        self.is_over.set()
        for thread in self.threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "the chat does not end"
        return self

    def fates(self):
        return Counter("/".join(filter(None, [r["outcome"], r.get("reason")])) for _, r in list(self.heard))

    def check(self, daemon_died=False):
        ids = [reply.get("id") for _, reply in self.heard]
        assert len(ids) == len(set(ids)), "a line was told two fates"
        assert set(ids) <= set(range(self.offered))
        if not daemon_died:
            assert not self.broke and len(ids) == self.offered, f"{self.offered - len(ids)} lines were told no fate"


class Cluster:
    """Namespaces for the hub and for each host, each host with one link to the API and one to the engine.

    From then on this thread, and what it starts, is in the hub's network, until all that was started has ended.
    """

    API, ENGINE = "10.77.0.1", "10.78.0.1"

    def __init__(self, host, hosts=4, n=100, program="redis-server", on_lost="share", latency=20, jitter=5, seed=None,
                 trace=None):  # fmt: skip
        self.host = host
        self.hosts = hosts
        self.n = n
        self.on_lost = on_lost
        self.seed = random.randrange(1 << 32) if seed is None else seed
        print(f"seed {self.seed}")
        self.rng = random.Random(self.seed)
        self.texts = read_texts(trace) if trace else None
        self.networks = {}
        self.daemons = {}
        self.chats = []
        self.is_slowed = False  # whether the links have half a millisecond there and back
        self.hub = Network(host.stack, host)
        self.hub.ip("link set lo up")
        for name, address in (("api", self.API), ("engine", self.ENGINE)):
            self.hub.ip(f"link add {name} type bridge")
            self.hub.ip(f"address add {address}/24 dev {name}")
            self.hub.ip(f"link set {name} up")
        host.stack.enter_context(self.hub.inside())
        self.engine = Engine(host, program, self.ENGINE).start()
        self.zego = host.zego(apps={APP: n}, http=False, address=self.API, latency=latency, jitter=jitter)

    def network(self, i):
        if i not in self.networks:
            network = self.networks[i] = Network(self.host.stack, self.host)
            network.ip("link set lo up")
            for name, prefix in (("api", "10.77.0"), ("engine", "10.78.0")):
                self.hub.ip(f"link add {name}{i} type veth peer name {name} netns {network.holder.pid}")
                self.hub.ip(f"link set {name}{i} master {name} up")
                network.ip(f"address add {prefix}.{10 + i}/24 dev {name}")
                network.ip(f"link set {name} up")
            # Half a millisecond there and back, where the kernel knows how.
            delays = [[*self.hub.command, "tc", "qdisc", "add", "dev", f"engine{i}", "root", "netem", "delay", "250us"],
                      [*network.command, "tc", "qdisc", "add", "dev", "engine", "root", "netem", "delay", "250us"]]  # fmt: skip
            self.is_slowed = all(subprocess.run(command, capture_output=True).returncode == 0 for command in delays)
        return self.networks[i]

    def shared(self, i):
        return {
            "redis": self.engine.url,
            "password_file": self.engine.password_file,
            "hosts": self.hosts,
            "on_lost": self.on_lost,
            "name": f"host{i}",
        }

    def daemon(self, i, start=True):
        """The daemon of that host, started; another one if there has been one, which finds what that has left."""
        folder = self.host.directory / f"run{i}"
        folder.mkdir(exist_ok=True)
        daemon = self.daemons[i] = self.host.daemon(
            self.zego,
            start=start,
            command=self.network(i).command,
            environment={"RUNTIME_DIRECTORY": str(folder)},
            upstream={"timeout": "2s", "connect_timeout": "1s"},
            shared=self.shared(i),
            app={"rate": self.n, "room_rate": 0},
        )
        return daemon

    def chat(self, daemon, share=2.0):
        """Chat into a daemon, `share` times what would be its own if all shared alike."""
        chat = Chat(daemon, share * self.n / self.hosts, random.Random(self.rng.random()), self.texts)
        self.chats.append(chat)
        return chat

    def kill(self, i):
        """kill -9; what is left of the daemon is not looked at."""
        daemon = self.daemons[i]
        daemon.has_been_awaited = True
        daemon.process.kill()
        daemon.process.wait()

    def pull(self, i, name="engine"):
        """Take the plug of a link out, at the far end: what is sent is lost."""
        self.hub.ip(f"link set {name}{i} down")

    def plug(self, i, name="engine"):
        self.hub.ip(f"link set {name}{i} up")

    def state(self, i):
        return self.daemons[i].control("status")["shared"]["state"]

    def wait_for_state(self, state, *hosts):
        for i in hosts:
            eventually(lambda: self.state(i) == state, f"host {i} to be {state}")

    # What the sandbox saw.

    def used(self, since, until):
        """Which part of N was used between two times of time.monotonic_ns()."""
        if until <= since:
            return 0
        n = sum(since <= at < until for at in self.zego.arrivals(APP))
        return n / (self.n * (until - since) / SECOND)

    def sent_by(self, i, since, until):
        """How many messages of that host's chats were accepted, by when their fates were told."""
        chats = [chat for chat in self.chats if chat.daemon is self.daemons[i]]
        return sum(since <= at < until and r["outcome"] == "sent" for chat in chats for at, r in list(chat.heard))
