import pytest
import torch

from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.errors import SampleError
from multimodal.fingerprint import transform_fingerprint
from multimodal.tokenizers.from_fields import FromFields
from multimodal.tokenizers.text import TextTransform


def test_two_modalities_read_two_fields_of_one_kind():
    transforms = {name: FromFields([f"{name}.txt"], TextTransform()) for name in ("title", "caption")}
    raw = RawSample("x.tar", "k", {"title.txt": b"ab", "caption.txt": b"c"}, ("caption.txt", "title.txt"))
    items = SamplePreparation(transforms, [], 0, train=False)(raw, 0, 0).items
    assert {name: len(item.values) for name, item in items.items()} == {"title": 2, "caption": 1}


def test_the_first_field_that_is_there_is_read_and_named_in_errors():
    transforms = {"text": FromFields(["fr.txt", "en.txt"], TextTransform(min_tokens=2))}
    prepare = SamplePreparation(transforms, [], 0, train=False)
    assert len(prepare(RawSample("x.tar", "k", {"en.txt": b"abc"}, ("en.txt",)), 0, 0).items["text"].values) == 3
    with pytest.raises(SampleError, match=r"field 'fr\.txt': 1 tokens"):
        prepare(RawSample("x.tar", "k", {"en.txt": b"abc", "fr.txt": b"a"}, ("en.txt", "fr.txt")), 0, 0)


def test_it_is_otherwise_the_transform():
    inner = TextTransform(max_tokens=4)
    outer = FromFields(["fr.txt"], inner)
    assert outer.tokenizer is inner.tokenizer
    assert outer.describe(b"some words") == inner.describe(b"some words")
    decoded = outer.decode(b"a long text")
    views = [transform(decoded, torch.Generator().manual_seed(3), True).values for transform in (outer, inner)]
    assert torch.equal(*views)
    assert transform_fingerprint(outer) != transform_fingerprint(FromFields(["de.txt"], inner))


@pytest.mark.parametrize("fields", [[], [".txt"], ["a/b"], ["A.txt"], ["a..txt"]])
def test_impossible_fields_are_refused(fields):
    with pytest.raises(ValueError, match="fields must be names such as"):
        FromFields(fields, TextTransform())
