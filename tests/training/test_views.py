"""Several views of a film, or windows of a piece: its logits are the mean of those of the views, each as if it were alone."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder, LayerNorm, SinCosPosition3d
from multimodal.protocols import Transform
from multimodal.tokenizers.video import TubeletEmbed, VideoTransform
from multimodal.training import FineTuning, LayerProbing
from multimodal.training.views import num_views
from multimodal.windowed import item_of_windows
from tests.training.conftest import SIZES, PairEmbed, PairTransform

EMBED = partial(TubeletEmbed, patch_size=8, channels=1, mean=(0.5,), std=(0.5,), position=SinCosPosition3d)


QUIET = partial(
    L.Trainer, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False
)


def model_of(**views: int) -> FineTuning:
    """One modality for each name, with so many clips in evaluation."""
    torch.manual_seed(0)
    inputs = {
        name: partial(Input, transform=VideoTransform(16, 4, channels=1, num_clips=count), embed=EMBED) for name, count in views.items()
    }
    head = partial(ClassificationHead, num_classes=3, norm=LayerNorm)
    return FineTuning(Encoder(24, 2, 2), inputs, {"label": head, "other": head}).eval()


def clips(count: int, seed: int) -> torch.Tensor:
    shape = (count, 4, 1, 16, 16)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def batch_of(*values: torch.Tensor, name: str = "film") -> Batch:
    return collate([Sample(str(i), {name: Item(x)}, {"label": i % 3}, i) for i, x in enumerate(values)])


def test_logits_are_the_mean_of_the_views():
    model = model_of(film=5)
    films = [clips(5, seed) for seed in range(3)]
    found = model(batch_of(*films))
    alone = [model_of(film=1)(batch_of(*(film[number] for film in films))) for number in range(5)]
    for name in ("label", "other"):
        expected = torch.stack([own[name] for own in alone])
        torch.testing.assert_close(found[name], expected.mean(0), atol=1e-6, rtol=1e-5)
        assert expected.std(0).min() > 1e-4  # the views differ


def test_validation_scores_the_mean():
    model, films = model_of(film=5), [clips(5, seed) for seed in range(4)]
    logits = model(batch_of(*films))["label"]
    (scores,) = QUIET().validate(model, DataLoader([batch_of(*films)], batch_size=None), verbose=False)
    labels = torch.tensor([0, 1, 2, 0])
    assert scores["val/loss/label"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores["val/accuracy/label"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_predictions_are_those_of_the_mean():
    model, films = model_of(film=5), [clips(5, seed) for seed in range(3)]
    keys, shares = model.predict_step(batch_of(*films), 0)["label"]
    assert keys == ["0", "1", "2"]
    torch.testing.assert_close(shares, model(batch_of(*films))["label"].softmax(1))


def test_other_items_of_the_sample_join_every_view():
    model = model_of(film=2, still=1)
    film, still = clips(2, 0), clips(1, 1)[0]
    found = model(collate([Sample("a", {"film": Item(film), "still": Item(still)})]))["label"]
    single = model_of(film=1, still=1)
    views = [single(collate([Sample("a", {"film": Item(view), "still": Item(still)})]))["label"] for view in film]
    torch.testing.assert_close(found, torch.stack(views).mean(0), atol=1e-6, rtol=1e-5)


def test_training_sees_one_clip():
    model = model_of(film=5).train()
    batch = batch_of(*clips(3, 0))
    torch.testing.assert_close(model(batch)["label"], model_of(film=1)(batch)["label"])


def test_numbers_of_views_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"modalities have \{'film': 5, 'still': 2\} views of an item"):
        model_of(film=5, still=2)
    assert num_views({"film": VideoTransform(num_clips=5, num_crops=3), "still": VideoTransform()}) == 15


def test_scores_of_single_views_stand_beside_those_of_their_mean():
    model, films = model_of(film=5), [clips(5, seed) for seed in range(4)]
    batch = batch_of(*films)
    alone = torch.stack([model_of(film=1)(batch_of(*(film[number] for film in films)))["label"] for number in range(5)])
    (scores,) = QUIET().validate(model, DataLoader([batch, Batch({}, ())], batch_size=None), verbose=False)
    labels = torch.tensor([0, 1, 2, 0]).repeat(5)
    assert scores["val/view_accuracy/label"] == pytest.approx((alone.argmax(2).flatten() == labels).float().mean().item())
    assert scores["val/view_loss/label"] == pytest.approx(torch.nn.functional.cross_entropy(alone.flatten(0, 1), labels).item(), rel=1e-5)
    assert scores["val/views/label"] == 20 and scores["val/samples/label"] == 4
    assert "val/view_accuracy" in scores
    (plain,) = QUIET().validate(model_of(film=1), DataLoader([batch_of(films[0][0])], batch_size=None), verbose=False)
    assert not [name for name in plain if "view" in name]


class WindowedPairs(PairTransform):
    num_views = 3


def piece(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    """Windows of pairs."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.stack([torch.randint(size, (length,), generator=draw) for size in SIZES], 1) for length in lengths]


def windowed_model(**more: Transform) -> FineTuning:
    torch.manual_seed(0)
    transforms = {"pairs": WindowedPairs(), **more}
    inputs = {name: partial(Input, transform=x, embed=PairEmbed if name == "pairs" else EMBED) for name, x in transforms.items()}
    return FineTuning(Encoder(24, 2, 2), inputs, {"label": partial(ClassificationHead, num_classes=3)}).eval()


def logits_of(window: torch.Tensor, **others: Item) -> torch.Tensor:
    """The logits of a window that is an item of its own."""
    more = {name: VideoTransform(16, 4, channels=1) for name in others}
    model = windowed_model(**more)
    model.modalities["pairs"].transform = PairTransform()
    return model(collate([Sample("a", {"pairs": Item(window, ragged=True), **others})]))["label"][0]


def test_windows_of_different_lengths_and_numbers_are_each_told_alone():
    pieces = [piece(5, 3, 4, seed=1), piece(6, seed=2), piece(2, 7, seed=3)]
    batch = collate([Sample(str(i), {"pairs": item_of_windows(own)}, {"label": i}, i) for i, own in enumerate(pieces)])
    model, alone = windowed_model(), [torch.stack([logits_of(window) for window in own]) for own in pieces]
    expected = torch.stack([own.mean(0) for own in alone])
    torch.testing.assert_close(model(batch)["label"], expected, atol=1e-6, rtol=1e-5)
    (scores,) = QUIET().validate(model, DataLoader([batch], batch_size=None), verbose=False)
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert scores["val/views"] == 6 and scores["val/samples"] == 3
    assert scores["val/view_accuracy"] == pytest.approx((torch.cat(alone).argmax(1) == labels).float().mean().item())
    assert scores["val/accuracy"] == pytest.approx((expected.argmax(1) == torch.arange(3)).float().mean().item())
    keys, shares = model.predict_step(batch, 0)["label"]
    assert keys == ["0", "1", "2"]
    torch.testing.assert_close(shares, expected.softmax(1))
    assert model.token_counter(batch).tolist() == [12, 6, 9]


def test_other_items_of_a_sample_join_the_windows_that_it_has():
    long, short, film = piece(5, 3, seed=1), piece(4, seed=2), Item(clips(1, 3)[0])
    batch = collate([Sample("a", {"pairs": item_of_windows(long)}), Sample("b", {"pairs": item_of_windows(short), "film": film})])
    found = windowed_model(film=VideoTransform(16, 4, channels=1))(batch)["label"]
    with_film = windowed_model(film=VideoTransform(16, 4, channels=1))
    plain = [with_film(collate([Sample("a", {"pairs": item_of_windows([window])})]))["label"][0] for window in long]
    torch.testing.assert_close(found[0], torch.stack(plain).mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1], logits_of(short[0], film=film), atol=1e-6, rtol=1e-5)


def test_an_item_without_windows_is_refused():
    with pytest.raises(ValueError, match=r"none of which is empty, got windows of \[2, 0\] entries"):
        item_of_windows([torch.zeros(2, 2), torch.zeros(0, 2)])


def test_trainings_that_read_one_view_refuse_several():
    part = partial(Input, transform=VideoTransform(16, 4, channels=1, num_clips=3), embed=EMBED)
    with pytest.raises(ValueError, match="modality 'film' has 3 views in evaluation, of which LayerProbing reads one: set one"):
        LayerProbing(Encoder(24, 2, 2), {"film": part}, num_classes=2)
