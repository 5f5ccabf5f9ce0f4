import signal
import subprocess
import sys
import time

import pytest

from multimodal.datamodules.commands import main
from multimodal.datamodules.jobs.journal import JOURNAL_NAME
from multimodal.datamodules.jobs.parts import Part
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.tokenizing.tokenize import RunOptions, tokenize_shards
from multimodal.datamodules.tokenizing.tokenized_shard import ShardTokenizer, TokenizeSettings


@pytest.mark.slow
def test_processes_parts_and_a_second_run_give_the_same_bytes(pictures, recipe, tmp_path, hashes):
    how = TokenizeSettings("sight", crops=2, batch_size=3)
    for _ in range(2):
        tokenize_shards(pictures, tmp_path / "one", recipe, how, RunOptions(overwrite=True))
    tokenize_shards(pictures, tmp_path / "processes", recipe, how, RunOptions(num_workers=2))
    for number in (2, 3, 1):
        result = tokenize_shards(pictures, tmp_path / "parts", recipe, how, RunOptions(part=Part(number, 3)))
        assert (result.index is not None) == (number == 1)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "processes") == hashes(tmp_path / "parts")
    assert len(hashes(tmp_path / "one")) == 1 + 4 + 2


@pytest.mark.slow
def test_ray_gives_the_same_bytes(pictures, recipe, tmp_path, hashes):
    pytest.importorskip("ray")
    how = TokenizeSettings("sight", crops=2)
    tokenize_shards(pictures, tmp_path / "local", recipe, how)
    tokenize_shards(pictures, tmp_path / "ray", recipe, how, RunOptions(num_workers=2, engine="ray"))
    assert hashes(tmp_path / "local") == hashes(tmp_path / "ray")


def test_an_interrupted_run_goes_on_to_the_same_bytes(pictures, recipe, tmp_path, monkeypatch, hashes):
    tokenize_shards(pictures, tmp_path / "whole", recipe, TokenizeSettings("sight"))
    encode, calls = ShardTokenizer.encode, []

    def fail_in_the_third(self, items):
        calls.append(len(items))
        if len(calls) == 4:  # the first looks whether tokenizer and transform fit
            raise KeyboardInterrupt
        return encode(self, items)

    monkeypatch.setattr(ShardTokenizer, "encode", fail_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        tokenize_shards(pictures, tmp_path / "ids", recipe, TokenizeSettings("sight"))
    assert not (tmp_path / "ids/index.json").exists()
    monkeypatch.setattr(ShardTokenizer, "encode", encode)
    assert tokenize_shards(pictures, tmp_path / "ids", recipe, TokenizeSettings("sight")).kept == 2
    assert hashes(tmp_path / "ids") == hashes(tmp_path / "whole")
    assert not list((tmp_path / "ids").glob(f"{JOURNAL_NAME}*"))


def test_what_another_tokenizer_or_setting_had_finished_is_made_again(pictures, recipe, tmp_path, monkeypatch):
    real = ShardIndex.save

    def fail(self, folder):
        raise OSError("killed before the index")

    for change in ({"seed": 1}, {"crops": 2}, {"batch_size": 2}, {"train_splits": ()}, {"drop_fields": ("json",)}):
        monkeypatch.setattr(ShardIndex, "save", fail)
        with pytest.raises(OSError, match="killed"):
            tokenize_shards(pictures, tmp_path / str(change), recipe, TokenizeSettings("sight"))
        monkeypatch.setattr(ShardIndex, "save", real)
        assert tokenize_shards(pictures, tmp_path / str(change), recipe, TokenizeSettings("sight", **change)).kept == 0


KILLED = """
import sys
from multimodal.datamodules.tokenizing import tokenized_shard
from multimodal.datamodules.commands import main
import time
encode = tokenized_shard.ShardTokenizer.encode
def slow(self, items):
    time.sleep(0.3)
    return encode(self, items)
tokenized_shard.ShardTokenizer.encode = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(pictures, recipe, tmp_path, hashes):
    arguments = ["tokenize", str(pictures.root), "--modality", "sight", "--workers", "0", "--crops", "2"]
    arguments += ["--transform", str(tmp_path / "transform.yaml"), "--tokenizer", str(tmp_path / "tokenizer")]
    target = tmp_path / "ids"
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments, "--to", str(target)])
    deadline = time.monotonic() + 60
    while len(list(target.glob("*.tar"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (target / "index.json").exists()
    assert len(list(target.glob("*.tar"))) >= 2
    assert main([*arguments, "--to", str(target)]) == 0
    assert main([*arguments, "--to", str(tmp_path / "whole")]) == 0
    assert hashes(target) == hashes(tmp_path / "whole")
    assert len(list(target.iterdir())) == len(hashes(target))
