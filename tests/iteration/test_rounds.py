"""Rounds of self-distillation: what they make, from what, and that a crash changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from multimodal.cli import main
from multimodal.iteration.child import CommandError
from multimodal.iteration.lineage import Lineage, content_hash
from multimodal.iteration.plan import IterationPlan
from multimodal.iteration.rounds import Rounds
from multimodal.tokenizers.audio import BeatsTokenizer, RandomProjectionTokenizer
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.training import MaskedPretraining

KEPT = ("round_1/tokenizer/tokenizer", "round_1/model", "round_2/tokenizer/tokenizer", "round_2/model", "lineage.json")


def here(*arguments: str, quiet: bool = False) -> None:
    """Run a command in this process, which is faster than in one of its own."""
    code = main(list(arguments))
    if code:
        raise CommandError(arguments, code)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr("multimodal.iteration.rounds.run_command", here)


def iterate(recipes: Path, root: Path, rounds: int = 2, **changes) -> list[tuple[int, str]]:
    """Run rounds and return the stages that were done."""
    plan, _ = IterationPlan.read(recipes / "iterate.yaml")
    stages: list[tuple[int, str]] = []
    made = Rounds(IterationPlan(**vars(plan) | changes), root, lambda number, stage: stages.append((number, stage)), workers=0)
    for number in range(1, rounds + 1):
        made.run(number)
    return stages


@pytest.fixture(scope="module")
def whole(recipes, tmp_path_factory):
    """Two rounds without an interruption."""
    root = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimodal.iteration.rounds.run_command", here)
        stages = iterate(recipes, root)
    assert stages == [(1, "tokenizer"), (1, "ids"), (1, "model"), (2, "tokenizer"), (2, "ids"), (2, "model")]
    return root


def hashes(root: Path) -> dict[str, str]:
    return {name: content_hash(root / name) for name in KEPT}


def test_each_round_has_the_tokenizer_that_the_round_before_taught(whole):
    first, second = (load_tokenizer(str(whole / f"round_{number}/tokenizer/tokenizer")) for number in (1, 2))
    assert isinstance(first, RandomProjectionTokenizer) and first.vocab_sizes == (64,)
    assert isinstance(second, BeatsTokenizer) and second.vocab_sizes == (16,)
    config = yaml.safe_load((whole / "round_2/tokenizer.yaml").read_text())
    teacher = config["model"]["init_args"]["tokenizer"]["init_args"]["teacher"]["init_args"]
    assert teacher == {"folder": str(whole / "round_1/model")}
    run = yaml.safe_load((whole / "round_2/pretraining/config.yaml").read_text())
    assert run["data"]["init_args"]["shards"] == [str(whole / "round_2/ids/0")]
    assert not (whole / "round_2/ids").exists(), "the ids of a round that is over can be made again"


def test_lineage_says_what_was_made_from_what(whole):
    entries = {(x["round"], x["stage"]): x for x in json.loads((whole / "lineage.json").read_text())["stages"]}
    model = entries[1, "model"]["made"]["round_1/model"]
    assert model == content_hash(whole / "round_1/model")
    assert entries[2, "tokenizer"]["made_from"]["teacher"] == model
    assert entries[2, "model"]["made_from"]["tokenizer"] == entries[2, "tokenizer"]["made"]["round_2/tokenizer/tokenizer"]
    assert entries[2, "ids"]["made"] == {"round_2/ids/0": ""}


def test_what_is_done_is_not_done_again_and_rounds_can_be_added(recipes, whole, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    assert iterate(recipes, root) == []
    assert iterate(recipes, root, rounds=3, crops=2)[:1] == [(3, "tokenizer")]
    assert hashes(root) | {"lineage.json": ""} == hashes(whole) | {"lineage.json": ""}


@pytest.mark.parametrize("step", [6, pytest.param(8, marks=pytest.mark.slow)])
def test_a_crash_in_the_second_round_and_going_on_end_in_the_same_files(recipes, whole, tmp_path, monkeypatch, step):
    steps, train = [], MaskedPretraining.training_step

    def crash(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == step:  # of four in each round, two in an epoch
            raise RuntimeError("crashed")
        return train(self, batch, batch_idx)

    monkeypatch.setattr(MaskedPretraining, "training_step", crash)
    with pytest.raises(CommandError, match="exit code 1"):
        iterate(recipes, tmp_path / "run")
    assert (tmp_path / "run/round_2/ids/0/index.json").is_file()
    assert iterate(recipes, tmp_path / "run") == [(2, "model")]
    assert hashes(tmp_path / "run") == hashes(whole)


def test_without_stored_ids_the_tokenizer_runs_in_training(recipes, tmp_path):
    stages = iterate(recipes, tmp_path / "run", rounds=1, crops=0)
    assert stages == [(1, "tokenizer"), (1, "model")]


def test_a_fine_tuned_teacher_gives_its_logits(recipes, tmp_path):
    finetune = yaml.safe_load((recipes / "finetune.yaml").read_text())
    stages = iterate(recipes, tmp_path / "run", crops=0, finetune=finetune, supervised_from=2)
    assert stages == [(1, "tokenizer"), (1, "model"), (1, "classifier"), (2, "tokenizer"), (2, "model")]
    tokenizer = load_tokenizer(str(tmp_path / "run/round_2/tokenizer/tokenizer"))
    assert tokenizer.to_feature.out_features == 2


def test_a_model_that_was_changed_is_not_built_upon(recipes, whole, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    (root / "round_1/model/README.md").write_text("another")
    with pytest.raises(ValueError, match="round_1/model is not what round 1 made there"):
        iterate(recipes, root, rounds=3)


def test_other_recipes_are_refused(recipes, whole):
    with pytest.raises(ValueError, match="begun with other recipes"):
        iterate(recipes, whole, crops=3)


def test_a_damaged_lineage_is_named(tmp_path):
    (tmp_path / "lineage.json").write_text('{"plan": "x"}')
    with pytest.raises(ValueError, match=r"lineage.json is damaged"):
        Lineage(tmp_path, "x")


def test_the_command_prints_a_table(recipes, whole, tmp_path, capsys):
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    assert main(["tokenizers", "iterate", "--config", str(recipes / "iterate.yaml"), "--rounds", "2", "--run", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy of predicted ids" in printed and "│ 2     │ 16" in printed


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_in_the_same_files(recipes, whole, tmp_path):
    root = tmp_path / "run"
    command = [sys.executable, "-m", "multimodal", "tokenizers", "iterate", "--config", str(recipes / "iterate.yaml"), "--rounds", "2"]
    process = subprocess.Popen([*command, "--run", str(root)], start_new_session=True, stdout=subprocess.DEVNULL)
    while not list(root.glob("round_2/pretraining/checkpoints/*.ckpt")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (root / "round_2/model").exists()
    subprocess.run([*command, "--run", str(root)], check=True, stdout=subprocess.DEVNULL)
    assert hashes(root) == hashes(whole)
