# SPDX-License-Identifier: MIT
"""Whatever the daemon asks of the world may be refused, once, anywhere.

torture.c lets any one call fail. A first run of the script below counts the calls; then the script is run
again for each call that it makes and each way in which that can fail. What must hold wherever it was: the daemon ends
with a sentence that says why, before it has listened, or it lives on; each line has at most one fate, and exactly one
if its connection lives; nothing is sent twice; the ledger adds up; a configuration is in force as a whole or refused;
messages go out again when the failure is over; and it stops when it is told to, cleanly.

There are many calls, so that a usual run takes a sample, by a seed that is printed. All of them:

  tests/torture
"""

import contextlib
import errno
import grp
import http.client
import itertools
import json
import os
import pwd
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from many_hosts import ENGINES, Engine
from support import (
    ALARMS,
    APP,
    BARRAGED,
    OTHER_APP,
    Daemon,
    Host,
    eventually,
    has_exposition,
    has_hiredis,
    has_sanitizers,
    has_systemd,
    is_sanitized,
    message,
    patience,
    some_ms,
)

EXECUTABLE = BARRAGED.parent.parent / "tests/barraged-torture"

# "all", or how many calls of each function are made to fail.
AMOUNT = os.environ.get("TORTURE", "2" if is_sanitized() else "6")
SEED = int(os.environ.get("TORTURE_SEED", random.randrange(1 << 32)))

# By name, so that they have to be looked up.
USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name

# libcurl's codes; see curl/curl.h, curl/multi.h, curl/urlapi.h and curl/header.h.
CURLE_FAILED_INIT = 2
CURLE_OUT_OF_MEMORY = 27
CURLE_UNKNOWN_OPTION = 48
CURLM_OUT_OF_MEMORY = 3
CURLM_UNKNOWN_OPTION = 6
CURLUE_OUT_OF_MEMORY = 7
CURLHE_OUT_OF_MEMORY = 5
EAI_MEMORY = -10
INIH_NO_MEMORY = -2

# How each function can fail.
FAILURES = {
    "MHD_add_response_header": (errno.ENOMEM,),
    "MHD_create_response": (errno.ENOMEM,),
    "MHD_queue_response": (errno.ENOMEM,),
    "MHD_start_daemon": (errno.ENOMEM,),
    "X509_STORE_load_file": (0,),
    "X509_STORE_new": (errno.ENOMEM,),
    "accept4": (errno.EMFILE, errno.ECONNABORTED, errno.ENOMEM),
    "bind": (errno.EACCES,),
    "chmod": (errno.EPERM,),
    "chown": (errno.EPERM,),
    "connect": (errno.EACCES,),
    "curl_easy_getinfo": (CURLE_UNKNOWN_OPTION,),
    "curl_easy_header": (CURLHE_OUT_OF_MEMORY,),
    "curl_easy_init": (errno.ENOMEM,),
    "curl_easy_setopt": (CURLE_OUT_OF_MEMORY, CURLE_UNKNOWN_OPTION),
    "curl_global_init": (CURLE_FAILED_INIT,),
    "curl_multi_add_handle": (CURLM_OUT_OF_MEMORY,),
    "curl_multi_init": (errno.ENOMEM,),
    "curl_multi_setopt": (CURLM_UNKNOWN_OPTION,),
    "curl_slist_append": (errno.ENOMEM,),
    "curl_url": (errno.ENOMEM,),
    "curl_url_dup": (errno.ENOMEM,),
    "curl_url_get": (CURLUE_OUT_OF_MEMORY,),
    "curl_url_set": (CURLUE_OUT_OF_MEMORY,),
    "fdopen": (errno.ENOMEM,),
    "flock": (errno.ENOLCK,),
    "fstat": (errno.EIO,),
    "ftruncate": (errno.EIO,),
    "getc": (errno.EIO,),
    "getgrnam_r": (errno.EIO, errno.ENOMEM),
    "getnameinfo": (EAI_MEMORY,),
    "getpeername": (errno.ENOTCONN,),
    "getpwnam_r": (errno.EIO, errno.ENOMEM),
    "getrandom": (errno.ENOSYS,),
    "getrlimit": (errno.EPERM,),
    "getsockopt": (errno.ENOMEM,),
    "ini_parse_stream": (INIH_NO_MEMORY,),
    "libcurl": (errno.ENOMEM,),
    "listen": (errno.EADDRINUSE,),
    "lstat": (errno.EACCES,),
    "madvise": (errno.ENOMEM,),
    "memory": (errno.ENOMEM,),
    "mlock": (errno.EPERM,),
    "mmap": (errno.ENOMEM,),
    "open": (errno.EMFILE,),
    "poll": (errno.EINTR,),
    "prctl": (errno.EPERM,),
    "pread": (errno.EIO,),
    "pwrite": (errno.ENOSPC,),
    "read": (errno.EIO, errno.EINTR),
    "redisAppendCommandArgv": (errno.ENOMEM,),
    "redisBufferRead": (errno.ECONNRESET,),
    "redisBufferWrite": (errno.EPIPE,),
    "redisConnectNonBlock": (errno.ENOMEM,),
    "redisConnectUnixNonBlock": (errno.ENOMEM,),
    "redisGetReplyFromReader": (errno.ENOMEM,),
    "recv": (errno.ECONNRESET, errno.EINTR, errno.EAGAIN),
    "send": (errno.EPIPE, errno.EINTR, errno.EAGAIN),
    "sd_listen_fds_with_names": (errno.ENOMEM,),
    "sd_notify": (errno.ENOMEM,),
    "sd_watchdog_enabled": (errno.EINVAL,),
    "setrlimit": (errno.EPERM,),
    "setsockopt": (errno.ENOMEM,),
    "socket": (errno.EMFILE,),
    "unlink": (errno.EPERM,),
    "uv_fs_event_start": (errno.ENOSPC,),
    "uv_getaddrinfo": (errno.ENOMEM,),
    "uv_loop_init": (errno.EMFILE,),
    "uv_poll_init": (errno.ENOSPC,),
    "uv_poll_start": (errno.EEXIST,),
    "uv_signal_init": (errno.EMFILE,),
    "uv_signal_start": (errno.ENOMEM,),
    "write": (errno.EPIPE,),
}

# Without these nothing can begin, nor go on with another configuration: what must be said then. Of other functions a
# failure can be borne, or harms one message or writer.
REFUSALS = {
    "MHD_start_daemon": os.strerror(errno.ENOMEM),
    "X509_STORE_load_file": "has no certificate",
    "X509_STORE_new": os.strerror(errno.ENOMEM),
    "bind": os.strerror(errno.EACCES),
    "chmod": os.strerror(errno.EPERM),
    "chown": os.strerror(errno.EPERM),
    "connect": "something is already running here",
    "curl_global_init": "libcurl cannot be used",
    "curl_multi_init": os.strerror(errno.ENOMEM),
    "curl_url": os.strerror(errno.ENOMEM),
    "curl_url_get": os.strerror(errno.ENOMEM),
    "curl_url_set": os.strerror(errno.ENOMEM),
    "fdopen": os.strerror(errno.ENOMEM),
    "flock": os.strerror(errno.ENOLCK),
    "fstat": os.strerror(errno.EIO),
    "getc": os.strerror(errno.EIO),
    "getgrnam_r": f"{os.strerror(errno.EIO)}|{os.strerror(errno.ENOMEM)}",
    "getpwnam_r": f"{os.strerror(errno.EIO)}|{os.strerror(errno.ENOMEM)}",
    "ini_parse_stream": os.strerror(errno.ENOMEM),
    "listen": os.strerror(errno.EADDRINUSE),
    "madvise": os.strerror(errno.ENOMEM),
    "mmap": os.strerror(errno.ENOMEM),
    "sd_listen_fds_with_names": os.strerror(errno.ENOMEM),
    "uv_loop_init": os.strerror(errno.EMFILE),
    "uv_signal_init": os.strerror(errno.EMFILE),
    "uv_signal_start": os.strerror(errno.ENOMEM),
}

# Where one is borne all the same, what is said.
BORNE = {"flock": "should this process be killed"}

# What the daemon calls without being able to fail by it: it gives back, compares, looks into memory, fails for wrong
# arguments only, or has failed when there is nobody left to tell; sendto() gives systemd a sign of life, and another
# follows; sd_listen_fds() only tidies the environment up.
INFALLIBLE = """
    ERR_clear_error MHD_destroy_response MHD_get_daemon_info MHD_get_timeout MHD_lookup_connection_value MHD_run
    MHD_stop_daemon X509_STORE_free _exit abort clock_gettime close curl_easy_cleanup curl_easy_strerror curl_free
    curl_getdate curl_global_cleanup curl_multi_cleanup curl_multi_info_read curl_multi_remove_handle
    curl_multi_strerror curl_slist_free_all curl_url_cleanup curl_url_strerror dirname exit explicit_bzero fclose fflush
    fprintf fputs free freeReplyObject fwrite getenv geteuid gethostname getopt_long getpid htonl htons inet_pton mallopt memchr memcmp memcpy memmove
    memset munmap ntohl perror qsort redisFree sd_listen_fds sendto shutdown signal snprintf strcasecmp strcasestr strchr strcmp
    strcspn strerror strlen strncasecmp strncmp strnlen strpbrk strrchr strspn strstr umask uv_cancel uv_close
    uv_freeaddrinfo uv_fs_event_init uv_hrtime uv_inet_pton uv_loop_close uv_poll_stop uv_prepare_init uv_prepare_start
    uv_run uv_stop uv_timer_init uv_timer_start uv_timer_stop uv_unref vsnprintf
""".split()

# libuv ends the process itself when it has no memory for its table of descriptors. libcurl 7.88 does not bear it when a
# session's ticket finds none, and frees it twice in the end; and where it has none for its table of sockets, all
# transfers are undefined, and the daemon ends itself.
LEFT_OUT = {"libcurl_acting", "libuv"}

if not has_systemd():
    FAILURES = {name: errors for name, errors in FAILURES.items() if not name.startswith("sd_")}
if not has_exposition():
    FAILURES = {name: errors for name, errors in FAILURES.items() if not name.startswith("MHD_")}
HAS_ENGINE = has_hiredis() and ENGINES
if not HAS_ENGINE:
    unused = ("redis", "pread", "pwrite", "ftruncate")
    FAILURES = {name: errors for name, errors in FAILURES.items() if not name.startswith(unused)}
if has_sanitizers():
    del FAILURES["prctl"]  # a process that is being watched has to stay open to it

# What the log is written with: a line of it may be missing.
WRITES_LOG = ("fstat", "poll", "send", "write", "memory")


class Order(NamedTuple):
    name: str
    n: int
    error: int
    times: int = 1

    def __str__(self):
        error = errno.errorcode.get(self.error, self.error)
        return f"{self.name} #{self.n} ({error}{'' if self.times == 1 else ', and from then on'})"


class Run:
    """The script, once: a daemon that starts, serves, reloads, serves on and stops.

    The sandbox's certificate is for localhost, which libcurl would know without a look-up, but for the dot.
    """

    def __init__(self, host, zego, engine, order=None):
        self.order = order
        self.engine = engine
        self.name = f"{len(host.daemons)}-"
        self.calls_file = host.directory / f"{self.name}calls"
        self.zego = zego
        self.host = host
        # An address of its own: nobody else takes the port, not even for a connection to somewhere.
        n = len(host.daemons)
        self.metrics = (f"127.{2 + os.getpid() % 250}.{n // 250}.{1 + n % 250}", 9465)
        metrics_keys = {"metrics_listen": "{}:{}".format(*self.metrics)} if has_exposition() else {}
        environment = {"BARRAGED_CALLS": str(self.calls_file), "CREDENTIALS_DIRECTORY": str(host.directory)}
        if order:
            environment["BARRAGED_FAIL"] = f"{order.name} {order.n} {order.error} {order.times}"
        self.daemon = Daemon(
            host,
            zego,
            environment=environment,
            daemon={"socket_group": GROUP, "drain_timeout": "2s"} | metrics_keys,
            upstream={"url": zego.url.replace("127.0.0.1", "localhost."), "retries": 0, "connect_timeout": some_ms(300),
                      "timeout": some_ms(1000)},
            queue={"max_age": some_ms(3000)},
            shared=self.shared(),
            apps={
                APP: {"server_secret_file": f"credential:{APP}.secret", "allow_users": f"{USER}, nobody"},
                OTHER_APP: {"allow_groups": "nogroup"},
            },
        )  # fmt: skip
        host.daemons.append(self.daemon)
        self.daemon.command[self.daemon.command.index(str(BARRAGED))] = str(EXECUTABLE)
        self.sent_lines = 0
        self.ids = {}
        self.answered = Counter()
        self.reasons = Counter()
        self.closed = 0
        self.refused_reload = False

    def shared(self, **keys):
        """A budget of its own, of which it is the only host."""
        if not self.engine:
            return None
        usual = {"redis": f"unix:{self.engine.socket}", "password_file": self.engine.password_file}
        return usual | {"prefix": self.name, "hosts": 1} | keys

    def content(self, word):
        return self.name + word

    def line(self, word, **fields):
        return message(self.content(word), **({"AppId": APP} | fields))

    def has_failed(self):
        return self.order and "failed\n" in self.calls_file.read_text()

    def calls(self):
        """How often each function was called; only of a daemon that has ended."""
        rows = re.findall(r"^(\w+) (\d+)$", self.calls_file.read_text(), re.MULTILINE)
        return {name: int(n) for name, n in rows}

    def site(self):
        """Where the call that failed was made, innermost first."""
        return " ".join(re.findall(r"([^/ ]+\(\S*\))\[", self.calls_file.read_text()))

    def effect(self):
        """What the failure has led to, in a few words."""
        usual = ("sent", "invalid", "unknown_app", "too_long", "too_many_clients")
        effects = [f"{n} {reason}" for reason, n in self.reasons.items() if reason not in usual]
        effects += ["no start"] if not self.answered else []
        effects += ["reload refused"] if self.refused_reload else []
        effects += [f"{self.closed} closed"] if self.closed else []
        effects += ["not reached"] if not self.has_failed() else []
        return ", ".join(effects) or "none"

    def go(self):
        self.leave_stale_socket()
        self.daemon.launch()

        def serve():
            self.serve()
            self.reload()
            self.serve_on()
            self.stop()

        self.see(serve)

    def see(self, act):
        """What the daemon does, once it has started, and what it makes of a start that failed."""
        try:
            if self.has_started():
                act()
            else:
                self.judge_start()
            self.judge_log()
        finally:
            self.daemon.kill()

    def adopt(self):
        """Another script: a socket that is passed as systemd does it, one writer, the end."""
        self.daemon.command[:0] = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"]
        self.daemon.environment |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "intake"}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.daemon.socket))
            listener.listen()
            self.daemon.launch(preexec_fn=lambda: os.dup2(listener.fileno(), 3), pass_fds=(3,))

        def end():
            self.daemon.signal(signal.SIGTERM)
            status = self.daemon.wait()
            assert status == 0, f"status {status}"

        self.see(end)

    def begin_sharing(self, reloads=True):
        """Another script: a reload begins to share what was this host's own, or a second one where that is refused."""
        self.daemon.configure(shared=dict.fromkeys(self.shared()))
        self.leave_stale_socket()
        self.daemon.launch()

        def share():
            writer = self.connect()
            self.send(writer, self.line("one", id=1))
            self.rest(writer)
            if reloads:
                self.reload()
            if self.refused_reload:
                assert self.daemon.reload()
            self.recover()
            self.stop()

        self.see(share)

    def suffer(self):
        """Another script: what goes on failing leaves little to hope for."""
        self.leave_stale_socket()
        began = time.monotonic()
        self.daemon.launch()
        try:
            eventually(lambda: "listens on" in self.daemon.log or not self.daemon.is_running(), "a start or an end")
            writer = self.connect()
            if writer:
                self.send(writer, self.line("one", id=1), self.line("two"), b"nonsense\n")
            if self.daemon.is_running():
                self.daemon.signal(signal.SIGHUP)
                time.sleep(0.1)
                self.daemon.signal(signal.SIGTERM)
            status = self.daemon.wait()
            assert status in (0, 1, 70, 78), f"status {status}"
            self.judge_log()
            pauses = (time.monotonic() - began) / 0.1
            assert self.calls().get("accept4", 0) < 64 + 2 * pauses, "it accepts without a pause"
        finally:
            self.daemon.kill()

    def leave_stale_socket(self):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(self.daemon.socket))

    def connect(self):
        """None if nobody listens."""
        with contextlib.suppress(OSError):
            return self.daemon.connect()

    def has_started(self):
        """Whether it answers, rather than ends."""
        deadline = time.monotonic() + patience()
        heard = []
        for n in itertools.count():
            if not self.daemon.is_running():
                break
            writer = self.connect()
            if writer:
                self.send(writer, self.line("no", AppId=99, id=f"hello{n}"))
                heard = self.hear(writer, f"hello{n}")
                writer.close()
                if heard:
                    break
            assert time.monotonic() < deadline, "neither answers nor ends"
            time.sleep(0.005)
        self.closed = 0  # who comes too soon
        return bool(heard)

    def send(self, writer, *lines, pieces=1):
        """Send objects as lines, and bytes as they stand."""
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
        ids = self.ids.setdefault(writer, [None])  # by the line's number, from 1
        ids += [re.search(rb'"id": ("\w+"|\d+)', line) for line in lines]
        self.sent_lines += sum(bool(line.strip()) for line in lines)
        data = b"".join(lines)
        with contextlib.suppress(OSError):  # it may have been closed
            for i in range(pieces):
                writer.send_bytes(data[len(data) * i // pieces : len(data) * (i + 1) // pieces])
                time.sleep(0.005 * (pieces > 1))  # most likely they are taken as so many

    def id_of(self, writer, reply):
        """What a line is refused for may keep its id from being seen: then it is told by its number."""
        if "id" in reply or "line" not in reply:
            return reply.get("id")
        found = self.ids[writer][reply["line"]]
        return json.loads(found.group(1)) if found else None

    def hear(self, writer, *ids):
        """The replies until each of the ids has been answered; fewer only if the daemon closes the connection."""
        replies = []
        while not set(ids) <= {self.id_of(writer, reply) for reply in replies}:
            try:
                replies.append(writer.reply())
            except TimeoutError:
                raise AssertionError(f"{ids} were to be answered, there are {replies}") from None
            except (AssertionError, OSError):
                self.closed += 1
                break
        self.note(writer, replies)
        return replies

    def note(self, writer, replies):
        for reply in replies:
            self.answered[self.id_of(writer, reply)] += 1
            self.reasons[reply.get("reason", reply["outcome"])] += 1

    def serve(self):
        self.first = self.connect()
        leaver = self.connect()
        self.send(leaver, self.line("ten"), b"nonsense\n")
        leaver.close()  # with a reply that it has not read
        self.send(
            self.first,
            self.line("one", id=1),
            self.line("two"),
            b"nonsense\n",
            b"\n",
            self.line("no", AppId=99, id=3),
            self.line("no", AppId=OTHER_APP, id=4),
            b"x" * 20000 + b"\n",
        )
        self.send(self.first, self.line("seven", id=7), pieces=2)
        self.hear(self.first, 1, 3, 4, 7)
        self.watch()

    def watch(self):
        """As operators do."""
        try:
            assert self.daemon.control("status")["ok"]
            if has_exposition():
                with contextlib.closing(http.client.HTTPConnection(*self.metrics, timeout=patience())) as connection:
                    connection.request("GET", "/metrics")
                    response = connection.getresponse()
                    assert (response.status, bool(response.read())) == (200, True)
        except (AssertionError, ConnectionError, http.client.HTTPException):
            assert self.has_failed()  # to hang is a TimeoutError and never right

    def reload(self):
        """Another host and another way to the engine, which means look-ups, and room for one writer only."""
        self.daemon.configure(
            daemon={"max_clients": 1, "log_level": "info"},
            upstream={"url": self.zego.url.replace("127.0.0.1", "LOCALHOST."), "timeout": some_ms(900)},
            shared=self.engine and self.shared(redis=f"tcp:localhost:{self.engine.port}"),
        )
        before = len(self.daemon.log)
        deadline = time.monotonic() + 0.3

        def result():
            assert self.daemon.is_running(), "the reload has ended it"
            if re.search(r"is in force|is not used|lines were lost", self.daemon.log[before:]):
                return True
            return self.has_failed() and self.order.name in WRITES_LOG and time.monotonic() > deadline

        self.daemon.signal(signal.SIGHUP)
        eventually(result, "the result of the reload")
        self.refused_reload = "is not used" in self.daemon.log

    def serve_on(self):
        reasons = [reply["reason"] for reply in self.rest(self.connect())]
        assert reasons == ["too_many_clients"] or (self.has_failed() and not reasons)
        self.send(self.first, self.line("eight", id=8))
        replies = self.rest(self.first)
        self.closed += 8 not in [self.id_of(self.first, reply) for reply in replies]
        self.recover()

    def rest(self, writer):
        """All replies to a writer that has no more to say."""
        try:
            with contextlib.suppress(OSError):
                writer.half_close()
            replies = writer.rest()
        except TimeoutError:
            raise AssertionError("the connection was not closed") from None
        self.note(writer, replies)
        return replies

    def recover(self):
        """After the one failure all must be well; should it come only now, it may be over the second time."""
        deadline = time.monotonic() + patience()
        for n in itertools.count():
            assert time.monotonic() < deadline, "it has not recovered"
            self.last = self.connect()
            self.send(self.last, self.line(f"nine{n}", id=f"nine{n}"))
            if "sent" in [reply["outcome"] for reply in self.hear(self.last, f"nine{n}")]:
                break
            self.last.close()
            time.sleep(0.005)

    def stop(self):
        self.send(self.last, self.line("eleven", id=11))
        self.hear(self.last, 11)
        self.daemon.signal(signal.SIGTERM)
        status = self.daemon.wait()
        assert status == 0, f"status {status}"
        self.judge_lines()
        with contextlib.suppress(FileNotFoundError):
            self.daemon.socket.lstat()
            assert self.order.name in ("unlink", "lstat"), "the socket was left behind"

    def judge_lines(self):
        twice = {line: n for line, n in self.answered.items() if n > 1 and line is not None}
        assert not twice, f"more than one reply: {twice}"
        stopped = re.search(r"stopped: lines=(\d+)(.*)", self.daemon.log)
        if not stopped:
            assert self.order.name in WRITES_LOG
            return
        lines = int(stopped.group(1))
        fates = {key: int(n) for key, n in re.findall(r"(\w+(?:/\w+)?)=(\d+)", stopped.group(2))}
        assert lines <= self.sent_lines
        # The one that has left may have done so before it was seen.
        assert self.closed or self.has_failed() or lines == self.sent_lines, (lines, self.sent_lines)
        assert fates["sent"] >= self.reasons["sent"]

    def judge_start(self):
        status = self.daemon.wait()
        assert self.has_failed(), f"it did not start although nothing failed: {self.daemon.log}"
        assert status in (1, 70, 78), f"status {status}"
        assert self.daemon.log.count("\n") >= 1 or self.order.name in WRITES_LOG, "it has not said why"

    def judge_log(self):
        assert "libcurl" not in "".join(re.findall("looked up by .*", self.calls_file.read_text()))
        alarm = ALARMS.search(self.daemon.log)
        assert not alarm, alarm
        self.host.check_secrecy(self.daemon.log.encode())


class Torture:
    def __init__(self, host):
        self.host = host
        self.zego = host.zego(apps={APP: 1000000, OTHER_APP: 1000000}, http=False)
        self.engine = Engine(host, ENGINES[0], "127.0.0.1").start() if HAS_ENGINE else None
        self.lock = threading.Lock()

    def run(self, order=None, script=Run.go):
        """The run, and what was wrong with it if anything was."""
        with self.lock:  # it numbers them
            run = Run(self.host, self.zego, self.engine, order)
        try:
            script(run)
            return run, None
        except Exception as e:
            return run, f"{order} at {run.site()}: {type(e).__name__} {str(e).splitlines()[:1]}\n{run.daemon.log}"


@pytest.fixture(scope="module")
def torture():
    if not EXECUTABLE.exists():
        pytest.fail(f"{EXECUTABLE} does not exist")
    print(f"TORTURE={AMOUNT} TORTURE_SEED={SEED}")
    with contextlib.ExitStack() as stack:
        torture = Torture(Host(stack))
        yield torture
        contents = Counter(torture.zego.contents())
        assert contents
        assert not [content for content, n in contents.items() if n > 1], "sent more than once"


@pytest.fixture(scope="module")
def calls(torture):
    """How often each function is called when nothing fails."""
    run, fault = torture.run()
    assert not fault, fault
    return run.calls()


def test_count(calls, torture):
    print(sorted(calls.items()))
    assert set(calls) == set(FAILURES) | LEFT_OUT


def sample(name, n):
    """Which of the n calls of a function are to fail."""
    print(f"TORTURE={AMOUNT} TORTURE_SEED={SEED}")
    numbers = range(1, n + 1)
    if AMOUNT == "all" or n <= int(AMOUNT):
        return numbers
    return sorted(random.Random(f"{SEED} {name}").sample(numbers, int(AMOUNT)))


@pytest.mark.skipif(is_sanitized(), reason="the sanitizers' own calls would have to be told from the daemon's")
def test_no_call_is_forgotten():
    """A function that the daemon did not call before must be made to fail, or be known not to."""
    objects = [*(BARRAGED.parent / "libedge.a.p").glob("*.o"), *(BARRAGED.parent / "barraged.p").glob("*.o")]
    assert objects
    imported, defined = set(), set()
    for line in subprocess.check_output(["nm", "--format=posix", *objects], text=True).splitlines():
        name, kind = (line.split() + [""])[:2]
        (imported if kind == "U" else defined).add(name)
    core = subprocess.check_output(["nm", "--format=posix", BARRAGED.parent / "libcore.a"], text=True)
    defined |= {line.split()[0] for line in core.splitlines() if line.split()[1:2] in (["T"], ["R"], ["D"])}
    executable = subprocess.check_output(["nm", "--format=posix", EXECUTABLE], text=True)
    wrapped = set(re.findall(r"^__wrap_(\w+)", executable, re.MULTILINE))
    fortified = {re.sub(r"^__(\w+?)(_chk|_2)$", r"\1", name) for name in imported - defined}
    variables = {"stdout", "stderr", "optarg", "optind", "_GLOBAL_OFFSET_TABLE_"}
    variables |= {"__errno_location", "__stack_chk_fail", "__assert_fail"}
    fortified = {name for name in fortified if not name.startswith("__gcov_")}  # of tests/coverage
    forgotten = fortified - wrapped - variables - set(INFALLIBLE)
    assert not forgotten, sorted(forgotten)


@pytest.mark.parametrize("name", FAILURES)
def test_one_call_fails(torture, calls, name):
    numbers = sample(name, calls[name])
    orders = [Order(name, n, error) for error in FAILURES[name] for n in numbers]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(torture.run, orders))
    faults = [fault for _, fault in results if fault]
    summary = defaultdict(Counter)
    for run, fault in results:
        summary[run.order.error][run.effect() if not fault else "a fault"] += 1
    for error, effects in summary.items():
        print(name, errno.errorcode.get(error, error), dict(effects))
    assert not faults, "\n".join(faults)
    for run, _ in results:
        is_borne = name in BORNE and BORNE[name] in run.daemon.log
        if name in REFUSALS and run.has_failed() and not is_borne:
            assert run.effect() in ("no start", "reload refused"), f"{run.order} is borne: {run.daemon.log}"
            assert re.search(REFUSALS[name], run.daemon.log), f"{run.order}: {run.daemon.log}"


@pytest.mark.skipif(not has_systemd(), reason="built without systemd's library")
@pytest.mark.usefixtures("calls")  # for the sandbox to have been sent something, even if no other test is run
@pytest.mark.parametrize("name, error", (("fcntl", errno.EPERM), ("getsockopt", errno.ENOTSOCK)))
def test_one_call_fails_with_a_passed_socket(torture, name, error):
    run, fault = torture.run(script=Run.adopt)
    assert not fault, fault
    for n in range(1, run.calls()[name] + 1):
        run, fault = torture.run(Order(name, n, error), Run.adopt)
        assert not fault, fault
        print(run.order, run.effect())
        if n <= (2 if name == "fcntl" else 3):  # the third is for a lock, without which it can do
            assert run.effect() == "no start"
            assert "descriptor 3" in run.daemon.log


@pytest.mark.skipif(not HAS_ENGINE, reason="there is no engine, or no way to it")
def test_memory_runs_out_where_a_reload_begins_to_share(torture):
    """What was made for it by then must not go by a configuration that was refused."""
    runs = [torture.run(script=lambda run, reloads=reloads: run.begin_sharing(reloads)) for reloads in (False, True)]
    assert not [fault for _, fault in runs if fault]
    before, n = (run.calls()["memory"] for run, _ in runs)
    # It allocates for its end too, so the first few of the reload, which reads a file, are left to the test above.
    orders = [Order("memory", before + i, errno.ENOMEM) for i in sample("memory", n - before)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda order: torture.run(order, Run.begin_sharing), orders))
    print(n - before, Counter(run.effect() for run, _ in results))
    faults = [fault for _, fault in results if fault]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", ("accept4", "memory", "open", "socket"))
def test_all_calls_fail_from_then_on(torture, calls, name):
    """It may be unable to do anything, but not go wild, and it ends when it is told to."""
    numbers = sample(name, calls[name])
    for n in numbers:
        run, fault = torture.run(Order(name, n, FAILURES[name][0], times=0), Run.suffer)
        assert not fault, fault
