"""Which layer a parameter is of."""

import re

BEFORE_LAYERS = re.compile(r"encoder\.(special|convolution|input_norm)\.|modalities\.[^.]+\.embed\.|embeds\.")
LAYER = re.compile(r"encoder\.blocks\.(\d+)\.")


def layer_of(name: str, depth: int) -> int:
    """Return the layer of a parameter for learning rates that decay with depth, as BEiT counts (``unilm beit/optim_factory.py``).

    0: what comes before the layers: the embeddings of modalities, class and register tokens, the convolution, a norm at the input.
    i + 1: layer i, its own position bias included. ``depth + 1``: all else: the final norm, heads, a position bias shared by all layers.

    Args:
        name: of the parameter in a model that has its encoder as ``encoder`` and its embeddings as ``modalities.*.embed`` or ``embeds.*``.
        depth: layers of the encoder.

    Raises:
        ValueError: the name is of a layer that the encoder does not have.
    """
    name = name.replace("_orig_mod.", "")  # what torch.compile puts between
    if BEFORE_LAYERS.match(name):
        return 0
    layer = LAYER.match(name)
    if layer is None:
        return depth + 1
    if int(layer[1]) >= depth:
        raise ValueError(f"{name} is of layer {layer[1]} (from 0), the encoder has a depth of {depth}.")
    return int(layer[1]) + 1
