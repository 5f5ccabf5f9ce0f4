"""Predict what a slowly following copy of the encoder makes of the whole sample.

Letters in shapes: n tokens, m hidden ones of one modality, s sequences, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.modality import Modality
from multimodal.nn import Encoded, Encoder, RegressionHead, pool_mean
from multimodal.nn.prediction import Distance
from multimodal.objectives.objective import EncodedBatch, EncoderInput, Objective, Term
from multimodal.protocols import Embed

LayerNormalization = Literal["instance", "layer", "none"]
CHECK_EVERY = 100


class LatentTargets(Objective):
    """Predict the mean of a teacher's last layers at hidden tokens (data2vec, arXiv 2202.03555; data2vec 2.0, arXiv 2212.07525; EAT).

    The teacher is a moving average of encoder and embeddings, and sees everything. It is kept in checkpoints, so that a run can go on, and
    is never exported. It moves by less than bfloat16 can tell, so weights must be float32 (precision "bf16-mixed", not "bf16-true").
    A departure: the layers' outputs are averaged (data2vec 2.0's option ``end_of_block_targets``), not those of their MLPs.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model).
        top_layers: of the last layers, how many are averaged; None: all. data2vec 2.0: 10 of 12 for images, EAT: 12.
        normalize: each layer before the mean: "instance", every channel over the tokens of a sequence (EAT); "layer", every token over its
            channels; or "none". The mean is then normalised token by token.
        decay: of the moving average, at the start.
        final_decay: of the moving average, after ``decay_steps``; it grows linearly in between.
        decay_steps: optimizer steps. data2vec 2.0: 100,000 for images. For short runs set all three lower.
        loss: of a token, see ``RegressionHead``.
        beta: see ``RegressionHead``.
        class_weight: weight of the class token, which predicts the mean of the targets of its sequence, against the hidden tokens of that
            sequence together; 0: it does not. data2vec 2.0: 0.01 for images, EAT: 1. (Their code sums this over the sequences of a
            process's batch instead, so it weighs as many times more there.)
        min_deviation: training stops when the standard deviation of targets or predictions over the tokens of a batch falls below this:
            teacher and student have agreed to say always the same.
        weight: of this objective against others.

    Raises:
        ValueError: a setting outside its range, a class token that there is not, or one that mixed items share; in training, a collapse, or
            weights that are not float32.
    """

    suffix = "_latent"
    needs_whole_model = True

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Modality],
        top_layers: int | None = None,
        normalize: LayerNormalization = "instance",
        decay: float = 0.9998,
        final_decay: float = 0.99999,
        decay_steps: int = 100_000,
        loss: Distance = "mse",
        beta: float = 2.0,
        class_weight: float = 0.0,
        min_deviation: float = 0.01,
        weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, modalities, weight)
        top = encoder.depth if top_layers is None else top_layers
        if not 1 <= top <= encoder.depth:
            raise ValueError(f"top_layers must be from 1 to the encoder's depth, {encoder.depth}; got {top_layers}.")
        if normalize not in get_args(LayerNormalization):
            raise ValueError(f"normalize must be one of {', '.join(get_args(LayerNormalization))}, got {normalize!r}.")
        if not 0 <= decay <= final_decay < 1 or decay_steps < 1:
            raise ValueError(f"decay and final_decay must ascend in [0, 1), in at least 1 step; got {decay}, {final_decay}, {decay_steps}.")
        if class_weight < 0 or (class_weight and encoder.special is None):
            raise ValueError(f"class_weight must be at least 0, and needs an encoder with a class token; got {class_weight}.")
        if class_weight and any(modality.masking.num_mixed > 1 for modality in modalities.values()):
            raise ValueError("class_weight has class tokens predict the mean of one sample each, but mixed items share one: set it to 0.")
        self.averaged, self.normalize = range(encoder.depth - top, encoder.depth), normalize
        self.decay, self.final_decay, self.decay_steps = decay, final_decay, decay_steps
        self.class_weight, self.min_deviation = class_weight, min_deviation
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        embeds = {name: copy.deepcopy(modality.embed) for name, modality in modalities.items()}
        self.embeds = nn.ModuleDict(embeds).requires_grad_(False)
        widths = {name: encoder.dim if x.decoder is None else x.decoder.width for name, x in modalities.items()}
        self.heads = nn.ModuleDict({name: RegressionHead(width, (encoder.dim,), loss, beta) for name, width in widths.items()})
        self.deviation: Tensor
        self.register_buffer("deviation", torch.ones(2))  # of targets and of predictions, in the last batch
        self.train()

    def train(self, mode: bool = True) -> LatentTargets:
        """Set the mode of the heads; the teacher's dropout stays off."""
        super().train(mode)
        self.teacher.eval()
        self.embeds.eval()
        return self

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality; each of its hidden tokens brings its share of what the class token of its sequence loses."""
        targets, pooled = self.targets(encoded)
        of_class = self._losses_of_class_tokens(encoded.encoded, pooled)
        terms, seen = {}, []
        for name, view in encoded.views.items():
            truth = targets[name][view.view.masked]
            prediction = cast(RegressionHead, self.heads[name]).predict(view.hidden, truth)
            if of_class is not None:
                prediction = prediction._replace(loss=prediction.loss + self.class_weight * of_class[view.view.sequence[view.view.masked]])
            terms[name] = Term.of(prediction, self.weight * view.modality.weight)
            seen.append((truth, prediction.ids))
        if self.training:
            self._look(*(torch.cat(x) for x in zip(*seen, strict=True)))
        return terms

    def _losses_of_class_tokens(self, encoded: Encoded, pooled: Tensor) -> Tensor | None:
        """Return the loss of each sequence's class token, ``(s,)``, as it is, without a head (data2vec 2.0)."""
        if not self.class_weight:
            return None
        assert encoded.class_token is not None
        return F.mse_loss(encoded.class_token.float(), pooled, reduction="none").mean(-1)

    @torch.no_grad()
    def targets(self, encoded: EncodedBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Return modality name -> targets ``(n, d)`` of all its tokens, and ``(s, d)``, their mean over each sequence; clones have one."""
        parts = {}
        for name in encoded.views:
            items, embed = encoded.batch.items[name], cast(Embed, self.embeds[name])
            tokens = embed.tokens(items.values, items.lengths)
            parts[name] = embed(tokens), items.sample[tokens.item], tokens.coordinates
        experts = [view.modality.expert for view in encoded.views.values()]
        x, sequence, coordinates, expert = EncoderInput.join(parts.values(), experts)
        _, layers = self.teacher.forward_intermediates(x, sequence, coordinates, self.averaged, expert)
        mean = torch.stack([self._normalized(x.float(), sequence) for x in layers]).mean(0)
        mean = F.layer_norm(mean, mean.shape[-1:])
        own = dict(zip(parts, mean.split([len(x) for x, _, _ in parts.values()]), strict=True))
        clones = {name: view.modality.clones for name, view in encoded.views.items()}
        pooled = pool_mean(mean, sequence, int(sequence.max()) + 1).repeat_interleave(max(clones.values()), 0)
        return {name: x.repeat(clones[name], 1) for name, x in own.items()}, pooled

    def _normalized(self, x: Tensor, sequence: Tensor) -> Tensor:
        if self.normalize == "none":
            return x
        if self.normalize == "layer":
            return F.layer_norm(x, x.shape[-1:])
        count = int(sequence.max()) + 1
        mean = pool_mean(x, sequence, count)
        variance = pool_mean((x - mean[sequence]).square(), sequence, count)
        return (x - mean[sequence]) * (variance[sequence] + 1e-5).rsqrt()

    @torch.no_grad()
    def _look(self, truth: Tensor, predicted: Tensor) -> None:
        if len(truth) > 1:
            self.deviation.copy_(torch.stack([x.float().std(0).mean() for x in (truth, predicted)]))

    @torch.no_grad()
    def after_step(self, encoder: Encoder, modalities: Mapping[str, Modality], step: int) -> None:
        """Let the teacher follow.

        Raises:
            ValueError: targets or predictions are all the same, or the weights are not float32.
        """
        done = min(step / self.decay_steps, 1.0)
        share = 1 - (self.decay + (self.final_decay - self.decay) * done)
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.teacher, encoder)]
        pairs += [(self.embeds[name], modality.embed) for name, modality in modalities.items()]
        own: list[Tensor] = [parameter for teacher, _ in pairs for parameter in teacher.parameters()]
        new = [parameter.detach() for _, student in pairs for parameter in student.parameters()]
        if other := {x.dtype for x in own} - {torch.float32}:
            raise ValueError(f"LatentTargets moves its teacher by too little for weights of {other.pop()}: train in bf16-mixed or float32.")
        torch._foreach_lerp_(own, new, share)
        if step % CHECK_EVERY == 0:
            self._check()

    def _check(self) -> None:
        deviation = self.deviation.clone()
        if torch.distributed.is_initialized():  # all ranks stop, or none
            torch.distributed.all_reduce(deviation)
            deviation /= torch.distributed.get_world_size()
        targets, predictions = deviation.tolist()
        if min(targets, predictions) < self.min_deviation:
            raise ValueError(
                f"latent targets have collapsed: their standard deviation over the tokens of a batch is {targets:.4f}, that of the "
                f"predictions {predictions:.4f} (min_deviation {self.min_deviation}). A lower learning rate, a longer warm-up or a slower "
                "teacher may help."
            )
