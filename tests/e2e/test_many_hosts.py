# SPDX-License-Identifier: MIT
"""One AppID, several hosts, one sandbox that counts: whatever befalls a host, the engine or a link, it never sees more
than N in a second, every line has one fate, and what can be used is used again when it is over.

Each host has a network of its own. tests/many_hosts plays more of this for longer, and with more hosts.
"""

import contextlib
import json
import select
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from many_hosts import ENGINES, SECOND, Cluster, Engine
from support import APP, EX_CONFIG, OTHER_APP, ROOT, Sample, eventually, has_hiredis, message, outcome, patience
from test_networks import name_server, network, server  # noqa: F401  (fixtures)

pytestmark = [
    pytest.mark.skipif(not has_hiredis(), reason="barraged was built without hiredis"),
    pytest.mark.skipif(not ENGINES, reason="there is neither redis-server nor valkey-server"),
]


@pytest.fixture(params=ENGINES)
def engine(request, host):
    """An engine on a Unix socket, for daemons that need no network."""
    return Engine(host, request.param).start()


MANY_HOSTS = (ROOT / "docs/MANY-HOSTS.md").read_text()


def shared(engine, name="host", **keys):
    return {"redis": engine.url, "password_file": engine.password_file, "hosts": 2, "name": name} | keys


def state(daemon):
    return daemon.control("status")["shared"]["state"]


def wait_for_state(daemon, expected):
    eventually(lambda: state(daemon) == expected, f"the daemon to be {expected}")


def allotment(daemon, app_id=APP):
    return next(app["allotment"] for app in daemon.control("status")["apps"] if app["AppId"] == app_id)


# The whole, with faults.


def test_the_sum_keeps_to_n_through_the_loss_of_daemons_links_and_the_engine(host):
    """Over TCP, going on with shares."""
    cluster = Cluster(host, hosts=4)
    daemons = [cluster.daemon(i) for i in range(4)]
    cluster.wait_for_state("in_touch", *range(4))
    chats = [cluster.chat(daemon) for daemon in daemons]

    began = time.monotonic_ns()
    time.sleep(4)
    steady = cluster.used(began + SECOND, time.monotonic_ns())

    cluster.kill(0)
    time.sleep(0.5)
    again = cluster.daemon(0)
    chats.append(cluster.chat(again))
    cluster.wait_for_state("in_touch", 0)

    cluster.engine.kill()
    cluster.wait_for_state("lost", *range(4))
    time.sleep(2)
    cluster.engine.start()
    cluster.wait_for_state("in_touch", *range(4))

    cluster.pull(1)
    cluster.wait_for_state("lost", 1)
    time.sleep(1)
    cluster.plug(1)
    cluster.wait_for_state("in_touch", *range(4))
    time.sleep(1)

    for i, chat in enumerate(chats):
        chat.end().check(daemon_died=i == 0)
    assert steady > 0.5, "the hosts do not use what is theirs"
    print(f"used while all was well: {steady:.1%}")


def test_the_sum_keeps_to_n_when_who_holds_it_stands_still_comes_or_goes(host):
    """Over TCP, holding without the engine."""
    cluster = Cluster(host, hosts=3, on_lost="hold")
    daemons = [cluster.daemon(i) for i in range(2)]
    cluster.wait_for_state("in_touch", 0, 1)
    chats = [cluster.chat(daemon) for daemon in daemons]
    time.sleep(1)

    with daemons[0].stopped():
        time.sleep(2)
    cluster.wait_for_state("in_touch", 0, 1)

    with cluster.engine.frozen():
        cluster.wait_for_state("lost", 0, 1)
        time.sleep(3)
        since = time.monotonic_ns()
        time.sleep(1)
        assert cluster.used(since, time.monotonic_ns()) == 0, "sent while it should hold"
    cluster.wait_for_state("in_touch", 0, 1)

    assert daemons[1].reload(queue={"max_age": "2s"})
    chats.append(cluster.chat(cluster.daemon(2)))
    cluster.wait_for_state("in_touch", 0, 1, 2)
    eventually(lambda: cluster.sent_by(2, 0, time.monotonic_ns()) > 0, "the new one to send")

    chats[0].end()
    assert daemons[0].stop() == 0
    since = time.monotonic_ns()
    time.sleep(1)
    eventually(lambda: cluster.sent_by(1, since, time.monotonic_ns()) > 0, "the others to go on")
    for chat in chats:
        chat.end().check()


# One daemon and its engine.


def entries(engine, prefix="barraged:"):
    """The names of those that the engine knows."""
    names = engine.ask("HKEYS", f"{prefix}hosts").split()
    return {name for name in names if name[0] not in "#!~+"}


def test_a_daemon_joins_sends_and_says_goodbye(host, engine):
    zego = host.zego()
    daemon = host.daemon(zego, shared=shared(engine, hosts=1))
    wait_for_state(daemon, "in_touch")
    replies = daemon.connect().ask(*[message(room=f"{i}", id=i) for i in range(20)])
    assert {outcome(reply) for reply in replies} == {"sent"}
    status = daemon.control("status")["shared"]
    assert status["redis"] == engine.url and status["name"] == "host" and status["hosts"] == 1
    assert abs(status["since"] - time.time()) < 100
    assert status["connections_opened"] == 2 and status["connections_failed"] == 0
    metrics = daemon.metrics()
    assert metrics[Sample("barraged_shared_state", (("state", "in_touch"),))] == 1
    assert metrics[Sample("barraged_shared_state", (("state", "lost"),))] == 0
    assert metrics[Sample("barraged_allotment", (("app", str(APP)),))] == 100
    assert metrics[Sample("barraged_shared_calls_total")] >= 2
    eventually(lambda: daemon.metrics()[Sample("barraged_share", (("app", str(APP)),))] == 100, "its share")
    assert entries(engine) == {"host"}
    assert "shared  " in daemon.ctl("status").stdout and "in touch, as host of 1 hosts" in daemon.ctl("status").stdout
    assert "shared in touch" in daemon.ctl("top", "--once").stdout
    assert daemon.stop() == 0
    assert entries(engine) == set()


def test_an_operator_sees_for_whom_a_share_is_kept(host, engine, zego):
    daemons = [host.daemon(zego, shared=shared(engine, name)) for name in ("relay-2", "relay-1")]
    holder = host.daemon(zego, shared=shared(engine, "relay-3", on_lost="hold"))
    names = ["relay-1", "relay-2"]
    for daemon in (*daemons, holder):
        eventually(lambda: daemon.control("status")["shared"]["members"] == names, "both names")
        assert daemon.metrics()[Sample("barraged_shared_members")] == 2
        assert "\nshare kept for relay-1 relay-2\n" in daemon.ctl("status").stdout
    daemons[1].has_been_awaited = True
    daemons[1].process.kill()
    assert daemons[0].control("status")["shared"]["members"] == names, "whoever is silent may be there"
    assert daemons[0].stop() == 0
    eventually(lambda: holder.control("status")["shared"]["members"] == ["relay-1"], "the goodbye")
    assert holder.reload(shared={"redis": None})
    wait_for_state(holder, "off")
    assert holder.control("status")["shared"]["members"] == []
    assert holder.metrics()[Sample("barraged_shared_members")] == 0
    assert "share kept" not in holder.ctl("status").stdout


def test_without_a_section_nobody_is_asked(host, zego, engine):
    daemon = host.daemon(zego)
    assert outcome(daemon.connect().ask(message(id=1))) == "sent"
    status = daemon.control("status")
    assert status["shared"]["state"] == "off" and status["shared"]["since"] == 0
    assert status["apps"][0]["allotment"] == status["apps"][0]["share"] == 100
    assert "shared" not in daemon.ctl("status").stdout
    assert daemon.metrics()[Sample("barraged_shared_state", (("state", "off"),))] == 1
    assert status["shared"]["members"] == [] and status["shared"]["trouble"] == ""
    assert daemon.metrics()[Sample("barraged_shared_members")] == 0
    assert set(engine.calls()) <= {"auth", "ping", "info"}


def test_what_is_not_shared_does_without_the_engine(host):
    engine = Engine(host, ENGINES[0])  # not started
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    daemon = host.daemon(
        zego, shared=shared(engine), apps={APP: {}, OTHER_APP: {"shared": "no"}}, queue={"max_age": "1s"}
    )
    writer = daemon.connect()
    assert outcome(writer.ask(message(AppId=OTHER_APP, id=1))) == "sent"
    assert outcome(writer.ask(message(AppId=APP, id=2))) == "expired"
    assert state(daemon) == "joining"
    assert "shared: not yet in touch; what is shared waits" in daemon.log
    assert '"connecting: No such file or directory"' in daemon.log
    engine.start()
    assert outcome(writer.ask(message(AppId=APP, id=3, ttl_ms=60_000))) == "sent"


def test_a_wrong_password_is_told_and_a_right_one_taken_by_reload(host, engine, zego):
    right = engine.password_file.read_text()
    engine.password_file.write_text("wrong\n")
    daemon = host.daemon(zego, shared=shared(engine), queue={"max_age": "60s"})
    daemon.wait_for_log("WRONGPASS")
    assert daemon.control("status")["shared"]["trouble"].startswith("it answers: WRONGPASS")
    assert "\nconnection     it answers: WRONGPASS" in daemon.ctl("status").stdout
    writer = daemon.connect()
    writer.send(message(id=1))
    engine.password_file.write_text(right)
    assert daemon.reload()
    assert outcome(writer.reply()) == "sent"
    eventually(lambda: daemon.control("status")["shared"]["trouble"] == "", "an end of it")
    assert "\nconnection " not in daemon.ctl("status").stdout


def test_a_user_of_the_engine_needs_no_more_than_the_manual_gives_him(host, engine, zego):
    """The line in docs/MANY-HOSTS.md."""
    rule = next(line for line in MANY_HOSTS.splitlines() if line.startswith("user barraged on "))
    words = rule.replace(">PASSWORD", f">{engine.password}").split()[1:]
    engine.ask("ACL", "SETUSER", *words)
    daemon = host.daemon(zego, shared=shared(engine, user=words[0]))
    wait_for_state(daemon, "in_touch")
    assert outcome(daemon.connect().ask(message(id=1))) == "sent"
    eventually(lambda: daemon.control("status")["shared"]["connections_opened"] == 2, "both connections")
    other = host.daemon(zego, shared=shared(engine, "other", user=words[0]))
    wait_for_state(other, "in_touch")
    assert daemon.stop() == other.stop() == 0
    assert entries(engine) == set()
    assert "NOPERM" not in daemon.log + other.log


@pytest.mark.parametrize(
    "right, trouble",
    (
        ("-info", "calls|NOPERM this user has no permissions to run the 'info' command"),
        ("-script|load", "calls|NOPERM this user has no permissions to run the 'script"),
        ("-evalsha", "calls|NOPERM this user has no permissions to run the 'evalsha' command"),
        ("-hset", "calls|ERR The user executing the script can't run this command"),
        ("resetkeys", "calls|NOPERM this user has no permissions to access one of the keys"),
        ("-subscribe", "hints|NOPERM this user has no permissions to run the 'subscribe' command"),
    ),
)
def test_a_right_that_is_missing_is_told(host, engine, zego, right, trouble):
    """In the words of Redis, for whoever has the line in docs/MANY-HOSTS.md in front of him."""
    rule = next(line for line in MANY_HOSTS.splitlines() if line.startswith("user barraged on "))
    engine.ask("ACL", "SETUSER", *rule.replace(">PASSWORD", f">{engine.password}").split()[1:])
    engine.ask("ACL", "SETUSER", "barraged", right)
    daemon = host.daemon(zego, shared=shared(engine, user="barraged"))
    line, words = trouble.split("|", 1)
    daemon.wait_for_log(f'for {line} to {engine.url} cannot be used: "it answers: {words}')
    eventually(lambda: words in daemon.ctl("status").stdout, "it in the status")
    engine.ask("ACL", "SETUSER", *rule.replace(">PASSWORD", f">{engine.password}").split()[1:])
    wait_for_state(daemon, "in_touch")
    eventually(lambda: daemon.control("status")["shared"]["trouble"] == "", "an end of it")


@pytest.mark.parametrize("harm", (("SCRIPT", "FLUSH"), ("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal")))
def test_the_engine_forgets_and_is_told_again(host, engine, zego, harm):
    daemon = host.daemon(zego, shared=shared(engine, hosts=1))
    wait_for_state(daemon, "in_touch")
    before = daemon.control("status")["shared"]["calls"]
    engine.ask(*harm, check=False)
    eventually(lambda: daemon.control("status")["shared"]["calls"] > before + 3, "more calls")
    wait_for_state(daemon, "in_touch")
    assert outcome(daemon.connect().ask(message(id=1, ttl_ms=60_000))) == "sent"
    assert entries(engine) == {"host"}


def test_a_name_that_two_have_belongs_to_the_latter(host, engine, zego):
    """As when a daemon is killed and started again at once; the former must not go on beside it."""
    first = host.daemon(zego, shared=shared(engine), queue={"max_age": "1s"})
    wait_for_state(first, "in_touch")
    second = host.daemon(zego, shared=shared(engine))
    wait_for_state(second, "in_touch")
    wait_for_state(first, "taken")
    first.wait_for_log("error: shared: another process goes by this host's name")
    assert outcome(first.connect().ask(message(id=1))) == "expired"
    assert second.stop() == 0
    wait_for_state(first, "in_touch")


def incarnation(engine, name="host"):
    """Of the process that goes by the name; None: nobody does."""
    return next(iter(engine.ask("HGET", "barraged:hosts", name).split()), None)


def content(path):
    return path.read_text() if path.exists() else ""


def kill(daemon):
    daemon.process.kill()
    daemon.wait()


def test_a_daemon_that_is_killed_leaves_behind_how_it_sent(host, engine, zego):
    """So that the next one waits for what the engine does not know of, and for nothing else."""
    daemon = host.daemon(zego, shared=shared(engine), upstream={"timeout": "1s", "connect_timeout": "1s"})
    pledge = Path(f"{daemon.socket}.pledge")
    eventually(lambda: content(pledge) == incarnation(engine), "the pledge")
    first = incarnation(engine)
    kill(daemon)
    time.sleep(5)  # longer than anything of it is under way
    daemon.start()
    eventually(lambda: content(pledge) == incarnation(engine) != first, "the pledge of the next one")
    assert f"~host~{first}" not in engine.ask("HKEYS", "barraged:hosts").split()

    second = incarnation(engine)
    with engine.frozen():
        wait_for_state(daemon, "lost")
        eventually(lambda: content(pledge) == "", "it to be taken back")
        time.sleep(5)
        kill(daemon)
    daemon.start()
    eventually(lambda: f"~host~{second}" in engine.ask("HKEYS", "barraged:hosts").split(), "it to be waited for")


def test_a_pledge_that_cannot_be_left_is_told_and_done_without(host, engine, zego):
    folder = host.directory / "no folder"
    daemon = host.daemon(zego, shared=shared(engine), environment={"RUNTIME_DIRECTORY": f"{folder}:/elsewhere"})
    wait_for_state(daemon, "in_touch")
    assert f"{folder}/pledge: No such file or directory" in daemon.log
    folder.mkdir()
    (folder / "pledge").write_text("not an incarnation, and longer than any of them\n" * 100)
    kill(daemon)
    daemon.start()
    eventually(lambda: content(folder / "pledge") == incarnation(engine), "the pledge")
    other = host.daemon(zego, shared=shared(engine, "other"), environment={"RUNTIME_DIRECTORY": str(folder)})
    wait_for_state(other, "in_touch")
    assert f"{folder}/pledge: another process has it" in other.log
    (folder / "pledge").unlink()
    engine.kill()
    wait_for_state(daemon, "lost")
    assert "cannot be taken back" not in daemon.log


def test_a_reload_begins_and_ends_sharing(host, engine, zego):
    daemon = host.daemon(zego)
    writer = daemon.connect()
    assert outcome(writer.ask(message(id=1))) == "sent"
    assert daemon.reload(shared=shared(engine))
    wait_for_state(daemon, "in_touch")
    assert outcome(writer.ask(message(id=2, ttl_ms=60_000))) == "sent"
    daemon.configure(shared={"name": "another"})
    assert daemon.control("reload")["warnings"] == ["name has changed: that takes effect at the next start"]
    assert daemon.control("status")["shared"]["name"] == "host"
    assert outcome(writer.ask(message(id=3, ttl_ms=60_000))) == "sent"
    assert daemon.reload(shared={"redis": None, "name": None})
    eventually(lambda: entries(engine) == set(), "the goodbye")
    wait_for_state(daemon, "off")
    assert outcome(writer.ask(message(id=4, ttl_ms=60_000))) == "sent"
    assert daemon.reload(shared=shared(engine, "another"))
    wait_for_state(daemon, "in_touch")
    assert entries(engine) == {"another"}
    assert outcome(writer.ask(message(id=5, ttl_ms=60_000))) == "sent"


def test_sharing_ends_although_nobody_can_be_told(host, engine, zego):
    daemon = host.daemon(zego, shared=shared(engine))
    wait_for_state(daemon, "in_touch")
    engine.kill()
    wait_for_state(daemon, "lost")
    assert daemon.reload(shared={"redis": None})
    wait_for_state(daemon, "off")
    failed = daemon.control("status")["shared"]["connections_failed"]
    assert outcome(daemon.connect().ask(message(id=1, ttl_ms=60_000))) == "sent"
    time.sleep(1)
    assert daemon.control("status")["shared"]["connections_failed"] == failed
    engine.start()
    assert daemon.reload(shared=shared(engine))
    wait_for_state(daemon, "in_touch")
    assert outcome(daemon.connect().ask(message(id=2, ttl_ms=60_000))) == "sent"


def test_a_section_that_shares_nothing_is_told(host, zego):
    sentence = "[shared] has no redis: every AppID's budget is this host's alone"
    daemon = host.daemon(zego, shared={"hosts": 2})
    assert f"warning: {sentence}" in daemon.log
    assert daemon.control("reload")["warnings"] == [sentence]
    checked = host.run("--config", daemon.config, "--check-config")
    line = daemon.config.read_text().splitlines().index("[shared]") + 1
    assert (checked.returncode, checked.stderr) == (0, f"{daemon.config}:{line}: warning: {sentence}\n")


def test_an_appid_with_less_than_a_message_for_each_host_is_told(host, engine, zego):
    daemon = host.daemon(zego, shared=shared(engine, hosts=4), app={"rate": 3})
    sentence = f"app={APP} has a rate of 3 for 4 hosts: one that is cut off has no share, and sends nothing"
    assert f"warning: {sentence}" in daemon.log
    wait_for_state(daemon, "in_touch")
    assert daemon.control("reload")["warnings"] == [sentence]
    assert host.run("--config", daemon.config, "--check-config").stderr.endswith(f": warning: {sentence}\n")
    assert outcome(daemon.connect().ask(message(id=1, ttl_ms=60_000))) == "sent"
    assert daemon.reload(shared={"on_lost": "hold"})
    assert daemon.control("reload")["warnings"] == []


# What calls itself an engine and is none.


class Impostor:
    """Listens where an engine should be, says something to whoever connects, and no more."""

    def __init__(self, path, greeting):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.greeting = greeting
        self.clients = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.clients.append(client)
                if self.greeting is None:
                    client.close()
                    continue
                with contextlib.suppress(OSError):
                    client.sendall(self.greeting)
                if self.greeting.startswith(b"-"):
                    select.select([client], [], [], patience())
                    client.close()  # what has been said to it is left unread: a reset

    def close(self):
        self.listener.close()
        for client in self.clients:
            client.close()


GREETINGS = {
    "silence": b"",
    "a closed door": None,
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a refusal": b"-DENIED Redis is running in protected mode\r\n",
    "answers of the wrong kind": b":1\r\n:2\r\n:3\r\n",
    "answers to nobody": b"+OK\r\n" * 1000,
    "no run_id": b"+OK\r\n$2\r\nhi\r\n",
    "a reply without end": b"$2000000000\r\n" + b"x" * (8 << 20),
    "depth": b"*1\r\n" * 100,
    "arrays of arrays": b"*64\r\n" * 3 + (b"*64\r\n" * 63 + b"*0\r\n" * 64) * 4000,
    "more than there can be": b"*2147483647\r\n",
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_what_is_no_engine_does_no_harm(host, greeting):
    engine = Engine(host, ENGINES[0])  # not started
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    with contextlib.closing(Impostor(engine.socket, GREETINGS[greeting])) as impostor:
        daemon = host.daemon(
            zego, shared=shared(engine), apps={APP: {}, OTHER_APP: {"shared": "no"}}, queue={"max_age": "60s"}
        )
        eventually(lambda: daemon.control("status")["shared"]["connections_failed"] >= 3, "three attempts")
        writer = daemon.connect()
        writer.send(message(AppId=APP, id=1))
        assert outcome(writer.ask(message(AppId=OTHER_APP, id=2))) == "sent"
        assert len(daemon.descriptors()) < 40
        assert daemon.resident() < 100 << 20
        assert impostor.clients
        assert greeting != "a refusal" or "DENIED" in daemon.log
    engine.socket.unlink()
    engine.start()
    assert outcome(writer.reply()) == "sent"


def bulk(text):
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


class Player:
    """An engine as far as its greeting goes; what it then says to calls and to those who listen is the test's."""

    def __init__(self, path, answer, hint=b"", **greeting):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.answer = answer
        self.hint = hint
        usual = {"AUTH": b"+OK\r\n", "INFO": bulk("# Server\r\nrun_id:abc\r\n"), "SCRIPT": bulk("a" * 40)}
        self.greeting = usual | greeting
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.play, args=(client,), daemon=True).start()

    def play(self, client):
        with contextlib.suppress(OSError, ValueError), client, client.makefile("rb") as stream:
            while True:
                words = [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(int(stream.readline()[1:]))]
                client.sendall(self.reply(words))

    def reply(self, words):
        if words[0] == b"EVALSHA":
            return self.answer if isinstance(self.answer, bytes) else self.answer[words[5].decode()]
        if words[0] == b"SUBSCRIBE":
            return b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n" * len(words[1:]) + self.hint
        return self.greeting[words[0].decode()]

    def close(self):
        self.listener.close()


def reply(*values):
    """As the engine would write it: integers, texts, and bytes as they stand."""
    texts = {int: lambda n: b":%d\r\n" % n, str: bulk, bytes: bytes}
    return b"*%d\r\n" % len(values) + b"".join(texts[type(value)](value) for value in values)


WELL = reply("ok", 1000, 5000, "life", "", "host")
ALL_WELL = {"hello": WELL, "beat": WELL, "sync": reply("ok", 1000, 5000, 50, 50, 50, 0)}
ALL_WELL |= {"bye": reply("ok", 1000, 5000), "leave": reply("ok", 1000, 5000)}

NOT_UNDERSTOOD = "an answer that is not understood"
# What is answered to a call, and what is then told of the connection.
ANSWERS = {
    "an error": (b"-LOADING Redis is loading\r\n", "it answers: LOADING Redis is loading"),
    "nothing": (b"$-1\r\n", "an answer that is none"),
    "no array": (b"*-1\r\n", "an answer that is none"),
    "an empty array": (reply(), "an answer that is none"),
    "a text": (b"+OK\r\n", "an answer that is none"),
    "a number": (reply(1), NOT_UNDERSTOOD),
    "an unknown word": (reply("old"), NOT_UNDERSTOOD),
    "too little": (reply("ok", 1, 2), NOT_UNDERSTOOD),
    "too much": (reply("ok", 1, 2, "life", "", "", ""), NOT_UNDERSTOOD),
    "nothings": (reply(*[b"$-1\r\n"] * 6), NOT_UNDERSTOOD),
    "errors": (reply(*[b"-ERR\r\n"] * 6), NOT_UNDERSTOOD),
    "a life that is too long": (reply("ok", 1, 2, "x" * 128, "", ""), NOT_UNDERSTOOD),
    "an array within": (reply("ok", 1, 2, reply(1), "", ""), "an array that is too long, or within another"),
    "the same again": (WELL + WELL, NOT_UNDERSTOOD),
    "an answer to hello for each": (WELL, NOT_UNDERSTOOD),
    "no answer": (b"", "no answer in time"),
}


def attempts_are_few(daemon):
    """However a connection fails, the next one waits: 250 ms at the least when the last ones did, too."""
    failed = eventually(lambda: (n := daemon.control("status")["shared"]["connections_failed"]) >= 4 and n, "failures")
    began = time.monotonic()
    time.sleep(1)
    more = daemon.control("status")["shared"]["connections_failed"] - failed
    assert more <= (time.monotonic() - began) / 0.25 + 1, "it tries without a pause"


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_no_answer_is_told_and_does_no_harm(host, answer):
    engine = Engine(host, ENGINES[0])  # not started
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    said, trouble = ANSWERS[answer]
    with contextlib.closing(Player(engine.socket, said)):
        daemon = host.daemon(
            zego, shared=shared(engine), apps={APP: {}, OTHER_APP: {"shared": "no"}}, queue={"max_age": "60s"}
        )
        writer = daemon.connect()
        writer.send(message(AppId=APP, id=1))
        attempts_are_few(daemon)
        assert outcome(writer.ask(message(AppId=OTHER_APP, id=2))) == "sent"
        assert f'for calls to unix:{engine.socket} cannot be used: "{trouble}"' in daemon.log
    engine.socket.unlink()
    engine.start()
    assert outcome(writer.reply()) == "sent"


@pytest.mark.parametrize(
    "greeting, trouble",
    (
        ({"INFO": b"-LOADING Redis is loading\r\n"}, "it answers: LOADING Redis is loading"),
        ({"INFO": bulk("# Server\r\n")}, "it does not tell its run_id"),
        ({"INFO": bulk("# Server\r\nrun_id:\r\n")}, "it does not tell its run_id"),
        ({"INFO": bulk("# Server\r\nrun_id:" + "x" * 64)}, "it does not tell its run_id"),
        ({"INFO": b":5\r\n"}, "it does not tell its run_id"),
        ({"SCRIPT": bulk("a" * 39)}, "it does not tell the script's name"),
        ({"SCRIPT": b":5\r\n"}, "it does not tell the script's name"),
        ({"SCRIPT": b""}, "it does not answer"),
    ),
    ids=str,
)
def test_a_greeting_that_is_none_is_told(host, zego, greeting, trouble):
    engine = Engine(host, ENGINES[0])  # not started
    with contextlib.closing(Player(engine.socket, ALL_WELL, **greeting)):
        daemon = host.daemon(zego, shared=shared(engine))
        attempts_are_few(daemon)
        assert f'for calls to unix:{engine.socket} cannot be used: "{trouble}"' in daemon.log
        assert state(daemon) == "joining"


@pytest.mark.parametrize(
    "hint, trouble",
    (
        (b"-ERR no more\r\n", "it answers: ERR no more"),
        (reply("message", "x"), "a message that is none"),
        (reply(1, "x", "*"), "a message that is none"),
    ),
)
def test_a_connection_for_hints_that_fails_is_not_made_again_and_again(host, zego, hint, trouble):
    engine = Engine(host, ENGINES[0])  # not started
    with contextlib.closing(Player(engine.socket, ALL_WELL, hint=hint)):
        daemon = host.daemon(zego, shared=shared(engine))
        attempts_are_few(daemon)
        assert f'for hints to unix:{engine.socket} cannot be used: "{trouble}"' in daemon.log
        assert state(daemon) == "in_touch"


def test_hints_without_a_meaning_are_passed_over(host, zego):
    engine = Engine(host, ENGINES[0])  # not started
    hints = [reply("message", "x", value) for value in (5, b"$-1\r\n", "", "99999999999999999999 x", "4294967295", "*!")]
    with contextlib.closing(Player(engine.socket, ALL_WELL, hint=b":5\r\n" + b"".join(hints))):
        daemon = host.daemon(zego, shared=shared(engine))
        eventually(lambda: daemon.control("status")["shared"]["hints"] == 4, "those that are texts")
        status = daemon.control("status")["shared"]
        assert (status["state"], status["connections_failed"]) == ("in_touch", 0)


def test_a_number_that_is_too_large_for_a_time_is_a_long_one(host, zego):
    engine = Engine(host, ENGINES[0])  # not started
    later = {"sync": reply("ok", 1000, 5000, 0, 0, 0, (1 << 63) - 1)}
    with contextlib.closing(Player(engine.socket, ALL_WELL | later)):
        daemon = host.daemon(zego, shared=shared(engine), queue={"max_age": "60s"})
        writer = daemon.connect()
        writer.send(message(id=1))
        wait_for_state(daemon, "in_touch")
        calls, began = daemon.control("status")["shared"]["calls"], time.monotonic()
        time.sleep(1)
        more = daemon.control("status")["shared"]["calls"] - calls
        assert more <= (time.monotonic() - began) / 0.3 + 10, "it asks again at once"


@pytest.mark.parametrize("word", ("stale", "taken", "again"))
def test_hello_is_said_once_in_a_while(host, zego, word):
    """As to two masters, each of which finds the other's books; no connection is given up for it."""
    engine = Engine(host, ENGINES[0])  # not started
    with contextlib.closing(Player(engine.socket, reply(word))):
        daemon = host.daemon(zego, shared=shared(engine))
        eventually(lambda: daemon.control("status")["shared"]["calls"] >= 1, "a hello")
        before, began = daemon.control("status")["shared"], time.monotonic()
        time.sleep(1)
        after = daemon.control("status")["shared"]
        assert after["calls"] - before["calls"] <= (time.monotonic() - began) / 0.3 + 1, "it says hello again at once"
        assert after["connections_failed"] == 0
        assert after["state"] == ("taken" if word == "taken" else "joining")


def test_a_connection_that_is_reset_is_told_as_such(host, zego):
    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(1)  # so that it is greeting
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        daemon = host.daemon(zego, shared={"redis": url, "hosts": 1, "name": "host"})
        daemon.wait_for_log('Connection reset by peer"')


def test_a_server_that_does_not_accept_is_given_up(host, zego):
    """Its queue is full, so that the kernel answers nothing."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        daemon = host.daemon(zego, shared={"redis": url, "hosts": 1, "name": "host"})
        daemon.wait_for_log(f'for calls to {url} cannot be used: "connecting takes too long"')
        attempts_are_few(daemon)
        assert len(daemon.descriptors()) < 40


def test_a_fault_that_hits_some_calls_only_is_not_met_again_and_again(host, engine, zego):
    """The answers to hello and beats are good."""
    engine.ask("SET", f"barraged:app:{APP}", "no hash")
    daemon = host.daemon(zego, shared=shared(engine), queue={"max_age": "60s"})
    attempts_are_few(daemon)
    assert '"it answers: WRONGTYPE' in daemon.log
    writer = daemon.connect()
    writer.send(message(id=1))
    engine.ask("DEL", f"barraged:app:{APP}")
    assert outcome(writer.reply()) == "sent"


def test_a_password_that_is_repeated_is_not_logged(host, zego):
    """As by a server that does not know AUTH; Daemon.finish() looks for it in the log."""
    engine = Engine(host, ENGINES[0])  # not started
    echo = f"-ERR unknown command 'AUTH', with args beginning with: '{engine.password}' \r\n".encode()
    with contextlib.closing(Impostor(engine.socket, echo)):
        daemon = host.daemon(zego, shared=shared(engine))
        daemon.wait_for_log('"it answers: ERR"')
        host.check_secrecy(json.dumps(daemon.control("status")).encode())


# Names, which take their time.


def test_a_name_server_that_is_silent_holds_nothing_up(host, network, name_server, server):
    name_server.silent = True
    with network.inside():
        engine = Engine(host, ENGINES[0], "127.0.0.1").start()
    keys = shared(engine, redis=f"tcp:redis.example:{engine.port}", hosts=1)
    upstream = {"url": f"http://127.0.0.1:{server.port}/"}
    daemon = host.daemon(upstream=upstream, shared=keys, command=network.command, queue={"max_age": "60s"})
    writer = daemon.connect()
    writer.send(message(id=1))
    began = time.monotonic()
    for _ in range(100):
        assert state(daemon) == "joining"
    assert time.monotonic() - began < patience()
    name_server.silent, name_server.addresses = False, ["127.0.0.1"]
    assert outcome(writer.reply()) == "sent"
    assert state(daemon) == "in_touch"


def test_it_is_told_where_the_file_is_wrong(host):
    host.daemon(start=False)  # for its secret
    text = host.config_text(shared={"redis": "redis.example:6379", "name": "a b"})
    config = host.write("wrong.conf", text)
    result = host.run("--config", config, "--check-config")
    line = text.splitlines().index("[shared]") + 1
    assert result.returncode == EX_CONFIG
    assert result.stderr.splitlines() == [
        f"{config}:{line}: hosts is missing in this section: how many are meant to share?",
        f'{config}:{line + 1}: redis: "redis.example:6379" is neither unix:/absolute/path nor tcp:host:port '
        "(such as tcp:10.0.0.7:6379 or tcp:[fd00::7]:6379)",
        f'{config}:{line + 2}: name: "a b" is not made of letters, digits, dots, dashes and underscores',
    ]


def test_a_host_that_is_gone_for_good_is_forgotten_by_hand(host, engine, zego):
    """By the commands in docs/MANY-HOSTS.md."""
    upstream = {"timeout": "1s", "connect_timeout": "1s"}
    first = host.daemon(zego, shared=shared(engine, "relay-1"), upstream=upstream)
    second = host.daemon(zego, shared=shared(engine, "relay-7"), upstream=upstream)
    for daemon in (first, second):
        eventually(lambda: daemon.metrics()[Sample("barraged_share", (("app", str(APP)),))] == 50, "its share")
    second.has_been_awaited = True
    second.process.kill()
    second.process.wait()
    writer = first.connect()

    def has(n):
        """While it has something to send."""
        writer.ask(*[message(room=f"{i}", id=i) for i in range(60)])
        return allotment(first) == n

    time.sleep(5)  # what the other had under way has rested: now all but its share is ours, and that for ever
    eventually(lambda: has(50), "half of N")
    time.sleep(2)
    assert allotment(first) == 50
    commands = [line.split()[1:] for line in MANY_HOSTS.splitlines() if line.startswith("redis-cli ")]
    assert [words[0] for words in commands] == ["HKEYS", "HDEL", "PUBLISH"]
    assert "relay-7" in engine.ask(*commands[0])
    for words in commands[1:]:
        engine.ask(*[word.strip("'") for word in words])
    eventually(lambda: has(100), "all of N")
