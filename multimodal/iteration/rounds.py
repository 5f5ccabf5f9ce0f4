"""The stages of a round, each done once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from multimodal.iteration.child import run_command
from multimodal.iteration.lineage import Lineage, Made, content_hash, hash_of
from multimodal.iteration.plan import IterationPlan, RoundFolder

INDEX = "index.json"


class Rounds:
    """Runs rounds; what is done already is not done again, and what was begun goes on.

    Args:
        plan: the recipes.
        root: folder of the run; made if it is not there.
        listener: told the number of a round and what is about to be done.
        workers: processes that make stored ids; None: the default of ``multimodal shards tokenize``.

    Raises:
        ValueError: the folder holds a run of other recipes.
    """

    def __init__(
        self, plan: IterationPlan, root: Path, listener: Callable[[int, str], object] | None = None, workers: int | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.plan, self.root, self.workers = plan, root, workers
        self.tell = listener or (lambda number, what: None)
        self.lineage = Lineage(root, plan.fingerprint())

    def folder(self, number: int) -> RoundFolder:
        """Return where a round puts what it makes."""
        return RoundFolder(self.root, number)

    def run(self, number: int) -> None:
        """Do what is left to do of a round; the rounds before it must be done.

        Raises:
            CommandError: a stage ended with an error or was stopped.
            ValueError: what an earlier stage made has changed.
        """
        folder = self.folder(number)
        if number > 1 and self.plan.is_supervised(number):
            self._stage(number - 1, "classifier", [self.folder(number - 1).classifier], lambda: self._finetune(number - 1))
        self._stage(number, "tokenizer", [folder.tokenizer], lambda: self._make_tokenizer(number))
        over = self.lineage.find(number, "model") is not None
        if self.plan.crops and not over:
            self._stage(number, "ids", self._id_folders(number), lambda: self._store_ids(number))
        self._stage(number, "model", [folder.model], lambda: self._pretrain(number))
        stored = self.lineage.find(number, "ids")
        if stored and any(stored.made.values()) and not self.plan.keep_ids:
            self.lineage.forget(stored)
            shutil.rmtree(folder.ids)

    def _stage(self, number: int, name: str, made: list[Path], work: Callable[[], dict[str, str]]) -> None:
        """Do a stage unless it is done, and note it with what it was made from."""
        if self.lineage.find(number, name) is not None:
            return
        self.tell(number, name)
        made_from = work()
        found = {str(path.relative_to(self.root)): content_hash(path) for path in made}
        self.lineage.add(Made(number, name, found, made_from))

    def _make_tokenizer(self, number: int) -> dict[str, str]:
        folder = self.folder(number)
        if number == 1:
            self._first_tokenizer(folder.tokenizer)
            return {"recipe": hash_of({"tokenizer": self.plan.first_tokenizer})}
        before = self.folder(number - 1)
        teacher = before.classifier if self.plan.is_supervised(number) else before.model
        config = self.plan.tokenizer_config(teacher, number, folder.tokenizer_run)
        self._fit(config, folder.path / "tokenizer.yaml")
        if not (folder.tokenizer / "config.json").is_file():  # stopped after its last step, before it was written
            self._save_tokenizer(folder)
        return {"teacher": content_hash(teacher), "recipe": hash_of(self.plan.tokenizer), **self._sources()}

    def _first_tokenizer(self, to: Path) -> None:
        from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe

        named = self.plan.first_tokenizer
        settings = {"class_path": named} if isinstance(named, str) else named
        _, tokenizer = TokenizerRecipe(json.dumps(self.plan.transform), json.dumps(settings)).build()
        if not hasattr(tokenizer, "save_pretrained"):
            raise ValueError(f"a {type(tokenizer).__name__} cannot be saved: name another tokenizer for the first round.")
        tokenizer.save_pretrained(to)

    def _save_tokenizer(self, folder: RoundFolder) -> None:
        from multimodal.lightning_cli import load_run

        training: Any = load_run(folder.tokenizer_run)[0]
        training.tokenizer.save_pretrained(folder.tokenizer)

    def _id_folders(self, number: int) -> list[Path]:
        return [self.folder(number).ids / str(place) for place in range(len(self.plan.sources))]

    def _store_ids(self, number: int) -> dict[str, str]:
        folder, data = self.folder(number), self.plan.data_settings
        config = folder.path / "transform.yaml"
        _write_yaml(config, self.plan.transform)
        for source, target in zip(self.plan.sources, self._id_folders(number), strict=True):
            settings = {
                "--to": str(target),
                "--modality": self.plan.modality,
                "--transform": str(config),
                "--tokenizer": str(folder.tokenizer),
                "--crops": str(self.plan.crops),
                "--train-splits": str(data.get("train_split", "train")),
                "--on-error": str(data.get("on_error", "raise")),
            }
            if self.workers is not None:
                settings["--workers"] = str(self.workers)
            run_command("shards", "tokenize", source, *(word for pair in settings.items() for word in pair))
        return {"tokenizer": content_hash(folder.tokenizer), **self._sources()}

    def _pretrain(self, number: int) -> dict[str, str]:
        folder = self.folder(number)
        shards = self._id_folders(number) if self.plan.crops else []
        config = self.plan.pretrain_config(folder.tokenizer, shards, folder.pretraining)
        self._fit(config, folder.path / "pretrain.yaml")
        self._export(folder.pretraining, folder.model)
        return {"tokenizer": content_hash(folder.tokenizer), "recipe": hash_of(self.plan.pretrain), **self._sources()}

    def _finetune(self, number: int) -> dict[str, str]:
        folder = self.folder(number)
        config = self.plan.finetune_config(folder.model, folder.finetuning)
        self._fit(config, folder.path / "finetune.yaml")
        self._export(folder.finetuning, folder.classifier)
        return {"model": content_hash(folder.model), "recipe": hash_of(self.plan.finetune or {})}

    def _fit(self, config: dict[str, Any], path: Path) -> None:
        """Begin a run, or go on with it."""
        _write_yaml(path, config)
        begun = (Path(config["run"]) / "checkpoints").is_dir()
        run_command("fit", "--config", str(path), *(("--ckpt_path", "last") if begun else ()))

    def _export(self, run: Path, to: Path) -> None:
        """Write the model of a run; the folder appears whole or not at all."""
        partial = to.with_name(to.name + ".partial")
        for left_behind in (partial, to):
            shutil.rmtree(left_behind, ignore_errors=True)
        run_command("export", str(run), "--format", "multimodal", "--to", str(partial), quiet=True)
        partial.rename(to)

    def _sources(self) -> dict[str, str]:
        return {f"shards {source}": content_hash(Path(source) / INDEX) for source in self.plan.sources}


def _write_yaml(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
