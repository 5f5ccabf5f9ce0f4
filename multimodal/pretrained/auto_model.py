"""Saved models in transformers: after ``import multimodal.pretrained.auto_model``, ``AutoModel.from_pretrained(folder)`` loads one.

Letters in shapes: b samples, m tokens of a sample with class and register tokens, d width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from multimodal.pretrained.folder import KIND, load, read_settings
from multimodal.pretrained.loading import HUB, fetch
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings

OWN = ("encoder", "embeds", "heads", "transforms", "experts", "tied", "labels", "origin")


class MultimodalConfig(PretrainedConfig):
    """The config of a saved model: its settings beside what transformers keeps.

    Args:
        settings: of ``ModelSettings``, and those of ``PretrainedConfig``.
    """

    model_type = KIND

    def __init__(self, **settings: Any) -> None:
        own = {name: settings.pop(name) for name in OWN if name in settings}
        super().__init__(**settings)
        for name, value in own.items():
            setattr(self, name, value)

    def to_settings(self) -> ModelSettings:
        """Return how to build the model."""
        return ModelSettings.from_json({name: getattr(self, name) for name in OWN if hasattr(self, name)})


class MultimodalModel(PreTrainedModel):
    """A ``PretrainedModel`` as transformers wants one. Its tensors have the same names, so that both read the same folder.

    Args:
        config: of the model.
    """

    config_class = MultimodalConfig
    base_model_prefix = ""

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__(config)
        model = PretrainedModel(config.to_settings())
        self.encoder, self.embeds, self.heads = model.encoder, model.embeds, model.heads
        self._all = [model]  # in a list: a module of its own would store every tensor under two names
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **options: Any) -> Self:  # type: ignore[override]
        """Load a saved model: a folder, or a name on the hub, which is downloaded as transformers does.

        Args:
            pretrained_model_name_or_path: of the folder or on the hub.
            args: none is used.
            options: ``dtype`` is; others of transformers have no effect on a model that is loaded whole.

        Raises:
            ValueError: nothing is there, or it cannot be read.
        """
        path = Path(pretrained_model_name_or_path)
        folder = path if path.is_dir() else fetch(f"{HUB}{pretrained_model_name_or_path}")
        model = cls(MultimodalConfig(**read_settings(folder).to_json()))
        model.load_state_dict(load(folder).state_dict())
        dtype = options.get("dtype", options.get("torch_dtype"))
        return (model if dtype in (None, "auto") else model.to(dtype)).eval()

    def _init_weights(self, module: Any) -> None:
        """Leave the first values as they were drawn when the parts were built."""

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """Return the tokens after the encoder, ``(b, m, d)``.

        Args:
            pixel_values: ``(b, channels, height, width)`` of 0 to 255, for an encoder of items that are grids.
            input_ids: ``(b, l)`` or ``(b, l, fields)``, padded, for an encoder of sequences.
            attention_mask: ``(b, l)``, 1 at real tokens.
            return_dict: must not be False.

        Raises:
            ValueError: not exactly one of the inputs is given, or the model has several modalities (use ``PretrainedModel.encode``).
        """
        if (pixel_values is None) == (input_ids is None):
            raise ValueError("give pixel_values or input_ids, and not both.")
        model = self._all[0]
        if pixel_values is not None:
            return BaseModelOutput(last_hidden_state=model.forward_features(pixel_values))
        assert input_ids is not None
        return BaseModelOutput(last_hidden_state=model.forward_padded(input_ids, None if attention_mask is None else attention_mask.bool()))


AutoConfig.register(KIND, MultimodalConfig)
AutoModel.register(MultimodalConfig, MultimodalModel)
