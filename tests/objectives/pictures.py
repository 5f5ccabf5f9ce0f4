"""Small pictures, and models that predict what is hidden of them; what the tests of objectives share. Not a test by itself."""

from functools import partial

import lightning as L
import torch
from torch import Tensor

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.masking import Drop, MixedMasking, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Attention, Decoder, Encoder, RelativeBias2d
from multimodal.objectives import EncodedBatch, TokenValues
from multimodal.protocols import Tokenizer, Transform
from multimodal.tokenizers.image import PatchEmbed
from multimodal.training import MaskedPretraining

VOCABULARY = 7
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class PictureTransform(Transform):
    extensions = ("img",)

    def decode(self, data):
        return data

    def __call__(self, decoded, generator, train):
        return Item(decoded)


class Brightness(Tokenizer):
    """The id of a patch of 4 x 4 is how bright it is."""

    vocab_sizes = (VOCABULARY,)

    def encode(self, values: Tensor) -> Tensor:
        return (torch.nn.functional.avg_pool2d(values.float().mean(1, keepdim=True), 4).flatten() * VOCABULARY / 256).long()

    def fingerprint(self) -> str:
        return "brightness"


def picture_batch(count: int = 3, channels: int = 1, side: int = 16, first: int = 0) -> Batch:
    """Pictures of 16 patches, each a function of its number alone."""
    return collate([picture_sample(number, channels, side) for number in range(first, first + count)])


def picture_sample(number: int, channels: int = 1, side: int = 16) -> Sample:
    generator = torch.Generator().manual_seed(number)
    values = torch.randint(256, (channels, side // 4, side // 4), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    values = (values + torch.randint(-20, 20, (channels, side, side), generator=generator)).clamp(0, 255).to(torch.uint8)
    return Sample(f"picture{number}", {"picture": Item(values)}, seed=500 + number)


def beit_modality(**settings) -> partial:
    """Pictures whose hidden patches show the mask and are predicted as ids; positions are the encoder's affair."""
    parts = {
        "embed": partial(PatchEmbed, patch_size=4, channels=1, position=None),
        "tokenizer": Brightness(),
        "masking": RandomMasking(0.4),
    }
    return partial(Modality, transform=PictureTransform(), **{**parts, **settings})


def mae_modality(**settings) -> partial:
    """Pictures whose hidden patches are dropped, and predicted by a decoder."""
    parts = {
        "embed": partial(PatchEmbed, patch_size=4, channels=1),
        "target": TokenValues(),
        "masking": RandomMasking(0.75),
        "corruption": Drop(),
        "decoder": partial(Decoder, width=8, depth=1, num_heads=2),
    }
    return partial(Modality, transform=PictureTransform(), **{**parts, **settings})


def mixed_modality(**settings) -> partial:
    return mae_modality(masking=MixedMasking(2), **settings)


def beit_encoder(**settings) -> Encoder:
    sizes = {"dim": 16, "depth": 4, "num_heads": 2, "class_token": True, "layer_scale": 0.1, "norm_at": "output"}
    parts = {"attention": partial(Attention, bias="query_value"), "bias": partial(RelativeBias2d, window=(4, 4))}
    return Encoder(**{**sizes, **parts, **settings})


def mae_encoder(**settings) -> Encoder:
    return Encoder(**{"dim": 16, "depth": 3, "num_heads": 2, "class_token": True, **settings})


def build(encoder: Encoder, modality: partial, objectives: list | None = None, **settings) -> MaskedPretraining:
    return MaskedPretraining(encoder, {"picture": modality}, objectives, **settings)


def shaken(module: torch.nn.Module, seed: int = 0, std: float = 0.3) -> torch.nn.Module:
    """Return the module with weights, biases, norms and tables that make mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * std)
    return module


def encode(model: MaskedPretraining, batch: Batch) -> EncodedBatch:
    encoded = model(batch)
    assert encoded is not None
    return encoded


def fit(model: MaskedPretraining, batches: list[Batch], **settings) -> list[float]:
    """Train, and return the loss of each batch as a sum over its predictions."""
    losses: list[float] = []
    model.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
    L.Trainer(accelerator="cpu", **{"max_epochs": 1, **QUIET, **settings}).fit(model, loader(batches))
    return losses


def loader(batches: list[Batch]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(batches, batch_size=None)
