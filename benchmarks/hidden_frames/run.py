"""A hidden picture of real films, from the two before and after it: an encoder beside the mean of its neighbours.

``python -m benchmarks.hidden_frames.run [--steps 600] [--gap 1]``; films come to data/hidden_frames. The first three quarters of each of
six films are learned from, without labels, the last quarter is for testing. Pictures are 64 x 64 pixels, one after the other as the film
has them, or further apart (``--gap``). One of the three inner pictures of five is hidden. The model predicts how it differs from the mean
of its two neighbours (``BetweenTimes``), so that one that has learned nothing is as good as that mean.

PSNR in dB: of a clip, ``10 log10(255^2 / mean squared error)``, then the mean over the clips of a film.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.hidden_frames.films import film_clips, film_files
from multimodal.batch import Batch, Item, Sample, collate
from multimodal.masking import Drop, FrameMasking
from multimodal.modality import Modality
from multimodal.nn import Decoder, Encoder, SinCosPosition3d
from multimodal.objectives import BetweenTimes
from multimodal.objectives.between_times import neighbours
from multimodal.tokenizers.video import TubeletEmbed, VideoTransform
from multimodal.training import FusedAdamW, MaskedPretraining, WarmupCosine

DATA = Path("data/hidden_frames")
FRAMES, SIZE, PATCH = 5, 64, 8
LEARNED, TESTED = 120, 40
"""Clips of each film."""
MODALITY = "video"


class RandomBatches(IterableDataset):
    """Endless batches of clips, drawn with replacement, mirrored and turned back in time by chance.

    Args:
        clips: ``(n, f, 3, s, s)`` uint8.
        batch_size: clips of a batch.
        seed: of the draws.
    """

    def __init__(self, clips: Tensor, batch_size: int = 16, seed: int = 0) -> None:
        self.clips, self.batch_size, self.seed = clips, batch_size, seed

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            drawn, seeds = torch.randint(2**31, (2, self.batch_size), generator=generator).tolist()
            turned = [_turned(self.clips[number % len(self.clips)], seed) for number, seed in zip(drawn, seeds, strict=True)]
            yield batch_of(turned, seeds)


def batch_of(clips: list[Tensor], seeds: list[int]) -> Batch:
    """Return clips as a batch; the seeds say which picture is hidden."""
    return collate([Sample(str(i), {MODALITY: Item(clip)}, {}, seed) for i, (clip, seed) in enumerate(zip(clips, seeds, strict=True))])


def _turned(clip: Tensor, seed: int) -> Tensor:
    clip = clip.flip(-1) if seed & 1 else clip
    return clip.flip(0) if seed & 2 else clip


def make_model() -> MaskedPretraining:
    """Return a model that was not trained."""
    modality = partial(
        Modality,
        transform=VideoTransform(SIZE, FRAMES),
        embed=partial(TubeletEmbed, tubelet_size=1, patch_size=PATCH, position=SinCosPosition3d),
        masking=FrameMasking(),
        corruption=Drop(),
        target=BetweenTimes(),
        decoder=partial(Decoder, width=96, depth=2, num_heads=3, position=SinCosPosition3d),
    )
    schedule = partial(WarmupCosine, warmup=0.1, final=0.0)
    return MaskedPretraining(
        Encoder(96, 3, 3), {MODALITY: modality}, optimizer=partial(FusedAdamW, lr=1e-3, betas=(0.9, 0.95)), schedule=schedule
    )


def train(model: MaskedPretraining, clips: Tensor, steps: int) -> None:
    """Train for a number of optimizer steps."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(accelerator="cpu", max_steps=steps, gradient_clip_val=3.0, **quiet)
        trainer.fit(model, DataLoader(RandomBatches(clips), batch_size=None))


@torch.no_grad()
def scores(model: MaskedPretraining, clips: Tensor) -> dict[str, float]:
    """Return the mean PSNR in dB of the hidden pictures: their mean colour, the mean of the neighbours, and the model's."""
    model.eval()
    encoded = model(batch_of(list(clips), list(range(len(clips)))))
    assert encoded is not None
    view = encoded.views[MODALITY]
    tokens, masked = view.view.tokens, view.view.masked
    values = model.modalities[MODALITY].embed.tokens(clips).inputs.float()
    between, truth = neighbours(values, tokens)[masked], values[masked]
    made = between + 255 * view.modality.head.predict(view.hidden, view.truth).ids
    colour = truth.view(len(clips), -1).mean(1).repeat_interleave(len(truth) // len(clips))[:, None].expand_as(truth)
    guesses = {"mean colour": colour, "mean of neighbours": between, "model": made}
    return {name: float(psnr(guess, truth, len(clips)).mean()) for name, guess in guesses.items()}


def psnr(guess: Tensor, truth: Tensor, count: int) -> Tensor:
    """Return the PSNR of each clip in dB, ``(count,)``; guesses are rounded to whole levels, which pictures have."""
    error = (guess.round().clamp(0, 255) - truth).view(count, -1).square().mean(1)
    return 10 * torch.log10(255**2 / error.clamp(min=1e-4))


def main() -> None:
    """Train, and print a table of the films."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hidden_frames.run", description="Hidden pictures of real films.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--gap", type=int, default=1, help="from one picture to the next, in pictures of the film (default: %(default)s)")
    arguments = parser.parse_args()
    L.seed_everything(0, verbose=False)
    learned, tested = film_clips(film_files(DATA), FRAMES, SIZE, LEARNED, TESTED, arguments.gap)
    model = make_model()
    train(model, learned, arguments.steps)
    found = {name: scores(model, clips) for name, clips in tested.items()}
    table = Table(
        "film",
        *next(iter(found.values())),
        title=f"PSNR in dB, a picture every {arguments.gap}, {arguments.steps} steps, {len(learned)} clips",
    )
    for name, own in found.items():
        table.add_row(name, *(f"{score:.2f}" for score in own.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
