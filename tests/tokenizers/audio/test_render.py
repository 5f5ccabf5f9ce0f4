"""Pictures of spectrograms, of predicted patches and of predicted codes."""

from functools import partial

import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.masking import Drop, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Decoder, Encoder
from multimodal.objectives import Places, TokenValues
from multimodal.tokenizers.audio import (
    AudioTransform,
    LogMel,
    RandomProjectionTokenizer,
    SpectrogramEmbed,
    SpectrogramRenderer,
    Spectrograms,
    SpectrogramTransform,
)
from multimodal.tokenizers.audio.patches import cut_patches
from multimodal.tokenizers.audio.render import COLOURS, GREY, PALE, REACH, code_colours, coloured
from multimodal.training import MaskedPretraining

TARGETS = [TokenValues(False, scale=1.0, mean=(15.4,), std=(13.1,)), TokenValues(scale=1.0)]
IDS = RandomProjectionTokenizer(patch_size=4, num_codes=50)
HIDDEN = torch.tensor([True, False, False, False, True, True])  # of 3 places in time and 2 bands


def spectrogram(frames: int = 12, bins: int = 8) -> torch.Tensor:
    return 15 + 3 * torch.randn(frames, bins, generator=torch.Generator().manual_seed(0))


def wanted(target: TokenValues, values: torch.Tensor) -> torch.Tensor:
    items = collate([Sample("noise", {"noise": Item(values)})]).items["noise"]
    return target(items, cut_patches(items.values, None, (4, 4), (4, 4)))


def upright(values: torch.Tensor) -> torch.Tensor:
    """What lies frame after frame, with time to the right and frequency up."""
    return values.T.flip(0)


def places(hidden: torch.Tensor = HIDDEN) -> torch.Tensor:
    return hidden.view(3, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)


@pytest.mark.parametrize("target", TARGETS, ids=["values", "normalised"])
def test_true_values_complete_the_spectrogram(target):
    values = spectrogram()
    truth = wanted(target, values)
    made = SpectrogramRenderer(4, min_size=1).render(target, values, truth, truth, HIDDEN)
    assert tuple(made) == ("spectrogram", "masked", "predicted") and made["spectrogram"].shape == (3, 8, 12)
    assert (made["predicted"].int() - made["spectrogram"].int()).abs().max() <= 1  # rounding
    hidden = upright(places())
    assert (made["masked"][:, hidden] == GREY).all() and torch.equal(made["masked"][:, ~hidden], made["spectrogram"][:, ~hidden])
    quiet, loud = upright(values == values.min()), upright(values == values.max())
    assert made["spectrogram"][:, quiet].flatten().tolist() == list(COLOURS[0])
    assert made["spectrogram"][:, loud].flatten().tolist() == list(COLOURS[-1])


def test_predicted_values_stand_where_the_hidden_patches_were():
    values, target = spectrogram(), TARGETS[0]
    guesses = wanted(target, values)
    guesses[0], guesses[4:] = -100.0, 100.0
    made = SpectrogramRenderer(4, min_size=1).render(target, values, guesses, guesses, HIDDEN)
    picture = made["predicted"]
    assert torch.equal(picture[:, ~upright(places())], made["spectrogram"][:, ~upright(places())])
    lowest = picture[:, 4:, :4].flatten(1).unique(dim=1)  # of the first place in time and the lower band
    latest = picture[:, :, 8:].flatten(1).unique(dim=1)
    assert lowest.flatten().tolist() == list(COLOURS[0]) and latest.flatten().tolist() == list(COLOURS[-1])


def test_codes_are_colours_and_pale_where_they_are_visible():
    values = spectrogram()
    ids = torch.tensor([3, 3, 7, 9, 3, 7])
    guesses = torch.where(HIDDEN, torch.tensor([3, 0, 0, 0, 1, 7]), ids)
    made = SpectrogramRenderer(4, min_size=1).render(IDS, values, ids, guesses, HIDDEN)
    assert tuple(made) == SpectrogramRenderer.columns == ("spectrogram", "masked", "predicted", "codes")
    middle = {name: made[name][:, [6, 2]][:, :, [2, 6, 10]].permute(2, 1, 0).flatten(0, 1) for name in ("predicted", "codes")}
    full = code_colours(ids).round()
    pale = (255 * PALE + (1 - PALE) * code_colours(ids)).round()
    assert torch.equal(middle["codes"].float(), torch.where(HIDDEN[:, None], full, pale))
    same = (middle["predicted"] == middle["codes"]).all(1)
    assert same.tolist() == [True, True, True, True, False, True]


def test_two_numbers_of_a_token_have_one_colour_together():
    tokenizer, ids = RandomProjectionTokenizer(patch_size=4, num_codes=5), torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0], [0, 1], [4, 4]])
    tokenizer.__class__ = type("TwoFields", (RandomProjectionTokenizer,), {"vocab_sizes": property(lambda self: (5, 5))})
    made = SpectrogramRenderer(4, min_size=1).render(tokenizer, spectrogram(), ids, ids, torch.ones(6, dtype=torch.bool))["codes"]
    found = [tuple(made[:, row, column].tolist()) for column in (0, 4, 8) for row in (7, 3)]
    assert len(set(found)) == 5 and found[0] == found[4]


def test_colours_of_codes_differ():
    colours = code_colours(torch.arange(1024)).round()
    assert colours.min() >= 0 and colours.max() <= 255 and len(colours.unique(dim=0)) == 1024
    neighbours = (colours[1:] - colours[:-1]).abs().amax(1)
    assert neighbours.min() > 40
    assert torch.equal(code_colours(torch.tensor([5])), code_colours(torch.tensor([9, 5]))[1:])


def test_quieter_than_80_decibels_is_black():
    values = torch.tensor([[20.0, 20.0 - REACH, -15.9, 20.0 - REACH / 2]])
    colours = coloured(values, values)
    assert torch.equal(colours[:, 0, 1], colours[:, 0, 2]) and colours[:, 0, 1].tolist() == list(COLOURS[0])
    brightness = torch.tensor(COLOURS).sum(1)
    assert bool((brightness.diff() > 0).all())
    between = (torch.tensor(COLOURS[2]) + torch.tensor(COLOURS[3])).float() / 2
    assert (colours[:, 0, 3].float() - between).abs().max() <= 1


def test_silence_is_black():
    assert coloured(torch.zeros(2, 3), torch.zeros(2, 3)).amax() <= 4


@pytest.mark.parametrize(
    ("shape", "patch", "frames", "size"),
    [((98, 128), 16, 1024, (256, 192)), ((998, 128), 16, 1024, (256, 992)), ((2998, 80), (1, 80), 500, (240, 500))],
)
def test_short_and_narrow_spectrograms_are_enlarged_and_long_ones_cut(shape, patch, frames, size):
    values = spectrogram(*shape)
    renderer = SpectrogramRenderer(patch, max_frames=frames)
    count = (shape[0] // renderer.patch_shape[0]) * (shape[1] // renderer.patch_shape[1])
    tokenizer = RandomProjectionTokenizer(patch, num_codes=8)
    ids = torch.zeros(count, dtype=torch.int64)
    made = renderer.render(tokenizer, values, ids, ids, ids.bool())
    assert {tuple(x.shape) for x in made.values()} == {(3, *size)} and {x.dtype for x in made.values()} == {torch.uint8}


@pytest.mark.parametrize("frequency_first", [False, True])
def test_the_hidden_patch_is_where_its_coordinates_say(frequency_first):
    values, renderer = spectrogram(33, 17), SpectrogramRenderer([8, 4], frequency_first, min_size=1)
    tokens = cut_patches(values, torch.tensor([33]), (8, 4), (8, 4), frequency_first)
    for number, place in enumerate(tokens.coordinates.tolist()):
        t, f = place[::-1] if frequency_first else place
        masked = torch.arange(len(tokens.inputs)) == number
        ids = torch.zeros(len(tokens.inputs), dtype=torch.int64)
        shown = renderer.render(IDS, values, ids, ids, masked)
        grey = (shown["masked"] != shown["spectrogram"]).any(0)
        rows, columns = grey.nonzero().unbind(1)
        assert (int(columns.min()), int(columns.max())) == (8 * t, 8 * t + 7)
        assert (16 - 1 - int(rows.max()), 16 - 1 - int(rows.min())) == (4 * f, 4 * f + 3)


def test_what_cannot_be_drawn_is_refused():
    ids = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"patches of 16 x 16 cut a spectrogram of \(40, 32\) frames and bins into 2 x 2, but there are 6"):
        SpectrogramRenderer().render(IDS, spectrogram(40, 32), ids, ids, HIDDEN)
    with pytest.raises(ValueError, match="what a Places asks for are no values of tokens, which could be drawn"):
        SpectrogramRenderer(4).render(Places((3, 2)), spectrogram(), ids, ids[:, None], HIDDEN)
    with pytest.raises(ValueError, match="max_frames must be at least the 16 frames of a patch, got 15"):
        SpectrogramRenderer(max_frames=15)
    with pytest.raises(ValueError, match="min_size must be at least 1, got 0"):
        SpectrogramRenderer(min_size=0)


def make_model(**settings) -> MaskedPretraining:
    torch.manual_seed(0)
    parts = {
        "transform": SpectrogramTransform(AudioTransform(seconds=0.5), LogMel(num_bins=32)),
        "embed": SpectrogramEmbed,
        "masking": RandomMasking(0.5),
        "corruption": Drop(),
        "decoder": partial(Decoder, width=8, depth=1, num_heads=2),
        "renderer": SpectrogramRenderer(min_size=1),
    }
    return MaskedPretraining(Encoder(dim=16, depth=1, num_heads=2), {"noise": partial(Modality, **(parts | settings))}).eval()


@pytest.mark.parametrize("on_device", [False, True], ids=["workers", "device"])
@pytest.mark.parametrize(
    "predicted",
    [{"target": TokenValues(scale=1.0)}, {"tokenizer": RandomProjectionTokenizer(num_codes=8)}],
    ids=["values", "ids"],
)
def test_a_model_draws_ragged_items_one_by_one(predicted, on_device):
    features = LogMel(num_bins=32)
    device = {"transform": AudioTransform(seconds=0.5), "preparation": [Spectrograms(features)]} if on_device else {}
    model = make_model(**predicted, **device)
    waves = [0.1 * torch.randn(count, generator=torch.Generator().manual_seed(count)) for count in (4000, 8000, 6000)]
    items = [Item(wave if on_device else features(wave), ragged=True) for wave in waves]
    batch = model.prepared(collate([Sample(str(i), {"noise": item}, seed=i) for i, item in enumerate(items)]), train=False)
    made = model.pictures(batch, 2)["noise"]
    assert [x["spectrogram"].shape[2] for x in made] == [16, 48]  # of 23 and 48 frames
    for picture, wave in zip(made, waves, strict=False):
        own = features(wave)[: picture["spectrogram"].shape[2]]
        assert torch.equal(picture["spectrogram"], coloured(own, own).flip(2).transpose(1, 2))
        grey = (picture["masked"] == GREY).all(0)
        assert grey.float().mean() == 0.5
        visible = picture["predicted"][:, ~grey]
        assert "codes" in picture or torch.equal(visible, picture["spectrogram"][:, ~grey])
        assert not torch.equal(picture["predicted"], picture["spectrogram"])


def test_a_wrong_patch_size_is_told_before_any_data_is_read():
    with pytest.raises(ValueError, match=r"modality 'noise' do not fit each other: patches of 8 x 8 cut a spectrogram of \(48, 32\)"):
        make_model(target=TokenValues(scale=1.0), renderer=SpectrogramRenderer(8))
