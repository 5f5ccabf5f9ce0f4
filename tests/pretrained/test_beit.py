"""BEiT: outputs equal those of transformers and timm, layer by layer, and every layout is written back as it was."""

import pytest
import timm
import torch
import transformers

from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.formats.beit import relative_position_index
from multimodal.pretrained.registry import format_of
from tests.pretrained.vision_parity import (
    check_close,
    check_layers,
    check_same,
    half,
    imagenet,
    images,
    imported,
    load_timm,
    randomized,
    save_timm,
    tensors_of,
    write,
)

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
SHARED, OWN = {"use_shared_relative_position_bias": True}, {"use_relative_position_bias": True}
ABSOLUTE = {"use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0}


def masked_model(size: int = 32, **settings) -> transformers.BeitForMaskedImageModeling:
    config = transformers.BeitConfig(**{**TINY, "image_size": size, "vocab_size": 20, "use_mask_token": True, **settings})
    return randomized(transformers.BeitForMaskedImageModeling(config))


def classifier(size: int = 32, **settings) -> transformers.BeitForImageClassification:
    return randomized(
        transformers.BeitForImageClassification(transformers.BeitConfig(**{**TINY, "image_size": size, "num_labels": 5, **settings}))
    )


def timm_model(name: str, size: int = 32, **settings) -> torch.nn.Module:
    small = {"embed_dim": 32, "depth": 3, "num_heads": 4, "img_size": size, "num_classes": 5}
    return randomized(timm.create_model(name, **{**small, **settings}))


def table(depth: int, dim: int, kind: str, classes: int = 0, vocab: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of a published file of unilm, at 14 x 14 patches of 16 pixels."""
    one = {"gamma_1": (dim,), "gamma_2": (dim,), "attn.q_bias": (dim,), "attn.v_bias": (dim,), "attn.qkv.weight": (3 * dim, dim)}
    one |= {"attn.proj.weight": (dim, dim), "mlp.fc1.weight": (4 * dim, dim), "mlp.fc2.weight": (dim, 4 * dim), "attn.proj.bias": (dim,)}
    one |= {
        "mlp.fc1.bias": (4 * dim,),
        "mlp.fc2.bias": (dim,),
        **{f"norm{n}.{leaf}": (dim,) for n in (1, 2) for leaf in ("weight", "bias")},
    }
    heads, index = dim // 64, relative_position_index((14, 14))
    bias = {"relative_position_bias_table": torch.zeros(732, heads), "relative_position_index": index}
    shapes = {"cls_token": (1, 1, dim), "patch_embed.proj.weight": (dim, 3, 16, 16), "patch_embed.proj.bias": (dim,)}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in one.items()}
    if kind == "classifier":
        shapes |= {"fc_norm.weight": (dim,), "fc_norm.bias": (dim,), "head.weight": (classes, dim), "head.bias": (classes,)}
        tensors = {f"blocks.{i}.attn.{name}": x for i in range(depth) for name, x in bias.items()}
    else:
        shapes |= {
            "mask_token": (1, 1, dim),
            "norm.weight": (dim,),
            "norm.bias": (dim,),
            "lm_head.weight": (vocab, dim),
            "lm_head.bias": (vocab,),
        }
        tensors = {f"rel_pos_bias.{name}": x for name, x in bias.items()}
    if kind == "v2":
        shapes |= {f"cls_pt_layers.{i}.{name}": shape for i in range(2) for name, shape in one.items()}
    return {**{name: torch.zeros(shape) for name, shape in shapes.items()}, **tensors}


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    "settings", [SHARED, OWN, ABSOLUTE, SHARED | {"use_absolute_position_embeddings": True}], ids=["shared", "own", "abs", "both"]
)
def test_masked_models_of_transformers_have_equal_layers_and_logits(tmp_path, size, settings):
    reference = masked_model(size, **settings)
    reference.save_pretrained(tmp_path)
    model, pixels = imported(tmp_path), images(size)
    with torch.no_grad():
        expected = reference(half(pixels), output_hidden_states=True)
    check_layers(model, pixels, list(expected.hidden_states[1:]))
    check_close(model.forward_head(model.forward_features(pixels), "tokens"), expected.logits)
    written = write(model, "transformers", tmp_path / "back")
    check_same(tensors_of(written), tensors_of(tmp_path))
    again = transformers.BeitForMaskedImageModeling.from_pretrained(written).eval()
    with torch.no_grad():
        assert torch.equal(again(half(pixels)).logits, expected.logits)


def test_the_mask_is_shown_as_in_transformers(tmp_path):
    reference = masked_model(**SHARED)
    reference.save_pretrained(tmp_path)
    model, pixels = imported(tmp_path), images()
    hidden = torch.tensor([[True, False, False, True], [False, True, False, False]])
    with torch.no_grad():
        expected = reference(half(pixels), bool_masked_pos=hidden).logits
        embed = model.embeds["image"]
        tokens = embed.tokens(pixels)
        encoded = model.encoder(embed(tokens, hidden.flatten()), tokens.item, tokens.coordinates).tokens
    check_close(model.heads["tokens"](encoded)[0].unflatten(0, (2, 4)), expected)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("pooled", [True, False])
def test_classifiers_of_transformers_have_equal_layers_and_logits(tmp_path, size, pooled):
    reference = classifier(size, **OWN, use_mean_pooling=pooled)
    reference.config.id2label = dict(enumerate("abcde"))
    reference.save_pretrained(tmp_path)
    model, pixels = imported(tmp_path), images(size)
    with torch.no_grad():
        expected = reference(half(pixels), output_hidden_states=True)
    check_layers(model, pixels, list(expected.hidden_states[1:]))
    check_close(model(pixels), expected.logits)
    assert model.settings.labels == tuple("abcde")
    written = write(model, "transformers", tmp_path / "back")
    check_same(tensors_of(written), tensors_of(tmp_path))
    again = transformers.BeitForImageClassification.from_pretrained(written).eval()
    assert again.config.id2label == dict(enumerate("abcde"))
    with torch.no_grad():
        assert torch.equal(again(half(pixels)).logits, expected.logits)


@pytest.mark.parametrize(("make", "name"), [(masked_model, "BeitForMaskedImageModeling"), (classifier, "BeitForImageClassification")])
def test_a_state_dict_of_transformers_5_is_a_renaming(tmp_path, make, name):
    reference = make(**(SHARED if make is masked_model else OWN))
    torch.save(reference.state_dict(), tmp_path / "state.pth")
    reference.save_pretrained(tmp_path / "file")
    (tmp_path / "config.json").write_bytes((tmp_path / "file" / "config.json").read_bytes())
    model, other, pixels = imported(tmp_path / "state.pth"), imported(tmp_path / "file"), images()
    assert (model.settings.origin.layout, other.settings.origin.layout) == ("transformers-5", "transformers")
    assert torch.equal(model.forward_features(pixels), other.forward_features(pixels))
    written = format_of("beit", "transformers-5").write(model).tensors
    check_same(written, reference.state_dict())
    getattr(transformers, name)(reference.config).load_state_dict(written, strict=True)


@pytest.mark.parametrize("mean_pooling", [True, False])
def test_bare_models_of_transformers_come_without_prefix(tmp_path, mean_pooling):
    reference = randomized(transformers.BeitModel(transformers.BeitConfig(**TINY, image_size=32, **SHARED, use_mean_pooling=mean_pooling)))
    reference.save_pretrained(tmp_path)
    model, pixels = imported(tmp_path), images()
    with torch.no_grad():
        check_close(model.forward_features(pixels), reference(half(pixels)).last_hidden_state)
    check_same(tensors_of(write(model, "transformers", tmp_path / "back")), tensors_of(tmp_path), ("pooler.",))


def test_a_segmentation_model_gives_its_encoder(tmp_path):
    settings = {**TINY, "num_hidden_layers": 4, "image_size": 32, "out_indices": [1, 2, 3, 4]}
    reference = randomized(transformers.BeitForSemanticSegmentation(transformers.BeitConfig(**settings, **OWN)))
    reference.save_pretrained(tmp_path)
    result, pixels = import_checkpoint(tmp_path), images()
    with torch.no_grad():
        hidden = reference.beit(half(pixels), output_hidden_states=True).hidden_states
    check_layers(result.parts[""], pixels, list(hidden[1:]))
    assert {why for _, why in result.report.ignored} == {"a head for segmentation"}


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("beit_base_patch16_224", {}),
        ("beitv2_base_patch16_224", {}),
        ("beit_base_patch16_224", {"num_classes": 21841}),
        ("beit_base_patch16_224", {"global_pool": "token"}),
        ("beit_base_patch16_224", {"use_abs_pos_emb": True, "use_rel_pos_bias": False, "init_values": 0.0}),
        ("beit_base_patch16_224", {"img_size": (32, 64)}),
    ],
    ids=["v1", "v2", "ft22k", "class", "attention-map", "wide"],
)
def test_models_of_timm_have_equal_layers_and_logits(tmp_path, size, name, settings):
    reference = timm_model(name, size, **settings)
    rows, columns = reference.patch_embed.img_size
    grid = {} if rows == columns else {"grid": f"{rows // 16}x{columns // 16}"}
    hub = save_timm(reference, tmp_path / "hub", model_args={"num_heads": 4})
    model, pixels = imported(hub, **grid), images(rows, columns)
    normalised = imagenet(pixels) if "v2" in name else half(pixels)
    with torch.no_grad():
        final, hidden = reference.forward_intermediates(normalised, output_fmt="NLC", return_prefix_tokens=True)
        check_layers(model, pixels, [torch.cat([special, tokens], 1) for tokens, special in hidden])
        check_close(model.forward_features(pixels), final)
        check_close(model(pixels), reference(normalised))
    assert model.settings.origin.layout == "timm"
    written = write(model, "timm", tmp_path / "back")
    check_same(tensors_of(written), reference.state_dict())
    with torch.no_grad():
        assert torch.equal(load_timm(written)(normalised), reference(normalised))


def test_a_bare_encoder_of_timm(tmp_path):
    reference, pixels = timm_model("beit_base_patch16_224", num_classes=0), images()
    model = imported(save_timm(reference, tmp_path / "hub"))
    with torch.no_grad():
        check_close(model(pixels), reference.forward_features(half(pixels)))
    check_same(tensors_of(write(model, "timm", tmp_path / "back")), reference.state_dict(), ("fc_norm.",))


def test_a_file_of_unilm_is_that_of_timm_with_the_index(tmp_path):
    reference, pixels = timm_model("beit_base_patch16_224"), images()
    stored = {**reference.state_dict(), **{f"blocks.{i}.attn.relative_position_index": relative_position_index((2, 2)) for i in range(3)}}
    torch.save({"model": stored}, tmp_path / "beit.pth")
    model = imported(tmp_path / "beit.pth")
    with torch.no_grad():
        check_close(model(pixels), reference(half(pixels)))
        check_close(imported(tmp_path / "beit.pth", statistics="imagenet")(pixels), reference(imagenet(pixels)))
    check_same(format_of("beit", "unilm").write(model).tensors, stored)


@pytest.mark.parametrize(
    ("kind", "count", "sizes"), [("v1", 190, {"vocab": 8192}), ("classifier", 211, {"classes": 21841}), ("v2", 220, {"vocab": 8192})]
)
def test_published_files_of_base_size_are_accounted_for(tmp_path, kind, count, sizes):
    tensors = table(12, 768, kind, **sizes)
    assert len(tensors) == count
    torch.save({"model": tensors}, tmp_path / "beit.pth")
    result = import_checkpoint(tmp_path / "beit.pth")
    model, index = result.parts[""], sum("index" in name for name in tensors)
    late = sum(name.startswith("cls_pt") for name in tensors)
    assert (result.report.num_read, len(result.report.ignored)) == (count, index + late)
    assert model.encoder.num_heads == 12 and model.encoder.depth == 12
    if kind == "v1":
        assert sum(x.numel() for x in model.parameters()) == 91_965_776
    check_same(format_of("beit", "unilm").write(model).tensors, tensors, ("cls_pt_",))
    mean = model.settings.embeds["image"]["init_args"]["mean"][0]
    assert mean == (0.485 if kind == "v2" else 0.5)


def test_a_head_for_the_class_token_that_is_not_shared_is_left_behind(tmp_path):
    tensors = table(1, 64, "v2", vocab=10)
    tensors |= {"cls_pt_norm.weight": torch.ones(64), "cls_pt_norm.bias": torch.zeros(64), "cls_pt_lm_head.weight": torch.zeros(10, 64)}
    torch.save({"model": tensors}, tmp_path / "beit.pth")
    assert {"cls_pt_norm.bias", "cls_pt_lm_head.weight"} <= {name for name, _ in import_checkpoint(tmp_path / "beit.pth").report.ignored}


def test_masked_models_go_from_unilm_to_transformers(tmp_path):
    reference = masked_model(**SHARED)
    reference.save_pretrained(tmp_path / "hub")
    unilm = format_of("beit", "unilm").write(imported(tmp_path / "hub")).tensors
    torch.save({"module": unilm}, tmp_path / "beit.pth")
    model, pixels = imported(tmp_path / "beit.pth"), images()
    assert model.settings.origin.layout == "unilm"
    again = transformers.BeitForMaskedImageModeling.from_pretrained(write(model, "transformers", tmp_path / "back")).eval()
    with torch.no_grad():
        assert torch.equal(again(half(pixels)).logits, reference(half(pixels)).logits)


def test_the_index_of_a_window_of_2_by_3():
    index = relative_position_index((2, 3))
    assert index[0].tolist() == [17, 15, 15, 15, 15, 15, 15]
    assert index[1:, 0].tolist() == [16] * 6
    assert index[1, 1:].tolist() == [7, 6, 5, 2, 1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statistics": "zero"}, "got 'zero'"),
        ({"grid": "2by2"}, "grid must be ROWSxCOLUMNS"),
        ({"grid": "3x3"}, "of no window of 3 x 3"),
        ({"size": "3"}, "unknown settings ['size']; this format has ['grid', 'statistics']"),
    ],
)
def test_settings_are_checked(tmp_path, settings, message):
    torch.save({"model": timm_model("beit_base_patch16_224").state_dict()}, tmp_path / "beit.pth")
    with pytest.raises(ValueError) as refused:
        import_checkpoint(tmp_path / "beit.pth", options=ImportOptions(settings=settings))
    assert message in str(refused.value)


def test_timm_gets_no_head_for_masked_patches(tmp_path):
    masked_model(**SHARED).save_pretrained(tmp_path)
    model, pixels = imported(tmp_path), images()
    assert list(format_of("beit", "timm").write(model).left_out) == ["heads.tokens.proj.weight", "heads.tokens.proj.bias"]
    with torch.no_grad():
        check_close(load_timm(write(model, "timm", tmp_path / "timm")).forward_features(half(pixels)), model.forward_features(pixels))


@pytest.mark.parametrize("name", ["blocks.2.mlp.fc1.bias", "head.weight", "cls_token"])
def test_a_missing_and_an_unknown_tensor_are_named(tmp_path, name):
    tensors = timm_model("beit_base_patch16_224").state_dict()
    torch.save({name: x for name, x in tensors.items()} | {"extra.weight": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"extra\.weight"):
        import_checkpoint(tmp_path / "more.pth")
    torch.save({other: x for other, x in tensors.items() if other != name}, tmp_path / "less.pth")
    with pytest.raises(ValueError):
        import_checkpoint(tmp_path / "less.pth", family="beit")
