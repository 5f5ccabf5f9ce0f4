"""MAE: the encoder's outputs equal those of transformers and timm; the decoder is left behind, and the licence is told."""

import pytest
import timm
import torch
import transformers
from torch import Tensor

from multimodal.nn import SinCosPosition2d
from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.registry import format_of
from tests.pretrained.vision_parity import (
    check_close,
    check_layers,
    check_same,
    imagenet,
    images,
    imported,
    load_timm,
    randomized,
    save_timm,
    tensors_of,
    write,
)

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 16, "mask_ratio": 0.0}
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 20}


def reference_of(name: str, size: int) -> transformers.PreTrainedModel:
    return randomized(getattr(transformers, name)(transformers.ViTMAEConfig(**TINY, **DECODER, image_size=size)))


def in_order(size: int, count: int = 2) -> Tensor:
    """Noise that keeps all patches, in their order."""
    return torch.linspace(0, 1, (size // 16) ** 2).repeat(count, 1)


def original(size: int = 32) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """The encoder as timm computes it, and a whole file of the pretraining."""
    settings = {"embed_dim": 32, "depth": 3, "num_heads": 1, "img_size": size, "num_classes": 0}
    encoder = randomized(timm.create_model("vit_base_patch16_224", **settings))
    extra = {
        "decoder_embed.weight": (24, 32),
        "mask_token": (1, 1, 24),
        "decoder_pos_embed": (1, 5, 24),
        "decoder_blocks.0.attn.qkv.weight": (72, 24),
    }
    extra |= {"decoder_norm.weight": (24,), "decoder_pred.weight": (768, 24), "decoder_pred.bias": (768,)}
    return encoder, {**encoder.state_dict(), **{name: torch.zeros(shape) for name, shape in extra.items()}}


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("name", "prefix"), [("ViTMAEForPreTraining", "vit."), ("ViTMAEModel", "")])
def test_encoders_of_transformers_have_equal_layers(tmp_path, size, name, prefix):
    reference, pixels = reference_of(name, size), images(size)
    reference.save_pretrained(tmp_path)
    result = import_checkpoint(tmp_path)
    model, encoder = result.parts[""], reference.vit if prefix else reference
    with torch.no_grad():
        expected = encoder(imagenet(pixels), noise=in_order(size), output_hidden_states=True)
        check_layers(model, pixels, list(expected.hidden_states[1:]))
        check_close(model.forward_features(pixels), expected.last_hidden_state)
    assert result.report.origin.family == "mae" and "non-commercial" in result.report.origin.licence
    assert all(name.startswith("decoder.") for name, _ in result.report.ignored)
    written = write(model, "transformers", tmp_path / "back")
    wanted = {name.removeprefix(prefix): x for name, x in tensors_of(tmp_path).items() if not name.startswith("decoder.")}
    check_same(tensors_of(written), wanted)
    again = transformers.ViTMAEModel.from_pretrained(written).eval()
    again.config.mask_ratio = 0.0
    with torch.no_grad():
        assert torch.equal(again(imagenet(pixels), noise=in_order(size)).last_hidden_state, expected.last_hidden_state)


def test_a_state_dict_of_transformers_5_is_a_renaming(tmp_path):
    reference, pixels = reference_of("ViTMAEForPreTraining", 32), images()
    reference.save_pretrained(tmp_path / "file")
    torch.save(reference.state_dict(), tmp_path / "state.pth")
    (tmp_path / "config.json").write_bytes((tmp_path / "file" / "config.json").read_bytes())
    model = imported(tmp_path / "state.pth")
    assert (model.settings.origin.family, model.settings.origin.layout) == ("mae", "transformers-5")
    assert torch.equal(model(pixels), imported(tmp_path / "file")(pixels))
    wanted = {name.removeprefix("vit."): x for name, x in reference.state_dict().items() if not name.startswith("decoder.")}
    check_same(format_of("mae", "transformers-5").write(model).tensors, wanted)


@pytest.mark.parametrize("size", [32, 64])
def test_whole_files_of_the_original(tmp_path, size):
    (encoder, tensors), pixels = original(size), images(size)
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "mae.pth")
    result = import_checkpoint(tmp_path / "mae.pth")
    model = result.parts[""]
    with torch.no_grad():
        _, hidden = encoder.forward_intermediates(imagenet(pixels), output_fmt="NLC", return_prefix_tokens=True)
        check_layers(model, pixels, [torch.cat([special, tokens], 1) for tokens, special in hidden])
        check_close(model(pixels), encoder.forward_features(imagenet(pixels)))
    assert {name for name, _ in result.report.ignored} == tensors.keys() - encoder.state_dict().keys()
    check_same(format_of("mae", "mae").write(model).tensors, encoder.state_dict())
    position = model.embeds["image"].position
    assert not position.table.requires_grad  # MAE's positions are fixed
    with torch.no_grad():
        assert torch.equal(load_timm(write(model, "timm", tmp_path / "timm", "vit"))(imagenet(pixels)), encoder(imagenet(pixels)))


def test_the_first_positions_are_those_of_sines_and_cosines():
    model = transformers.ViTMAEModel(transformers.ViTMAEConfig(**TINY, image_size=64))
    model.embeddings.patch_embeddings.projection._is_hf_initialized = False
    model.embeddings.initialize_weights()
    places = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    own = SinCosPosition2d(32, column_first=True)(places)
    check_close(own, model.embeddings.position_embeddings[0, 1:])


def test_files_of_the_encoder_alone_may_be_of_two_families(tmp_path):
    (encoder, _), pixels = original(), images()
    torch.save({"model": encoder.state_dict()}, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match=r"may be mae \(mae\), vit \(timm\): name the family"):
        import_checkpoint(tmp_path / "mae.pth")
    with torch.no_grad():
        check_close(imported(tmp_path / "mae.pth", "mae")(pixels), encoder.forward_features(imagenet(pixels)))
        check_close(imported(tmp_path / "mae.pth", "vit", statistics="imagenet")(pixels), encoder.forward_features(imagenet(pixels)))


def test_timm_tells_that_an_encoder_is_of_mae(tmp_path):
    encoder, _ = original()
    encoder.pretrained_cfg = {**encoder.pretrained_cfg, "tag": "mae"}
    assert imported(save_timm(encoder, tmp_path / "hub")).settings.origin.family == "mae"


def test_a_base_encoder_and_decoder_of_the_published_sizes(tmp_path):
    with torch.device("meta"):
        state = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig()).state_dict()
    torch.save({name: torch.zeros(x.shape) for name, x in state.items()}, tmp_path / "state.pth")
    result = import_checkpoint(tmp_path / "state.pth")
    model = result.parts[""]
    assert (model.encoder.depth, model.encoder.dim, model.encoder.num_heads) == (12, 768, 12)
    assert model.embeds["image"].position.size == (14, 14)
    assert result.report.num_read - result.report.num_used == sum(name.startswith("decoder.") for name in state)
