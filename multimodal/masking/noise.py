"""Random numbers that belong to an item, not to a batch.

A generator gives numbers in the order they are asked for, so what an item gets depends on its neighbours in the batch, on the rank and
on gradient accumulation. Here a number is a hash of (seed of the item, stream, counter): the masks of an item are the same in any
batch, on any device, and after any restart.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SCALE = 2.0**-24  # float32 holds 24 bits exactly


def uniform(seed: Int[Tensor, "*shape"], counter: Int[Tensor, "*shape"], stream: int = 0) -> Float[Tensor, "*shape"]:
    """Return float32 numbers, uniform in [0, 1), that are a function of (seed, stream, counter) alone.

    The hash is the finaliser of SplitMix64 (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195), applied to the seed and
    then to the seed mixed with the counter.

    Args:
        seed: int64, one per number (broadcasts against ``counter``).
        counter: int64, which number of the seed.
        stream: separates uses of one seed: a masking, a corruption, each attempt of a loop.
    """
    state = _mix(seed + _signed(0x9E3779B97F4A7C15 * (stream + 1)))
    bits = _mix(state ^ _mix(counter + _signed(0xD1B54A32D192ED03)))
    return _shift(bits, 40).to(torch.float32) * _SCALE


def hashed(counter: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Return int64 numbers of 64 random-looking bits that are a function of the counters alone."""
    return _mix(_mix(counter + _signed(0x9E3779B97F4A7C15)))


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)  # int64 products wrap around, on the CPU and on a GPU
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # `>>` repeats the sign bit


def _signed(value: int) -> int:
    """Return the int64 with the lowest 64 bits of ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
