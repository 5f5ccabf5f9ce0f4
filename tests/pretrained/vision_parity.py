"""What the tests of image and video families share: random references, and comparisons of each layer. Not a test by itself."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import format_of

TOLERANCE = 1e-5
IMAGENET_MEAN, IMAGENET_STD = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def randomized(module: nn.Module, seed: int = 0, std: float = 0.2) -> nn.Module:
    """Return the module with weights, biases and norms that make mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data.copy_(around + torch.randn(parameter.shape, generator=generator) * std)
    return module.eval()


def images(height: int = 32, width: int | None = None, count: int = 2) -> Tensor:
    shape = (count, 3, height, height if width is None else width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def half(pixels: Tensor) -> Tensor:
    return (pixels / 255 - 0.5) / 0.5


def imagenet(pixels: Tensor) -> Tensor:
    return (pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD


def imported(path: Path, family: str | None = None, layout: str | None = None, **settings: str) -> PretrainedModel:
    model = import_checkpoint(path, family, layout, ImportOptions(settings=settings)).parts[""]
    assert isinstance(model, PretrainedModel)
    return model


def save_timm(model: nn.Module, folder: Path, **more) -> Path:
    """Save as the hub has it: weights beside timm's config."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    facts = {key: value for key, value in model.pretrained_cfg.items() if key in ("mean", "std", "input_size", "tag")}
    config = {"architecture": model.pretrained_cfg["architecture"], "global_pool": model.global_pool, "pretrained_cfg": facts, **more}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@torch.no_grad()
def check_layers(model: PretrainedModel, pixels: Tensor, expected: list[Tensor]) -> None:
    """Compare the tokens after every layer, special ones first."""
    _, own = model.forward_intermediates(pixels, output_fmt="NLC", return_prefix_tokens=True)
    assert len(own) == len(expected) == model.encoder.depth
    assert all(x.ndim == 3 for x in expected)
    for number, ((tokens, special), reference) in enumerate(zip(own, expected, strict=True)):
        assert reference.abs().mean() > 0.1
        difference = (torch.cat([special, tokens], 1) - reference).abs().max().item()
        assert difference <= TOLERANCE * max(1, reference.abs().max().item()), (number, difference)


@torch.no_grad()
def check_close(own: Tensor, expected: Tensor) -> None:
    assert own.shape == expected.shape
    assert (own - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max().item())


def check_same(written: dict[str, Tensor], tensors: dict[str, Tensor], without: tuple[str, ...] = ()) -> None:
    """Compare tensors exactly; names that begin with one of ``without`` are not expected."""
    wanted = {name: x for name, x in tensors.items() if not name.startswith(without or ("\0",))}
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[name], x) for name, x in wanted.items())


def write(model: PretrainedModel, layout: str, folder: Path, family: str | None = None) -> Path:
    """Write a layout into a folder, as an export does."""
    written = format_of(family or model.settings.origin.family, layout).write(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: x.detach().clone().contiguous() for name, x in written.tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(written.config))
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def load_timm(folder: Path) -> nn.Module:
    """Load what was written, with timm's own reading of the config; every tensor must fit."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=False)
    model.load_state_dict(tensors_of(folder), strict=True)
    return model.eval()
