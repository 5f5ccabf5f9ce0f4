"""Rankings by each label: the numbers of torchmetrics and scikit-learn, ties, classes without samples, batches and ranks."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision

from multimodal.training.tag_scores import TagScores, ranking_scores
from tests.ranks import run_ranks


def drawn(samples: int = 40, classes: int = 70, levels: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, of some levels where ties are wanted, and labels; class 3 is nowhere and class 4 everywhere."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=generator)
    logits = (logits * levels).round() / levels if levels else logits
    labels = (torch.rand(samples, classes, generator=generator) < 0.15).long()
    labels[:, 3], labels[:, 4] = 0, 1
    return logits, labels


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples")
@pytest.mark.parametrize("levels", [0, 2])
def test_scores_agree_with_torchmetrics_and_scikit_learn(levels):
    logits, labels = drawn(levels=levels)
    scores = ranking_scores(logits, labels > 0)
    present = labels.any(0)
    both = present & ~labels.all(0)
    theirs = multilabel_average_precision(logits.sigmoid(), labels, 70, average="none")[present].mean()
    again = np.mean([average_precision_score(labels[:, i], logits[:, i]) for i in present.nonzero()[:, 0]])
    assert scores["mean_average_precision"].item() == pytest.approx(theirs.item(), abs=1e-5) == pytest.approx(again, abs=1e-6)
    area = multilabel_auroc(logits.sigmoid(), labels, 70, average="none")[both].mean().item()
    again = np.mean([roc_auc_score(labels[:, i], logits[:, i]) for i in both.nonzero()[:, 0]])
    assert scores["mean_roc_auc"].item() == pytest.approx(area, abs=1e-5) == pytest.approx(again, abs=1e-6)
    assert scores["d_prime"].item() == pytest.approx(math.sqrt(2) * norm.ppf(again), abs=1e-4)


def test_average_precision_by_hand():
    logits, labels = torch.tensor([[4.0], [3.0], [2.0], [1.0]]), torch.tensor([[1], [0], [1], [0]])
    scores = ranking_scores(logits, labels > 0)
    assert scores["mean_average_precision"].item() == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert scores["mean_roc_auc"].item() == pytest.approx(3 / 4)
    tied = ranking_scores(torch.zeros(4, 1), labels > 0)  # one threshold: precision is the share of positives
    assert tied["mean_average_precision"].item() == 0.5 and tied["mean_roc_auc"].item() == 0.5 and tied["d_prime"].item() == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_batches_do_not_change_the_scores():
    logits, labels = drawn(classes=5)
    metric = TagScores({"labels": 5})
    for part in (slice(0, 7), slice(7, 7), slice(7, 40)):
        metric.update("labels", torch.tensor(2.0), logits[part], labels[part])
    scores = metric.compute()
    whole = ranking_scores(logits, labels > 0)
    assert {name: scores[name].item() for name in whole} == {name: value.item() for name, value in whole.items()}
    assert scores["loss"].item() == pytest.approx(6 / 40) and scores["samples"] == 40
    metric.reset()
    assert metric.compute() == {}


def test_scores_of_several_heads_carry_their_names():
    logits, labels = drawn(classes=5)
    metric = TagScores({"a": 5, "b": 5})
    metric.update("a", torch.tensor(2.0), logits, labels)
    assert set(metric.compute()) == {f"{name}/a" for name in ("loss", "mean_average_precision", "mean_roc_auc", "d_prime", "samples")}


def test_scores_that_no_class_has_are_left_out():
    nowhere = ranking_scores(torch.randn(3, 2), torch.zeros(3, 2, dtype=torch.bool))
    assert nowhere == {}
    everywhere = ranking_scores(torch.randn(3, 2), torch.ones(3, 2, dtype=torch.bool))
    assert {name: value.item() for name, value in everywhere.items()} == {"mean_average_precision": 1.0}
    perfect = ranking_scores(torch.tensor([[1.0], [0.0]]), torch.tensor([[True], [False]]))
    assert perfect["mean_roc_auc"] == 1 and "d_prime" not in perfect


def one_rank(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    logits, labels = drawn(classes=5)
    metric = TagScores({"labels": 5, "more": 5})
    parts = (slice(0, 7), slice(7, 40))
    metric.update("labels", torch.tensor(2.0), logits[parts[rank]], labels[parts[rank]])
    if rank == 1:  # the other rank has no sample of this head
        metric.update("more", torch.tensor(2.0), logits, labels)
    torch.save({name: value.item() for name, value in metric.compute().items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_do_not_change_the_scores(tmp_path):
    run_ranks(one_rank, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    logits, labels = drawn(classes=5)
    whole = {name: value.item() for name, value in ranking_scores(logits, labels > 0).items()}
    assert first == second and first["samples/labels"] == first["samples/more"] == 40
    for head in ("labels", "more"):
        assert {name: first[f"{name}/{head}"] for name in whole} == whole
