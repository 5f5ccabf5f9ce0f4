"""Our own encoders of films as extractors.

Letters in shapes: b clips, f pictures of a clip, h height, w width, d width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from multimodal.tokenizers.video.extractors.extractor import ClipExtractor
from multimodal.training.layer_features import InputTokens, VectorOf, chosen_layers, encode_layers, vector_width, vectors_of


class EncoderExtractor(ClipExtractor):
    """One vector of a clip from an encoder that was trained on films, with nothing hidden.

    Args:
        folder: that ``multimodal export --format multimodal``, ``multimodal import`` or ``save_pretrained`` wrote.
        modality: whose embedding reads the clips; None: the model's only one.
        layer: whose output, from 0 or backwards from -1, without the encoder's last norm; None: the last one with it.
        vector: "mean" of the tokens, the "class" token, or "class_and_mean" side by side.

    Raises:
        ValueError: the folder holds no such model, or it has no such modality, layer or class token.
    """

    def __init__(self, folder: str, modality: str | None = None, layer: int | None = None, vector: VectorOf = "mean") -> None:
        super().__init__()
        from multimodal.pretrained import PretrainedModel, from_pretrained

        model = from_pretrained(folder)
        if not isinstance(model, PretrainedModel):
            raise ValueError(f"{folder} holds a {type(model).__name__}, which has no features of tokens.")
        if vector != "mean" and model.encoder.special is None:
            raise ValueError(f"vector {vector!r}: the encoder in {folder} has no class token; read the mean.")
        self.modality, self.vector = model.only_modality(modality), vector
        self.layers = chosen_layers(model.encoder, ["out" if layer is None else layer])
        self.model = model.requires_grad_(False).eval()

    @property
    def dim(self) -> int:
        """Width of the encoder; twice that of "class_and_mean"."""
        return vector_width(self.model.encoder, self.vector)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What is read, and how the model is built."""
        said = {"modality": self.modality, "layers": self.layers, "vector": self.vector}
        return {**said, "model": self.model.settings.to_json()}

    def check(self, values: Tensor) -> None:
        """Refuse clips that the embedding cannot cut into tokens; ``values``: ``(f, 3, h, w)``.

        Raises:
            ValueError: the number or the size of the pictures does not fit.
        """
        super().check(values)
        self._tokens(values[None])

    @torch.no_grad()
    def forward(self, values: UInt8[Tensor, "b f 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the vectors of clips.

        Raises:
            ValueError: the embedding cannot cut them into tokens.
        """
        tokens = self._tokens(values)
        embedded = cast(Any, self.model.embeds[self.modality])(tokens)
        part = InputTokens(embedded, tokens.item, tokens.coordinates, self.model.settings.experts.get(self.modality, 0))
        (encoded,) = encode_layers(self.model.encoder, [part], self.layers).values()
        return vectors_of(encoded, part.sequence, len(values), self.vector).float()

    def _tokens(self, values: Tensor) -> Any:
        try:
            return cast(Any, self.model.embeds[self.modality]).tokens(values, None)
        except RuntimeError as error:
            raise ValueError(f"the embedding of {self.modality!r} cannot read clips of shape {tuple(values.shape[1:])}: {error}") from error
