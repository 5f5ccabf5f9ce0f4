"""ModernBERT: parity with transformers, within the window of its local layers and beyond it."""

import json

import pytest
import torch
import transformers

from multimodal.pretrained import import_checkpoint
from tests.pretrained.text_parity import Ragged, check_accounts, check_close, check_layers, randomized, shapes_of
from tests.pretrained.vision_parity import check_same, imported, tensors_of, write

CLASSES = {
    name: getattr(transformers, name) for name in ("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification")
}
HEADS = {"ModernBertModel": None, "ModernBertForMaskedLM": "tokens", "ModernBertForSequenceClassification": "classes"}
BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}


def tiny(**more) -> transformers.ModernBertConfig:
    settings = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": 50, **SPECIAL}
    return transformers.ModernBertConfig(**{**settings, "local_attention": 16, "num_labels": 5, "attn_implementation": "eager", **more})


def saved(folder, kind="ModernBertForMaskedLM", **more):
    reference = randomized(CLASSES[kind](tiny(**more)))
    reference.save_pretrained(folder)
    return reference


@pytest.mark.parametrize("longest", [8, 50])
@pytest.mark.parametrize("more", [{}, BIASES], ids=["as published", "with biases"])
@pytest.mark.parametrize("kind", CLASSES)
def test_every_layer_and_the_logits_are_those_of_transformers(tmp_path, kind, more, longest):
    reference, batch = saved(tmp_path, kind, **more), Ragged(longest, 50)
    model = imported(tmp_path)
    with torch.no_grad():
        output = reference(**batch.padded, output_hidden_states=True)
        check_layers(model, batch, list(output.hidden_states[1:]))
        if HEADS[kind] is None:
            return
        logits = model.logits(model.features(batch.packed, batch.lengths), HEADS[kind])
    check_close(logits if logits.ndim == 2 else logits[batch.mask], output.logits if logits.ndim == 2 else output.logits[batch.mask])


def test_the_window_makes_a_difference_beyond_it_alone(tmp_path):
    saved(tmp_path / "narrow", "ModernBertModel")
    saved(tmp_path / "wide", "ModernBertModel", local_attention=128)
    narrow, wide = imported(tmp_path / "narrow"), imported(tmp_path / "wide")
    ids = Ragged(20, 50).ids
    assert not torch.allclose(narrow.forward_features(ids), wide.forward_features(ids), atol=1e-2)
    torch.testing.assert_close(narrow.forward_features(ids[:, :9]), wide.forward_features(ids[:, :9]))


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_the_classifier_pools_as_the_config_says(tmp_path, pool):
    reference, batch = saved(tmp_path, "ModernBertForSequenceClassification", classifier_pooling=pool), Ragged(30, 50)
    model = imported(tmp_path)
    with torch.no_grad():
        check_close(model(batch.packed, batch.lengths), reference(**batch.padded).logits)


def test_layers_and_angles_may_be_arranged_in_other_ways(tmp_path):
    kinds = ["full_attention", "sliding_attention"] * 2 + ["full_attention"]
    angles = {
        "full_attention": {"rope_type": "default", "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    }
    reference, batch = saved(tmp_path, layer_types=kinds, rope_parameters=angles), Ragged(40, 50)
    model = imported(tmp_path)
    assert model.encoder.global_every == 2
    with torch.no_grad():
        check_layers(model, batch, list(reference(**batch.padded, output_hidden_states=True).hidden_states[1:]))
    config = json.loads((tmp_path / "config.json").read_text())
    again = json.loads((write(model, "transformers", tmp_path / "back") / "config.json").read_text())
    assert {name: again[name] for name in ("layer_types", "rope_parameters", "local_attention")} == {
        name: config[name] for name in ("layer_types", "rope_parameters", "local_attention")
    }


def test_the_config_of_the_first_release_names_its_angles_otherwise(tmp_path):
    reference, batch = saved(tmp_path), Ragged(40, 50)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["layer_types"]
    path.write_text(json.dumps({**config, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}))
    with torch.no_grad():
        check_layers(imported(tmp_path), batch, list(reference(**batch.padded, output_hidden_states=True).hidden_states[1:]))


@pytest.mark.parametrize("more", [{}, BIASES, {"tie_word_embeddings": False}], ids=["as published", "with biases", "untied"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_round_trip_gives_the_file_back(tmp_path, kind, more):
    reference, batch = saved(tmp_path / "theirs", kind, **more), Ragged(30, 50)
    path = write(imported(tmp_path / "theirs"), "transformers", tmp_path / "back")
    check_same(tensors_of(path), tensors_of(tmp_path / "theirs"))
    loaded, loading = CLASSES[kind].from_pretrained(path, output_loading_info=True, attn_implementation="eager")
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.no_grad():
        check_close(loaded.eval()(**batch.padded)[0], reference(**batch.padded)[0])


def test_what_cannot_be_read_is_refused(tmp_path):
    saved(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for wrong, message in (
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"]},
            r"global layers at \[1, 3, 4\]; they must be evenly",
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type 'yarn'; only 'default'"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max'; known are cls, mean"),
    ):
        path.write_text(json.dumps({**config, **wrong}))
        with pytest.raises(ValueError, match=message):
            import_checkpoint(tmp_path)


def test_modernbert_base_has_138_tensors_and_all_have_a_place():
    shapes = shapes_of(transformers.ModernBertForMaskedLM, transformers.ModernBertConfig())
    assert len(shapes) == 138
    model = check_accounts(shapes, {"model_type": "modernbert"}, "modernbert", "transformers", ignored=0)[""].target
    assert sum(x.numel() for x in model.parameters()) == 149_655_232
    assert (model.encoder.depth, model.encoder.num_heads, model.encoder.window, model.encoder.global_every) == (22, 12, 64, 3)
