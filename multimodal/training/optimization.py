"""Parameter groups and the learning-rate schedule."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from multimodal.nn import layer_of
from multimodal.nn.zero import zero_of as zero_of_parameters

FIRST_RATE = 1e-6  # of the warm-up, as a share of the rate it grows to


def parameter_groups(
    module: nn.Module, layer_decay: float | None = None, depth: int = 0, axes: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Split the trainable parameters: biases, norms, scales, mask, class and register tokens are not decayed (BEiT, timm).

    Args:
        module: whose parameters.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1] (ELECTRA, https://arxiv.org/abs/2003.10555; layers
            as BEiT counts them). Each group then says under ``lr_scale`` what its learning rate is to be multiplied by: 1 for heads,
            ``layer_decay ** (depth + 1)`` for embeddings. None: the same for all, in one group that is decayed and one that is not.
        depth: layers of the encoder; read only with ``layer_decay``.
        axes: number of axes of the parameters by name, where the module holds flattened pieces of them; None: as they are.

    Raises:
        ValueError: ``layer_decay`` is outside (0, 1].
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1], got {layer_decay}; leave it out for one learning rate.")
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {} if layer_decay is not None else {(0, True): [], (0, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            name = plain_name(name)
            decayed = (axes or {}).get(name, parameter.ndim) > 1 and not name.endswith("bias") and ".special." not in f".{name}"
            groups.setdefault((0 if layer_decay is None else layer_of(name, depth), decayed), []).append(parameter)
    return [
        {"params": parameters}
        | ({} if decayed else {"weight_decay": 0.0})
        | ({} if layer_decay is None else {"lr_scale": layer_decay ** (depth + 1 - layer)})
        for (layer, decayed), parameters in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


def plain_name(name: str) -> str:
    """Return the name of a parameter without what wrappers put into it."""
    return name.replace("_fsdp_wrapped_module.", "").replace("_orig_mod.", "").removeprefix("module.")


def optimization(
    groups: list[dict[str, Any]], optimizer: OptimizerCallable, schedule: Callable[[Optimizer, int], LRScheduler], steps: int
) -> Any:
    """Return what ``configure_optimizers`` returns: the optimizer, and a schedule that moves once per step.

    Args:
        groups: from ``parameter_groups``.
        optimizer: builds the optimizer from the groups.
        schedule: builds the schedule from the optimizer and the number of steps; it must multiply learning rates: so their ratios stay.
        steps: of the whole run.
    """
    built = optimizer(groups)
    for group in built.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule(built, steps), "interval": "step"}}


def total_steps(trainer: L.Trainer) -> int:
    """Return the optimizer steps of the whole run.

    Raises:
        ValueError: the run has no end, so that no schedule can be made.
    """
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise ValueError(f"the schedule needs an end of the run: set max_epochs (it is {trainer.max_epochs}) or max_steps of the trainer.")
    return int(steps)


def zero_of(modules: Iterable[nn.Module]) -> Tensor:
    """Return a scalar 0 that every trainable parameter of the modules gets a gradient of 0 from, whatever its value."""
    return zero_of_parameters(parameter for module in modules for parameter in module.parameters())


class WarmupCosine(LambdaLR):
    """Linear warm-up from 0 to the optimizer's learning rate, then a cosine to a share of it.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps spent warming up, in [0, 1).
        final: last learning rate as a share of the peak, in [0, 1].
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.01) -> None:
        _check_shares(warmup, final)

        def factor(left: float) -> float:
            return final + (1 - final) * (1 + math.cos(math.pi * (1 - left))) / 2

        super().__init__(optimizer, _after_warmup(warmup * total_steps, total_steps, factor))


class WarmupLinear(LambdaLR):
    """Linear warm-up from 0 to the optimizer's learning rate, then a straight line to a share of it (BERT, MosaicBERT).

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps spent warming up, in [0, 1). BERT: 0.01; MosaicBERT: 0.06.
        final: last learning rate as a share of the peak, in [0, 1]. BERT: 0; MosaicBERT: 0.02.

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.01, final: float = 0.0) -> None:
        _check_shares(warmup, final)
        super().__init__(optimizer, _after_warmup(warmup * total_steps, total_steps, lambda left: final + (1 - final) * left))


class WarmupStableDecay(LambdaLR):
    """Linear warm-up, a long stretch at the optimizer's learning rate, then a decay as one minus a root (ModernBERT, arXiv 2412.13663).

    From any checkpoint of the stretch a run can go on with more steps, or decay. The root falls fast at first (arXiv 2405.18392).

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps spent warming up, in [0, 1).
        decay: share of the steps spent decaying, in [0, 1 - warmup].
        final: last learning rate as a share of the peak, in [0, 1].

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.01, decay: float = 0.1, final: float = 0.0) -> None:
        _check_shares(warmup, final)
        if not 0 <= decay <= 1 - warmup:
            raise ValueError(f"decay must be a share of the steps in [0, 1 - warmup {warmup}], got {decay}.")

        def factor(left: float) -> float:
            done = 1 - left * (1 - warmup) / decay if decay else 0.0
            return final + (1 - final) * (1 - math.sqrt(max(done, 0.0)))

        super().__init__(optimizer, _after_warmup(warmup * total_steps, total_steps, factor))


class WarmupPolynomial(LambdaLR):
    """A power of what is left of the run, times a linear warm-up (mmseg's poly; BEiT's segmentation).

    Args:
        optimizer: its learning rates are those that the decay starts from.
        total_steps: optimizer steps of the whole run.
        warmup_steps: in which the rate grows from a millionth of what the decay says; 0: none. BEiT: 1500 of 160,000.
        power: of the share of the steps that is left, above 0. 1: a straight line.
        final: last learning rate as a share of the first, in [0, 1].

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 1500, power: float = 1.0, final: float = 0.0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}.")
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power}.")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be a share of the first rate in [0, 1], got {final}.")

        def factor(step: int) -> float:
            left = 1 - min(step / max(total_steps, 1), 1.0)
            decayed = final + (1 - final) * left**power
            return decayed * (FIRST_RATE + (1 - FIRST_RATE) * min(step / warmup_steps, 1.0) if warmup_steps else 1.0)

        super().__init__(optimizer, factor)


def _check_shares(warmup: float, final: float) -> None:
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a share of the steps in [0, 1), got {warmup}.")
    if not 0 <= final <= 1:
        raise ValueError(f"final must be a share of the peak in [0, 1], got {final}.")


def _after_warmup(warmup_steps: float, total_steps: int, factor: Callable[[float], float]) -> Callable[[int], float]:
    """Return the share of the peak at a step: a straight line in the warm-up, then ``factor`` of the share of the steps after it left."""

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)  # the first step learns too
        return factor(1 - min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0))

    return share
