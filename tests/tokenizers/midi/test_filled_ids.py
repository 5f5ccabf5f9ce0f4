"""What filling asks of a tokenizer of music: which ids may be filled in, and a file of them that can be played."""

import pytest
import torch

from multimodal.filling import AllowedIds, IterativeDecoding
from multimodal.tokenizers.midi import CompoundTokenizer, OctupleTokenizer, RemiTokenizer, read_score, score_of, write_notes

NOTES = torch.tensor([[0, 60, 480, 80], [480, 64, 240, 80], [1920, 67, 960, 80]])
MANY = torch.stack([torch.arange(60) * 240, 50 + torch.arange(60) * 7 % 30, torch.full((60,), 240), torch.full((60,), 80)], 1)
RICH = {"metre": "told", "velocity_bins": 8, "programs": True, "num_tracks": 3, "tempo_bins": 8, "max_empty_bars": 2}
TOKENIZERS = {
    "compound": CompoundTokenizer(),
    "compound, all fields": CompoundTokenizer(**RICH),
    "remi": RemiTokenizer(),
    "remi, all fields": RemiTokenizer(**RICH),
    "octuple": OctupleTokenizer(),
}


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


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_whatever_a_model_fills_in_is_as_many_notes_that_can_be_played(name, share):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode_score(tokenizer.restrict(score_of(MANY)))
    fields = ids.view(len(ids), -1)
    asked = torch.rand(fields.shape, generator=torch.Generator().manual_seed(1)) < share

    def predict(shown, hidden):
        return [torch.zeros(int(hidden.any(1).sum()), size) for size in tokenizer.vocab_sizes]

    how, lengths = IterativeDecoding(2, unit="field"), torch.tensor([len(ids)])
    found = how(predict, fields, asked, lengths, torch.tensor([5]), AllowedIds(tokenizer)).view(ids.shape)
    assert torch.equal(found.view(fields.shape)[~asked], fields[~asked]) and not torch.equal(found, ids)
    extension, data = tokenizer.file_of(found)
    assert extension == "mid" and len(read_score(data, drop_drums=False)) == len(MANY)
