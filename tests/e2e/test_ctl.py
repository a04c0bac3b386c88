# SPDX-License-Identifier: MIT
"""barragectl: what an operator types, and what comes of it."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading

import pytest
from support import (
    APP,
    BARRAGECTL,
    EX_CONFIG,
    EX_USAGE,
    OTHER_APP,
    SANITIZERS,
    die_with_the_tests,
    eventually,
    message,
    outcome,
    patience,
)

REFUSED, UNREACHABLE = 1, 2

ONE = ("--room", "room", "--user", "user", "--content")


def lines(*messages):
    return "".join(json.dumps(line) + "\n" if isinstance(line, dict) else line + "\n" for line in messages)


# Sending.


def test_one_message_is_sent(zego, daemon):
    sent = daemon.ctl("send", *ONE, "grüße \"'\\\n", "--name", "a name", "--category", "1", "--ttl", "2000")
    assert sent.returncode == 0 and sent.stderr == ""
    assert re.fullmatch(r"sent MessageId=\S+ RequestId=\d+ waited_ms=\d+ took_ms=\d+\n", sent.stdout)
    assert zego.contents() == ["grüße \"'\\\n"]


def test_which_app_is_said_by_option(host):
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    daemon = host.daemon(zego, apps={APP: {}, OTHER_APP: {}})
    assert daemon.ctl("send", *ONE, "x", "--app", str(OTHER_APP)).returncode == 0
    refused = daemon.ctl("send", *ONE, "x")
    assert refused.returncode == REFUSED and "rejected/invalid: AppId" in refused.stderr
    assert [arrival.app_id for arrival in zego.seen()] == [OTHER_APP]


def test_a_message_that_is_not_sent_is_said_and_fails(host):
    daemon = host.daemon(host.zego(behave=[{"do": {"code": 50012}}]))
    failed = daemon.ctl("send", *ONE, "x")
    assert failed.returncode == REFUSED and failed.stdout == ""
    assert failed.stderr.startswith("failed/api Code=50012")
    machine = daemon.ctl("send", "--json", *ONE, "x")
    assert machine.returncode == REFUSED
    assert json.loads(machine.stdout)["Code"] == 50012


def test_lines_are_sent_few_at_a_time_so_that_none_is_dropped(host):
    zego = host.zego(latency=20)
    daemon = host.daemon(zego, app={"room_rate": 0}, queue={"queue_max": 10})
    sent = daemon.ctl("send", "--window", "10", input=lines(*(message(str(i), room=f"r{i}") for i in range(150))))
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "150 lines: 150 sent\n", "")
    assert sorted(map(int, zego.contents())) == list(range(150))


def test_lines_that_are_not_sent_are_told_by_number(zego, daemon):
    given = lines(message("1"), "nonsense", "", message("2", id="mine"), "{}", ' {"id":4,"Room":1}', message("3"))
    sent = daemon.ctl("send", input=given[:-1])
    assert sent.returncode == REFUSED
    assert sent.stdout.startswith("6 lines: ")
    assert sorted(sent.stdout[len("6 lines: ") : -1].split(", ")) == ["3 rejected/invalid", "3 sent"]
    told = sorted(sent.stderr.splitlines())
    assert told[0].startswith("line 2: rejected/invalid: ")
    assert told[1] == "line 5: rejected/invalid: RoomId is missing"
    assert told[2].startswith('line 6: rejected/invalid: unknown field "Room"')
    assert sorted(zego.contents()) == ["1", "2", "3"]


def test_each_line_has_one_reply_for_scripts(daemon):
    sent = daemon.ctl("send", "--json", input=lines(message("1"), "x", message("2", id="mine")))
    replies = [json.loads(line) for line in sent.stdout.splitlines()]
    assert sorted((str(reply.get("id", reply.get("line"))), outcome(reply)) for reply in replies) == [
        ("1", "sent"),
        ("2", "invalid"),
        ("mine", "sent"),
    ]


def test_nothing_to_send_is_no_failure(daemon):
    sent = daemon.ctl("send", input="\n\n")
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "0 lines\n", "")


def start_sending(daemon, *arguments):
    """Starts "send" with its input still to be written."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [BARRAGECTL, "--config", daemon.config, "send", *arguments]
    return subprocess.Popen(command, **pipes, text=True, preexec_fn=die_with_the_tests)


def test_a_daemon_that_stops_leaves_no_line_untold(host):
    daemon = host.daemon(host.zego(latency=100), app={"rate": 1, "burst": 1}, daemon={"drain_timeout": 0})
    sending = start_sending(daemon)
    sending.stdin.write(lines(*(message(str(i)) for i in range(10))))
    sending.stdin.flush()
    eventually(lambda: daemon.control("status")["apps"][0]["lines"] == 10, "the lines to arrive")
    assert daemon.stop() == 0
    out, err = sending.communicate(timeout=60)
    assert sending.returncode == REFUSED
    told = int(re.search(r"(\d+) dropped/shutdown", out)[1])
    assert told + len(re.findall(r"unknown what became", err)) >= 1


def test_lines_that_come_when_the_daemon_has_left_do_not_pass_for_sent(host):
    daemon = host.daemon(host.zego())
    sending = start_sending(daemon)
    sending.stdin.write(lines(message("1")))
    sending.stdin.flush()
    eventually(lambda: daemon.control("status")["fates"]["sent"] == 1, "the first line to be sent")
    assert daemon.stop() == 0
    assert sending.wait(timeout=60) == REFUSED
    assert sending.stdout.read() == "1 lines: 1 sent\n"
    assert sending.stderr.read() == "barragectl: barraged closed the connection; nothing after line 1 was sent\n"


def test_replies_for_scripts_come_as_the_fates_fall(daemon):
    sending = start_sending(daemon, "--json")
    for content in ("1", "2"):
        sending.stdin.write(lines(message(content)))
        sending.stdin.flush()
        # Its input stays open: if it kept the reply to itself, this would wait for ever.
        assert select.select([sending.stdout], [], [], patience())[0], "no reply"
        assert json.loads(sending.stdout.readline())["id"] == int(content)
    sending.communicate(timeout=60)
    assert sending.returncode == 0


def test_input_that_cannot_be_read_is_a_failure(daemon):
    command = f"{BARRAGECTL} --config {daemon.config} send < {daemon.host.directory}"
    sent = daemon.host.run("-c", command, program="sh")
    assert (sent.returncode, sent.stdout) == (REFUSED, "0 lines\n")
    assert sent.stderr == "barragectl: cannot read standard input: Is a directory\n"


def test_a_closed_descriptor_does_not_become_the_socket(daemon):
    def run(arguments):
        return daemon.host.run("-c", f"{BARRAGECTL} --config {daemon.config} {arguments}", program="sh")

    unread = run("send <&-")
    assert (unread.returncode, unread.stdout) == (REFUSED, "0 lines\n")
    assert unread.stderr == "barragectl: cannot read standard input: Bad file descriptor\n"
    for arguments in ("--room r --user u --content x >&-", "--json --room r --user u --content x >&- 2>&-"):
        assert run(f"send {arguments}").returncode == REFUSED
    # What it could not print was not taken for lines.
    assert daemon.summary() == {"lines": 2, "sent": 2}


def test_a_crowded_daemon_is_told(host):
    daemon = host.daemon(host.zego(), daemon={"max_clients": 1})
    daemon.connect().sync()
    sent = daemon.ctl("send", *ONE, "x")
    assert sent.returncode == REFUSED and "too_many_clients" in sent.stderr


# Asking and steering.


def test_the_status_is_for_people_and_for_scripts(daemon):
    daemon.connect().ask(message(id=1), b"x")
    text = daemon.ctl("status")
    assert text.returncode == 0
    assert f"AppID {APP} running; N 100 of 100" in text.stdout
    assert "lines          1 sent, 0 dropped, 0 failed, 1 rejected (invalid 1)\n" in text.stdout
    machine = daemon.ctl("status", "--json")
    assert machine.returncode == 0 and machine.stdout.count("\n") == 1
    assert json.loads(machine.stdout)["fates"]["sent"] == 1


def test_pause_and_resume(daemon):
    assert daemon.ctl("pause", str(APP)).returncode == 0
    assert f"AppID {APP} paused" in daemon.ctl("status").stdout
    assert daemon.ctl("resume", str(APP)).returncode == 0
    assert f"AppID {APP} running" in daemon.ctl("status").stdout
    refused = daemon.ctl("pause", str(OTHER_APP))
    assert refused.returncode == REFUSED
    assert refused.stderr == f"barragectl: AppId {OTHER_APP} is not configured\n"
    assert json.loads(daemon.ctl("pause", str(OTHER_APP), "--json").stdout)["ok"] is False


def test_a_reload_waits_and_tells_what_is_wrong(daemon):
    assert daemon.ctl("reload").returncode == 0
    daemon.configure(daemon={"socket_mode": "0600"})
    warned = daemon.ctl("reload")
    assert warned.returncode == 0
    assert warned.stderr == "warning: socket_mode has changed: that takes effect at the next start\n"
    text = daemon.config.read_text()
    daemon.config.write_text(text + "no_such_key = 1\n")
    refused = daemon.ctl("reload")
    assert refused.returncode == REFUSED
    assert f"{daemon.config}:{len(text.splitlines()) + 1}: unknown key" in refused.stderr
    checked = daemon.ctl("check")
    assert checked.returncode == EX_CONFIG and checked.stderr in refused.stderr
    daemon.config.write_text(text)
    assert daemon.ctl("check").returncode == 0
    assert daemon.ctl("check", str(daemon.config)).returncode == 0


def test_metrics_in_both_formats(daemon):
    assert daemon.ctl("metrics").stdout.endswith("# EOF\n")
    assert "# TYPE barraged_lines_total counter" in daemon.ctl("metrics", "--prometheus").stdout


def test_the_log_level(daemon):
    assert daemon.ctl("log", "debug").returncode == 0
    daemon.connect().ask(message(id="loud"))
    assert 'id="loud"' in daemon.log
    refused = daemon.ctl("log", "loud")
    assert refused.returncode == REFUSED and 'unknown level "loud"' in refused.stderr


def test_where_nobody_listens_it_says_so(host):
    daemon = host.daemon(start=False)
    for command in (["status"], ["reload"], ["top", "--once"], ["send", *ONE, "x"]):
        result = daemon.ctl(*command)
        assert result.returncode == UNREACHABLE and result.stdout == ""
        assert "barraged is not running, or listens elsewhere (--config FILE)" in result.stderr
    daemon.configure(daemon={"control_socket": ""})
    result = daemon.ctl("status")
    assert result.returncode == UNREACHABLE and "control_socket is empty" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs another user")
def test_who_may_not_is_told_who_may(host):
    daemon = host.daemon(host.zego())
    host.directory.chmod(0o755)
    stranger = ("setpriv", "--reuid=65534", "--clear-groups", "--regid=65534")
    program = host.directory / "barragectl"
    shutil.copy(BARRAGECTL, program)  # the tests' own folder may be closed to others
    result = host.run("--control", daemon.control_socket, "status", program=program, command=stranger)
    assert result.returncode == UNREACHABLE
    assert "for root and the user that barraged runs as" in result.stderr


class Impostor:
    """What listens at a daemon's control socket in its place, and gives whoever asks the same answer."""

    def __init__(self, host, answer):
        self.path = host.directory / "impostor"
        self.answer = answer
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(self.path))
        self.socket.listen()
        host.stack.callback(self.end)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):  # it is over
            while True:
                connection, _ = self.socket.accept()
                with connection, contextlib.suppress(OSError):
                    while connection.recv(1 << 12) and self.answer:
                        connection.sendall(self.answer)

    def end(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()

    def ctl(self, host, *arguments):
        return host.run("--control", self.path, *arguments, program=BARRAGECTL)


STRANGE = {
    "no JSON": (b"220 mail ESMTP\r\n", "what answers there is not barraged"),
    "no object": (b"[1]\n", "what answers there is not barraged"),
    "nothing": (b"", "barraged has closed the connection without an answer"),
    "an error": (b'{"ok":false,"error":"\\u001b[2Jno\\u009b"}\n', "barragectl: ?[2Jno?\n"),
}


@pytest.mark.parametrize("command", ["status", "top"])
@pytest.mark.parametrize("answer, error", STRANGE.values(), ids=STRANGE)
def test_what_answers_in_the_daemons_place_is_told_and_not_let_through(host, command, answer, error):
    result = Impostor(host, answer).ctl(host, command)
    assert result.returncode == (UNREACHABLE if command == "top" or b"ok" not in answer else REFUSED)
    assert error in result.stderr and result.stdout == ""


def test_every_trouble_is_in_the_status(host, daemon):
    status = daemon.control("status")
    status["uptime_ms"] = ((2 * 24 + 3) * 3600 + 4) * 1000
    status["config"] = {"path": "/\x1b[31m\u009b\x7f", "last_reload_ok": False, "in_force_since": 0}
    status["upstream"]["state"] = "down"
    status["socket_lost"] = True
    status["ledger_consistent"] = False
    app = status["apps"][0]
    app |= {"state": "halted", "halt_code": 100000005, "oldest_ms": 3 * 3600_000 + 5 * 60_000}
    app["waited_ms"] = {"p50": 1500, "p99": 83_000}
    impostor = Impostor(host, json.dumps(status).encode() + b"\n")
    told = impostor.ctl(host, "status").stdout
    for trouble in (
        ", for 2 d 03 h\n",
        "configuration  /?[31m??, in force since ",
        "; THE LAST RELOAD WAS REFUSED\n",
        " is UNREACHABLE; ",
        "; THE SOCKET'S FILE IS GONE\n",
        "; THEY DO NOT ADD UP: a bug in barraged\n",
        f"AppID {APP} halted by Code 100000005; ",
        "; the oldest for 3 h 05 min\n",
        "median 1.5 s, 99th percentile 1 min 23 s\n",
    ):
        assert trouble in told, told
    assert "halted" in impostor.ctl(host, "top", "--once").stdout


def test_a_control_sockets_path_may_be_too_long(host):
    result = host.run("--control", "/" + "x" * 200, "status", program=BARRAGECTL)
    assert result.returncode == UNREACHABLE and "File name too long" in result.stderr


@pytest.mark.parametrize("command", [["status"], ["metrics"], ["top", "--once"], ["send", *ONE, "x"], ["send"]])
def test_what_cannot_be_written_is_a_failure(daemon, command):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [BARRAGECTL, "--config", daemon.config, *command], stdin=subprocess.DEVNULL, stdout=full, timeout=60
        )
    assert result.returncode == REFUSED


MISUSES = {
    "no command": ([], "a command is missing"),
    "an unknown one": (["stat"], "did you mean status?"),
    "one like none": (["frobnicate"], '"frobnicate" is not a command; see --help'),
    "no AppID": (["pause"], "pause needs an argument"),
    "no number": (["pause", "x"], '"x" is not an AppID'),
    "AppID 0": (["resume", "0"], '"0" is not an AppID'),
    "too much": (["status", "x"], "one argument too many"),
    "an unknown option": (["status", "--colour"], "--colour"),
    "another's option": (["status", "--once"], "status takes no --once"),
    "half a message": (["send", "--room", "r"], "needs --room, --user and --content"),
    "a number that is none": (["send", *ONE, "x", "--app", "1x"], '"1x" is not a number for AppId'),
    "an interval of nothing": (["top", "--interval", "0"], "--interval"),
}


@pytest.mark.parametrize("arguments, error", MISUSES.values(), ids=MISUSES)
def test_misuse_is_explained(host, arguments, error):
    result = host.run(*arguments, program=BARRAGECTL)
    assert result.returncode == EX_USAGE and error in result.stderr and result.stdout == ""


def test_help_and_version(host):
    assert "Exit status:" in host.run("--help", program=BARRAGECTL).stdout
    version = host.run("--version").stdout
    assert host.run("--version", program=BARRAGECTL).stdout == version.replace("barraged", "barragectl")


# The live view.


class Terminal:
    """A terminal of its own that a program runs in; `seen` is all that the program wrote to it."""

    def __init__(self, *command, rows=24, columns=120, **environment):
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.seen = ""
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            env=os.environ | SANITIZERS | {"TERM": "xterm", "NO_COLOR": ""} | environment,
            preexec_fn=self.take,
        )

    @staticmethod
    def take():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        die_with_the_tests()

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        try:
            while data := os.read(self.master, 1 << 16):
                self.seen += data.decode()
        except OSError:
            pass
        return self.seen

    def frames(self):
        """The views drawn so far and complete, as lists of lines without colours."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.read())
        drawn = re.findall(r"\x1b\[H(.*?)\x1b\[J", text, re.S)
        return [[line.replace("\x1b[K", "").rstrip("\r") for line in frame.split("\r\n")] for frame in drawn]

    def wait_for(self, condition, what):
        """Wait until the last view is as it should be; gives it."""

        def is_so():
            frames = self.frames()
            return frames and condition("\n".join(frames[-1])) and frames[-1]

        return eventually(is_so, f"{what} on the screen")

    def press(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        status = self.process.wait(timeout=60)
        self.read()
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was left changed"
        assert self.seen.count("\x1b[?1049h") == self.seen.count("\x1b[?1049l") == 1
        assert self.seen.endswith("\x1b[?25h\x1b[?1049l")
        os.close(self.master)
        os.close(self.slave)
        return status


def top(daemon, *arguments, **options):
    return Terminal(BARRAGECTL, "--config", daemon.config, "top", *arguments, **options)


def test_top_shows_what_happens_now(host):
    apps = {APP: {}, OTHER_APP: {}}
    zego = host.zego(apps={APP: 100, OTHER_APP: 100})
    daemon = host.daemon(zego, apps=apps, queue={"max_age": "60s", "queue_max": 5000})
    terminal = top(daemon)
    frame = terminal.wait_for(lambda text: "APPID" in text, "the view")
    assert frame[0].startswith("barraged ")
    assert [line.split()[:2] for line in frame if line.startswith("12345")] == [
        [str(APP), "running"],
        [str(OTHER_APP), "running"],
    ]
    writer = daemon.connect()
    writer.send(*(message(AppId=OTHER_APP, room=f"r{i % 50}") for i in range(2000)))
    # The one in use is the first now.
    frame = terminal.wait_for(
        lambda text: re.search(rf"\n{OTHER_APP}.*\n{APP}", text) is not None, "the busiest AppID in the first place"
    )
    row = next(line for line in frame if line.startswith(str(OTHER_APP))).split()
    titles = next(line for line in frame if line.startswith("APPID"))
    assert titles.split()[:5] == ["APPID", "STATE", "N", "USED/s", "QUEUED"]
    assert row[2] == "100" and 0 < float(row[3]) <= 125
    assert daemon.control("pause", AppId=OTHER_APP)["ok"]
    terminal.wait_for(lambda text: f"{OTHER_APP} paused" in text, "that it is paused")
    terminal.press("q")
    assert terminal.end() == 0


def test_top_is_steered_by_keys(daemon):
    terminal = top(daemon)
    terminal.wait_for(lambda text: "order (use)" in text, "the first order")
    for name in ("queue", "drops", "failures", "oldest", "AppID"):
        terminal.press("s")
        terminal.wait_for(lambda text, name=name: f"order ({name})" in text, f"the order by {name}")
    terminal.press("r")
    terminal.wait_for(lambda text: "order (AppID, reversed)" in text, "the reversed order")
    # A Ctrl-C takes away the key that was to be read: waiting for that would never end.
    assert termios.tcgetattr(terminal.slave)[6][termios.VMIN] == 0
    terminal.press("x")
    terminal.press("\x03")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_top_leaves_the_terminal_as_it_was(daemon, number):
    terminal = top(daemon)
    terminal.wait_for(lambda text: "APPID" in text, "the view")
    terminal.process.send_signal(number)
    assert terminal.end() == 0


def test_top_fits_any_terminal(host):
    apps = {APP + i: {} for i in range(30)}
    daemon = host.daemon(host.zego(apps={app: 100 for app in apps}), apps=apps)
    terminal = top(daemon, rows=24, columns=120)
    frame = terminal.wait_for(lambda text: "WAIT99" in text, "the widest view")
    assert len(frame) <= 24 and max(map(len, frame)) <= 120
    assert any(re.match(r"… and \d+ more", line) for line in frame)
    terminal.resize(10, 44)
    frame = terminal.wait_for(lambda text: "APPID" in text and "WAIT99" not in text, "a narrower view")
    assert len(frame) <= 10 and max(map(len, frame)) <= 44
    terminal.resize(3, 12)
    frame = terminal.wait_for(lambda text: "APPID" not in text, "what has room of the head")
    assert frame[0].startswith("barraged ") and len(frame) == 3 and max(map(len, frame)) <= 12
    terminal.resize(60, 200)
    frame = terminal.wait_for(lambda text: all(str(app) in text for app in apps), "all AppIDs")
    assert len(frame) <= 60
    terminal.press("q")
    assert terminal.end() == 0


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_top_can_be_left_while_the_daemon_hangs(host, key):
    path = host.directory / "hanging"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hanging:
        hanging.bind(str(path))
        hanging.listen()
        hanging.settimeout(patience())
        terminal = Terminal(BARRAGECTL, "--control", path, "top")
        with hanging.accept()[0] as connection:
            assert connection.recv(1 << 12) == b'{"op":"status"}\n'
            terminal.press(key)
            terminal.process.wait(timeout=30)  # an answer it would wait for a minute
            assert terminal.end() == 0


def test_top_outlives_the_daemon(host):
    daemon = host.daemon(host.zego())
    terminal = top(daemon)
    terminal.wait_for(lambda text: "APPID" in text, "the view")
    assert daemon.stop() == 0
    terminal.wait_for(lambda text: "barraged is not running" in text, "that the daemon is gone")
    daemon.start()
    terminal.wait_for(lambda text: "APPID" in text, "the view again")
    terminal.press("q")
    assert terminal.end() == 0


@pytest.mark.parametrize("value, coloured", [("", True), ("1", False)])
def test_top_is_coloured_unless_told_not_to(daemon, value, coloured):
    terminal = top(daemon, NO_COLOR=value)
    terminal.wait_for(lambda text: "APPID" in text, "the view")
    terminal.press("q")
    assert terminal.end() == 0
    assert bool(re.search(r"\x1b\[[0-9;]*m", terminal.seen)) == coloured


def test_without_a_terminal_top_prints_one_view(daemon):
    daemon.connect().ask(message(id=1))
    for arguments in ([], ["--once"]):
        printed = daemon.ctl("top", *arguments)
        assert printed.returncode == 0 and "\x1b" not in printed.stdout
        assert printed.stdout.count("APPID") == 1 and "1 sent" in printed.stdout


def test_progress_is_shown_on_a_terminal_only(host):
    daemon = host.daemon(host.zego(latency=50), app={"room_rate": 0})
    file = host.write("lines", lines(*(message(str(i)) for i in range(60))))
    terminal = Terminal("sh", "-c", f"exec {BARRAGECTL} --config {daemon.config} send < {file}")
    assert terminal.process.wait(timeout=60) == 0
    assert re.search(r"\r\x1b\[K\d+ lines, \d+ sent, 0 not", terminal.read())
    assert terminal.seen.endswith("60 lines: 60 sent\r\n")
