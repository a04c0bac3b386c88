# SPDX-License-Identifier: MIT
"""How the cost of one message grows: with AppIDs, rooms, clients, what is queued, and the length of the line."""

import statistics

from measure import APP, PATIENT, UNLIMITED, Full, Measured, Nginx, Spread, fresh_host, interleave

# What is on the axis: its points, and what a point means to the writer, to a daemon that sends and to one that is full.
SERIES = {
    "AppIDs": [1, 10, 100, 1000, 10_000],
    "rooms": [1, 10, 100, 1000, 10_000, 100_000],
    "clients": [1, 10, 100, 1000, 5000],
    "queued": [100, 1000, 10_000, 100_000],
    "bytes": [140, 215, 400, 700, 1000],
}
ROUNDS = 7


def order_of(name, point):
    """What the writer is told."""
    return {
        "AppIDs": {"apps": point},
        "rooms": {"rooms": point},
        "clients": {"clients": point},
        "queued": {},
        "bytes": {"bytes": point},
    }[name]


def window_of(name, point):
    """Lines under way. Where each client has at least one, all that is compared must have as many."""
    return {"clients": max(SERIES["clients"]), "queued": point}.get(name, 64)


def apps_of(name, point, keys):
    return {APP + i: keys for i in range(point if name == "AppIDs" else 1)}


def delivered(name, quick):
    with fresh_host() as host:
        nginx = Nginx(host)
        measures = []
        for point in SERIES[name]:
            daemon = Measured(host, daemon={"max_clients": 65536}, upstream=nginx.upstream, queue=PATIENT,
                              apps=apps_of(name, point, UNLIMITED))
            window, order = window_of(name, point), order_of(name, point)
            lines = max(window, 2000 if quick else 20_000)
            measures.append(lambda d=daemon, n=lines, w=window, o=order: d.delivered_ns(n, w, **o))
        return interleave(1 if quick else ROUNDS, *measures)


def refused(name, quick):
    """Each queue is full. One client, AppID or room has as much queued as all of many have."""
    with fresh_host() as host:
        measures = []
        for point in SERIES[name]:
            depth = {"queued": point, "AppIDs": 10_000, "rooms": 100_000}.get(name, 300)
            apps = point if name == "AppIDs" else 1
            daemon = Full(host, apps=apps, depth=depth, max_clients=65536)
            order = order_of(name, point)
            daemon.write(depth, **{key: value for key, value in order.items() if key != "clients"})
            lines = 10_000 if quick else 1_000_000 if name == "clients" else 200_000
            measures.append(lambda d=daemon, n=lines, o=order: d.refused_ns(n, **o))
        return interleave(1 if quick else ROUNDS, *measures)


def steadied(series):
    """The machine is not as fast in one round as in another: each point is taken as a multiple of its round's first."""
    first = statistics.median(series[0])
    return [Spread.of([first * value / beside for value, beside in zip(values, series[0])]) for values in series]


def measure(quick):
    """The lines of the file."""
    yield "series\tpoint\twork\tlow_ns\tmedian_ns\thigh_ns"
    for name, points in SERIES.items():
        for work in (delivered, refused):
            for point, spread in zip(points, steadied(work(name, quick))):
                print(f"{work.__name__:10} {point:7} {name:8} {spread.median / 1000:7.3f} µs  "
                      f"{spread.low / 1000:.3f} to {spread.high / 1000:.3f}", flush=True)
                yield "\t".join([name, str(point), work.__name__, *(f"{ns:.1f}" for ns in spread)])
