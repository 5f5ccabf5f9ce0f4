"""Quantize on two processes: ``torchrun --nproc-per-node 2 ranks_script.py FOLDER`` writes what each rank has to ``FOLDER/<rank>.pt``."""

import sys
from pathlib import Path

import torch
from torch import distributed

from multimodal.tokenizers.quantizers import Codebook


def drawn(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) * 3.0


def train(rank: int, **settings) -> dict[str, torch.Tensor]:
    torch.manual_seed(rank)  # codes differ before the first batch
    codebook = Codebook(8, 24, **settings).train()
    torch.manual_seed(5 + rank)
    revived = torch.zeros(())
    for step in range(4):
        outcome = codebook.quantize(drawn(30 + 7 * rank, seed=10 * step + rank))
        revived += outcome.parts["revived_codes"]
    return {**codebook.state_dict(), "revived": revived}


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    number = distributed.get_rank()
    torch.save(
        {"plain": train(number, decay=0.9, revive_below=0.0), "reviving": train(number, decay=0.9, revive_below=0.9)},
        Path(sys.argv[1]) / f"{number}.pt",
    )
    distributed.destroy_process_group()
