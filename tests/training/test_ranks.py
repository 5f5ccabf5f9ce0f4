"""Two processes train what one trains: copies of the model (DDP), shards of it (FSDP2), and checkpoints that go from one to the other."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multimodal.training.checkpoint_files import consolidated_state, find_last, read_checkpoint
from multimodal.training.sharded_checkpoint import read_sharded
from tests.ranks import run_script

SCRIPT = Path(__file__).with_name("ranks_script.py")
EXPERTS = {"kind": "classifier", "encoder": {"num_experts": 2, "class_token": True, "checkpoint_activations": True}}
FROZEN = {"kind": "classifier", "freeze_layers": 1, "layer_decay": 0.5}
RARE = {"experts": EXPERTS, "frozen": FROZEN}


def start(folder: Path, ranks: int, cases: list[dict]) -> None:
    run_script(SCRIPT, str(folder), json.dumps([{"ranks": ranks, "clip": 0.5, **case} for case in cases]), ranks=ranks)


RESUMED = {"epochs": 2, "resume": "shards.ckpt"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The weights and losses of some runs, in one folder."""
    folder = tmp_path_factory.mktemp("ranks")
    two = [{"name": f"{kind}-{way}", "strategy": way, "kind": kind} for kind in ("model", "classifier") for way in ("ddp", "sharded")]
    start(folder, 2, [*two, {"name": "shards", "strategy": "sharded", "keep": "shards.ckpt"}])
    one = [{"name": kind, "kind": kind} for kind in ("model", "classifier")]
    start(folder, 1, [*one, {"name": "long", "epochs": 2}, {"name": "resumed", **RESUMED}])
    return folder


@pytest.fixture(scope="module")
def trained_otherwise(trained):
    """The same folder, with runs of rarer settings."""
    two = [{"name": f"{kind}-sharded", "strategy": "sharded", **settings} for kind, settings in RARE.items()]
    start(trained, 2, [*two, {"name": "whole", "strategy": "sharded", "keep": "whole.ckpt", "whole_files": True}])
    one = [{"name": kind, **settings} for kind, settings in RARE.items()] + [{"name": "compiled", "compile_encoder": True}]
    one += [{"name": "resumed-sharded", "strategy": "sharded", **RESUMED}, {"name": "resumed-whole", **RESUMED, "resume": "whole.ckpt"}]
    start(trained, 1, one)
    return trained


def losses(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def assert_equal(folder: Path, first: str, second: str, last: int | None = None) -> None:
    weights, others = load_file(folder / f"{first}.safetensors"), load_file(folder / f"{second}.safetensors")
    assert weights.keys() == others.keys() and len(weights) > 20
    for name in weights:
        torch.testing.assert_close(others[name], weights[name], atol=1e-5, rtol=1e-5, msg=name)
    one, two = losses(folder, first), losses(folder, second)
    assert two["losses"] == pytest.approx(one["losses"][-last if last else None :], rel=1e-5)
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-5) and one["scores"]


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
@pytest.mark.parametrize("kind", ["model", "classifier"])
def test_two_processes_train_as_one(trained, kind, strategy):
    assert_equal(trained, kind, f"{kind}-{strategy}")


def test_a_run_of_two_processes_goes_on_in_one(trained):
    assert_equal(trained, "long", "resumed", last=3)


def test_shards_become_one_state(trained):
    state, weights = consolidated_state(trained / "shards.ckpt"), load_file(trained / "shards.safetensors")
    assert len(weights) > 20 and all(torch.equal(weights[name], state[name]) for name in weights)


def test_without_tensors_names_and_shapes_are_read(trained):
    empty, full = read_sharded(trained / "shards.ckpt", tensors=False), read_sharded(trained / "shards.ckpt")
    assert all(tensor.is_meta for tensor in empty["state_dict"].values())
    assert {k: v.shape for k, v in empty["state_dict"].items()} == {k: v.shape for k, v in full["state_dict"].items()}
    assert empty["multimodal"] == full["multimodal"]


def test_the_last_checkpoint_may_be_a_folder(trained, tmp_path):
    (tmp_path / "last.ckpt").symlink_to(trained / "shards.ckpt")
    assert find_last(tmp_path) == (tmp_path / "last.ckpt", [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["experts", "frozen"])
def test_shards_train_as_one_with_experts_recomputed_activations_and_frozen_layers(trained_otherwise, kind):
    assert_equal(trained_otherwise, kind, f"{kind}-sharded")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resumed-sharded", "resumed-whole"])
def test_a_run_of_two_processes_goes_on_in_one_in_other_ways(trained_otherwise, name):
    assert_equal(trained_otherwise, "long", name, last=3)


@pytest.mark.slow
def test_shards_are_read_as_the_checkpoint_that_is_gathered_in_one_file(trained_otherwise):
    shards, whole = read_sharded(trained_otherwise / "shards.ckpt"), read_checkpoint(trained_otherwise / "whole.ckpt")
    assert shards.keys() == whole.keys() and shards["multimodal"] == whole["multimodal"]
    assert shards["multimodal"]["model"].endswith(".MaskedPretraining")
    assert all(torch.equal(value, whole["state_dict"][name]) for name, value in shards["state_dict"].items())
    ours, theirs = shards["optimizer_states"][0], whole["optimizer_states"][0]
    assert [group["weight_decay"] for group in ours["param_groups"]] == [0.01, 0.0]
    for own, other in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        for number, same in zip(own["params"], other["params"], strict=True):
            assert all(torch.equal(value, theirs["state"][same][name]) for name, value in ours["state"][number].items())


@pytest.mark.slow
def test_compiled_layers_train_as_others_under_the_same_names(trained_otherwise):
    assert_equal(trained_otherwise, "model", "compiled")
