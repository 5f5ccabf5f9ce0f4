import pickle
import tempfile
import warnings

import lightning.pytorch as pl
import pytest
import torch

from multimodal.datamodules.commands import main
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.streaming.bad_samples import BadSamples, BadSampleWarning
from multimodal.datamodules.streaming.stream import EpochLoader
from multimodal.errors import SampleError


class Recorder(pl.LightningModule):
    """Note what each step gets."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_keys, self.val_keys = {}, {}

    def training_step(self, batch):
        self.train_keys.setdefault(self.current_epoch, []).extend(batch.keys)
        return self.weight * batch.items["number"].values.sum()

    def validation_step(self, batch):
        self.val_keys.setdefault(self.current_epoch, []).extend(batch.keys)

    def predict_step(self, batch):
        return batch.keys

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture
def make_module(make_shards, transforms):
    def make(folder=None, **settings):
        return ShardDataModule(str(folder or make_shards()), transforms, **({"batch_size": 4, "shuffle_buffer": 5} | settings))

    return make


def keys(loader):
    return [key for batch in loader for key in batch.keys]


def fit(module, **settings):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    trainer = pl.Trainer(accelerator="cpu", max_epochs=3, **quiet, **settings)
    recorder = Recorder()
    trainer.fit(recorder, datamodule=module)
    return recorder, trainer


def damage(folder, old, new):
    """Replace bytes of equal length in all shards."""
    hit = 0
    for path in folder.glob("*.tar"):
        data = path.read_bytes()
        hit += data.count(old)
        path.write_bytes(data.replace(old, new))
    assert hit


def test_evaluation_may_have_a_batch_size_of_its_own(make_module):
    module = make_module(eval_batch_size=1, val_split="train")
    assert {len(batch.keys) for batch in module.val_dataloader()} == {1}
    assert max(len(batch.keys) for batch in module.train_dataloader()) == 4
    assert max(len(batch.keys) for batch in make_module(module.shards[0], val_split="train").val_dataloader()) > 1


def test_batches_hold_values_labels_and_seeds(make_module):
    module = make_module()
    assert module.classes == ["c0", "c1", "c2", "c3"]
    batches = list(module.train_dataloader())
    assert len(batches) == len(module.train_dataloader()) == 10
    for batch in batches:
        numbers = [int(key[-4:]) for key in batch.keys]
        assert batch.items["number"].values[:, 0].tolist() == numbers
        assert batch.labels["label"].tolist() == [number % 4 for number in numbers]
        assert batch.items["number"].sample.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("train", [True, False])
def test_workers_change_nothing(make_module, make_shards, train):
    folder, read = make_shards(count=37), []
    for num_workers in (0, 1, 3):
        module = make_module(folder, num_workers=num_workers)
        loader = module.train_dataloader() if train else module.evaluation_dataloader("train")
        batches = list(loader)
        assert len(batches) == len(loader) == 10
        read.append([(key, *row) for batch in batches for key, row in zip(batch.keys, batch.items["number"].values.tolist(), strict=True)])
    assert read[0] == read[1] == read[2]
    assert len({key for key, *_ in read[0]}) == 37
    assert all((noise > 0) == train for _, _, noise in read[0])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_epoch_advances_with_workers_that_stay_alive(make_module, make_shards, num_workers):
    folder = make_shards()
    loader = make_module(folder, num_workers=num_workers).train_dataloader()
    epochs = [keys(loader) for _ in range(3)]
    stream = make_module(folder).train_dataloader().dataset
    fresh = EpochLoader(stream, BadSamples(), num_workers=num_workers)  # workers that start anew with each epoch
    assert epochs == [keys(fresh) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(len(set(epoch)) == 40 for epoch in epochs)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_lightning_trains_with_another_order_each_epoch(make_module, make_shards, num_workers):
    module = make_module(make_shards(split="train=0.8,val=0.2", count=60), num_workers=num_workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*__len__.*")
        recorder, trainer = fit(module)
    assert trainer.num_training_batches == len(module.train_dataloader())
    assert [len(set(read)) for read in recorder.train_keys.values()] == [module.sources[0].num_samples("train")] * 3
    assert len({tuple(read) for read in recorder.train_keys.values()}) == 3
    held = module.sources[0].num_samples("val")
    assert all(len(set(read)) == len(read) == held for read in recorder.val_keys.values())
    assert recorder.val_keys[0] == recorder.val_keys[1]


def test_lightning_predicts_and_overfits(make_module, make_shards):
    module = make_module(make_shards(), test_split="train", val_split=None)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    predicted = trainer.predict(Recorder(), datamodule=module)
    assert sorted(key for part in predicted for key in part) == sorted(keys(module.evaluation_dataloader("train")))
    recorder, _ = fit(module, overfit_batches=2)
    assert [len(read) for read in recorder.train_keys.values()] == [8, 8, 8]


def test_ranks_share_the_work(make_module, make_shards):
    folder = make_shards(count=37)
    train, evaluation = [], []
    for rank in range(3):
        module = make_module(folder, num_workers=0)
        module.trainer = type(
            "Trainer", (), {"global_rank": rank, "world_size": 3, "current_epoch": 0, "default_root_dir": tempfile.mkdtemp()}
        )()
        assert len(module.train_dataloader()) == len(module.evaluation_dataloader("train")) == 4
        train += keys(module.train_dataloader())
        evaluation += keys(module.evaluation_dataloader("train"))
    assert len(set(train)) == len(train) == 37
    assert len(set(evaluation)) == len(evaluation) == 37


def test_sources_share_classes_and_are_mixed(make_module, make_shards, transforms):
    folders = [str(make_shards("one", count=40, classes=2)), str(make_shards("two", count=40, classes=4, first=100))]
    module = ShardDataModule(folders, transforms, batch_size=20)
    assert module.classes == ["c0", "c1", "c2", "c3"]
    batches = list(module.train_dataloader())
    assert len({key for batch in batches for key in batch.keys}) == 80
    assert all(3 <= sum(key[-4:] < "0100" for key in batch.keys) <= 17 for batch in batches)


def test_the_stream_travels_to_spawned_workers(make_module):
    stream = make_module().train_dataloader().dataset
    stream.__dict__.pop("preparation")  # holds a class of this test session
    stream.__dict__.pop("_start")  # shared memory travels by torch's own way
    next(iter(stream.shards.reader(0, 0).entries))
    again = pickle.loads(pickle.dumps(stream.__dict__))
    assert again["shards"].reader(0, 0).key(0) == stream.shards.reader(0, 0).key(0)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="shards is empty"):
        ShardDataModule([])
    for settings, message in [
        ({"batch_size": 0}, "batch_size must"),
        ({"eval_batch_size": 0}, "batch_size must"),
        ({"seed": -1}, "seed must"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction must"),
    ]:
        with pytest.raises(ValueError, match=message):
            ShardDataModule("x", **settings)


def test_user_errors_are_clear(make_module, make_shards, transforms, tmp_path):
    folder = make_shards()
    with pytest.raises(ValueError, match=r"none/index\.json does not exist"):
        make_module(tmp_path / "none").setup()
    with pytest.raises(ValueError, match="transforms is empty"):
        ShardDataModule(str(folder)).setup()
    with pytest.raises(ValueError, match=r"no samples of split 'val' in .*; splits there: train. .*: --data.init_args.val_split null\.$"):
        make_module(folder).val_dataloader()
    with pytest.raises(ValueError, match=r"no samples of split 'test' in .*; splits there: train\.$"):
        make_module(folder).test_dataloader()
    with pytest.raises(ValueError, match="split 'train' has 40 samples, too few for a batch of 64"):
        make_module(folder, batch_size=64, drop_last=True).train_dataloader()
    assert make_module(folder, val_split=None).val_dataloader() == []
    other = type("Other", (type(transforms["number"]),), {"extensions": ("abc", "xyz")})()
    with pytest.raises(ValueError, match=r"modality 'thing' reads the fields abc, xyz, but the shards in .* have only json, num"):
        ShardDataModule(str(folder), {"thing": other}).setup()
    for shard in ShardIndex.load(folder).shards("train")[1:]:
        (folder / shard.path).unlink()
    with pytest.raises(ValueError, match=r"2 of 3 shards of .* are missing: train-000001.tar, train-000002.tar"):
        make_module(folder).setup()


class TestBadSamples:
    """Numbers 8 and 9 of 40 cannot be decoded."""

    @pytest.fixture
    def folder(self, make_source, tmp_path):
        source = make_source()
        for path in source.rglob("000[89].num"):
            path.write_text("bad")
        assert main(["write", str(source), "--to", str(tmp_path / "bad"), "--split", "train=1", "--samples-per-shard", "16"]) == 0
        return tmp_path / "bad"

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_the_first_stops(self, make_module, folder, num_workers):
        with pytest.raises(SampleError, match=r"shard .*bad/train-00000\d.tar, key 'c[01]/000[89]', field 'num': not a number") as caught:
            keys(make_module(folder, num_workers=num_workers).train_dataloader())
        assert caught.value.field == "num"

    @pytest.mark.parametrize("batch_size", [1, 4, 20])
    def test_left_out_samples_keep_the_number_of_batches(self, make_module, folder, batch_size):
        module = make_module(folder, batch_size=batch_size, on_error="skip", max_bad_fraction=0.1)
        for loader in (module.train_dataloader(), module.evaluation_dataloader("train")):
            with pytest.warns(BadSampleWarning, match="not a number"):
                batches = list(loader)
            assert len({key for batch in batches for key in batch.keys}) == sum(batch.num_samples for batch in batches) == 38
            assert len(batches) == 40 // batch_size
            assert (loader.bad.read, loader.bad.bad) == (40, 2)

    @pytest.mark.parametrize("num_workers", [0, 2])
    @pytest.mark.filterwarnings("ignore::multimodal.datamodules.streaming.bad_samples.BadSampleWarning")
    def test_too_many_stop(self, make_module, folder, num_workers):
        module = make_module(folder, on_error="skip", max_bad_fraction=0.01, num_workers=num_workers)
        with pytest.raises(ValueError, match=r"[12] of \d+ samples read could not be used, more than max_bad_fraction=0.01"):
            keys(module.train_dataloader())


def test_a_cut_off_shard_is_counted_or_stops(make_module, make_shards):
    folder = make_shards()
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[: 10 * 2048])
    with pytest.raises(SampleError, match=r"train-000001.tar.*the index says 16 samples, the shard holds (9|10): it is cut off"):
        keys(make_module(folder).evaluation_dataloader("train"))
    with pytest.warns(BadSampleWarning, match="cut off"):
        assert len(keys(make_module(folder, on_error="skip", max_bad_fraction=0.5).evaluation_dataloader("train"))) in (33, 34)


def test_an_unknown_label_stops_and_is_named(make_module, make_shards):
    folder = make_shards()
    damage(folder, b'"label": "c3"', b'"label": "cX"')
    with pytest.raises(SampleError, match="field 'json': unknown label 'cX'; the index lists 4 classes"):
        keys(make_module(folder).train_dataloader())


def test_a_rank_can_read_the_whole_split(make_module):
    module = make_module()
    everything = keys(module.evaluation_dataloader("train"))
    module.trainer = type("Trainer", (), {"global_rank": 0, "world_size": 2, "current_epoch": 0, "default_root_dir": tempfile.mkdtemp()})()
    assert len(keys(module.evaluation_dataloader("train"))) < len(everything)
    assert keys(module.evaluation_dataloader("train", whole=True)) == everything
