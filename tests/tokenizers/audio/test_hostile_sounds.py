"""Sounds of every kind through the whole path: files, shards, spectrograms, masked patches, a step. What is bad is named and left out."""

from functools import partial
from pathlib import Path

import pytest
import torch

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
from tests.tokenizers.hostile import Watched, named, stop_at_the_first, stop_at_too_many, train_on_all, write
from tests.tokenizers.zoo import SOUNDS, Animal, sound, tone

FEATURES = LogMel(num_bins=32)
FRONT_ENDS = {
    "workers": {"transform": SpectrogramTransform(AudioTransform(seconds=0.4), FEATURES)},
    "device": {"transform": AudioTransform(seconds=0.4, min_seconds=0.175), "preparation": [Spectrograms(FEATURES)]},
}
TOO_SHORT = {"workers": "makes 8 frames; min_frames 16 need 2800 samples", "device": "min_seconds 0.175 are wanted"}
EMPTY = "empty-wav"  # has no place in a shard
ANIMALS = named(SOUNDS)
ANIMALS["a-tenth-of-a-second"] = Animal("wav", lambda: sound("WAV", "PCM_16", 16_000, samples=tone(0.1, 16_000)), "frames|seconds")
ANIMALS["silence"] = Animal("flac", lambda: sound("FLAC", "PCM_16", 16_000, samples=0 * tone(0.5, 16_000)), (8000,))
IN_SHARDS = {name: animal for name, animal in ANIMALS.items() if name != EMPTY}


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
    return Watched(encoder, {"sound": modality})


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("zoo"), ANIMALS, samples_per_shard=10)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_whole_zoo_is_trained_on_or_left_out_by_name(shards, tmp_path, front_end):
    model = make_model(front_end)
    bad = train_on_all(model, shards, tmp_path, IN_SHARDS)
    assert len(model.seen) >= 17 and len(bad) >= 18
    assert TOO_SHORT[front_end] in bad["a-tenth-of-a-second"]
    assert "must be finite" in bad["nan"] and "must be finite" in bad["inf"]


@pytest.mark.parametrize("name", ["nan", "one-sample", "cut-flac", "random-flac", "a-tenth-of-a-second"])
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_strict_run_stops_at_the_first_one_with_its_name(tmp_path, front_end, name):
    shards = write(tmp_path, {own: ANIMALS[own] for own in ("stereo-wav", name, "flac")})
    stop_at_the_first(make_model(front_end), shards, tmp_path, name, ANIMALS[name])


def test_too_many_bad_ones_stop_a_run_that_skips(shards, tmp_path):
    stop_at_too_many(partial(make_model, "workers"), shards, tmp_path)


def test_an_empty_file_is_named_when_shards_are_written(tmp_path, capsys):
    write(tmp_path, {name: ANIMALS[name] for name in (EMPTY, "flac")})
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
