"""What a captioner reads: clips after a template, and features that were made before."""

import io

import numpy as np
import pytest
import torch

from multimodal.tokenizers.clip_file import Clips, write_clips
from multimodal.tokenizers.clips_and_text import ClipFeatureTransform, ClipsAfterTextTransform, FeatureArrayTransform
from tests.tokenizers.clips_and_text.films import clip_file, vocabulary

ANY = torch.Generator()


def array_file(array: np.ndarray, **settings) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **settings)
    return buffer.getvalue()


def test_clips_follow_the_template_whose_gaps_are_masks():
    joint = vocabulary()
    own = ClipsAfterTextTransform(joint, "now [MASK] it", max_tokens=64)
    ids = own(own.decode(clip_file(8, first=3)), ANY, train=True).values
    words = joint.encode_template("now [MASK] it")
    assert torch.equal(ids, joint.sequence(words, torch.arange(8) + 3 + joint.clip_offset)) and int((ids == joint.mask_id).sum()) == 1
    plain = ClipsAfterTextTransform(joint)
    assert torch.equal(plain(plain.decode(clip_file(8)), ANY, False).values, joint.sequence(None, torch.arange(8) + joint.clip_offset))


def test_clips_that_are_too_many_are_an_even_choice():
    joint = vocabulary()
    own = ClipsAfterTextTransform(joint, max_tokens=12)
    ids = own(own.decode(clip_file(40)), ANY, True).values
    assert torch.equal(ids[joint.is_clip(ids)], torch.arange(0, 40, 4) + joint.clip_offset) and len(ids) <= 12
    with pytest.raises(ValueError, match="max_tokens 8 has no room for the"):
        ClipsAfterTextTransform(joint, "put it in", max_tokens=8)
    with pytest.raises(ValueError, match="not a file of clips"):
        own.decode(b"put it in")


def test_arrays_are_vectors():
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    own = FeatureArrayTransform(3, max_vectors=2)
    assert torch.equal(own(own.decode(array_file(rows)), ANY, True).values, torch.tensor([[0.0, 1, 2], [6, 7, 8]]))
    assert own.decode(array_file(rows[1])).tolist() == [[3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x04N.", "not an array"),
        (b"", "not an array"),
        (array_file(np.array([{}], dtype=object), allow_pickle=True), "not an array"),
        (array_file(np.zeros((2, 4))), "2 vectors of width 4; at least one of width 3 is wanted"),
        (array_file(np.zeros((0, 3))), "there are 0 vectors"),
        (array_file(np.zeros((2, 3), dtype=np.int64)), "one or two axes and floating-point numbers"),
        (array_file(np.zeros((1, 2, 3))), "one or two axes"),
        (array_file(np.array([1.0, np.nan, 0.0])), "must be finite"),
    ],
)
def test_other_arrays_are_refused(data, said):
    with pytest.raises(ValueError, match=said):
        FeatureArrayTransform(3).decode(data)


def test_features_of_clips_are_vectors():
    starts = torch.arange(4) * 1.5
    features = torch.randn(4, 3).half()
    own = ClipFeatureTransform(3)
    assert torch.equal(own.decode(write_clips(Clips(starts, starts + 1.5, features))), features.float())
    with pytest.raises(ValueError, match="its clips have no features"):
        own.decode(clip_file(4))
