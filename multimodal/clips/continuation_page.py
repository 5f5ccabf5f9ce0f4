"""One self-contained page about clips that may come next: pictures of what is nearest to their clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

from multimodal.clips.continuation import NextClip
from multimodal.clips.examples import ClusterUse
from multimodal.clips.page import OWN_STYLE, picture_source
from multimodal.report.page import STYLE

SHOWN = 8
"""Clips so far that are shown of a film: the last ones."""
Pictures = Mapping[tuple[str, int, float], Tensor]


@dataclass(frozen=True)
class Continuation:
    """A film and what may come next.

    Args:
        name: of the film.
        words: what is said; empty: nothing.
        given: ids of the clips so far.
        steps: of each next clip the likeliest ids.
        truth: ids of the clips that follow in the film, as far as there are any.
    """

    name: str
    words: str
    given: Sequence[int]
    steps: Sequence[Sequence[NextClip]]
    truth: Sequence[int]

    @property
    def shown(self) -> set[int]:
        """The clusters that the page has pictures of."""
        return {*self.given[-SHOWN:], *self.truth, *(guess.clip for step in self.steps for guess in step)}


def as_line(found: Continuation) -> Mapping[str, object]:
    """Return what is written about a film, as plain data."""
    steps = [[{"clip": guess.clip, "probability": guess.probability} for guess in step] for step in found.steps]
    said = {"words": found.words} if found.words else {}
    return {"key": found.name} | said | {"given": list(found.given), "next": steps, "true_next": list(found.truth)}


def continuation_page(title: str, films: Sequence[Continuation], use: ClusterUse, pictures: Pictures) -> str:
    """Return the page.

    Args:
        title: at its head.
        films: in the order to show them.
        use: of the clusters: which clip is nearest to each.
        pictures: of these; see ``pictures_of_examples``.
    """
    body = f"<h1>{escape(title)}</h1>" + "".join(_film(film, use, pictures) for film in films)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _film(film: Continuation, use: ClusterUse, pictures: Pictures) -> str:
    said = f"<p>{escape(film.words)}</p>" if film.words else ""
    rows = [("so far", [(clip, "") for clip in film.given[-SHOWN:]])] if film.given else []
    for number, step in enumerate(film.steps, 1):
        rows.append((f"next {number}", [(guess.clip, f"{guess.probability:.1%}") for guess in step]))
    if film.truth:
        rows.append(("in the film", [(clip, "") for clip in film.truth]))
    shown = "".join(
        f'<h3>{name}</h3><div class="row">{"".join(_figure(clip, note, use, pictures) for clip, note in clips)}</div>'
        for name, clips in rows
    )
    return f"<h2>{escape(film.name)}</h2>{said}{shown}"


def _figure(clip: int, note: str, use: ClusterUse, pictures: Pictures) -> str:
    nearest = use.nearest.get(clip)
    caption = f"cluster {clip}" + (f": {note}" if note else "")
    if not nearest:
        return f"<figure><figcaption>{caption}<br>no clip of this split is in it</figcaption></figure>"
    example = nearest[0]
    source = picture_source(pictures[example.shard, example.position, example.middle_s])
    return f'<figure><img alt="cluster {clip}" src="{source}"><figcaption>{caption}</figcaption></figure>'
