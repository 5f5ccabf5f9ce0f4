import pytest
import torch

from multimodal.batch import Item
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.streaming.preparation import SamplePreparation, sample_seed
from multimodal.errors import SampleError
from multimodal.protocols import LabelledTransform


def raw(key="a", **fields):
    return RawSample("x.tar", key, fields, tuple(fields))


@pytest.fixture
def preparation(transforms):
    return SamplePreparation(transforms, ["five", "four"], seed=3, train=True)


def test_labels_items_and_seed(preparation):
    sample = preparation(raw(num=b"4", json=b'{"label": "four"}'), source=1, turn=2)
    assert (sample.key, sample.labels, sample.seed) == ("a", {"label": 1}, sample_seed(3, 2, 1, "a"))
    assert sample.items["number"].values[0] == 4
    assert preparation(raw(num=b"4"), 1, 2).labels == {}


def test_what_happens_to_a_sample_depends_on_seed_epoch_source_and_key_only(preparation):
    def noise(key, source, epoch):
        return preparation(raw(key, num=b"4"), source, epoch).items["number"].values[1].item()

    first = noise("a", 0, 0)
    torch.rand(3)
    assert noise("a", 0, 0) == first
    assert len({first, noise("b", 0, 0), noise("a", 1, 0), noise("a", 0, 1)}) == 4
    assert 0 <= sample_seed(3, 2, 1, "a") < 2**63


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num": b"four"}, "shard x.tar, key 'a', field 'num': not a number: b'four'"),
        ({"num": b"4", "json": b'{"label": "six"}'}, "field 'json': unknown label 'six'; the index lists 2 classes"),
        ({"num": b"4", "json": b'{"label": ["four"]}'}, "unknown label"),
        ({"num": b"4", "json": b"{"}, "field 'json': the metadata is not a JSON object"),
        ({"num": b"4", "json": b"\xff\xfe"}, "field 'json': the metadata is not a JSON object"),
        ({"num": b"4", "json": b"[]"}, "not a JSON object"),
        ({"abc": b"4"}, r"none of the fields wanted \(num\); the sample has abc"),
    ],
)
def test_bad_samples_say_where_and_why(preparation, fields, message):
    with pytest.raises(SampleError, match=message):
        preparation(raw(**fields), 0, 0)


def test_several_labels_become_a_row_of_zeros_and_ones(transforms):
    preparation = SamplePreparation(transforms, [], seed=3, train=True, tags=["dog", "rain", "wind"])
    rows = {
        text: preparation(raw(num=b"4", json=text), 0, 0).labels
        for text in (b'{"labels": ["wind", "dog"]}', b'{"labels": []}', b"{}", b'{"labels": null}')
    }
    found = {text: {name: row.tolist() for name, row in labels.items()} for text, labels in rows.items()}
    assert list(found.values()) == [{"labels": [1, 0, 1]}, {"labels": [0, 0, 0]}, {}, {}]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('["snow"]', "field 'json': unknown label 'snow' among its labels; the index lists 2"),
        ('"dog"', "field 'json': the labels 'dog' are not a list of different strings"),
        ('["dog", "dog"]', "are not a list of different strings"),
    ],
)
def test_bad_labels_are_named_where_the_index_knows_labels(transforms, labels, message):
    bad = raw(num=b"4", json=f'{{"labels": {labels}}}'.encode())
    with pytest.raises(SampleError, match=message):
        SamplePreparation(transforms, [], 3, True, tags=["dog", "rain"])(bad, 0, 0)
    assert SamplePreparation(transforms, [], 3, True)(bad, 0, 0).labels == {}  # shards without labels may use the name for anything


class SignTransform(LabelledTransform):
    """A number, and a letter that says its sign."""

    extensions, label_extensions = ("num",), ("sign", "letter")

    def decode(self, data):
        return float(data)

    def decode_labels(self, data):
        if data not in (b"+", b"-"):
            raise ValueError(f"not a sign: {data!r}")
        return 1 if data == b"+" else 0

    def labelled(self, decoded, labels, generator, train):
        if labels is not None and (decoded >= 0) != bool(labels):
            raise ValueError(f"{decoded} has the other sign")
        return Item(torch.tensor([decoded]), labels=torch.tensor([-1 if labels is None else labels]))


def test_labels_of_places_come_from_a_field_of_their_own():
    preparation = SamplePreparation({"number": SignTransform()}, [], 0, True)
    assert preparation.wanted(0, 0, "a") == {"num", "sign", "letter", "json"}
    for fields, expected in (({"sign": b"-"}, 0), ({"letter": b"-"}, 0), ({}, -1)):
        assert preparation(raw(num=b"-4", **fields), 0, 0).items["number"].labels.tolist() == [expected]
    with pytest.raises(SampleError, match=r"none of the fields wanted \(num\)"):
        preparation(raw(sign=b"+"), 0, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num": b"x", "sign": b"+"}, "key 'a', field 'num': could not convert"),
        ({"num": b"4", "sign": b"?"}, "key 'a', field 'sign': not a sign"),
        ({"num": b"4", "letter": b"-"}, "key 'a', field 'letter': 4.0 has the other sign"),
    ],
)
def test_the_field_at_fault_is_named(fields, message):
    with pytest.raises(SampleError, match=message):
        SamplePreparation({"number": SignTransform()}, [], 0, True)(raw(**fields), 0, 0)


def test_other_errors_of_a_transform_say_where(transforms, monkeypatch):
    monkeypatch.setattr(type(transforms["number"]), "decode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        SamplePreparation(transforms, [], 0, False)(raw(num=b"4"), 0, 0)
    assert caught.value.__notes__ == ["while preparing shard x.tar, key 'a', field 'num'"]
