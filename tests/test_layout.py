"""The three top-level folders import under one name each, hide nobody else's package, and no shared code names a modality."""

import ast
import builtins
import dis
import importlib
import inspect
import subprocess
import symtable
import sys
from pathlib import Path
from types import CodeType

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MODALITIES = sorted(path.parent.name for path in (ROOT / "tokenizers").glob("*/__init__.py") if path.parent.name != "quantizers")
KINDS = ("pretrain", "tokenizer", "finetune", "probe", "predict")
RECIPES = sorted(path for folder in KINDS for path in (ROOT / "configs" / folder).glob("*.yaml"))

THEIRS = """
import sys
import tokenizers, transformers
assert "site-packages" in tokenizers.__file__, tokenizers.__file__
assert hasattr(tokenizers, "Tokenizer")
from transformers import BertTokenizerFast, PreTrainedTokenizerFast
assert BertTokenizerFast.__mro__ and PreTrainedTokenizerFast.is_fast
"""
OURS = """
import multimodal.tokenizers.image, multimodal.datamodules.shard_datamodule
import multimodal.tokenizers, multimodal.datamodules
assert list(multimodal.tokenizers.__path__)[0].endswith("tokenizers"), multimodal.tokenizers.__path__
assert "image" not in sys.modules and "datamodules" not in sys.modules
"""


def run(*command: str, cwd: Path) -> None:
    result = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("order", [THEIRS + OURS, "import sys\n" + OURS + THEIRS], ids=["theirs first", "ours first"])
def test_both_import_from_the_root(order):
    run("-c", order, cwd=ROOT)


def test_both_import_from_elsewhere_with_the_root_on_the_path(tmp_path):
    (tmp_path / "both.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + THEIRS + OURS)
    run("-m", "both", cwd=tmp_path)


def test_the_command_starts_as_a_module_from_the_root():
    run("-m", "multimodal", "--version", cwd=ROOT)


@pytest.mark.parametrize("folder", ["tokenizers", "datamodules"])
def test_the_top_level_folders_are_no_packages(folder):
    assert not (ROOT / folder / "__init__.py").exists(), f"{folder}/__init__.py would make `import {folder}` ours"


def test_there_are_modalities():
    assert "image" in MODALITIES


def constants(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


FORMATS = ROOT / "multimodal" / "pretrained" / "formats"
"""A published checkpoint is of a modality: its reader must say which."""


@pytest.mark.parametrize("folder", ["multimodal", "datamodules"])
def test_shared_code_names_no_modality(folder):
    files = [path for path in sorted((ROOT / folder).rglob("*.py")) if FORMATS not in path.parents]
    assert files
    found = {f"{path.relative_to(ROOT)}: {name!r}" for path in files for name in constants(path) & set(MODALITIES)}
    assert not found


def test_shared_code_imports_no_modality():
    for path in [*(ROOT / "multimodal").rglob("*.py"), *(ROOT / "datamodules").glob("*.py")]:
        nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {
            name for node in nodes for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not [name for name in names if name.startswith(tuple(f"multimodal.tokenizers.{modality}" for modality in MODALITIES))], path


def test_setup_lists_every_folder_of_code(monkeypatch):
    listed = {}
    monkeypatch.setattr("setuptools.setup", lambda **settings: listed.update(settings))
    monkeypatch.chdir(ROOT)
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {})
    folders = {path.parent.relative_to(ROOT) for top in ("multimodal", "tokenizers", "datamodules") for path in (ROOT / top).rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders}
    expected = {name if name.split(".")[0] == "multimodal" else f"multimodal.{name}" for name in names}
    missing = expected - set(listed["packages"])
    assert expected and not missing
    assert listed["package_dir"] == {"multimodal.tokenizers": "tokenizers", "multimodal.datamodules": "datamodules"}


def read_config(path: Path) -> object:
    """Return what a config says, with the files it names by relative path put in place."""
    return resolve(yaml.safe_load(path.read_text(encoding="utf-8")), path.parent)


def resolve(value: object, folder: Path) -> object:
    if isinstance(value, dict):
        return {name: resolve(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [resolve(part, folder) for part in value]
    if isinstance(value, str) and value.endswith(".yaml"):
        assert (folder / value).is_file(), f"{value} not found from {folder}"
        return read_config(folder / value)
    return value


def class_paths(value: object) -> list[tuple[str, dict]]:
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    own = [(value["class_path"], value.get("init_args") or {})] if isinstance(value, dict) and "class_path" in value else []
    return own + [found for part in parts for found in class_paths(part)]


def test_there_are_recipes():
    assert {path.parent.name for path in RECIPES} >= {"pretrain", "tokenizer"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipes_name_only_what_imports(path):
    named = class_paths(read_config(path))
    assert len(named) >= 3
    for class_path, settings in named:
        module, _, name = class_path.rpartition(".")
        target = getattr(importlib.import_module(module), name)
        parameters = inspect.signature(target).parameters
        unknown = set(settings) - set(parameters)
        assert not unknown or any(p.kind is p.VAR_KEYWORD for p in parameters.values()), f"{class_path} has no {unknown}"


def globals_used(code: CodeType) -> set[str]:
    own = {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(globals_used(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def test_every_name_that_code_uses_is_defined():
    """Ruff cannot tell: names in jaxtyping's annotations are none, so that its check for undefined ones is off."""
    known = {*dir(builtins), "__file__", "__name__", "__path__", "__module__", "__qualname__", "__annotations__"}
    missing = []
    for path in sorted(path for folder in ("multimodal", "tokenizers", "datamodules") for path in (ROOT / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tables = [symtable.symtable(source, str(path), "exec")]
        defined = set()
        while tables:  # names of class bodies count too: they are loaded like global ones
            table = tables.pop()
            tables += table.get_children()
            if table.get_type() in ("module", "class"):
                defined |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        missing += [f"{path.relative_to(ROOT)}: {name}" for name in globals_used(compile(source, str(path), "exec")) - defined - known]
    assert not missing
