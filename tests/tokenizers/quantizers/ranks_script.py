"""Quantize on two processes: ``torchrun --nproc-per-node 2 ranks_script.py FOLDER`` writes what each rank has to ``FOLDER/<rank>.pt``.

That is, for each quantizer: its state after four steps without and with revived codes, and how many were revived.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import distributed

from multimodal.tokenizers.quantizers import Codebook, EuclideanCodebook, Quantizer, ResidualQuantizer


def codebook(revive_below: float) -> Codebook:
    return Codebook(8, 24, decay=0.9, revive_below=revive_below)


def residual(revive_below: float) -> ResidualQuantizer:
    return ResidualQuantizer(8, 2, partial(EuclideanCodebook, num_codes=12, revive_below=revive_below))


def train(rank: int, make: Callable[[], Quantizer]) -> tuple[dict[str, torch.Tensor], int]:
    """Return the state at the end, and how many codes were revived."""
    torch.manual_seed(rank)  # codes differ before the first batch
    quantizer = make().train()
    torch.manual_seed(5 + rank)
    revived = 0
    for step in range(4):
        vectors = 3 * torch.randn(30 + 7 * rank, 8, generator=torch.Generator().manual_seed(10 * step + rank))
        parts = quantizer.quantize(vectors).parts
        revived += sum(int(value) for name, value in parts.items() if name.startswith("revived_codes"))
    return dict(quantizer.state_dict()), revived


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    number, outcomes = distributed.get_rank(), {}
    for builder in (codebook, residual):
        plain, _ = train(number, partial(builder, 0.0))
        reviving, total = train(number, partial(builder, 0.9))
        outcomes[builder.__name__] = {"plain": plain, "reviving": reviving, "revived": total}
    torch.save(outcomes, Path(sys.argv[1]) / f"{number}.pt")
    distributed.destroy_process_group()
