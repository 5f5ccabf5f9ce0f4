"""AudioMAE: outputs equal those of a ViT of timm for spectrograms, and files of the published kind come and go whole."""

import pytest
import timm
import torch
from torch import Tensor, nn

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import find_format, format_of
from tests.pretrained.vision_parity import check_close, check_layers, check_same, randomized

MEAN, STD = -4.2677393, 4.5689974


def reference(frames: int, pool: str = "token", classes: int = 0) -> nn.Module:
    settings = {"embed_dim": 32, "depth": 3, "num_heads": 4, "in_chans": 1, "img_size": (frames, 128), "global_pool": pool}
    return randomized(timm.create_model("vit_base_patch16_224", num_classes=classes, fc_norm=pool == "avg", **settings))


def decoder(places: int) -> dict[str, Tensor]:
    """What a file of the pretraining has beside the encoder: a decoder of windows."""
    shapes = {
        "mask_token": (1, 1, 24),
        "decoder_embed.weight": (24, 32),
        "decoder_pos_embed": (1, places + 1, 24),
        "decoder_pred.weight": (256, 24),
    }
    shapes |= {f"decoder_blocks.{i}.attn.relative_position_bias_table": (49, 2) for i in range(2)}
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def spectrograms(frames: int) -> Tensor:
    return MEAN + STD * torch.randn(2, frames, 128, generator=torch.Generator().manual_seed(1))


def as_image(values: Tensor) -> Tensor:
    return ((values - MEAN) / (2 * STD))[:, None]


def imported(path, tensors: dict[str, Tensor]) -> PretrainedModel:
    torch.save({"model": tensors}, path)
    return import_checkpoint(path, options=ImportOptions(num_heads=4)).parts[""]


@pytest.mark.parametrize("frames", [48, 128])
@torch.no_grad()
def test_every_layer_equals_that_of_a_vit(tmp_path, frames):
    theirs, values = reference(frames), spectrograms(frames)
    model = imported(tmp_path / "mae.pth", theirs.state_dict() | decoder(frames // 2))
    assert model.settings.origin.family == "audiomae"
    seen: list[Tensor] = []
    for block in theirs.blocks:
        block.register_forward_hook(lambda module, arguments, output: seen.append(output))
    final = theirs.forward_features(as_image(values))
    check_layers(model, values, seen)
    check_close(model(values), final)
    check_same(format_of("audiomae", "facebookresearch").write(model).tensors, theirs.state_dict())


@pytest.mark.parametrize("pool", ["avg", "token"])
@torch.no_grad()
def test_logits_equal_those_of_a_vit(tmp_path, pool):
    theirs, values = reference(48, pool, classes=5), spectrograms(48)
    model = imported(tmp_path / "mae.pth", theirs.state_dict())
    check_close(model(values), theirs(as_image(values)))
    check_same(format_of("audiomae", "facebookresearch").write(model).tensors, theirs.state_dict())


def test_the_decoder_is_left_out_with_a_reason(tmp_path):
    torch.save({"model": reference(48).state_dict() | decoder(24)}, tmp_path / "mae.pth")
    report = import_checkpoint(tmp_path / "mae.pth", options=ImportOptions(num_heads=4)).report
    assert {name for name, _ in report.ignored} == decoder(24).keys()
    assert all("decoder of pretraining" in why for _, why in report.ignored)
    assert "non-commercial" in report.lines()[1]


def test_the_published_sizes():
    with torch.device("meta"):
        theirs = timm.create_model("vit_base_patch16_224", in_chans=1, img_size=(1024, 128), num_classes=0)
        checkpoint = Checkpoint(dict(theirs.state_dict()))
        (part,) = find_format(checkpoint.shapes, {}).read(checkpoint, ImportOptions())
    assert len(checkpoint.tensors) == 150 and not part.keymap.unused(checkpoint.tensors)
    model = part.target
    assert model.embeds["audio"].position.size == (64, 8) and model.encoder.num_heads == 12
    assert model.transform().frames == 1024


def test_frozen_positions_stay_frozen(tmp_path):
    model = imported(tmp_path / "mae.pth", reference(48).state_dict())
    assert not model.embeds["audio"].position.table.requires_grad


def test_other_numbers_of_bins_are_named(tmp_path):
    torch.save({"model": reference(48).state_dict()}, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match="24 positions are no grid of 5 bands: set bins"):
        import_checkpoint(tmp_path / "mae.pth", options=ImportOptions(num_heads=4, settings={"bins": "80"}))
