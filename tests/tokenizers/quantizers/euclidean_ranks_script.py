"""Residual quantization on two processes: ``torchrun --nproc-per-node 2 euclidean_ranks_script.py FOLDER`` writes ``FOLDER/<rank>.pt``."""

import sys
from functools import partial
from pathlib import Path

import torch
from torch import distributed

from multimodal.tokenizers.quantizers import EuclideanCodebook, ResidualQuantizer


def train(rank: int, **settings) -> dict[str, torch.Tensor]:
    torch.manual_seed(rank)  # codes differ before the first batch
    quantizer = ResidualQuantizer(8, 2, partial(EuclideanCodebook, num_codes=12, **settings)).train()
    torch.manual_seed(5 + rank)
    for step in range(4):
        count = 30 + 7 * rank
        quantizer.quantize(3 * torch.randn(count, 8, generator=torch.Generator().manual_seed(10 * step + rank)))
    return dict(quantizer.state_dict())


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    number = distributed.get_rank()
    states = {"plain": train(number, revive_below=0.0), "reviving": train(number, revive_below=0.9)}
    torch.save(states, Path(sys.argv[1]) / f"{number}.pt")
    distributed.destroy_process_group()
