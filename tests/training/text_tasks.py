"""What the tests of downstream tasks of texts share. Not a test by itself."""

from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from multimodal.batch import Sample, collate
from multimodal.modality import Input
from multimodal.nn import Encoder, LearnedPosition
from multimodal.tokenizers.text import TextEmbed
from tests.pretrained.text_parity import randomized
from tests.pretrained.vision_parity import imported

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def read(transform, data: bytes, key: str = "s", train: bool = False) -> Sample:
    """Return the sample of one file, whose labels stand in it too where the transform reads them there."""
    second = data if set(transform.label_extensions) <= set(transform.extensions) else None
    labels = None if second is None else transform.decode_labels(second)
    return Sample(key, {"text": transform.labelled(transform.decode(data), labels, torch.Generator().manual_seed(0), train)})


def loader(batches):
    return torch.utils.data.DataLoader([collate(samples) for samples in batches], batch_size=None)


def small(transform, vocab: int) -> tuple[Encoder, dict]:
    """Return a small encoder and its modality."""
    torch.manual_seed(0)
    embed = partial(TextEmbed, vocab_size=vocab, num_types=2, position=partial(LearnedPosition, size=[64]))
    return Encoder(dim=32, depth=2, num_heads=2), {"text": partial(Input, transform=transform, embed=embed)}


def published(folder, kind: type[nn.Module], transform, vocab: int, **more) -> tuple[nn.Module, Encoder, dict]:
    """Return a random model of transformers, and its encoder and modality imported from its files."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
    reference = randomized(kind(transformers.BertConfig(vocab_size=vocab, attn_implementation="eager", **sizes, **more)))
    reference.save_pretrained(folder)
    model = imported(folder)
    return reference, model.encoder, {"text": partial(Input, transform=transform, embed=model.embeds["text"])}
