"""LabelProbe and PictureLogger in real training runs."""

import csv
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from multimodal.batch import collate
from multimodal.tokenizers.image import PatchGridRenderer
from multimodal.training.callbacks import LabelProbe, PictureLogger
from multimodal.training.callbacks.pictures import picture_grid

EPOCHS, STEPS = 3, 2


class Data(L.LightningDataModule):
    """Batches of the samples, the same in each split."""

    def __init__(self, batches):
        super().__init__()
        self.batches, self.asked = batches, []

    def evaluation_dataloader(self, split, whole=False):
        self.asked.append(split)
        return torch.utils.data.DataLoader(self.batches, batch_size=None)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None)

    val_dataloader = train_dataloader


@pytest.fixture
def data(mixed_samples):
    """Two batches; sample 3 has no label, and the label of a picture is whether its first pixel is bright."""
    labelled = []
    for number, sample in enumerate(mixed_samples * 4):
        if "picture" in sample.items:
            pixels = sample.items["picture"].values // 8 + (200 if number % 2 else 0)
            sample = replace(sample, items={**sample.items, "picture": replace(sample.items["picture"], values=pixels.to(torch.uint8))})
        labelled.append(sample if number % 8 == 3 else replace(sample, labels={"label": number % 2}))
    return Data([collate(labelled[:14]), collate(labelled[14:])])


@pytest.fixture
def model(make_model):
    model = make_model()
    model.modalities["picture"].renderer = PatchGridRenderer((4, 4), min_size=40)
    return model


def trainer_in(folder, *callbacks, max_epochs=EPOCHS, loggers=False, **settings) -> L.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=loggers,
        log_every_n_steps=1,
        **quiet,
        **settings,
    )


def fit(folder, model, data, *callbacks, **settings) -> None:
    trainer_in(folder, *callbacks, **settings).fit(model, datamodule=data)


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "probe.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_probes_at_the_start_and_at_the_end(tmp_path, model, data):
    logger = CSVLogger(tmp_path, name="metrics")
    fit(tmp_path, model, data, LabelProbe("picture", labels_per_class=(2, 0), draws=3), loggers=logger)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["0"] * 4 + [str(EPOCHS * STEPS)] * 4
    assert [(row["method"], row["labels_per_class"], row["draws"]) for row in rows[:4]] == [
        ("knn", "2", "3"),
        ("linear", "2", "3"),
        ("knn", "0", "1"),
        ("linear", "0", "1"),
    ]
    assert {(row["modality"], row["layer"]) for row in rows} == {("picture", "out")}
    assert all(float(row["accuracy"]) == 1.0 for row in rows)  # bright and dark pictures are told apart by any encoder
    assert data.asked == ["train", "test"] * 2
    with (tmp_path / "metrics/version_0/metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row.get("probe/picture/linear_all")]
    assert [(row["step"], row["probe/picture/knn_2"]) for row in logged] == [("0", "1.0"), (str(EPOCHS * STEPS), "1.0")]


def test_probes_between_epochs_come_once_each(tmp_path, model, data):
    fit(tmp_path, model, data, LabelProbe("picture", labels_per_class=(0,), every_n_epochs=1, layers=[0]))
    rows = rows_of(tmp_path)
    assert [int(row["step"]) for row in rows] == [step for step in (0, 2, 4, 6) for _ in range(2)]
    assert {row["layer"] for row in rows} == {"0"}


def test_all_layers_are_probed_in_one_pass_and_the_best_is_logged(tmp_path, model, data):
    logger, calls = CSVLogger(tmp_path, name="metrics"), []
    model.encoder.blocks[0].register_forward_hook(lambda module, inputs, output: calls.append(len(output)) if not module.training else None)
    fit(tmp_path, model, data, LabelProbe("picture", labels_per_class=(2,), draws=2, layers="all"), loggers=logger, limit_val_batches=0)
    assert len(calls) == 2 * 2 * 2  # probes, splits, batches
    rows = [row for row in rows_of(tmp_path) if row["method"] == "linear"]
    assert [row["layer"] for row in rows] == ["0", "1", "out", "best"] * 2
    best = rows[-1]
    assert set(best["chosen"].split()) <= {"0", "1", "out"} and len(best["chosen"].split()) == 2
    assert float(best["majority"]) == pytest.approx(0.5, abs=0.1) and int(best["test_items"]) == len(data_labels(data))
    with (tmp_path / "metrics/version_0/metrics.csv").open(newline="") as file:
        logged = [row["probe/picture/linear_2"] for row in csv.DictReader(file) if row.get("probe/picture/linear_2")]
    assert [float(value) for value in logged] == [float(row["accuracy"]) for row in rows if row["layer"] == "best"]


def data_labels(data) -> list[int]:
    return [label for batch in data.batches for label in batch.labels["label"][batch.items["picture"].sample].tolist() if label >= 0]


def test_a_run_that_goes_on_adds_no_row_and_replaces_what_it_probes_again(tmp_path, make_model, data):
    probe = {"modality": "picture", "labels_per_class": (2,), "draws": 1}
    first = trainer_in(tmp_path, LabelProbe(**probe), max_epochs=1)
    first.fit(make_model(), datamodule=data)
    first.save_checkpoint(tmp_path / "first.ckpt")
    before = rows_of(tmp_path)
    assert [row["step"] for row in before] == ["0", "0", "2", "2"]
    for _ in range(2):  # the second continues from the same place, as after a kill
        trainer = trainer_in(tmp_path, LabelProbe(**probe), max_epochs=2)
        trainer.fit(make_model(), datamodule=data, ckpt_path=tmp_path / "first.ckpt")
        rows = rows_of(tmp_path)
        assert [row["step"] for row in rows] == ["0", "0", "2", "2", "4", "4"] and rows[:4] == before


def test_a_run_that_goes_on_is_not_probed_where_it_stopped(tmp_path, make_model, data):
    stopped = trainer_in(tmp_path, max_epochs=1)
    stopped.fit(make_model(), datamodule=data)
    stopped.save_checkpoint(tmp_path / "first.ckpt")
    trainer = trainer_in(tmp_path, LabelProbe("picture", labels_per_class=(2,), draws=1), max_epochs=2)
    trainer.fit(make_model(), datamodule=data, ckpt_path=tmp_path / "first.ckpt")
    assert [row["step"] for row in rows_of(tmp_path)] == ["4", "4"]


def test_rows_of_an_earlier_version_stay(tmp_path, model, data):
    (tmp_path / "probe.csv").write_text("step,modality,layer,method,labels_per_class,accuracy,std,draws\n9,picture,out,knn,10,0.5,0.1,5\n")
    fit(tmp_path, model, data, LabelProbe("picture", labels_per_class=(2,), draws=1))
    rows = rows_of(tmp_path)
    assert len(rows) == 5 and rows[0]["accuracy"] == "0.5" and rows[0]["majority"] == "" and rows[1]["majority"]


def test_probing_leaves_training_as_it_is(tmp_path, make_model, data):
    trained = []
    for callbacks in ((), (LabelProbe("picture", labels_per_class=(2,), every_n_epochs=1), PictureLogger())):
        model = make_model()
        modes = []
        model.on_train_batch_start = lambda *args, modes=modes, model=model: modes.append(model.training)
        fit(tmp_path, model, data, *callbacks)
        assert modes == [True] * EPOCHS * STEPS
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_unlabelled_samples_and_those_without_the_modality_are_left_out(model, data):
    features, labels = LabelProbe("pairs")._features(model, data.evaluation_dataloader("train"))
    usable = [
        bool(label >= 0 and number in batch.items["pairs"].sample)
        for batch in data.batches
        for number, label in enumerate(batch.labels["label"])
    ]
    assert len(features["out"]) == len(labels) == sum(usable) < len(usable)
    assert labels.min() == 0 and (features["out"].abs().sum(1) > 0).all()
    expected = torch.cat([model.features(batch, "pairs") for batch in data.batches])[torch.tensor(usable)]
    torch.testing.assert_close(features["out"], expected)


def test_names_that_do_not_exist_are_refused(tmp_path, model, data):
    with pytest.raises(ValueError, match=r"no modality 'sound', only \['pairs', 'picture'\]"):
        fit(tmp_path, model, data, LabelProbe("sound"))
    with pytest.raises(ValueError, match=r"layers must be 'all' or some of -2 to 1 and 'out', got .2."):
        fit(tmp_path, model, data, LabelProbe("picture", layers=[2]))
    with pytest.raises(ValueError, match="no sample has both modality 'picture' and label 'mood'"):
        fit(tmp_path, model, data, LabelProbe("picture", label="mood"))


def test_pictures_are_drawn_at_every_validation(tmp_path, model, data):
    fit(tmp_path, model, data, PictureLogger(count=3), loggers=TensorBoardLogger(tmp_path, name="logs", version=""))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("pictures/**/*.png"))
    assert files == [f"pictures/picture/step-{step:08d}.png" for step in (2, 4, 6)]  # none before training, none of what has no renderer
    grids = [np.asarray(Image.open(tmp_path / file)) for file in files]
    side = 48  # 16 pixels, enlarged to at least 40
    assert {grid.shape for grid in grids} == {(16 + 3 * side + 4 * 6, 4 * side + 5 * 6, 3)}
    item, masked = (slice(None), slice(0, 6 + side)), (slice(None), slice(6 + side, 12 + 2 * side))
    assert all(np.array_equal(grids[0][place], grid[place]) for grid in grids for place in (item, masked))  # the same items and masks
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [event.step for event in events.Images("picture")] == [2, 4, 6]


def test_pictures_come_from_as_many_batches_as_it_takes(tmp_path, model, mixed_samples):
    single = Data([collate([sample]) for sample in mixed_samples * 2])
    fit(tmp_path, model, single, PictureLogger(count=3), max_epochs=1)
    whole = Data([collate(mixed_samples * 2)])
    trainer_in(tmp_path / "whole", PictureLogger(count=3)).validate(model, datamodule=whole, verbose=False)
    (first,), (second,) = (list(folder.glob("pictures/picture/*.png")) for folder in (tmp_path, tmp_path / "whole"))
    grids = [np.asarray(Image.open(file)) for file in (first, second)]
    assert grids[0].shape == grids[1].shape == (16 + 3 * 48 + 4 * 6, 4 * 48 + 5 * 6, 3)
    assert np.array_equal(grids[0][22:, 6:54], grids[1][22:, 6:54])  # the same three items


def test_a_model_that_draws_nothing_is_warned_of_once(tmp_path, make_model, data):
    with pytest.warns(UserWarning, match="PictureLogger draws nothing: no modality has a renderer") as caught:
        fit(tmp_path, make_model(), data, PictureLogger())
    assert sum("PictureLogger" in str(warning.message) for warning in caught) == 1
    assert not (tmp_path / "pictures").exists()


def test_no_pictures_at_all_are_refused():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        PictureLogger(count=0)


def test_a_grid_shows_the_columns_that_all_rows_have():
    picture = torch.full((3, 8, 8), 9, dtype=torch.uint8)
    rows = [{"image": picture, "masked": picture, "decoded": picture}, {"image": picture, "decoded": picture}]
    assert picture_grid(rows).size == (2 * 8 + 3 * 6, 16 + 2 * 8 + 3 * 6)


def test_a_grid_places_pictures_of_different_sizes_without_overlap():
    rows = [
        {"left": torch.full((3, 20, 90), 10, dtype=torch.uint8), "right": torch.full((3, 30, 60), 20, dtype=torch.uint8)},
        {"left": torch.full((3, 40, 50), 30, dtype=torch.uint8), "right": torch.full((3, 10, 70), 40, dtype=torch.uint8)},
    ]
    grid = np.asarray(picture_grid(rows))
    assert grid.shape == (16 + 3 * 6 + 30 + 40, 3 * 6 + 90 + 70, 3)
    places = ((10, 22, 6, 20, 90), (20, 22, 102, 30, 60), (30, 58, 6, 40, 50), (40, 58, 102, 10, 70))
    for shade, top, left, height, width in places:  # margins of 6 pixels below a line of 16 for the titles
        assert (grid[top : top + height, left : left + width] == shade).all()
