"""Batches: items find their samples again, whatever each sample has."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.batch import SEED_STEP, Item, Sample, collate

LABELS = ("kind", "maker")


@st.composite
def samples_strategy(draw) -> list[Sample]:
    """Samples with any of two modalities (one ragged, also with nothing in it) and any of two labels."""
    samples = []
    for number in range(draw(st.integers(1, 6))):
        items = {}
        if draw(st.booleans()):
            items["fixed"] = Item(torch.full((2, 3), number), tokenizer_values=torch.full((4,), number))
        if draw(st.booleans()):
            items["ragged"] = Item(torch.full((draw(st.integers(0, 4)), 2), number), ragged=True)
        labels = {name: draw(st.integers(0, 9)) for name in LABELS if draw(st.booleans())}
        samples.append(Sample(f"key{number}", items, labels, seed=draw(st.integers(0, 2**63 - 1))))
    return samples


@given(samples_strategy())
def test_every_item_is_found_again(samples):
    batch = collate(samples)
    assert batch.keys == tuple(sample.key for sample in samples) and batch.num_samples == len(samples)
    assert set(batch.items) == {name for sample in samples for name in sample.items}
    for name, items in batch.items.items():
        present = [number for number, sample in enumerate(samples) if name in sample.items]
        assert items.sample.tolist() == present and len(items) == len(present)
        places = [list(samples[number].items).index(name) for number in present]  # of the modality among those of its sample
        assert items.seed.tolist() == [(samples[i].seed + place * SEED_STEP) % 2**63 for i, place in zip(present, places, strict=True)]
        values = items.values if items.lengths is None else items.values.split(items.lengths.tolist())
        for value, number in zip(values, present, strict=True):
            assert torch.equal(value, samples[number].items[name].values)
    if "fixed" in batch.items:
        assert batch.items["fixed"].lengths is None
        assert batch.items["fixed"].tokenizer_values[:, 0].tolist() == batch.items["fixed"].sample.tolist()


@given(samples_strategy())
def test_labels_are_minus_one_where_a_sample_has_none(samples):
    batch = collate(samples)
    assert set(batch.labels) == {name for sample in samples for name in sample.labels}
    for name, label in batch.labels.items():
        assert label.tolist() == [sample.labels.get(name, -1) for sample in samples]
        assert label.dtype == torch.int64


@given(samples_strategy())
def test_moving_a_batch_moves_every_tensor_and_leaves_the_old_one(samples):
    batch = collate(samples)
    moved = batch.to("meta")
    assert moved.keys == batch.keys and set(moved.items) == set(batch.items) and set(moved.labels) == set(batch.labels)
    for name, items in moved.items.items():
        tensors = {field: value for field, value in vars(items).items() if value is not None}
        assert all(
            value.device.type == "meta" and value.shape == getattr(batch.items[name], field).shape for field, value in tensors.items()
        )
        assert batch.items[name].values.device.type == "cpu"
    assert all(label.device.type == "meta" for label in moved.labels.values())


def test_no_samples_make_an_empty_batch():
    batch = collate([])
    assert (batch.num_samples, batch.items, batch.keys, batch.labels) == (0, {}, (), {})
    assert batch.to("meta").num_samples == 0


def test_stored_ids_lie_end_to_end_and_all_items_or_none_bring_them():
    items = [Item(torch.zeros(2, 2), ids=torch.arange(count)) for count in (2, 3)]
    batch = collate([Sample(str(number), {"a": item}) for number, item in enumerate(items)])
    assert batch.items["a"].ids.tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match="1 of 2 items of modality 'a' have stored ids; all or none must"):
        collate([Sample("0", {"a": items[0]}), Sample("1", {"a": Item(torch.zeros(2, 2))})])


def test_labels_of_places_are_stacked_or_lie_end_to_end_like_the_values():
    pictures = [Item(torch.zeros(1, 2, 3), labels=torch.full((2, 3), number, dtype=torch.int16)) for number in range(2)]
    labels = collate([Sample(str(number), {"a": item}) for number, item in enumerate(pictures)]).items["a"].labels
    assert labels.shape == (2, 2, 3) and labels.dtype == torch.int16 and labels[1].eq(1).all()
    sounds = [Item(torch.zeros(count, 4), ragged=True, labels=torch.arange(count)) for count in (2, 3)]
    assert collate([Sample(str(number), {"a": item}) for number, item in enumerate(sounds)]).items["a"].labels.tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match="1 of 2 items of modality 'a' have labels of their places; all or none must"):
        collate([Sample("0", {"a": pictures[0]}), Sample("1", {"a": Item(torch.zeros(1, 2, 3))})])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (Item(torch.zeros(2)), Item(torch.zeros(3)), r"modality 'a' differ in shape \[\(2,\), \(3,\)\]"),
        (Item(torch.zeros(2, 2), ragged=True), Item(torch.zeros(2, 3), ragged=True), r"modality 'a' differ in shape"),
        (Item(torch.zeros(2), ragged=True), Item(torch.zeros(2)), "modality 'a' .* ragged"),
        (Item(torch.zeros(2)), Item(torch.zeros(2), ragged=True), "modality 'a' .* ragged"),
        (Item(torch.zeros(2)), Item(torch.zeros(2), torch.zeros(4)), "1 of 2 items of modality 'a' have a tokenizer view"),
        (Item(torch.zeros(2), torch.zeros(4)), Item(torch.zeros(2), torch.zeros(5)), "modality 'a' differ in shape"),
    ],
)
def test_items_that_do_not_fit_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        collate([Sample("x", {"a": first}), Sample("y", {"a": second})])


def test_batches_survive_a_data_worker():
    samples = [[Sample(str(number), {"a": Item(torch.full((2,), number))}, {"l": number})] for number in range(3)]
    loader = torch.utils.data.DataLoader(samples, batch_size=None, collate_fn=collate, num_workers=1)
    assert [(batch.keys, batch.items["a"].values.tolist(), batch.labels["l"].tolist()) for batch in loader] == [
        ((str(number),), [[number, number]], [number]) for number in range(3)
    ]


def test_the_modalities_of_a_sample_have_seeds_of_their_own():
    item = Item(torch.zeros(1, 2, 2))
    samples = [Sample("both", {"a": item, "b": item}, seed=2**63 - 5), Sample("one", {"b": item}, seed=7)]
    batch = collate(samples)
    assert batch.items["a"].seed.tolist() == [2**63 - 5]
    both, one = batch.items["b"].seed.tolist()
    assert both != 2**63 - 5 and both >= 0
    assert one == 7  # an item alone has the seed of its sample
    assert collate(samples[:1]).items["b"].seed.tolist() == [both]


def test_rows_of_several_labels_are_stacked_and_missing_ones_are_minus_one():
    samples = [
        Sample("a", {}, {"labels": torch.tensor([1, 0, 1]), "label": 2}),
        Sample("b", {}),
        Sample("c", {}, {"labels": torch.zeros(3).long()}),
    ]
    batch = collate(samples)
    assert batch.labels["labels"].tolist() == [[1, 0, 1], [-1, -1, -1], [0, 0, 0]] and batch.labels["labels"].dtype == torch.int64
    assert batch.labels["label"].tolist() == [2, -1, -1] and batch.labels["label"].dtype == torch.int64


def test_a_repeated_batch_holds_each_sample_several_times_with_other_seeds():
    image = [torch.arange(4.0).view(2, 2) + n for n in range(3)]
    notes = [torch.arange(n + 2) for n in range(3)]
    items = [{"image": Item(a), "notes": Item(b, ragged=True)} for a, b in zip(image, notes, strict=True)]
    items[1].pop("image")
    made = collate([Sample(f"k{n}", own, {"label": n}, seed=n) for n, own in enumerate(items)])
    twice = made.repeated(2)
    assert twice.keys == ("k0", "k0", "k1", "k1", "k2", "k2") and twice.views == 2 and twice.repeated(3).views == 6
    assert twice.labels["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert twice.items["image"].sample.tolist() == [0, 4, 1, 5] and twice.items["notes"].sample.tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(twice.items["image"].values, made.items["image"].values.repeat(2, 1, 1))
    assert torch.equal(twice.items["notes"].values, made.items["notes"].values.repeat(2))
    assert twice.items["notes"].lengths.tolist() == [2, 3, 4, 2, 3, 4]
    assert torch.equal(twice.items["notes"].seed[:3], made.items["notes"].seed)
    assert len({*twice.items["notes"].seed.tolist(), *twice.items["image"].seed.tolist()}) == 10
    assert twice.to("cpu").views == 2 and collate([]).repeated(2).num_samples == 0
