"""What runs of our own have trained leaves to timm, transformers and unilm, and computes the same there."""

from functools import partial

import pytest
import torch
import transformers
from torch import Tensor, nn

from multimodal.cli import main
from multimodal.heads import ClassificationHead
from multimodal.masking import Drop, RandomMasking
from multimodal.modality import Input, Modality
from multimodal.nn import Attention, Decoder, Encoder, LayerNorm, RelativeBias2d, RotaryPosition
from multimodal.objectives import ClassAggregation, MaskedPrediction, TokenValues
from multimodal.pretrained import PretrainedModel, import_checkpoint, load_embed, load_encoder
from multimodal.pretrained.exporting import export_layout, layouts_for
from multimodal.pretrained.from_training import model_of
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed
from multimodal.training import FineTuning, MaskedPretraining
from tests.pretrained.vision_parity import check_close, images, load_timm, randomized

SIZE = 32
HALF = {"mean": [0.5], "std": [0.5]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
GREY = {"mean": [0.13], "std": [0.31], "channels": 1}


def encoder_of(kind: str) -> Encoder:
    small = {"dim": 32, "depth": 3, "num_heads": 4, "class_token": True}
    if kind == "mae":
        return Encoder(**small)
    bias = partial(RelativeBias2d, window=(2, 2))
    return Encoder(**small, attention=partial(Attention, bias="query_value"), layer_scale=0.1, bias=bias)


def taken(module: nn.Module, channels: int = 3) -> PretrainedModel:
    transform = {"class_path": "multimodal.tokenizers.image.ImageTransform", "init_args": {"size": SIZE, "channels": channels}}
    return randomized(model_of(module, {"image": {"init_args": {"transform": transform}}}))


def pretrained(kind: str, **embed) -> PretrainedModel:
    """Return what a pretraining run leaves behind, as the recipes of configs/pretrain put it together."""
    channels = embed.get("channels", 3)
    settings = {"transform": ImageTransform(size=SIZE, tokenizer_size=16, channels=channels), "masking": RandomMasking(0.5)}
    if kind == "mae":
        settings |= {"corruption": Drop(), "target": TokenValues(), "decoder": partial(Decoder, width=16, depth=1, num_heads=2)}
        settings["embed"] = partial(PatchEmbed, **embed)
    else:
        settings["tokenizer"] = DiscreteVAE(num_tokens=8, width=4, codebook_dim=4, channels=channels)
        settings["embed"] = partial(PatchEmbed, position=None, **embed)
    more = {"objectives": [MaskedPrediction, partial(ClassAggregation, early_layer=1, depth=1)]} if kind == "beitv2" else {}
    return taken(MaskedPretraining(encoder_of(kind), {"image": partial(Modality, **settings)}, **more), channels)


def classifier(kind: str, folder, **embed) -> PretrainedModel:
    """Return what a fine-tuning leaves behind, as the recipes of configs/finetune put it together."""
    pretrained(kind, **embed).save_pretrained(folder)
    changes = {"norm_at": "none"} | ({} if kind == "mae" else {"share_bias": False})
    image = partial(Input, transform=ImageTransform(size=SIZE), embed=load_embed(str(folder), "image"))
    head = partial(ClassificationHead, num_classes=5, norm=partial(LayerNorm, eps=1e-6))
    return taken(FineTuning(load_encoder(str(folder), **changes), {"image": image}, {"label": head}))


def layouts(model: PretrainedModel) -> set[tuple[str, str]]:
    return {(form.family, form.layout) for form in layouts_for(model)}


def loaded(folder, name: str) -> nn.Module:
    model, loading = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    pooler = {"pooler.dense.weight", "pooler.dense.bias"} if name == "ViTModel" else set()  # a layer of its own, which no feature needs
    assert set(loading["missing_keys"]) == pooler and not loading["mismatched_keys"]
    assert set(loading["unexpected_keys"]) <= {"embeddings.mask_token"}
    return model.eval()


def processed(folder, pixels: Tensor) -> Tensor:
    """Return the images as the folder itself says that they are to be normalised."""
    return transformers.AutoImageProcessor.from_pretrained(folder)(list(pixels), return_tensors="pt")["pixel_values"]


BEIT = {("beit", layout) for layout in ("unilm", "timm", "transformers", "transformers-5")}
VIT = {("vit", layout) for layout in ("timm", "transformers", "transformers-5")}
MAE = {("mae", layout) for layout in ("mae", "transformers", "transformers-5")}


@pytest.mark.parametrize(("kind", "statistics"), [("beit", HALF), ("beit", IMAGENET), ("beitv2", IMAGENET)])
def test_a_pretraining_of_beit_leaves_to_all_its_layouts(tmp_path, kind, statistics):
    model, pixels = pretrained(kind, **statistics), images()
    assert layouts(model) == BEIT
    for layout in ("transformers", "timm", "unilm"):
        exported = export_layout(model, layout, tmp_path / layout)
        back = import_checkpoint(tmp_path / layout, options=exported.options).parts[""]
        check_close(back.forward_features(pixels), model.forward_features(pixels))
        assert set(exported.written.left_out) == ({"heads.tokens.proj.weight", "heads.tokens.proj.bias"} if layout == "timm" else set())
    theirs = loaded(tmp_path / "transformers", "BeitForMaskedImageModeling")
    values = processed(tmp_path / "transformers", pixels)
    check_close(theirs(values).logits, model.logits(model.features(pixels), "tokens"))
    check_close(load_timm(tmp_path / "timm").forward_features(values), model.forward_features(pixels))


@pytest.mark.parametrize(("kind", "statistics"), [("beit", HALF), ("beitv2", IMAGENET)])
def test_a_classifier_of_beit_leaves_to_all_its_layouts(tmp_path, kind, statistics):
    model, pixels = classifier(kind, tmp_path / "own", **statistics), images()
    assert layouts(model) == BEIT
    for layout in ("transformers", "timm", "unilm"):
        exported = export_layout(model, layout, tmp_path / layout)
        check_close(import_checkpoint(tmp_path / layout, options=exported.options).parts[""](pixels), model(pixels))
    values = processed(tmp_path / "transformers", pixels)
    check_close(loaded(tmp_path / "transformers", "BeitForImageClassification")(values).logits, model(pixels))
    check_close(load_timm(tmp_path / "timm")(values), model(pixels))


@pytest.mark.parametrize("statistics", [HALF, IMAGENET])
def test_a_pretraining_of_mae_leaves_with_a_table_of_the_positions_that_it_computes(tmp_path, statistics):
    model, pixels = pretrained("mae", **statistics), images()
    assert layouts(model) == VIT | MAE
    for layout, family in (("transformers", "vit"), ("timm", "vit"), ("mae", "mae")):
        exported = export_layout(model, layout, tmp_path / layout, family)
        back = import_checkpoint(tmp_path / layout, family, options=exported.options).parts[""]
        check_close(back.forward_features(pixels), model.forward_features(pixels))
    values = processed(tmp_path / "transformers", pixels)
    check_close(loaded(tmp_path / "transformers", "ViTModel")(values).last_hidden_state, model.forward_features(pixels))
    check_close(load_timm(tmp_path / "timm").forward_features(values), model.forward_features(pixels))
    export_layout(model, "transformers", tmp_path / "vit_mae", "mae")
    theirs = loaded(tmp_path / "vit_mae", "ViTMAEModel")
    theirs.config.mask_ratio = 0.0
    in_order = torch.linspace(0, 1, 4).repeat(len(pixels), 1)
    check_close(theirs(values, noise=in_order).last_hidden_state, model.forward_features(pixels))


def test_a_classifier_of_mae_leaves_to_timm_and_is_told_why_not_to_transformers(tmp_path):
    model, pixels = classifier("mae", tmp_path / "own", **IMAGENET), images()
    assert layouts(model) == {("vit", "timm")}
    export_layout(model, "timm", tmp_path / "timm")
    mean, std = (torch.tensor(IMAGENET[name]).view(3, 1, 1) for name in ("mean", "std"))
    check_close(load_timm(tmp_path / "timm")((pixels / 255 - mean) / std), model(pixels))
    with pytest.raises(ValueError, match=r"layouts are: vit \(timm\).* vit \(transformers\): .*cannot hold a classifier of the mean patch"):
        export_layout(model, "transformers", tmp_path / "out")
    with pytest.raises(ValueError, match=r" beit \(unilm\): a BEiT cannot hold the bias 'all' of its projections"):
        export_layout(model, "unilm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["unilm", "timm", "transformers"])
def test_statistics_without_a_name_are_kept(tmp_path, layout):
    model = pretrained("beit", **GREY)
    pixels = images()[:, :1]
    exported = export_layout(model, layout, tmp_path)
    assert exported.options.settings == ({"statistics": "0.13/0.31"} if layout == "unilm" else {})
    check_close(import_checkpoint(tmp_path, options=exported.options).parts[""].forward_features(pixels), model.forward_features(pixels))


def test_the_command_says_what_is_left_out_and_what_the_files_do_not_tell(tmp_path, capsys):
    pretrained("beitv2", **IMAGENET).save_pretrained(tmp_path / "own")
    assert main(["export", str(tmp_path / "own"), "--format", "timm", "--to", str(tmp_path / "timm")]) == 0
    said = capsys.readouterr().out
    assert "left out: heads.tokens.proj.weight, heads.tokens.proj.bias: a head for hidden patches, which timm's BEiT does not have" in said
    assert main(["export", str(tmp_path / "own"), "--format", "unilm", "--to", str(tmp_path / "unilm")]) == 0
    said = capsys.readouterr().out
    assert "left out" not in said and "not in the files, to read them back: --set statistics=imagenet" in said


def test_an_encoder_that_no_layout_holds_is_told_why_by_each(tmp_path):
    encoder = Encoder(dim=32, depth=1, num_heads=2, rotary=partial(RotaryPosition, axes=2), class_token=True)
    image = partial(Input, transform=ImageTransform(size=SIZE), embed=partial(PatchEmbed, position=None))
    model = taken(FineTuning(encoder, {"image": image}, {"label": partial(ClassificationHead, num_classes=3)}))
    with pytest.raises(
        ValueError, match=r"layouts are: none; .* beit \(timm\): .*has neither\. vit \(timm\): only an encoder .* positions"
    ) as refused:
        export_layout(model, "timm", tmp_path / "out")
    assert "bert" not in str(refused.value)
