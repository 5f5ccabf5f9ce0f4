import json
from collections import Counter

import pytest

from multimodal.datamodules.writing.sources import Scan, SplitRule, arrange, scan_folder

HALVES = {"train": 0.5, "val": 0.5}


def test_the_order_mixes_classes_and_is_fixed(make_source):
    source = make_source(count=200)
    first, second = (arrange(scan_folder(source), SplitRule({"train": 1.0}))["train"] for _ in range(2))
    assert first == second
    assert {sample.label for sample in first[:30]} == {"c0", "c1", "c2", "c3"}


def split_of_each(splits):
    return {sample.key: split for split, samples in splits.items() for sample in samples}


def test_a_pattern_keeps_relatives_together(tmp_path):
    for number in range(60):
        for shot in range(5):
            (tmp_path / f"scene{number}_{shot}.num").write_text("1")
    found = split_of_each(arrange(scan_folder(tmp_path), SplitRule(HALVES, by=r"(.+)_\d")))
    scenes = {key.rpartition("_")[0]: split for key, split in found.items()}
    assert all(scenes[key.rpartition("_")[0]] == split for key, split in found.items())
    assert 15 < Counter(scenes.values())["train"] < 45
    alone = split_of_each(arrange(scan_folder(tmp_path), SplitRule(HALVES)))
    assert len({alone[f"scene0_{shot}"] for shot in range(5)} | {alone[f"scene1_{shot}"] for shot in range(5)}) == 2


def test_an_entry_of_the_metadata_keeps_relatives_together(tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.num").write_text("1")
        (tmp_path / f"{number}.json").write_text(json.dumps({"speaker": number % 7}))
    found = split_of_each(arrange(scan_folder(tmp_path), SplitRule(HALVES, by="column:speaker")))
    speakers = {int(key) % 7: split for key, split in found.items()}
    assert all(speakers[int(key) % 7] == split for key, split in found.items())
    assert set(speakers.values()) == {"train", "val"}


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("column:voice", r"the sample '.*' has no 'voice'; it has label, source"),
        ("x(.)", "does not match the key"),
        ("(.)(.)", "needs one group, .* it has 2"),
        ("(", "is not a regular expression"),
    ],
)
def test_nothing_to_split_by_is_one_clear_error(make_source, by, message):
    with pytest.raises(ValueError, match=message):
        arrange(scan_folder(make_source()), SplitRule(HALVES, by))


def test_splitting_by_something_needs_shares():
    with pytest.raises(ValueError, match="--split-by has no effect"):
        SplitRule(None, "column:x")


def test_splits_of_the_source_stay_unless_shares_are_given(make_source):
    samples = [sample for sample, _ in scan_folder(make_source()).samples]
    scan = Scan("made", [(sample, "b" if number < 5 else "a") for number, sample in enumerate(samples)])
    assert {split: len(found) for split, found in arrange(scan, SplitRule(None)).items()} == {"b": 5, "a": 35}
    assert set(arrange(scan, SplitRule(HALVES))) == {"train", "val"}
    scan.add(samples[0])
    with pytest.raises(ValueError, match="the source names no split for"):
        arrange(scan, SplitRule(None))


def test_a_key_twice_in_a_split_is_refused(make_source):
    samples = [sample for sample, _ in scan_folder(make_source()).samples]
    scan = Scan("made", [(samples[0], "a"), (samples[1], "a"), (samples[0], "a")])
    with pytest.raises(ValueError, match=f"1 keys are there more than once in split a, the first: '{samples[0].key}'"):
        arrange(scan, SplitRule(None))
