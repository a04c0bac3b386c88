# SPDX-License-Identifier: MIT
"""The alert rules, by Prometheus' own tool: each in a case for it and in cases that are not quite one."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "conf/prometheus/barraged.rules.yml"

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool")

TARGET = {"job": "barraged", "instance": "host1:9464"}
APP = {"app": "1234567890"}


def series(name, values, **labels):
    """A series of one sample a minute. Values are promtool's: "1x5" is 1 six times, "0+3x5" grows, _ is a gap."""
    text = ", ".join(f'{name}="{value}"' for name, value in (TARGET | labels).items())
    return {"series": f"{name}{{{text}}}", "values": values}


def fates(outcome, reason, values):
    return series("barraged_requests_total", values, **APP, outcome=outcome, reason=reason)


def sent(values):
    return fates("sent", "", values)


def code(number, values):
    return series("barraged_api_codes_total", values, **APP, code=str(number))


class Case(NamedTuple):
    alert: str
    severity: str
    input: list  # of series()
    minute: int  # at which it fires, or would
    labels: dict = {}  # of the alert, beside the target's and the severity


UP = series("up", "1x60")

FIRING = [
    Case("BarragedDown", "critical", [series("up", "1x5 0x5")], 8),
    Case("BarragedRestarting", "critical", [series("barraged_start_time_seconds", "100 100 200 300 400 400")], 5),
    Case("BarragedLedgerLeak", "critical", [series("barraged_ledger_consistent", "1 1 0")], 2),
    Case("BarragedDropRatio", "warning",
         [sent("0+600x40"), fates("dropped", "queue_full", "0+50x40"), fates("dropped", "expired", "0+20x40")],
         20, APP),
    Case("BarragedFailRatio", "warning",
         [sent("0+600x40"), fates("failed", "timeout", "0+16x40"), fates("failed", "api", "0+16x40")], 15, APP),
    Case("BarragedAppHalted", "critical", [series("barraged_app_state", "0x4 1x5", **APP, state="halted")], 7,
         APP | {"state": "halted"}),
    # A counter that grows, one that was not there before, and one of a daemon that was started anew.
    Case("BarragedSignatureTrouble", "warning", [code(100000004, "7x20 8x20")], 25, APP | {"code": "100000004"}),
    Case("BarragedSignatureTrouble", "warning", [code(100000005, "_x20 1x20")], 22, APP | {"code": "100000005"}),
    Case("BarragedSignatureTrouble", "warning", [code(100000010, "5x20 stale _x3 1x20")], 26,
         APP | {"code": "100000010"}),
    Case("BarragedClockSkew", "warning", [series("barraged_clock_skew_seconds", "0x4 61x10")], 11),
    Case("BarragedClockSkew", "warning", [series("barraged_clock_skew_seconds", "0x4 -61x10")], 11),
    Case("BarragedUpstreamUnreachable", "critical", [series("barraged_upstream_up", "1x4 0x5")], 7),
    Case("BarragedReloadFailed", "warning", [series("barraged_config_last_reload_successful", "1x4 0x5")], 7),
    Case("BarragedQueueNearlyFull", "warning",
         [series("barraged_queue_bytes", "0x4 81x9"), series("barraged_queue_max_bytes", "100x20")], 7),
    Case("BarragedRepliesDiscarded", "warning", [series("barraged_replies_discarded_total", "0x4 1x20")], 6),
    Case("BarragedLogLinesLost", "warning", [series("barraged_log_lines_lost_total", "3x4 4x20")], 6),
    Case("BarragedSocketLost", "critical", [series("barraged_socket_lost", "0x4 1x5")], 7),
    Case("BarragedSharedLost", "critical", [series("barraged_shared_state", "0x4 1x5", state="lost")], 7,
         {"state": "lost"}),
    Case("BarragedSharedLost", "critical", [series("barraged_shared_state", "1x9", state="joining")], 7,
         {"state": "joining"}),
    Case("BarragedSharedUnsteady", "warning", [series("barraged_shared_connections_failed_total", "0+7x60")], 25),
    Case("BarragedSharedTaken", "critical", [series("barraged_shared_state", "0x4 1x5", state="taken")], 7,
         {"state": "taken"}),
]

QUIET = {
    "BarragedDown": {
        "it is up": ([UP], 30),
        "one scrape is missed": ([series("up", "1x5 0 1x9")], 6),
    },
    "BarragedRestarting": {
        "two restarts": ([series("barraged_start_time_seconds", "100 100 200 300 300")], 5),
        "three within a day": ([series("barraged_start_time_seconds", "100x9 200x9 300x9 400x9")], 32),
    },
    "BarragedLedgerLeak": {"it adds up": ([series("barraged_ledger_consistent", "1x9")], 9)},
    "BarragedDropRatio": {
        "fewer": ([sent("0+600x40"), fates("dropped", "expired", "0+66x40")], 30),
        "not for long": ([sent("0+600x40"), fates("dropped", "expired", "0x10 1000 2000 3000 3000x30")], 14),
        "it was stopped": ([sent("0+600x40"), fates("dropped", "shutdown", "0+100x40")], 30),
        "nothing comes": ([sent("0x40"), fates("dropped", "expired", "0x40")], 30),
    },
    "BarragedFailRatio": {
        "fewer": ([sent("0+600x40"), fates("failed", "timeout", "0+31x40")], 30),
        "not for long": ([sent("0+600x40"), fates("failed", "network", "0x10 1000 1000x30")], 13),
        "halted, which has its own": ([sent("0+600x40"), fates("failed", "halted", "0+600x40")], 30),
        "nothing comes": ([sent("0x40"), fates("failed", "api", "0x40")], 30),
    },
    "BarragedAppHalted": {
        "another state": ([series("barraged_app_state", "1x9", **APP, state="slowed")], 9),
        "for a moment": ([series("barraged_app_state", "0x4 1 0x4", **APP, state="halted")], 5),
    },
    "BarragedSignatureTrouble": {
        "other codes": ([code(n, "0+9x30") for n in (0, 206, 100000012)] + [code(50001, "_x9 1x20")], 30),
        "long ago": ([code(100000004, "0x4 3x30")], 30),
        "long ago, and not there before": ([code(100000004, "_x4 3x30")], 30),
    },
    "BarragedClockSkew": {
        "less": ([series("barraged_clock_skew_seconds", "-59x20")], 20),
        "mended soon": ([series("barraged_clock_skew_seconds", "0x4 99x3 0x9")], 8),
    },
    "BarragedUpstreamUnreachable": {
        "it is reached": ([series("barraged_upstream_up", "1x9")], 9),
        "for a moment": ([series("barraged_upstream_up", "1x4 0 1x4")], 5),
    },
    "BarragedReloadFailed": {
        "it succeeded": ([series("barraged_config_last_reload_successful", "1x9")], 9),
        "mended at once": ([series("barraged_config_last_reload_successful", "1x4 0 1x4")], 5),
    },
    "BarragedQueueNearlyFull": {
        "there is room": ([series("barraged_queue_bytes", "79x9"), series("barraged_queue_max_bytes", "100x9")], 9),
        "a moment": ([series("barraged_queue_bytes", "9x4 99 9x4"), series("barraged_queue_max_bytes", "100x9")], 5),
    },
    "BarragedRepliesDiscarded": {
        "none": ([series("barraged_replies_discarded_total", "0x9")], 9),
        "long ago": ([series("barraged_replies_discarded_total", "0x4 9x30")], 30),
    },
    "BarragedLogLinesLost": {
        "none": ([series("barraged_log_lines_lost_total", "0x9")], 9),
        "long ago": ([series("barraged_log_lines_lost_total", "0x4 9x30")], 30),
    },
    "BarragedSocketLost": {
        "it is there": ([series("barraged_socket_lost", "0x9")], 9),
        "replaced at once": ([series("barraged_socket_lost", "0x4 1 0x4")], 5),
    },
    "BarragedSharedLost": {
        "in touch": ([series("barraged_shared_state", "1x9", state="in_touch")], 9),
        "nothing is shared": ([series("barraged_shared_state", "1x9", state="off")], 9),
        "back at once": ([series("barraged_shared_state", "0x4 1 0x4", state="lost")], 5),
    },
    "BarragedSharedUnsteady": {
        "now and then": ([series("barraged_shared_connections_failed_total", "0+5x60")], 40),
        "once, a lot": ([series("barraged_shared_connections_failed_total", "0x9 100x60")], 19),
    },
    "BarragedSharedTaken": {
        "it is its own": ([series("barraged_shared_state", "0x9", state="taken")], 9),
        "for a moment": ([series("barraged_shared_state", "0x4 1 0x4", state="taken")], 5),
    },
}


def promtool(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True)


def rules():
    """The text of each alert, by name."""
    parts = re.split(r"^ +- alert: (\w+)\n", RULES.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def judge(tmp_path, case, firing):
    """Whether of all alerts those with these labels fire: `firing` is a list of them."""
    samples = []
    for labels in firing:
        text = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        samples.append({"labels": f"ALERTS{{{text}}}", "value": 1})
    test = {
        "interval": "1m",
        # BarragedDown is about absence, so it must be there wherever it is not what is tested.
        "input_series": case.input + ([] if case.alert == "BarragedDown" else [UP]),
        "promql_expr_test": [
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{case.minute}m", "exp_samples": samples}
        ],
    }
    path = tmp_path / "test.yml"  # all JSON is YAML
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    result = promtool("test", "rules", str(path))
    assert result.returncode == 0, result.stdout + result.stderr


def expected(case, target):
    return {"alertname": case.alert, "alertstate": "firing", "severity": case.severity} | target | case.labels


def test_prometheus_understands_the_rules():
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("case", FIRING, ids=lambda case: case.alert)
def test_it_fires_and_no_other_does(tmp_path, case):
    judge(tmp_path, case, [expected(case, TARGET)])


def test_a_job_without_targets_is_down(tmp_path):
    case = Case("BarragedDown", "critical", [series("other", "1x9")], 3)
    judge(tmp_path, case, [expected(case, {"job": "barraged"})])


@pytest.mark.parametrize("alert, why", [(alert, why) for alert, cases in QUIET.items() for why in cases])
def test_nothing_fires(tmp_path, alert, why):
    judge(tmp_path, Case(alert, "", *QUIET[alert][why]), [])


def test_every_alert_has_a_case_for_it_and_one_against():
    assert {case.alert for case in FIRING} == set(QUIET) == set(rules())


@pytest.mark.parametrize("case", FIRING, ids=lambda case: case.alert)
def test_what_is_said_names_labels_that_are_there(case):
    """Prometheus would say <no value>."""
    named = set(re.findall(r"\$labels\.(\w+)", rules()[case.alert]))
    assert named <= set(expected(case, TARGET))


def test_each_says_what_it_is_and_what_to_do_first():
    for alert, text in rules().items():
        text = " ".join(text.split())
        for part in ("severity: ", "summary: ", "description: >- ", " First: ", "runbook: OPERATIONS.md"):
            assert part in text, alert
    assert (ROOT / "docs/OPERATIONS.md").exists()


def test_nothing_is_asked_for_that_no_daemon_tells():
    table = set(re.findall(r'\{ "(barraged_\w+)", METRIC_', (ROOT / "daemon/core/metrics.c").read_text()))
    names = set(re.findall(r"\bbarraged_\w+", RULES.read_text()))
    assert names and {name.removesuffix("_total") for name in names} <= table


def test_the_reasons_and_codes_are_those_there_are():
    fates = re.findall(r'X\(FATE_\w+,\s+"(\w+)",\s+"(\w*)"\)', (ROOT / "include/core/outcome.h").read_text())
    for outcome, reason in re.findall(r'outcome="(\w+)", reason!="(\w+)"', RULES.read_text()):
        assert (outcome, reason) in fates


def test_the_table_of_alerts_in_the_documents_is_this_one():
    table = re.findall(r"^\| `(Barraged\w+)` \| (\w+) \|", (ROOT / "docs/MONITORING.md").read_text(), re.M)
    assert table == [(alert, re.search(r"severity: (\w+)", text)[1]) for alert, text in rules().items()]


def test_prometheus_understands_the_configuration_in_the_documents(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/MONITORING.md").read_text(), re.M | re.S)
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    result = promtool("check", "config", "--syntax-only", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
