"""Attention with a backward pass on a processor: PyTorch's fused kernel, the plain formula, and ours.

The work is that of a layer with heads of 64 whose queries, keys and values come out of one linear layer.

    python -m benchmarks.attention_kernels
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from benchmarks.side_by_side import Candidate, compare, machine
from multimodal.nn.kernels import choose_dense_kernel
from multimodal.nn.softmax_attention import softmax_attention

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
WIDTH = 64


def fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """``scaled_dot_product_attention``."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=None if bias is None else bias.to(query.dtype))


def plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Product, bias, softmax, product."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    return (logits if bias is None else logits + bias.to(query.dtype)).softmax(-1) @ value


KERNELS: dict[str, Kernel] = {"softmax": softmax_attention, "fused": fused, "plain formula": plain}


def layer(kernel: Kernel, count: int, length: int, heads: int, dtype: torch.dtype, biased: bool) -> Candidate:
    """Return a call that goes forward and back once and returns the number of tokens."""
    generator = torch.Generator().manual_seed(0)
    joined = torch.randn(count, length, 3, heads, WIDTH, generator=generator).to(dtype).requires_grad_()
    bias = torch.randn(1, heads, length, length, generator=generator).requires_grad_() if biased else None

    def run() -> int:
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind()  # g l 3 h e -> 3 x g h l e
        mixed = kernel(query, key, value, bias).transpose(1, 2)
        mixed.backward(torch.ones_like(mixed))
        return count * length

    return run


def main(arguments: Sequence[str] | None = None, show: Callable[..., None] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 197, 512], help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=1600, help="tokens of all sequences, about (default: %(default)s)")
    parser.add_argument("--heads", type=int, default=12, help="of the layer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: %(default)s)")
    options = parser.parse_args(arguments)
    show = show or Console().print
    for dtype in (torch.float32, torch.bfloat16):
        for biased in (False, True):
            for length in options.lengths:
                chosen = choose_dense_kernel("cpu", dtype, length, True, biased)
                names = [chosen, *(name for name in KERNELS if name != chosen)]  # the one that is chosen stands first
                count = max(options.tokens // length, 1)
                ways = {name: layer(KERNELS[name], count, length, options.heads, dtype, biased) for name in names}
                title = f"{str(dtype).removeprefix('torch.')}, {'a learned bias' if biased else 'no bias'}, {count} x {length} tokens"
                show(compare(ways, "tokens", options.rounds, title=title))
    show(machine(["torch"]))


if __name__ == "__main__":
    main()
