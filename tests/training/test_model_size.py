"""Counts of known encoders, and the table."""

from functools import partial

import pytest
import torch

from multimodal.cli import main
from multimodal.nn import Encoder, LayerNorm, RelativeBias2d
from multimodal.training.model_size import measure, parse_input

BASE = partial(Encoder, dim=768, depth=12, num_heads=12)


def test_vit_base_has_its_known_size():
    size = measure(partial(BASE, class_token=True), parse_input("224/16"))
    positions, head = 197 * 768, 768 * 1000 + 1000
    assert size.parameters + positions + head == 86_567_656  # timm's vit_base_patch16_224
    layer = 12 * 197 * 768**2 + 2 * 197**2 * 768
    assert size.multiply_adds == 12 * layer + 196 * 768**2  # 17.6 G
    assert size.multiply_adds == pytest.approx(17.58e9, rel=2e-3)
    assert size.state_bytes == 16 * size.parameters


def test_activations_are_those_that_a_real_step_keeps():
    build = partial(Encoder, dim=32, depth=2, num_heads=2)
    encoder, kept = build().train(), {}

    def add(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    x, coordinates = torch.randn(1, 12, 32, requires_grad=True), torch.zeros(12, 1)
    own = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    with (
        torch.autograd.graph.saved_tensors_hooks(add, lambda tensor: tensor),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        output = encoder.forward_dense(x, coordinates)[0]
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)
    assert output.requires_grad
    assert measure(build, parse_input("12")).activation_bytes == pytest.approx(real, rel=0.15)


def test_costs_grow_with_depth_and_length():
    shallow, deep = (measure(partial(Encoder, dim=64, depth=depth, num_heads=2), parse_input("64")) for depth in (2, 4))
    assert deep.multiply_adds == 2 * shallow.multiply_adds
    longer = measure(partial(Encoder, dim=64, depth=2, num_heads=2), parse_input("128"))
    assert longer.parameters == shallow.parameters
    assert 2 < longer.multiply_adds / shallow.multiply_adds < 4
    assert longer.activation_bytes > 2 * shallow.activation_bytes


def test_options_of_the_encoder_are_counted():
    biased = partial(Encoder, dim=64, depth=2, num_heads=2, norm=LayerNorm, bias=partial(RelativeBias2d, window=(4, 4)), class_token=True)
    plain = partial(Encoder, dim=64, depth=2, num_heads=2)
    more, less = (measure(build, parse_input("64/16")) for build in (biased, plain))
    assert more.parameters - less.parameters == 64 + 2 * (7 * 7 + 3)


@pytest.mark.parametrize(
    ("text", "grid", "values"), [("512", (512,), 0), ("224/16", (14, 14), 768), ("16x224/2x16", (8, 14, 14), 1536), ("32/8", (4, 4), 192)]
)
def test_inputs_are_understood(text, grid, values):
    size = parse_input(text)
    assert (size.grid, size.values, size.name) == (grid, values, text)


@pytest.mark.parametrize("text", ["", "x", "0", "224/0", "16x224/16", "224/2x16", "-3", "224/16/2", "1.5"])
def test_inputs_that_are_not_understood_are_refused(text):
    with pytest.raises(ValueError, match="is not understood"):
        parse_input(text)


@pytest.mark.parametrize("text", ["225/16", "15x224/2x16"])
def test_inputs_that_cannot_be_cut_are_refused(text):
    with pytest.raises(ValueError, match="must be a multiple of its patch"):
        parse_input(text)


def test_the_command_prints_a_table(capsys, tmp_path):
    config = tmp_path / "thin.yaml"
    config.write_text(
        "dim: 64\ndepth: 2\nnum_heads: 2\nattention:\n  class_path: multimodal.nn.Attention\n  init_args:\n    bias: query_value\n"
    )
    assert main(["sizes", str(config), "--inputs", "32/16", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines] == [8] * 4
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    count = sum(p.numel() for p in Encoder(64, 2, 2).parameters()) - 2 * 64  # keys have no bias
    assert cells[:4] == ["thin", "16", "16", f"{count:,}"]


@pytest.mark.parametrize(
    ("content", "inputs", "expected"),
    [
        (None, "16", "thin.yaml does not exist."),
        ("width: 3\n", "16", "thin.yaml is no config of an encoder"),
        ("dim: 64\n", "x", "input 'x' is not understood"),
        ("dim: 0\n", "16", "encoder thin does not take input 16: dim must be at least 1, got 0."),
    ],
)
def test_mistakes_end_in_one_line(capsys, tmp_path, content, inputs, expected):
    config = tmp_path / "thin.yaml"
    if content is not None:
        config.write_text(content)
    assert main(["sizes", str(config), "--inputs", inputs]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and expected in error and error.count("\n") == 1
