"""`multimodal import` and `multimodal export`, as a user calls them."""

import json
import subprocess
import sys

import pytest
import torch

from multimodal.cli import main
from multimodal.pretrained import from_pretrained


def test_import_writes_a_folder_and_says_what_it_did(foreign, image_model, images, tmp_path, capsys):
    assert main(["import", str(foreign), "--to", str(tmp_path / "own")]) == 0
    said = capsys.readouterr().out
    assert "beit in the layout of unilm" in said
    assert "licence of the published weights: MIT" in said
    assert f"{tmp_path / 'own'}: PretrainedModel" in said
    assert torch.equal(from_pretrained(tmp_path / "own")(images), image_model(images))


def test_import_brings_the_tokenizer_of_words_along(foreign, tmp_path, capsys):
    (foreign.parent / "tokenizer.json").write_text("{}")
    assert main(["import", str(foreign), "--to", str(tmp_path / "own")]) == 0
    assert (tmp_path / "own" / "tokenizer.json").read_text() == "{}"


def test_import_at_another_image_size(foreign, tmp_path, capsys):
    assert main(["import", str(foreign), "--to", str(tmp_path / "own"), "--image-size", "64"]) == 0
    model = from_pretrained(tmp_path / "own")
    assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 5)
    assert "Resampled: positions to 64 pixels" in (tmp_path / "own" / "README.md").read_text()


def test_import_refuses_in_one_line(foreign, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        ([str(foreign), "--to", str(tmp_path / "full")], "exists and is not an empty folder"),
        ([str(tmp_path / "nowhere.pth"), "--to", str(tmp_path / "a")], "no such file or folder"),
        ([str(foreign), "--to", str(tmp_path / "a"), "--set", "statistics"], "--set takes NAME=VALUE"),
        ([str(foreign), "--to", str(tmp_path / "a"), "--image-size", "50"], "must be a multiple of the patch size 16, got 50"),
    ):
        assert main(["import", *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_export_lists_what_a_model_can_become(foreign, capsys):
    assert main(["export", str(foreign)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert {"multimodal", "torch-export", "onnx", "onnx-int8", "transformers (family beit)", "unilm (family beit)"} <= set(said)


@pytest.mark.parametrize("form", ["transformers", "torch-export", "onnx", "onnx-int8"])
def test_export_writes_each_form(foreign, tmp_path, capsys, form):
    assert main(["export", str(foreign), "--format", form, "--to", str(tmp_path / "out")]) == 0
    names = {"transformers": "model.safetensors", "torch-export": "model.pt2", "onnx": "model.onnx", "onnx-int8": "model.int8.onnx"}
    assert (tmp_path / "out" / names[form]).is_file()
    if form == "transformers":
        assert json.loads((tmp_path / "out" / "config.json").read_text())["image_size"] == 48
    if form in ("torch-export", "onnx"):
        assert float(capsys.readouterr().out.split("difference ")[1].split()[0]) < 1e-5


def test_export_needs_a_folder(foreign, capsys):
    with pytest.raises(SystemExit):
        main(["export", str(foreign), "--format", "onnx"])
    assert "--to is needed" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "try: main(['import', '--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", f"import sys; from multimodal.cli import main\n{code}"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "hf-hub:OWNER/NAME" in result.stdout
