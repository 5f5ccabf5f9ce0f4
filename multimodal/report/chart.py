"""Line charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from multimodal.report.run_folder import Curve

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 234, 52, 26, 42
COLOURS = {"train": "#1f6feb", "val": "#d9480f", "test": "#2b8a3e"}  # a stage has the same colour on every chart


def line_chart(title: str, curves: Mapping[str, Curve]) -> str:
    """Return an SVG chart of one line for each curve; curves of one point appear as a dot.

    Args:
        title: shown above.
        curves: stage -> (step, value); values that are not finite are left out.
    """
    curves = {stage: [(x, y) for x, y in points if math.isfinite(y)] for stage, points in curves.items()}
    curves = {stage: curve for stage, curve in curves.items() if curve}
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points], share=0.1)
    legend = "&#160;&#160; ".join(
        f'<tspan style="fill: {COLOURS[stage]}">{stage} {curve[-1][1]:.4g}</tspan>' for stage, curve in curves.items()
    )
    parts = [
        f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>',
        f'<text x="{WIDTH}" y="30" text-anchor="end" class="legend">{legend}</text>',
    ]
    for tick in range(5):
        value = y_low + (y_high - y_low) * tick / 4
        y = _scale(value, y_low, y_high, HEIGHT - BOTTOM, TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">{x_low:,.0f}</text>')
    parts.append(f'<text x="{WIDTH}" y="{HEIGHT - 8}" text-anchor="end">step {x_high:,.0f}</text>')
    parts += [_line(COLOURS[stage], curve, (x_low, x_high), (y_low, y_high)) for stage, curve in curves.items()]
    return f'<svg viewBox="0 0 {WIDTH + 8} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _line(colour: str, curve: Curve, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    places = [(_scale(x, *x_range, LEFT, WIDTH), _scale(y, *y_range, HEIGHT - BOTTOM, TOP)) for x, y in curve]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _range(values: list[float], share: float = 0.0) -> tuple[float, float]:
    """Return the lowest and highest value; around a single one, a margin of ``share`` of it, or 0.5."""
    low, high = min(values), max(values)
    margin = abs(low) * share or 0.5
    return (low, high) if high > low else (low - margin, high + margin)


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)
