"""The commands at the head of a recipe lead to it: they write the folders that it reads, and point to text that exists."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.test_layout import RECIPES, ROOT, class_paths, read_config


@cache
def header_of(path: Path) -> str:
    return "\n".join(line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))


@cache
def runs() -> dict[str, Path]:
    return {config["run"]: path for path in RECIPES if "run" in (config := yaml.safe_load(path.read_text(encoding="utf-8")))}


@cache
def folders_read(path: Path) -> set[str]:
    """Return the folders of models, tokenizers and teachers that a recipe names."""
    return {settings["folder"] for _, settings in class_paths(read_config(path)) if "folder" in settings}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_folders_that_a_recipe_reads_are_written_by_the_commands_before_it(path):
    header, written = header_of(path), runs()
    for folder in folders_read(path):
        assert folder not in written, f"{folder} is where {written[folder].name} runs: an export cannot be written there"
        if folder.endswith("/tokenizer"):
            assert folder.removesuffix("/tokenizer") in written, f"{folder}: no recipe runs there"
        else:
            assert re.search(rf"--to {re.escape(folder)}(?![\w/])|(?<!\S){re.escape(folder)} holds ", header), f"nothing writes {folder}"


def test_recipes_read_folders():
    assert sum(bool(folders_read(path)) for path in RECIPES) > 15


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_header_points_to_is_there(path):
    header = header_of(path)
    for name, section in re.findall(r"(docs/\w+\.md), ([A-Z][\w ]*)", header):
        assert re.search(rf"^#+ {section}$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE), f"{name} has no section {section!r}"
    for name in re.findall(r"(?<![\w/])(?:configs|benchmarks|docs)/[\w/]+\.(?:yaml|py|md)", header):
        assert (ROOT / name).is_file(), name
    if own := re.findall(r"multimodal fit --config (\S+?\.yaml)", header):
        assert str(path.relative_to(ROOT)) in own
