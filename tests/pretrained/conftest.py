"""A small image classifier and a small encoder of texts, saved in several ways."""

from pathlib import Path

import pytest
import torch

from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.registry import format_of
from multimodal.pretrained.settings import part


def image_settings(**encoder) -> ModelSettings:
    """Return a BEiT classifier of 48 x 48 pixels in 9 patches, 5 classes."""
    norm = part("multimodal.nn.LayerNorm", eps=1e-6)
    own = {
        "dim": 32,
        "depth": 3,
        "num_heads": 4,
        "attention": part("multimodal.nn.Attention", bias="query_value"),
        "mlp": part("multimodal.nn.Mlp", hidden_dim=64),
        "norm": norm,
        "norm_at": "none",
        "layer_scale": 0.1,
        "bias": part("multimodal.nn.RelativeBias2d", window=[3, 3]),
        "share_bias": False,
        "class_token": True,
    }
    return ModelSettings(
        encoder=part("multimodal.nn.Encoder", **{**own, **encoder}),
        embeds={"image": part("multimodal.tokenizers.image.PatchEmbed", patch_size=16, channels=3, mean=[0.5], std=[0.5], position=None)},
        heads={"classes": part("multimodal.heads.ClassificationHead", num_classes=5, pool="mean", norm=norm)},
        transforms={"image": part("multimodal.tokenizers.image.ImageTransform", size=48)},
    )


def randomized(model: PretrainedModel, seed: int = 0) -> PretrainedModel:
    """Return the model with weights that make mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def image_model() -> PretrainedModel:
    return randomized(PretrainedModel(image_settings()))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def foreign(image_model, tmp_path) -> Path:
    """The model as the original repository stores it, with an optimizer beside it."""
    tensors = format_of("beit", "unilm").write(image_model).tensors
    path = tmp_path / "beit.pth"
    torch.save({"model": tensors, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    return path
