# SPDX-License-Identifier: MIT
"""The dashboard and the alert rules with a real Prometheus that collects from a real daemon."""

import contextlib
import re
import xml.etree.ElementTree

import pytest
from support import APP, ROOT, Host, die_with_the_tests, eventually, free_port, has_exposition, message

from prometheus import Prometheus, dashboard, has_prometheus, queries

needs_prometheus = pytest.mark.skipif(
    not (has_prometheus() and has_exposition()), reason="there is no Prometheus, or nothing that it could collect from"
)

PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], query) for panel in PANELS for query, _legend in queries(panel, "1h")]


def collecting(host, daemon):
    prometheus = Prometheus(host.directory, daemon.metrics_port, free_port(), preexec_fn=die_with_the_tests)
    host.stack.enter_context(prometheus)
    eventually(prometheus.is_collecting, "Prometheus to collect")
    return prometheus


def serving(host, zego, **options):
    port = free_port()
    daemon = host.daemon(zego, daemon={"metrics_listen": f"127.0.0.1:{port}"}, **options)
    daemon.metrics_port = port
    return daemon


@pytest.fixture(scope="module")
def prometheus():
    """One that has seen messages sent, dropped, and lines refused."""
    with contextlib.ExitStack() as stack:
        host = Host(stack)
        daemon = serving(host, host.zego(), queue={"queue_max": 5}, app={"room_rate": 0})
        prometheus = collecting(host, daemon)
        writer = daemon.connect()
        writer.send(*(message(id=i) for i in range(50)))
        writer.replies(50)
        writer.ask(b"x")
        yield prometheus


# The file by itself.


def test_every_panel_has_an_id_and_a_place_of_its_own():
    panels = dashboard()["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_each_panel_asks_the_chosen_source_about_the_chosen_hosts():
    board = dashboard()
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance", "app"]
    for panel in PANELS:
        assert panel["targets"]
        for asked in [panel, *panel["targets"]]:
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            for selector in re.findall(r"barraged_\w+(?:\{([^}]*)\})?", target["expr"]):
                assert 'instance=~"$instance"' in selector, target["expr"]


def test_it_asks_for_all_that_a_daemon_tells_and_for_nothing_else(daemon):
    told = {re.sub("_(bucket|sum|count)$", "", sample.name) for sample in daemon.metrics()}
    asked = {name for _title, query in QUERIES for name in re.findall(r"\bbarraged_\w+", query)}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} == told


def test_the_picture_in_the_documents_is_of_this_dashboard():
    """tests/dashboard makes it."""
    picture = xml.etree.ElementTree.parse(ROOT / "docs/images/dashboard.svg")
    titles = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "title"]
    panels = dashboard()["panels"]
    rows = [i for i, panel in enumerate(panels) if panel["type"] == "row"]
    overview = next(i for i in rows if panels[i]["title"] == "Overview")
    assert titles == [panel["title"] for panel in panels[overview + 1 : rows[rows.index(overview) + 1]]]


# With Prometheus.


@needs_prometheus
@pytest.mark.parametrize("title, query", QUERIES)
def test_each_query_has_an_answer(prometheus, title, query):
    def has_answer():
        return [found for found in prometheus.ask(query) if found["value"][1] != "NaN"]

    eventually(has_answer, f"an answer to {query} ({title})")


@needs_prometheus
def test_annotations_and_variables_are_understood(prometheus):
    board = dashboard()
    for annotation in board["annotations"]["list"]:
        query = annotation["expr"].replace("$instance", ".+").replace("$__rate_interval", "1h")
        prometheus.ask(query)
    for variable in board["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        found = prometheus.ask(series.replace("$instance", ".+"))
        assert {found["metric"][label] for found in found} - {""}


@needs_prometheus
def test_a_daemon_that_is_well_raises_no_alarm(prometheus):
    assert {rule["health"] for rule in rules(prometheus)} <= {"ok", "unknown"}
    eventually(lambda: {rule["health"] for rule in rules(prometheus)} == {"ok"}, "all rules to be evaluated")
    assert prometheus.alerts() == []


def rules(prometheus):
    (group,) = prometheus.get("rules")["groups"]
    return group["rules"]


@needs_prometheus
def test_a_wrong_secret_is_told_with_its_host_appid_and_code(host):
    zego = host.zego()
    zego.expects_faults = True
    host.new_secret(APP)  # of which the server knows nothing
    daemon = serving(host, zego)
    prometheus = collecting(host, daemon)
    assert daemon.connect().ask(message(id=1))["Code"] == 100000005
    (alert,) = eventually(prometheus.alerts, "the alert")
    assert alert["labels"]["alertname"] == "BarragedSignatureTrouble"
    assert alert["annotations"]["summary"] == (
        f"ZEGO does not accept signatures of AppID {APP} on 127.0.0.1:{daemon.metrics_port} (code 100000005)"
    )
