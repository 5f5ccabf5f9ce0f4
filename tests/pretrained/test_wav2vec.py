"""wav2vec 2.0 and HuBERT: outputs equal those of transformers, layer by layer, padded there and packed here; files come and go whole."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import format_of
from tests.pretrained.vision_parity import check_close, check_same, randomized, tensors_of, write

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 11,
}
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForCTC, transformers.Wav2Vec2Model),
    "hubert": (transformers.HubertConfig, transformers.HubertForCTC, transformers.HubertModel),
}


def reference(family: str, kind: dict, bare: bool = False) -> nn.Module:
    config, head, model = FAMILIES[family]
    made = randomized((model if bare else head)(config(**TINY, **kind)))
    for name, parameter in made.named_parameters():
        if "conv_layers" in name and name.endswith("conv.weight"):
            parameter.data.mul_(2)  # so that seven layers leave something
    return made


def waveforms(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in lengths]


def normalized(samples: Tensor) -> Tensor:
    return (samples - samples.mean(-1, keepdim=True)) / (samples.var(-1, correction=0, keepdim=True) + 1e-7).sqrt()


def imported(path, **settings: str) -> PretrainedModel:
    return import_checkpoint(path, options=ImportOptions(settings=settings)).parts[""]


@pytest.mark.parametrize("samples", [4000, 6500])
@pytest.mark.parametrize("kind", [BASE, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_layer_and_the_logits_equal_those_of_transformers(tmp_path, family, kind, samples):
    theirs = reference(family, kind)
    theirs.save_pretrained(tmp_path)
    model, values = imported(tmp_path), torch.stack(waveforms(samples, samples))
    assert model.settings.origin.family == family
    expected = getattr(theirs, family)(normalized(values), output_hidden_states=True)
    final, own = model.forward_intermediates(values, output_fmt="NLC")
    for tokens, layer in zip(own, expected.hidden_states[1:], strict=True):
        assert layer.abs().mean() > 0.05
        check_close(tokens, layer)
    check_close(final, expected.last_hidden_state)
    check_close(model.forward_head(final, "tokens"), theirs(normalized(values)).logits)


@pytest.mark.parametrize("kind", [BASE, LARGE], ids=["base", "large"])
@torch.no_grad()
def test_sounds_of_different_lengths_equal_those_that_transformers_pads(tmp_path, kind):
    theirs = reference("wav2vec2", kind)
    theirs.save_pretrained(tmp_path)
    items = waveforms(4000, 2600, 4000, 3111)
    final = imported(tmp_path).features(torch.cat(items), torch.tensor([len(x) for x in items]))
    if kind is LARGE:  # the norm over time of the base model would count padding
        padded = nn.utils.rnn.pad_sequence([normalized(x) for x in items], batch_first=True)
        mask = torch.tensor([[i < len(x) for i in range(4000)] for x in items]).long()
        together = theirs.wav2vec2(padded, attention_mask=mask).last_hidden_state
    for i, item in enumerate(items):
        count = int(final.valid[i].sum())
        alone = theirs.wav2vec2(normalized(item)[None]).last_hidden_state[0]
        assert count == len(alone)
        check_close(final.x[i, :count], alone)
        if kind is LARGE:
            check_close(final.x[i, :count], together[i, :count])


@pytest.mark.parametrize("bare", [False, True], ids=["head", "bare"])
@pytest.mark.parametrize("kind", [BASE, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_written_files_load_in_transformers(tmp_path, family, kind, bare):
    theirs = reference(family, kind, bare)
    theirs.save_pretrained(tmp_path / "theirs")
    model = imported(tmp_path / "theirs")
    assert model.settings.origin.layout == "transformers-5"
    folder = write(model, "transformers-5", tmp_path / "ours")
    check_same(tensors_of(folder), load_file(tmp_path / "theirs" / "model.safetensors"))
    values = normalized(torch.stack(waveforms(4000)))
    for layout in ("transformers", "transformers-5"):
        again = type(theirs).from_pretrained(write(model, layout, tmp_path / layout)).eval()
        assert torch.equal(again(values)[0], theirs(values)[0])


@torch.no_grad()
def test_published_names_of_weight_norm_are_read_and_written(tmp_path):
    theirs = reference("wav2vec2", BASE)
    theirs.save_pretrained(tmp_path / "new")
    tensors = {name.replace("parametrizations.weight.original0", "weight_g"): x for name, x in theirs.state_dict().items()}
    tensors = {name.replace("parametrizations.weight.original1", "weight_v"): x for name, x in tensors.items()}
    (tmp_path / "old").mkdir()
    torch.save(tensors, tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "new" / "config.json").read_text())
    model = imported(tmp_path / "old")
    assert model.settings.origin.layout == "transformers"
    check_same(format_of("wav2vec2", "transformers").write(model).tensors, tensors)
    values = torch.stack(waveforms(4000))
    assert torch.equal(model.forward_features(values), imported(tmp_path / "new").forward_features(values))


def test_targets_of_the_pretraining_are_left_behind(tmp_path):
    more = {"num_codevectors_per_group": 4, "codevector_dim": 8, "proj_codevector_dim": 8}
    transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(**TINY, **BASE, **more)).save_pretrained(tmp_path)
    report = import_checkpoint(tmp_path).report
    assert len(report.ignored) == 7 and {name.split(".")[0] for name, _ in report.ignored} == {"quantizer", "project_q", "project_hid"}


def test_a_file_without_mask_token_stays_without(tmp_path):
    theirs = reference("wav2vec2", BASE)
    tensors = {name: x for name, x in theirs.state_dict().items() if not name.endswith("masked_spec_embed")}
    torch.save(tensors, tmp_path / "w2v.pt")
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    model = imported(tmp_path / "w2v.pt")
    check_same(format_of("wav2vec2", "transformers-5").write(model).tensors, tensors)


@torch.no_grad()
def test_waveforms_are_normalised_unless_the_checkpoint_says_not(tmp_path):
    theirs = reference("wav2vec2", LARGE, bare=True)
    theirs.save_pretrained(tmp_path)
    values = torch.stack(waveforms(4000))
    assert not torch.allclose(imported(tmp_path).forward_features(values), theirs(values).last_hidden_state, atol=1e-2)
    check_close(imported(tmp_path, normalize="false").forward_features(values), theirs(values).last_hidden_state)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    check_close(imported(tmp_path).forward_features(values), theirs(values).last_hidden_state)
    with pytest.raises(ValueError, match="normalize must be 'true' or 'false', got 'yes'"):
        imported(tmp_path, normalize="yes")
