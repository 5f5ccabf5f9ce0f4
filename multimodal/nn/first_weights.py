"""How weights are drawn before they have learned anything."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

STD = 0.02
NO_BOUND = 2.0
"""A hundred deviations: BERT and ViT name this bound, which cuts nothing off."""

FirstWeights = Literal["normal", "clipped_normal", "xavier_uniform"]
"""Of linear layers; biases are zero.

- "normal": deviation 0.02 (BERT, ViT, fine-tuning of BEiT).
- "clipped_normal": the same, drawn again beyond one deviation, which leaves one of 0.0108 (pretraining of BEiT and BEiT v2).
- "xavier_uniform": uniform, as wide as the sizes of the layer say (MAE). Layers then start alike, whatever their depth.
"""


def initialize_vectors(vectors: Tensor, first_weights: FirstWeights = "normal") -> None:
    """Draw learned tokens and embeddings from a normal distribution, clipped where linear layers' is.

    Raises:
        ValueError: unknown ``first_weights``.
    """
    if first_weights not in get_args(FirstWeights):
        raise ValueError(f"first_weights must be one of {', '.join(get_args(FirstWeights))}, got {first_weights!r}.")
    bound = STD if first_weights == "clipped_normal" else NO_BOUND
    nn.init.trunc_normal_(vectors, std=STD, a=-bound, b=bound)


def initialize_linear(module: nn.Module, first_weights: FirstWeights = "normal") -> None:
    """Draw the weights of a linear or embedding layer and zero the biases; other modules stay as they are.

    Raises:
        ValueError: unknown ``first_weights``.
    """
    if isinstance(module, nn.Linear) and first_weights == "xavier_uniform":
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Linear | nn.Embedding):
        initialize_vectors(module.weight, first_weights)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
