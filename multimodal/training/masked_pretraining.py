"""Pretraining: predict what was hidden, in every modality at once.

Letters in shapes: n tokens, d width, s samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch
from multimodal.modality import MaskedView, Modality
from multimodal.nn import Encoder, pool_mean
from multimodal.objectives import EncodedView, MaskedTokens, Objective, Term
from multimodal.training.dry_run import check_modality
from multimodal.training.encoder_training import EncoderTraining, default_optimizer
from multimodal.training.optimization import WarmupCosine
from multimodal.training.scores import MaskedScores


class MaskedPretraining(EncoderTraining):
    """One encoder for all modalities, trained to predict hidden tokens.

    The loss of an optimizer step is the weighted mean over *all* its predictions, over modalities, ranks and accumulated batches alike.

    Args:
        encoder: the shared encoder.
        modalities: name -> builds the modality from the encoder's width. Names are free; configs use those of the folders.
        objectives: summands of the loss; None: masked tokens alone.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all. For starts from a trained
            encoder.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: no modalities, or parts of one that do not fit each other.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Modality]],
        objectives: list[Objective] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        for name, modality in self.modalities.items():
            check_modality(name, cast(Modality, modality), encoder.dim)
        self.objectives: Sequence[Objective] = objectives or [MaskedTokens()]
        self.scores = nn.ModuleDict({f"{stage}_scores": MaskedScores(self._fields()) for stage in ("train", "val", "test")})

    def _fields(self) -> dict[str, tuple[str, ...]]:
        return {name: modality.tokenizer.field_names for name, modality in self.modalities.items()}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Modality name -> fingerprint of its tokenizer, which is frozen."""
        return {name: modality.tokenizer.fingerprint() for name, modality in self.modalities.items()}

    def forward(self, batch: Batch) -> dict[str, EncodedView]:
        """Hide tokens and encode: modality name -> what was hidden and what the encoder made of it; nothing for an empty batch."""
        if not batch.items:
            return {}
        modalities = {name: cast(Modality, self.modalities[name]) for name in batch.items}
        views = {name: modality.masked_view(batch.items[name]) for name, modality in modalities.items()}
        parts = {name: _part(modalities[name], view) for name, view in views.items()}
        masked = [view.masked for view in views.values()]
        hidden = self.encode(parts, wanted=torch.cat(masked)).tokens.split([int(own.sum()) for own in masked])
        return {name: EncodedView(modalities[name], view, x) for (name, view), x in zip(views.items(), hidden, strict=True)}

    @torch.no_grad()
    def features(self, batch: Batch, name: str, layer: int | None = None) -> Tensor:
        """Return ``(s, d)``, the mean token of one modality in each sample, with nothing hidden.

        Args:
            batch: samples without the modality give zeros; so does a batch without it.
            name: of the modality.
            layer: index of the layer to read, before the final norm; None: the encoder's output.
        """
        return self._features(batch, name, layer)

    def _features(self, batch: Batch, name: str, layer: int | None = None) -> Tensor:
        if name not in batch.items:
            return self._encode_nothing() + torch.zeros(batch.num_samples, self.encoder.dim, device=self.device)
        part = self.modalities[name].plain_tokens(batch.items[name])
        return pool_mean(self.encode({name: part}, layer).tokens, part[1], batch.num_samples)

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        encoded = self.forward(batch)  # without hooks: where weights are gathered, they are already
        terms = {(name, i): goal(view) for name, view in encoded.items() for i, goal in enumerate(self.objectives)}
        for (name, _), term in terms.items():
            self.scores[f"{stage}_scores"].update(name, term)
        return terms

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return modality name -> keys and features ``(samples with it, d)``."""
        features = {name: self._features(batch, name) for name in self.modalities}  # of absent ones too: ranks gather weights together
        present = {name: items.sample.unique() for name, items in batch.items.items()}
        return {name: ([batch.keys[i] for i in index.tolist()], features[name][index]) for name, index in present.items()}

    @torch.no_grad()
    def pictures(self, batch: Batch, count: int) -> dict[str, list[Mapping[str, Tensor]]]:
        """Return modality name -> pictures of the first ``count`` items: as they are, as shown, and as predicted."""
        drawn = {}
        if not batch.items:
            self._encode_nothing()
        for name, encoded in self.forward(batch).items():
            renderer, view, items = encoded.modality.renderer, encoded.view, batch.items[name]
            if renderer is None:
                continue
            guesses = view.ids.clone()
            guesses[view.masked] = encoded.modality.head.predict(encoded.hidden, view.ids[view.masked]).ids
            lengths = view.tokens.lengths.tolist()
            values = items.values if items.lengths is None else items.values.split(items.lengths.tolist())
            parts = zip(values, view.ids.split(lengths), guesses.split(lengths), view.masked.split(lengths), strict=True)
            drawn[name] = [renderer.render(encoded.modality.tokenizer, *part) for part in islice(parts, count)]
        return drawn

    def _shown(self, score: str) -> bool:
        return score.removeprefix("accuracy/") in self.modalities


def _part(modality: Modality, view: MaskedView) -> tuple[Tensor, Tensor, Tensor]:
    return modality.embed(view.tokens, view.shown_as_mask), view.sample, view.tokens.coordinates
