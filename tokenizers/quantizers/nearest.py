"""The nearest code of each vector: found in bfloat16, decided in float64.

Letters in shapes: n vectors, b vectors of a block, k codes, d width, g groups of codes, m members of a group, p pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK, NUM_GROUPS, PAIRS = 256, 128, 1024
MOST_CANDIDATES = 16
"""Of a vector. With more of them, such as copies of one code, all codes are compared in float64."""
BFLOAT16, FLOAT32 = 2.0**-9, 2.0**-24
"""What rounding to these changes a number by at most, as a share of it."""


class Coarse(NamedTuple):
    """What is compared first, with a bound of its error.

    Args:
        vectors: ``(n, d)`` or wider, rounded.
        codes: ``(k, d)`` or wider, rounded; ``k`` filled up to a multiple of the number of groups.
        offset: ``(k,)`` to be added to the products; None where it is in them.
        error: ``(n,)`` how far a score of each vector is from the exact one, at most.
    """

    vectors: Tensor
    codes: Tensor
    offset: Tensor | None
    error: Tensor


@torch.no_grad()
def nearest_code(vectors: Float[Tensor, "n d"], codes: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """Return the index of the code with the smallest Euclidean distance to each vector; the first of equal ones.

    The ids are those of float64 arithmetic, on every device: a fast comparison finds all codes that may be the nearest, by the bound of
    its error, and only those are compared exactly.

    Args:
        vectors: to be replaced by codes.
        codes: of the codebook, at least one.

    Raises:
        ValueError: there are no codes, or a number is not finite.
    """
    if not len(codes):
        raise ValueError("there are no codes to choose from.")
    if not (bool(torch.isfinite(vectors.sum())) and bool(torch.isfinite(codes.sum()))):
        raise ValueError("vectors and codes must be finite numbers (and not so large that their sum overflows); these are not.")
    if not len(vectors):
        return torch.empty(0, dtype=torch.long, device=vectors.device)
    with torch.autocast(vectors.device.type, enabled=False):
        row, code = _candidates(_coarse(vectors.float(), codes.float()), len(codes))
        ids = best_pairs(vectors, codes, row, code)
        undecided = ids == len(codes)
        if bool(undecided.any()):
            ids[undecided] = _compare_all(vectors[undecided], codes)
    return ids


def _coarse(vectors: Tensor, codes: Tensor) -> Coarse:
    """Round for the first comparison; in bfloat16 where the processor multiplies such numbers."""
    half = codes.square().sum(1) / 2
    half = half - (half.max() + half.min()) / 2  # a shift of all scores changes no order
    spread, reach = half.abs().max(), vectors.norm(dim=1) * codes.norm(dim=1).max()
    missing = -len(codes) % NUM_GROUPS
    share = math.sqrt(codes.shape[1]) * 4 * FLOAT32  # of the additions, which are in float32 either way, and of the norms
    if not _has_bfloat16(vectors.device):
        exact = vectors.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
        rounding = codes.shape[1] * 2 * FLOAT32 + (0 if exact else 3 * BFLOAT16)  # other settings let products be rounded
        return Coarse(vectors, _filled(codes, missing), -_filled(half, missing), 1.01 * (reach + spread) * rounding)
    even = bool(spread <= BFLOAT16 * reach.min())  # codes of one length need no offset
    if not even:
        high = half.bfloat16()
        low = (half - high).bfloat16()
        codes = torch.cat([codes, -torch.stack([high.float(), low.float()], 1)], 1)
        vectors = torch.cat([vectors, vectors.new_ones(len(vectors), 2)], 1)
    lost = spread if even else spread * (BFLOAT16 + 2 * BFLOAT16**2)
    error = 1.01 * (reach * (3 * BFLOAT16 + 2 * BFLOAT16**2 + share) + lost)
    return Coarse(vectors.bfloat16(), _filled(codes, missing).bfloat16(), None, error)


def _filled(x: Tensor, count: int) -> Tensor:
    """Return the rows with the first one repeated after the last; it is chosen by its first number."""
    return torch.cat([x, x[:1].expand(count, *x.shape[1:])]) if count else x


def _has_bfloat16(device: torch.device) -> bool:
    if device.type != "cpu":
        return False  # a GPU may add up bfloat16 products in bfloat16, whose error has no such bound
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _candidates(coarse: Coarse, num_codes: int) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Return pairs of a vector and a code, among them the nearest code of each vector that has not too many.

    Blocks of vectors share memory, so that it stays in the cache; what can wait is done for all blocks at once.
    """
    rows, groups, members, margin = [], [], [], 2 * coarse.error
    scores = coarse.codes.new_empty(min(BLOCK, len(coarse.vectors)), len(coarse.codes))
    for start in range(0, len(coarse.vectors), BLOCK):
        vectors = coarse.vectors[start : start + BLOCK]
        own = scores[: len(vectors)]
        if coarse.offset is None:
            torch.mm(vectors, coarse.codes.T, out=own)
        else:
            torch.addmm(coarse.offset, vectors, coarse.codes.T, out=own)
        grouped = own.unflatten(1, (-1, NUM_GROUPS))  # b m g: the maxima of groups that lie interleaved are fast
        best = grouped.amax(1).float()
        least = best.amax(1, keepdim=True) - margin[start : start + BLOCK, None]
        row, group = _few((best >= least).nonzero(), len(own)).unbind(1)
        rows.append(start + row)
        groups.append(group)
        members.append(grouped[row, :, group].float() >= least[row])
    pair, member = torch.cat(members).nonzero().unbind(1)
    row, code = torch.cat(rows)[pair], member * NUM_GROUPS + torch.cat(groups)[pair]
    pairs = torch.stack([row, torch.where(code < num_codes, code, 0)], 1)  # beyond are copies of the first
    row, code = _few(pairs, len(coarse.vectors)).unbind(1)
    return row, code


def _few(pairs: Int[Tensor, "p 2"], count: int) -> Int[Tensor, "q 2"]:
    """Leave out the pairs of vectors, of ``count``, that are in too many; these stay undecided."""
    if len(pairs) <= MOST_CANDIDATES:
        return pairs
    number = torch.bincount(pairs[:, 0], minlength=count)
    return pairs[(number <= MOST_CANDIDATES)[pairs[:, 0]]] if int(number.max()) > MOST_CANDIDATES else pairs


def best_pairs(vectors: Tensor, codes: Tensor, row: Int[Tensor, " p"], code: Int[Tensor, " p"]) -> Int[Tensor, " b"]:
    """Return the nearest of the candidates of each vector; the number of codes for a vector without any."""
    parts = zip(row.split(PAIRS), code.split(PAIRS), strict=True)
    distance = torch.cat([(vectors[i].double() - codes[j].double()).square_().sum(1) for i, j in parts])
    least = distance.new_full((len(vectors),), math.inf).scatter_reduce(0, row, distance, "amin")
    won = distance == least[row]
    ids = torch.full((len(vectors),), len(codes), device=vectors.device)
    return ids.scatter_reduce(0, row[won], code[won], "amin")


def _compare_all(vectors: Tensor, codes: Tensor) -> Int[Tensor, " b"]:
    """Return the nearest codes in float64."""
    exact = codes.double()
    return torch.stack([(exact - vector.double()).square().sum(1).argmin() for vector in vectors])
