"""Teachers give what the library's model gives when called by hand, patch by patch; what is missing is named."""

import json
import re

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.resolution import at_image_size
from multimodal.tokenizers.image import ModelTeacher, TimmTeacher, TransformersTeacher

MEAN, STD = [0.48, 0.45, 0.40], [0.26, 0.27, 0.28]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 16}


def pixels(size: int = 32, channels: int = 3, count: int = 2) -> torch.Tensor:
    return torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))


def normalized(values: torch.Tensor, mean=MEAN, std=STD) -> torch.Tensor:
    return (values.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model.eval()


def saved(model, folder, statistics: bool = True) -> str:
    randomized(model).save_pretrained(folder)
    if statistics:
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return str(folder)


TIMM = {"vit_tiny_patch16_224": 1, "beitv2_base_patch16_224": 1, "eva02_tiny_patch14_224": 1, "vit_small_patch14_reg4_dinov2": 5}


@pytest.mark.parametrize("name", TIMM)
def test_timm_models_equal_a_call_by_hand(name, tmp_path, monkeypatch):
    make = timm.create_model

    def small(name, num_classes=0, **more):
        return make(name, num_classes=num_classes, depth=1, embed_dim=24, num_heads=2, img_size=56 if "14" in name else 32, **more)

    model = randomized(small(name, num_classes=7))
    save_file({key: x.contiguous() for key, x in model.state_dict().items()}, tmp_path / "model.safetensors")
    monkeypatch.setattr(timm, "create_model", small)
    teacher, values = TimmTeacher(name, checkpoint=str(tmp_path / "model.safetensors")), pixels(model.patch_embed.img_size[0])
    config = model.pretrained_cfg
    with torch.no_grad():
        tokens = model.forward_features(normalized(values, config["mean"], config["std"]))
        tokens = model.fc_norm(tokens)[:, TIMM[name] :]
    assert tokens.shape[1] == model.patch_embed.num_patches and teacher.dim == 24
    torch.testing.assert_close(teacher(values), tokens.flatten(0, 1))
    again = TimmTeacher(name, checkpoint=str(tmp_path / "model.safetensors"), size=2 * values.shape[2])
    assert len(again(values)) == 4 * len(teacher(values))


def test_a_timm_model_needs_weights_of_its_own(tmp_path):
    with pytest.raises(ValueError, match="vit_tiny_patch16_224 needs weights: checkpoint"):
        TimmTeacher("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"nothing.pth: no such file"):
        TimmTeacher("vit_tiny_patch16_224", checkpoint=str(tmp_path / "nothing.pth"))
    save_file({"cls_token": torch.zeros(1, 1, 192)}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"part.safetensors does not hold the weights of this model.*Missing key"):
        TimmTeacher("vit_tiny_patch16_224", checkpoint=str(tmp_path / "part.safetensors"))
    with pytest.raises(ValueError, match="no model 'vit_nothing'"):
        TimmTeacher("vit_nothing", checkpoint="x")
    with pytest.raises(ValueError, match="resnet18 is no vision transformer"):
        TimmTeacher("resnet18", checkpoint="x")


@pytest.mark.parametrize("whole", [False, True], ids=["image tower", "both towers"])
def test_clip_with_projection_is_the_teacher_of_beit_v2(tmp_path, whole):
    vision = transformers.CLIPVisionConfig(**SIZES, projection_dim=24)
    if whole:
        text = transformers.CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
        config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
        folder = saved(transformers.CLIPModel(config), tmp_path)
    else:
        folder = saved(transformers.CLIPVisionModelWithProjection(vision), tmp_path)
    model, values = transformers.CLIPVisionModelWithProjection.from_pretrained(folder), pixels()
    inner = getattr(model, "vision_model", model)
    with torch.no_grad():
        hidden = inner(normalized(values)).last_hidden_state[:, 1:]
        expected = F.linear(inner.post_layernorm(hidden), model.visual_projection.weight).flatten(0, 1)
        pooled = model(normalized(values)).image_embeds  # what CLIP does with the class token
        assert torch.allclose(
            pooled, F.linear(inner.post_layernorm(inner(normalized(values)).last_hidden_state[:, 0]), model.visual_projection.weight)
        )
    teacher = TransformersTeacher(folder, projection=True)
    assert teacher.dim == 24 and teacher(values).shape == (8, 24)
    torch.testing.assert_close(teacher(values), expected)
    plain = TransformersTeacher(folder)
    with torch.no_grad():
        torch.testing.assert_close(plain(values), inner.post_layernorm(hidden).flatten(0, 1))


FAMILIES = {
    "vit": (transformers.ViTConfig, transformers.ViTModel, {}, 1),
    "dinov2 with registers": (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel, {"num_register_tokens": 3}, 4),
    "beit": (transformers.BeitConfig, transformers.BeitModel, {"use_mean_pooling": False, "use_absolute_position_embeddings": True}, 1),
    "siglip": (transformers.SiglipVisionConfig, transformers.SiglipVisionModel, {}, 0),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_transformers_equal_a_call_by_hand(tmp_path, family):
    config, model, more, prefix = FAMILIES[family]
    folder = saved(model(config(**SIZES, **more)), tmp_path)
    values = pixels()
    with torch.no_grad():
        expected = model.from_pretrained(folder).eval()(normalized(values)).last_hidden_state[:, prefix:]
    assert expected.shape[1] == 4
    torch.testing.assert_close(TransformersTeacher(folder)(values), expected.flatten(0, 1))
    assert len(TransformersTeacher(folder, size=64)(values)) == 32


def test_the_norm_of_beit_with_mean_pooling_is_applied(tmp_path):
    folder = saved(transformers.BeitModel(transformers.BeitConfig(**SIZES, use_mean_pooling=True)), tmp_path)
    model, values = transformers.BeitModel.from_pretrained(folder).eval(), pixels()
    with torch.no_grad():
        expected = model.pooler.layernorm(model(normalized(values)).last_hidden_state[:, 1:])
    torch.testing.assert_close(TransformersTeacher(folder)(values), expected.flatten(0, 1))


def test_a_model_that_drops_patches_is_refused(tmp_path):
    folder = saved(transformers.ViTMAEModel(transformers.ViTMAEConfig(**SIZES)), tmp_path)
    with pytest.raises(ValueError, match="2 tokens for 4 patches"):
        TransformersTeacher(folder)(pixels())


def test_what_a_folder_lacks_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config.json not found. Nothing is downloaded"):
        TransformersTeacher(str(tmp_path / "none"))
    folder = saved(transformers.ViTModel(transformers.ViTConfig(**SIZES)), tmp_path / "vit", statistics=False)
    with pytest.raises(ValueError, match=r"preprocessor_config.json does not say the image_mean"):
        TransformersTeacher(folder)
    with pytest.raises(ValueError, match="'vit' has no visual projection"):
        TransformersTeacher(folder, projection=True, mean=MEAN, std=STD)
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no model that transformers can read"):
        TransformersTeacher(folder, mean=MEAN, std=STD)


@pytest.mark.parametrize("kind", ["vit", "vit_of_someone"])
def test_no_code_of_a_folder_is_run(tmp_path, kind, monkeypatch):
    folder = saved(transformers.ViTModel(transformers.ViTConfig(**SIZES)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": kind, "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import ViTConfig as Config, ViTModel as Model\n"
    (tmp_path / "evil.py").write_text(code)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a user who is asked may say
    if kind == "vit":  # transformers has it: its own code reads the weights
        assert len(TransformersTeacher(folder)(pixels())) == 8
    else:
        with pytest.raises(
            ValueError, match=re.escape(folder) + r" brings code of its own \(auto_map in config.json\), which is never run"
        ):
            TransformersTeacher(folder)
    assert not (tmp_path / "ran").exists()


def test_a_teacher_without_all_its_weights_is_refused(tmp_path):
    folder = saved(transformers.ViTModel(transformers.ViTConfig(**SIZES)), tmp_path)
    whole = load_file(tmp_path / "model.safetensors")

    def keep(tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    keep({name: x for name, x in whole.items() if "layer.1." not in name})
    with pytest.raises(ValueError, match=r"does not hold the weights of a ViTModel: layers.1.\S+ \(missing\), .* and 11 more"):
        TransformersTeacher(folder)
    keep(whole | {"embeddings.cls_token": torch.zeros(1, 1, 31)})
    with pytest.raises(ValueError, match=r"embeddings.cls_token \(\(1, 1, 31\) instead of \(1, 1, 32\)\)"):
        TransformersTeacher(folder)
    keep({name: x for name, x in whole.items() if not name.startswith("pooler.")})
    assert len(TransformersTeacher(folder)(pixels())) == 8  # no feature of a patch depends on the pooler


def test_a_norm_that_would_be_drawn_is_missing_too(tmp_path):
    model = transformers.BeitForMaskedImageModeling(transformers.BeitConfig(**SIZES, use_mean_pooling=True, vocab_size=7))
    with pytest.raises(ValueError, match=r"pooler.layernorm.bias \(missing\)"):
        TransformersTeacher(saved(model, tmp_path))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    theirs = randomized(timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=3, num_heads=4, img_size=32, num_classes=0))
    save_file(theirs.state_dict(), folder / "vit.safetensors")
    model = import_checkpoint(folder / "vit.safetensors", family="vit", layout="timm").parts[""]
    model.save_pretrained(folder / "model")
    return model.eval(), str(folder / "model")


def test_an_encoder_of_our_own_is_a_teacher(own):
    model, folder = own
    values = pixels()
    with torch.no_grad():
        assert torch.equal(ModelTeacher(folder)(values), model.forward_features(values)[:, 1:].flatten(0, 1))
        layer = model.forward_intermediates(values, indices=[1], output_fmt="NLC", intermediates_only=True)[0]
        assert torch.equal(ModelTeacher(folder, layer=1)(values), layer.flatten(0, 1))
        assert torch.equal(ModelTeacher(folder, layer=-2)(values), layer.flatten(0, 1))
        larger = at_image_size(model, 64)
        expected = F.interpolate(values.float(), (64, 64), mode="bicubic", antialias=True).clamp(0, 255)
        assert torch.equal(ModelTeacher(folder, size=64)(values), larger.forward_features(expected)[:, 1:].flatten(0, 1))


def test_images_are_resized_scaled_by_their_range_and_shown_in_all_colours(own):
    _, folder = own
    teacher, dark = ModelTeacher(folder, size=32), pixels() % 2
    both = torch.cat([dark, pixels()])
    torch.testing.assert_close(teacher(both)[:8], teacher(dark))
    grey = pixels(channels=1)
    assert torch.equal(teacher(grey), teacher(grey.expand(-1, 3, -1, -1)))
    assert len(teacher(pixels(48))) == 8
    with pytest.raises(ValueError, match="images of 3 channels, got 2"):
        teacher(pixels(channels=2))
    assert not teacher(dark).requires_grad
