"""VideoMAE whole, against transformers: the same weights and masks give the same loss and the same gradients."""

from functools import partial

import pytest
import torch
import transformers
from torch import Tensor

from multimodal.batch import Item, Sample, collate
from multimodal.masking import Drop, TubeMasking
from multimodal.modality import Modality
from multimodal.nn import Attention, Decoder, InterleavedSinCosPosition
from multimodal.objectives import TokenValues
from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.formats import layers
from multimodal.pretrained.formats.vision import TRANSFORMERS_LAYER
from multimodal.pretrained.keymap import KeyMap, pair, shaped, stacked
from multimodal.tokenizers.video import TubeletEmbed, VideoTransform
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import encode
from tests.pretrained.vision_parity import imagenet, randomized

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 8, "image_size": 32}
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 96}
GRID = (2, 4, 4)  # of 4 frames of 32 x 32


def reference_of(normalized: bool) -> transformers.VideoMAEForPreTraining:
    config = transformers.VideoMAEConfig(**SIZES, **DECODER, num_frames=4, layer_norm_eps=1e-6, norm_pix_loss=normalized)
    model = randomized(transformers.VideoMAEForPreTraining(config))
    model.decoder.norm.eps = 1e-6  # as in the original; transformers leaves it at torch's
    return model


def decoder_keymap() -> KeyMap:
    """Where the weights of decoder and head are; their values of a cube are (frame, row, column, colour), ours begin with the colour."""
    entries = layers.separate_layers(2, "decoder.layers.blocks.{}", "decoder.decoder_layers.{}", TRANSFORMERS_LAYER, "none")
    for i in range(2):
        biases = [f"decoder.decoder_layers.{i}.attention.attention.{name}.bias" for name in ("query", "value")]
        entries.append(stacked(f"decoder.layers.blocks.{i}.attn.query_value_bias", biases))
    entries += pair("decoder.layers.norm", "decoder.norm") + pair("head.proj", "decoder.head")
    entries += pair("decoder.proj", "encoder_to_decoder")[:1]
    return KeyMap([*entries, shaped("decoder.mask_token", "mask_token", (24,), (1, 1, 24))])


def colour_first(x: Tensor) -> Tensor:
    return x.unflatten(0, (2, 8, 8, 3)).movedim(3, 0).flatten(0, 3)


def model_of(reference: transformers.VideoMAEForPreTraining, folder, normalized: bool) -> MaskedPretraining:
    reference.save_pretrained(folder)
    trained = import_checkpoint(folder).parts[""]
    modality = partial(
        Modality,
        transform=VideoTransform(32, 4),
        embed=trained.embeds["video"],
        masking=TubeMasking(0.75),
        corruption=Drop(),
        target=target_of(normalized),
        decoder=partial(
            Decoder,
            width=24,
            depth=2,
            num_heads=2,
            attention=partial(Attention, bias="query_value"),
            position=partial(InterleavedSinCosPosition, size=GRID),
        ),
    )
    model = MaskedPretraining(trained.encoder, {"video": modality}).eval()
    ours = decoder_keymap().to_ours(reference.state_dict())
    for name in ("head.proj.weight", "head.proj.bias"):
        ours[name] = colour_first(ours[name])
    ours["decoder.proj.bias"] = torch.zeros(24)  # theirs has none
    rest = model.modalities["video"].load_state_dict(ours, strict=False)
    assert not rest.unexpected_keys and all(name.startswith(("embed.", "target.")) for name in rest.missing_keys)
    return model


def target_of(normalized: bool) -> TokenValues:
    """What they predict without normalisation are values from 0 to 1."""
    return TokenValues(normalized, channels=3, eps_to="deviation")


@pytest.mark.parametrize("normalized", [True, False])
def test_loss_and_gradients_are_those_of_transformers(tmp_path, normalized):
    reference = reference_of(normalized)
    pixels = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pixels[0, :2, :, :8, :8] = 77  # a cube of one value: what is added to its deviation decides
    model = model_of(reference, tmp_path, normalized)
    encoded = encode(model, collate([Sample(f"{i}", {"video": Item(x)}, seed=40 + i) for i, x in enumerate(pixels)]))
    masked = encoded.views["video"].view.masked.view(3, 32)
    assert masked.sum(1).tolist() == [24] * 3 and torch.equal(masked[:, :16], masked[:, 16:])
    told = reference(imagenet(pixels), bool_masked_pos=masked)
    term = model.objectives[0](encoded)["video"]
    loss = term.loss / term.count
    assert loss.item() == pytest.approx(told.loss.item(), rel=1e-5) and loss > 0.5
    theirs = told.logits.unflatten(2, (2, 8, 8, 3)).movedim(5, 2).flatten(2)
    torch.testing.assert_close(term.ids.view(3, 24, -1), theirs, atol=1e-4, rtol=1e-4)
    loss.backward()
    told.loss.backward()
    modality = model.modalities["video"]
    torch.testing.assert_close(modality.head.proj.weight.grad, colour_first(reference.decoder.head.weight.grad), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(modality.decoder.proj.weight.grad, reference.encoder_to_decoder.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(modality.decoder.mask_token.grad, reference.mask_token.grad[0, 0], atol=1e-5, rtol=1e-4)
    own, other = modality.embed.proj.weight.grad, reference.videomae.embeddings.patch_embeddings.projection.weight.grad
    torch.testing.assert_close(own, other.flatten(1), atol=1e-5, rtol=1e-4)


def test_the_masking_of_the_base_model_leaves_160_of_1568_cubes():
    tokens = TubeletEmbed(16).tokens(torch.zeros(2, 16, 3, 224, 224, dtype=torch.uint8))
    masked = TubeMasking(0.9)(tokens, torch.tensor([1, 2])).view(2, 8, 196)
    assert (~masked).flatten(1).sum(1).tolist() == [160, 160] and masked.sum(2).unique().tolist() == [176]
    assert (masked == masked[:, :1]).all() and not torch.equal(masked[0], masked[1])
