"""BERT: parity with transformers, and every way its files come."""

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file

from multimodal.modality import Input
from multimodal.pretrained import PretrainedModel, from_pretrained, import_checkpoint
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.exporting.layouts import export_layout, layouts_for
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.from_training import model_of
from multimodal.pretrained.registry import find_format
from multimodal.pretrained.settings import ModelSettings, part
from multimodal.tokenizers.text import TextTransform
from tests.pretrained.text_parity import Ragged, check_accounts, check_close, check_layers, randomized, shapes_of
from tests.pretrained.vision_parity import check_same, imported, tensors_of, write

CLASSES = {
    name: getattr(transformers, name) for name in ("BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification")
}
HEADS = {"BertModel": None, "BertForMaskedLM": "tokens", "BertForPreTraining": "tokens", "BertForSequenceClassification": "classes"}


def tiny(**more) -> transformers.BertConfig:
    settings = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 50}
    return transformers.BertConfig(**{**settings, "max_position_embeddings": 40, "num_labels": 5, "attn_implementation": "eager", **more})


def saved(folder, kind="BertForMaskedLM", **more):
    reference = randomized(CLASSES[kind](tiny(**more)))
    reference.save_pretrained(folder)
    return reference


def edit(folder, change):
    """Change the tensors and the config of a saved model."""
    tensors, config = tensors_of(folder), json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def logits_of(output):
    return output.prediction_logits if hasattr(output, "prediction_logits") else output.logits


@pytest.mark.parametrize("longest", [6, 40])
@pytest.mark.parametrize("kind", CLASSES)
def test_every_layer_and_the_logits_are_those_of_transformers(tmp_path, kind, longest):
    reference, batch = saved(tmp_path, kind), Ragged(longest, 50)
    model = imported(tmp_path)
    with torch.no_grad():
        output = reference(**batch.padded, output_hidden_states=True)
        check_layers(model, batch, list(output.hidden_states[1:]))
        if HEADS[kind] is None:
            assert not model.heads
            return
        logits = model.logits(model.features(batch.packed, batch.lengths), HEADS[kind])
    expected = logits_of(output)
    check_close(logits if expected.ndim == 2 else logits[batch.mask], expected if expected.ndim == 2 else expected[batch.mask])


def test_texts_of_one_length_need_no_lengths(tmp_path):
    reference, ids = saved(tmp_path, "BertForSequenceClassification"), Ragged(12, 50).ids
    with torch.no_grad():
        check_close(imported(tmp_path)(ids), reference(ids).logits)


@pytest.mark.parametrize("act", ["gelu_new", "relu", "silu"])
def test_other_activations_are_read_from_the_config(tmp_path, act):
    reference, batch = saved(tmp_path, hidden_act=act, layer_norm_eps=1e-3), Ragged(9, 50)
    with torch.no_grad():
        check_layers(imported(tmp_path), batch, list(reference(**batch.padded, output_hidden_states=True).hidden_states[1:]))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_round_trip_gives_the_file_back(tmp_path, kind):
    reference, batch = saved(tmp_path / "theirs", kind), Ragged(9, 50)
    model = imported(tmp_path / "theirs")
    path = write(model, "transformers", tmp_path / "back")
    ignored = ("pooler", "bert.pooler", "cls.seq_relationship") if HEADS[kind] != "classes" else ()
    check_same(tensors_of(path), tensors_of(tmp_path / "theirs"), without=ignored)
    loaded, loading = CLASSES[kind].from_pretrained(path, output_loading_info=True, attn_implementation="eager")
    assert not loading["unexpected_keys"]
    assert all("pooler" in name or "seq_relationship" in name for name in loading["missing_keys"])
    with torch.no_grad():
        check_close(loaded.eval()(**batch.padded)[0][0], reference(**batch.padded)[0][0])


def test_a_saved_model_keeps_its_tied_table(tmp_path):
    saved(tmp_path / "theirs")
    model = imported(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    again = from_pretrained(tmp_path / "ours")
    assert again.heads["tokens"].proj.weight is again.embeds["text"].words.weight
    batch = Ragged(9, 50)
    check_close(again.features(batch.packed, batch.lengths).x, model.features(batch.packed, batch.lengths).x)


def test_the_norms_of_the_first_release_are_known_by_their_names(tmp_path):
    reference, batch = saved(tmp_path), Ragged(9, 50)

    def rename(tensors, config):
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")] = tensors.pop(name)

    edit(tmp_path, rename)
    with torch.no_grad():
        check_layers(imported(tmp_path), batch, list(reference(**batch.padded, output_hidden_states=True).hidden_states[1:]))


def test_copies_of_a_tied_table_are_compared(tmp_path):
    reference = saved(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").unlink()
    torch.save(reference.state_dict(), path)
    assert imported(tmp_path).settings.tied == {"heads.tokens.proj.weight": "embeds.text.words.weight"}
    state = {name: x.clone() for name, x in reference.state_dict().items()}
    state["cls.predictions.decoder.weight"][3, 4] += 1
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"decoder.weight differs from bert.embeddings.word_embeddings.weight; they are copies"):
        imported(tmp_path)


def test_an_untied_decoder_stays_its_own(tmp_path):
    reference, batch = saved(tmp_path, tie_word_embeddings=False), Ragged(9, 50)
    edit(tmp_path, lambda tensors, config: tensors.update({"cls.predictions.bias": tensors["cls.predictions.decoder.bias"].clone()}))
    model = imported(tmp_path)
    assert not model.settings.tied
    with torch.no_grad():
        logits = model.logits(model.features(batch.packed, batch.lengths), "tokens")
        check_close(logits[batch.mask], reference(**batch.padded).logits[batch.mask])
    check_same(tensors_of(write(model, "transformers", tmp_path / "back")), tensors_of(tmp_path))


def test_names_of_classes_go_there_and_back(tmp_path):
    saved(
        tmp_path, "BertForSequenceClassification", id2label=dict(enumerate("abcde")), label2id={name: i for i, name in enumerate("abcde")}
    )
    model = imported(tmp_path)
    assert model.settings.labels == tuple("abcde")
    config = json.loads((write(model, "transformers", tmp_path / "back") / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate("abcde")}


def test_what_is_not_needed_is_said(tmp_path):
    saved(tmp_path, "BertForPreTraining")
    edit(tmp_path, lambda tensors, config: tensors.update({"bert.embeddings.position_ids": torch.arange(40)[None]}))
    ignored = dict(import_checkpoint(tmp_path).report.ignored)
    assert {name: why.split()[0] for name, why in ignored.items()} == {
        "bert.embeddings.position_ids": "an",
        "bert.pooler.dense.bias": "a",
        "bert.pooler.dense.weight": "a",
        "cls.seq_relationship.bias": "next-sentence",
        "cls.seq_relationship.weight": "next-sentence",
    }


def test_the_mask_is_found_beside_the_weights_or_named(tmp_path):
    saved(tmp_path)
    assert imported(tmp_path).embeds["text"].mask_id is None
    (tmp_path / "vocab.txt").write_text("[PAD]\na\n[MASK]\nb\n")
    assert imported(tmp_path).embeds["text"].mask_id == 2
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 7, "content": "[MASK]"}]}))
    assert imported(tmp_path).embeds["text"].mask_id == 7
    assert imported(tmp_path, mask_id="9").embeds["text"].mask_id == 9
    with pytest.raises(ValueError, match="mask_id must be a number, got 'x'"):
        imported(tmp_path, mask_id="x")
    with pytest.raises(ValueError, match=r"unknown settings \['masc'\]"):
        imported(tmp_path, masc="9")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer.json is damaged"):
        imported(tmp_path)


def test_a_decoder_and_an_unknown_activation_are_refused(tmp_path):
    saved(tmp_path)
    edit(tmp_path, lambda tensors, config: config.update(is_decoder=True))
    with pytest.raises(ValueError, match="is_decoder is true"):
        imported(tmp_path)
    edit(tmp_path, lambda tensors, config: config.update(is_decoder=False, hidden_act="quick_gelu"))
    with pytest.raises(ValueError, match="hidden_act 'quick_gelu' is not known"):
        imported(tmp_path)


def test_those_who_use_the_names_of_bert_for_something_else_are_not_taken_for_it():
    config = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 50}
    roberta = transformers.RobertaModel(transformers.RobertaConfig(**config, type_vocab_size=1)).state_dict()
    relative = transformers.BertModel(transformers.BertConfig(**config)).state_dict()
    shapes = {name: tuple(x.shape) for name, x in relative.items()}
    with pytest.raises(ValueError, match="do not have the names"):
        find_format({name: tuple(x.shape) for name, x in roberta.items()}, {}, "bert")
    with pytest.raises(ValueError, match="do not have the names"):
        find_format(shapes, {"model_type": "roberta"}, "bert")
    with pytest.raises(ValueError, match="do not have the names"):
        find_format({**shapes, "encoder.layer.0.attention.self.distance_embedding.weight": (1023, 8)}, {}, "bert")


def test_heads_that_bert_does_not_have_are_not_written(tmp_path):
    saved(tmp_path)
    model = imported(tmp_path)
    head = part("multimodal.heads.ClassificationHead", num_classes=3, pool="mean")
    other = PretrainedModel(ModelSettings(model.settings.encoder, model.settings.embeds, {"classes": head}, origin=model.settings.origin))
    with pytest.raises(ValueError, match="only a head with pool 'first' and hidden 'tanh' fits"):
        write(other, "transformers", tmp_path / "back")


def test_a_fine_tuned_model_of_no_family_can_be_written_as_bert(tmp_path):
    saved(tmp_path, "BertForSequenceClassification")
    published = import_checkpoint(tmp_path, options=ImportOptions(settings={"mask_id": "3"})).parts[""]
    run = torch.nn.Module()
    run.encoder = published.encoder
    run.modalities = torch.nn.ModuleDict({"text": Input(32, TextTransform(), published.embeds["text"])})
    run.heads = torch.nn.ModuleDict({"topic": published.heads["classes"]})
    own = model_of(run, {"text": {"init_args": {"transform": part("multimodal.tokenizers.text.TextTransform")}}})
    assert list(own.heads) == ["classes"] and own.settings.origin.family == ""
    assert [(form.family, form.layout) for form in layouts_for(own)] == [("bert", "transformers")]
    export_layout(own, "transformers", tmp_path / "back")
    check_same(tensors_of(tmp_path / "back"), tensors_of(tmp_path))
    assert not layouts_for(model_of(run)), "without a transform there is nothing to compare the two on"


def test_bert_base_has_199_tensors_and_all_have_a_place():
    config = transformers.BertConfig()
    shapes = shapes_of(transformers.BertModel, config)
    assert len(shapes) == 199
    model = check_accounts(shapes, {"model_type": "bert"}, "bert", "transformers", ignored=2)[""].target
    assert sum(x.numel() for x in model.parameters()) == 109_482_240 - 768 * 769


def test_the_number_of_heads_is_the_users_before_the_configs(tmp_path):
    reference = saved(tmp_path)
    checkpoint = Checkpoint(tensors_of(tmp_path), {"model_type": "bert", "num_attention_heads": 4}, path=tmp_path)
    form = find_format(checkpoint.shapes, checkpoint.config)
    assert form.read(checkpoint, ImportOptions())[0].target.encoder.num_heads == reference.config.num_attention_heads == 4
    assert form.read(checkpoint, ImportOptions(num_heads=8))[0].target.encoder.num_heads == 8
