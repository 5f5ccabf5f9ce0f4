"""The models that are timed compute the same; lengths are those that are claimed."""

import pytest
import torch

from benchmarks import variable_lengths
from benchmarks.variable_lengths import Size, lengths_of, make_models, make_work

SMALL = Size(dim=64, depth=2, vocab=40)


@pytest.fixture
def work():
    return make_work(SMALL, batch=4)


def test_lengths_have_the_mean_and_the_bounds_that_are_claimed():
    lengths = lengths_of(1000)
    assert sum(lengths) / 1000 == pytest.approx(124, abs=1)
    assert min(lengths) >= 16 and max(lengths) == 512
    assert lengths_of(8) == lengths_of(8) and list(lengths_of(8)) != sorted(lengths_of(8))


def test_all_models_have_the_same_loss_and_padding_changes_nothing(work):
    assert variable_lengths.check_same(make_models(SMALL), work).startswith("same loss")


def test_gradients_are_those_of_the_peers_too(work):
    models = make_models(SMALL)
    grads = []
    for model in models.values():
        model(work).backward()
        words = model.words if hasattr(model, "words") else model.model.bert.embeddings.word_embeddings
        grads.append(words.weight.grad)
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0], atol=1e-5, rtol=1e-3)


def test_a_difference_is_noticed(work):
    models = make_models(SMALL)
    torch.nn.init.normal_(models["ours, packed"].places.weight)
    with pytest.raises(ValueError, match=r"the losses differ by .* 1e-04 is allowed"):
        variable_lengths.check_same(models, work)


def test_real_tokens_are_counted(work):
    step = variable_lengths.step(make_models(SMALL)["transformers, padded to 512"], work)
    assert step() == sum(work.lengths)


def test_the_script_prints_the_table():
    shown = []
    variable_lengths.main(["--depth", "1", "--dim", "64", "--vocab", "40", "--batch", "2", "--rounds", "1"], shown.append)
    assert shown[0].startswith("2 sequences of") and shown[2].row_count == 3
