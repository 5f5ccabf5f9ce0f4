from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.music import frozen, run
from benchmarks.music.embed import TimedEmbed
from benchmarks.music.pitches import probabilities, told_pitches
from benchmarks.music.transform import TransposedTransform
from multimodal.masking import RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder, PredictionHead, RotaryPosition
from multimodal.tokenizers.midi import Column, CompoundTokenizer, MidiTransform, Score, sort_notes
from multimodal.training import MaskedPretraining

SETTINGS: dict[str, Any] = dict(
    positions_per_beat=12, max_positions=96, durations_per_beat=12, num_durations=96, metre="told", max_empty_bars=8
)


def score(rows: list[tuple[int, int, int, int]], metres: list[tuple[int, int, int]]) -> Score:
    """Return notes (start, pitch, duration, track)."""
    notes = torch.tensor([(start, pitch, length, 80, 40 + track, track) for start, pitch, length, track in rows])
    return Score(sort_notes(notes), metres=torch.tensor(metres).reshape(-1, 3))


def ids_of(own: Score, **more: Any) -> torch.Tensor:
    return CompoundTokenizer(**SETTINGS, **more).encode_score(own)


def timed(**more: Any) -> TimedEmbed:
    return TimedEmbed(16, CompoundTokenizer(**SETTINGS).vocab_sizes, field_dim=8, **more)


def test_notes_lie_at_their_times_whatever_the_metre() -> None:
    starts = [0, 480, 1440, 1920, 5280, 6240]
    rows = [(start, 60, 240, 0) for start in starts]
    for metres in ([(0, 4, 4)], [(0, 6, 8)], [(0, 2, 4), (1920, 3, 4)]):
        tokens = timed().tokens(ids_of(score(rows, metres)), torch.tensor([6]))
        assert tokens.coordinates[:, 0].tolist() == [start // 40 for start in starts]
        assert tokens.coordinates[:, 1].tolist() == list(range(6))


def test_times_are_counted_in_each_item_by_itself() -> None:
    first, second = (ids_of(score([(start, 60, 240, 0) for start in starts], [(0, 3, 4)])) for starts in ([480, 1920], [960, 1440, 4800]))
    tokens = timed().tokens(torch.cat([first, second]), torch.tensor([2, 3]))
    assert tokens.coordinates[:, 0].tolist() == [12, 48, 24, 36, 120]


def test_voices_are_the_second_coordinate_where_they_are_told() -> None:
    own = ids_of(score([(0, 72, 480, 0), (0, 48, 480, 3), (480, 60, 480, 1)], [(0, 4, 4)]), num_tracks=4)
    embed = TimedEmbed(16, CompoundTokenizer(**SETTINGS, num_tracks=4).vocab_sizes, field_dim=8, voice=4)
    assert embed.tokens(own, torch.tensor([3])).coordinates.tolist() == [[0, 0], [0, 3], [12, 1]]


def test_fields_that_are_never_shown_change_nothing() -> None:
    torch.manual_seed(0)
    embed = timed(unseen=[0, 1, 4])
    tokens = embed.tokens(ids_of(score([(i * 240, 60 + i, 240, 0) for i in range(8)], [(0, 6, 8)])), torch.tensor([8]))
    other = tokens.inputs.clone()
    other[:, [0, 1, 4]] = torch.tensor([1, 5, 9])
    assert torch.equal(embed(tokens), embed(tokens.with_inputs(other)))
    other[:, 2] += 1
    assert not torch.equal(embed(tokens), embed(tokens.with_inputs(other)))


def test_an_encoder_without_the_metre_says_the_same_wherever_bars_begin() -> None:
    torch.manual_seed(0)
    embed, encoder = timed(unseen=[0, 1, 4]), Encoder(16, 2, 2, rotary=lambda width: RotaryPosition(width, axes=2)).eval()
    rows = [(i * 240, 60 + i % 5, 240, 0) for i in range(12)]
    later = [(start + 720, *rest) for start, *rest in rows]
    outputs = []
    for own, metres in ((rows, [(0, 4, 4)]), (later, [(0, 6, 8)])):
        tokens = embed.tokens(ids_of(score(own, metres)), torch.tensor([12]))
        outputs.append(encoder(embed(tokens), torch.zeros(12, dtype=torch.int64), tokens.coordinates).tokens)
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)


def test_a_tokenizer_without_time_signatures_is_refused() -> None:
    with pytest.raises(ValueError, match="the last field must be the time signature"):
        TimedEmbed(16, (4, 18, 88, 66))


def test_views_of_evaluation_are_other_keys_and_training_has_one() -> None:
    transform = TransposedTransform(CompoundTokenizer(**SETTINGS), max_notes=8, keys=[0, 3, 60])
    own = score([(i * 240, 60 + i, 240, 0) for i in range(20)], [(0, 4, 4)])
    item = transform(own, torch.Generator().manual_seed(0), train=False)
    views = item.values.view(3, 8, -1)
    assert item.labels is not None and item.labels[:, 0].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert torch.equal(views[1, :, 2], views[0, :, 2] + 3)
    assert torch.equal(views[2], views[0])  # 60 semitones higher there are no ids
    assert transform(own, torch.Generator().manual_seed(0), train=True).values.shape == (8, 5)


def pitch_model() -> MaskedPretraining:
    torch.manual_seed(0)
    tokenizer = CompoundTokenizer(**SETTINGS, num_tracks=4)
    sizes = tokenizer.vocab_sizes

    def modality(dim: int) -> Modality:
        return Modality(dim, MidiTransform(tokenizer), lambda width: TimedEmbed(width, sizes, field_dim=8, voice=4), RandomMasking(0.15))

    return MaskedPretraining(Encoder(16, 1, 2, rotary=lambda width: RotaryPosition(width, axes=2)), {"midi": modality}).eval()


def chorale() -> Score:
    return score([(beat * 480, 48 + 8 * (3 - voice) + beat % 3, 480, voice) for voice in range(4) for beat in range(6)], [(0, 4, 4)])


def test_a_pitch_is_told_without_being_seen() -> None:
    model, own = pitch_model(), chorale()
    ids = ids_of(own, num_tracks=4)
    for number in (0, 7, 23):
        changed = ids.clone()
        changed[number, 2] += 5
        before, after = (probabilities(model, x, pitch=2) for x in (ids, changed))
        assert torch.equal(before[number], after[number])
        assert not torch.equal(before, after)  # the others see it


def test_notes_beyond_reach_are_not_looked_at() -> None:
    model, ids = pitch_model(), ids_of(chorale(), num_tracks=4)
    changed = ids.clone()
    changed[20:, 2] += 5
    near, far = (probabilities(model, x, 2, reach=8)[:12] for x in (ids, changed))
    assert torch.allclose(near, far, atol=1e-6)


def test_pitches_are_told_in_the_order_of_voices() -> None:
    class Truthful(PredictionHead):
        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(truth if size == 88 else torch.zeros(len(hidden), size) for size in self.vocab_sizes)

    model, own = pitch_model(), chorale()
    pitch = own.column(Column.PITCH)
    truth = torch.nn.functional.one_hot(pitch - 22, 88) * 50.0
    model.modalities["midi"].head = Truthful(16, CompoundTokenizer(**SETTINGS, num_tracks=4).vocab_sizes)
    found = told_pitches(model, own)
    track = own.column(Column.TRACK)
    assert found.tolist() == torch.cat([pitch[track == voice] for voice in range(4)]).tolist()


def test_frozen_features_are_those_of_each_excerpt_alone_and_other_weights_give_others(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokenizer = CompoundTokenizer(**SETTINGS)
    embed = TimedEmbed(16, tokenizer.vocab_sizes, field_dim=8)
    encoder = Encoder(16, 2, 2, rotary=partial(RotaryPosition, axes=2)).eval()
    parts = {"encoder_of": encoder, "embed_of": embed, "modality_of": SimpleNamespace(transform=MidiTransform(tokenizer))}
    for name, part in parts.items():
        monkeypatch.setattr(frozen, name, lambda run, part=part: part)
    two = [score([(note * length, 60 + note, length, 0) for note in range(12)], [(0, 4, 4)]) for length in (240, 160)]
    features = frozen.frozen_features(Path(), two)
    assert features.shape == (2, 3 * 2 * 16)  # two layers and the output; mean and deviation
    assert np.allclose(features[1:], frozen.frozen_features(Path(), two[1:]), atol=1e-5)
    ids = torch.stack([ids_of(two[0]).index_add(1, torch.tensor([2]), torch.full((12, 1), key)) for key in frozen.KEYS])
    tokens = embed.tokens(ids.flatten(0, 1), torch.full((5,), 12))
    with torch.no_grad():
        output = encoder(embed(tokens), torch.arange(5).repeat_interleave(12), tokens.coordinates).tokens.view(5, 12, 16)
    assert np.allclose(features[0, -32:-16], output.mean((0, 1)), atol=1e-5)
    first, again, other = (frozen.frozen_features(Path(), two, untrained=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other) and not np.allclose(first, features)


def test_recipes_from_scratch_and_pretrained_differ_in_where_their_parts_come_from(tmp_path: Path) -> None:
    for task, parts in ((run.DANCE, ("encoder", "embed")), (run.PITCH, ("encoder", "embed", "head"))):
        scratch, pretrained = run.recipe(task, None), run.recipe(task, tmp_path)
        assert "benchmarks.music.parts" not in yaml.safe_dump(scratch)
        assert yaml.safe_dump(pretrained).count(str(tmp_path)) == len(parts)
        assert scratch["trainer"] == pretrained["trainer"] and scratch["data"] == pretrained["data"]


def test_adversarial_masking_gets_half_the_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(run, "fit", lambda config, folder, seed: seen.setdefault(folder.name, config))
    for arm in (run.PLAIN, run.ADVERSARIAL):
        run.pretrain(run.DANCE, arm)
    plain, adversarial = seen["dance_plain_masking"], seen["dance_adversarial_masking"]
    assert adversarial["trainer"]["max_epochs"] * 2 == plain["trainer"]["max_epochs"]
    assert "AdversarialMasking" in yaml.safe_dump(adversarial) and "AdversarialMasking" not in yaml.safe_dump(plain)
    assert np.array_equal(sorted(seen), ["dance_adversarial_masking", "dance_plain_masking"])


def test_adversarial_masking_hides_as_much_as_the_plain_one_and_the_same_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(run, "fit", lambda config, folder, seed: seen.setdefault(folder.name, config))
    for task in (run.DANCE, run.PITCH):
        run.pretrain(task, run.ADVERSARIAL)
    dance, pitch = (
        seen[f"{task}_adversarial_masking"]["model"]["init_args"]["modalities"]["midi"]["init_args"]["masking"]
        for task in ("dance", "pitch")
    )
    assert dance["class_path"] == pitch["class_path"] == "multimodal.masking.AdversarialMasking"
    assert dance["init_args"]["mask_ratio"] == 0.25 and "fields" not in dance["init_args"]
    assert pitch["init_args"]["mask_ratio"] == 0.15 and pitch["init_args"]["fields"] == ["pitch"]
