"""The transform and the tokenizer of a modality, as configs name them."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.config_errors import shorten
from multimodal.config_files import read_config, read_yaml, resolved

if TYPE_CHECKING:
    from multimodal.protocols import Tokenizer, Transform

_LOAD = "multimodal.tokenizers.pretrained.load_tokenizer"


@dataclass(frozen=True)
class TokenizerRecipe:
    """How to build a transform and a tokenizer; small, so that every process builds its own.

    Args:
        transform: ``class_path`` and ``init_args``, as JSON.
        tokenizer: likewise; None: the tokenizer that the transform owns.
    """

    transform: str
    tokenizer: str | None = None

    @classmethod
    def from_files(cls, transform: str | Path, tokenizer: str | Path | None) -> TokenizerRecipe:
        """Return the recipe of a transform in a YAML file and a tokenizer in a folder.

        Raises:
            ValueError: the file cannot be read.
        """
        settings = None if tokenizer is None else {"class_path": _LOAD, "init_args": {"folder": str(tokenizer)}}
        return cls(json.dumps(read_config(Path(transform))), json.dumps(settings) if settings else None)

    @classmethod
    def from_config(cls, config: str | Path, name: str, tokenizer: str | Path | None = None) -> TokenizerRecipe:
        """Return the recipe of a modality in the config of a pretraining.

        Args:
            config: YAML file, as for ``multimodal fit``.
            name: of the modality.
            tokenizer: folder of the tokenizer, where it is not the config's.

        Raises:
            ValueError: a file cannot be read, or the config has no such modality.
        """
        path = Path(config)
        content = read_yaml(path)
        settings = resolved(content.get("model"), path.parent) if isinstance(content, dict) else None
        for key in ("init_args", "modalities"):
            settings = settings.get(key) if isinstance(settings, dict) else None
        if not isinstance(settings, dict) or name not in settings:
            there = f"; modalities there: {', '.join(settings)}" if isinstance(settings, dict) else ""
            raise ValueError(f"{path} has no model.init_args.modalities.{name}{there}.")
        modality = settings[name].get("init_args") if isinstance(settings[name], dict) else None
        if not isinstance(modality, dict) or not modality.get("transform"):
            raise ValueError(f"{path}: modality {name!r} has no transform.")
        if tokenizer is not None:
            modality = {**modality, "tokenizer": {"class_path": _LOAD, "init_args": {"folder": str(tokenizer)}}}
        named = modality.get("tokenizer")
        return cls(json.dumps(modality["transform"]), json.dumps(named) if named else None)

    def build(self) -> tuple[Transform, Tokenizer | None]:
        """Return the transform, and the tokenizer unless the transform owns it.

        Raises:
            ValueError: a class or a setting that does not exist, or a setting that the class refuses.
        """
        os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        from jsonargparse import ArgumentError, ArgumentParser

        from multimodal.protocols import Tokenizer, Transform

        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--transform", type=Transform)
        parser.add_argument("--tokenizer", type=Tokenizer | None, default=None)
        settings = {"transform": json.loads(self.transform), "tokenizer": None if self.tokenizer is None else json.loads(self.tokenizer)}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning, module="jsonargparse.*")
                built = parser.instantiate(parser.parse_object(settings))
        except (ArgumentError, ValueError) as error:
            raise ValueError(shorten(str(error))) from None
        if built.transform is None:
            raise ValueError("the transform is empty: name a class_path.")
        return built.transform, built.tokenizer
