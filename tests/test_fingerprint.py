import enum
import importlib.metadata

import pytest
import torch

from multimodal import __version__, fingerprint
from multimodal.fingerprint import library_versions, transform_fingerprint
from multimodal.protocols import Transform
from multimodal.tokenizers.image import ClassificationTransform, ImageTransform, RandAugment, RandomErasing
from multimodal.tokenizers.midi import CompoundTokenizer, MidiTransform


class Kind(enum.Enum):
    A = 1
    B = 2


class Settings:
    def __init__(self, **settings):
        vars(self).update(settings)


class AnyTransform(Transform):
    extensions = ("any",)

    def __init__(self, **settings):
        vars(self).update(settings)

    def decode(self, data):
        return data

    def __call__(self, decoded, generator, train):
        return decoded


class OtherTransform(AnyTransform):
    pass


BASE = {
    "size": 3,
    "range": (0.5, 1.0),
    "name": "x",
    "nothing": None,
    "kind": Kind.A,
    "table": {"b": 1, "a": [2]},
    "inner": Settings(depth=1),
    "weights": torch.tensor([1.0, 2.0]),
}


def test_equal_settings_have_equal_fingerprints_however_they_were_written():
    same = BASE | {"size": 3.0, "range": [0.5, 1], "table": {"a": (2,), "b": 1}, "inner": Settings(depth=1)}
    assert transform_fingerprint(AnyTransform(**BASE)) == transform_fingerprint(AnyTransform(**same))
    assert len(transform_fingerprint(AnyTransform())) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"size": 4},
        {"size": "3"},
        {"size": True},
        {"range": (0.5, 0.9)},
        {"range": (1.0, 0.5)},
        {"nothing": 0},
        {"kind": Kind.B},
        {"table": {"b": 1, "a": [3]}},
        {"inner": Settings(depth=2)},
        {"inner": Settings(depth=1, more=None)},
        {"weights": torch.tensor([1.0, 2.5])},
        {"weights": torch.tensor([1.0, 2.0]).half()},
        {"another": 1},
    ],
    ids=lambda change: "-".join(change),
)
def test_every_setting_counts(change):
    assert transform_fingerprint(AnyTransform(**BASE)) != transform_fingerprint(AnyTransform(**(BASE | change)))


def test_the_class_counts():
    assert transform_fingerprint(AnyTransform(size=1)) != transform_fingerprint(OtherTransform(size=1))


def test_a_nested_tokenizer_counts_by_its_fingerprint():
    plain, narrow = MidiTransform(CompoundTokenizer()), MidiTransform(CompoundTokenizer((30, 90)))
    assert transform_fingerprint(plain) == transform_fingerprint(MidiTransform())
    assert transform_fingerprint(plain) != transform_fingerprint(narrow)


@pytest.mark.parametrize("value", [len, lambda: 1, torch.nn.Linear(1, 1), torch], ids=["built in", "lambda", "module", "library"])
def test_what_has_no_stable_hash_is_refused(value):
    with pytest.raises(ValueError, match=r"AnyTransform.x is a .* which has no fingerprint"):
        transform_fingerprint(AnyTransform(x=value))


def test_use_does_not_change_the_fingerprint_of_our_transforms():
    transform = ImageTransform(size=8, tokenizer_size=4)
    before = transform_fingerprint(transform)
    transform(torch.randint(256, (3, 12, 10), dtype=torch.uint8), torch.Generator(), True)
    assert transform_fingerprint(transform) == before


def test_the_libraries_of_a_transform_are_those_that_its_code_uses(monkeypatch):
    versions = library_versions(ImageTransform())
    assert versions["multimodal"] == __version__
    assert versions["Pillow"] == importlib.metadata.version("Pillow")
    assert "symusic" not in versions
    assert "symusic" in library_versions(MidiTransform())
    assert "Pillow" not in library_versions(MidiTransform())
    assert "timm" not in versions | library_versions(ClassificationTransform())
    for part in ({"augment": RandAugment()}, {"erase": RandomErasing()}):
        assert library_versions(ClassificationTransform(**part))["timm"] == importlib.metadata.version("timm")
    monkeypatch.setattr(fingerprint, "version", lambda name: "9.9+cpu")
    assert library_versions(ImageTransform())["torch"] == "9.9"
