"""Captioning: the loss by hand, exact means, captions that are missing or too long, and captions learned by heart."""

import json
from functools import partial

import lightning as L
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from multimodal.batch import Item, Sample, collate
from multimodal.heads import CaptionDecoder
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.pretrained.vectors import VectorEmbed
from multimodal.tokenizers.clips_and_text import FeatureArrayTransform
from multimodal.tokenizers.text import CharacterTokenizer, TextTransform
from multimodal.training import Captioning
from multimodal.training.callbacks import PredictionWriter

LETTERS = "abcdef "
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
TEXTS = ["abc", "fed cab", "b", "dd"]


def sample(number: int, text: str | None, seen: bool = True) -> Sample:
    generator = torch.Generator().manual_seed(number)
    items = {"film": Item(torch.randn(2 + number % 3, 6, generator=generator), ragged=True)} if seen else {}
    if text is not None:
        items["caption"] = Item(CharacterTokenizer(LETTERS).encode_text(text), ragged=True)
    return Sample(f"sample{number}", items, seed=number)


def loader(samples: list[Sample]) -> DataLoader:
    return DataLoader(samples, batch_size=len(samples), collate_fn=collate)


def build(**settings) -> Captioning:
    torch.manual_seed(0)
    film = partial(Input, transform=FeatureArrayTransform(6), embed=partial(VectorEmbed, in_dim=6))
    decoder = partial(CaptionDecoder, width=32, num_heads=2, dropout=0.0, max_ids=8)
    settings = {"caption": TextTransform(CharacterTokenizer(LETTERS)), "decoder": decoder} | settings
    return Captioning(Encoder(dim=16, depth=1, num_heads=2), {"film": film}, **settings)


def step(model: Captioning, samples: list[Sample]) -> torch.Tensor:
    model.log = lambda *args, **kwargs: None
    return model.training_step(model.prepared(collate(samples), train=False), 0)


def test_the_loss_is_that_of_each_caption_alone():
    model = build().eval()
    samples = [sample(number, text) for number, text in enumerate(TEXTS)]
    expected = torch.zeros(())
    for own in samples:
        tokens, sequence, coordinates = model.modality.plain_tokens(collate([own]).items["film"])
        memory = model.decoder.read(model.encoder(tokens, sequence, coordinates).tokens[None])
        ids = own.items["caption"].values
        given = torch.cat([torch.tensor([model.decoder.begin_id]), ids])[None]
        logits = model.decoder(given, memory, torch.ones(memory.shape[:2], dtype=torch.bool))[0]
        truth = torch.cat([ids, torch.tensor([model.decoder.end_id])])
        expected = expected + F.cross_entropy(logits, truth, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(step(model, samples), expected)
    assert float(model._predictions[-1]) == sum(len(text) + 1 for text in TEXTS)


def test_samples_without_a_caption_or_a_film_count_for_nothing():
    model = build().eval()
    whole = step(model, [sample(0, "abc"), sample(1, "de")])
    mixed = step(model, [sample(5, None), sample(0, "abc"), sample(6, "aa", seen=False), sample(1, "de")])
    torch.testing.assert_close(whole, mixed)
    assert float(step(model, [sample(5, None)])) == 0 and float(step(model, [sample(6, "aa", seen=False)])) == 0
    step(model, [sample(5, None)]).backward()
    assert all(parameter.grad is not None for parameter in model.parameters()), "every rank must have a gradient for each"


def test_marks_of_a_tokenizer_are_no_part_of_a_caption():
    tokenizer = CharacterTokenizer(LETTERS)
    tokenizer.start_ids, tokenizer.end_ids = (5,), (6,)
    model = build(caption=TextTransform(tokenizer)).eval()
    marked = Sample("0", {**sample(0, None).items, "caption": Item(torch.tensor([5, 0, 1, 6]), ragged=True)})
    torch.testing.assert_close(step(model, [marked]), step(build().eval(), [sample(0, "ab")]))


def test_a_caption_that_is_too_long_is_named():
    with pytest.raises(ValueError, match="the caption of sample 'sample1' has 9 ids, max_ids of the decoder is 8"):
        step(build(), [sample(0, "a"), sample(1, "abcabcabc")])


def test_captions_are_learned_by_heart_scored_and_written(tmp_path):
    model = build(label_smoothing=0.1, beam_size=3, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3))
    data = loader([sample(number, text) for number, text in enumerate(TEXTS)])
    trainer = L.Trainer(accelerator="cpu", max_epochs=120, default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.fit(model, data)
    scores = trainer.test(model, data, verbose=False)[0]
    assert scores["test/rouge_l"] == pytest.approx(1.0) and scores["test/cider"] > 2 and scores["test/captions"] == 4
    trainer.predict(model, loader([sample(number, None) for number in range(4)]))
    lines = [json.loads(line) for line in (tmp_path / "predictions" / "captions.jsonl").read_text().splitlines()]
    assert lines == [{"key": f"sample{number}", "captions": text} for number, text in enumerate(TEXTS)]


def test_a_frozen_encoder_stays_as_it_is():
    model = build(freeze_layers="all").train()
    step(model, [sample(0, "abc")]).backward()
    assert all(parameter.grad is None for parameter in [*model.encoder.parameters(), *model.modalities.parameters()])
    assert not model.encoder.training and model.decoder.training


def test_an_epoch_without_captions_is_refused():
    with pytest.raises(ValueError, match=r"no sample of the epoch has a caption: .* hold a field txt\?"):
        L.Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(build(), loader([sample(0, None)]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"beam_size": 0}, "beam_size must be at least 1"),
        ({"caption": FeatureArrayTransform(6)}, "has no tokenizer of one id each"),
        ({"decoder": CaptionDecoder(16, 3)}, "num_ids is 3, the tokenizer of the captions has 7 ids"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        build(**settings)
