"""How much of its codebook VQ-KD uses after training on a few thousand crops: as published, and with unused codes moved.

``python -m benchmarks.codebook_usage.run CROPS`` with a folder that ``python -m benchmarks.crops`` made. Each row is one tokenizer: 8 x 8
patches of 64 x 64 pixels, a ViT of width 128 with 2 layers, codes of 32 values, a decoder of one layer, and the same batches. It prints,
over the crops of the train split and over those of photographs that were not trained on, the share of the codes used at least once, their
perplexity and the number never used, and of the latter the distillation loss.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.codebook_usage.teacher import GradientTeacher
from multimodal.protocols import Teacher
from multimodal.tokenizers.image import ModelTeacher, VqKdTokenizer
from multimodal.tokenizers.quantizers import Codebook
from multimodal.training import WarmupCosine, parameter_groups
from multimodal.training.scores import CodebookUse

SIDE, PATCH, GRID = 64, 8, 8
SIZES = {"dim": 128, "depth": 2, "num_heads": 4, "hidden_dim": 512}
DECODER = {"decoder_dim": 128, "decoder_depth": 1, "decoder_heads": 4, "decoder_hidden_dim": 512}
CODE_DIM, BATCH, LEARNING_RATE = 32, 64, 1e-3


class Row(NamedTuple):
    """What a trained tokenizer does.

    Args:
        train: usage, perplexity and dead codes over the crops of the train split.
        held_out: the same over the crops of other photographs.
        distillation: mean of 1 - cosine over the latter.
        seconds: of processor time for training.
    """

    train: dict[str, float]
    held_out: dict[str, float]
    distillation: float
    seconds: float


def crops(folder: Path, split: str) -> Tensor:
    """Return the crops of a split, ``(images, 3, 96, 96)`` uint8."""
    files = sorted((folder / "files" / split).rglob("*.png"))
    return torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2).contiguous()


def view(images: Tensor, top: int, left: int) -> Tensor:
    """Return a square of the images."""
    return images[:, :, top : top + SIDE, left : left + SIDE].contiguous()


def train(images: Tensor, teacher: Teacher, codebook: partial[Codebook], steps: int) -> VqKdTokenizer:
    """Train a tokenizer; the batches and the first weights are the same for any codebook."""
    torch.manual_seed(0)
    sizes = {"code_dim": CODE_DIM, "patch_size": PATCH, "grid": (GRID, GRID), "teacher_dim": None, **SIZES, **DECODER}
    tokenizer = VqKdTokenizer(num_codes=None, quantizer=codebook, teacher=teacher, **sizes).train()
    optimizer = torch.optim.AdamW(parameter_groups(tokenizer), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = WarmupCosine(optimizer, steps, warmup=0.1, final=0.05)
    order = torch.Generator().manual_seed(1)
    for step in range(steps):
        top, left = torch.randint(images.shape[2] - SIDE + 1, (2,), generator=order).tolist()
        batch = view(images[torch.randint(len(images), (BATCH,), generator=order)], top, left)
        loss = tokenizer.training_loss(batch.flip(-1) if step % 2 else batch, step / steps).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return tokenizer.eval()


@torch.no_grad()
def score(tokenizer: VqKdTokenizer, images: Tensor) -> tuple[dict[str, float], float]:
    """Return the use of the codebook over the middles of images, and the distillation loss."""
    use, total = CodebookUse(tokenizer.vocab_sizes[0]), 0.0
    middle = (images.shape[2] - SIDE) // 2
    for batch in view(images, middle, middle).split(BATCH):
        step = tokenizer.training_loss(batch, 1.0)
        use.update(step.ids)
        total += float(step.parts["distillation"]) * len(batch)
    return {name: float(value) for name, value in use.compute().items()}, total / len(images)


def measure(images: Tensor, held_out: Tensor, teacher: Teacher, codebook: partial[Codebook], steps: int) -> Row:
    """Train and score one tokenizer."""
    begin = time.process_time()
    tokenizer = train(images, teacher, codebook, steps)
    seconds = time.process_time() - begin
    return Row(score(tokenizer, images)[0], *score(tokenizer, held_out), seconds)


def main() -> None:
    """Print the table, a row when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path, help="folder that python -m benchmarks.crops made")
    parser.add_argument(
        "--teacher", help="folder of a saved model with patches of 8 pixels; by default colours and gradients are the teacher"
    )
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--codes", type=int, nargs="+", default=[1024, 8192])
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = GradientTeacher(PATCH) if options.teacher is None else ModelTeacher(options.teacher)
    images, held_out = crops(options.crops, "train"), crops(options.crops, "test")
    print(
        f"{len(images)} crops to train on, {len(held_out)} of other photographs; {options.steps} steps of {BATCH}; {type(teacher).__name__}"
    )
    print("| codes | unused codes | usage | perplexity | dead | held out: usage | perplexity | dead | distillation loss | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for num_codes in options.codes:
        for name, settings in {"stay (published)": {"revive_below": 0.0}, "are moved": {}}.items():
            row = measure(images, held_out, teacher, partial(Codebook, num_codes=num_codes, **settings), options.steps)
            cells = [f"{use['usage']:.1%} | {use['perplexity']:.0f} | {use['dead_codes']:.0f}" for use in (row.train, row.held_out)]
            print(f"| {num_codes:,} | {name} | {cells[0]} | {cells[1]} | {row.distillation:.4f} | {row.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
