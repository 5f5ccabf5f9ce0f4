"""Mask fine-tuning: tokens hidden while classes are learned, and scored where they are seen."""

from functools import partial

import lightning as L
import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.heads import ClassificationHead, TokenClassifier
from multimodal.masking import AdversarialMasking, Drop, FieldMasking, HidePlaces, Hiding, MaskReplaceKeep, MixedMasking, RandomMasking
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.protocols import Masking, Tokens
from multimodal.tokenizers.audio import SpectrogramEmbed
from multimodal.tokenizers.image import PatchEmbed
from multimodal.tokenizers.midi import CompoundEmbed
from multimodal.tokenizers.text import TextEmbed
from multimodal.training import FineTuning, TokenLabelling, WordLabelling
from multimodal.windowed import split_windows
from tests.training.conftest import ImageTransform, PairEmbed, PairTransform, make_labelled_samples
from tests.training.test_note_labelling import sample, several_tokens, transform
from tests.training.test_token_labelling import sound
from tests.training.test_token_labelling import transform as frames

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
ALL_SHOWN = Hiding(corruption=MaskReplaceKeep(mask=0.0, replace=0.0), in_evaluation=True)


def notes(hiding: Hiding | None, **settings) -> TokenLabelling:
    torch.manual_seed(0)
    part = partial(Input, transform=transform(), embed=partial(CompoundEmbed, field_dim=8, max_length=64), hiding=hiding)
    return TokenLabelling(Encoder(dim=16, depth=1, num_heads=2), {"midi": part}, partial(TokenClassifier, num_classes=2), **settings)


def pieces(hiding: Hiding | None) -> FineTuning:
    torch.manual_seed(0)
    picture = partial(Input, transform=ImageTransform(), embed=partial(PatchEmbed, patch_size=4, channels=1), hiding=hiding)
    pairs = partial(Input, transform=PairTransform(), embed=PairEmbed, hiding=hiding)
    head = partial(ClassificationHead, num_classes=3)
    return FineTuning(Encoder(16, 2, 2), {"picture": picture, "pairs": pairs}, {"label": head}).eval()


def batch() -> dict:
    return collate([sample(1), sample(2, length=30)])


@pytest.mark.parametrize("corruption", [None, MaskReplaceKeep(0.5, 0.5), Drop()], ids=["mask", "mask and random", "drop"])
def test_notes_are_scored_where_they_are_seen(corruption):
    model = notes(Hiding(RandomMasking(0.4), corruption)).eval()
    items = batch().items["midi"]
    rows = model(items, "train")
    assert model(items, "val").hidden is None and model(items).hidden is None
    share = rows.hidden.float().mean()
    assert 0.2 < share < 0.5
    places = model.places(items, rows)
    seen = ~rows.hidden & (places.classes >= 0)
    expected = -rows.logits[seen].log_softmax(1)[torch.arange(int(seen.sum())), places.classes[seen]].sum()
    term = model._terms(batch(), "train")["midi", 0]
    torch.testing.assert_close(term.loss, expected)
    assert term.count == seen.sum() < len(places.classes)
    assert model._terms(batch(), "val")["midi", 0].count == len(places.classes)


def test_what_is_hidden_is_what_the_mask_or_another_token_covers():
    model = notes(Hiding(RandomMasking(0.5), MaskReplaceKeep(0.4, 0.3))).eval()
    items = collate([sample(1)]).items["midi"]
    seen = model.modality.seen(items, model.modality.hiding)
    plain = model.modality.seen(items).vectors
    differs = (seen.vectors != plain).any(1)
    assert torch.equal(differs, seen.hidden) and 0 < seen.hidden.float().mean() < 0.5
    assert torch.equal(seen.vectors[~seen.hidden], plain[~seen.hidden])


def test_evaluation_hides_where_it_is_asked_to_and_the_same_each_time():
    model = notes(Hiding(RandomMasking(0.4), in_evaluation=True)).eval()
    first, again = (model._terms(batch(), "val")["midi", 0] for _ in range(2))
    assert first.count == again.count < 50 and torch.equal(first.loss, again.loss)
    plain = notes(None).eval()
    items = batch().items["midi"]
    torch.testing.assert_close(model(items).logits, plain(items).logits)  # nothing is hidden in predictions


def test_windows_of_a_piece_hide_different_notes():
    model = notes(Hiding(RandomMasking(0.4)))
    item = sample(3, length=40).items["midi"]
    same = item.values[:1].expand(len(item.values), -1).clone()
    items = collate([Sample("a", {"midi": Item(same, ragged=True, labels=item.labels)}, seed=5)]).items["midi"]
    seen = model.modality.seen(split_windows(items), model.modality.hiding)
    windows = seen.hidden.split(seen.tokens.lengths.tolist())
    full = [tuple(x.tolist()) for x in windows if len(x) == 8]
    assert len(full) > 3 and len(set(full)) > 1


class Given(Masking):
    """Hides what it was told to."""

    def __init__(self, hidden: list[bool]) -> None:
        self.hidden = torch.tensor(hidden)

    def __call__(self, tokens: Tokens, seed: torch.Tensor) -> torch.Tensor:
        return self.hidden


def test_a_note_of_several_tokens_counts_while_one_of_them_is_seen():
    given = Given([True, True, False, False, True])  # tokens 1 and 3 are of the second note, token 4 alone of the first
    items = collate([several_tokens()]).items["midi"]
    model = notes(Hiding(given, MaskReplaceKeep(1.0, 0.0))).eval()
    assert model(items, "train").hidden.tolist() == [True, False]
    model = notes(Hiding(given, Drop())).eval()
    rows = model(items, "train")
    assert rows.hidden.tolist() == [False, False]  # token 4 is a window of its own, of which something must be shown
    seen = model.modality.seen(split_windows(items), model.modality.hiding)
    assert seen.kept.tolist() == [False, False, True, True, True]
    encoded = model.encode({"midi": (seen.vectors, seen.item, seen.coordinates)}).tokens
    torch.testing.assert_close(rows.logits[1], model.head(encoded[1:2])[0])  # the note is what was seen of it


@pytest.mark.parametrize("corruption", [MaskReplaceKeep(0.8, 0.0), Drop()])
def test_frames_of_a_sound_may_be_hidden_too(corruption):
    torch.manual_seed(0)
    embed = partial(SpectrogramEmbed, patch_size=[8, 16])
    part = partial(Input, transform=frames(), embed=embed, hiding=Hiding(RandomMasking(0.6), corruption))
    model = TokenLabelling(Encoder(dim=16, depth=1, num_heads=2), {"sound": part}, partial(TokenClassifier, num_classes=2)).eval()
    items = collate([sound(0), sound(1)]).items["sound"]
    rows = model(items, "train")
    seen = model.modality.seen(items, model.modality.hiding)
    item, time = seen.tokens.item, seen.tokens.coordinates[:, 0]
    expected = []
    for number in range(2):
        own = item == number
        for step in range(int(time[own].max()) + 1):
            expected.append(bool(seen.hidden[own & (time == step)].all()))
    assert rows.hidden.tolist() == expected and 0 < sum(expected) < len(expected)
    if seen.kept is not None:
        encoded = model.encode({"sound": (seen.vectors, seen.item, seen.coordinates)}).tokens
        row = expected.index(False)  # the first of which something was seen
        own = seen.kept & (item == 0) & (time == row)
        assert 0 < own.sum() < 2 and row < int(rows.counts[0])
        torch.testing.assert_close(rows.logits[row], model.head(encoded[own[seen.kept]].mean(0, keepdim=True))[0])


def test_pieces_and_pictures_are_told_from_what_is_shown():
    samples = make_labelled_samples()
    plain, hiding = pieces(None), pieces(Hiding(RandomMasking(0.5), in_evaluation=True))
    own = collate(samples)
    torch.testing.assert_close(hiding(own)["label"], plain(own)["label"])  # as predictions are made
    losses = [model._terms(own, stage)["label", 0].loss.item() for model in (plain, hiding) for stage in ("train", "val")]
    assert losses[0] == pytest.approx(losses[1]) and losses[2] == pytest.approx(losses[3])
    assert losses[0] != pytest.approx(losses[2])
    shown = pieces(ALL_SHOWN)._terms(own, "val")["label", 0].loss
    assert shown.item() == pytest.approx(losses[0])


def test_the_encoder_gets_only_what_is_not_dropped():
    model, own = pieces(Hiding(RandomMasking(0.5), Drop())), collate(make_labelled_samples())
    counted = []
    model.encoder.register_forward_pre_hook(lambda _, arguments: counted.append(len(arguments[0])))
    model._terms(own, "train")
    model._terms(own, "val")
    expected = sum(
        (length + 1) // 2 if name == "pairs" else 8
        for name, items in own.items.items()
        for length in (items.lengths.tolist() if name == "pairs" else [0] * len(items))
    )
    assert abs(counted[0] - expected) <= len(own.items["pairs"]) and counted[1] == 16 * len(own.items["picture"]) + int(
        own.items["pairs"].lengths.sum()
    )


def test_what_an_item_hides_does_not_depend_on_the_batch():
    model = notes(Hiding(RandomMasking(0.4)))
    together, alone = batch().items["midi"], collate([sample(2, length=30)]).items["midi"]
    first = model.modality.seen(together, model.modality.hiding).hidden[-int(alone.lengths[0]) :]
    assert torch.equal(first, model.modality.seen(alone, model.modality.hiding).hidden)


def test_single_fields_may_be_hidden():
    model = notes(Hiding(FieldMasking(RandomMasking(0.5), fields=["pitch"]), MaskReplaceKeep(1.0, 0.0))).eval()
    items = collate([sample(1)]).items["midi"]
    seen = model.modality.seen(items, model.modality.hiding)
    assert 0.3 < seen.hidden.float().mean() < 0.6
    with pytest.raises(ValueError, match="a FieldMasking hides single fields, a Drop whole tokens: take MaskReplaceKeep"):
        notes(Hiding(FieldMasking(RandomMasking(0.5), fields=["pitch"]), Drop()))(items, "train")


def test_training_with_hidden_notes_learns(tmp_path):
    model = notes(Hiding(), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    train = torch.utils.data.DataLoader([collate([sample(i + j, train=True) for j in range(8)]) for i in range(0, 32, 8)], batch_size=None)
    val = torch.utils.data.DataLoader([collate([sample(i) for i in range(40, 44)])], batch_size=None)
    trainer = L.Trainer(max_epochs=8, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, train, val)
    assert trainer.callback_metrics["val/accuracy"] > 0.9 and trainer.callback_metrics["val/places"] == 80


def test_hidings_that_make_no_sense_are_refused():
    for masking in (MixedMasking(), AdversarialMasking()):
        with pytest.raises(ValueError, match=f"{type(masking).__name__} (mixes items|learns from what is predicted)"):
            Hiding(masking)
    with pytest.raises(ValueError, match="a HidePlaces hides the places of tokens, not the tokens"):
        Hiding(corruption=HidePlaces())
    part = partial(Input, transform=transform(), embed=partial(TextEmbed, vocab_size=5), hiding=Hiding())
    with pytest.raises(ValueError, match="modality 'text' has a hiding, which has no effect in WordLabelling: leave it out"):
        WordLabelling(
            Encoder(16, 1, 2),
            {"text": part},
            partial(TokenClassifier, num_classes=2),
        )
