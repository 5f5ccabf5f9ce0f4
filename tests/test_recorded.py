"""Objects that know their settings."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from multimodal.heads import ClassificationHead
from multimodal.nn import Attention, Encoder, LayerNorm, Mlp, PredictionHead, RmsNorm, RotaryPosition, SwiGlu
from multimodal.recorded import Recorded, build, settings_of

CONFIGS = Path(__file__).parent.parent / "configs" / "encoder"
ALL_OPTIONS = """
dim: 16
depth: 3
num_heads: 2
block: multimodal.nn.PostNormBlock
attention:
  class_path: multimodal.nn.Attention
  init_args:
    bias: none
    qk_norm: {class_path: multimodal.nn.RmsNorm, init_args: {eps: 1.0e-5}}
    content_bias: multimodal.nn.GatedBias
mlp: multimodal.nn.SwiGlu
norm: {class_path: multimodal.nn.LayerNorm, init_args: {bias: false}}
norm_at: none
rotary: multimodal.nn.RotaryPosition
bias: {class_path: multimodal.nn.RelativeBias2d, init_args: {window: [3, 4]}}
share_bias: false
convolution: {class_path: multimodal.nn.ConvPosition, init_args: {kernel_size: 5, groups: 4}}
window: 2
global_every: 2
local_rotary: {class_path: multimodal.nn.RotaryPosition, init_args: {max_period: 1000.0}}
class_token: true
num_registers: 1
num_experts: 2
"""


FEW_LAYERS = 4
"""Of a config, whose others are like these."""


def shortened(config: str) -> str:
    return re.sub(r"(?m)^depth: (\d+)$", lambda found: f"depth: {min(FEW_LAYERS, int(found[1]))}", config)


def from_yaml(config: str) -> Encoder:
    parser = ArgumentParser()
    parser.add_class_arguments(Encoder, "encoder")
    indented = "".join(f"  {line}\n" for line in config.splitlines())
    return parser.instantiate(parser.parse_string(f"encoder:\n{indented}")).encoder


@pytest.mark.parametrize("config", ["{}", ALL_OPTIONS, *(shortened(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml")))])
def test_an_encoder_of_a_config_can_be_built_again_from_its_settings(config):
    encoder = from_yaml(config)
    saved = json.loads(json.dumps(settings_of(encoder)))
    again = build(saved)
    again.load_state_dict(encoder.state_dict())
    assert repr(again) == repr(encoder) and settings_of(again) == saved
    tokens, sequence = torch.randn(6, encoder.dim), torch.tensor([0, 1, 1, 0, 1, 1])
    axes = next((part.axes for part in encoder.modules() if isinstance(part, RotaryPosition)), 2)
    coordinates = torch.tensor([[0, 0], [0, 1], [2, 3], [1, 1], [0, 2], [1, 3]])[:, :axes]
    given = tokens, sequence, coordinates, torch.tensor([0, 1, 0, 0, 1, 0])
    assert torch.equal(again.eval()(*given).tokens, encoder.eval()(*given).tokens)


def test_a_class_named_in_a_config_has_its_own_defaults():
    """A config that names another class keeps the settings that both have: a default of the first must not count for the second."""
    hidden = [
        from_yaml(f"dim: 96\nnum_heads: 2\nmlp: multimodal.nn.{name}").blocks[0].mlp.fc2.in_features for name in ("Mlp", "SwiGlu", "GeGlu")
    ]
    assert hidden == [384, 256, 256]


def test_settings_are_those_given_and_the_defaults():
    head = PredictionHead(8, [4, 5], norm=partial(LayerNorm, eps=1e-12))
    settings = settings_of(head, leave_out=("dim",))
    assert settings == {
        "class_path": "multimodal.nn.prediction.PredictionHead",
        "init_args": {
            "vocab_sizes": [4, 5],
            "field_weights": None,
            "norm": {"class_path": "multimodal.nn.norm.LayerNorm", "init_args": {"eps": 1e-12}},
            "hidden_bias": True,
            "act": "gelu",
            "first_weights": "normal",
            "width": None,
        },
    }
    again = build(settings, 16)
    assert again.proj.in_features == 16 and again.hidden[2].eps == 1e-12 and again.vocab_sizes == (4, 5)


def test_builders_within_builders_are_kept():
    encoder = Encoder(dim=8, depth=1, num_heads=2, attention=partial(Attention, qk_norm=partial(RmsNorm, eps=0.5)), mlp=SwiGlu)
    assert settings_of(encoder)["init_args"]["attention"]["init_args"] == {
        "qk_norm": {"class_path": "multimodal.nn.norm.RmsNorm", "init_args": {"eps": 0.5}}
    }
    assert build(settings_of(encoder)).blocks[0].attn.key_norm.eps == 0.5


class Blended(Recorded, nn.Module):
    """Takes anything."""

    def __init__(self, part, *more, **named):
        super().__init__()


@pytest.mark.parametrize(
    "part, reason",
    [
        (lambda dim: None, "neither a plain value nor a class to build"),
        (LayerNorm(4), "neither a plain value nor a class to build"),
        (torch.zeros(3), "neither a plain value nor a class to build"),
        (partial(Mlp, 16), "a partial of something else than a class with keywords"),
        (partial(print, "x"), "a partial of something else than a class with keywords"),
        ({"inner": [partial(Mlp, act=print)]}, "neither a plain value nor a class to build"),
    ],
)
def test_what_cannot_be_built_again_is_named_when_it_is_saved(part, reason):
    with pytest.raises(ValueError, match=f"Blended.part.* cannot be saved: .*{reason}"):
        settings_of(Blended(part))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"class_path": "os.system", "init_args": {}}, "names 'os.system', which is not of this package"),
        ({"class_path": "multimodal_evil.Thing"}, "not of this package"),
        ({"class_path": 3}, "names 3, which is not of this package"),
        ({}, "names None, which is not of this package"),
        ({"class_path": "multimodal.nn.Encoders"}, "which this version does not have"),
        ({"class_path": "multimodal.nothing.Encoder"}, "which this version does not have"),
        ({"class_path": "multimodal.nn.layer_of"}, "not a class of this package"),
        ({"class_path": "multimodal.recorded.partial"}, "not a class of this package"),
        ({"class_path": "multimodal.nn.encoder.Packing.os"}, "which this version does not have"),
        ({"class_path": "multimodal.nn.Encoder", "init_args": {"width": 3}}, "the settings of multimodal.nn.Encoder do not fit: .*width"),
        ({"class_path": "multimodal.nn.Encoder", "init_args": {"mlp": {"class_path": "subprocess.Popen"}}}, "names 'subprocess.Popen'"),
        ({"class_path": "multimodal.nn.Encoder", "init_args": {"depth": 0}}, "depth must be at least 1, got 0"),
        ({"class_path": "multimodal.nn.Encoder", "init_args": ["dim"]}, "the settings of multimodal.nn.Encoder are no names with values"),
    ],
)
def test_a_file_does_not_choose_what_is_run(settings, message):
    with pytest.raises(ValueError, match=message):
        build(settings)


def test_a_subclass_is_recorded_with_its_own_settings():
    head = ClassificationHead(8, 3, pool="class", hidden="tanh", init_scale=0.001)
    again = build(json.loads(json.dumps(settings_of(head, leave_out=("dim",)))), 8)
    assert again.how == "class" and repr(again) == repr(head)
    assert again.proj.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.6)
