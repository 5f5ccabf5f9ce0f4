"""Line charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from multimodal.report.run_folder import Curve

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 220, 52, 26, 26
COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#7048e8", "#c2255c", "#0b7285")


def line_chart(title: str, curves: Mapping[str, Curve]) -> str:
    """Return an SVG chart of one line for each curve; curves of one point appear as a dot.

    Args:
        title: shown above.
        curves: legend -> (step, value); values that are not finite are left out.
    """
    curves = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in curves.items()}
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])
    parts = [f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>']
    for tick in range(5):
        value = y_low + (y_high - y_low) * tick / 4
        y = _scale(value, y_low, y_high, HEIGHT - BOTTOM, TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">{x_low:,.0f}</text>')
    parts.append(f'<text x="{WIDTH}" y="{HEIGHT - 8}" text-anchor="end">step {x_high:,.0f}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        parts.append(_line(name, curve, number, (x_low, x_high), (y_low, y_high)))
    return f'<svg viewBox="0 0 {WIDTH + 8} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _line(name: str, curve: Curve, number: int, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    colour = COLOURS[number % len(COLOURS)]
    places = [(_scale(x, *x_range, LEFT, WIDTH), _scale(y, *y_range, HEIGHT - BOTTOM, TOP)) for x, y in curve]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    shape = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    if len(places) == 1:
        shape = f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{colour}"/>'
    last = f"{curve[-1][1]:.4g}" if curve else ""
    return f'{shape}<text x="{WIDTH}" y="{14 + 13 * number}" text-anchor="end" fill="{colour}">{escape(name)} {last}</text>'


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)
