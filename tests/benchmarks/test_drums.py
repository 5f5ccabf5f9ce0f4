"""The recordings of drum kits: each once, or as the kits have them."""

from pathlib import Path

import pytest
import torch

from benchmarks.drums.data import class_of, drums
from benchmarks.sound_classification.sounds import LABEL, MODALITY, RandomBatches, Sounds

KIT = '<drumkit_info xmlns="http://www.hydrogen-music.org/drumkit"><instrumentList>{}</instrumentList></drumkit_info>'
INSTRUMENT = "<instrument><name>{}</name><layer><filename>{}</filename></layer></instrument>"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Two kits that share recordings, one of which a kit lists twice, and one that nobody can name."""
    kits = {
        "GMRockKit": [("Kick", "a.wav", b"kick"), ("Snare", "b.wav", b"snare"), ("Snare rim", "c.wav", b"snare")],
        "The Black Pearl 1.0": [("Bass drum", "k.wav", b"kick"), ("Ride bell", "r.wav", b"ride"), ("Voice", "v.wav", b"voice")],
    }
    for kit, instruments in kits.items():
        folder = tmp_path / "usr/share/hydrogen/data/drumkits" / kit
        folder.mkdir(parents=True)
        for _, name, content in instruments:
            (folder / name).write_bytes(content)
        (folder / "drumkit.xml").write_text(KIT.format("".join(INSTRUMENT.format(name, file) for name, file, _ in instruments)))
    return tmp_path


def test_kits_with_recordings_in_common_count_as_one_and_every_recording_once(unpacked: Path) -> None:
    found = [(drum.kit, drum.path.name, drum.instrument) for drum in drums(unpacked)]
    assert found == [("GMRockKit", "a.wav", "kick"), ("GMRockKit", "b.wav", "snare"), ("GMRockKit", "r.wav", "ride")]


def test_where_they_stay_apart_each_has_all_of_its_own_once(unpacked: Path) -> None:
    found = [(drum.kit, drum.path.name) for drum in drums(unpacked, shared=True)]
    pearl = "The Black Pearl 1.0"
    assert found == [("GMRockKit", "a.wav"), ("GMRockKit", "b.wav"), (pearl, "k.wav"), (pearl, "r.wav")]


@pytest.mark.parametrize(
    ("name", "expected"), [("Kick Long", "kick"), ("Cowbell", "percussion"), ("Open HH", "hihat"), ("Ride Bell", "ride"), ("Piano", None)]
)
def test_the_first_rule_that_fits_a_name_decides(name: str, expected: str | None) -> None:
    assert class_of(name) == expected


def test_a_recording_that_is_drawn_again_has_another_seed() -> None:
    sounds = Sounds([torch.zeros(20, 4)] * 2, torch.tensor([0, 1]).numpy(), torch.tensor([0, 1]).numpy(), ("a", "b"))
    batches = iter(RandomBatches(sounds, torch.arange(2).numpy(), 4, 0))
    drawn = [next(batches) for _ in range(3)]
    seeds = torch.cat([batch.items[MODALITY].seed for batch in drawn])
    assert len(seeds.unique()) == 12 and all(batch.labels[LABEL].bincount().tolist() == [2, 2] for batch in drawn)
