"""Retrieval: losses against the full matrix, two processes as one, equal contents, items on their own, files, pairs learned by heart."""

import csv
import json
import math
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from multimodal.batch import Batch, Items, Sample, collate
from multimodal.heads import LateInteraction, PooledEmbedding
from multimodal.heads.retrieval import Embeddings, inner_products
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.from_fields import FromFields
from multimodal.tokenizers.image import PatchEmbed
from multimodal.tokenizers.text import ByteTokenizer, TextEmbed, TextTransform
from multimodal.training import Retrieval
from multimodal.training.retrieval_batch import contents_of
from multimodal.training.retrieval_losses import InfoNCE, SigmoidLoss
from multimodal.training.retrieval_scores import RetrievalScores
from tests.ranks import run_script
from tests.training.conftest import make_sample
from tests.training.retrieval_script import build, samples

SCRIPT = Path(__file__).with_name("retrieval_script.py")
CASES = {"pooled": {}, "late": {"head": "late"}, "sigmoid": {"loss": "sigmoid"}, "frozen": {"freeze_layers": 1}}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Texts(TextTransform):
    """A transform whose texts are bytes between marks."""

    def __init__(self):
        tokenizer = ByteTokenizer()
        tokenizer.start_ids, tokenizer.end_ids = (256,), (257,)
        super().__init__(tokenizer, max_tokens=16)


def text_model(head=PooledEmbedding, **settings) -> Retrieval:
    torch.manual_seed(0)
    fields = {name: partial(Input, transform=FromFields([f"{name}.txt"], Texts()), embed=TextEmbed) for name in ("question", "answer")}
    return Retrieval(Encoder(16, 2, 2), fields, head, **settings)


def text_sample(number: int, question: str | None, answer: str | None) -> Sample:
    transform, none = Texts(), torch.Generator()
    told = {"question": question, "answer": answer}
    items = {name: transform(transform.decode(text.encode()), none, train=False) for name, text in told.items() if text is not None}
    return Sample(f"text{number}", items, seed=number)


def step(model: Retrieval, batch: Batch) -> torch.Tensor:
    model.log = lambda *args, **kwargs: None
    return model.training_step(batch, 0)


def matrix(model: Retrieval, batch: Batch) -> torch.Tensor:
    """Return the cosines of the first modality's items with the second's, for batches in which each sample has both."""
    found = model(batch)
    return model.similarity(*(found[name] for name in model.names))


def test_the_loss_is_the_cross_entropy_of_the_full_matrix_in_both_directions():
    model, batch = build(), collate([make_sample(number, "picture", "pairs") for number in range(4)])
    logits, partner = matrix(model, batch) / 0.07, torch.arange(4)
    expected = F.cross_entropy(logits, partner, reduction="sum") + F.cross_entropy(logits.T, partner, reduction="sum")
    torch.testing.assert_close(step(model, batch), expected)


def test_info_nce_by_hand():
    found = InfoNCE(temperature=0.5)(torch.tensor([[1.0, 0.5], [0.0, 0.0]]), torch.tensor([0, 1]), torch.eye(2, dtype=torch.bool))
    expected = [math.log(1 + math.exp(-1)), math.log(2)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_sigmoid_loss_by_hand():
    equal = torch.tensor([[True, False, True], [False, True, False]])
    found = SigmoidLoss(temperature=1.0, bias=-1.0)(torch.tensor([[2.0, 0.0, 9.0], [1.0, 1.0, 3.0]]), torch.tensor([0, 1]), equal)
    softplus = [math.log(1 + math.exp(x)) for x in (-1, -1, 0, 0, 2)]
    torch.testing.assert_close(found, torch.tensor([softplus[0] + softplus[1], sum(softplus[2:])]))


@pytest.mark.parametrize("loss", [InfoNCE, SigmoidLoss])
def test_what_is_as_right_as_the_partner_counts_for_nothing(loss):
    """With the equal column taken out, the loss is that of the columns that are left."""
    torch.manual_seed(0)
    similarities, equal = torch.rand(1, 4), torch.tensor([[False, False, True, False]])
    found = loss()(similarities, torch.tensor([1]), equal)
    left = [0, 1, 3]
    torch.testing.assert_close(found, loss()(similarities[:, left], torch.tensor([1]), equal[:, left]))


def test_the_temperature_is_kept_above_its_least():
    loss = InfoNCE(temperature=0.02, least=0.01)
    loss.log_scale.data += 10
    loss.after_step()
    assert loss.temperature == pytest.approx(0.01)
    with pytest.raises(ValueError, match=r"at least `least`, and both above 0, got 0\.001 and 0\.01"):
        InfoNCE(temperature=0.001)


def test_equal_texts_are_not_held_against_each_others_partners():
    model = text_model()
    pairs = [("one", "eins"), ("uno", "eins"), ("two", "zwei")]
    batch = collate([text_sample(number, *pair) for number, pair in enumerate(pairs)])
    logits = matrix(model, batch) / 0.07
    logits[0, 1] = logits[1, 0] = -torch.inf
    expected = F.cross_entropy(logits, torch.arange(3), reduction="sum") + F.cross_entropy(logits.T, torch.arange(3), reduction="sum")
    torch.testing.assert_close(step(model, batch), expected)


@pytest.mark.parametrize("head", [PooledEmbedding, LateInteraction])
def test_an_item_alone_has_the_embedding_that_it_has_in_any_batch(head):
    model = text_model(head).eval()
    together = model(collate([text_sample(0, "short", "a long answer"), text_sample(1, "a question", "yes")]))
    alone = model(collate([text_sample(7, None, "a long answer")]))
    other = model(collate([text_sample(7, "something else", "a long answer")]))
    first = together["answer"].select(torch.tensor([0]))
    assert set(alone) == {"answer"}
    torch.testing.assert_close(alone["answer"].vectors, first.vectors)
    torch.testing.assert_close(other["answer"].vectors, first.vectors)


def test_marks_of_texts_have_no_vectors_in_late_interaction():
    found = text_model(LateInteraction)(collate([text_sample(0, "abc", "de"), text_sample(1, "f", "ghij")]))
    assert found["question"].lengths.tolist() == [3, 1] and found["answer"].lengths.tolist() == [2, 4]


def test_two_fields_can_share_an_embedding():
    model = text_model(shared_embed=True)
    assert model.modalities["question"].embed is model.modalities["answer"].embed
    step(model, collate([text_sample(0, "a", "b"), text_sample(1, "c", "d")])).backward()
    assert model.modalities["answer"].embed.words.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="that enter the encoder alike; these do by PairEmbed and PatchEmbed"):
        build(shared_embed=True)


def test_a_second_head_is_of_its_own():
    model = text_model(partial(PooledEmbedding, embedding_dim=4), second_head=partial(PooledEmbedding, embedding_dim=4))
    assert model.heads["question"] is not model.heads["answer"]
    with pytest.raises(ValueError, match=r"both heads must be of one kind and make vectors of one width.*16.*8"):
        text_model(PooledEmbedding, second_head=partial(PooledEmbedding, embedding_dim=8))


def test_not_two_modalities_are_refused():
    picture = partial(Input, transform=Texts(), embed=partial(PatchEmbed, patch_size=4))
    with pytest.raises(ValueError, match="modalities must be two, whose items are to find each other; got one"):
        Retrieval(Encoder(16, 2, 2), {"one": picture}, PooledEmbedding)


def test_gradients_are_not_accumulated(loader):
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, accumulate_grad_batches=2, **QUIET)
    with pytest.raises(ValueError, match="accumulate_grad_batches is 2, but pairs are compared within a batch"):
        trainer.fit(build(), loader([samples()]))


def test_an_epoch_without_pairs_is_refused(loader):
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="no sample of the epoch has both 'pairs' and 'picture'"):
        trainer.fit(build(), loader([[make_sample(0, "pairs"), make_sample(1, "picture")]]))


def ragged(*rows: list[float]) -> Items:
    values, lengths = torch.tensor([x for row in rows for x in row])[:, None], torch.tensor([len(row) for row in rows])
    return Items(values, torch.arange(len(rows)), torch.arange(len(rows)), lengths)


def test_contents_tell_values_their_order_and_their_number_apart():
    rows = [[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0, 0.0], [0.0], [0.0, 0.0], [-1.0, 2.0], [1.0, 2.5]]
    found = contents_of(ragged(*rows)).tolist()
    assert found[0] == found[2] and len(set(found)) == len(rows) - 1
    assert contents_of(ragged(rows[1])).tolist() == [found[1]]


def test_contents_of_pictures_are_told_apart_by_one_value(monkeypatch):
    monkeypatch.setattr("multimodal.training.retrieval_batch.AT_ONCE", 30)
    values = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values[3] = values[1]
    values[4] = values[1]
    values[4, 0, 0, 0] ^= 1
    found = contents_of(Items(values, torch.arange(5), torch.arange(5)))
    assert found[3] == found[1] and len(found.unique()) == 4


def test_scores_are_of_the_whole_split_and_nothing_without_pairs():
    metric = RetrievalScores(("a", "b"), inner_products, whole=True)
    one = torch.tensor(1)
    for number in range(3):
        vector = Embeddings.of_items(F.one_hot(torch.tensor([number]), 3).float())
        metric.update(torch.tensor(2.0), one, one, 1)
        metric.keep(vector, Embeddings.of_items(vector.vectors.roll(number // 2, 1)), torch.tensor([[number, number]]))
    found = metric.compute()
    assert found["loss"] == 2 and found["pairs"] == 3
    # the last item's partner points where that of the first does: as a question the first finds two, the last all alike
    assert found["recall_1/a_to_b"].item() == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert found["recall_1/b_to_a"].item() == pytest.approx(2 / 3)
    assert found["recall_1"].item() == pytest.approx((11 / 18 + 2 / 3) / 2)
    metric.reset()
    metric.update(torch.tensor(0.0), one * 0, one * 0, 0)
    assert metric.compute() == {}


def start(folder: Path, ranks: int) -> None:
    cases = [{"name": f"{name}{ranks}", "ranks": ranks, **case} for name, case in CASES.items()]
    run_script(SCRIPT, str(folder), json.dumps(cases), ranks=ranks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    start(folder, 2)
    start(folder, 1)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_and_score_as_one(trained, name):
    one, two = (load_file(trained / f"{name}{ranks}.safetensors") for ranks in (1, 2))
    assert one.keys() == two.keys() and len(one) > 20
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=2e-5, rtol=1e-4, msg=key)
    logs = [json.loads((trained / f"{name}{ranks}.json").read_text()) for ranks in (1, 2)]
    assert logs[1]["losses"] == pytest.approx(logs[0]["losses"], rel=1e-4)
    assert logs[1]["scores"] == pytest.approx(logs[0]["scores"], rel=1e-4) and logs[0]["scores"]["val/pairs"] == 6


def test_predict_writes_embeddings_and_the_nearest_items(trained):
    folder = trained / "pooled1" / "predictions"
    vectors = {name: np.load(folder / f"{name}.npy") for name in ("pairs", "picture")}
    keys = {name: (folder / f"{name}.keys.txt").read_text().split() for name in vectors}
    assert len(keys["pairs"]) == 6 and len(keys["picture"]) == 7  # a picture without a partner can be found too
    rows = list(csv.DictReader((folder / "pairs_to_picture.tsv").open(), delimiter="\t"))
    assert len(rows) == 6 * 7
    first = [row for row in rows if row["query"] == "sample4"]
    scores = vectors["picture"] @ vectors["pairs"][keys["pairs"].index("sample4")]
    assert [row["found"] for row in first] == [keys["picture"][index] for index in np.argsort(-scores)]
    assert float(first[0]["similarity"]) == pytest.approx(scores.max(), abs=1e-4) and first[0]["rank"] == "1"


def test_two_processes_list_the_same_items_as_one(trained):
    one, two = ((trained / f"late{ranks}" / "predictions" / "picture_to_pairs.tsv").read_text().splitlines() for ranks in (1, 2))
    assert sorted(line.rsplit("\t", 1)[0] for line in one) == sorted(line.rsplit("\t", 1)[0] for line in two) and len(one) == 43


@pytest.mark.parametrize("head", ["pooled", "late"])
def test_pairs_are_learned_by_heart(loader, head):
    whole = [make_sample(number, "picture", "pairs") for number in range(8)]
    settings = {"optimizer": lambda groups: torch.optim.Adam(groups, lr=5e-3)}
    model = build(head, schedule=lambda made, _: torch.optim.lr_scheduler.ConstantLR(made, 1.0), **settings)
    batches = loader([whole])
    trainer = L.Trainer(accelerator="cpu", max_epochs=60, check_val_every_n_epoch=60, num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, batches, batches)
    assert trainer.callback_metrics["val/recall_1"] == 1 and trainer.callback_metrics["train/temperature"] != pytest.approx(0.07)
