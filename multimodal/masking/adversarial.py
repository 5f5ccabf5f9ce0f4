"""A masking that learns what is worth hiding.

Letters in shapes: n tokens, d width of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.masking.field import numbers_of_fields
from multimodal.masking.marks import free_tokens
from multimodal.masking.noise import uniform
from multimodal.masking.random import RandomMasking
from multimodal.masking.ranks import count_within, rank_within
from multimodal.protocols import Masking, Tokens

SHARE, CLOSED, REOPENED, PLACES = range(41, 45)
"""Streams of the noise of an item, apart from those of other maskings and of corruptions."""


class Masker(nn.Module):
    """Scores of tokens from what the encoder makes of them: dropout, a linear layer, ReLU, a linear layer, a sigmoid.

    Args:
        dim: width of the encoder.
        width: of the hidden layer.
        dropout: rate.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.drop, self.hidden, self.out = nn.Dropout(dropout), nn.Linear(dim, width), nn.Linear(width, 1)

    def forward(self, tokens: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return float32 scores between 0 and 1; computed in the precision of the weights, since tokens with equal scores have no order."""
        with torch.autocast(tokens.device.type, enabled=False):
            x = self.hidden(self.drop(tokens.to(self.hidden.weight.dtype))).relu()
            return self.out(x)[:, 0].float().sigmoid()


class AdversarialMasking(Masking):
    """Hide the tokens that a masker scores highest, which learns what the encoder fails to predict (https://arxiv.org/abs/2407.08306).

    In training, the encoder first sees the whole item, and the masker (``Masker``) makes a score of each token. Of the places that are
    open, a share is hidden, those with the highest scores: a number drawn for the item from ``shares``, and never more than ``mask_ratio``
    of its tokens. Then all goes on as with any masking. Among the tokens whose hiding changed anything (not those that are shown as they
    are, the last 10% of BERT's 80/10/10), as many as ``extremes`` of all hidden ones with the *highest* prediction losses should have got
    the score 1, and as many with the lowest the score 0: that is the mean squared error that ``multimodal.objectives.MaskerTraining`` adds
    to the loss.

    So that it does not always hide what nobody can predict, there is a book of the places of each sample: in every epoch that is a multiple
    of ``book_every``, some of the open places with the highest scores are closed, and then some places, drawn at random, opened again.
    A place is the index of a token in its item: see ``MaskBook`` for what this means for crops.

    In evaluation, ``mask_ratio`` of the tokens is hidden at random (``RandomMasking``). Marks are never hidden, scored or closed.

    It costs another pass of the encoder, forward and backward; with ``reach_encoder: false`` forward alone.

    Departures: the published code closes places in a pass of its own after the epoch, with the dropout off; it turns high and low losses
    around for every second item of a batch, and lets padding be hidden; and it adds the mean error at the high losses to that at the low
    ones, which is ``weight: 2`` here.

    Args:
        mask_ratio: share of the tokens to hide in evaluation, and at most in training, in (0, 1).
        shares: least and most of the open places that are hidden in training, between 0 and 1.
        extremes: share of the hidden tokens that should have got the score 1, and that should have got 0; at most 0.5.
        width: of the masker's hidden layer.
        dropout: of the masker.
        weight: of the mean squared error against the mean loss of the prediction, above 0.
        reach_encoder: whether the gradients of the error reach the encoder and the embedding.
        book_every: epochs between changes of the book; None: no book.
        close: least and most of the open places of an item that are closed in a change, between 0 and 1.
        reopen: most of the places of an item that are opened again in a change, in [0, 1].
        fields: names of the fields that are hidden of a token that is chosen, such as pitch; None: it is hidden whole.

    Raises:
        ValueError: a setting outside its range, or no fields; when called, a name that no field has, or tokens of a single field.
    """

    learns: ClassVar[bool] = True

    def __init__(
        self,
        mask_ratio: float = 0.15,
        shares: tuple[float, float] = (0.1, 0.3),
        extremes: float = 0.3,
        width: int = 256,
        dropout: float = 0.1,
        weight: float = 1.0,
        reach_encoder: bool = True,
        book_every: int | None = 5,
        close: tuple[float, float] = (0.1, 0.3),
        reopen: float = 0.1,
        fields: Sequence[str] | None = None,
    ) -> None:
        self.at_random = RandomMasking(mask_ratio)
        for name, (least, most) in (("shares", shares), ("close", close)):
            if not 0 <= least <= most <= 1:
                raise ValueError(f"{name} must be a least and a most share in [0, 1], got {least} and {most}.")
        if not 0 < extremes <= 0.5:
            raise ValueError(f"extremes must be in (0, 0.5], got {extremes}: no token can be both.")
        if not (0 <= dropout < 1 and 0 <= reopen <= 1):
            raise ValueError(f"dropout must be in [0, 1) and reopen in [0, 1], got {dropout} and {reopen}.")
        if width < 1 or weight <= 0 or (book_every is not None and book_every < 1):
            raise ValueError(f"width, weight and book_every must be positive, got {width}, {weight} and {book_every}.")
        if fields is not None and not fields:
            raise ValueError("fields is empty: leave it out to hide whole tokens.")
        self.fields = fields
        self.mask_ratio, self.shares, self.extremes = mask_ratio, tuple(shares), extremes
        self.width, self.dropout, self.weight, self.reach_encoder = width, dropout, weight, reach_encoder
        self.book_every, self.close, self.reopen = book_every, tuple(close), reopen

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, "n ..."]:
        """Return True where a token, or ``(n, k)`` a field of it, is hidden, at random, as in evaluation."""
        return self.hidden(tokens, self.at_random(tokens, seed))

    def hidden(self, tokens: Tokens, chosen: Bool[Tensor, " n"]) -> Bool[Tensor, "n ..."]:
        """Return what is hidden where these tokens are chosen: the tokens, or ``(n, k)`` the fields of them."""
        if self.fields is None:
            return chosen
        of_token = torch.zeros(len(tokens.fields), dtype=torch.bool, device=chosen.device)
        of_token[numbers_of_fields(tokens, self.fields, type(self).__name__)] = True
        return chosen[:, None] & of_token

    def masker(self, dim: int) -> Masker:
        """Return a new masker for an encoder of this width."""
        return Masker(dim, self.width, self.dropout)

    def changes_book(self, epoch: int) -> bool:
        """Return whether the book changes in an epoch, counted from 0."""
        return self.book_every is not None and (epoch + 1) % self.book_every == 0

    def choose(
        self, tokens: Tokens, scores: Float[Tensor, " n"], closed: Bool[Tensor, " n"], seed: Int[Tensor, " items"]
    ) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden in training: one at least of each item that has an open place."""
        shut = _shut(tokens, closed)
        there = count_within(tokens, ~shut)
        wanted = (_between(seed, SHARE, *self.shares) * there).round().long()
        most = (free_tokens(tokens) * self.mask_ratio).round().long()
        count = torch.minimum(torch.minimum(wanted, most).clamp(min=1), there)
        return rank_within(tokens, (-scores).masked_fill(shut, torch.inf)) < count[tokens.item]

    def targets(
        self, tokens: Tokens, losses: Float[Tensor, " n"], masked: Bool[Tensor, " n"], corrupted: Bool[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Return the score that each token should have got: 1 where it was hard to predict, 0 where it was easy, NaN at all others.

        Args:
            tokens: of all items.
            losses: of the prediction; read where a token is hidden and changed.
            masked: True at the hidden tokens.
            corrupted: True where something else than the token was shown, or nothing.
        """
        asked, item = masked & corrupted, tokens.item
        found = count_within(tokens, asked)
        wanted = (count_within(tokens, masked) * self.extremes).round().long().clamp(min=1)
        count = torch.minimum(wanted, found // 2)[item]
        rank = rank_within(tokens, losses.masked_fill(~asked, torch.inf))
        targets = torch.full_like(losses, torch.nan)
        targets[asked & (rank < count)] = 0.0
        targets[asked & (rank >= found[item] - count)] = 1.0
        return targets

    def closed_next(
        self, tokens: Tokens, scores: Float[Tensor, " n"], closed: Bool[Tensor, " n"], seed: Int[Tensor, " items"]
    ) -> Bool[Tensor, " n"]:
        """Return the closed places after a change of the book."""
        shut, item = _shut(tokens, closed), tokens.item
        count = (_between(seed, CLOSED, *self.close) * count_within(tokens, ~shut)).long()
        closing = rank_within(tokens, (-scores).masked_fill(shut, torch.inf)) < count[item]
        opened = uniform(seed[item], tokens.position, PLACES) < _between(seed, REOPENED, 0.0, self.reopen)[item]
        return (closed | closing) & ~opened


def _shut(tokens: Tokens, closed: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    return closed if tokens.marks is None else closed | tokens.marks


def _between(seed: Int[Tensor, " items"], stream: int, least: float, most: float) -> Float[Tensor, " items"]:
    """Return one number for each item, uniform from ``least`` to ``most``."""
    return least + uniform(seed, torch.zeros_like(seed), stream) * (most - least)
