"""Exported programs compute what the model computes, for any number of samples and tokens."""

import json

import pytest
import torch
from safetensors.torch import load_file

from multimodal.pretrained import ModelSettings, PretrainedModel, from_pretrained, import_checkpoint
from multimodal.pretrained.exporting import DenseModel, export_layout, export_onnx, export_program, layouts_for, quantize_onnx
from multimodal.pretrained.exporting.onnx import OnnxModel
from multimodal.pretrained.settings import part

from .conftest import image_settings, randomized


@pytest.fixture(scope="module")
def text_model() -> PretrainedModel:
    """Return an encoder of texts with local layers, rotary positions and a bias that depends on the content."""
    attention = part("multimodal.nn.Attention", content_bias=part("multimodal.nn.RelativeKeyQuery", max_length=32))
    encoder = part(
        "multimodal.nn.Encoder",
        dim=32,
        depth=3,
        num_heads=4,
        attention=attention,
        rotary=part("multimodal.nn.RotaryPosition", axes=1),
        window=2,
        global_every=2,
        class_token=True,
    )
    embed = part("multimodal.tokenizers.midi.CompoundEmbed", vocab_sizes=[4, 18, 88, 66], field_dim=8)
    head = part("multimodal.heads.ClassificationHead", num_classes=2, pool="mean")
    transform = part("multimodal.tokenizers.midi.MidiTransform")
    return randomized(PretrainedModel(ModelSettings(encoder, {"midi": embed}, {"classes": head}, {"midi": transform})))


def ragged(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(count)
    values = torch.randint(0, 4, (count, length, 4))
    return values, torch.arange(length) < torch.randint(1, length + 1, (count, 1))


@pytest.mark.parametrize("output", ["classes", "features"])
def test_a_program_of_images_takes_any_number_of_them(image_model, images, output, tmp_path):
    dense = DenseModel(image_model, output=output)
    export_program(dense, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    expected = image_model(images) if output == "classes" else image_model.forward_features(images)
    torch.testing.assert_close(program(images), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(program(images[:1]), expected[:1], rtol=0, atol=1e-5)


def test_a_program_of_sequences_takes_any_number_of_any_length(text_model, tmp_path):
    dense = DenseModel(text_model)
    program = export_program(dense, max_length=31).module()
    for count, length in ((1, 5), (4, 16), (3, 31)):
        values, valid = ragged(count, length)
        packed = text_model(values[valid], valid.sum(1))
        torch.testing.assert_close(program(values, valid), packed, rtol=0, atol=1e-5)


def test_onnx_of_images_is_equal(image_model, images, tmp_path):
    export_onnx(DenseModel(image_model), tmp_path / "model.onnx")
    run = OnnxModel(tmp_path / "model.onnx")
    torch.testing.assert_close(run(images), image_model(images).detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(run(images[:1]), image_model(images[:1]).detach(), rtol=0, atol=1e-5)


def test_onnx_of_sequences_is_equal(text_model, tmp_path):
    export_onnx(DenseModel(text_model), tmp_path / "model.onnx", max_length=31)
    run = OnnxModel(tmp_path / "model.onnx")
    for count, length in ((1, 5), (4, 16)):
        values, valid = ragged(count, length)
        torch.testing.assert_close(run(values, valid), text_model(values[valid], valid.sum(1)).detach(), rtol=0, atol=1e-5)


def test_8_bit_weights_are_smaller_and_close(images, tmp_path):
    model = randomized(PretrainedModel(image_settings(dim=256)))
    export_onnx(DenseModel(model), tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < 0.5 * (tmp_path / "model.onnx").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "small.onnx"]
    exact = model(images).detach()
    assert torch.cosine_similarity(OnnxModel(tmp_path / "small.onnx")(images), exact).min() > 0.99


def test_what_cannot_be_exported_is_said(image_model):
    settings = image_settings()
    bare = PretrainedModel(ModelSettings(settings.encoder, settings.embeds, transforms=settings.transforms))
    with pytest.raises(ValueError, match="no head 'classes'"):
        DenseModel(bare, output="classes")
    assert DenseModel(bare).output == "features"
    with pytest.raises(ValueError, match="does not say what items of 'image' look like"):
        DenseModel(PretrainedModel(ModelSettings(settings.encoder, settings.embeds)))


def test_a_layout_is_written_and_read_back_exactly(image_model, images, tmp_path):
    exported = export_layout(image_model, "transformers", tmp_path / "hf", family="beit")
    assert exported.form.family == "beit" and not exported.written.left_out
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"] == "beit"
    assert torch.equal(from_pretrained(tmp_path / "hf")(images), image_model(images))
    export_layout(import_checkpoint(tmp_path / "hf").parts[""], "unilm", tmp_path / "unilm")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "unilm"))
    assert torch.equal(first["beit.encoder.layer.2.output.dense.weight"], second["blocks.2.mlp.fc2.weight"])


def test_an_unknown_layout_lists_the_known_ones(foreign, tmp_path):
    model = import_checkpoint(foreign).parts[""]
    assert {form.layout for form in layouts_for(model)} >= {"unilm", "transformers"}
    with pytest.raises(ValueError, match=r"this model's layouts are: .*beit \(transformers\).*cannot be written in the layout of 'keras'"):
        export_layout(model, "keras", tmp_path / "out")
    assert not (tmp_path / "out").exists()
