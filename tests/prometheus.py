# SPDX-License-Identifier: MIT
"""A Prometheus that collects from one daemon each second, for as long as a test takes."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"
RULES = CONF / "prometheus/barraged.rules.yml"
DASHBOARD = CONF / "grafana/barraged.json"


def has_prometheus():
    return shutil.which("prometheus") is not None


class Prometheus:
    """Started in `directory`, with the alert rules, to collect from 127.0.0.1:`target` and be asked at `port`."""

    def __init__(self, directory, target, port, **options):
        self.url = f"http://127.0.0.1:{port}"
        config = directory / "prometheus.yml"
        job = {"job_name": "barraged", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config.write_text(json.dumps({"global": every, "rule_files": [str(RULES)], "scrape_configs": [job]}))
        self.log = directory / "prometheus.log"
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.process.kill()
        self.process.wait()

    def get(self, path, **parameters):
        """The data of an answer; RuntimeError with the reason if it is refused, OSError if nobody is ready."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                raise  # it has only just started, and is an OSError
            raise RuntimeError(f"{parameters}: {error.read().decode()}") from error

    def is_collecting(self):
        """Whether it runs and has reached the daemon."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask('up{job="barraged"} == 1')
        except OSError:
            return False  # it does not listen yet

    def ask(self, query):
        """What the query gives now: a list of series, each with its labels and value."""
        return self.get("query", query=query)["result"]

    def ask_range(self, query, start, end, step=1):
        """What it gave from start to end, Unix time: a list of series, each with its labels and values."""
        return self.get("query_range", query=query, start=start, end=end, step=step)["result"]

    def alerts(self):
        """What fires, with labels and annotations."""
        return [alert for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]


def dashboard():
    return json.loads(DASHBOARD.read_text())


def queries(panel, window, **variables):
    """(query, legend) of each target of a panel, as Grafana would ask for it; all values of variables not given."""
    values = {"$__rate_interval": window} | {f"${name}": variables.get(name, ".+") for name in ("instance", "app")}
    for target in panel.get("targets", []):
        query = target["expr"]
        for name, value in values.items():
            query = query.replace(name, value)
        yield query, target["legendFormat"]
