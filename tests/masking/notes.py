"""Notes of four fields in bars and tracks; what the tests of maskings of fields and groups share. Not a test by itself."""

import torch

from multimodal.protocols import Tokens

FIELDS = ("bar", "position", "pitch", "duration")


def notes(*bars: list[int], marks: list[bool] | None = None) -> Tokens:
    """Items of which the bar of each note is given; the track of a note is its place modulo 3."""
    lengths = torch.tensor([len(own) for own in bars])
    number = torch.tensor([bar for own in bars for bar in own])
    place = torch.cat([torch.arange(len(own)) for own in bars])
    inputs = torch.arange(len(number))[:, None].expand(-1, 4)
    said = None if marks is None else torch.tensor(marks)
    return Tokens(inputs, lengths, place[:, None], marks=said, fields=FIELDS, groups=lambda: {"bar": number, "track": place % 3})
