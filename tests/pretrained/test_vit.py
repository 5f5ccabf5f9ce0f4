"""ViT and DeiT: outputs equal those of timm and transformers, layer by layer, and every layout is written back as it was."""

import pytest
import timm
import torch
import transformers

from multimodal.pretrained import import_checkpoint
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

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 16}


def timm_model(name: str, size: int | tuple[int, int] = 32, **settings) -> torch.nn.Module:
    small = {"embed_dim": 32, "depth": 3, "num_heads": 4, "img_size": size, "num_classes": 5, "mlp_ratio": 1.5}
    return randomized(timm.create_model(name, **{**small, **settings}))


def transformers_model(name: str, kind: str = "ViT", size: int = 32, **settings) -> transformers.PreTrainedModel:
    config = getattr(transformers, f"{kind}Config")(**{**TINY, "image_size": size, "num_labels": 5, **settings})
    return randomized(getattr(transformers, name)(config))


TIMM = {
    "plain": ("vit_base_patch16_224", {}),
    "patch 8": ("vit_base_patch8_224", {}),
    "no bias": ("vit_base_patch16_224", {"qkv_bias": False}),
    "mean": ("vit_base_patch16_224", {"global_pool": "avg"}),
    "mean of normed": ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    "registers": ("vit_base_patch16_224", {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5}),
    "registers with positions": ("vit_base_patch16_224", {"reg_tokens": 3}),
    "deit": ("deit_base_patch16_224", {}),
    "deit 3": ("deit3_base_patch16_224", {}),
    "distilled": ("deit_base_distilled_patch16_224", {}),
    "normed keys": ("vit_base_patch16_224", {"qk_norm": True, "init_values": 1e-5}),
    "no class token": ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg"}),
}


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("name", "settings"), TIMM.values(), ids=TIMM)
def test_models_of_timm_have_equal_layers_and_logits(tmp_path, size, name, settings):
    reference, pixels = timm_model(name, size, **settings), images(size)
    model = imported(save_timm(reference, tmp_path / "hub", model_args={"num_heads": 4}))
    assert model.settings.origin.layout == "timm"
    normalised = imagenet(pixels) if "deit" in name else half(pixels)
    with torch.no_grad():
        final, hidden = reference.forward_intermediates(normalised, output_fmt="NLC", return_prefix_tokens=True)
        check_layers(model, pixels, [torch.cat([x[1], x[0]], 1) if isinstance(x, tuple) else x for x in hidden])
        check_close(model.forward_features(pixels), final)
        check_close(model(pixels), reference(normalised))
    written = write(model, "timm", tmp_path / "back")
    check_same(tensors_of(written), reference.state_dict())
    with torch.no_grad():
        assert torch.equal(load_timm(written)(normalised), reference(normalised))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "deit_base_distilled_patch16_224"])
def test_bare_encoders_of_timm(tmp_path, name):
    reference, pixels = timm_model(name, num_classes=0), images()
    model = imported(save_timm(reference, tmp_path / "hub", model_args={"num_heads": 4}))
    normalised = imagenet(pixels) if "deit" in name else half(pixels)
    with torch.no_grad():
        check_close(model(pixels), reference.forward_features(normalised))
    check_same(tensors_of(write(model, "timm", tmp_path / "back")), reference.state_dict())


def test_wide_images_of_timm(tmp_path):
    reference, pixels = timm_model("vit_base_patch16_224", (32, 64)), images(32, 64)
    model = imported(save_timm(reference, tmp_path / "hub", model_args={"num_heads": 4, "img_size": [32, 64]}))
    with torch.no_grad():
        check_close(model(pixels), reference(half(pixels)))
        assert torch.equal(load_timm(write(model, "timm", tmp_path / "back"))(half(pixels)), reference(half(pixels)))


def test_the_number_of_heads_follows_from_normed_keys_or_the_width(tmp_path):
    def heads(**settings) -> int:
        torch.save(timm_model("vit_base_patch16_224", depth=1, **settings).state_dict(), tmp_path / "vit.pth")
        return imported(tmp_path / "vit.pth", "vit").encoder.num_heads

    assert heads(qk_norm=True) == 4
    assert heads(embed_dim=192) == 3
    assert heads(embed_dim=1408, num_heads=16) == 16


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("ViTForImageClassification", "ViT", {}),
        ("ViTForImageClassification", "ViT", {"qkv_bias": False, "hidden_act": "gelu_new"}),
        ("DeiTForImageClassification", "DeiT", {}),
        ("DeiTForImageClassificationWithTeacher", "DeiT", {"layer_norm_eps": 1e-6}),
    ],
)
def test_classifiers_of_transformers_have_equal_layers_and_logits(tmp_path, size, name, kind, settings):
    reference, pixels = transformers_model(name, kind, size, **settings), images(size)
    reference.save_pretrained(tmp_path)
    model = imported(tmp_path)
    normalised = imagenet(pixels) if kind == "DeiT" else half(pixels)
    with torch.no_grad():
        expected = reference(normalised, output_hidden_states=True)
    check_layers(model, pixels, list(expected.hidden_states[1:]))
    check_close(model(pixels), expected.logits)
    written = write(model, "transformers", tmp_path / "back")
    check_same(tensors_of(written), tensors_of(tmp_path))
    with torch.no_grad():
        assert torch.equal(getattr(transformers, name).from_pretrained(written).eval()(normalised).logits, expected.logits)


@pytest.mark.parametrize(("name", "kind"), [("ViTForImageClassification", "ViT"), ("DeiTForImageClassificationWithTeacher", "DeiT")])
def test_a_state_dict_of_transformers_5_is_a_renaming(tmp_path, name, kind):
    reference = transformers_model(name, kind)
    reference.save_pretrained(tmp_path / "file")
    torch.save(reference.state_dict(), tmp_path / "state.pth")
    (tmp_path / "config.json").write_bytes((tmp_path / "file" / "config.json").read_bytes())
    model, other, pixels = imported(tmp_path / "state.pth"), imported(tmp_path / "file"), images()
    assert model.settings.origin.layout == "transformers-5"
    assert torch.equal(model(pixels), other(pixels))
    check_same(format_of("vit", "transformers-5").write(model).tensors, reference.state_dict())


@pytest.mark.parametrize(("name", "kind"), [("ViTModel", "ViT"), ("DeiTModel", "DeiT")])
def test_bare_models_of_transformers_come_without_prefix(tmp_path, name, kind):
    reference, pixels = transformers_model(name, kind), images()
    reference.save_pretrained(tmp_path)
    result = import_checkpoint(tmp_path)
    model = result.parts[""]
    with torch.no_grad():
        check_close(model(pixels), reference((imagenet if kind == "DeiT" else half)(pixels)).last_hidden_state)
    assert {name for name, _ in result.report.ignored} == {"pooler.dense.weight", "pooler.dense.bias"}
    check_same(tensors_of(write(model, "transformers", tmp_path / "back")), tensors_of(tmp_path), ("pooler.",))


def test_masked_models_of_transformers_keep_their_mask_token(tmp_path):
    reference, pixels = transformers_model("ViTForMaskedImageModeling", "ViT", encoder_stride=16), images()
    reference.save_pretrained(tmp_path)
    model = imported(tmp_path)
    hidden = torch.tensor([[True, False, False, True], [False, True, False, False]])
    with torch.no_grad():
        expected = reference(half(pixels), bool_masked_pos=hidden, output_hidden_states=True).hidden_states[-1]
        embed = model.embeds["image"]
        tokens = embed.tokens(pixels)
        _, seen = model.encoder.forward_intermediates(embed(tokens, hidden.flatten()), tokens.item, tokens.coordinates, [2])
    check_close(seen[0].unflatten(0, (2, 4)), expected[:, 1:])


def test_statistics_beside_the_weights_are_used(tmp_path):
    reference, pixels = transformers_model("ViTForImageClassification"), images()
    reference.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]).save_pretrained(tmp_path)
    with torch.no_grad():
        check_close(imported(tmp_path)(pixels), reference(imagenet(pixels)).logits)


def test_models_go_from_timm_to_transformers(tmp_path):
    reference, pixels = timm_model("deit_base_distilled_patch16_224"), images()
    model = imported(save_timm(reference, tmp_path / "hub", model_args={"num_heads": 4}))
    written = write(model, "transformers", tmp_path / "back")
    again = transformers.DeiTForImageClassificationWithTeacher.from_pretrained(written).eval()
    with torch.no_grad():
        check_close(again(imagenet(pixels)).logits, reference(imagenet(pixels)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"qk_norm": True}, "cannot hold norms of queries and keys"),
        ({"reg_tokens": 4, "no_embed_class": True}, "cannot hold register tokens, class and register tokens without positions"),
        ({"global_pool": "avg"}, "cannot hold a classifier of the mean patch"),
    ],
)
def test_transformers_refuses_what_it_cannot_hold(tmp_path, settings, message):
    model = imported(save_timm(timm_model("vit_base_patch16_224", **settings), tmp_path / "hub", model_args={"num_heads": 4}))
    with pytest.raises(ValueError, match=message):
        format_of("vit", "transformers").write(model)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit_base_patch16_224", {"pre_norm": True}, "it is no plain ViT"),
        ("vit_base_patch16_224", {"global_pool": "map"}, "it is no plain ViT"),
        ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg", "reg_tokens": 2}, "register tokens without a class token"),
    ],
)
def test_models_that_are_no_plain_vit_are_refused(tmp_path, name, settings, message):
    hub = save_timm(timm_model(name, **settings), tmp_path / "hub", model_args={"num_heads": 4})
    with pytest.raises(ValueError, match=message):
        import_checkpoint(hub)
