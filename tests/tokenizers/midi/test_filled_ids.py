"""What filling asks of a tokenizer of music: which ids may be filled in, and a file of them."""

import pytest
import torch

from multimodal.tokenizers.midi import CompoundTokenizer, read_score, score_of, write_notes

NOTES = torch.tensor([[0, 60, 480, 80], [480, 64, 240, 80], [1920, 67, 960, 80]])


@pytest.mark.parametrize("pitch_range", [(22, 107), (36, 84)])
def test_pad_and_mask_are_never_filled_in(pitch_range):
    tokenizer = CompoundTokenizer(pitch_range)
    kinds = tokenizer.kinds()
    assert tuple(len(own) for own in kinds) == tokenizer.vocab_sizes
    assert [own.tolist() for own in kinds] == [[0] * (size - 2) + [-1] * 2 for size in tokenizer.vocab_sizes]


def test_ids_become_a_file_of_their_notes():
    tokenizer = CompoundTokenizer()
    extension, data = tokenizer.file_of(tokenizer.encode_score(score_of(NOTES)))
    assert extension == "mid"
    assert torch.equal(read_score(data).notes, read_score(write_notes(NOTES)).notes)
