import pytest

from multimodal.datamodules.writing.deduplication import candidates, deduplicate
from multimodal.datamodules.writing.sources import SplitRule, arrange, scan_folder


@pytest.fixture
def splits(tmp_path):
    contents = {"a": "same", "b": "same", "c": "other", "d": "same", "e": "longer one", "f": "etaK"}
    for name, content in contents.items():
        (tmp_path / f"{name}.num").write_text(content)
        (tmp_path / f"{name}.json").write_text(f'{{"note": "{name}"}}')  # the metadata do not count
    return arrange(scan_folder(tmp_path), SplitRule({"train": 0.5, "val": 0.5}))


def keys(splits):
    return [sample.key for samples in splits.values() for sample in samples]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_of_equal_samples_is_kept_and_the_others_are_listed(splits, workers):
    told = []
    kept, dropped = deduplicate(splits, candidates(splits), workers, listener=lambda samples, size: told.append(samples))
    first, *others = (key for key in keys(splits) if key in "abd")
    assert set(keys(kept)) == {first, "c", "e", "f"}
    assert [key for key in keys(splits) if key in keys(kept)] == keys(kept)
    where = {sample.key: split for split, samples in splits.items() for sample in samples}
    assert dropped == [f"{where[key]}: {key} is equal to {where[first]}: {first}" for key in others]
    assert sum(told) == 4


def test_only_samples_of_equal_sizes_are_read(splits):
    assert {sample.key for sample in candidates(splits)} == {"a", "b", "d", "f"}


def test_samples_of_metadata_alone_are_not_equal(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.json").write_text("{}")
    assert candidates(arrange(scan_folder(tmp_path), SplitRule({"train": 1.0}))) == []


def test_fields_with_other_names_are_not_equal(tmp_path):
    (tmp_path / "a.num").write_text("x")
    (tmp_path / "b.abc").write_text("x")
    splits = arrange(scan_folder(tmp_path), SplitRule({"train": 1.0}))
    assert deduplicate(splits, [*splits["train"]])[1] == []
    assert candidates(splits) == []


def test_a_sample_that_cannot_be_read_is_kept_for_the_writer_to_say_so(splits, tmp_path):
    lost = next(sample for samples in splits.values() for sample in samples if sample.key in "abd")
    (tmp_path / f"{lost.key}.num").unlink()
    kept, dropped = deduplicate(splits, candidates(splits))
    assert lost.key in keys(kept)
    assert len(dropped) == 1
