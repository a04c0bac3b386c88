# SPDX-License-Identifier: MIT
"""How the pictures in the documents look: what tests/dashboard and tests/costs/report.py draw with."""

import math
from html import escape

STYLE = """
text { font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #52514e }
.title { font-weight: 600; font-size: 13px; fill: #0b0b0b } .number { font-size: 9px }
.page { fill: #fcfcfb } .band { fill: #0b0b0b; opacity: .05 }
path { fill: none; stroke-width: 1.6; stroke-linejoin: round }
path.grid { stroke: #e1e0d9; stroke-width: 1 } path.axis { stroke: #c3c2b7; stroke-width: 1 }
path.area { stroke: none; fill-opacity: .75 }
.dashed { stroke-dasharray: 5 4; stroke-width: 1.3 } .dotted { stroke-dasharray: 1 3; stroke-width: 1.3 }
"""
# Colours of series in the order of their appearance, of limits, and of states: for light pages and for dark ones.
COLORS = {
    "c0": ("#2a78d6", "#3987e5"),
    "c1": ("#d9541e", "#e0703c"),
    "c2": ("#1a8f66", "#26a679"),
    "c3": ("#b98100", "#c98500"),
    "c4": ("#c2517f", "#d55181"),
    "c5": ("#4a3aa7", "#9085e9"),
    "limit": ("#52514e", "#c3c2b7"),
    "running": ("#1a8f66", "#1b8a62"),
    "slowed": ("#b98100", "#a87000"),
    "held": ("#2a78d6", "#2f74c4"),
    "halted": ("#c23030", "#c23030"),
}
DARK = """
text { fill: #c3c2b7 } .title { fill: #fff }
.page { fill: #1a1a19 } .band { fill: #fff; opacity: .06 } path.grid { stroke: #33332f } path.axis { stroke: #52514e }
"""


def style():
    def colors(which):
        return "\n".join(f".{name} {{ stroke: {c[which]} }} .{name}.fill {{ fill: {c[which]}; stroke: none }}"
                         for name, c in COLORS.items())

    return f"<style>{STYLE}{colors(0)}\n@media (prefers-color-scheme: dark) {{{DARK}{colors(1)}\n}}</style>"


def nice(most):
    """A step that divides the axis from 0 to `most` into three to five, or so."""
    power = 10 ** math.floor(math.log10(most))
    return next(step * power for step in (0.1, 0.2, 0.25, 0.5, 1, 2) if most / (step * power) <= 5)


class Picture:
    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, text, css="", anchor="start"):
        css = f' class="{css}"' if css else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{escape(text)}</text>')

    def legend(self, x, y, entries):
        """(name, class) from left to right."""
        for name, css in entries:
            if "fill" in css:
                self.add(f'<rect x="{x:.0f}" y="{y - 8}" width="10" height="9" class="{css}"/>')
            else:
                self.add(f'<path d="M{x:.0f} {y - 4}h14" class="{css}"/>')
            self.text(x + 18, y, name)
            x += 30 + 6 * len(name)

    def svg(self, width, height, title):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img">\n<title>{escape(title)}</title>\n{style()}\n'
            f'<rect width="{width}" height="{height}" class="page"/>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )
