"""The nearest of 8192 codes, side by side with torch.cdist, vector-quantize-pytorch and faiss.

``python -m benchmarks.nearest_code [--vectors 12544] [--rounds 5] [--peers FOLDER]``

12,544 vectors are the patches of 64 images of 224 pixels. Codes and vectors have unit length, as in VQ-KD, or are drawn from a normal
distribution. Peers that are not installed are left out; ``--peers`` is a folder with them: ``pip install --target FOLDER --no-deps
faiss-cpu vector-quantize-pytorch einx frozendict loguru torch-einops-utils``. All must find the nearest codes; ours must be those of
float64.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from benchmarks.side_by_side import compare, machine
from multimodal.tokenizers.quantizers import nearest_code

NUM_CODES = 8192
PACKAGES = ("torch", "faiss-cpu", "vector-quantize-pytorch")
Finder = Callable[[Tensor], Tensor]


def main() -> int:
    """Print a table for each width and kind of vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=12_544)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="folder with peers that are not in the environment")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(options.peers)
    torch.set_num_threads(1)
    console = Console(width=140)
    for dim in (32, 256):
        for unit in (True, False):
            title = f"nearest of {NUM_CODES} codes of width {dim}, {'of unit length' if unit else 'normally distributed'}"
            vectors, codes = drawn(options.vectors, dim, unit, 0), drawn(NUM_CODES, dim, unit, 1)
            finders = finders_of(codes, unit)
            check(vectors, codes, finders)
            candidates = {name: counted(find, vectors) for name, find in finders.items()}
            console.print(compare(candidates, "vectors", options.rounds, title=title))
    console.print(machine(PACKAGES))
    return 0


def drawn(count: int, dim: int, unit: bool, seed: int) -> Tensor:
    """Return random vectors."""
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(x, dim=1) if unit else x


def counted(find: Finder, vectors: Tensor) -> Callable[[], int]:
    """Return a call that does the work once and returns the number of vectors."""
    return lambda: len(find(vectors))


def finders_of(codes: Tensor, unit: bool) -> dict[str, Finder]:
    """Return what is installed, ours first."""
    finders: dict[str, Finder] = {
        "multimodal nearest_code": lambda x: nearest_code(x, codes),
        "torch.cdist, argmin": lambda x: torch.cdist(x, codes).argmin(1),
    }
    if importlib.util.find_spec("vector_quantize_pytorch"):
        finders["vector-quantize-pytorch"] = by_vector_quantize(codes, unit)
    if importlib.util.find_spec("faiss"):
        finders["faiss, flat"] = by_faiss(codes)
    return finders


def by_faiss(codes: Tensor) -> Finder:
    """Return faiss' exhaustive search, on one thread."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(codes.shape[1])
    index.add(codes.numpy())
    return lambda x: torch.from_numpy(index.search(x.numpy(), 1)[1][:, 0])


def by_vector_quantize(codes: Tensor, unit: bool) -> Finder:
    """Return the look-up of vector-quantize-pytorch in evaluation mode."""
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(codes.shape[1], len(codes), use_cosine_sim=unit).eval()
    quantizer.codebook = codes

    @torch.no_grad()
    def find(x: Tensor) -> Tensor:
        ids: Tensor = quantizer(x[None])[1][0]
        return ids

    return find


def check(vectors: Tensor, codes: Tensor, finders: dict[str, Finder]) -> None:
    """Refuse to time what does not find the nearest codes.

    Raises:
        ValueError: ours are not those of float64, or a peer's distances are larger by more than rounding.
    """
    exact = torch.cat([torch.cdist(part, codes.double()).argmin(1) for part in vectors.double().split(512)])
    nearest = (vectors.double() - codes[exact].double()).norm(dim=1)
    for number, (name, find) in enumerate(finders.items()):
        ids = find(vectors)
        further = ((vectors.double() - codes[ids].double()).norm(dim=1) - nearest).max().item()
        if further > 1e-5 * nearest.max().item() or (number == 0 and not torch.equal(ids, exact)):
            raise ValueError(f"{name} does not find the nearest codes: one is further by {further:.2g}.")


if __name__ == "__main__":
    raise SystemExit(main())
