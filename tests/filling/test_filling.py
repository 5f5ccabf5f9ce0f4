"""A modality is hidden and filled in: what the encoder is shown, windows of long items, and what cannot be filled in."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from multimodal.batch import Item, Items
from multimodal.filling import Filling, IterativeDecoding
from multimodal.masking import FieldMasking, MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import PredictionHead, RegressionHead
from multimodal.objectives import TokenValues
from multimodal.protocols import Embed, Tokenizer, Tokens, Transform
from multimodal.tokenizers.image import DiscreteVAE, PatchEmbed

SIZES = (8, 40)
LEFT_SHIFT = 3


class Pairs(Tokenizer):
    vocab_sizes = SIZES
    field_names = ("left", "right")

    def encode(self, values, lengths=None):
        return values

    def kinds(self):
        return tuple(-(torch.arange(size) >= size - 1).long() for size in SIZES)

    def fingerprint(self):
        return "pairs"


class PairTransform(Transform):
    extensions = ("pairs",)

    def __init__(self):
        self.tokenizer = Pairs()

    def decode(self, data):
        return data

    def __call__(self, decoded, generator, train):
        return Item(decoded, ragged=True)


class Open(Embed):
    """A vector holds the ids as they are seen, -1 where the mask is."""

    vocab_sizes = SIZES
    longest = 20

    def tokens(self, values, lengths):
        assert int(lengths.max()) <= self.longest
        return Tokens.of_sequences(values, lengths)

    def forward(self, tokens, shown_as_mask=None):
        if shown_as_mask is not None:
            shown_as_mask = shown_as_mask if shown_as_mask.ndim == 2 else shown_as_mask[:, None]
            return tokens.inputs.masked_fill(shown_as_mask, -1).float()
        return tokens.inputs.float()


class LeftOfRight(PredictionHead):
    """Knows the rule by which the items are made: left is right, less a number."""

    def forward(self, hidden):
        right = hidden[:, 1].long()
        assert (right >= 0).all(), "it was to be seen"
        left = nn.functional.one_hot((right - LEFT_SHIFT) % 7, SIZES[0]).float() * 100
        return left, torch.zeros(len(hidden), SIZES[1])


def build(**settings) -> Modality:
    told = {"transform": PairTransform(), "embed": lambda _: Open(), "masking": RandomMasking(0.4), "head": LeftOfRight}
    return Modality(2, **(told | settings)).eval()


def make_items(lengths: list[int]) -> Items:
    generator = torch.Generator().manual_seed(len(lengths))
    right = torch.randint(SIZES[1] - 1, (sum(lengths),), generator=generator)
    values = torch.stack([(right - LEFT_SHIFT) % 7, right], 1)
    return Items(values, torch.arange(len(lengths)), torch.arange(len(lengths)) + 7, lengths=torch.tensor(lengths))


def see_through(part, wanted):
    tokens, sequence, coordinates = part
    assert len(tokens) == len(sequence) == len(coordinates) == len(wanted)
    return tokens[wanted]


LEFT = FieldMasking(RandomMasking(0.5), ["left"])


@pytest.mark.parametrize("window", [None, 20, 6, 2])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_model_that_knows_the_rule_fills_in_what_was_hidden(window, steps):
    items = make_items([20, 1, 13] if window is None else [75, 1, 20, 33])
    filled = Filling(LEFT, IterativeDecoding(steps), window=window).fill(build(), items, see_through)
    assert torch.equal(filled.truth, items.values) and torch.equal(filled.ids, items.values)
    assert filled.hidden[:, 0].float().mean() > 0.4 and not filled.hidden[:, 1].any()
    assert filled.lengths.tolist() == items.lengths.tolist()


def test_the_encoder_sees_the_mask_where_it_is_hidden_and_later_what_was_filled_in():
    seen = []

    def encode(part, wanted):
        seen.append(part[0].clone())
        return part[0][wanted]

    items = make_items([12])
    filled = Filling(LEFT, IterativeDecoding(3, "linear")).fill(build(), items, encode)
    hidden = filled.hidden[:, 0]
    assert [int((shown[:, 0] == -1).sum()) for shown in seen] == [6, 4, 2]
    assert torch.equal(seen[0][:, 0] == -1, hidden)
    known = seen[2][:, 0] >= 0
    assert torch.equal(seen[2][known].long(), items.values[known]) and (seen[2][:, 1] == items.values[:, 1]).all()


@pytest.mark.parametrize(
    ("window", "expected"), [(None, [4] * 9 + [2] * 6), (6, [0] * 6 + [1] * 6 + [2] * 6)], ids=["whole", "the first item is two windows"]
)
def test_sequences_are_samples_or_windows(window, expected):
    found = []
    items = replace(make_items([9, 6]), sample=torch.tensor([4, 2]))
    Filling(LEFT, IterativeDecoding(1), window=window).fill(build(), items, lambda part, wanted: found.append(part[1]) or part[0][wanted])
    assert found[0].tolist() == expected


def test_what_is_hidden_is_what_evaluation_hides_where_nothing_else_is_said():
    modality, items = build(masking=LEFT, eval_masking=FieldMasking(RandomMasking(0.1), ["left"])), make_items([20])
    filled = Filling(decoding=IterativeDecoding(1)).fill(modality, items, see_through)
    assert filled.hidden.sum() == 2


def test_allowed_ids_bind():
    items = make_items([20])
    filled = Filling(LEFT, IterativeDecoding(2), allowed={"left": (2, 3)}).fill(build(), items, see_through)
    assert set(filled.ids[filled.hidden].tolist()) <= {2, 3}


def test_nothing_hidden_is_nothing_filled_in():
    class Nothing(RandomMasking):
        def __call__(self, tokens, seed):
            return torch.zeros(len(tokens.inputs), dtype=torch.bool)

    def encode(part, wanted):
        raise AssertionError("the model is not asked")

    items = make_items([5, 4])
    filled = Filling(Nothing(0.5)).fill(build(), items, encode)
    assert torch.equal(filled.ids, items.values) and not filled.hidden.any()


def picture(**settings) -> Modality:
    class Pictures(PairTransform):
        extensions = ("img",)

    vae = DiscreteVAE(num_tokens=11, channels=1, num_layers=2, width=4, codebook_dim=4)
    told = {"embed": partial(PatchEmbed, patch_size=4, channels=1), "masking": RandomMasking(0.5)}
    return Modality(16, Pictures(), **(told | ({} if "target" in settings else {"tokenizer": vae}) | settings)).eval()


def test_where_the_encoder_reads_no_ids_all_are_filled_in_at_once():
    items = Items(torch.randint(256, (2, 1, 16, 16), dtype=torch.uint8), torch.arange(2), torch.arange(2))
    filling, modality = Filling(decoding=IterativeDecoding(1)), picture()
    filling.check("picture", modality)
    filled = filling.fill(modality, items, see_through)
    assert filled.ids.shape == (32,) and filled.hidden.sum() == 16 and filled.lengths.tolist() == [16, 16]
    assert torch.equal(filled.ids[~filled.hidden], modality.tokenizer.encode(items.values)[~filled.hidden])


@pytest.mark.parametrize(
    ("filling", "make", "message"),
    [
        ({}, lambda: build(head=lambda dim, sizes: RegressionHead(dim, (3,))), "its head, a RegressionHead, gives no logits"),
        ({}, lambda: build(corruption=MaskReplaceKeep(1.0, 0.0), masking=RandomMasking(0.2)), None),
        ({}, lambda: picture(target=TokenValues()), r"it predicts vectors \(TokenValues\)"),
        ({}, picture, "reads values and no ids.*steps to 1"),
        ({"decoding": IterativeDecoding(1), "window": 4}, picture, "reads values and no ids"),
        ({"pictures": True}, build, "it has no renderer"),
        ({"allowed": {"middle": (0, 3)}}, build, "'middle'; the tokenizer has left, right"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(filling, make, message):
    if message is None:
        Filling(**filling).check("pairs", make())
        return
    with pytest.raises(ValueError, match=message):
        Filling(**filling).check("pairs", make())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"window": 1}, "window must be at least 2"), ({"allowed": {"left": (4, 2)}}, "'left' must be lowest and highest")],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Filling(**settings)


def test_one_of_several_modalities_must_be_named():
    both = {"left": build(), "right": build()}
    assert Filling().name_of({"only": build()}) == "only"
    assert Filling(modality="right").name_of(both) == "right"
    with pytest.raises(ValueError, match="names none of several modalities: set its modality to one of left, right"):
        Filling().name_of(both)
    with pytest.raises(ValueError, match="names the modality 'middle', which is not there"):
        Filling(modality="middle").name_of(both)
