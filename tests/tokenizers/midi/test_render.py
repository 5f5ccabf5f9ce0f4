import pytest
import torch

from multimodal.tokenizers.midi import CompoundTokenizer, MidiTokenizer, OctupleTokenizer, PianoRollRenderer, RemiTokenizer, Score
from multimodal.tokenizers.midi.render import BAR_LINE, HIDDEN, OUTLINE, RIGHT, TRACKS, WRONG
from tests.tokenizers.midi.test_compound_settings import EVERYTHING, SCORE

IDS = torch.tensor([[0, 0, 38, 7], [1, 4, 42, 7], [1, 8, 45, 7], [0, 0, 38, 15]])
MASKED = torch.tensor([False, True, False, False])


def render(ids: torch.Tensor, predicted: torch.Tensor, masked: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(PianoRollRenderer().render(CompoundTokenizer(), ids, ids, predicted, masked))


def has(picture: torch.Tensor, colour: tuple[int, int, int]) -> bool:
    return bool((picture == torch.tensor(colour)[:, None, None]).all(0).any())


def colours(picture: torch.Tensor) -> set[str]:
    named = {"note": TRACKS[0], "hidden": HIDDEN, "outline": OUTLINE, "right": RIGHT, "wrong": WRONG}
    return {name for name, colour in named.items() if has(picture, colour)}


def test_columns_and_shapes() -> None:
    pictures = render(IDS, IDS, MASKED)
    assert tuple(pictures) == PianoRollRenderer.columns == ("piece", "masked", "predicted")
    assert {(x.dtype, x.shape[0], x.shape[2]) for x in pictures.values()} == {(torch.uint8, 3, 480)}
    assert len({x.shape for x in pictures.values()}) == 1
    assert colours(pictures["piece"]) == {"note"}
    assert colours(pictures["masked"]) == {"note", "hidden", "outline"}


def test_right_predictions_are_green() -> None:
    assert colours(render(IDS, IDS, MASKED)["predicted"]) == {"note", "right"}


@pytest.mark.parametrize(("field", "value"), [(0, 0), (1, 5), (2, 40), (3, 2)])
def test_a_wrong_field_is_red(field: int, value: int) -> None:
    predicted = IDS.clone()
    predicted[1, field] = value
    found = colours(render(IDS, predicted, MASKED)["predicted"])
    assert "wrong" in found and "right" not in found


def test_the_true_note_shows_behind_a_wrong_pitch() -> None:
    predicted = IDS.clone()
    predicted[1, 2] = 60
    assert colours(render(IDS, predicted, MASKED)["predicted"]) == {"note", "wrong", "outline"}


def test_a_predicted_special_id_is_a_red_outline() -> None:
    predicted = IDS.clone()
    predicted[1] = torch.tensor([3, 17, 87, 65])
    assert colours(render(IDS, predicted, MASKED)["predicted"]) == {"note", "wrong"}


def test_a_wrong_bar_moves_no_other_note() -> None:
    predicted = IDS.clone()
    predicted[1, 0] = 0
    right, wrong = (render(IDS, x, MASKED)["predicted"][:, :, 240:] for x in (IDS, predicted))
    assert torch.equal(right, wrong)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_number_of_notes(count: int) -> None:
    draws = torch.Generator().manual_seed(0)
    ids, predicted = (torch.stack([torch.randint(size, (count,), generator=draws) for size in (2, 16, 86, 64)], dim=1) for _ in range(2))
    masked = torch.rand(count, generator=draws) < 0.5
    assert render(ids, torch.where(masked[:, None], predicted, ids), masked)["piece"].shape[2] == 480


EVERY = [CompoundTokenizer(**EVERYTHING), RemiTokenizer(), RemiTokenizer(**EVERYTHING), OctupleTokenizer()]


@pytest.mark.parametrize("tokenizer", EVERY, ids=lambda tokenizer: f"{type(tokenizer).__name__}{len(tokenizer.vocab_sizes)}")
def test_notes_of_every_tokenizer_are_drawn_whole(tokenizer: MidiTokenizer) -> None:
    ids = tokenizer.encode_score(SCORE)
    note = tokenizer.note_of(ids)
    masked = (note == 2) & (torch.arange(len(ids)) == (note == 2).nonzero()[-1])  # one token of a note of several
    pictures = dict(PianoRollRenderer().render(tokenizer, ids, ids, ids, masked))
    assert "hidden" in colours(pictures["masked"]) and "right" in colours(pictures["predicted"])
    wrong = ids.clone()
    wrong[masked] = torch.tensor(tokenizer.mask_ids) if ids.ndim == 2 else tokenizer.mask_ids[0]
    found = colours(PianoRollRenderer().render(tokenizer, ids, ids, wrong, masked)["predicted"])
    assert "wrong" in found and "right" not in found


def test_tracks_differ_in_colour() -> None:
    ids = OctupleTokenizer().encode_score(SCORE)
    nothing = torch.zeros(len(ids), dtype=torch.bool)
    piece = PianoRollRenderer().render(OctupleTokenizer(), ids, ids, ids, nothing)["piece"]
    assert [has(piece, colour) for colour in TRACKS[:4]] == [True, True, True, False]


def test_pictures_begin_with_the_bar_of_the_first_note_and_show_bars_of_the_metre() -> None:
    """Octuples tell bars from the start of the piece."""
    tokenizer, renderer = OctupleTokenizer(), PianoRollRenderer(width=480, max_bars=3)
    late = Score(SCORE.notes + torch.tensor([14_400, 0, 0, 0, 0, 0]), metres=SCORE.metres)
    pictures = []
    for score in (SCORE, late):
        ids = tokenizer.encode_score(score)
        pictures.append(renderer.render(tokenizer, ids, ids, ids, torch.zeros(len(ids), dtype=torch.bool))["piece"])
    assert torch.equal(*pictures)
    line = torch.tensor(BAR_LINE)[:, None]
    assert [x for x in range(480) if (pictures[0][:, 0, x : x + 1] == line).all()] == [240]  # two bars of three quarters hold notes


def test_hidden_fields_make_their_notes_hidden() -> None:
    fields = torch.zeros(4, 4, dtype=torch.bool)
    fields[1, 2] = True
    pictures = PianoRollRenderer().render(CompoundTokenizer(), IDS, IDS, IDS, fields)
    assert colours(pictures["masked"]) == {"note", "hidden", "outline"} and colours(pictures["predicted"]) == {"note", "right"}
