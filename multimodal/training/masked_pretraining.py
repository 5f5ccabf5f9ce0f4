"""Pretraining: predict what was hidden, in every modality at once.

Letters in shapes: n tokens, d width, s samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.filling import Filling
from multimodal.modality import MaskedView, Modality
from multimodal.nn import Encoded, Encoder, pool_mean
from multimodal.objectives import EncodedBatch, EncodedView, MaskedPrediction, MaskerTraining, Objective, Term
from multimodal.training.callbacks.predictions import FOLDER
from multimodal.training.dry_run import check_modality
from multimodal.training.encoder_training import EncoderTraining, default_optimizer
from multimodal.training.filled_files import FilledFiles
from multimodal.training.optimization import WarmupCosine
from multimodal.training.scores import MaskedScores
from multimodal.training.sharding import is_sharded

MEMORIES = "objectives"
"""Where a checkpoint keeps what objectives remember."""


class MaskedPretraining(EncoderTraining):
    """One encoder for all modalities, trained to predict hidden tokens.

    The loss of an optimizer step is the weighted mean over *all* its predictions, over modalities, ranks and accumulated batches alike.

    Args:
        encoder: the shared encoder.
        modalities: name -> builds the modality from the encoder's width. Names are free; configs use those of the folders.
        objectives: each builds a summand of the loss from the encoder and the modalities; None: ``MaskedPrediction`` alone.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all. For starts from a trained
            encoder.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.
        filling: what ``predict`` hides, fills in and writes to ``RUN/predictions/<modality>/<key>.<extension>``; None: it writes features.
        views: in so many ways the modalities' ``preparation`` prepares each sample of a step, each a sample of its own; batches count it
            once. For ``InstanceContrast``, which draws them together.

    Raises:
        ValueError: no modalities, parts of one that do not fit each other, objectives that report under one name, a filling of what
            cannot be filled in, or fewer than one view.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Modality]],
        objectives: list[Callable[[Encoder, Mapping[str, Modality]], Objective]] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
        filling: Filling | None = None,
        views: int = 1,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        if views < 1:
            raise ValueError(f"views must be at least 1, got {views}.")
        self.views = views
        for name, modality in self._modalities.items():
            check_modality(name, modality, encoder.dim)
        _check_together(encoder, self._modalities)
        built = [make(encoder, self._modalities) for make in objectives or [MaskedPrediction]]
        if any(modality.masking.learns for modality in self._modalities.values()):
            built += _masker_training(encoder, self._modalities, built)
        self.objectives = nn.ModuleList(built)
        names = [f"{name}{goal.suffix}" for goal in built for name in goal.fields(self._modalities)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"objectives {[type(goal).__name__ for goal in built]} would report {sorted(twice)[0]!r} twice.")
        self.scores = nn.ModuleDict({f"{stage}_scores": MaskedScores(self._fields()) for stage in ("train", "val", "test")})
        self.filling = filling
        if filling is not None:
            _check_learned(filling.name_of(self._modalities), self._goals, self._modalities)

    @property
    def _modalities(self) -> dict[str, Modality]:
        return {name: cast(Modality, modality) for name, modality in self.modalities.items()}

    @property
    def _goals(self) -> list[Objective]:
        return [cast(Objective, goal) for goal in self.objectives]

    def _fields(self) -> dict[str, tuple[str, ...]]:
        named = [(goal.suffix, goal.fields(self._modalities)) for goal in self._goals]
        return {f"{name}{suffix}": fields for suffix, found in named for name, fields in found.items()}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Modality name -> fingerprint of its tokenizer, which is frozen; modalities without one are left out."""
        return {name: x.tokenizer.fingerprint() for name, x in self._modalities.items() if x.tokenizer is not None}

    def configure_model(self) -> None:
        """Cut the model into shards where Lightning's ``ModelParallelStrategy`` runs it.

        Raises:
            ValueError: an objective needs the whole model; or as the base class.
        """
        whole = [type(goal).__name__ for goal in self._goals if goal.needs_whole_model]
        if self.device_mesh is not None and whole:
            raise ValueError(f"{whole[0]} works on whole weights, which no process holds under ModelParallelStrategy: use DDP.")
        super().configure_model()

    def prepared(self, batch: Batch, train: bool) -> Batch:
        """Return a batch as the base class does; in training of each sample ``views``."""
        return super().prepared(batch.repeated(self.views) if train and self.views > 1 else batch, train)

    def forward(self, batch: Batch) -> EncodedBatch | None:
        """Hide tokens and encode; None for an empty batch."""
        if not batch.items:
            return None
        modalities = {name: cast(Modality, self.modalities[name]) for name in batch.items}
        views: Mapping[str, MaskedView] = {name: modality.masked_view(batch.items[name]) for name, modality in modalities.items()}
        for goal in self._goals:
            views = goal.shown(batch, views, self.encoder)
        given = self.join({name: _part(modalities[name], view) for name, view in views.items()})
        all_of_them = any(goal.sees_all for goal in self._goals)
        wanted = {name: _wanted(modalities[name], view, all_of_them) for name, view in views.items()}
        together = torch.cat(list(wanted.values()))
        layers = sorted({layer for goal in self._goals for layer in goal.layers})
        encoded, seen = self.encoder.forward_layers(*given[:3], layers, given.expert, together)
        outputs = encoded.tokens.split([int(own.sum()) for own in wanted.values()])
        parts = {
            name: _encoded_view(modalities[name], view, output, encoded, all_of_them)
            for (name, view), output in zip(views.items(), outputs, strict=True)
        }
        return EncodedBatch(batch, parts, self.encoder, given, together, encoded, dict(zip(layers, seen, strict=True)))

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
        if encoded is None:
            return {}
        terms = {(f"{name}{goal.suffix}", i): term for i, goal in enumerate(self._goals) for name, term in goal(encoded).items()}
        for (name, _), term in terms.items():
            self.scores[f"{stage}_scores"].update(name, term)
        return terms

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities, self.objectives]  # also of modalities in use: the vector of the mask where hidden tokens are dropped

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save, too, what the objectives remember."""
        super().on_save_checkpoint(checkpoint)
        if memories := {str(number): memory for number, goal in enumerate(self._goals) if (memory := goal.memory())}:
            checkpoint[MEMORIES] = memories

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit; remind the objectives."""
        super().on_load_checkpoint(checkpoint)
        for number, goal in enumerate(self._goals):
            goal.remember(checkpoint.get(MEMORIES, {}).get(str(number), {}))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tell the objectives which epoch it is."""
        for goal in self._goals:
            goal.epoch = self.current_epoch

    def on_validation_epoch_end(self) -> None:
        """Log the scores; let the objectives of a run of training follow them."""
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            scores = self._metric("val").compute()
            for goal in self._goals:
                goal.after_validation(scores)
        super().on_validation_epoch_end()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step; then let the objectives follow."""
        super().optimizer_step(*args, **kwargs)
        for goal in self._goals:
            goal.after_step(self.encoder, self._modalities, self.trainer.global_step + 1)  # this step is counted when it returns

    def on_predict_start(self) -> None:
        """Look where filled items are to go.

        Raises:
            ValueError: there are files already; or no process holds the whole model.
        """
        if self.filling is None:
            return
        if is_sharded(self):
            raise ValueError("what is filled in is told round by round from whole weights, which no process holds here: use DDP.")
        name = self.filling.name_of(self._modalities)
        self._filled = FilledFiles(self.filling, name, Path(self.trainer.default_root_dir) / FOLDER / name)
        self.trainer.strategy.barrier()  # all have looked before one writes

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return modality name -> keys and features ``(samples with it, d)``; with a ``filling``, fill in, write, and return nothing."""
        if self.filling is not None:
            self._filled.write(self, batch)
            return {}
        features = {name: self._features(batch, name) for name in self.modalities}  # of absent ones too: ranks gather weights together
        present = {name: items.sample.unique() for name, items in batch.items.items()}
        return {name: ([batch.keys[i] for i in index.tolist()], features[name][index]) for name, index in present.items()}

    def on_predict_end(self) -> None:
        """Say what was filled in."""
        if self.filling is not None:
            print(self._filled.summary())

    @torch.no_grad()
    def pictures(self, batch: Batch, count: int) -> dict[str, list[Mapping[str, Tensor]]]:
        """Return modality name -> pictures of the first ``count`` items: as they are, as shown, and as predicted."""
        encoded = self.forward(batch)
        if encoded is None:
            self._encode_nothing()
            return {}
        return {name: _pictures(view, batch.items[name], count) for name, view in encoded.views.items() if view.modality.renderer}

    def _shown(self, score: str) -> bool:
        return score.removeprefix("accuracy/") in self.modalities


def _masker_training(encoder: Encoder, modalities: Mapping[str, Modality], others: list[Objective]) -> list[Objective]:
    """Return what trains the maskings that learn, unless it is there, beside the prediction whose losses they learn from."""
    if not any(isinstance(goal, MaskedPrediction) for goal in others):
        learning = next(modality.masking for modality in modalities.values() if modality.masking.learns)
        raise ValueError(f"{type(learning).__name__} learns from the losses of MaskedPrediction: name it among the objectives.")
    return [] if any(isinstance(goal, MaskerTraining) for goal in others) else [MaskerTraining(encoder, modalities)]


def _check_together(encoder: Encoder, modalities: Mapping[str, Modality]) -> None:
    if len(clones := {modality.clones for modality in modalities.values()}) > 1:
        raise ValueError(f"modalities must make as many clones of a sample, whose sequence they share; got {sorted(clones)}.")
    for name, modality in modalities.items():
        if modality.masking.num_mixed > 1 and len(modalities) > 1:
            raise ValueError(f"modality {name!r} mixes samples into one sequence, which others would join by chance: train it alone.")
        if modality.corruption.hides_places and encoder.reads_order:
            raise ValueError(
                f"modality {name!r} hides places ({type(modality.corruption).__name__}), but the encoder reads the order of tokens: leave "
                "out its convolution, its window, and biases of distances along a sequence."
            )


def _check_learned(name: str, goals: Iterable[Objective], modalities: Mapping[str, Modality]) -> None:
    """Refuse to fill in by a head that learns nothing, or reads from a part that is not the encoder."""
    if not any(goal.fields(modalities).get(name) == modalities[name].field_names and not goal.takes_heads for goal in goals):
        raise ValueError(f"modality {name!r} cannot be filled in: no objective lets its head learn from the encoder. Add MaskedPrediction.")


def _part(modality: Modality, view: MaskedView) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the encoder gets of a modality."""
    if view.visible is None:
        return modality.embed(view.tokens, view.shown_as_mask), view.sequence, view.tokens.coordinates
    tokens = view.tokens.select(view.visible)
    return modality.embed(tokens), view.sequence[view.visible], tokens.coordinates


def _wanted(modality: Modality, view: MaskedView, all_of_them: bool) -> Tensor:
    """Return, of the tokens that the encoder gets, which of its output are read: a decoder reads all, a head the hidden ones."""
    visible = torch.ones_like(view.masked) if view.visible is None else view.visible
    return visible[visible] if all_of_them or modality.decoder is not None else view.masked[visible]


def _encoded_view(modality: Modality, view: MaskedView, output: Tensor, encoded: Encoded, all_of_them: bool) -> EncodedView:
    if modality.decoder is None:
        return EncodedView(modality, view, output[view.masked], output) if all_of_them else EncodedView(modality, view, output)
    item, tokens = view.tokens.item, view.tokens
    visible = torch.ones_like(view.masked) if view.visible is None else view.visible
    starts = tokens.lengths.cumsum(0) - tokens.lengths
    firsts = None if encoded.class_token is None else encoded.class_token[view.sequence[starts]]
    hidden = modality.decoder(output, visible, view.masked, item, tokens.coordinates, firsts)
    return EncodedView(modality, view, hidden, seen=output)


def _pictures(encoded: EncodedView, items: Items, count: int) -> list[Mapping[str, Tensor]]:
    """Return the pictures of the first items."""
    modality, view = encoded.modality, encoded.view
    assert modality.renderer is not None
    guesses = view.targets.clone()
    guesses[view.masked] = encoded.prediction.ids.to(guesses.dtype)
    if view.asked is not None and not guesses.is_floating_point():
        guesses = torch.where(view.asked, guesses, view.targets)  # the other fields were shown
    lengths = view.tokens.lengths.tolist()
    values = items.values if items.lengths is None else items.values.split(items.lengths.tolist())
    parts = zip(values, view.targets.split(lengths), guesses.split(lengths), view.masked.split(lengths), strict=False)  # clones follow
    return [modality.renderer.render(modality.predicted, *part) for part in islice(parts, count)]
