"""An encoder with the ways into it and out of it: what is imported, saved and taken away.

Letters in shapes: b samples, n tokens of all samples, l tokens of a sample, m tokens of a sample with class and register tokens, d width,
c classes, h rows and w columns of patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from multimodal.heads import TokenClassifier
from multimodal.nn import Encoded, Encoder
from multimodal.pretrained.settings import ModelSettings
from multimodal.protocols import Embed, Tokens, Transform
from multimodal.recorded import build, instantiate


class Features(NamedTuple):
    """What the encoder makes of the items of one modality, sample by sample.

    Args:
        x: ``(b, m, d)``; class and register tokens come first. Zeros past the end of shorter samples.
        valid: ``(b, m)`` bool, False past the end; None: all samples have the same number of tokens.
        num_special: class and register tokens of a sample.
        grid: (rows, columns, ...) of the other tokens, where they are a grid.
    """

    x: Tensor
    valid: Tensor | None
    num_special: int
    grid: tuple[int, ...] | None


class PretrainedModel(nn.Module):
    """One encoder, the embedding of each modality, and heads.

    ``forward_features``, ``forward_head`` and ``forward_intermediates`` are named and shaped as in timm.

    Args:
        settings: how to build the parts. Their weights are drawn at random; ``from_pretrained`` loads them.

    Raises:
        ValueError: the settings do not fit a part.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder: Encoder = build(settings.encoder)
        self.embeds = nn.ModuleDict({name: build(part, self.encoder.dim) for name, part in settings.embeds.items()})
        self.heads = nn.ModuleDict({name: build(part, self.encoder.dim) for name, part in settings.heads.items()})
        for name, other in settings.tied.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, self.get_parameter(other))

    def transform(self, modality: str | None = None) -> Transform:
        """Return how the files of a modality are read and made values.

        Raises:
            ValueError: the model does not say.
        """
        name = self.only_modality(modality)
        if name not in self.settings.transforms:
            raise ValueError(f"this model does not say how files of {name!r} are read.")
        transform: Transform = instantiate(self.settings.transforms[name])
        return transform

    def forward(self, values: Tensor, lengths: Tensor | None = None, modality: str | None = None) -> Tensor:
        """Return the logits of the head "classes", ``(b, c)``, or where there is none the features ``(b, m, d)``."""
        features = self.features(values, lengths, modality)
        return self.logits(features, "classes") if "classes" in self.heads else features.x

    def forward_features(self, values: Tensor, lengths: Tensor | None = None, modality: str | None = None) -> Float[Tensor, "b m d"]:
        """Return the tokens after the encoder, class and register tokens first; zeros past the end of shorter samples.

        Args:
            values: of items, laid out like ``Items.values``: images ``(b, channels, height, width)`` of 0 to 255,
                ids of all texts end to end.
            lengths: ``(b,)`` int64 of ragged items; None: all are of one length.
            modality: whose values; None: of the only one.
        """
        return self.features(values, lengths, modality).x

    def forward_head(self, x: Float[Tensor, "b m d"], head: str = "classes") -> Tensor:
        """Return the logits that a head makes of ``forward_features`` of samples of one length: ``(b, c)``, or one for each token."""
        special = self.encoder.special.count if self.encoder.special is not None else 0
        return self.logits(Features(x, None, special, None), head)

    def forward_intermediates(
        self,
        values: Tensor,
        lengths: Tensor | None = None,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
        return_prefix_tokens: bool = False,
        modality: str | None = None,
    ) -> Any:
        """Return the tokens after the encoder and those after some layers.

        Args:
            values: as in ``forward_features``.
            lengths: as in ``forward_features``.
            indices: layers, from 0 and negative ones from the end; a number: that many last ones; None: all.
            norm: whether to apply the encoder's last norm to them.
            output_fmt: "NCHW": ``(b, d, h, w)`` without class and register tokens, for items that are grids; "NLC": ``(b, l, d)``.
            intermediates_only: leave the final tokens out.
            return_prefix_tokens: make each entry a pair, with the class and register tokens ``(b, p, d)``.
            modality: whose values; None: of the only one.

        Raises:
            ValueError: an index outside the layers, "NCHW" for items that are no grids, or ``norm`` for an encoder without last norm.
        """
        chosen = self.layer_indices(indices)
        final, layers = self._encode(values, lengths, modality, chosen)
        if norm and self.encoder.norm is None:
            raise ValueError("norm: this encoder has no norm after its last layer.")
        found = []
        for layer in layers:
            x = self.encoder.norm(layer.x) if norm and self.encoder.norm is not None else layer.x
            special, tokens = x[:, : layer.num_special], x[:, layer.num_special :]
            if output_fmt == "NCHW":
                if layer.grid is None or len(layer.grid) != 2:
                    raise ValueError(
                        f"output_fmt 'NCHW' needs items that are grids of rows and columns, these are {layer.grid}: use 'NLC'."
                    )
                tokens = tokens.transpose(1, 2).unflatten(2, layer.grid).contiguous()
            found.append((tokens, special) if return_prefix_tokens else tokens)
        return found if intermediates_only else (final.x, found)

    def forward_padded(
        self, values: Shaped[Tensor, "b l ..."], valid: Bool[Tensor, "b l"] | None = None, modality: str | None = None
    ) -> Float[Tensor, "b m d"]:
        """Return the tokens after the encoder of sequences that are padded to one length; it can be traced and exported.

        The other methods take sequences end to end, and do no work on padding: use them in Python.

        Args:
            values: one entry for each token, such as ids.
            valid: True at real tokens; None: all are. What stands at padding in the result means nothing.
            modality: whose values; None: of the only one.
        """
        return self._padded(values, valid, self.only_modality(modality)).x

    def padded_logits(
        self, values: Shaped[Tensor, "b l ..."], valid: Bool[Tensor, "b l"] | None = None, modality: str | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the logits of the head "classes" for ``forward_padded``'s arguments."""
        return self.logits(self._padded(values, valid, self.only_modality(modality)), "classes")

    def _padded(self, values: Tensor, valid: Tensor | None, name: str) -> Features:
        count, length = values.shape[:2]
        index = torch.arange(length, device=values.device)[:, None]
        lengths = torch.full((count,), length, device=values.device)
        vectors = self._embed(name)(Tokens(values.flatten(0, 1), lengths, index.repeat(count, 1)))
        expert = self._expert(name)
        x, _ = self.encoder.forward_dense(vectors.unflatten(0, (count, length)), index, valid, expert)
        special = x.shape[1] - length
        return Features(x, None if valid is None else nn.functional.pad(valid, (special, 0), value=True), special, None)

    def features(self, values: Tensor, lengths: Tensor | None = None, modality: str | None = None) -> Features:
        """Return the tokens after the encoder, and which of them are real; see ``forward_features``."""
        return self._encode(values, lengths, modality, ())[0]

    def encode(
        self, values: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None, indices: Sequence[int] = ()
    ) -> tuple[Encoded, list[Tensor], Tensor, dict[str, slice]]:
        """Encode several modalities together: item i of each belongs to sample i.

        Args:
            values: modality name -> values, as in ``forward_features``.
            lengths: modality name -> lengths of ragged items.
            indices: layers (from 0) whose tokens to return too.

        Returns:
            What the encoder returns, the tokens after the layers, the sample of each token, and where the tokens of each modality stand.
        """
        cut = {name: self._embed(name).tokens(x, None if lengths is None else lengths.get(name)) for name, x in values.items()}
        vectors = [self._embed(name)(tokens) for name, tokens in cut.items()]
        axes = max(tokens.coordinates.shape[1] for tokens in cut.values())
        places = [nn.functional.pad(tokens.coordinates, (0, axes - tokens.coordinates.shape[1])) for tokens in cut.values()]
        expert = torch.cat([torch.full((len(t.inputs),), self._expert(name), device=t.lengths.device) for name, t in cut.items()])
        sample = torch.cat([tokens.item for tokens in cut.values()])
        ends = torch.tensor([len(x) for x in vectors]).cumsum(0).tolist()
        where = {name: slice(end - len(x), end) for name, x, end in zip(cut, vectors, ends, strict=True)}
        encoded, seen = self.encoder.forward_intermediates(torch.cat(vectors), sample, torch.cat(places), indices, expert)
        return encoded, seen, sample, where

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and a model card, each whole or not at all; see ``multimodal.pretrained.folder``."""
        from multimodal.pretrained.folder import save

        save(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what ``save_pretrained`` wrote.

        Raises:
            ValueError: the folder is missing, damaged or of another kind; the message names the file and what is wrong.
        """
        from multimodal.pretrained.folder import load

        model = load(folder)
        if not isinstance(model, cls):
            raise ValueError(f"{folder} holds a {type(model).__name__}, not a {cls.__name__}.")
        return model

    def _encode(
        self, values: Tensor, lengths: Tensor | None, modality: str | None, indices: Sequence[int]
    ) -> tuple[Features, list[Features]]:
        name = self.only_modality(modality)
        embed, expert = self._embed(name), self._expert(name)
        tokens = embed.tokens(values, lengths)
        vectors = embed(tokens)
        if lengths is not None:
            return self._encode_ragged(vectors, tokens, expert, indices)
        count = tokens.lengths.shape[0]  # len() would be a fixed number in an exported model
        coordinates = tokens.coordinates.unflatten(0, (count, -1))[0]
        x, seen = self.encoder.forward_dense(vectors.unflatten(0, (count, -1)), coordinates, expert=expert, indices=indices)
        special = self.encoder.special.count if self.encoder.special is not None and expert == 0 else 0
        return Features(x, None, special, tokens.grid), [Features(layer, None, special, tokens.grid) for layer in seen]

    def _encode_ragged(self, vectors: Tensor, tokens: Tokens, expert: int, indices: Sequence[int]) -> tuple[Features, list[Features]]:
        """Encode items of different lengths without padding, and pad the result."""
        special = self.encoder.special if expert == 0 else None
        count, longest = len(tokens.lengths), int(tokens.lengths.max())
        experts = torch.full_like(tokens.item, expert)
        encoded, seen = self.encoder.forward_intermediates(vectors, tokens.item, tokens.coordinates, indices, experts)
        valid = torch.arange(longest, device=vectors.device) < tokens.lengths[:, None]
        num_special = 0 if special is None else special.count

        def padded(x: Tensor) -> Tensor:
            return x.new_zeros(count, longest, x.shape[-1]).index_put((tokens.item, tokens.position), x)

        x = padded(encoded.tokens)
        if encoded.class_token is not None and num_special:
            firsts = encoded.class_token[:, None]
            x = torch.cat([firsts if encoded.registers is None else torch.cat([firsts, encoded.registers], 1), x], 1)
        return (
            Features(x, nn.functional.pad(valid, (num_special, 0), value=True), num_special, None),
            [Features(padded(layer), valid, 0, None) for layer in seen],
        )

    def logits(self, features: Features, name: str = "classes") -> Tensor:
        """Return the logits that a head makes of features: ``(b, c)``, or ``(b, l, c or ids of all fields)`` of one that tells tokens."""
        head, special = self._head(name), features.num_special
        tokens = features.x[:, special:]
        if isinstance(head, TokenClassifier):
            return head(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        if hasattr(head, "vocab_sizes"):
            parts = [x.unflatten(0, tokens.shape[:2]) for x in head(tokens.flatten(0, 1))]
            return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        sequence = torch.arange(tokens.shape[0], device=tokens.device)[:, None].expand(tokens.shape[:2]).flatten()
        valid = None if features.valid is None else features.valid[:, special:].flatten()
        firsts = features.x[:, :special]
        encoded = Encoded(tokens.flatten(0, 1), firsts[:, 0] if special else None, firsts[:, 1:] if special > 1 else None)
        logits: Tensor = head(encoded, sequence, tokens.shape[0], valid)
        return logits

    def only_modality(self, name: str | None = None) -> str:
        """Return the name of a modality of this model: that of its only one where none is given.

        Raises:
            ValueError: there is no such modality, or none is given of several.
        """
        if name is None and len(self.embeds) == 1:
            return next(iter(self.embeds))
        if name is None or name not in self.embeds:
            raise ValueError(f"modality must be one of {sorted(self.embeds)}, got {name!r}.")
        return name

    def _embed(self, name: str) -> Embed:
        embed = self.embeds[self.only_modality(name)]
        assert isinstance(embed, Embed)
        return embed

    def _head(self, name: str) -> nn.Module:
        if name not in self.heads:
            raise ValueError(f"head must be one of {sorted(self.heads)}, got {name!r}.")
        return self.heads[name]

    def _expert(self, name: str) -> int:
        return self.settings.experts.get(name, 0)

    def layer_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Return the numbers of layers from timm's way of naming them: how many last ones, negative ones, or None for all.

        Raises:
            ValueError: there is no such layer.
        """
        depth = self.encoder.depth
        wanted = range(depth) if indices is None else range(depth - indices, depth) if isinstance(indices, int) else indices
        if bad := [i for i in wanted if not -depth <= i < depth]:
            raise ValueError(f"indices must be layers in [-{depth}, {depth}), got {bad}.")
        return sorted({i % depth for i in wanted})
