"""VideoMAE: outputs equal those of transformers, layer by layer; whole files of the pretraining, classifiers, and back."""

import pytest
import torch
import transformers
from torch import Tensor

from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.registry import format_of
from tests.pretrained.vision_parity import check_close, check_layers, check_same, imagenet, imported, randomized, tensors_of, write

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 16}
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 20}
ORIGINAL = {"attn.q_bias": "q_bias", "attn.v_bias": "v_bias", "attn.proj.": "output.dense."}


def reference_of(name: str, size: int = 32, frames: int = 4, **settings) -> transformers.PreTrainedModel:
    config = transformers.VideoMAEConfig(**TINY, **DECODER, image_size=size, num_frames=frames, num_labels=5, **settings)
    return randomized(getattr(transformers, name)(config))


def clips(size: int = 32, frames: int = 4) -> Tensor:
    return torch.randint(0, 256, (2, frames, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def as_original(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Rename what transformers has saved as the original names it, with query, key and value in one."""
    renamed, layer = (
        {},
        {"layernorm_before": "norm1", "layernorm_after": "norm2", "intermediate.dense": "mlp.fc1", "attention.output.dense": "attn.proj"},
    )
    for name, x in tensors.items():
        for old, new in (
            ("videomae.", prefix),
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("encoder.layer.", "blocks."),
        ):
            name = name.replace(old, new, 1) if old != "encoder.layer." else name.replace("encoder.layer.", "blocks.")
        for old, new in (
            *layer.items(),
            ("output.dense", "mlp.fc2"),
            ("attention.attention", "attn"),
            ("layernorm", "norm"),
            ("classifier", "head"),
        ):
            name = name.replace(old, new)
        renamed[name] = x
    for name in [name for name in renamed if name.endswith("attn.query.weight")]:
        stem = name.removesuffix("query.weight")
        renamed[stem + "qkv.weight"] = torch.cat([renamed.pop(f"{stem}{part}.weight") for part in ("query", "key", "value")])
    return renamed


@pytest.mark.parametrize(("size", "frames"), [(32, 4), (64, 8)])
@pytest.mark.parametrize("mean_pooling", [True, False])
def test_classifiers_of_transformers_have_equal_layers_and_logits(tmp_path, size, frames, mean_pooling):
    reference, pixels = reference_of("VideoMAEForVideoClassification", size, frames, use_mean_pooling=mean_pooling), clips(size, frames)
    reference.save_pretrained(tmp_path)
    model = imported(tmp_path)
    with torch.no_grad():
        expected = reference(imagenet(pixels), output_hidden_states=True)
        check_layers(model, pixels, list(expected.hidden_states[1:]))
        check_close(model(pixels), expected.logits)
    assert model.transform().example is not None and model.settings.transforms["video"]["init_args"] == {"size": size, "num_frames": frames}
    written = write(model, "transformers", tmp_path / "back")
    check_same(tensors_of(written), tensors_of(tmp_path))
    again = transformers.VideoMAEForVideoClassification.from_pretrained(written).eval()
    with torch.no_grad():
        assert torch.equal(again(imagenet(pixels)).logits, expected.logits)


@pytest.mark.parametrize("mean_pooling", [True, False])
def test_encoders_of_the_pretraining_see_visible_cubes(tmp_path, mean_pooling):
    reference, pixels = reference_of("VideoMAEForPreTraining", use_mean_pooling=mean_pooling), clips()
    reference.save_pretrained(tmp_path)
    result = import_checkpoint(tmp_path)
    model, visible = result.parts[""], torch.tensor([True, False, False, True, False, True, True, False]).repeat(2, 1)
    with torch.no_grad():
        expected = reference.videomae(imagenet(pixels), bool_masked_pos=~visible).last_hidden_state
        embed = model.embeds["video"]
        tokens = embed.tokens(pixels)
        kept = visible.flatten()
        own = model.encoder(embed(tokens)[kept], tokens.item[kept], tokens.coordinates[kept]).tokens
    check_close(own.unflatten(0, (2, 4)), expected)
    assert all(name.startswith(("decoder.", "encoder_to_decoder.", "mask_token")) for name, _ in result.report.ignored)
    assert "non-commercial" in result.report.origin.licence
    wanted = {name.removeprefix("videomae."): x for name, x in tensors_of(tmp_path).items() if name.startswith("videomae.")}
    check_same(tensors_of(write(model, "transformers", tmp_path / "back")), wanted)


@pytest.mark.parametrize("name", ["VideoMAEForVideoClassification", "VideoMAEModel"])
def test_a_state_dict_of_transformers_5_is_a_renaming(tmp_path, name):
    reference, pixels = reference_of(name), clips()
    reference.save_pretrained(tmp_path / "file")
    torch.save(reference.state_dict(), tmp_path / "state.pth")
    (tmp_path / "config.json").write_bytes((tmp_path / "file" / "config.json").read_bytes())
    model = imported(tmp_path / "state.pth")
    assert model.settings.origin.layout == "transformers-5"
    assert torch.equal(model(pixels), imported(tmp_path / "file")(pixels))
    check_same(format_of("videomae", "transformers-5").write(model).tensors, reference.state_dict())


@pytest.mark.parametrize(("name", "prefix"), [("VideoMAEForVideoClassification", ""), ("VideoMAEForPreTraining", "encoder.")])
def test_files_of_the_original(tmp_path, name, prefix):
    reference, pixels = reference_of(name, use_mean_pooling=not prefix, layer_norm_eps=1e-6), clips()
    reference.save_pretrained(tmp_path / "hub")
    own = {name: x for name, x in tensors_of(tmp_path / "hub").items() if not name.startswith("decoder")}
    tensors = as_original(own, prefix)
    torch.save({"model": tensors}, tmp_path / "videomae.pth")
    result = import_checkpoint(tmp_path / "videomae.pth", options=_options(frames="4", size="32", num_heads=4))
    model = result.parts[""]
    assert model.settings.origin.layout == "videomae"
    with torch.no_grad():
        expected = reference.videomae(imagenet(pixels)).last_hidden_state if prefix else reference(imagenet(pixels)).logits
        check_close(model(pixels), expected)
    check_same(format_of("videomae", "videomae").write(model).tensors, tensors, ("mask_token", "encoder_to_decoder"))


def _options(num_heads: int | None = None, **settings: str):
    from multimodal.pretrained.format import ImportOptions

    return ImportOptions(num_heads, settings)


def test_the_published_file_of_base_size(tmp_path):
    def block(dim: int) -> dict[str, tuple[int, ...]]:
        linear = {
            "attn.qkv.weight": (3 * dim, dim),
            "attn.proj.weight": (dim, dim),
            "mlp.fc1.weight": (4 * dim, dim),
            "mlp.fc2.weight": (dim, 4 * dim),
        }
        vectors = (
            "attn.q_bias",
            "attn.v_bias",
            "attn.proj.bias",
            "mlp.fc2.bias",
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
        )
        return {**linear, **dict.fromkeys(vectors, (dim,)), "mlp.fc1.bias": (4 * dim,)}

    shapes = {f"encoder.blocks.{i}.{name}": shape for i in range(12) for name, shape in block(768).items()}
    shapes |= {f"decoder.blocks.{i}.{name}": shape for i in range(4) for name, shape in block(384).items()}
    shapes |= {"encoder.patch_embed.proj.weight": (768, 3, 2, 16, 16), "encoder.patch_embed.proj.bias": (768,), "mask_token": (1, 1, 384)}
    shapes |= {"encoder.norm.weight": (768,), "encoder.norm.bias": (768,), "encoder_to_decoder.weight": (384, 768)}
    shapes |= {"decoder.norm.weight": (384,), "decoder.norm.bias": (384,), "decoder.head.weight": (1536, 384), "decoder.head.bias": (1536,)}
    assert len(shapes) == 218
    torch.save({"model": {name: torch.zeros(shape) for name, shape in shapes.items()}}, tmp_path / "videomae.pth")
    result = import_checkpoint(tmp_path / "videomae.pth")
    model = result.parts[""]
    assert (result.report.num_read, len(result.report.ignored)) == (218, 218 - 12 * 13 - 4)
    tokens = model.embeds["video"].tokens(torch.zeros(1, 16, 3, 224, 224, dtype=torch.uint8))
    assert tokens.grid == (8, 14, 14) and len(tokens.inputs) == 1568


@pytest.mark.parametrize(
    ("settings", "message"), [({"frames": "none"}, "must be positive numbers, got 'none'"), ({"length": "3"}, "unknown settings")]
)
def test_settings_are_checked(tmp_path, settings, message):
    reference_of("VideoMAEModel").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path, options=_options(**settings))
