"""Semantic segmentation: a class for each pixel, from an encoder that was trained before.

Letters in shapes: b images, d width, h rows of patches, w columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.heads import DenseLogits, SegmentationHead
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.training.encoder_training import default_optimizer
from multimodal.training.mask_pictures import coloured, enlarged, write_mask
from multimodal.training.optimization import WarmupPolynomial
from multimodal.training.place_labelling import NO_CLASS, PlaceLabelling
from multimodal.training.segmentation_scores import SegmentationScores
from multimodal.training.sliding_window import SlidingWindow, at_size

SHARES = {4: (1 / 3, 1 / 2, 2 / 3, 1.0)}  # of the depth, at which four layers are read: 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24 (BEiT)


class SemanticSegmentation(PlaceLabelling):
    """Train an encoder, or only a head on it, to tell the class of each pixel.

    The loss of an optimizer step is the mean cross-entropy over all its labelled pixels, over ranks and accumulated batches alike; the
    head's second classifier, if it has one, adds its own mean times its weight. Logits are resized to the pixels bilinearly.

    Logs loss, mean IoU and accuracies (``val/mean_iou``), in validation and test the IoU of each class too (``test/iou/<class>``).
    ``predict`` writes the classes of each image as ``RUN/predictions/<modality>/<key>.png``.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, whose transform reads masks.
        head: builds the head from the encoder's width, or is one.
        layers: numbers of the layers that the head reads, from 0, before the final norm; None: for four those at a third, a half, two
            thirds and the end of the depth, otherwise spread evenly. BEiT base: 3, 5, 7, 11; large: 7, 11, 15, 23.
        window: through which images of validation, test and prediction are read; None: each is read whole.
        freeze: the embedding and the encoder keep their weights, and their dropout is off: only the head learns.
        class_names: of the classes, in order, for the scores; None: their numbers.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all. BEiT base: 0.65; BEiT v2
            base: 0.75.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, a class that the head has no place for,
            or no labelled pixel in the first 50 batches, or in a whole epoch.
    """

    place, kind, reader = "pixel", "mask", "multimodal.tokenizers.image.SegmentationTransform"
    head: SegmentationHead

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        head: Callable[[int], SegmentationHead] | SegmentationHead,
        layers: list[int] | None = None,
        window: SlidingWindow | None = None,
        freeze: bool = False,
        class_names: list[str] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupPolynomial,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        self.head = head if isinstance(head, SegmentationHead) else head(encoder.dim)
        self.layers = _layers(layers, self.head.num_layers, encoder.depth)
        self.window, self._frozen = window, [self.modalities, self.encoder] if freeze else []
        if freeze and layer_decay is not None:
            raise ValueError("layer_decay has no effect with freeze: leave it out.")
        for module in self._frozen:
            module.requires_grad_(False)
        names = [str(number) for number in range(self.head.num_classes)] if class_names is None else class_names
        if len(names) != self.head.num_classes:
            raise ValueError(f"class_names has {len(names)} names, the head's num_classes is {self.head.num_classes}.")
        shown = {"train": None, "val": names, "test": names}
        self.scores = nn.ModuleDict({f"{stage}_scores": SegmentationScores(self.head.num_classes, own) for stage, own in shown.items()})

    def configure_model(self) -> None:
        """Refuse a model that is cut into shards.

        Raises:
            ValueError: the strategy is ``ModelParallelStrategy``.
        """
        if self.device_mesh is not None:
            raise ValueError("SemanticSegmentation does not run under ModelParallelStrategy: use ddp.")
        super().configure_model()

    def forward(self, values: Tensor) -> DenseLogits:
        """Return what the head says of images of one size, on its own grid.

        Args:
            values: ``(b, channels, height, width)``, pixels as the transform makes them.

        Raises:
            ValueError: the images cannot be cut into a grid of patches.
        """
        tokens = self.modality.embed.tokens(values, None)
        if tokens.grid is None or len(tokens.grid) != 2:
            raise ValueError(f"the tokens of modality {self.name!r} lie on no grid of rows and columns: it cannot be segmented.")
        given = self.join({self.name: (self.modality.embed(tokens), tokens.item, tokens.coordinates)})
        wanted = sorted(set(self.layers))
        _, found = self.encoder.forward_intermediates(given.tokens, given.sequence, given.coordinates, wanted, given.expert)
        grids = {layer: x.unflatten(0, (len(values), *tokens.grid)).permute(0, 3, 1, 2) for layer, x in zip(wanted, found, strict=True)}
        return self.head([grids[layer] for layer in self.layers])  # b h w d -> b d h w

    def pixel_logits(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the logits of images at a size, ``(b, classes, *size)`` float32, read as a whole or through the window."""
        if self.window is None:
            return at_size(self.forward(values).logits, size)
        return at_size(self.window(values, lambda part: self.forward(part).logits), size)

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        return {(name, 0): self._term(items, stage) for name, items in batch.items.items()}

    def _term(self, items: Items, stage: str) -> Term:
        labels = cast(Tensor, items.labels).long()
        size = (labels.shape[1], labels.shape[2])
        said = self.forward(items.values) if stage == "train" else None
        logits = self.pixel_logits(items.values, size) if said is None else at_size(said.logits, size)
        loss = _entropy(logits, labels)
        there = labels != NO_CLASS
        guesses, truth = logits.argmax(1)[there], labels[there]
        cast(SegmentationScores, self._metric(stage)).update(loss, guesses, truth)
        if said is not None and said.auxiliary is not None:
            loss = loss + self.head.auxiliary_weight * _entropy(at_size(said.auxiliary, size), labels)
        return Term(loss, count=there.sum(), weight=1.0, correct=(guesses == truth).sum()[None], ids=guesses)

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        # what comes after the last layer that is read; of embeddings in use, the vector of the mask
        return [self.modalities, self.encoder] if batch.items else [self.modalities, self.head]

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Write the classes of each image to ``RUN/predictions/<modality>/<key>.png``."""
        for items in batch.items.values():
            size = cast(Tensor, items.labels).shape[1:]
            guesses = self.pixel_logits(items.values, (size[0], size[1])).argmax(1)
            for own, path in zip(guesses, self._files(batch, items, "png"), strict=True):
                write_mask(own, self.num_classes, path)
        return {}  # nothing that is to be joined with other batches: images differ in size

    @torch.no_grad()
    def pictures(self, batch: Batch, count: int) -> dict[str, list[Mapping[str, Tensor]]]:
        """Return modality name -> pictures of the first ``count`` items: as they are, their true classes, and the guessed ones."""
        return {name: [self._picture(items, number) for number in islice(range(len(items)), count)] for name, items in batch.items.items()}

    def _picture(self, items: Items, number: int) -> Mapping[str, Tensor]:
        labels, values = cast(Tensor, items.labels)[number], items.values[number]
        guesses = self.pixel_logits(values[None], (labels.shape[0], labels.shape[1])).argmax(1)[0]
        shown = {"input": values, "truth": coloured(labels), "prediction": coloured(guesses)}
        return {title: enlarged(picture) for title, picture in shown.items()}

    def _shown(self, score: str) -> bool:
        return score in ("loss", "mean_iou")


def _layers(layers: Sequence[int] | None, count: int, depth: int) -> tuple[int, ...]:
    """Return the numbers of the layers to read.

    Raises:
        ValueError: another number of layers than the head reads, or one that the encoder does not have.
    """
    if layers is None:
        shares = SHARES.get(count, tuple((number + 1) / count for number in range(count)))
        return tuple(max(round(depth * share) - 1, 0) for share in shares)
    if len(layers) != count:
        raise ValueError(f"the head reads {count} layers, got layers {list(layers)}.")
    if list(layers) != sorted(layers) or not all(0 <= layer < depth for layer in layers):
        raise ValueError(f"layers must ascend from 0 to {depth - 1} at most, got {list(layers)}.")
    return tuple(layers)


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the labelled pixels; 0, still connected to the parameters, where there are none."""
    return F.cross_entropy(logits, labels, ignore_index=NO_CLASS, reduction="sum")
