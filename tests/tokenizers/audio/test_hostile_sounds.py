"""Sounds of every kind through the whole path: files, shards, spectrograms, masked patches, a step. What is bad is named and left out."""

import csv
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch

from multimodal.datamodules.commands import main
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.streaming.bad_samples import BadSampleWarning
from multimodal.errors import SampleError
from multimodal.masking import Drop, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import BucketedBias, Decoder, DeepNormBlock, Encoder
from multimodal.tokenizers.audio import (
    AudioTransform,
    LogMel,
    RandomProjectionTokenizer,
    SpectrogramEmbed,
    Spectrograms,
    SpectrogramTransform,
)
from multimodal.training import MaskedPretraining
from tests.tokenizers.zoo import SOUNDS, Animal, sound, tone

FEATURES = LogMel(num_bins=32)
FRONT_ENDS = {
    "workers": {"transform": SpectrogramTransform(AudioTransform(seconds=0.4), FEATURES)},
    "device": {"transform": AudioTransform(seconds=0.4, min_seconds=0.175), "preparation": [Spectrograms(FEATURES)]},
}
TOO_SHORT = {"workers": "makes 8 frames; min_frames 16 need 2800 samples", "device": "min_seconds 0.175 are wanted"}
EMPTY = "empty-wav"  # has no place in a shard
ANIMALS = {name.replace(" ", "-").replace(".", "-"): Animal(*animal) for name, animal in SOUNDS.items()}
ANIMALS["a-tenth-of-a-second"] = Animal("wav", lambda: sound("WAV", "PCM_16", 16_000, samples=tone(0.1, 16_000)), "frames|seconds")
ANIMALS["silence"] = Animal("flac", lambda: sound("FLAC", "PCM_16", 16_000, samples=0 * tone(0.5, 16_000)), (8000,))


class Watched(MaskedPretraining):
    """Notes what it was trained on."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.seen.extend(batch.keys)
        assert all(torch.isfinite(items.values).all() for items in batch.items.values())
        self.finite.append(bool(torch.isfinite(loss)) and (float(loss.detach()) > 0 or not batch.keys))
        return loss


def make_model(front_end: str) -> Watched:
    """A BEATs of two layers: ids of a random projection, three of four patches hidden, and only the others encoded."""
    torch.manual_seed(0)
    modality = partial(
        Modality,
        **FRONT_ENDS[front_end],
        embed=partial(SpectrogramEmbed, position=None),
        tokenizer=RandomProjectionTokenizer(num_codes=16, code_dim=4, hidden_dim=8),
        masking=RandomMasking(0.75),
        corruption=Drop(),
        decoder=partial(Decoder, width=8, depth=1, num_heads=2),
    )
    encoder = Encoder(dim=16, depth=2, num_heads=2, block=DeepNormBlock, bias=BucketedBias)
    model = Watched(encoder, {"sound": modality})
    model.seen, model.finite = [], []
    return model


def fit(model: Watched, shards: Path, folder: Path, **settings) -> None:
    data = ShardDataModule(str(shards), model.transforms, **{"batch_size": 8, "val_split": None} | settings)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet).fit(model, datamodule=data)


def write(folder: Path, names: list[str]) -> Path:
    """Write files of the zoo into shards."""
    source, target = folder / "files", folder / "shards"
    source.mkdir(parents=True)
    for name in names:
        (source / f"{name}.{ANIMALS[name].field}").write_bytes(ANIMALS[name].make())
    options = ["--split", "train=1", "--samples-per-shard", "10", "--workers", "0", "--on-error", "skip"]
    assert main(["write", str(source), "--to", str(target), *options]) == 0
    return target


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("zoo"), list(ANIMALS))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_whole_zoo_is_trained_on_or_left_out_by_name(shards, tmp_path, front_end):
    model = make_model(front_end)
    with pytest.warns(BadSampleWarning) as told:
        fit(model, shards, tmp_path, on_error="skip", max_bad_fraction=1.0)
    assert model.finite and all(model.finite) and all(parameter.isfinite().all() for parameter in model.parameters())
    with (tmp_path / "bad_samples.csv").open(newline="") as file:
        bad = {key: (shard, field, reason) for shard, key, field, reason in csv.reader(file)}
    good = {name for name, animal in ANIMALS.items() if isinstance(animal.expected, tuple)}
    refused = {name for name, animal in ANIMALS.items() if isinstance(animal.expected, str)} - {EMPTY}
    assert len(good) >= 17 and len(refused) >= 18
    read = len(ANIMALS) - 1
    assert any(f"left out {len(bad)} of the {read} samples read in this epoch" in str(warning.message) for warning in told)
    assert sorted([*model.seen, *bad]) == sorted(set(ANIMALS) - {EMPTY})  # nothing is lost, nothing comes twice
    assert good <= set(model.seen) and refused <= set(bad)
    for name, (shard, field, reason) in bad.items():
        assert Path(shard).name.startswith("train-") and field == ANIMALS[name].field and "\n" not in reason
    assert TOO_SHORT[front_end] in bad["a-tenth-of-a-second"][2]
    assert "must be finite" in bad["nan"][2] and "must be finite" in bad["inf"][2]


@pytest.mark.parametrize("name", ["nan", "one-sample", "cut-flac", "random-flac", "a-tenth-of-a-second"])
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_strict_run_stops_at_the_first_one_with_its_name(tmp_path, front_end, name):
    shards = write(tmp_path, ["stereo-wav", name, "flac"])
    with pytest.raises(SampleError) as caught:
        fit(make_model(front_end), shards, tmp_path)
    error = caught.value
    assert Path(error.shard).name == "train-000000.tar" and error.key == name and error.field == ANIMALS[name].field
    assert error.key in str(error) and "train-000000.tar" in str(error) and len(error.reason) > 10


def test_too_many_bad_ones_stop_a_run_that_skips(shards, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadSampleWarning)
        with pytest.raises(ValueError, match=r"samples read could not be used, more than max_bad_fraction=0\.1 allows; the last: shard"):
            fit(make_model("workers"), shards, tmp_path, on_error="skip", max_bad_fraction=0.1)


def test_an_empty_file_is_named_when_shards_are_written(tmp_path, capsys):
    write(tmp_path, [EMPTY, "flac"])
    told = "".join(capsys.readouterr().out.split())  # without the places where lines are broken
    assert f"{EMPTY}.wav:thefileisempty" in told


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_file_gives_the_same_tokens_whatever_its_rate_channels_and_samples(front_end):
    """One tone at 8 to 128 kHz, in 8 to 64 bits: what the encoder sees below 4 kHz hardly differs."""
    plain = {"WAV": ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"), "FLAC": ("PCM_24",)}
    files = [sound(kind, subtype, 16_000) for kind, subtypes in plain.items() for subtype in subtypes]
    files += [sound("WAV", "FLOAT", rate) for rate in (8000, 22_050, 44_100, 48_000, 128_000)]
    model = make_model(front_end)
    transform = model.transforms["sound"]
    modality = model.modalities["sound"]
    seen = []
    for data in files:
        item = transform(transform.decode(data), torch.Generator(), False)
        features = item.values if front_end == "workers" else FEATURES(item.values)
        seen.append(modality.embed.tokens(features[None]).inputs[0])  # the lowest band, where the tone is
    loudest = seen[0].view(16, 16).mean(0).argmax()
    for patch in seen[1:]:
        assert (patch - seen[0]).view(16, 16)[:, loudest].abs().max() < 0.05
