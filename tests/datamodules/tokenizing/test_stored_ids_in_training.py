"""Training on shards with stored ids is training on the same views with the tokenizer running, without running it."""

import json
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from multimodal.cli import main
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.errors import SampleError
from multimodal.masking import RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed
from multimodal.tokenizers.midi import CompoundEmbed, MidiTransform, write_notes
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.training import MaskedPretraining

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
SIGHT = {"size": 32, "tokenizer_size": 16}
SOUND = {"max_notes": 16, "min_notes": 4, "transpose": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of pictures, of pieces, and of samples with both; two tokenizers; the shards with ids."""
    root = tmp_path_factory.mktemp("material")
    generator = np.random.default_rng(0)
    for number in range(24):
        path = root / "files" / ("train", "train", "train", "val")[number % 4] / "x" / f"{number:02d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 3 != 1:
            Image.fromarray(generator.integers(256, size=(40, 36 + number, 3), dtype=np.uint8)).save(f"{path}.png")
        if number % 3 != 0:
            count = 10 + number
            pitches = 60 + torch.arange(count) * (number + 1) % 12
            notes = torch.stack([torch.arange(count) * 240, pitches, torch.full((count,), 240), torch.full((count,), 80)], 1)
            path.with_suffix(".mid").write_bytes(write_notes(notes))
    arguments = ["--split", "folders", "--samples-per-shard", "5", "--workers", "0"]
    assert main(["shards", "write", str(root / "files"), "--to", str(root / "shards"), *arguments]) == 0
    for name, seed in (("tokenizer", 0), ("other", 1)):
        torch.manual_seed(seed)
        DiscreteVAE(num_tokens=300, num_layers=3, width=4, codebook_dim=4).save_pretrained(root / name)
    (root / "fit.yaml").write_text(yaml.safe_dump(config(root)))
    tokenize(root, "shards", "half", "sight", "--crops", "2")
    tokenize(root, "half", "ids", "sound", "--drop-fields", "mid")
    return root


def config(root):
    """The config of a pretraining on both."""
    image, midi = "multimodal.tokenizers.image.", "multimodal.tokenizers.midi."
    load = {"class_path": "multimodal.tokenizers.pretrained.load_tokenizer", "init_args": {"folder": str(root / "tokenizer")}}
    masking = {"class_path": "multimodal.masking.RandomMasking", "init_args": {"mask_ratio": 0.5}}
    sight = {
        "transform": {"class_path": image + "ImageTransform", "init_args": SIGHT},
        "embed": {"class_path": image + "PatchEmbed", "init_args": {"patch_size": 16}},
        "tokenizer": load,
        "masking": masking,
    }
    sound = {
        "transform": {"class_path": midi + "MidiTransform", "init_args": SOUND},
        "embed": midi + "CompoundEmbed",
        "masking": masking,
    }
    modalities = {
        name: {"class_path": "multimodal.modality.Modality", "init_args": part} for name, part in (("sight", sight), ("sound", sound))
    }
    model = {"encoder": {"dim": 16, "depth": 1, "num_heads": 2}, "modalities": modalities}
    return {
        "model": {"class_path": "multimodal.training.MaskedPretraining", "init_args": model},
        "data": {"class_path": "multimodal.datamodules.shard_datamodule.ShardDataModule", "init_args": {"shards": "", "batch_size": 6}},
        "trainer": {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
    }


def tokenize(root, source, target, name, *more):
    arguments = ["--modality", name, "--config", str(root / "fit.yaml"), "--workers", "0", *more]
    assert main(["shards", "tokenize", str(root / source), "--to", str(root / target), *arguments]) == 0


def build_model(root, tokenizer="tokenizer", **sight):
    torch.manual_seed(0)
    modalities = {
        "sight": partial(
            Modality,
            transform=ImageTransform(**(SIGHT | sight)),
            embed=partial(PatchEmbed, patch_size=16),
            tokenizer=load_tokenizer(str(root / tokenizer)),
            masking=RandomMasking(0.5),
        ),
        "sound": partial(Modality, transform=MidiTransform(**SOUND), embed=CompoundEmbed, masking=RandomMasking(0.5)),
    }
    return MaskedPretraining(Encoder(dim=16, depth=1, num_heads=2), modalities)


def build_data(root, model, shards="ids", **settings):
    return ShardDataModule(str(root / shards), model.transforms, **({"batch_size": 6, "tokenizers": model.fingerprints} | settings))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_ids_of_every_batch_are_those_of_what_the_batch_shows(folder, num_workers):
    model = build_model(folder)
    data = build_data(folder, model, num_workers=num_workers)
    loader, views = data.train_dataloader(), set()
    for _ in range(3):
        for batch in loader:
            sight, sound = batch.items["sight"], batch.items["sound"]
            assert torch.equal(model.modalities["sight"].tokenizer.encode(sight.tokenizer_values), sight.ids)
            assert sound.ids is None and sound.values.shape == (int(sound.lengths.sum()), 4)
            views.update(view.numpy().tobytes() for view in sight.values)
    assert len(views) == 12 * 2  # twelve of the training samples have a picture, each has two views


def test_stored_pieces_are_those_that_the_transform_makes(folder):
    model = build_model(folder)
    for split, train in (("val", False), ("train", True)):
        stored = build_data(folder, model)._loader(split, train)
        made = build_data(folder, model, "half")._loader(split, train)
        for with_ids, without in zip(stored, made, strict=True):
            assert with_ids.keys == without.keys
            if not train:  # in training the window of a piece is drawn once, and otherwise anew in each epoch
                assert torch.equal(with_ids.items["sound"].values, without.items["sound"].values)
                assert torch.equal(with_ids.items["sound"].lengths, without.items["sound"].lengths)


class Losses(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


def fit(folder, model, data):
    losses = Losses()
    L.seed_everything(0)
    L.Trainer(accelerator="cpu", max_epochs=2, callbacks=[losses], default_root_dir=folder, **QUIET).fit(model, datamodule=data)
    return losses.values


def test_losses_are_those_of_a_run_that_encodes_the_same_views_and_no_tokenizer_runs(folder, tmp_path, monkeypatch):
    calls = []
    encode = DiscreteVAE.encode
    monkeypatch.setattr(DiscreteVAE, "encode", lambda self, values: calls.append(len(values)) or encode(self, values))
    model = build_model(folder)
    calls.clear()  # of the check that the parts of a model fit together
    stored = fit(tmp_path, model, build_data(folder, model))
    assert calls == []

    def encoded(self, items):
        values = items.values if items.tokenizer_values is None else items.tokenizer_values
        return values if self.values_are_ids else self.tokenizer.encode(values)

    monkeypatch.setattr(Modality, "ids", encoded)
    model = build_model(folder)
    assert fit(tmp_path, model, build_data(folder, model)) == stored
    assert len(stored) == 6 and len(calls) >= 6


def test_without_fingerprints_the_tokenizer_runs_on_free_crops(folder):
    model = build_model(folder)
    data = build_data(folder, model, shards="half", tokenizers=None)
    views = {view.numpy().tobytes() for _ in range(3) for batch in data.train_dataloader() for view in batch.items["sight"].values}
    assert all(batch.items["sight"].ids is None for batch in data.train_dataloader())
    assert len(views) == 12  # three loaders of the first epoch: the same crops
    loader = data.train_dataloader()
    assert len({view.numpy().tobytes() for _ in range(3) for batch in loader for view in batch.items["sight"].values}) == 12 * 3


def test_samples_that_were_skipped_are_named(folder, tmp_path):
    bad = tmp_path / "files/train/x/bad.png"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(bad.with_name("good.png"))
    arguments = ["--split", "folders", "--workers", "0"]
    assert main(["shards", "write", str(tmp_path / "files"), "--to", str(tmp_path / "shards"), *arguments]) == 0
    more = ["--modality", "sight", "--config", str(folder / "fit.yaml"), "--on-error", "skip", "--workers", "0"]
    assert main(["shards", "tokenize", str(tmp_path / "shards"), "--to", str(tmp_path / "ids"), *more]) == 0
    model = build_model(folder)
    with pytest.raises(SampleError, match=r"key 'x/bad', field 'sight.0.ids.npy': no ids"):
        data = ShardDataModule(str(tmp_path / "ids"), {"sight": model.transforms["sight"]}, tokenizers=model.fingerprints)
        list(data.train_dataloader())


def test_another_transform_is_refused_before_any_data_is_read(folder):
    model = build_model(folder, flip=0.0)
    with pytest.raises(ValueError, match="belong to views of another transform than the model's"):
        build_data(folder, model).setup()


@pytest.mark.parametrize("tokenizer", ["tokenizer", "other"])
def test_fit_uses_the_ids_of_its_tokenizer_and_refuses_those_of_another(folder, tmp_path, capsys, monkeypatch, tokenizer):
    encoded = []
    encode = DiscreteVAE.encode
    monkeypatch.setattr(DiscreteVAE, "encode", lambda self, values: encoded.append(len(values)) or encode(self, values))
    override = ["--model.init_args.modalities.sight.init_args.tokenizer.init_args.folder", str(folder / tokenizer)]
    shards = ["--data.init_args.shards", str(folder / "ids"), "--data.init_args.val_split", "null"]
    code = main(["fit", "--config", str(folder / "fit.yaml"), *override, *shards, "--run", str(tmp_path / "run")])
    errors = capsys.readouterr().err
    assert sum(encoded) <= 1  # the one example that shows whether the parts of a modality fit together
    if tokenizer == "tokenizer":
        assert code == 0 and (tmp_path / "run/checkpoints/last.ckpt").exists()
        return
    error = errors.strip().splitlines()[-1]
    made, asked = (json.loads((folder / name / "config.json").read_text())["fingerprint"] for name in ("tokenizer", "other"))
    assert code != 0 and error.startswith("error: ") and "made by another tokenizer than the model's" in error
    assert made[:12] in error and asked[:12] in error and str(folder / "ids") in error
