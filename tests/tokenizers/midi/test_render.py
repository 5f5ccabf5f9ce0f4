import pytest
import torch

from multimodal.tokenizers.midi import CompoundTokenizer, PianoRollRenderer
from multimodal.tokenizers.midi.render import HIDDEN, OUTLINE, RIGHT, TRACKS, WRONG

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
