"""Labels of notes: rows of the tokens of each note, windows that are sequences of their own, files of predictions for whole pieces."""

from functools import partial

import lightning as L
import numpy as np
import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.heads import TokenClassifier
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.midi import (
    CompoundEmbed,
    MidiTransform,
    NoteLabelTransform,
    Score,
    TrackLabels,
    VelocityLabels,
    read_score,
    write_score,
)
from multimodal.training import TokenLabelling
from multimodal.windowed import PlaceColumn

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
VOICES = {"high": ["High"], "low": ["Low"]}


def piece(seed: int, length: int = 20, low: str = "Low") -> bytes:
    """Two voices, one above the other, and a drum at the end."""
    draw, rows = np.random.default_rng(seed), []
    for i in range(length):
        voice = int(draw.integers(2))
        rows.append((240 * i, int(draw.integers(40, 55)) + 24 * (1 - voice), 240, int(draw.integers(1, 127)), 0, voice))
    rows.append((240 * length, 38, 100, 90, 128, 2))
    return write_score(Score(torch.zeros(0, 6, dtype=torch.int64), track_names=("High", low, "Drums")).with_notes(torch.tensor(rows)))


def transform(labels=None, max_notes=8, overlap=3) -> NoteLabelTransform:
    return NoteLabelTransform(labels or TrackLabels(VOICES), MidiTransform(max_notes=max_notes, min_notes=2), overlap)


def sample(seed: int, train: bool = False, labelled: bool = True, own: NoteLabelTransform | None = None, **settings) -> Sample:
    own, data = own or transform(), piece(seed, **settings)
    labels = own.decode_labels(data) if labelled else None
    item = own.labelled(own.decode(data), labels, torch.Generator().manual_seed(seed), train)
    return Sample(f"p{seed}", {"midi": item}, seed=seed)


def build(labels=None, num_classes=2, **settings) -> TokenLabelling:
    torch.manual_seed(0)
    part = partial(Input, transform=transform(labels), embed=partial(CompoundEmbed, field_dim=8, max_length=64))
    return TokenLabelling(
        Encoder(dim=16, depth=1, num_heads=2), {"midi": part}, partial(TokenClassifier, num_classes=num_classes), **settings
    )


def loader(batches):
    return torch.utils.data.DataLoader([collate(samples) for samples in batches], batch_size=None)


def test_notes_of_all_windows_are_told_as_if_each_window_were_alone():
    model, samples = build().eval(), [sample(1), sample(2, length=5), sample(3, length=13)]
    items = collate(samples).items["midi"]
    rows = model(items)
    assert rows.counts.tolist() == [20, 5, 13]  # every note once, of whichever window; never the drum
    first = 0
    for own in samples:
        item = own.items["midi"]
        logits: dict[int, torch.Tensor] = {}
        for window in item.labels[:, PlaceColumn.WINDOW].unique():
            inside = item.labels[:, PlaceColumn.WINDOW] == window
            alone = collate([Sample("a", {"midi": Item(item.values[inside], ragged=True)})]).items["midi"]
            tokens, sequence, coordinates = model.modality.plain_tokens(alone)
            found = model.head(model.encode({"midi": (tokens, sequence, coordinates)}).tokens)
            logits |= {place: x for place, x in zip(item.labels[inside, PlaceColumn.PLACE].tolist(), found, strict=True) if place >= 0}
        torch.testing.assert_close(rows.logits[first : first + len(logits)], torch.stack([logits[i] for i in sorted(logits)]))
        first += len(logits)


def several_tokens() -> Sample:
    """Five tokens: the second note has tokens 1 and 3, the first (of two windows) token 4; 0 and 2 are of no note."""
    values = torch.tensor([[0, 1, 2, 3], [1, 1, 3, 3], [0, 1, 2, 5], [1, 4, 2, 3], [0, 2, 9, 3]])
    labels = torch.tensor([[0, -1, -1, 4], [0, 2, 1, 4], [0, -1, -1, 4], [0, 2, 1, 4], [1, 0, -1, 4]])
    return Sample("several", {"midi": Item(values, ragged=True, labels=labels)})


def test_tokens_of_a_note_are_averaged_and_score_once():
    model = build().eval()
    batch = collate([several_tokens(), sample(2)])
    items = batch.items["midi"]
    rows = model(items)
    places = model.places(items, rows)
    assert rows.counts.tolist() == [2, 20] and places.counts.tolist() == [4, 21]
    assert places.number[:2].tolist() == [0, 2] and places.classes[:2].tolist() == [-1, 1] and places.item[:3].tolist() == [0, 0, 1]
    first = collate([Sample("a", {"midi": Item(items.values[:4], ragged=True)})]).items["midi"]
    encoded = model.encode({"midi": model.modality.plain_tokens(first)}).tokens
    torch.testing.assert_close(rows.logits[1], model.head((encoded[1] + encoded[3])[None] / 2)[0])
    term = model._terms(batch, "val")["midi", 0]
    labelled = places.classes >= 0
    expected = -rows.logits[labelled].log_softmax(1)[torch.arange(21), places.classes[labelled]].sum()
    torch.testing.assert_close(term.loss, expected)
    assert term.count == 21  # one note of the first piece, 20 of the second


def test_voices_are_learned_and_written_for_whole_pieces(tmp_path):
    model = build(optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    test = [sample(seed, length=10 + seed) for seed in range(40, 44)]
    trainer = L.Trainer(max_epochs=8, default_root_dir=tmp_path / "run", **QUIET)
    trainer.fit(model, loader([[sample(i + j, train=True) for j in range(8)] for i in range(0, 32, 8)]), loader([test]))
    scores = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert scores["val/accuracy"] > 0.9 and scores["val/places"] == sum(10 + seed for seed in range(40, 44))
    trainer.predict(model, loader([test[:1], [], test[1:]]), return_predictions=False)
    for seed in range(40, 44):
        found = np.load(tmp_path / f"run/predictions/midi/p{seed}.npy", allow_pickle=False)
        notes = read_score(piece(seed, length=10 + seed), drop_drums=False).notes
        assert found.dtype == np.int16 and found.shape == (len(notes),)
        assert (found[:-1] == notes[:-1, 5].numpy()).mean() > 0.85 and found[-1] == -1  # the drum is not told


def test_a_piece_without_labels_counts_for_nothing():
    model = build().eval()
    term = model._terms(collate([sample(1), sample(2, labelled=False)]), "val")["midi", 0]
    alone = model._terms(collate([sample(1)]), "val")["midi", 0]
    assert term.count == alone.count == 20
    torch.testing.assert_close(term.loss, alone.loss)
    message = "no place of the epoch has a label: do the shards of the training split hold label files in a field mid, midi"
    with pytest.raises(ValueError, match=message):
        L.Trainer(max_epochs=1, **QUIET).fit(model, loader([[sample(2, train=True, labelled=False)]]))


def test_a_class_without_a_place_names_its_piece():
    model = build(VelocityLabels(), num_classes=3)
    own = transform(VelocityLabels())
    with pytest.raises(ValueError, match="the label file of sample 'p1' has class 5, but the head's num_classes is 3: allowed are 0 to 2"):
        model.on_before_batch_transfer(collate([sample(1, own=own)]), 0)


def test_labels_that_say_the_place_need_no_time_axis():
    with pytest.raises(ValueError, match="time_axis has no effect on midi, whose labels say the place of each token"):
        build(time_axis=1)


def test_every_parameter_has_a_gradient():
    for samples in ([], [sample(1, train=True, labelled=False)], [sample(1, train=True)]):
        model = build()
        model.log = lambda *args, **kwargs: None
        model.training_step(collate(samples), 0).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_batches_are_measured_with_all_their_windows():
    batch = collate([sample(1), sample(2, length=5)])
    assert build().token_counter(batch).tolist() == batch.items["midi"].lengths.tolist()
    assert int(batch.items["midi"].lengths.max()) > 20  # windows overlap
