"""A training step of BEiT on hidden patches: ours, transformers' and timm's, and ours with the encoder on visible patches only.

Each starts from the same uint8 images, hides the same patches, and does forward, backward and AdamW. All have the same weights at first,
and the losses are compared before anything is timed. AdamW is the one that each is trained with: transformers' Trainer takes PyTorch's
fused one, timm's script PyTorch's default.

    python -m benchmarks.masked_image_step
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from rich.console import Console
from torch import nn
from torch.optim import AdamW, Optimizer

from benchmarks.masked_image_models import OurBeit, Size, TimmBeit, TransformersBeit, VisibleBeit, Work, copy_weights, make_work
from benchmarks.side_by_side import Candidate, machine, measure, table

VISIBLE = "ours, visible patches alone"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""How far losses may lie apart; bfloat16 keeps 8 bits, and each rounds at other places."""


def autocast(dtype: torch.dtype) -> AbstractContextManager:
    """Return the context of a forward pass; float32 needs none."""
    return torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)


def step(model: nn.Module, optimizer: Optimizer, work: Work, dtype: torch.dtype) -> Candidate:
    """Return a call that does one training step and returns the number of images."""

    def run() -> int:
        with autocast(dtype):
            loss = model(work)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return len(work.images)

    return run


def make_models(size: Size) -> dict[str, nn.Module]:
    """Return ours first, then the peers with its weights."""
    torch.manual_seed(0)
    ours = OurBeit(size)
    peers = {
        "transformers, its default (SDPA)": TransformersBeit(size, "sdpa"),
        "transformers, eager": TransformersBeit(size, "eager"),
        "timm, masked head": TimmBeit(size),
    }
    for peer in peers.values():
        copy_weights(ours, peer)
    return {"ours": ours, **peers}


@torch.no_grad()
def check_same(models: dict[str, nn.Module], work: Work, dtype: torch.dtype) -> str:
    """Compare the losses, and return a line that says how far they lie apart.

    Raises:
        ValueError: further than is allowed.
    """
    with autocast(dtype):
        losses = {name: float(model(work)) for name, model in models.items()}
    own = losses["ours"]
    apart = max(abs(loss - own) for loss in losses.values())
    if apart > TOLERANCE[dtype]:
        raise ValueError(f"the losses differ by {apart:.2g}, {TOLERANCE[dtype]:.0e} is allowed: {losses}.")
    return f"same loss: {own:.5f}, at most {apart:.1e} apart ({str(dtype).removeprefix('torch.')})"


def make_optimizer(name: str, model: nn.Module) -> Optimizer:
    """Return AdamW as each is trained with it."""
    return AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=None if name.startswith("timm") else True)


def candidates(models: dict[str, nn.Module], work: Work, dtype: torch.dtype) -> dict[str, Candidate]:
    """Return name -> a training step."""
    return {name: step(model.train(), make_optimizer(name, model), work, dtype) for name, model in models.items()}


def main(arguments: Sequence[str] | None = None, show: Callable[..., None] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=12, help="layers (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=768, help="width, a multiple of 128 (default: %(default)s)")
    parser.add_argument("--image", type=int, default=224, help="side of an image in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images of a step (default: %(default)s)")
    parser.add_argument("--mask-ratio", type=float, default=0.4, help="share of patches to hide (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"], help="of the products")
    options = parser.parse_args(arguments)
    show = show or Console().print
    size = Size(options.dim, options.depth, options.dim // 64, options.image)
    work = make_work(size, options.batch, options.mask_ratio)
    for name in options.dtypes:
        dtype, models = getattr(torch, name), make_models(size)
        show(check_same(models, work, dtype))
        ours, visible, *peers = measure(
            candidates({"ours": models.pop("ours"), VISIBLE: VisibleBeit(size), **models}, work, dtype), options.rounds
        )
        show(table([ours, *peers], "images", title=f"masked-image step, {name}"))
        show(table([visible, *peers], "images", title=f"the encoder on visible patches alone, {name}"))
    show(machine(["transformers", "timm", "torch"]))


if __name__ == "__main__":
    main()
