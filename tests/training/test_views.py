"""Several views of a film: its logits are the mean of those of the views, each as if it were alone."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder, LayerNorm, SinCosPosition3d
from multimodal.tokenizers.video import TubeletEmbed, VideoTransform
from multimodal.training import FineTuning
from multimodal.training.views import num_views

EMBED = partial(TubeletEmbed, patch_size=8, channels=1, mean=(0.5,), std=(0.5,), position=SinCosPosition3d)


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
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    (scores,) = trainer.validate(model, DataLoader([batch_of(*films)], batch_size=None), verbose=False)
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
