"""Models by path or name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from torch import nn

from multimodal.nn import Encoder, TokenHead
from multimodal.pretrained import folder as saved
from multimodal.pretrained.encoder_options import with_options
from multimodal.pretrained.importing import import_checkpoint
from multimodal.protocols import Embed

HUB = "hf-hub:"


def from_pretrained(path_or_name: str | Path) -> Any:
    """Return a model or tokenizer: one that was saved here, or a foreign checkpoint, imported in memory.

    Args:
        path_or_name: of a folder that ``save_pretrained`` or ``multimodal import`` wrote; of a foreign weight file or folder; or
            ``hf-hub:OWNER/NAME``, which alone is downloaded, through huggingface_hub.

    Returns:
        A ``PretrainedModel``, or a tokenizer where the folder or file holds one.

    Raises:
        ValueError: nothing is there, or it cannot be read; or the checkpoint holds several models (import it into a folder, and load one).
    """
    path = fetch(path_or_name)
    if path.is_dir() and saved.is_saved_model(path):
        return saved.load(path)
    if path.is_dir() and _is_tokenizer(path):
        from multimodal.tokenizers.pretrained import load_tokenizer

        return load_tokenizer(str(path))
    parts = import_checkpoint(path).parts
    if len(parts) > 1:
        raise ValueError(f"{path} holds several models ({', '.join(parts)}): run `multimodal import {path} --to DIR` and load one of them.")
    return next(iter(parts.values()))


def fetch(path_or_name: str | Path) -> Path:
    """Return where something is on this machine; only a name with ``hf-hub:`` is downloaded.

    Raises:
        ValueError: it cannot be downloaded.
    """
    if not str(path_or_name).startswith(HUB):
        return Path(path_or_name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = str(path_or_name).removeprefix(HUB)
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.bin", "*.txt", "*.model"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"{path_or_name} cannot be downloaded: {str(error).splitlines()[0]}") from error


def load_encoder(
    folder: str,
    norm_at: Literal["output", "input", "none"] | None = None,
    drop_path: float | None = None,
    share_bias: bool | None = None,
    checkpoint_activations: bool | None = None,
    dropout: float | None = None,
) -> Encoder:
    """Return the encoder of a saved model, to be trained on; configs name this as ``class_path``. An option of None: as it was saved.

    BEiT pretrains with a last norm and one position bias for all layers. Its classifiers norm the mean of the tokens instead, and each
    layer has a bias of its own, which begins as the shared one: ``norm_at="none", share_bias=False``.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        norm_at: "none" leaves out the norm at the input or output that the encoder has.
        drop_path: stochastic-depth rate of the last layer, in [0, 1).
        share_bias: False gives every layer a copy of the shared position bias.
        checkpoint_activations: whether the backward pass computes a layer's activations again, for less memory.
        dropout: share of the attention weights and of the outputs of the MLP dropped in training, in [0, 1). BERT, MidiBERT: 0.1. Imported
            models have none.

    Raises:
        ValueError: the folder holds no such model, or its encoder cannot have such an option.
    """
    model = saved.load(folder)
    options = {"norm_at": norm_at, "drop_path": drop_path, "share_bias": share_bias, "checkpoint_activations": checkpoint_activations}
    encoder = with_options(model.encoder, dropout, **options).train()
    encoder.origin = model.settings.origin  # type: ignore[assignment]  # licence and source stay with what is made of the weights
    return encoder


def load_embed(folder: str, modality: str) -> Embed:
    """Return the embedding of a modality of a saved model, to be trained on; configs name this as ``class_path``.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        modality: its name in that model.

    Raises:
        ValueError: the folder holds no such model or modality.
    """
    embed = saved.load_part(folder, "embeds", modality)
    assert isinstance(embed, Embed)
    return embed


def load_head(folder: str, head: str) -> nn.Module:
    """Return a head of a saved model, to be trained on; configs name this as ``class_path``.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        head: its name in that model.

    Raises:
        ValueError: the folder holds no such model or head.
    """
    return saved.load_part(folder, "heads", head)


def load_token_head(folder: str, head: str = "tokens") -> TokenHead:
    """Return the head of a saved model that predicts hidden tokens, to go on with pretraining; configs name this as ``class_path``.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        head: its name in that model.

    Raises:
        ValueError: the folder holds no such model or head, or the head predicts something else.
    """
    found = saved.load_part(folder, "heads", head)
    if not isinstance(found, TokenHead):
        raise ValueError(f"head {head!r} of {folder} is a {type(found).__name__}, which predicts no hidden tokens.")
    return found


def _is_tokenizer(path: Path) -> bool:
    try:
        return {"class", "fingerprint"} <= json.loads((path / saved.CONFIG_NAME).read_text()).keys()
    except (OSError, ValueError, AttributeError):
        return False
