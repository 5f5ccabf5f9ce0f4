"""AdamW in one pass over memory."""

from typing import Any

from torch.optim import AdamW


class FusedAdamW(AdamW):
    """PyTorch's fused AdamW (https://arxiv.org/abs/1711.05101), several times as fast on a processor as its loop over parameters.

    PyTorch's own undoes the scale of a gradient scaler inside the step, for which Lightning refuses ``gradient_clip_val`` in all mixed
    precision, bfloat16 included, where there is no scaler. This one leaves that to Lightning, and can be clipped.

    Args:
        params: parameters, or groups of them, on a processor or a GPU.
        lr: learning rate.
        betas: how much of the running means of gradients and their squares is kept in a step, in [0, 1).
        eps: added to the root of the mean square.
        weight_decay: share of a weight that a step takes away, in learning rates.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False
