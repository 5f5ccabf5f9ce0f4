"""What the tests of text, music and multimodal families share: ragged batches, and checks of every tensor. Not a test by itself."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.pretrained import PretrainedModel
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions, Part
from multimodal.pretrained.registry import find_format

TOLERANCE = 1e-5


class Ragged:
    """Texts of different lengths: padded as transformers wants them, and end to end as we do.

    Args:
        longest: tokens of the longest text.
        vocab: number of ids.
    """

    def __init__(self, longest: int, vocab: int) -> None:
        self.lengths = torch.tensor([longest // 2, longest, 1])
        self.ids = torch.randint(vocab, (3, longest), generator=torch.Generator().manual_seed(longest))
        self.mask = torch.arange(longest) < self.lengths[:, None]

    @property
    def packed(self) -> Tensor:
        return self.ids[self.mask]

    @property
    def padded(self) -> dict[str, Tensor]:
        return {"input_ids": self.ids, "attention_mask": self.mask.long()}


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module with weights, biases and norms that make mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        around = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        parameter.data.copy_(around + torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def check_close(own: Tensor, expected: Tensor) -> None:
    assert own.shape == expected.shape
    assert expected.abs().max() > 0.1, "a comparison of nothing"
    assert (own - expected).abs().max().item() <= TOLERANCE


@torch.no_grad()
def check_layers(model: PretrainedModel, batch: Ragged, expected: list[Tensor]) -> None:
    """Compare the tokens after every layer; the last of ``expected`` is what follows the final norm, where there is one."""
    final, own = model.forward_intermediates(batch.packed, batch.lengths, output_fmt="NLC")
    own = own if model.encoder.norm is None else [*own[:-1], final]
    assert len(own) == len(expected) == model.encoder.depth
    for layer, reference in zip(own, expected, strict=True):
        check_close(layer[batch.mask], reference[batch.mask])


def stand_ins(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return tensors of these shapes, which take no memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def shapes_of(make: type[nn.Module], config: Any) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a reference of full size, which is not made."""
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in make(config).state_dict().items()}


def check_accounts(shapes: dict[str, tuple[int, ...]], config: dict[str, Any], family: str, layout: str, ignored: int) -> dict[str, Part]:
    """Check that one format knows these tensors, that all become ours in our shapes, and that the rest is so many with a reason."""
    form = find_format(shapes, config)
    assert (form.family, form.layout) == (family, layout)
    checkpoint = Checkpoint(stand_ins(shapes), config, path=Path("nowhere/file.pth"))
    with torch.device("meta"):
        parts = {part.name: part for part in form.read(checkpoint, ImportOptions())}
    for part in parts.values():
        own = {name: tuple(x.shape) for name, x in part.target.state_dict().items() if name not in part.keymap.kept}
        assert {name: tuple(x.shape) for name, x in part.keymap.to_ours(checkpoint.tensors).items()} == own
    used = {name for part in parts.values() for entry in part.keymap.entries for name in entry.theirs}
    left = shapes.keys() - used
    assert all(any(part.keymap.reason(name) for part in parts.values()) for name in left), left
    assert len(left) == ignored
    return parts
