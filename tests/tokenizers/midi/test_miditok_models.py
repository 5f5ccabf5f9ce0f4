"""Trained models of miditok, and pretraining on its ids."""

import csv
import json
import warnings
from pathlib import Path

import miditok
import numpy as np
import pytest
import torch

from multimodal.cli import main
from multimodal.tokenizers.midi import Column, MiditokTokenizer, MidiTransform, PianoRollRenderer, read_score
from multimodal.tokenizers.midi.score import to_symusic
from tests.tokenizers.midi.miditok_kinds import SMALL
from tests.workshop import ROOT, write_files

MODELS = ["BPE bar", "BPE no", "Unigram beat"]


@pytest.mark.parametrize("model", MODELS)
def test_ids_of_a_trained_model(model, trained, ours, pieces):
    own, plain = MiditokTokenizer(trained[model]), ours["REMI"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = miditok.REMI(params=Path(trained[model]))
    score = read_score(next(iter(pieces.values())))
    ids, base = own.encode_score(score), plain.encode_score(score)
    assert ids.tolist() == reference.encode(to_symusic(score))[0].ids and len(ids) < 0.7 * len(base)
    assert torch.equal(own.decode_score(ids).notes, plain.decode_score(base).notes)
    assert own.vocab_sizes == (len(reference),) and own.pad_ids == (0,) and own.mask_ids == (3,)
    assert own.kinds()[0].shape == own.vocab_sizes and (own.kinds()[0][:4] == -1).all() and (own.kinds()[0][ids] >= 0).all()
    assert own.groups(ids, torch.tensor([len(ids)])) == {}
    for number in (own.note_of(ids), own.note_of(ids[:5])):
        told = number[number >= 0]
        assert told[0] == 0 and (told[1:] >= told[:-1]).all()
    predicted = ids.clone()
    predicted[-1] = (predicted[-1] + 1) % own.vocab_sizes[0]
    true, said, valid = own.guesses(ids, predicted)
    assert torch.equal(true, said) and valid[:-8].all() and not valid[-1]
    any_ids = torch.randint(own.vocab_sizes[0], (300,), generator=torch.Generator().manual_seed(0))
    assert own.decode_score(any_ids).notes.shape[1] == len(Column) and len(own.note_of(any_ids)) == 300


def test_a_token_of_a_trained_model_is_of_the_first_note_that_it_says_part_of(trained, ours):
    own = MiditokTokenizer(trained["BPE no"])
    ids = own.encode_score(SMALL)
    note, base = own.note_of(ids), ours["REMI"].note_of(torch.from_numpy(own._tokens.parts_of(ids.numpy())))
    first = 0
    for number, length in zip(note.tolist(), own._tokens.lengths[ids].tolist(), strict=True):
        parts = base[first : first + length]
        assert number == min(parts[parts >= 0].tolist(), default=-1)
        first += length


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("max_tokens", [5, 20, 50])
def test_windows_of_a_trained_model_are_within_max_tokens(model, max_tokens, trained, pieces):
    transform = MidiTransform(MiditokTokenizer(trained[model]), max_notes=None, max_tokens=max_tokens, min_notes=1)
    for piece in pieces.values():
        assert 0 < len(transform(transform.decode(piece), torch.Generator().manual_seed(1), True).values) <= max_tokens


@pytest.mark.parametrize("name", ["REMI of all", "CPWord of all", "Octuple of programs", "BPE bar"])
def test_what_is_predicted_can_be_drawn(name, paths, trained):
    own = MiditokTokenizer((paths | trained)[name])
    ids = own.encode_score(SMALL)
    masked = own.note_of(ids) == 1
    right = PianoRollRenderer().render(own, ids, ids, ids, masked)
    wrong = PianoRollRenderer().render(own, ids, ids, torch.where(masked.view(-1, *[1] * (ids.ndim - 1)), own.mask_ids[0], ids), masked)
    assert torch.equal(right["masked"], wrong["masked"]) and not torch.equal(right["masked"], right["piece"])
    assert not torch.equal(right["predicted"], wrong["predicted"])


def test_models_are_pretrained_on_its_ids(paths, trained, tmp_path):
    write_files(tmp_path)
    assert main(["shards", "write", str(tmp_path / "tunes"), "--to", str(tmp_path / "shards"), "--split", "folders"]) == 0
    part = "--model.init_args.modalities.midi.init_args."
    data = ["--data.init_args.shards", str(tmp_path / "shards"), "--data.init_args.num_workers", "0", "--data.init_args.batch_size", "4"]
    brief = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.callbacks", "null"]
    small = ["--model.init_args.encoder.dim", "16", "--model.init_args.encoder.depth", "1"]
    for name, path in (("compound", paths["CPWord of all"]), ("trained", trained["BPE bar"])):
        own = MiditokTokenizer(path)
        tokenizer = {"class_path": "multimodal.tokenizers.midi.MiditokTokenizer", "init_args": {"path": path}}
        settings = [f"{part}transform.init_args.tokenizer", json.dumps(tokenizer), f"{part}embed.init_args.vocab_sizes"]
        settings += [json.dumps(own.vocab_sizes), f"{part}embed.init_args.mask_ids", json.dumps(own.mask_ids)]
        run = ["--run", str(tmp_path / name)]
        assert main(["fit", "--config", str(ROOT / "configs/pretrain/music.yaml"), *settings, *small, *data, *brief, *run]) == 0
        with (tmp_path / name / "metrics/version_0/metrics.csv").open() as file:
            losses = [float(row["val/loss/midi"]) for row in csv.DictReader(file) if row["val/loss/midi"]]
        assert losses and np.isfinite(losses).all()
