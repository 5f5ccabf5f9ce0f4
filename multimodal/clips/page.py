"""One self-contained page about clusters of clips: how they are used, and pictures of the clips nearest to their centroids."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import torch
from PIL import Image
from torch import Tensor

from multimodal.clips.examples import ClusterUse, Example
from multimodal.report.page import STYLE

OWN_STYLE = """
.row { display: flex; flex-wrap: wrap; gap: .5em } .row figure { margin: 0 } .row img { image-rendering: auto; display: block }
.row figcaption { font-size: .75em; max-width: 14em; overflow-wrap: anywhere } svg { max-width: 100% }
"""
WIDTH, HEIGHT, BASE = 640, 180, 24
BAR = "#1f6feb"
JPEG_QUALITY = 80


def clusters_page(
    title: str,
    use: ClusterUse,
    clusters: Sequence[int],
    pictures: Mapping[tuple[str, int, float], Tensor],
) -> str:
    """Return the page.

    Args:
        title: at its head.
        use: of the clusters.
        clusters: which are shown, in order.
        pictures: of the clips; see ``pictures_of_examples``.
    """
    total, used = int(use.counts.sum()), int((use.counts > 0).sum())
    shares = use.counts[use.counts > 0].double() / max(1, total)
    rows = {
        "clips": f"{total:,}",
        "clusters": f"{len(use.counts):,}",
        "used": f"{used:,} ({used / len(use.counts):.1%})",
        "perplexity": f"{float((-(shares * shares.log()).sum()).exp()):,.1f}",
        "clips of the same cluster as the clip before": f"{use.repeats:.1%}",
        "mean squared distance from the centroid": f"{use.distortion:,.4g}",
    }
    table = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows.items())
    shown = "".join(_cluster(cluster, use, pictures) for cluster in clusters)
    body = f"<h1>{escape(title)}</h1><table>{table}</table><h2>Clusters by size</h2>{size_chart(use.counts)}{shown}"
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _cluster(cluster: int, use: ClusterUse, pictures: Mapping[tuple[str, int, float], Tensor]) -> str:
    count = int(use.counts[cluster])
    share = count / max(1, int(use.counts.sum()))
    figures = "".join(_figure(example, pictures) for example in use.nearest.get(cluster, []))
    return f'<h2>Cluster {cluster}: {count:,} clips ({share:.1%})</h2><div class="row">{figures}</div>'


def _figure(example: Example, pictures: Mapping[tuple[str, int, float], Tensor]) -> str:
    source = picture_source(pictures[example.shard, example.position, example.middle_s])
    when = f"{example.start_s:.1f} to {example.end_s:.1f} s"
    said = f"{escape(example.key)}<br>{when}, distance {math.sqrt(example.distance):.3g}"
    return f'<figure><img alt="{escape(example.key)}, {when}" src="{source}"><figcaption>{said}</figcaption></figure>'


def picture_source(picture: Tensor) -> str:
    """Return a picture, ``(3, height, width)`` uint8, as the ``src`` of an image that the page holds itself."""
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def size_bins(counts: Tensor) -> list[tuple[str, int]]:
    """Return (sizes, number of clusters of such a size): none, 1, 2 to 3, 4 to 7 and so on, up to the largest."""
    bins = [("0", int((counts == 0).sum()))]
    low = 1
    while low <= int(counts.max()):
        high = 2 * low - 1
        name = str(low) if low == high else f"{low}-{high}"
        bins.append((name, int(((counts >= low) & (counts <= high)).sum())))
        low *= 2
    return bins


def size_chart(counts: Tensor) -> str:
    """Return bars as SVG: how many clusters have how many clips."""
    bins = size_bins(counts.to(torch.int64))
    top, step = max(1, *(number for _, number in bins)), WIDTH / len(bins)
    parts = []
    for place, (name, number) in enumerate(bins):
        height, x = (HEIGHT - 2 * BASE) * number / top, place * step
        y, middle = HEIGHT - BASE - height, x + step / 2
        parts.append(f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{height:.1f}" fill="{BAR}"/>')
        parts.append(f'<text x="{middle:.1f}" y="{y - 4:.1f}" text-anchor="middle">{number:,}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{name}</text>')
    label = "number of clusters by their number of clips"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"><title>{label}</title>{"".join(parts)}</svg>'
