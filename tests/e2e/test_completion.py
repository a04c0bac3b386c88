# SPDX-License-Identifier: MIT
"""What bash proposes after barraged and barragectl, held against what they take."""

import re
import subprocess

import pytest
from support import APP, BARRAGECTL, BARRAGED, EX_USAGE, OTHER_APP, ROOT

SCRIPT = """
source "$1"
shift
name=$(basename "$1")
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"_$name"
for word in "${COMPREPLY[@]}"; do echo "$word"; done
"""

EVERYWHERE = {"--config", "--socket", "--control", "--help", "--version"}
COMMANDS = {"send", "status", "top", "reload", "pause", "resume", "metrics", "log", "check"}


def proposed(program, *words, cwd=None):
    """What is proposed for the last of the words that were typed."""
    command = ["bash", "-c", SCRIPT, "bash", ROOT / "conf/completions" / program.name, program, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert result.stderr == ""
    return set(result.stdout.splitlines())


def options_in_help(host, program):
    return set(re.findall(r"--[a-z-]+", host.run("--help", program=program).stdout))


def takes_argument(option):
    return option not in {"--json", "--once", "--prometheus", "--help", "--version"}


def test_the_daemons_options(host):
    assert proposed(BARRAGED, "") == options_in_help(host, BARRAGED)
    assert proposed(BARRAGED, "--c") == {"--config", "--check-config"}
    host.write("one.conf", "")
    assert proposed(BARRAGED, "--config", "one", cwd=host.directory) == {"one.conf"}
    assert proposed(BARRAGED, "--config", "=", "one", cwd=host.directory) == {"one.conf"}
    assert "one.conf" in proposed(BARRAGED, "--config", "=", cwd=host.directory)


def test_commands_come_first():
    assert proposed(BARRAGECTL, "") == COMMANDS | EVERYWHERE
    assert proposed(BARRAGECTL, "re") == {"reload", "resume"}
    assert proposed(BARRAGECTL, "--config", "status", "st") == {"status"}
    assert proposed(BARRAGECTL, "--config", "=", "status", "st") == {"status"}


def test_every_option_in_the_help_is_proposed_somewhere(host):
    found = set().union(*(proposed(BARRAGECTL, command, "-") for command in COMMANDS))
    assert found == options_in_help(host, BARRAGECTL)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_is_proposed_the_options_that_it_takes(host, command):
    words = proposed(BARRAGECTL, "--control", "/nonexistent", command, "-")
    for option in options_in_help(host, BARRAGECTL) - EVERYWHERE:
        arguments = [command, option] + (["1"] if takes_argument(option) else [])
        result = host.run("--control", "/nonexistent", "--socket", "/nonexistent", *arguments, program=BARRAGECTL)
        taken = f"{command} takes no {option}" not in result.stderr
        assert taken or result.returncode == EX_USAGE
        assert taken == (option in words), option


def test_levels_files_and_categories(host):
    assert proposed(BARRAGECTL, "log", "w") == {"warning"}
    assert proposed(BARRAGECTL, "send", "--category", "") == {"1", "2"}
    assert proposed(BARRAGECTL, "send", "--room", "") == set()
    host.write("one.conf", "")
    assert proposed(BARRAGECTL, "check", "one", cwd=host.directory) == {"one.conf"}
    assert proposed(BARRAGECTL, "--control", "one", cwd=host.directory) == {"one.conf"}


def test_appids_are_asked_of_the_daemon(host):
    daemon = host.daemon(host.zego(apps={APP: 1, OTHER_APP: 1}), apps={APP: {}, OTHER_APP: {}})
    apps = {str(APP), str(OTHER_APP)}
    assert proposed(BARRAGECTL, "--config", daemon.config, "pause", "1") == apps
    assert proposed(BARRAGECTL, "--control", "=", daemon.control_socket, "resume", "1") == apps
    assert proposed(BARRAGECTL, "--config", daemon.config, "send", "--app", "") == apps
    assert proposed(BARRAGECTL, "--control", "/nonexistent", "pause", "1") == set()
