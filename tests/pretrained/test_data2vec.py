"""data2vec 2.0 and EAT: a whole model equals one computed from the description with loops, and files come and go whole."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import find_format, format_of
from tests.pretrained.vision_parity import check_close, check_layers, check_same, imagenet, images

FRONT = "modality_encoders.IMAGE."
MEAN, STD = -4.2677393, 4.5689974


def shapes_of(dim: int, early: int, late: int, channels: int, places: int, classes: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file."""
    prefix = "model." if classes else ""
    front = prefix + FRONT
    names: dict[str, tuple[int, ...]] = {
        f"{front}extra_tokens": (1, 1, dim),
        f"{front}fixed_positional_encoder.positions": (1, places, dim),
    }
    names |= {f"{front}local_encoder.proj.weight": (dim, channels, 16, 16), f"{front}local_encoder.proj.bias": (dim,)}
    layers = [f"{front}context_encoder.blocks.{i}" for i in range(early)] + [f"{prefix}blocks.{i}" for i in range(late)]
    one = {
        "norm1": (dim,),
        "attn.qkv": (3 * dim, dim),
        "attn.proj": (dim, dim),
        "norm2": (dim,),
        "mlp.fc1": (4 * dim, dim),
        "mlp.fc2": (dim, 4 * dim),
    }
    sizes: dict[str, tuple[int, ...]] = {f"{front}context_encoder.norm": (dim,)}
    sizes |= {f"{layer}.{name}": shape for layer in layers for name, shape in one.items()}
    sizes |= {"fc_norm": (dim,), "head": (classes, dim)} if classes else {}
    for name, shape in sizes.items():
        names |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return names


def tensors_of(**sizes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.2 * torch.randn(shape, generator=generator)
        for name, shape in shapes_of(**sizes).items()
    }


def imported(path, tensors: dict[str, Tensor], **settings: str) -> PretrainedModel:
    torch.save({"model": {**tensors, "_ema": {"blocks.0.norm1.weight": torch.zeros(3)}}}, path)
    return import_checkpoint(path, options=ImportOptions(num_heads=4, settings=settings)).parts[""]


def naive_layers(w: dict[str, Tensor], image: Tensor, heads: int) -> list[Tensor]:
    """All layers for one image ``(channels, rows, columns)``; the class token first."""
    prefix = "model." if "head.weight" in w else ""
    front = prefix + FRONT

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attended(name: str, x: Tensor) -> Tensor:
        query, key, value = linear(f"{name}.qkv", x).unflatten(1, (3, heads, -1)).unbind(1)
        mixed = [(query[:, h] @ key[:, h].T / math.sqrt(query.shape[-1])).softmax(1) @ value[:, h] for h in range(heads)]
        return linear(f"{name}.proj", torch.cat(mixed, 1))

    projection = f"{front}local_encoder.proj"
    patches = [image[:, r : r + 16, c : c + 16] for r in range(0, image.shape[1], 16) for c in range(0, image.shape[2], 16)]
    x = torch.stack([(w[f"{projection}.weight"] * patch).sum((1, 2, 3)) + w[f"{projection}.bias"] for patch in patches])
    x = torch.cat([w[f"{front}extra_tokens"][0], x + w[f"{front}fixed_positional_encoder.positions"][0]])
    x, seen = normed(f"{front}context_encoder.norm", x), []
    count = sum(name.endswith("norm1.weight") for name in w)
    early = sum(name.startswith(f"{front}context_encoder.blocks") and name.endswith("norm1.weight") for name in w)
    for layer in [f"{front}context_encoder.blocks.{i}" for i in range(early)] + [f"{prefix}blocks.{i}" for i in range(count - early)]:
        x = normed(f"{layer}.norm1", x + attended(f"{layer}.attn", x))
        x = normed(f"{layer}.norm2", x + linear(f"{layer}.mlp.fc2", F.gelu(linear(f"{layer}.mlp.fc1", x))))
        seen.append(x)
    return seen


def normed_head(w: dict[str, Tensor], pooled: Tensor) -> Tensor:
    mean, variance = pooled.mean(), pooled.var(correction=0)
    x = (pooled - mean) / (variance + 1e-6).sqrt() * w["fc_norm.weight"] + w["fc_norm.bias"]
    return w["head.weight"] @ x + w["head.bias"]


@pytest.mark.parametrize("side", [32, 48])
@torch.no_grad()
def test_every_layer_of_an_image_model_equals_the_description(tmp_path, side):
    tensors = tensors_of(dim=32, early=2, late=10, channels=3, places=(side // 16) ** 2, classes=5)
    model, pixels = imported(tmp_path / "d2v.pt", tensors), images(side)
    assert model.settings.origin.family == "data2vec2"
    expected = [naive_layers(tensors, image, 4) for image in imagenet(pixels)]
    check_layers(model, pixels, [torch.stack(layer) for layer in zip(*expected, strict=True)])
    check_close(model(pixels), torch.stack([normed_head(tensors, layers[-1][1:].mean(0)) for layers in expected]))
    check_same(format_of("data2vec2", "fairseq").write(model).tensors, tensors)


@pytest.mark.parametrize("frames", [48, 80])
@torch.no_grad()
def test_every_layer_of_a_spectrogram_model_equals_the_description(tmp_path, frames):
    tensors = tensors_of(dim=32, early=0, late=3, channels=1, places=frames // 2, classes=5)
    model = imported(tmp_path / "eat.pt", tensors)
    assert model.settings.origin.family == "eat"
    values = MEAN + STD * torch.randn(2, frames, 128, generator=torch.Generator().manual_seed(1))
    expected = [naive_layers(tensors, x[None], 4) for x in (values - MEAN) / (2 * STD)]
    check_layers(model, values, [torch.stack(layer) for layer in zip(*expected, strict=True)])
    check_close(model(values), torch.stack([normed_head(tensors, layers[-1][0]) for layers in expected]))
    mean = imported(tmp_path / "eat.pt", tensors, pool="mean")
    check_close(mean(values), torch.stack([normed_head(tensors, layers[-1][1:].mean(0)) for layers in expected]))
    check_same(format_of("eat", "fairseq").write(model).tensors, tensors)


def test_files_of_the_pretraining_leave_decoder_and_teacher_behind(tmp_path):
    tensors = tensors_of(dim=32, early=0, late=3, channels=1, places=24)
    extra = {f"{FRONT}decoder.blocks.0.0.weight": torch.zeros(8, 2, 3, 3), f"{FRONT}decoder.proj.weight": torch.zeros(32, 8)}
    extra |= {"_ema.blocks.0.norm1.weight": torch.zeros(32)}
    torch.save({"model": tensors | extra}, tmp_path / "eat.pt")
    found = import_checkpoint(tmp_path / "eat.pt", options=ImportOptions(num_heads=4))
    assert {name for name, _ in found.report.ignored} == extra.keys()
    check_same(format_of("eat", "fairseq").write(found.parts[""]).tensors, tensors)


@pytest.mark.parametrize(
    ("family", "sizes", "parameters"),
    [
        ("data2vec2", {"early": 2, "late": 10, "channels": 3, "places": 196}, 12 * 7_087_872 + 592_896),
        ("eat", {"early": 0, "late": 12, "channels": 1, "places": 512}, 12 * 7_087_872 + 199_680),
    ],
)
def test_published_files_are_used_whole(family, sizes, parameters):
    shapes = shapes_of(dim=768, **sizes)
    assert len(shapes) == 150
    with torch.device("meta"):
        checkpoint = Checkpoint({name: torch.empty(shape) for name, shape in shapes.items()})
        form = find_format(checkpoint.shapes, {})
        (part,) = form.read(checkpoint, ImportOptions())
    assert form.family == family and not part.keymap.unused(checkpoint.tensors)
    assert part.target.encoder.num_heads == 12
    own = sum(x.numel() for name, x in part.target.state_dict().items() if "mask_token" not in name and "position" not in name)
    assert own == parameters


def test_wrong_settings_are_named(tmp_path):
    tensors = tensors_of(dim=32, early=0, late=3, channels=1, places=24)
    with pytest.raises(ValueError, match=r"pool must be one of \['class', 'mean'\], got 'max'"):
        imported(tmp_path / "eat.pt", tensors, pool="max")
    with pytest.raises(ValueError, match=r"unknown settings \['grid'\]; this format has \['bins', 'pool', 'statistics'\]"):
        imported(tmp_path / "eat.pt", tensors, grid="1x2")
