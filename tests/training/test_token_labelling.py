"""Labels of tokens: rows and places by hand, exact means over places, files of predictions, and tones that are told from noise."""

from dataclasses import replace
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.batch import Sample, collate
from multimodal.heads import TokenClassifier
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.audio import (
    AudioTransform,
    FrameLabelTransform,
    LogMel,
    SegmentReader,
    SpectrogramEmbed,
    SpectrogramTransform,
)
from multimodal.tokenizers.audio.transform import Waveform
from multimodal.training import TokenLabelling
from multimodal.training.token_labelling import row_of_places

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
CLASSES = ("noise", "tone")


def transform(frames: int | None = None) -> FrameLabelTransform:
    spectrogram = SpectrogramTransform(AudioTransform(seconds=1.0), LogMel(num_bins=32), frames=frames)
    return FrameLabelTransform(SegmentReader(CLASSES), spectrogram, background="noise")


def sound(number: int, labelled: bool = True, frames: int | None = None) -> Sample:
    """Noise with a tone in the middle of it."""
    generator, own = torch.Generator().manual_seed(number), transform(frames)
    samples = 0.05 * torch.randn(9600 + 800 * (number % 4), generator=generator)
    start = 2000 + 400 * (number % 5)
    samples[start : start + 4000] += 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 16_000)
    segments = own.decode_labels(f"{start / 16_000}\t{(start + 4000) / 16_000}\ttone".encode()) if labelled else None
    return Sample(f"s{number}", {"sound": own.labelled(Waveform(samples, 16_000), segments, generator, train=False)}, seed=number)


def build(patch=(8, 16), frequency_first=False, frames=None, head=None, preparation=(), **settings) -> TokenLabelling:
    torch.manual_seed(0)
    embed = partial(SpectrogramEmbed, patch_size=list(patch), frequency_first=frequency_first)
    part = partial(Input, transform=transform(frames), embed=embed, preparation=preparation)
    return TokenLabelling(
        Encoder(dim=16, depth=1, num_heads=2), {"sound": part}, head or partial(TokenClassifier, num_classes=2), **settings
    )


def loader(batches):
    return torch.utils.data.DataLoader([collate(samples) for samples in batches], batch_size=None)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 20)), min_size=1, max_size=5))
def test_places_get_the_row_that_covers_their_share(sizes):
    rows, places = (torch.tensor(column) for column in zip(*sizes, strict=True))
    expected, before = [], 0
    for count, length in sizes:
        expected += [before + place * count // length for place in range(length)]
        before += count
    assert row_of_places(rows, places).tolist() == expected


@pytest.mark.parametrize("frequency_first", [False, True])
def test_the_bands_of_a_row_are_averaged(frequency_first):
    model = build(frequency_first=frequency_first, time_axis=int(frequency_first)).eval()
    items = collate([sound(0), sound(1)]).items["sound"]
    rows = model(items)
    tokens, sample, coordinates = model.modality.plain_tokens(items)
    encoded = model.encode({"sound": (tokens, sample, coordinates)}).tokens
    expected = []
    for number in range(2):
        own, time = encoded[sample == number], coordinates[sample == number, int(frequency_first)]
        assert int(time.max()) + 1 == rows.counts[number] == items.lengths[number] // 8
        expected += [own[time == row].mean(0) for row in range(int(time.max()) + 1)]
    torch.testing.assert_close(rows.logits, model.head(torch.stack(expected)))


@pytest.mark.parametrize("frames", [None, 64])
def test_the_loss_is_the_sum_over_labelled_places(frames):
    model = build(frames=frames).eval()
    batch = collate([sound(0, frames=frames), sound(1, labelled=False, frames=frames), sound(2, frames=frames)])
    items = batch.items["sound"]
    term = model._terms(batch, "val")["sound", 0]
    rows = model(items)
    labels = items.labels.split(items.lengths.tolist()) if frames is None else list(items.labels)
    expected, count, first = 0.0, 0, 0
    for own, total in zip(labels, rows.counts.tolist(), strict=True):
        for place, label in enumerate(own.tolist()):
            if label >= 0:
                logits = rows.logits[first + place * total // len(own)]
                expected, count = expected - logits.log_softmax(0)[label], count + 1
        first += total
    torch.testing.assert_close(term.loss, expected, atol=1e-3, rtol=1e-5)
    assert term.count == count > 0


def test_logits_of_a_sound_do_not_depend_on_the_batch():
    model, samples = build().eval(), [sound(number) for number in range(4)]
    whole = model(collate(samples).items["sound"])
    for number, own in enumerate(whole.logits.split(whole.counts.tolist())):
        torch.testing.assert_close(model(collate([samples[number]]).items["sound"]).logits, own, atol=1e-5, rtol=1e-4)


def test_accumulated_batches_equal_one_large_batch():
    settings = {
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "schedule": lambda o, _: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
    }
    samples = [sound(number, labelled=number != 2) for number in range(6)]
    found = []
    for batches, accumulated in (([samples], 1), ([samples[:1], samples[1:3], samples[3:]], 3)):
        model = build(**settings)
        L.Trainer(max_epochs=1, accumulate_grad_batches=accumulated, **QUIET).fit(model, loader(batches))
        found.append({name: value.clone() for name, value in model.state_dict().items() if "scores" not in name})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("samples", [[], [sound(1, labelled=False)], [sound(1)]])
def test_every_parameter_has_a_gradient(samples):
    model = build()
    model.log = lambda *args, **kwargs: None
    loss = model.training_step(collate(samples), 0)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (loss > 0) == (bool(samples) and bool((samples[0].items["sound"].labels >= 0).any()))


def test_tones_are_learned_and_written(tmp_path):
    model = build(patch=(4, 32), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    test = [replace(sound(40), key="../x/a.b"), *map(sound, range(41, 47))]
    trainer = L.Trainer(max_epochs=6, default_root_dir=tmp_path / "run", **QUIET)
    trainer.fit(model, loader([list(map(sound, range(i, i + 8))) for i in range(0, 32, 8)]), loader([test[:3], test[3:]]))
    scores = {name: value.item() for name, value in trainer.callback_metrics.items()}
    total = sum(len(sample.items["sound"].values) for sample in test)
    assert scores["val/macro_f1"] > 0.9 and scores["val/accuracy"] > 0.9 and scores["val/places"] == total
    trainer.predict(model, loader([test[:3], [], test[3:]]), return_predictions=False)
    folder = tmp_path / "run/predictions/sound"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))
    assert files[:-1] == [f"s{number}.npy" for number in range(41, 47)] and files[-1].startswith("x/a_b-")
    assert not [path for path in tmp_path.rglob("*.npy") if folder not in path.parents]
    found = np.load(folder / "s41.npy", allow_pickle=False)
    assert found.dtype == np.int16 and (found == test[1].items["sound"].labels.numpy()).mean() > 0.9


def test_an_encoder_that_is_frozen_stays_as_it_is():
    start = build().state_dict()
    model = build(freeze_layers="all", optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    L.Trainer(max_epochs=1, **QUIET).fit(model, loader([[sound(0), sound(1)]]))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"head.proj.weight", "head.proj.bias"} and not model.encoder.training


def test_a_preparation_that_changes_the_number_of_places_is_refused():
    model = build(preparation=[])
    items = collate([sound(0)]).items["sound"]
    with pytest.raises(ValueError, match="there must be one for each place along an item"):
        model._labels(replace(items, labels=items.labels[:-1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_axis": -1}, "time_axis must be at least 0, got -1"),
        ({"freeze_layers": 3}, "freeze_layers must be 'all' or 0 to the encoder's depth, 1; got 3"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_a_time_axis_that_tokens_do_not_have_is_refused():
    with pytest.raises(ValueError, match="time_axis is 2, but the tokens' coordinates have 2 axes"):
        build(time_axis=2)(collate([sound(0)]).items["sound"])


def test_a_transform_without_labels_is_refused():
    part = partial(Input, transform=SpectrogramTransform(), embed=SpectrogramEmbed)
    with pytest.raises(ValueError, match=r"a SpectrogramTransform, reads no label files: use one that does, such as .*FrameLabelTransform"):
        TokenLabelling(Encoder(dim=16, depth=1, num_heads=2), {"sound": part}, partial(TokenClassifier, num_classes=2))


def test_a_class_without_a_place_names_its_sample():
    model = build(head=partial(TokenClassifier, num_classes=1))
    with pytest.raises(ValueError, match="the label file of sample 's1' has class 1, but the head's num_classes is 1: allowed are 0 to 0"):
        model.on_before_batch_transfer(collate([sound(2, labelled=False), sound(1)]), 0)


def test_an_epoch_without_labels_stops():
    message = "no place of the epoch has a label: do the shards of the training split hold label files in a field segments.tsv"
    with pytest.raises(ValueError, match=message):
        L.Trainer(max_epochs=1, **QUIET).fit(build(), loader([[sound(0, labelled=False)]]))
