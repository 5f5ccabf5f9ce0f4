"""The recipes of pretraining on music build as they stand, have the published parts, sizes and numbers, and learn."""

from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch

from multimodal.batch import Batch, Sample, collate
from multimodal.lightning_cli import Command, _command
from multimodal.masking import RandomMasking
from multimodal.objectives import MaskedPrediction, MaskerTraining
from multimodal.recorded import build
from multimodal.tokenizers.midi import write_notes
from multimodal.training import FusedAdamW, MaskedPretraining
from tests.test_layout import read_config

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI.s args parameter")

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("midibert_base", "adversarial_midibert_base", "music_infilling")
# name: weights of the published trunk; those of them that it stores and does not use: words, absolute positions, pooler, other layers
WEIGHTS = {
    "midibert_base": (111_100_160, 30522 * 768, 512 * 768, 769 * 768, 0),
    "adversarial_midibert_base": (118_595_840, 30522 * 768, 1024 * 768, 769 * 768, 2049 * 1024 + 1025 * 1024 + 1025 * 2048),
}


def command(name: str, folder: Path) -> Command:
    """Build the parts of a recipe, the encoder with fewer and narrower layers."""
    small = [f"--model.init_args.encoder.init_args.{key}" for key in ("dim=48", "depth=2", "num_heads=4")]
    own = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--run={folder}"]
    return _command(["--config", str(CONFIGS / "pretrain" / f"{name}.yaml"), *small, *own], run=False)


def pieces(model: MaskedPretraining, count: int, notes: int) -> Batch:
    """Scales up and down, read as files."""
    transform, samples = model.transforms["midi"], []
    for number in range(count):
        place = torch.arange(notes)
        pitch = 55 + number + torch.tensor([0, 2, 4, 5, 7, 5, 4, 2])[place % 8]
        table = torch.stack([place * 240, pitch, torch.full_like(place, 240), torch.full_like(place, 80)], 1)
        item = transform(transform.decode(write_notes(table)), torch.Generator().manual_seed(number), train=False)
        samples.append(Sample(str(number), {"midi": item}, seed=number))
    return collate(samples)


@pytest.mark.parametrize("name", WEIGHTS)
def test_encoder_and_embedding_have_the_published_weights(name):
    embed = read_config(CONFIGS / "pretrain" / f"{name}.yaml")["model"]["init_args"]["modalities"]["midi"]["init_args"]["embed"]
    settings = read_config(CONFIGS / "encoder" / f"{name}.yaml")
    with torch.device("meta"):
        encoder = build({"class_path": "multimodal.nn.Encoder", "init_args": settings | {"block": {"class_path": settings["block"]}}})
        total = sum(x.numel() for part in (encoder, build(embed, 768)) for x in part.parameters())
    all_of_them, *unused = WEIGHTS[name]
    assert total == all_of_them - sum(unused)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_and_learns(tmp_path, name):
    torch.manual_seed(0)
    model = command(name, tmp_path).model
    model.make_optimizer = partial(FusedAdamW, lr=5e-3)
    model.make_schedule = lambda made, _: torch.optim.lr_scheduler.ConstantLR(made, 1.0)
    given, losses = pieces(model, 4, 40), []
    model.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=12, num_sanity_val_steps=0, **quiet)
    loader = torch.utils.data.DataLoader([given], batch_size=None)
    trainer.fit(model, loader, loader)
    assert losses[-1] < 0.8 * losses[0] and all(x.isfinite().all() for x in model.parameters())


def test_midibert_hides_77_of_512_notes_with_the_published_weights_of_fields(tmp_path):
    model = command("midibert_base", tmp_path).model
    part = model.modalities["midi"]
    view = part.masked_view(pieces(model, 2, 600).items["midi"])
    assert view.tokens.lengths.tolist() == [512, 512] and view.masked.view(2, 512).sum(1).tolist() == [77, 77]
    torch.testing.assert_close(part.head.field_weights, torch.tensor([4.0, 18, 88, 66]) / 176)
    assert isinstance(part.masking, RandomMasking) and (part.corruption.mask, part.corruption.replace) == (0.8, 0.1)


def test_adversarial_midibert_has_a_masker_and_weighs_eight_fields(tmp_path):
    model = command("adversarial_midibert_base", tmp_path).model
    part = model.modalities["midi"]
    assert part.field_names == ("bar", "position", "instrument", "pitch", "duration", "velocity", "time_signature", "tempo")
    assert part.embed.mask_ids.tolist() == list(part.tokenizer.mask_ids) and part.embed.vocab_sizes == part.tokenizer.vocab_sizes
    assert [type(goal) for goal in model.objectives] == [MaskedPrediction, MaskerTraining]
    assert model.objectives[0].everywhere == 0.15 and torch.equal(model.objectives[0].field_weights_midi, torch.full((8,), 1 / 8))
    terms = model.train()._terms(pieces(model, 2, 200), "train")
    counts = {name: int(term.count) for (name, _), term in terms.items()}
    assert counts["midi_everywhere"] == 400 and 2 * 20 <= counts["midi"] == counts["midi_masker"] <= 2 * 30


def test_infilling_hides_bars_tracks_spans_and_fields(tmp_path):
    model = command("music_infilling", tmp_path).model
    view = model.modalities["midi"].masked_view(pieces(model, 60, 64).items["midi"])
    asked, number = view.asked.view(60, 64, 5), view.tokens.groups()["bar"].view(60, 64)
    counts = asked.sum(2)
    bars = [bool(((own == 5) | (own == 0)).all()) and len(bars[own == 5].unique()) == 2 for own, bars in zip(counts, number, strict=True)]
    track = (asked[:, :, [2, 3]].all(2) == asked.any(2)).all(1) & (counts.amax(1) == 2) & (counts.sum(1) == 128)
    one_field = (counts.amax(1) == 1) & (counts.sum(1) == 32)
    assert sum(bars) > 10 and track.sum() > 3 and one_field.sum() > 3  # 2 of 8 bars; the only track; one field of 4 bars
