"""MAE whole, against transformers: the same weights and masks give the same loss and the same gradients."""

from functools import partial

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from multimodal.batch import Item, Sample, collate
from multimodal.masking import Drop, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Decoder, SinCosPosition2d
from multimodal.objectives import TokenValues
from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.formats import layers
from multimodal.pretrained.keymap import KeyMap, pair, shaped
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import PictureTransform, encode
from tests.pretrained.vision_parity import IMAGENET_MEAN, IMAGENET_STD, imagenet, images, randomized

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 8, "image_size": 32}
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 96}
LAYER = layers.LayerNames(
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    proj="attention.o_proj",
    norm1="layernorm_before",
    norm2="layernorm_after",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)
COLOURS = {"mean": IMAGENET_MEAN.flatten().tolist(), "std": IMAGENET_STD.flatten().tolist()}


def reference_of(norm_pix: bool) -> transformers.ViTMAEForPreTraining:
    config = transformers.ViTMAEConfig(**SIZES, **DECODER, layer_norm_eps=1e-6, mask_ratio=0.75, norm_pix_loss=norm_pix)
    model = randomized(transformers.ViTMAEForPreTraining(config))
    positions = build_2d_sinusoidal_position_embedding(4, 4, 24, cls_token=True)
    model.decoder.decoder_pos_embed.data.copy_(torch.cat([positions[:, 12:], positions[:, :12]], 1))  # as it is drawn there: columns first
    return model


def decoder_keymap() -> KeyMap:
    """Where the weights of decoder and head are; their values of a patch are (row, column, colour), ours (colour, row, column)."""
    entries = layers.separate_layers(2, "decoder.layers.blocks.{}", "decoder.decoder_layers.{}", LAYER, "all")
    entries += pair("decoder.proj", "decoder.decoder_embed") + pair("decoder.layers.norm", "decoder.decoder_norm")
    entries += pair("head.proj", "decoder.decoder_pred")
    return KeyMap([*entries, shaped("decoder.mask_token", "decoder.mask_token", (24,), (1, 1, 24))])


def colour_first(x: Tensor) -> Tensor:
    return x.unflatten(0, (8, 8, 3)).movedim(2, 0).flatten(0, 2)


def model_of(reference: transformers.ViTMAEForPreTraining, folder, norm_pix: bool) -> MaskedPretraining:
    reference.save_pretrained(folder)
    trained = import_checkpoint(folder).parts[""]
    modality = partial(
        Modality,
        transform=PictureTransform(),
        embed=trained.embeds["image"],
        masking=RandomMasking(0.75),
        corruption=Drop(),
        target=TokenValues(norm_pix, **COLOURS),
        decoder=partial(Decoder, width=24, depth=2, num_heads=2, position=partial(SinCosPosition2d, column_first=True)),
    )
    model = MaskedPretraining(trained.encoder, {"image": modality}).eval()
    ours = decoder_keymap().to_ours(reference.state_dict())
    for name in ("head.proj.weight", "head.proj.bias"):
        ours[name] = colour_first(ours[name])
    rest = model.modalities["image"].load_state_dict(ours, strict=False)
    assert not rest.unexpected_keys and all(name.startswith(("embed.", "target.")) for name in rest.missing_keys)
    return model


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_and_gradients_are_those_of_transformers(tmp_path, norm_pix):
    reference, pixels = reference_of(norm_pix), images(32, count=3)
    model = model_of(reference, tmp_path, norm_pix)
    encoded = encode(model, collate([Sample(f"{i}", {"image": Item(x)}, seed=40 + i) for i, x in enumerate(pixels)]))
    masked = encoded.views["image"].view.masked.view(3, 16)
    assert masked.sum(1).tolist() == [12, 12, 12]
    noise = masked + torch.linspace(0, 0.5, 16)  # visible patches first, in their order
    told = reference(imagenet(pixels), noise=noise)
    assert torch.equal(told.mask.bool(), masked)
    term = model.objectives[0](encoded)["image"]
    loss = term.loss / term.count
    assert loss.item() == pytest.approx(told.loss.item(), rel=1e-5) and loss > 0.5
    torch.testing.assert_close(term.ids.view(3, 12, -1), patches_of(told.logits, masked), atol=1e-4, rtol=1e-4)
    loss.backward()
    told.loss.backward()
    modality, decoder = model.modalities["image"], reference.decoder
    pairs = {"decoder.proj": decoder.decoder_embed, "decoder.layers.norm": decoder.decoder_norm, "head.proj": decoder.decoder_pred}
    for name, theirs in pairs.items():
        wanted = colour_first(theirs.weight.grad) if name == "head.proj" else theirs.weight.grad
        torch.testing.assert_close(modality.get_submodule(name).weight.grad, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(modality.decoder.mask_token.grad, decoder.mask_token.grad[0, 0], atol=1e-5, rtol=1e-4)
    own = model.encoder.special.tokens.grad[0]
    torch.testing.assert_close(own, reference.vit.embeddings.cls_token.grad[0, 0], atol=1e-5, rtol=1e-4)


def patches_of(logits: Tensor, masked: Tensor) -> Tensor:
    """Their predictions of hidden patches, laid out as ours."""
    return logits.unflatten(2, (8, 8, 3)).movedim(4, 2).flatten(2)[masked].view(len(masked), -1, logits.shape[-1])
