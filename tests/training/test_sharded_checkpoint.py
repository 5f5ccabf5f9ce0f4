"""Folders of shards: what is damaged is named, and nothing in them is run."""

import pickle
import shutil

import pytest
import torch
from torch.distributed.checkpoint import save
from torch.distributed.checkpoint.metadata import MetadataIndex

from multimodal.training.checkpoint_files import CheckpointFiles, consolidated_state, find_last
from multimodal.training.sharded_checkpoint import is_sharded_checkpoint, read_sharded

CANARY = []


class Evil:
    def __reduce__(self):
        return CANARY.append, ("ran",)


def write(folder, value=3, **state):
    weights = {"encoder.weight": torch.arange(12.0).view(3, 4), "encoder.count": torch.tensor(7)}
    optimizer = {"state": {"encoder.weight": {"exp_avg": torch.ones(3, 4)}}, "param_groups": [{"params": ["encoder.weight"], "lr": value}]}
    save({"state_dict": weights, "optimizer_0": optimizer, **state}, checkpoint_id=folder)
    torch.save({"epoch": 2}, folder / "meta.pt")
    return folder


@pytest.fixture
def shards(tmp_path):
    return write(tmp_path / "last.ckpt")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
class TestFolders:
    def test_a_folder_is_read_as_one_checkpoint(self, shards):
        assert is_sharded_checkpoint(shards) and not is_sharded_checkpoint(shards.parent)
        checkpoint = CheckpointFiles().load_checkpoint(shards)
        assert checkpoint["epoch"] == 2 and torch.equal(checkpoint["state_dict"]["encoder.weight"], torch.arange(12.0).view(3, 4))
        (optimizer,) = checkpoint["optimizer_states"]
        assert optimizer["param_groups"] == [{"params": [0], "lr": 3}] and torch.equal(optimizer["state"][0]["exp_avg"], torch.ones(3, 4))
        assert consolidated_state(shards)["encoder.count"] == 7

    @pytest.mark.parametrize("linked", [False, True])
    def test_a_file_takes_the_place_of_a_folder(self, shards, linked):
        path = shards
        if linked:
            path = shards.with_name("link.ckpt")
            path.symlink_to(shards)
        CheckpointFiles().save_checkpoint({"state_dict": {"x": torch.ones(2)}}, path)
        assert path.is_file() and consolidated_state(path)["x"].tolist() == [1, 1]
        assert sorted(file.name for file in path.parent.iterdir()) == sorted({path.name} | ({shards.name} if linked else set()))

    def test_a_file_that_cannot_be_written_leaves_the_folder(self, shards):
        with pytest.raises((AttributeError, TypeError, RuntimeError, OSError)):
            CheckpointFiles().save_checkpoint({"state_dict": {"x": lambda: None}}, shards)
        assert read_sharded(shards)["epoch"] == 2 and [file.name for file in shards.parent.iterdir()] == [shards.name]

    @pytest.mark.parametrize("file", [".metadata", "__0_0.distcp", "meta.pt"])
    @pytest.mark.parametrize("damage", ["missing", "cut off", "empty", "noise"])
    def test_damage_is_named(self, shards, file, damage):
        path = shards / file
        whole = path.read_bytes()
        noise = bytes(range(256)) * (len(whole) // 256 + 1)
        changed = {"cut off": whole[: len(whole) // 2], "empty": b"", "noise": noise}
        path.unlink() if damage == "missing" else path.write_bytes(changed[damage])
        with pytest.raises(ValueError, match=r"damaged|refused|no folder of shards") as refusal:
            read_sharded(shards)
        assert "last.ckpt" in str(refusal.value) and "\n" not in str(refusal.value)
        if (file, damage) != ("__0_0.distcp", "noise"):  # of as many bytes as there should be: found when the tensors are read
            with pytest.raises(ValueError, match=r"no checkpoint in .* can be read"):
                find_last(shards.parent)

    def test_code_in_the_index_is_refused_and_does_not_run(self, shards):
        index = pickle.loads((shards / ".metadata").read_bytes())
        index.planner_data["evil"] = Evil()
        (shards / ".metadata").write_bytes(pickle.dumps(index))
        with pytest.raises(ValueError, match=r"\.metadata is refused or damaged: it holds more than tensors and plain values"):
            consolidated_state(shards)
        assert CANARY == []

    @pytest.mark.parametrize("tensors", [True, False])
    def test_code_in_a_value_is_refused_and_does_not_run(self, tmp_path, tensors):
        with pytest.raises(ValueError, match="holds more than tensors and plain values"):
            read_sharded(write(tmp_path / "x.ckpt", value=Evil()), tensors)
        assert CANARY == []

    def test_code_in_the_rest_is_refused_and_does_not_run(self, shards):
        torch.save({"epoch": Evil()}, shards / "meta.pt")
        with pytest.raises(ValueError, match=r"meta\.pt is refused or damaged"):
            read_sharded(shards, tensors=False)
        assert CANARY == []

    def test_code_in_place_of_a_tensor_is_refused_and_does_not_run(self, shards):
        index = pickle.loads((shards / ".metadata").read_bytes())
        info = next(info for key, info in index.storage_data.items() if key.fqn == "state_dict.encoder.weight")
        torch.save(Evil(), shards / "evil.distcp")
        info.relative_path, info.offset, info.length = "evil.distcp", 0, (shards / "evil.distcp").stat().st_size
        (shards / ".metadata").write_bytes(pickle.dumps(index))
        with pytest.raises(ValueError, match="is damaged"):
            consolidated_state(shards)
        assert CANARY == []

    def test_files_outside_the_folder_are_not_read(self, shards):
        shutil.move(shards / "__0_0.distcp", shards.parent / "outside")
        index = pickle.loads((shards / ".metadata").read_bytes())
        for info in index.storage_data.values():
            info.relative_path = "../outside"
        (shards / ".metadata").write_bytes(pickle.dumps(index))
        with pytest.raises(ValueError, match=r"it names '\.\./outside', which is not a file of the folder"):
            read_sharded(shards)

    def test_a_folder_without_weights_is_refused(self, tmp_path):
        save({"other": torch.ones(2)}, checkpoint_id=tmp_path / "x")
        torch.save({}, tmp_path / "x/meta.pt")
        with pytest.raises(ValueError, match="it has no weights under state_dict or model"):
            read_sharded(tmp_path / "x")

    def test_an_index_of_something_else_is_refused(self, shards):
        (shards / ".metadata").write_bytes(pickle.dumps(MetadataIndex("x")))
        with pytest.raises(ValueError, match="holds no index of shards"):
            read_sharded(shards)


def test_there_is_no_such_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        consolidated_state(tmp_path / "none.ckpt")
