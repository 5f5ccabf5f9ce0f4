import io
import json

import pytest
from rich.console import Console

from multimodal.datamodules.checking.summary import print_examples, print_index
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex, StoredIds


def shown(index, count=2):
    """What is printed on a wide page, with the words one blank apart, and the problems."""
    page = Console(file=io.StringIO(), width=300)
    print_index(index, page)
    problems = print_examples(index, count, page)
    return " ".join(page.file.getvalue().replace("│", " ").split()), problems


@pytest.fixture
def pairs(pack, media):
    """Six samples, two of them without a picture, one with a caption of markup."""
    samples = [(f"s{number}", {"png": media["png"], "txt": media["txt"], "npy": media["npy"]}) for number in range(6)]
    samples[1][1]["txt"] = b"[bold]a [/nothing]\x1b[2J picture"
    for number in (2, 5):
        del samples[number][1]["png"]
    return pack({"train": samples, "val": []})


def test_shares_combinations_and_examples(pairs):
    words, problems = shown(ShardIndex.load(pairs))
    assert problems == []
    assert "png image/png 4 66.7 %" in words
    assert "txt text/plain 6 100 %" in words
    assert "npy + png + txt 4 train-000000.tar npy + txt 2 train-000000.tar" in words
    assert "a little cat, ein Kätzchen" in words
    assert "int32 20 x 3" in words
    assert "val 0 0 0 B" in words


def test_what_data_say_is_neither_markup_nor_a_command_to_the_terminal(pairs):
    words, _ = shown(ShardIndex.load(pairs))
    assert "[bold]a [/nothing]\\x1b[2J picture" in words
    assert "\x1b" not in words


def test_stored_ids_are_described(pairs):
    index = ShardIndex.load(pairs)
    index.ids["m"] = StoredIds("0123456789abcdef", "some.place.Codebook", [512, 4], "view", crops=3, train=["train"])
    words, _ = shown(index)
    assert "m Codebook 0123456789ab 512 x 4 3 for training in train; one elsewhere" in words


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"num": None}, "num", "the field is missing; the index says that every sample has it"),
        ({"xyz": b"1"}, "xyz", "the index knows no such field"),
        ({"json": b"[1]"}, "json", "not a JSON object"),
        ({"bin": b""}, "bin", "the field is empty"),
        ({"npy": b"no array"}, "npy", "not an array"),
        ({"txt": b"caf\xe9"}, "txt", "not UTF-8: unexpected end of data at byte 3"),
    ],
)
def test_faults_of_the_first_samples_are_named(pack, repack, tar_of, numbers, capsys, fields, field, reason):
    folder = pack({"train": numbers})
    (key, first), *rest = numbers
    damaged = {name: data for name, data in (first | fields).items() if data is not None}
    members = [(f"{key}.{name}", data) for key, sample in [(key, damaged), *rest] for name, data in sample.items()]
    repack(folder, tar_of(members))
    _, problems = shown(ShardIndex.load(folder))
    assert any(problem.field == field and reason in problem.reason for problem in problems)
    assert {problem.key for problem in problems} == {"c0/0000"}
    assert main(["inspect", str(folder)]) == 1
    assert "problem: shard train-000000.tar, key 'c0/0000'" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--examples", "0"]) == 0


def test_a_damaged_shard_is_named(pack, numbers, capsys):
    folder = pack({"train": numbers})
    (folder / "train-000000.tar").write_bytes(b"x" * 9000)
    assert main(["inspect", str(folder)]) == 1
    assert "the index says 20 samples, the shard holds 0" in " ".join(capsys.readouterr().out.split())


def test_an_index_without_samples_can_be_shown(tmp_path):
    empty = {"version": 2, "splits": {}, "fields": {"a": {"samples": 0, "bytes": 0, "type": "x"}}, "classes": {}, "ids": {}, "writer": {}}
    (tmp_path / "index.json").write_text(json.dumps(empty))
    assert main(["inspect", str(tmp_path)]) == 0


def test_a_negative_number_of_examples_is_refused(pairs, capsys):
    assert main(["inspect", str(pairs), "--examples", "-1"]) == 2
    assert capsys.readouterr().err == "error: --examples must be at least 0, got -1.\n"
