"""Transcription: the loss of CTC by hand, exact means, transcripts missing or too long, error rates, and words learned by heart."""

import json
import math
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.cli import main
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.heads import CtcHead
from multimodal.lightning_cli import _command
from multimodal.modality import Input, Modality
from multimodal.nn import Encoder, LayerNorm
from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.settings import part
from multimodal.tokenizers.audio import AudioTransform, LogMel, SpectrogramEmbed, Spectrograms
from multimodal.tokenizers.text import ByteTokenizer, CharacterTokenizer, TextTransform
from multimodal.training import FineTuning, Transcription
from multimodal.training.callbacks import PredictionWriter
from multimodal.training.optimization import parameter_groups
from multimodal.training.transcription_scores import TranscriptionScores, edit_distance
from tests.tokenizers.zoo import sound
from tests.training.conftest import PairTransform

ROOT = Path(__file__).resolve().parents[2]
ALPHABET = "abcdefgh "
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
RATE = 8000
PITCH = {letter: 300.0 * 1.3**number for number, letter in enumerate(ALPHABET[:-1])}


def spoken(text: str, seed: int = 0) -> torch.Tensor:
    """Return a tone of 0.1 s for each letter, with a gap after it, and silence for a space."""
    time = torch.arange(int(0.1 * RATE)) / RATE
    noise = torch.Generator().manual_seed(seed)
    parts = []
    for letter in text:
        tone = 0.3 * torch.sin(2 * math.pi * PITCH[letter] * time) if letter in PITCH else torch.zeros(len(time))
        parts += [tone, torch.zeros(int(0.04 * RATE))]
    samples = torch.cat(parts)
    return samples + 1e-3 * torch.randn(len(samples), generator=noise)


def sample(number: int, text: str | None, heard: bool = True, tokenizer: CharacterTokenizer | None = None) -> Sample:
    items = {"sounds": Item(spoken(text or "abc", number), ragged=True)} if heard else {}
    if text is not None:
        items["transcript"] = Item((tokenizer or CharacterTokenizer(ALPHABET)).encode_text(text), ragged=True)
    return Sample(f"sample{number}", items, seed=number)


def build(encoder: dict | None = None, patch=(4, 64), **settings) -> Transcription:
    torch.manual_seed(0)
    embed = partial(SpectrogramEmbed, patch_size=patch, **settings.pop("embed", {}))
    features = Spectrograms(LogMel(sample_rate_hz=RATE, num_bins=64), min_frames=1)
    sounds = partial(Input, transform=AudioTransform(RATE, seconds=None), embed=embed, preparation=[features])
    settings = {"transcript": TextTransform(CharacterTokenizer(ALPHABET))} | settings
    return Transcription(Encoder(**({"dim": 32, "depth": 2, "num_heads": 2} | (encoder or {}))), {"sounds": sounds}, **settings)


def batch_of(model: Transcription, samples: list[Sample], train: bool = False):
    return model.prepared(collate(samples), train=train)


def step(model: Transcription, samples: list[Sample]) -> torch.Tensor:
    model.log = lambda *args, **kwargs: None
    return model.training_step(batch_of(model, samples), 0)


def fit(model, loader, **settings):
    L.Trainer(accelerator="cpu", max_epochs=1, **QUIET, **settings).fit(model, loader)
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point() and "scores" not in name}


TEXTS = ["abc", "ddaf h", "b", "gfe aab"]


def test_the_loss_is_torchs_ctc_of_each_transcript_alone():
    model = build().eval()
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    expected = torch.zeros(())
    for own in samples:
        batch = batch_of(model, [own])
        tokens, sequence, coordinates = model.modality.plain_tokens(batch.items["sounds"])
        logits = model.head(model.encoder(tokens, sequence, coordinates).tokens)
        ids = own.items["transcript"].values
        expected += F.ctc_loss(logits.log_softmax(-1), ids, (len(logits),), (len(ids),), blank=len(ALPHABET), reduction="sum")
    torch.testing.assert_close(step(model, samples), expected)
    assert float(model._predictions[-1]) == sum(map(len, TEXTS))


def test_what_is_heard_of_a_sample_does_not_depend_on_the_batch():
    model = build({"class_token": True}, patch=(8, 16)).eval()
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    whole = model(batch_of(model, samples))
    for number, own in enumerate(samples):
        alone = model(batch_of(model, [own]))
        length = int(alone.lengths[0])
        assert length == whole.lengths[number]
        torch.testing.assert_close(alone.log_probabilities[0], whole.log_probabilities[number, :length], atol=1e-5, rtol=1e-5)


def test_bands_of_a_step_are_averaged_whatever_their_order():
    time_first = build(patch=(8, 16), embed={"position": None}).eval()
    band_first = build(patch=(8, 16), embed={"position": None, "frequency_first": True}, time_axis=1).eval()
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    a, b = (model(batch_of(model, samples)) for model in (time_first, band_first))
    assert a.lengths.tolist() == [LogMel(RATE, 64).num_frames(len(spoken(text))) // 8 for text in TEXTS]
    torch.testing.assert_close(a.log_probabilities, b.log_probabilities, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="time_axis is 2, but the tokens' coordinates have 2 axes"):
        build(time_axis=2)(batch_of(time_first, samples))


@pytest.mark.parametrize("missing", ["transcript", "sounds"])
def test_a_sample_that_lacks_one_of_the_two_changes_nothing(missing):
    model = build()
    labelled = [sample(number, text) for number, text in enumerate(TEXTS)]
    step(model, labelled).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    other = sample(9, None) if missing == "transcript" else sample(9, "hh", heard=False)
    step(model, [labelled[0], other, *labelled[1:]]).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-5, rtol=1e-4)
    assert float(model._predictions[-1]) == sum(map(len, TEXTS))
    model._evaluate(batch_of(model, [labelled[0], other, *labelled[1:]]), "val")
    counts = dict(zip(model._metric("val").STATES, model._metric("val").counts.tolist(), strict=True))
    assert (counts["transcripts"], counts["left_out"]) == (len(TEXTS), 0)


@pytest.mark.parametrize(
    "samples", [[sample(0, "ab")], [sample(0, None)], [sample(0, "ab", heard=False)], []], ids=["both", "heard", "written", "none"]
)
def test_every_parameter_has_a_gradient(samples):
    model = build({"class_token": True})
    loss = step(model, samples)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (loss > 0) == bool(len(samples) == 1 and len(samples[0].items) == 2)


def test_accumulated_batches_equal_one_large_batch(loader):
    settings = {
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    }
    samples = [sample(number, text) for number, text in enumerate(TEXTS)] + [sample(8, None)]
    whole = fit(build(**settings), loader([samples]))
    parts = fit(build(**settings), loader([samples[:1], samples[1:2], samples[2:]]), accumulate_grad_batches=3)
    start = build().state_dict()
    assert any(not torch.equal(whole[name], start[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=1e-6, rtol=1e-4)


def too_long() -> Sample:
    """A sound of 10 steps with 8 ids, of which 7 are alike: these need 6 blanks."""
    ids = CharacterTokenizer(ALPHABET).encode_text("aaaaaaab")
    return Sample("long", {"sounds": Item(spoken("abc"), ragged=True), "transcript": Item(ids, ragged=True)}, seed=1)


def test_a_transcript_with_too_many_ids_is_named_once_counted_and_left_out(loader):
    model, fine = build(), [sample(number, text) for number, text in enumerate(TEXTS)]
    expected = step(model, fine)
    with pytest.warns(UserWarning, match=r"transcript of sample 'long' has 8 ids, and needs 14 steps .* but there are 10: it is left out"):
        loss = step(model, [fine[0], too_long(), *fine[1:]])
    torch.testing.assert_close(loss, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = step(model, [too_long()])
    assert loss == 0 and float(model._predictions[-1]) == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = L.Trainer(accelerator="cpu", **QUIET).validate(build(), loader([[*fine, too_long()], [too_long()]]), verbose=False)[0]
    assert scores["val/left_out"] == 2 and scores["val/transcripts"] == 6 and math.isfinite(scores["val/loss"])


def test_error_rates_count_transcripts_that_are_too_long():
    model = build()
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    with pytest.warns(UserWarning, match="left out of the loss"):
        model._evaluate(batch_of(model, [*samples, too_long()]), "val")
    metric = model._metric("val")
    counts = dict(zip(metric.STATES, metric.counts.tolist(), strict=True))
    assert counts["characters"] == sum(map(len, TEXTS)) + len("aaaaaaab") and counts["words"] == len(" ".join(TEXTS).split()) + 1
    assert counts["ids"] == sum(map(len, TEXTS)) and counts["left_out"] == 1


def test_as_many_steps_as_ids_and_blanks_are_enough():
    ids = CharacterTokenizer(ALPHABET).encode_text("abcdefghab")  # 10 ids in 10 steps
    just = Sample("just", {"sounds": Item(spoken("abc"), ragged=True), "transcript": Item(ids, ragged=True)}, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = step(build(), [just])
    assert 0 < loss.item() < 1000


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edits_are_levenshteins(guess, truth):
    table = {(0, j): j for j in range(len(truth) + 1)} | {(i, 0): i for i in range(len(guess) + 1)}
    for i in range(1, len(guess) + 1):
        for j in range(1, len(truth) + 1):
            same = table[i - 1, j - 1] + (guess[i - 1] != truth[j - 1])
            table[i, j] = min(same, table[i - 1, j] + 1, table[i, j - 1] + 1)
    assert edit_distance(guess, truth) == table[len(guess), len(truth)]


def test_error_rates_are_sums_of_edits_over_sums_of_lengths():
    metric = TranscriptionScores()
    assert metric.compute() == {}
    for guesses, truths in ((["kitten", ""], ["sitting", "two words"]), (["the cat sat"], ["the cat sat down here"])):
        metric.update_texts(guesses, truths)  # 3 edits of 7, 9 of 9; 10 of 21, and 1 word of 1, 2 of 2, 2 of 5
        metric.update(torch.tensor(4.0), torch.tensor(5), len(truths), left_out=0)
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores["character_error_rate"] == pytest.approx((3 + 9 + 10) / (7 + 9 + 21))
    assert scores["word_error_rate"] == pytest.approx((1 + 2 + 2) / (1 + 2 + 5))
    assert scores["loss"] == pytest.approx(8 / 10) and scores["transcripts"] == 3 and scores["left_out"] == 0


@pytest.fixture(scope="module")
def learned() -> tuple[Transcription, list[Sample]]:
    """A model that has seen a few words of tones often."""
    samples = [sample(number, text) for number, text in enumerate(["abba", "cafe", "deaf head", "face", "gag", "had a bee"])]
    model = build(optimizer=partial(torch.optim.AdamW, lr=8e-3))
    loader = torch.utils.data.DataLoader([collate(samples)] * 150, batch_size=None)
    fit(model, loader)
    return model, samples


@pytest.mark.parametrize("beam_size", [1, 5])
def test_words_are_learned_by_heart(learned, loader, beam_size):
    model, samples = learned
    model.beam_size = beam_size
    scores = L.Trainer(accelerator="cpu", **QUIET).validate(model, loader([samples[:2], samples[2:]]), verbose=False)[0]
    assert scores["val/character_error_rate"] == 0 and scores["val/word_error_rate"] == 0 and scores["val/loss"] < 0.2
    unseen = [sample(20, "bad cafe")]
    assert L.Trainer(accelerator="cpu", **QUIET).test(model, loader([unseen]), verbose=False)[0]["test/character_error_rate"] < 0.6


def test_transcripts_are_written_as_lines_of_json(learned, loader, tmp_path):
    model, samples = learned
    unlabelled = [replace(own, items={"sounds": own.items["sounds"]}) for own in samples]
    silent = Sample("silent", {"transcript": samples[0].items["transcript"]})
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.predict(model, loader([[*unlabelled[:4], silent], [], [silent], unlabelled[4:]]), return_predictions=False)
    lines = [json.loads(line) for line in (tmp_path / "predictions/transcript.jsonl").read_text().splitlines()]
    tokenizer = model.tokenizer
    assert lines == [{"key": own.key, "transcript": tokenizer.decode(own.items["transcript"].values)} for own in samples]


@pytest.fixture
def shards(tmp_path):
    """Write tones with and without transcripts; return the folder of the shards."""
    for number, text in enumerate(["abba", "cafe", "face", "gag", "bad"]):
        file = tmp_path / f"files/train/word{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".wav").write_bytes(sound("WAV", "FLOAT", RATE, samples=spoken(text).numpy()))
        if number < 3:
            file.with_suffix(".txt").write_text(text.upper() + "!\n")
    folder = tmp_path / "shards"
    assert main(["shards", "write", str(tmp_path / "files"), "--to", str(folder), "--split", "folders", "--workers", "0"]) == 0
    return folder


def test_a_data_module_reads_sounds_and_transcripts(shards):
    model = build()
    data = ShardDataModule(str(shards), model.transforms, 5, val_split=None, max_tokens=100, count_tokens=model.token_counter)
    counted = torch.cat([model.token_counter(batch) for batch in data.evaluation_dataloader("train")])
    assert sorted(counted.tolist()) == sorted(
        (LogMel(RATE, 64).num_frames(len(spoken(x))) // 4) for x in ("abba", "cafe", "face", "gag", "bad")
    )
    (batch,) = data.evaluation_dataloader("train")
    texts = [model.tokenizer.decode(ids) for ids in batch.items["transcript"].values.split(batch.items["transcript"].lengths.tolist())]
    written = dict(zip([batch.keys[number] for number in batch.items["transcript"].sample.tolist()], texts, strict=True))
    assert sorted(written.values()) == ["abba", "cafe", "face"] and len(batch.items["sounds"]) == 5
    L.Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(model, datamodule=data)


def test_sounds_without_any_transcript_can_be_transcribed_but_not_learned_from(shards, tmp_path):
    for file in (tmp_path / "files/train").glob("*.txt"):
        file.unlink()
    folder = tmp_path / "unlabelled"
    assert main(["shards", "write", str(tmp_path / "files"), "--to", str(folder), "--split", "folders", "--workers", "0"]) == 0
    model = build()
    data = ShardDataModule(str(folder), model.transforms, 5, val_split=None, test_split="train")
    with pytest.raises(ValueError, match="modality 'transcript' reads the fields txt"):
        L.Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(model, datamodule=data)
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.predict(model, datamodule=data, return_predictions=False)
    assert len((tmp_path / "predictions/transcript.jsonl").read_text().splitlines()) == 5


def test_an_epoch_without_transcripts_is_refused(loader):
    with pytest.raises(ValueError, match="no sample of the epoch has a transcript: do the shards of the training split hold a field txt"):
        fit(build(), loader([[sample(0, None)], [sample(1, None)]]))


def test_frozen_layers_keep_their_weights(loader):
    start = build().state_dict()
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    for layers, free in ((1, {"encoder.blocks.1", "encoder.norm", "head.proj"}), ("all", {"head.proj"})):
        trained = fit(build(freeze_layers=layers), loader([samples] * 2))
        moved = {
            ".".join(name.split(".")[: 3 if "blocks" in name else 2]) for name in trained if not torch.equal(trained[name], start[name])
        }
        assert moved == free
    with pytest.raises(ValueError, match="freeze_layers must be 'all' or 0 to the encoder's depth, 2; got 3"):
        build(freeze_layers=3)


def test_the_head_learns_fastest_with_layer_decay():
    model = build(layer_decay=0.5)
    rate = {id(p): group["lr_scale"] for group in parameter_groups(model, 0.5, 2) for p in group["params"]}
    assert rate[id(model.head.proj.weight)] == 1 and rate[id(model.encoder.blocks[0].attn.qkv.weight)] == 0.25
    assert rate[id(model.modality.embed.proj.weight)] == 0.125


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"length_bonus": 0.5}, "length_bonus has no effect with beam_size 1"),
        ({"time_axis": -1}, "time_axis must be at least 0, got -1"),
        ({"transcript": PairTransform()}, "transcript, a PairTransform, has no tokenizer of one id each that decodes"),
        ({"transcript": AudioTransform()}, "transcript, a AudioTransform, has no tokenizer"),
        ({"head": CtcHead(32, 5)}, "the head's num_ids is 5, the tokenizer of the transcripts has 9 ids"),
        ({"freeze_layers": "all", "layer_decay": 0.5}, "layer_decay has no effect where freeze_layers is 'all'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_one_modality_that_is_heard_is_wanted(make_model, make_classifier):
    transcript = TextTransform(ByteTokenizer())
    encoder = Encoder(dim=16, depth=1, num_heads=2)
    two = make_classifier().modalities
    with pytest.raises(ValueError, match="modalities must be one, of another name than 'transcript'; got picture, pairs"):
        Transcription(encoder, {name: lambda dim, part=part: part for name, part in two.items()}, transcript)
    with pytest.raises(ValueError, match="modalities must be one, of another name"):
        Transcription(encoder, {"transcript": lambda dim: two["picture"]}, transcript)
    assert isinstance(make_classifier(), FineTuning) and isinstance(make_model().modalities["picture"], Modality)
    with pytest.raises(ValueError, match="modality 'picture' is one of pretraining"):
        Transcription(encoder, {"picture": lambda dim: make_model().modalities["picture"]}, transcript)


def test_a_checkpoint_of_another_alphabet_is_refused(loader, tmp_path):
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, **(QUIET | {"enable_checkpointing": True}), default_root_dir=tmp_path)
    trainer.fit(build(), loader([samples]))
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    turned = build(transcript=TextTransform(CharacterTokenizer(ALPHABET[::-1])))
    with pytest.raises(ValueError, match="trained with another tokenizer for 'transcript'"):
        L.Trainer(accelerator="cpu", max_epochs=2, **QUIET).fit(turned, loader([samples]), ckpt_path=path, weights_only=False)


@pytest.mark.filterwarnings("ignore:LightningCLI.s args parameter")
def test_the_recipe_builds_from_a_pretrained_model(tmp_path):
    encoder = part("multimodal.nn.Encoder", dim=16, depth=2, num_heads=2, norm=part("multimodal.nn.LayerNorm", eps=1e-6))
    embed = part("multimodal.tokenizers.audio.SpectrogramEmbed", patch_size=[4, 128], position=None)
    PretrainedModel(ModelSettings(encoder, {"audio": embed})).save_pretrained(tmp_path / "model")
    loaded = [
        f"--model.init_args.{place}.init_args.folder={tmp_path / 'model'}" for place in ("encoder", "modalities.audio.init_args.embed")
    ]
    config = ROOT / "configs/finetune/speech_ctc.yaml"
    command = _command(["--config", str(config), *loaded, "--trainer.accelerator=cpu", f"--run={tmp_path / 'run'}"], run=False)
    model, data = command.model, command.datamodule
    assert isinstance(model.head.norm, LayerNorm) and model.head.num_ids == 28 and model.layer_decay == 0.8
    assert set(data.transforms) == {"audio", "transcript"} and data.transforms["audio"].seconds is None
    item = Item(torch.randn(16_000), ragged=True)
    batch = model.prepared(collate([Sample("a", {"audio": item}, seed=3)]), train=True)
    assert model(batch).lengths.tolist() == [24]  # 98 frames, of which 4 make a step
