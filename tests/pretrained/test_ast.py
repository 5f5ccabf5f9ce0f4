"""AST: outputs equal those of transformers, layer by layer, and every layout is written back as it was."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import format_of
from tests.pretrained.vision_parity import check_close, check_layers, check_same, imported, randomized, tensors_of, write

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "num_mel_bins": 36, "max_length": 46}
MEAN, STD = -4.2677393, 4.5689974


def classifier(**settings) -> transformers.ASTForAudioClassification:
    return randomized(transformers.ASTForAudioClassification(transformers.ASTConfig(**{**TINY, "num_labels": 5, **settings})))


def spectrograms(config: transformers.ASTConfig) -> Tensor:
    return MEAN + STD * torch.randn(2, config.max_length, config.num_mel_bins, generator=torch.Generator().manual_seed(1))


def normalized(values: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    return (values - mean) / (2 * std)


SIZES = [{}, {"max_length": 100, "num_mel_bins": 64}, {"time_stride": 16, "frequency_stride": 12, "num_mel_bins": 40}, {"qkv_bias": False}]


@pytest.mark.parametrize("settings", SIZES, ids=["46 x 36", "100 x 64", "two strides", "no bias"])
@torch.no_grad()
def test_every_layer_and_the_logits_equal_those_of_transformers(tmp_path, settings):
    reference = classifier(**settings)
    reference.save_pretrained(tmp_path)
    model, values = imported(tmp_path), spectrograms(reference.config)
    expected = reference(normalized(values), output_hidden_states=True)
    check_layers(model, values, list(expected.hidden_states[1:]))
    check_close(model.forward_features(values), reference.audio_spectrogram_transformer(normalized(values)).last_hidden_state)
    check_close(model(values), expected.logits)


@torch.no_grad()
def test_patches_lie_in_bands(tmp_path):
    reference = classifier()
    reference.save_pretrained(tmp_path)
    tokens = imported(tmp_path).embeds["audio"].tokens(spectrograms(reference.config), None)
    assert tokens.grid == (3, 4)
    assert tokens.coordinates[:5].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]


@torch.no_grad()
def test_written_files_load_in_transformers(tmp_path):
    reference = classifier(time_stride=16, hidden_act="gelu_new", layer_norm_eps=1e-5, id2label={i: f"sound {i}" for i in range(5)})
    reference.save_pretrained(tmp_path / "theirs")
    model = imported(tmp_path / "theirs")
    assert model.settings.labels == tuple(f"sound {i}" for i in range(5))
    folder = write(model, "transformers", tmp_path / "ours")
    check_same(tensors_of(folder), load_file(tmp_path / "theirs" / "model.safetensors"))
    again = transformers.ASTForAudioClassification.from_pretrained(folder).eval()
    assert again.config.id2label == reference.config.id2label
    values = spectrograms(reference.config)
    assert torch.equal(again(normalized(values)).logits, reference(normalized(values)).logits)


@torch.no_grad()
def test_the_bare_model_is_read_and_written(tmp_path):
    reference = randomized(transformers.ASTModel(transformers.ASTConfig(**TINY)))
    reference.save_pretrained(tmp_path / "theirs")
    model, values = imported(tmp_path / "theirs"), spectrograms(reference.config)
    check_close(model(values), reference(normalized(values)).last_hidden_state)
    folder = write(model, "transformers", tmp_path / "ours")
    check_same(tensors_of(folder), load_file(tmp_path / "theirs" / "model.safetensors"))
    transformers.ASTModel.from_pretrained(folder)


@torch.no_grad()
def test_names_in_memory_of_transformers_5_are_read(tmp_path):
    reference = classifier()
    torch.save(reference.state_dict(), tmp_path / "ast.pt")
    (tmp_path / "config.json").write_text(json.dumps(reference.config.to_dict()))
    model = imported(tmp_path / "ast.pt")
    assert model.settings.origin.layout == "transformers-5"
    values = spectrograms(reference.config)
    check_close(model(values), reference(normalized(values)).logits)
    check_same(format_of("ast", "transformers-5").write(model).tensors, reference.state_dict())


def original(reference: transformers.ASTForAudioClassification) -> dict[str, Tensor]:
    """The names of the authors' repository, with leftovers of the image model."""
    names = {"cls_token": "v.cls_token", "distillation_token": "v.dist_token", "position_embeddings": "v.pos_embed"}
    names |= {f"patch_embeddings.projection.{leaf}": f"v.patch_embed.proj.{leaf}" for leaf in ("weight", "bias")}
    state = {name.removeprefix("audio_spectrogram_transformer."): x for name, x in reference.state_dict().items()}
    made = {new: state[f"embeddings.{old}"] for old, new in names.items()}
    parts = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    for leaf in ("weight", "bias"):
        for i in range(reference.config.num_hidden_layers):
            made |= {f"v.blocks.{i}.{new}.{leaf}": state[f"layers.{i}.{old}.{leaf}"] for old, new in parts.items()}
            made[f"v.blocks.{i}.attn.qkv.{leaf}"] = torch.cat([state[f"layers.{i}.attention.{x}_proj.{leaf}"] for x in "qkv"])
        made[f"v.norm.{leaf}"] = state[f"layernorm.{leaf}"]
        made |= {f"mlp_head.0.{leaf}": state[f"classifier.layernorm.{leaf}"], f"mlp_head.1.{leaf}": state[f"classifier.dense.{leaf}"]}
    return made


@torch.no_grad()
def test_the_authors_files_are_read_and_written(tmp_path):
    reference = classifier(layer_norm_eps=1e-6, num_mel_bins=128)
    reference.classifier.layernorm.eps = 1e-5
    tensors = original(reference)
    leftovers = {f"v.{head}.{leaf}": torch.zeros(3) for head in ("head", "head_dist") for leaf in ("weight", "bias")}
    torch.save({f"module.{name}": x for name, x in (tensors | leftovers).items()}, tmp_path / "ast.pth")
    found = import_checkpoint(tmp_path / "ast.pth", options=ImportOptions(num_heads=4))
    model, values = found.parts[""], spectrograms(reference.config)
    assert model.settings.origin.layout == "original" and {name for name, _ in found.report.ignored} == leftovers.keys()
    check_close(model(values), reference(normalized(values)).logits)
    check_same(format_of("ast", "original").write(model).tensors, tensors)


@torch.no_grad()
def test_statistics_are_those_beside_the_weights_or_the_users(tmp_path):
    reference = classifier()
    reference.save_pretrained(tmp_path)
    values = spectrograms(reference.config)
    speech = imported(tmp_path, statistics="speechcommands")
    check_close(speech(values), reference(normalized(values, -6.845978, 5.5654526)).logits)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"mean": -1.5, "std": 2.0}))
    check_close(imported(tmp_path)(values), reference(normalized(values, -1.5, 2.0)).logits)
    with pytest.raises(ValueError, match=r"statistics must be one of \['audioset', 'esc50', 'speechcommands'\], got 'loud'"):
        imported(tmp_path, statistics="loud")


def test_the_model_trained_on_audioset_has_1212_patches_of_1024_frames(tmp_path):
    shapes = {name: x for name, x in classifier(num_mel_bins=128, max_length=1024).state_dict().items()}
    torch.save(shapes, tmp_path / "ast.pt")
    model = import_checkpoint(tmp_path / "ast.pt", options=ImportOptions(num_heads=4)).parts[""]
    transform = model.transform()
    assert model.embeds["audio"].position.size == (12, 101)
    assert (transform.frames, transform.features.gain, transform.sound.seconds) == (1024, 1.0, 10.255)
