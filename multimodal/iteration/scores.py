"""What rounds have come to: how each tokenizer uses its codes, and how well its ids are predicted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from multimodal.iteration.plan import IterationPlan, RoundFolder

MOST_SAMPLES = 2000
"""Of the validation split, whose ids are counted."""
BATCH = 16


class RoundScores(NamedTuple):
    """Scores of one round, on the validation split.

    Args:
        number: of the round.
        vocab_size: of its tokenizer.
        usage: share of the codes that occur; the mean over fields.
        perplexity: of the ids; the mean over fields.
        accuracy: of the predicted ids; None: not scored.
        loss: of the predicted ids; None: not scored.
    """

    number: int
    vocab_size: int
    usage: float
    perplexity: float
    accuracy: float | None
    loss: float | None


def round_scores(plan: IterationPlan, folder: RoundFolder) -> RoundScores:
    """Return the scores of a round that is done."""
    last = _last_scores(folder.pretraining)
    accuracy, loss = (last.get(f"val/{score}/{plan.modality}") for score in ("accuracy", "loss"))
    size, usage, perplexity = _codebook_use(plan, folder.tokenizer)
    return RoundScores(folder.number, size, usage, perplexity, accuracy, loss)


def _last_scores(run: Path) -> dict[str, float]:
    """Return what was logged last of each score; nothing of a run with other loggers than the default's."""
    from multimodal.report.run_folder import RunFolder

    try:
        curves = RunFolder.read(run).curves
    except ValueError:
        return {}
    return {name: points[-1][1] for name, points in curves.items() if points}


@torch.inference_mode()
def _codebook_use(plan: IterationPlan, tokenizer: Path) -> tuple[int, float, float]:
    from multimodal.datamodules.shard_datamodule import ShardDataModule
    from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe
    from multimodal.tokenizers.pretrained import load_tokenizer
    from multimodal.training.scores import CodebookUse

    made = load_tokenizer(str(tokenizer))
    transform = TokenizerRecipe(json.dumps(plan.transform)).build()[0]
    settings = plan.data_settings
    named = {key: settings[key] for key in ("train_split", "val_split", "on_error", "max_bad_fraction") if key in settings}
    data = ShardDataModule(plan.sources, {plan.modality: transform}, batch_size=BATCH, **named)
    data.setup("validate")
    uses = [CodebookUse(size) for size in made.vocab_sizes]
    for items in _items(data.val_dataloader(), plan.modality):
        ids = made.encode(*items.for_tokenizer)
        for use, own in zip(uses, ids.view(len(ids), -1).unbind(1), strict=True):
            use.update(own)
    found = [use.compute() for use in uses]
    usage, perplexity = (float(torch.stack([use[name] for use in found]).mean()) for name in ("usage", "perplexity"))
    return max(made.vocab_sizes), usage, perplexity


def _items(batches: Iterable[Any], modality: str) -> Iterable[Any]:
    return (batch.items[modality] for batch in islice(batches, MOST_SAMPLES // BATCH) if modality in batch.items)
