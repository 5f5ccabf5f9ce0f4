"""Mixup and CutMix: timm's pixels and targets from the same draws, one exact mean over labels, and the same again after a restart."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import Mixup
from timm.data.mixup import mixup_target as timm_target
from timm.loss import SoftTargetCrossEntropy
from torch.nn import functional as F

from multimodal.batch import Batch, Item, Items, Sample, collate
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.image import ImageTransform, PatchEmbed
from multimodal.tokenizers.midi import CompoundEmbed, MidiTransform
from multimodal.training import FineTuning, Mixing
from multimodal.training.callbacks.step_seed import seed_all
from multimodal.training.mixing import Draw, mix, mix_values, partners


def pictures(count: int, height: int = 12, width: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def batch_of(values: torch.Tensor, labels: list[int], **more: list[int]) -> Batch:
    count = len(values)
    items = Items(values, torch.arange(count), torch.arange(count))
    told = {name: torch.tensor(numbers) for name, numbers in {"label": labels, **more}.items()}
    return Batch({"picture": items}, tuple(f"sample{i}" for i in range(count)), told)


class Fixed(Mixing):
    """Draws what it is told to."""

    def __init__(self, share: float, centre: tuple[float, float] | None = None):
        super().__init__()
        self.fixed = Draw(share, centre)

    def draw(self, generator):
        return self.fixed


@pytest.fixture
def make_picture_model():
    """A classifier of 8 x 8 pixels in four classes."""

    def make(transform=None, heads=None, **more) -> FineTuning:
        torch.manual_seed(0)
        picture = partial(Input, transform=transform or ImageTransform(size=8), embed=partial(PatchEmbed, patch_size=4))
        told = {"label": partial(ClassificationHead, num_classes=4)} | (heads or {})
        return FineTuning(Encoder(dim=16, depth=1, num_heads=2), {"picture": picture}, told, **more)

    return make


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 20)])
def test_mixup_has_the_pixels_of_timm(seed, height, width):
    values, labels = pictures(6, height, width, seed), torch.tensor([0, 1, 2, 0, 3, 1])
    np.random.seed(seed)
    timm = Mixup(mixup_alpha=0.8, cutmix_alpha=0.0, label_smoothing=0.1, num_classes=4)
    pixels, _ = timm(values.float(), labels)
    np.random.seed(seed)
    np.random.rand()
    share = np.random.beta(0.8, 0.8)
    batch, mixed = mix(batch_of(values, labels.tolist()), Draw(share))
    torch.testing.assert_close(batch.items["picture"].values, pixels, atol=1e-3, rtol=0)
    assert mixed.share.tolist() == pytest.approx([share] * 6) and mixed.partner.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 20)])
def test_cutmix_has_the_pixels_and_shares_of_timm(seed, height, width, monkeypatch):
    values, labels = pictures(6, height, width, seed), torch.tensor([0, 1, 2, 0, 3, 1])
    share, *centre = np.random.default_rng(seed).random(3).tolist()
    timm = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=4)
    monkeypatch.setattr(timm, "_params_per_batch", lambda: (share, True))
    places = iter([int(height * centre[0]), int(width * centre[1])])
    monkeypatch.setattr(np.random, "randint", lambda low, high, size=None: next(places))
    pixels, target = timm(values.float(), labels)
    batch, mixed = mix(batch_of(values, labels.tolist()), Draw(share, tuple(centre)))
    assert batch.items["picture"].values.dtype == torch.uint8
    assert torch.equal(batch.items["picture"].values.float(), pixels)
    exact = float(mixed.share[0])
    torch.testing.assert_close(timm_target(labels, 4, exact, 0.1), target)


@pytest.mark.parametrize("draw", [Draw(0.3), Draw(0.7), Draw(0.4, (0.1, 0.8))])
def test_the_loss_is_the_soft_target_loss_of_timm(make_picture_model, draw):
    model = make_picture_model(mixing=Fixed(*draw), label_smoothing=0.1)
    batch = batch_of(pictures(6, 8, 8), [0, 1, 2, 0, 3, 1])
    terms = model._terms(batch, "train")
    mixed_batch, mixed = mix(batch, draw)
    target = timm_target(batch.labels["label"], 4, float(mixed.share[0]), 0.1)
    expected = SoftTargetCrossEntropy()(model(mixed_batch)["label"], target)
    torch.testing.assert_close(terms["label", 0].loss / 6, expected)
    assert terms["label", 0].count == 6


def test_unlabelled_samples_are_mixed_apart_and_count_for_nothing(make_picture_model):
    labels = [0, -1, 2, -1, -1, 1, 3]
    batch = batch_of(pictures(7, 8, 8), labels)
    assert partners(batch).tolist() == [6, 4, 5, 3, 1, 2, 0]
    model = make_picture_model(mixing=Fixed(0.3))
    whole = model._terms(batch, "train")["label", 0]
    chosen = [i for i, label in enumerate(labels) if label >= 0]
    alone = model._terms(batch_of(batch.items["picture"].values[chosen], [labels[i] for i in chosen]), "train")["label", 0]
    torch.testing.assert_close(whole.loss, alone.loss)
    assert whole.count == 4 and alone.count == 4


def test_several_heads_are_told_by_partners_with_both_labels(make_picture_model):
    batch = batch_of(pictures(6, 8, 8), [0, 1, -1, 2, 3, -1], parity=[0, 1, 1, -1, 1, 0])
    partner = partners(batch).tolist()
    assert partner == [4, 1, 5, 3, 0, 2]
    for labels in batch.labels.values():
        assert torch.equal(labels >= 0, labels[partner] >= 0)
    model = make_picture_model(mixing=Fixed(0.3), heads={"parity": ClassificationHead(16, 2)})
    terms = model._terms(batch, "train")
    mixed_batch, mixed = mix(batch, Draw(0.3))
    logits = model(mixed_batch)
    for name, classes in (("label", 4), ("parity", 2)):
        told = batch.labels[name] >= 0
        target = 0.3 * F.one_hot(batch.labels[name].clamp(min=0), classes) + 0.7 * F.one_hot(
            batch.labels[name][partner].clamp(min=0), classes
        )
        target[mixed.partner == torch.arange(6)] = F.one_hot(batch.labels[name].clamp(min=0), classes)[[1, 3]].float()
        expected = -(target * logits[name].log_softmax(1))[told].sum()
        torch.testing.assert_close(terms[name, 0].loss, expected)
        assert terms[name, 0].count == told.sum()


def test_accuracy_counts_the_label_with_the_larger_share(make_picture_model, monkeypatch):
    batch, model = batch_of(pictures(4), [0, 1, 2, 3]), make_picture_model()
    monkeypatch.setattr(model, "_logits", lambda *_: {"label": torch.eye(4)})  # sure of its own label
    for share, correct in ((0.8, 4), (0.2, 0)):
        model.mixing = Fixed(share)
        assert model._terms(batch, "train")["label", 0].correct == correct


def test_sequences_and_ids_are_left_alone(labelled_samples):
    batch = collate(labelled_samples)
    mixed_batch, mixed = mix(batch, Draw(0.4))
    alone = [i for i, sample in enumerate(labelled_samples) if "pairs" in sample.items]
    assert alone and all(mixed.partner[i] == i and mixed.share[i] == 1 for i in alone)
    assert torch.equal(mixed_batch.items["pairs"].values, batch.items["pairs"].values)
    assert mixed.partner.tolist()[:1] + mixed.partner.tolist()[5:6] == [5, 0]  # the two pictures without pairs
    pictures_of = batch.items["picture"]
    for place, sample in enumerate(pictures_of.sample.tolist()):
        before, after = pictures_of.values[place].float(), mixed_batch.items["picture"].values[place]
        assert torch.allclose(before, after, atol=1e-3) == (sample in alone)


def test_two_views_of_a_sample_are_mixed_alike():
    values = {"near": pictures(4, 8, 8), "far": pictures(4, 16, 12, seed=1).float()}
    samples = [Sample(f"s{i}", {name: Item(x[i]) for name, x in values.items()}, {"label": i}) for i in range(4)]
    batch, mixed = mix(collate(samples), Draw(0.5, (0.5, 0.5)))
    shares = []
    for name, x in values.items():
        assert torch.equal(batch.items[name].values, mix_values(x, x.flip(0), Draw(0.5, (0.5, 0.5)))[0])
        shares.append(mix_values(x, x.flip(0), Draw(0.5, (0.5, 0.5)))[1])
    assert mixed.share.tolist() == pytest.approx([sum(shares) / 2] * 4) and shares[0] != shares[1]


def test_a_tokenizers_view_of_before_is_dropped():
    batch = batch_of(pictures(2), [0, 1])
    items = replace(batch.items["picture"], tokenizer_values=pictures(2), ids=torch.arange(4))
    mixed = mix(replace(batch, items={"picture": items}), Draw(0.5))[0].items["picture"]
    assert mixed.tokenizer_values is None and mixed.ids is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=9), st.data())
def test_partners_are_mutual_and_of_one_kind(labels, data):
    has_second = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    samples = [
        Sample(str(i), {"a": Item(torch.zeros(1, 2, 2))} | ({"b": Item(torch.zeros(2, 2))} if second else {}), {"label": label})
        for i, (label, second) in enumerate(zip(labels, has_second, strict=True))
    ]
    partner = partners(collate(samples)).tolist()
    kinds = [(label >= 0, second) for label, second in zip(labels, has_second, strict=True)]
    for kind in set(kinds):
        members = [i for i, other in enumerate(kinds) if other == kind]
        assert [partner[i] for i in members] == members[::-1]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(1, 9), st.integers(1, 9))
def test_shares_are_exact_areas(share, row, column, height, width):
    own, other = torch.zeros(1, height, width), torch.ones(1, height, width)
    values, exact = mix_values(own, other, Draw(share, (row, column)))
    assert 1 - values.mean().item() == pytest.approx(exact, abs=1e-5)


def test_draws_have_the_distributions_of_timm():
    generator = np.random.default_rng(0)
    drawn = [Mixing(probability=0.8, switch_probability=0.3).draw(generator) for _ in range(4000)]
    mixes = [each for each in drawn if each]
    cuts = [each for each in mixes if each.centre]
    assert len(mixes) / 4000 == pytest.approx(0.8, abs=0.02) and len(cuts) / len(mixes) == pytest.approx(0.3, abs=0.03)
    for found, alpha in ((cuts, 1.0), ([each for each in mixes if not each.centre], 0.8)):
        shares = np.array([each.share for each in found])
        assert shares.mean() == pytest.approx(0.5, abs=0.02)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)
    assert np.mean([each.centre for each in cuts], axis=0) == pytest.approx([0.5, 0.5], abs=0.05)
    only = [[Mixing(mixup, cutmix).draw(generator) for _ in range(20)] for mixup, cutmix in ((0.8, 0.0), (0.0, 1.0))]
    assert not any(each.centre for each in only[0]) and all(each.centre for each in only[1])


def test_a_step_that_is_seeded_alike_is_mixed_alike():
    batch, mixing, found = batch_of(pictures(4), [0, 1, 2, 3]), Mixing(), []
    for parts in ((0, 1, 5, 0), (0, 1, 5, 0), (0, 1, 6, 0)):
        seed_all(*parts)
        found.append(mixing(batch)[0].items["picture"].values.float())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_validation_and_prediction_are_not_mixed(make_picture_model):
    batch, model = batch_of(pictures(4, 8, 8), [0, 1, 2, 3]), make_picture_model(mixing=Fixed(0.3))
    plain = F.cross_entropy(model(batch)["label"], batch.labels["label"], reduction="sum")
    for stage in ("val", "test"):
        torch.testing.assert_close(model._terms(batch, stage)["label", 0].loss, plain)
    assert not torch.allclose(model._terms(batch, "train")["label", 0].loss, plain)
    torch.testing.assert_close(model.predict_step(batch, 0)["label"][1], model(batch)["label"].softmax(1))


def test_an_empty_batch_is_left_alone(make_picture_model):
    batch = Batch({}, ())
    assert Mixing()(batch) == (batch, None)
    assert make_picture_model(mixing=Mixing())._terms(batch, "train") == {}


@pytest.mark.parametrize(
    ("given_settings", "expected"),
    [
        ({"mixup_alpha": -1.0}, "mixup_alpha and cutmix_alpha must be at least 0"),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, "and one above it; got 0.0 and 0.0"),
        ({"probability": 0.0}, r"probability must be in \(0, 1\], got 0.0"),
        ({"switch_probability": 1.5}, r"switch_probability must be in \[0, 1\], got 1.5"),
    ],
)
def test_settings_are_checked(given_settings, expected):
    with pytest.raises(ValueError, match=expected):
        Mixing(**given_settings)


def test_mixing_of_ids_alone_is_refused():
    music = partial(Input, transform=MidiTransform(), embed=CompoundEmbed)
    with pytest.raises(ValueError, match="mixing has no effect on midi, whose items are ids: leave it out"):
        FineTuning(Encoder(dim=16, depth=1, num_heads=2), {"midi": music}, {"label": ClassificationHead(16, 2)}, mixing=Mixing())


def sounds(*lengths: int, bins: int | None = None, labels=None, seed: int = 0) -> Batch:
    """Waveforms, or spectrograms of so many bins, of these lengths."""
    generator, shape = torch.Generator().manual_seed(seed), () if bins is None else (bins,)
    samples = []
    for number, length in enumerate(lengths):
        told = {} if labels is None else {"labels": labels[number]}
        samples.append(Sample(f"s{number}", {"sound": Item(torch.randn(length, *shape, generator=generator), ragged=True)}, told))
    return collate(samples)


@pytest.mark.parametrize("bins", [None, 3])
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_sequences_keep_their_length_and_get_their_partners_values_and_zeros_after_them(bins, lengths):
    batch = sounds(*lengths, bins=bins)
    mixed_batch, mixed = mix(batch, Draw(0.3))
    own = batch.items["sound"].values.split(lengths)
    for number, found in enumerate(mixed_batch.items["sound"].values.split(lengths)):
        expected = torch.zeros_like(own[number])
        partner = own[mixed.partner[number]]
        for place in range(min(len(expected), len(partner))):
            expected[place] = partner[place]
        torch.testing.assert_close(found, 0.3 * own[number] + 0.7 * expected)
    assert mixed.partner.tolist() == list(range(len(lengths)))[::-1] and mixed_batch.items["sound"].lengths.tolist() == lengths
    assert mixed.share.tolist() == pytest.approx([1.0 if p == i else 0.3 for i, p in enumerate(mixed.partner.tolist())])


def test_cutmix_leaves_sequences_alone():
    batch = sounds(4, 6, 5)
    mixed_batch, mixed = mix(batch, Draw(0.3, (0.5, 0.5)))
    assert torch.equal(mixed_batch.items["sound"].values, batch.items["sound"].values)
    assert mixed.partner.tolist() == [0, 1, 2] and mixed.share.tolist() == [1, 1, 1]


def test_samples_are_mixed_with_those_that_have_rows_of_labels_too():
    rows = torch.tensor([[1, 0], [-1, -1], [0, 0], [0, 1]])
    batch = replace(sounds(3, 3, 3, 3), labels={"labels": rows})
    assert partners(batch).tolist() == [3, 1, 2, 0]
