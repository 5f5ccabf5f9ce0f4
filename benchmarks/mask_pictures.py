"""What the maskings hide of real pictures, as one picture for the docs.

``python -m benchmarks.mask_pictures PICTURE [PICTURE ...] --to FILE``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from multimodal.masking import BlockwiseMasking, InverseBlockMasking, MixedMasking, RandomMasking
from multimodal.protocols import Masking
from multimodal.tokenizers.image import ImageTransform, PatchEmbed
from multimodal.training.callbacks.pictures import picture_grid

MASKINGS: dict[str, Masking] = {
    "BEiT": BlockwiseMasking(),
    "BEiT v2": BlockwiseMasking(exact=True),
    "MAE": RandomMasking(0.75),
    "data2vec 2.0": InverseBlockMasking(),
    "MixedAE": MixedMasking(4),
}
SIDE, GREY = 224, 128


def masked_pictures(files: list[Path], seed: int = 0) -> list[dict[str, Tensor]]:
    """Return for each picture its title -> ``(3, 224, 224)`` uint8: the middle of the picture, and what each masking leaves of it."""
    transform, embed = ImageTransform(SIDE), PatchEmbed(8)
    pixels = torch.stack([transform(transform.decode(file.read_bytes()), torch.Generator(), train=False).values for file in files])
    tokens, seeds = embed.tokens(pixels), torch.arange(len(files)) + seed
    rows: list[dict[str, Tensor]] = [{"picture": picture} for picture in pixels]
    for name, masking in MASKINGS.items():
        hidden = masking(tokens, seeds).view(len(files), 1, *(tokens.grid or ()))
        hidden = hidden.repeat_interleave(SIDE // hidden.shape[2], 2).repeat_interleave(SIDE // hidden.shape[3], 3)
        for row, picture, own in zip(rows, pixels, hidden, strict=True):
            row[name] = torch.where(own, pixels.new_tensor(GREY), picture)
    return rows


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    grid = picture_grid(masked_pictures(options.pictures))
    grid.resize((grid.width * 2 // 3, grid.height * 2 // 3)).quantize(128).save(options.to, optimize=True)


if __name__ == "__main__":
    main()
