import hashlib
import json
import os

import pytest
import webdataset

from multimodal.datamodules.commands import main
from multimodal.datamodules.jobs.run_jobs import run_jobs
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.shards.index import ShardIndex


@pytest.fixture
def write(capsys):
    """Run the command in this process; return its exit code, output and error, with the spaces of tables closed up."""

    def run(source, target, *options):
        workers = [] if "--workers" in options else ["--workers", "0"]
        code = main(["write", str(source), "--to", str(target), *workers, *options])
        captured = capsys.readouterr()
        return code, " ".join(captured.out.split()), captured.err

    return run


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_second_run_says_that_all_is_written_and_changes_nothing(make_source, tmp_path, write):
    source, out = make_source(), tmp_path / "out"
    first = write(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    code, shown, _ = write(source, out)
    assert code == first[0] == 0
    assert shown.endswith("already written: nothing has changed since")
    assert "c0/0000" in first[1] or "40" in first[1]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def rewrite(source):
    path = source / "c0/0000.num"
    status = path.stat()
    path.write_text("9")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as an archive does that is unpacked again


def add(source):
    (source / "c0/more.num").write_text("1")


@pytest.mark.parametrize(
    ("change", "options"),
    [(rewrite, []), (add, []), (None, ["--samples-per-shard", "9"]), (None, ["--split", "train=1"]), (None, ["--split-by", "(.)"])],
)
def test_other_files_or_settings_are_refused_until_overwritten(make_source, tmp_path, write, change, options):
    source, out = make_source(), tmp_path / "out"
    write(source, out)
    before = hashes(out)
    if change:
        change(source)
    code, _, error = write(source, out, *options)
    assert code == 2
    assert "holds shards that were written from other files or with other settings" in error
    assert error.count("\n") == 1
    assert hashes(out) == before
    assert write(source, out, "--overwrite", *options)[0] == 0
    write(source, tmp_path / "fresh", *options)
    assert hashes(out) == hashes(tmp_path / "fresh")


def test_a_lost_shard_is_written_again_only_when_told(make_source, tmp_path, write):
    source, out = make_source(), tmp_path / "out"
    write(source, out)
    before = hashes(out)
    (out / "train-000000.tar").unlink()
    code, _, error = write(source, out)
    assert (code, error.count("\n")) == (2, 1)
    assert "are missing: train-000000.tar. Write into" in error and "--overwrite" in error
    assert write(source, out, "--overwrite")[0] == 0
    assert hashes(out) == before


def test_every_source_is_recognised_and_read_by_plain_webdataset(make_source, tmp_path, write):
    source = make_source(count=30)
    write(source, tmp_path / "folder", "--split", "train=1")
    table = tmp_path / "list.csv"
    table.write_text("file,kind\n" + "".join(f"{path},k\n" for path in sorted(source.rglob("*.num"))))
    assert "manifest: columns of paths: file" in write(table, tmp_path / "manifest", "--split", "train=1", "--label-column", "kind")[1]
    write(tmp_path / "folder", tmp_path / "tars", "--samples-per-shard", "7")
    for name in ("folder", "manifest", "tars"):
        urls = [str(path) for path in sorted((tmp_path / name).glob("*.tar"))]
        read = {sample["__key__"]: int(sample["num"]) for sample in webdataset.WebDataset(urls, shardshuffle=False)}
        assert sorted(read.values()) == list(range(30)), name
    assert ShardIndex.load(tmp_path / "manifest").class_counts == {"k": 30}
    assert ShardIndex.load(tmp_path / "tars").class_counts == ShardIndex.load(tmp_path / "folder").class_counts


def test_parts_say_which_are_missing(make_source, tmp_path, write):
    source = make_source()
    options = ["--samples-per-shard", "5", "--part"]
    shown = write(source, tmp_path / "out", *options, "2/3")[1]
    assert "this part is written; the index follows when all parts are. Missing: 1, 3" in shown
    assert "Missing: 1" in write(source, tmp_path / "out", *options, "3/3")[1]
    assert "train" in write(source, tmp_path / "out", *options, "1/3")[1]
    write(source, tmp_path / "whole", "--samples-per-shard", "5")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert "already written" in write(source, tmp_path / "out", *options, "1/3")[1]


def test_duplicates_are_counted_and_listed(make_source, tmp_path, write):
    source = make_source(count=12)
    (source / "c9").mkdir()
    (source / "c9/copy.num").write_text("7")
    shown = write(source, tmp_path / "out", "--split", "train=1", "--deduplicate")[1]
    assert "left out 1 duplicates:" in shown
    assert "is equal to train: c" in shown
    assert ShardIndex.load(tmp_path / "out").num_samples("train") == 12
    assert "already written" in write(source, tmp_path / "out", "--split", "train=1", "--deduplicate")[1]


def test_shards_of_a_size_in_several_processes(make_source, tmp_path, write):
    source = make_source(count=60)
    write(source, tmp_path / "one", "--shard-size", "20kB")
    write(source, tmp_path / "two", "--shard-size", "20kB", "--workers", "2")
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert all(shard.bytes <= 21_024 for shard in ShardIndex.load(tmp_path / "two").shards("train"))


def test_a_process_that_dies_is_one_line(make_source, tmp_path, write, monkeypatch):
    def die(*_):
        raise ChildProcessError("worker process 7 was ended by signal 9")
        yield

    monkeypatch.setattr("multimodal.datamodules.jobs.folder_run.run_jobs", die)
    code, _, error = write(make_source(), tmp_path / "out")
    assert (code, error) == (2, "error: worker process 7 was ended by signal 9\n")
    assert run_jobs is not die


def test_merged_folders_by_a_pattern(tmp_path, write):
    for name in ("photos/cat/1.png", "voices/cat/1_fr.ogg", "voices/cat/1_de.ogg", "notes/cat/1.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    pattern = r"(?P<key>.+)_(?P<field>[a-z]{2}\.ogg)"
    assert write(tmp_path / "in", tmp_path / "out", "--merge-folders", "--field-pattern", pattern, "--split", "train=1")[0] == 0
    (sample,) = webdataset.WebDataset(str(tmp_path / "out/train-000000.tar"), shardshuffle=False)
    assert sample["__key__"] == "cat/1"
    assert {name for name in sample if "__" not in name} == {"png", "fr.ogg", "de.ogg", "txt", "json"}
    assert json.loads(sample["json"]) == {"label": "cat", "source": "voices/cat/1_de.ogg"}


def test_samples_without_a_required_field_are_left_out(make_source, tmp_path, write):
    source = make_source(count=12)
    for number in (0, 4, 8):
        (source / f"c0/{number:04d}.abc").write_text("x")
    shown = write(source, tmp_path / "out", "--require", "num,abc", "--split", "train=1")[1]
    assert "folder: left out 9 samples that lack a required field: abc (9)" in shown
    index = ShardIndex.load(tmp_path / "out")
    assert {name: info.samples for name, info in index.fields.items()} == {"num": 3, "abc": 3, "json": 3}
    code, _, error = write(source, tmp_path / "none", "--require", "num,xyz")
    assert (code, error) == (2, "error: no sample has all of the fields num, xyz; how many of 12 lack which: xyz (12).\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "x"], "--root has no effect on a source of kind folder: it is for manifest"),
        (["--text-columns", "a"], "--text-columns has no effect on a source of kind folder"),
        (["--source", "manifest"], "a manifest ends in .csv"),
        (["--source", "huggingface"], "is no data set that save_to_disk"),
        (["--source", "tars"], "holds no tars"),
        (["--part", "3/2"], "is not I/N with I from 1 to N"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--shard-size", "big"], "is not a size"),
        (["--split-by", "column:x"], "has no 'x'; it has label, source"),
        (["--split", "train=1", "--split-column", "x"], "no effect on a source of kind folder"),
        (["--field-pattern", "x"], "needs groups key and field"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_one_line(make_source, tmp_path, write, options, message):
    code, _, error = write(make_source(), tmp_path / "out", *options)
    assert code == 2
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_folders_are_no_source(make_source, tmp_path, capsys):
    one, two = (str(make_source(name)) for name in ("one", "two"))
    assert main(["write", one, two, "--to", str(tmp_path / "out")]) == 2
    assert "holds no tars" in capsys.readouterr().err


def test_the_help_shows_an_example_of_every_source(capsys):
    assert main(["write", "--help"]) == 0
    shown = capsys.readouterr().out
    for kind in ("folder", "manifest", "huggingface", "tars"):
        assert f"\n{kind}  " in shown
    assert shown.count("multimodal shards write") >= 6


def test_several_labels_reach_index_inspect_and_batches(make_source, tmp_path, write, transforms, capsys):
    files = sorted(make_source(count=6).rglob("*.num"))
    cells = ["dog|rain", "rain", "|", "", "rain|wind", "dog"]
    table = tmp_path / "list.csv"
    table.write_text("file,events\n" + "".join(f"{path},{cell}\n" for path, cell in zip(files, cells, strict=True)))
    assert write(table, tmp_path / "out", "--split", "train=1", "--labels-column", "events")[0] == 0
    assert ShardIndex.load(tmp_path / "out").tag_counts == {"dog": 2, "rain": 3, "wind": 1}
    batch = next(iter(ShardDataModule(str(tmp_path / "out"), transforms, 6, val_split=None).evaluation_dataloader("train")))
    assert main(["inspect", str(tmp_path / "out")]) == 0 and "one of several labels" in capsys.readouterr().out
    rows = sorted(batch.labels["labels"].tolist())
    assert rows == [[-1, -1, -1], [0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0]]


def test_options_of_labels_without_effect_are_refused(make_source, tmp_path, write):
    source = make_source(count=6)
    code, _, error = write(source, tmp_path / "out", "--labels-column", "events")
    assert code == 2 and "--labels-column has no effect on a source of kind folder: it is for manifest" in error
    code, _, error = write(source, tmp_path / "out", "--labels-separator", ";")
    assert code == 2 and "--labels-separator has no effect without --labels-column" in error
