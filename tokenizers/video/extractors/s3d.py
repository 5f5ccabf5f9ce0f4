"""S3D, a convolutional network for the actions in films, as torchvision builds it (https://arxiv.org/abs/1712.04851).

Letters in shapes: b clips, f pictures of a clip, h height, w width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models.video import S3D

from multimodal.pretrained.checkpoint import read_checkpoint
from multimodal.tokenizers.video.extractors.extractor import ClipExtractor

WIDTH = 1024
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
"""Of Kinetics-400, as torchvision's weights were trained."""
CLASSIFIER = "classifier."
COUNTERS = ".num_batches_tracked"
SHOWN = 4


class S3DExtractor(ClipExtractor):
    """What S3D makes of a clip before its classifier, averaged over time and space: 1024 numbers, as VideoBERT's clips are.

    Nothing is downloaded. torchvision's weights of Kinetics-400 are the file ``s3d-d76dad2f.pth`` of its model hub; they were trained with
    pictures squeezed to 256 x 256 of which the middle 224 x 224 were seen, the defaults of ``ClipWindows``. Their classifier is left out.

    Args:
        weights: path of a state dict with torchvision's names: ``.safetensors``, or a file of ``torch.save``, of which nothing is run.
        untrained: take random weights drawn from ``seed`` in place of a file, to try things out: features then mean nothing.
        seed: of those weights.
        mean: of each channel, of pixels scaled to [0, 1].
        std: divides after that.

    Raises:
        ValueError: there is no such file, it holds other weights, or neither or both of weights and ``untrained`` are named.
    """

    min_frames = 14  # S3D's own limit: fewer pictures leave it no two moments to pool

    def __init__(
        self,
        weights: str | None = None,
        untrained: bool = False,
        seed: int = 0,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
    ) -> None:
        super().__init__()
        if (weights is None) != untrained:
            raise ValueError(
                "S3D needs weights: set weights to the path of a file (torchvision's is s3d-d76dad2f.pth; nothing is downloaded), or "
                "untrained to true for random ones; one of the two."
            )
        self.features: nn.Module = S3D().features
        if weights is None:
            self._draw(seed)
        else:
            self._load(weights)
        self.mean_and_std = (tuple(mean), tuple(std))
        self.register_buffer("mean", torch.tensor(mean)[:, None, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def _draw(self, seed: int) -> None:
        """Draw weights that keep the size of what passes through them: torchvision's own beginning lets it vanish without training."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.features.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)

    def _load(self, path: str) -> None:
        """Load the weights; all of the file are used, but for the classifier, and none is missing.

        Raises:
            ValueError: the names or the shapes are not those of S3D.
        """
        found = {name: x for name, x in read_checkpoint(path).tensors.items() if not name.startswith(CLASSIFIER)}
        wanted = {f"features.{name}": x for name, x in self.features.state_dict().items()}
        counters = {name: x for name, x in wanted.items() if name.endswith(COUNTERS)}  # of batches seen in training: old files lack them
        found = {**counters, **found}
        problems = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
        problems += [f"{name} is unknown" for name in sorted(found.keys() - wanted.keys())]
        shapes = {name: (tuple(found[name].shape), tuple(wanted[name].shape)) for name in sorted(wanted.keys() & found.keys())}
        problems += [f"{name} has shape {own} instead of {right}" for name, (own, right) in shapes.items() if own != right]
        problems += [f"{name} is not finite" for name, x in sorted(found.items()) if not bool(x.isfinite().all())]
        if problems:
            more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise ValueError(f"{path} does not hold the weights of torchvision's S3D: {', '.join(problems[:SHOWN])}{more}.")
        self.features.load_state_dict({name.removeprefix("features."): x for name, x in found.items()})

    @property
    def dim(self) -> int:
        """Width of the features: 1024."""
        return WIDTH

    @property
    def settings(self) -> Mapping[str, Any]:
        """The statistics of the pixels."""
        return {"mean_and_std": self.mean_and_std}

    @torch.no_grad()
    def forward(self, values: UInt8[Tensor, "b f 3 h w"]) -> Float[Tensor, "b 1024"]:
        """Return the features of clips of at least 14 pictures.

        Raises:
            ValueError: fewer pictures.
        """
        self.check(values[0])
        pixels = values.transpose(1, 2).float() / 255  # b f 3 h w -> b 3 f h w
        x: Tensor = self.features((pixels - self.mean) / self.std)
        return x.mean((2, 3, 4))

    def train(self, mode: bool = True) -> S3DExtractor:
        """Stay frozen: statistics of batches would make a clip depend on the clips beside it."""
        super().train(False)
        return self
