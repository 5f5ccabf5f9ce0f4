import subprocess
import sys

import pytest

from multimodal.datamodules.commands import main


def test_write_then_inspect(make_source, tmp_path, capsys):
    source, target = make_source(count=60), tmp_path / "out"
    (source / "notes").write_text("no extension")
    assert main(["write", str(source), "--to", str(target), "--split", "train=0.5,val=0.5", "--samples-per-shard", "10"]) == 0
    written = capsys.readouterr().out
    assert main(["inspect", str(target)]) == 0
    shown = capsys.readouterr().out
    for text in ("train", "val", "num", "json", "c3", "15", "c0/00", "60"):
        assert text in written
        assert text in shown
    assert "not taken: 1 files without extension" in written


def test_skipped_files_are_listed(make_source, tmp_path, capsys):
    source = make_source()
    (source / "c0" / "bad.num").touch()
    assert main(["write", str(source), "--to", str(tmp_path / "out"), "--on-error", "skip"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "left out 1 files:" in out
    assert "the file is empty" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["write", "{tmp}/none", "--to", "{tmp}/out"], "is not a folder"),
        (["write", "{source}", "--to", "{source}/out"], "lies in the source folder"),
        (["write", "{source}", "--to", "{tmp}/out", "--split", "train=2"], "share in (0, 1]"),
        (["write", "{source}", "--to", "{tmp}/out", "--split", "folders"], "needs a top level of only train, val, test"),
        (["write", "{source}", "--to", "{tmp}/out", "--samples-per-shard", "0"], "--samples-per-shard must be at least 1"),
        (["write", "{source}", "--to", "{tmp}/out", "--extensions", "abc"], "extensions there: num (40)"),
        (["write", "{source}", "--to", "{source}/c0/0000.num"], "lies in the source folder"),
        (["write", "{source}", "--to", "{tmp}/file"], "is not a folder"),
        (["write", "{source}"], "required: --to"),
        (["write", "{source}", "--to", "x", "--sample", "3"], "unrecognized arguments: --sample 3"),
        (["inspect", "{tmp}"], "index.json does not exist"),
        ([], "are required: {write,"),
    ],
)
def test_errors_are_one_line(make_source, tmp_path, capsys, arguments, message):
    source = make_source()
    (tmp_path / "file").touch()
    filled = [argument.replace("{tmp}", str(tmp_path)).replace("{source}", str(source)) for argument in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_help_writing_and_inspecting_do_not_import_torch(make_source, tmp_path):
    code = """
import sys
from multimodal.datamodules.commands import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""
    out = str(tmp_path / "out")
    for arguments in (["write", "--help"], ["write", str(make_source()), "--to", out], ["inspect", out]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
