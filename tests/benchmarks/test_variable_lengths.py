"""The models that are timed compute the same; lengths are those that are claimed."""

import pytest
import torch

from benchmarks import variable_lengths
from benchmarks.variable_lengths import Size, lengths_of, make_models, make_work
from multimodal.tokenizers.text import FileTokenizer
from multimodal.tokenizers.vocabularies.train import Settings, train_vocabulary

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


def test_real_texts_are_cut_marked_and_hidden_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(variable_lengths, "LONGEST", 12)
    texts = ["one two three four five six seven eight nine ten eleven twelve", "one two", "three four five"]
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    train_vocabulary(texts, Settings("wordpiece", 60)).save(str(tmp_path / "tokenizer.json"))
    tokenizer = FileTokenizer(str(tmp_path), special_tokens=True)
    work = variable_lengths.read_work(str(tmp_path / "a.txt"), tokenizer, 3)
    expected = {text: min(len(tokenizer.encode_text(text)) + 2, 12) for text in texts}
    assert sorted(work.lengths) == sorted(expected.values()) and max(work.lengths) == 12
    assert (work.ids == 2).sum() == (work.ids == 3).sum() == 3
    assert [int(part.sum()) for part in work.masked.split(list(work.lengths))] == [max(round(0.15 * x), 1) for x in work.lengths]
    with pytest.raises(ValueError, match="has 3 texts; 4 are wanted"):
        variable_lengths.read_work(str(tmp_path / "a.txt"), tokenizer, 4)
