# SPDX-License-Identifier: MIT
"""The command line, and how strictly the configuration is read."""

import configparser
import re

import pytest

from support import APP, EX_CONFIG, EX_USAGE, OTHER_APP, ROOT, message


def check(host, text):
    """What --check-config says about a configuration: its exit status, and its sentences with the path taken off."""
    path = host.write("barraged.conf", text)
    result = host.run("--config", path, "--check-config")
    assert result.stdout == ""
    return result.returncode, [line.removeprefix(str(path)) for line in result.stderr.splitlines()]


def dump(host, text):
    """The configuration in force, as --dump-config prints it."""
    result = host.run("--config", host.write("barraged.conf", text), "--dump-config")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def parsed(text):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


# The command line.


def test_version_is_one_line(host):
    result = host.run("--version")
    assert re.fullmatch(r"barraged [0-9]+\.[0-9]+\.[0-9]+\n", result.stdout)
    assert (result.returncode, result.stderr) == (0, "")


def test_help_tells_of_every_option(host):
    result = host.run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for option in "--config", "--check-config", "--dump-config", "--version", "--help":
        assert option in result.stdout


@pytest.mark.parametrize(
    "arguments", (["--colour"], ["-x"], ["--config"], ["file.conf"], ["--check-config", "x"]), ids=" ".join
)
def test_a_wrong_command_line_has_its_own_exit_status(host, arguments):
    result = host.run(*arguments)
    assert (result.returncode, result.stdout) == (EX_USAGE, "")
    assert arguments[-1].lstrip("-") in result.stderr


# Good configurations.


def test_a_good_configuration_is_checked_in_silence(host):
    assert check(host, host.config_text()) == (0, [])


@pytest.fixture
def sample(host):
    """The sample, its one path to a secret made to exist."""
    text = (ROOT / "conf/barraged.conf").read_text()
    (path,) = re.findall(r"^server_secret_file = (.*)$", text, re.MULTILINE)
    host.secret(APP)
    return text.replace(path, str(host.secret_file(APP)))


def test_the_sample_is_a_good_configuration(host, sample):
    assert check(host, sample) == (0, [])


def test_a_dump_has_every_key_of_the_sample_in_force(host, sample):
    uncommented = parsed(re.sub("^#([a-z_]+ =)", r"\1", sample, flags=re.MULTILINE))
    dumped = parsed(dump(host, sample))
    assert dumped.sections() == uncommented.sections()
    for name in dumped.sections():
        assert list(dumped[name]) == list(uncommented[name])
    for name in "daemon", "upstream":
        assert dict(dumped[name]) == dict(uncommented[name])


def test_a_dump_read_again_gives_the_same_dump(host):
    text = host.config_text(
        daemon={"max_line": "32KiB", "socket_mode": "0600", "startup_hold": "1500ms", "log_level": "debug"},
        upstream={"retries": 0, "retry_ambiguous": "yes", "credit": "none", "proxy": "http://127.0.0.1:3128"},
        queue={"max_age": "1m", "overflow": "newest"},
        apps={
            APP: {"test_mode": "yes", "allow_users": "root, 4711"},
            OTHER_APP: {"max_age": "90ms", "is_test": "false"},
        },
    )
    dumped = dump(host, text)
    assert dump(host, dumped) == dumped
    sections = parsed(dumped)
    assert sections["daemon"]["max_line"] == "32KiB"
    assert sections[f"app {APP}"]["rate"] == "10"
    assert sections[f"app {APP}"]["is_test"] == "true"
    assert sections[f"app {APP}"]["max_age"] == "1m"
    assert sections[f"app {OTHER_APP}"]["max_age"] == "90ms"


@pytest.mark.parametrize(
    "change",
    (
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(" = ", "="),
        lambda text: "# a comment\n  ; another\n\n" + text + "\n   \n# the end",
    ),
    ids=("CRLF", "byte order mark", "no last newline", "no blanks", "comments"),
)
def test_the_same_may_be_written_in_other_ways(host, change):
    text = host.config_text(queue={"max_age": "5s"})
    assert dump(host, change(text)) == dump(host, text)


# Bad ones.


def test_all_errors_are_shown_at_once_in_the_order_of_the_file(host):
    host.secret(APP)
    text = f"""\
[daemon]
max_clients = 0
max_client = 10
socket_mode = rw
[quene]
max_age = 3s
[upstream]
timeout = 5
timeout = 5s
[app {APP}]
server_secret_file = {host.secret_file(APP)}
rate = 0
room_rate = 20 ; a second
[app {OTHER_APP}]
rate = 100
"""
    status, errors = check(host, text)
    expected = (
        ":2: max_clients",
        ':3: unknown key "max_client" in [daemon]; did you mean max_clients?',
        ":4: socket_mode",
        ":5: unknown section [quene]; did you mean [queue]?",
        ":8: timeout",
        ":9: timeout is given twice",
        ":12: rate",
        ":13: a comment needs a line of its own",
        ":14: server_secret_file is missing",
    )
    assert status == EX_CONFIG
    assert [error[: len(start)] for error, start in zip(errors, expected)] == list(expected)
    assert len(errors) == len(expected)


# Section, line, and a part of what is said about it.
BAD_LINES = {
    "a duration without unit": ("daemon", "drain_timeout = 5", "drain_timeout"),
    "a duration with a blank": ("daemon", "drain_timeout = 5 s", "drain_timeout"),
    "a negative duration": ("daemon", "drain_timeout = -5s", "drain_timeout"),
    "a fraction": ("daemon", "drain_timeout = 1.5s", "drain_timeout"),
    "a duration beyond its range": ("queue", "max_age = 61s", "max_age"),
    "a size in other units": ("daemon", "max_line = 16KB", "max_line"),
    "a size beyond 64 bits": ("queue", "queue_bytes = 99999999999999999999GiB", "queue_bytes"),
    "a number in hexadecimal": ("daemon", "max_clients = 0x10", "max_clients"),
    "a boolean in other words": ("upstream", "retry_ambiguous = true", "retry_ambiguous"),
    "a boolean in capitals": ("upstream", "retry_ambiguous = Yes", "retry_ambiguous"),
    "an unknown choice": ("queue", "overflow = oldset", "overflow"),
    "an empty number": ("upstream", "retries =", "retries"),
    "a mode beyond its range": ("daemon", "socket_mode = 1777", "socket_mode"),
    "a relative path": ("daemon", "socket = barraged.sock", "socket"),
    "a socket's path of 108 bytes": ("daemon", "socket = /tmp/" + "s" * 103, "socket"),
    "no key": ("daemon", "= 5s", "names no key"),
    "no value": ("daemon", "drain_timeout", "neither key = value"),
    "a colon": ("daemon", "drain_timeout: 5s", "not by :"),
    "a continued value": ("daemon", "  5s", "begins with a blank"),
    "a key of another section": ("daemon", "retries = 1", "it belongs in [upstream]"),
    "an unknown key": ("daemon", "colour = blue", 'unknown key "colour" in [daemon]'),
    "a line that inih would cut": ("daemon", "socket = /" + "s" * 300, "too many for a line"),
    "a control character": ("daemon", "socket = /tmp/\x1b[31m", "control character"),
    "http to elsewhere": ("upstream", "url = http://rtc-api.zego.im/", "url"),
    "another protocol": ("upstream", "url = ftp://127.0.0.1/", "url"),
    "a user in the url": ("upstream", "url = https://me:secret@rtc-api.zego.im/", "url"),
    "a ca_file that is missing": ("upstream", "ca_file = /nowhere/ca.pem", "No such file"),
    "a ca_file that is a directory": ("upstream", "ca_file = /tmp", "not a regular file"),
    "a group that does not exist": ("daemon", "socket_group = no-such-group", "no-such-group"),
    "a user that does not exist": (f"app {APP}", "allow_users = no-such-user", "no-such-user"),
    "a section cut short": ("daemon", "[queue", "a section is written [name]"),
    "an AppID of zero": ("daemon", "[app 0]", "names no AppID"),
    "an AppID in letters": ("daemon", "[app one]", "names no AppID"),
    "no AppID": ("daemon", "[app]", "names no AppID"),
    "a section twice": ("daemon", "[daemon]", "[daemon] stands twice"),
}


@pytest.mark.parametrize("section, line, error", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_refused_with_its_number(host, section, line, error):
    sections = {
        "daemon": "[daemon]",
        "upstream": "[upstream]",
        "queue": "[queue]",
        f"app {APP}": f"[app {APP}]\nserver_secret_file = {host.secret_file(APP)}",
    }
    host.secret(APP)
    sections[section] += "\n" + line
    text = "\n".join(sections.values()) + "\n"
    status, errors = check(host, text)
    number = text.splitlines().index(line) + 1 if line != "[daemon]" else 2
    assert status == EX_CONFIG
    assert [found for found in errors if found.startswith(f":{number}: ") and error in found]


def test_an_appid_may_stand_once_and_one_must_stand(host):
    once = host.config_text()
    status, errors = check(host, once + "\n" + once[once.index("[app") :])
    assert (status, len(errors)) == (EX_CONFIG, 1)
    assert f"[app {APP}] stands twice" in errors[0]
    status, errors = check(host, "[daemon]\n")
    assert (status, len(errors)) == (EX_CONFIG, 1)
    assert "nothing could be sent" in errors[0]


def test_a_secret_that_strayed_into_the_file_is_not_shown(host):
    secret = host.secret(APP)
    for line in f"server_secret = {secret}", f"server_secret_file: {secret}", secret, f" {secret}", f"{secret} # new":
        status, _ = check(host, host.config_text() + line + "\n")  # which sees to it that no secret is shown
        assert status == EX_CONFIG
    status, _ = check(host, host.config_text(app={"server_secret_file": secret}))
    assert status == EX_CONFIG


def test_a_file_that_cannot_be_read_is_named(host):
    missing = host.directory / "missing.conf"
    for path, reason in (missing, "No such file or directory"), (host.directory, "neither a file nor a pipe"):
        result = host.run("--config", path, "--check-config")
        assert result.returncode == EX_CONFIG
        assert str(path) in result.stderr and reason in result.stderr


# Secrets.


@pytest.mark.parametrize("mode", (0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666), ids=oct)
def test_a_secret_that_others_may_read_or_change_is_refused(host, mode):
    text = host.config_text()
    host.secret_file(APP).chmod(mode)
    status, (error,) = check(host, text)
    assert status == EX_CONFIG
    assert error.startswith(":") and f"(mode {mode:04o})" in error and "server_secret_file" in error


@pytest.mark.parametrize("mode", (0o400, 0o600, 0o700), ids=oct)
def test_a_secret_that_only_its_owner_may_read_is_taken(host, mode):
    text = host.config_text()
    host.secret_file(APP).chmod(mode)
    assert check(host, text) == (0, [])


BAD_SECRETS = {
    "nothing": "",
    "an empty line": "\n",
    "two lines": "0123456789abcdef\n0123456789abcdef\n",
    "a blank in it": "0123456789 abcdef\n",
    "a blank after it": "0123456789abcdef \n",
    "a character beyond ASCII": "0123456789abcdéf\n",
    "far too much": "0123456789abcdef" * 10_000,
}


@pytest.mark.parametrize("content", BAD_SECRETS.values(), ids=BAD_SECRETS)
def test_what_cannot_be_a_secret_is_refused_and_not_shown(host, content):
    text = host.config_text()
    host.secret_file(APP).write_text(content)
    host.canaries.append("0123456789")
    status, (error,) = check(host, text)
    assert status == EX_CONFIG
    assert "server_secret_file" in error


@pytest.mark.parametrize("content", ("{}", "{}\n", "{}\r\n"), ids=("bare", "LF", "CRLF"))
def test_the_end_of_the_line_is_no_part_of_the_secret(host, content):
    zego = host.zego()
    host.secret_file(APP).write_text(content.format(host.secret(APP)), newline="")
    daemon = host.daemon(zego)
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


def test_a_secret_file_must_be_a_file(host):
    text = host.config_text()
    host.secret_file(APP).unlink()
    status, (error,) = check(host, text)
    assert (status, "No such file or directory" in error) == (EX_CONFIG, True)
    host.secret_file(APP).mkdir()
    status, (error,) = check(host, text)
    assert (status, "not a regular file" in error) == (EX_CONFIG, True)


def test_a_credential_is_found_where_systemd_puts_it(host):
    text = host.config_text(app={"server_secret_file": "credential:zego"})
    status, (error,) = check(host, text)
    assert (status, "server_secret_file" in error) == (EX_CONFIG, True)
    credentials = host.directory / "credentials"
    credentials.mkdir()
    host.write("credentials/zego", host.secret(APP) + "\n", mode=0o440)
    daemon = host.daemon(
        host.zego(),
        environment={"CREDENTIALS_DIRECTORY": str(credentials)},
        app={"server_secret_file": "credential:zego"},
    )
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"


# The daemon itself.


def test_a_daemon_with_a_bad_configuration_does_not_start(host):
    daemon = host.daemon(start=False, queue={"max_age": "1h"})
    daemon.launch()
    assert daemon.wait() == EX_CONFIG
    assert f"{daemon.config}:" in daemon.log and "max_age" in daemon.log
    assert not daemon.socket.exists()
