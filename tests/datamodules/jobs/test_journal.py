import json

import pytest

from multimodal.datamodules.jobs.journal import JOURNAL_NAME, Journal
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardInfo
from multimodal.datamodules.shards.shard_file import file_sha256


@pytest.fixture
def noted(tmp_path):
    """A journal with one finished shard."""
    (tmp_path / "a.tar").write_bytes(b"shard")
    contents = Contents()
    contents.add({"num": b"1", "json": b'{"label": "x"}'})
    info = ShardInfo("a.tar", 1, 5, file_sha256(tmp_path / "a.tar"))
    Journal(tmp_path).add("plan", info, contents)
    return info, contents


def test_what_was_noted_is_found_with_the_same_plan_only(noted, tmp_path):
    assert Journal(tmp_path).find("a.tar", "plan") == noted
    assert Journal(tmp_path).find("a.tar", "other plan") is None
    assert Journal(tmp_path).find("b.tar", "plan") is None


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"sharD")])
def test_a_shard_that_changed_is_not_found(noted, tmp_path, change):
    change(tmp_path / "a.tar")
    assert Journal(tmp_path).find("a.tar", "plan") is None


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "3", '{"info": 3}', '{"info": {"path": 3}}', '{"replaced": 3}', '{"replaced": [3]}', '{"info": {"path": "a.tar"}}'],
)
def test_a_line_that_was_cut_off_or_is_not_ours_is_not_used(noted, tmp_path, line):
    with (tmp_path / JOURNAL_NAME).open("a") as file:
        file.write("\n" + line)
    journal = Journal(tmp_path)
    assert journal.find("a.tar", "plan") == (None if "a.tar" in line else noted)
    assert journal.replaced == set()
    journal.add("plan", *noted)
    assert Journal(tmp_path).find("a.tar", "plan") == noted


def test_a_line_of_another_form_is_no_shard(tmp_path):
    entry = {"plan": "plan", "info": {"path": "a.tar", "size": 3}, "contents": {}}
    (tmp_path / JOURNAL_NAME).write_text(json.dumps(entry))
    assert Journal(tmp_path).find("a.tar", "plan") is None


def test_replaced_shards_are_remembered_until_the_journal_goes(tmp_path):
    Journal(tmp_path).replace(["a.tar", "b.tar"])
    journal = Journal(tmp_path)
    assert journal.replaced == {"a.tar", "b.tar"}
    journal.remove()
    assert Journal(tmp_path).replaced == set()
