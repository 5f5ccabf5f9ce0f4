"""What tokenizers share that are trained to keep a teacher's features in their codes.

Letters in shapes: n tokens or items, t width of the teacher's features.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from multimodal.protocols import Teacher
from multimodal.tokenizers.pretrained import TokenizerLoss
from multimodal.tokenizers.quantizers import Quantized


def distillation_loss(made: Float[Tensor, "n t"], wanted: Float[Tensor, "n t"], quantized: Quantized) -> TokenizerLoss:
    """Return the mean of 1 - cosine of what was made of codes and the teacher's features, and the quantizer's own loss."""
    distillation = (1 - F.cosine_similarity(made.float(), wanted, dim=-1)).mean()
    return TokenizerLoss(distillation + quantized.loss, quantized.ids, {"distillation": distillation, **quantized.parts})


def teacher_width(teacher: Teacher | None, dim: int | None) -> int:
    """Return the width of the features that codes are to keep.

    Args:
        teacher: if there is one.
        dim: as it is set; None: that of the teacher.

    Raises:
        ValueError: neither says it, or they disagree.
    """
    if teacher is None and dim is not None:
        return dim
    if teacher is None or dim not in (None, teacher.dim):
        known = "there is no teacher to take it from" if teacher is None else f"the teacher's features have {teacher.dim} values"
        raise ValueError(f"teacher_dim is {dim}, and {known}.")
    return teacher.dim
