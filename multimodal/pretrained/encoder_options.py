"""An encoder that was trained before, with other options: those that a fine-tuning may change and keep the weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from multimodal.nn import Encoder
from multimodal.pretrained.importing import load_exactly

OWN_BIAS = re.compile(r".*\.attn\.position_bias\.(.+)")


def with_options(encoder: Encoder, dropout: float | None = None, **options: Any) -> Encoder:
    """Return an encoder of the same weights, built anew where an option changes.

    Args:
        encoder: a saved or imported one.
        dropout: of the attention and the MLP of each layer; None: as it is.
        options: settings of ``Encoder`` by name, of which ``load_encoder`` says what they do; None: as it is.

    Raises:
        ValueError: an option that the weights do not allow, or a value that ``Encoder`` refuses.
    """
    now = encoder.init_args
    if now["bias"] is None and options.pop("share_bias", None) is False:  # True is what a config of a new encoder leaves behind
        raise ValueError("share_bias has no effect: this encoder has no position bias. Leave it out.")
    changed = {name: value for name, value in options.items() if value is not None and value != now[name]}
    if dropout is not None:
        changed |= {name: _dropping(now[name], dropout) for name in ("attention", "mlp")}
    if changed.get("share_bias"):
        raise ValueError("share_bias: the layers of this encoder have learned a bias each, which cannot become one; leave it out.")
    if changed.get("norm_at", "none") != "none":
        raise ValueError(f"norm_at: this encoder has no norm at the {changed['norm_at']}; allowed are 'none' and {now['norm_at']!r}.")
    if not changed:
        return encoder
    built = type(encoder)(**(now | changed))
    load_exactly(built, _weights_for(built, encoder.state_dict()))
    return built.train(encoder.training)


def _dropping(build: Callable[..., Any], dropout: float) -> Callable[..., Any]:
    """Return what builds a part with a dropout.

    Raises:
        ValueError: the part has none, or not such a one.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}.")
    own = next((x for x in (build, getattr(build, "func", None), *getattr(build, "args", ())) if inspect.isclass(x)), build)
    if "dropout" not in inspect.signature(own).parameters:
        raise ValueError(f"dropout: the layers of this encoder have a {getattr(own, '__name__', own)}, which has none; leave it out.")
    return partial(build, dropout=dropout)


def _weights_for(built: Encoder, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that the new encoder wants: each layer's bias from the shared one, none of a norm that is left out."""
    wanted = {}
    for name in built.state_dict():
        own = OWN_BIAS.fullmatch(name)
        wanted[name] = state[f"bias.{own[1]}" if own and name not in state else name]
    return wanted
