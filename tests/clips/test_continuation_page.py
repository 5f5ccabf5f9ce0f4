"""The page about next clips, from films to pictures of clusters."""

import json
import re

import torch

from multimodal.cli import main
from multimodal.clips.continuation import NextClip
from multimodal.clips.continuation_page import Continuation, continuation_page
from multimodal.clips.examples import ClusterUse, Example


def test_the_command_shows_the_nearest_clip_of_every_cluster(film_run, films, features, tmp_path):
    tree, ids, page, to = (str(tmp_path / name) for name in ("tree", "ids", "next.html", "next.jsonl"))
    assert main(["clips", "cluster", str(features.root), "--branching", "2", "--depth", "2", "--to", tree]) == 0
    assert main(["clips", "encode", str(features.root), "--tokenizer", tree, "--to", ids, "--keep-features", "--workers", "0"]) == 0
    pictures = ["--page", page, "--films", str(films.root), "--tokenizer", tree, "--height", "24"]
    asked = [str(film_run), ids, "--split", "train", "--given", "2", "--words", "put it in <b>", "--steps", "2", "--to", to]
    assert main(["clips", "continue", *asked, *pictures]) == 0
    lines = [json.loads(line) for line in (tmp_path / "next.jsonl").read_text().splitlines()]
    html = (tmp_path / "next.html").read_text()
    assert len(lines) == 4 and [len(own["true_next"]) for own in lines] == [max(0, min(2, n - 2)) for n in map(clips_of_film, lines)]
    assert html.count("<h2>") == 4 and html.count("put it in &lt;b&gt;") == 4 and "<b>" not in html
    there = {clip for own in lines for clip in [*own["given"], *own["true_next"]]}
    assert all(f'alt="cluster {clip}"' in html for clip in there), "clusters that are used have a picture"
    named = [guess["clip"] for own in lines for step in own["next"] for guess in step]
    assert all(re.search(rf"cluster {clip}: \d+\.\d%", html) for clip in named) and "http" not in html


def clips_of_film(line: dict) -> int:
    """The films have 2 to 5 clips: see ``films``."""
    return {"film0": 2, "film1": 3, "film2": 4, "film3": 5}[line["key"]]


def test_a_cluster_without_a_clip_is_said_to_have_none():
    use = ClusterUse(torch.tensor([1, 0]), {0: [Example(0.0, "shard", 0, "film", 0.0, 1.0)]})
    film = Continuation("film", "", [0], [[NextClip(1, 0.75), NextClip(0, 0.25)]], [])
    html = continuation_page("next", [film], use, {("shard", 0, 0.5): torch.zeros(3, 4, 6, dtype=torch.uint8)})
    assert html.count("<img") == 2 and html.count("no clip of this split is in it") == 1 and "cluster 1: 75.0%" in html
    assert "in the film" not in html
