"""The command ``multimodal clips``; each of its commands is a file here."""

from __future__ import annotations

from multimodal.clips.commands import caption_features, classify, cluster, continue_, encode, features, retrieve, show
from multimodal.command_group import group_parser, run_command

DESCRIPTION = "Cut films into clips, make features of them, number the clusters of these, and ask models of words and clips."
STEPS = """\
From films to words of films (VideoBERT):
  multimodal clips features data/films --config configs/clips/s3d.yaml --to data/films-features
  multimodal clips cluster data/films-features --branching 12 --depth 4 --to runs/clusters
  multimodal clips encode data/films-features --tokenizer runs/clusters --to data/films-ids
"""


def main(arguments: list[str]) -> int:
    """Run ``multimodal clips`` and return its exit code: 0; 2 for an error of the user or the data; 130 when interrupted."""
    commands = (features, cluster, encode, show, classify, retrieve, caption_features, continue_)
    return run_command(group_parser("multimodal clips", DESCRIPTION, commands, STEPS), arguments)
