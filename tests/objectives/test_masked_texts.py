"""Texts whole: BERT's loss as transformers computes it, the same alone and in any batch, and hidden tokens that the encoder never gets."""

from functools import partial

import pytest
import torch
import transformers
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.masking import Drop, GeometricSpanMasking, MaskReplaceKeep, RandomMasking, WholeWordMasking
from multimodal.modality import Modality
from multimodal.nn import Alibi, Decoder, Encoder, GeGlu, LayerNorm, PredictionHead, RotaryPosition, SinCosPosition
from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.tokenizers.text import ByteTokenizer, TextEmbed, TextTransform
from multimodal.training import MaskedPretraining
from tests.pretrained.text_parity import randomized

MASK, SPACE, VOCAB = 2, 35, 259


class Marked(ByteTokenizer):
    """Bytes between marks."""

    start_ids, end_ids = (1,), (0,)


def samples(*lengths: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(30, 110, (length,), generator=generator) for length in lengths]
    texts = [torch.where(x % 4 == 0, SPACE, x) for x in texts]
    return [Sample(str(i), {"text": Item(Marked().mark(x), ragged=True)}, seed=70 + i) for i, x in enumerate(texts)]


def bert(folder) -> tuple[transformers.BertForMaskedLM, MaskedPretraining]:
    """Return a BERT of transformers with random weights, and ours with the same."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
    config = transformers.BertConfig(vocab_size=VOCAB, attn_implementation="eager", **sizes)
    reference = randomized(transformers.BertForMaskedLM(config))
    reference.save_pretrained(folder)
    model = import_checkpoint(folder, options=ImportOptions(settings={"mask_id": str(MASK)})).parts[""]
    text = partial(
        Modality,
        transform=TextTransform(Marked(), max_tokens=64),
        embed=model.embeds["text"],
        masking=WholeWordMasking(0.3),
        corruption=MaskReplaceKeep(0.8, 0.1),
        head=model.heads["tokens"],
        tied=True,
    )
    return reference, MaskedPretraining(model.encoder, {"text": text}).eval()


def test_the_loss_is_that_of_transformers_on_the_same_hidden_tokens(tmp_path):
    reference, model = bert(tmp_path)
    batch = collate(samples(40, 9, 61, 25))
    encoded = model(batch)
    (term,) = model.objectives[0](encoded).values()
    view, lengths = encoded.views["text"].view, batch.items["text"].lengths.tolist()
    shown = view.tokens.inputs.masked_fill(view.shown_as_mask, MASK)
    labels = view.targets.masked_fill(~view.masked, -100)
    ids, labels = (torch.nn.utils.rnn.pad_sequence(x.split(lengths), True, fill) for x, fill in ((shown, 0), (labels, -100)))
    attention = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    output = reference(input_ids=ids, attention_mask=attention, labels=labels)
    assert (labels >= 0).sum() == term.count > 25 and view.shown_as_mask.any() and (shown != view.targets)[~view.shown_as_mask].any()
    assert (term.loss / term.count).item() == pytest.approx(output.loss.item(), abs=1e-5)
    guesses = output.logits[labels >= 0].argmax(-1)
    assert torch.equal(term.ids, guesses) and term.correct.item() == (guesses == labels[labels >= 0]).sum()

    (term.loss / term.count).backward()
    output.loss.backward()
    theirs = reference.bert.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(model.modalities["text"].embed.words.weight.grad[1:], theirs[1:], atol=1e-5, rtol=1e-4)  # 0 is their padding


ENCODERS = {
    "rotary, local and global layers": {
        "rotary": partial(RotaryPosition, axes=1, max_period=10_000.0), "window": 4, "global_every": 2, "mlp": GeGlu,
        "local_rotary": partial(RotaryPosition, axes=1, max_period=100.0),
    },
    "ALiBi": {"bias": Alibi},
}  # fmt: skip


def model_of(encoder: dict, **more) -> MaskedPretraining:
    torch.manual_seed(0)
    settings = {"masking": GeometricSpanMasking(0.3), "corruption": MaskReplaceKeep(), "head": partial(PredictionHead, norm=LayerNorm)}
    embed = partial(TextEmbed, mask_id=MASK, norm=LayerNorm)
    text = partial(Modality, transform=TextTransform(Marked(), max_tokens=64), embed=embed, **settings | more)
    made = MaskedPretraining(Encoder(dim=16, depth=3, num_heads=2, **encoder), {"text": text})
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def decoded(**more) -> dict:
    decoder = partial(Decoder, width=24, depth=2, num_heads=2, position=SinCosPosition)
    return {"corruption": Drop(), "decoder": decoder, **more}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("more", [{}, decoded()], ids=["shown as the mask", "dropped"])
@torch.no_grad()
def test_a_text_alone_is_the_text_in_any_batch(kind, more):
    model, given = model_of(ENCODERS[kind], **more), samples(40, 9, 61, 40)
    together = model(collate(given)).views["text"]
    counts = torch.zeros(4, dtype=torch.int64).index_add_(0, together.view.tokens.item, together.view.masked.long()).tolist()
    for sample, hidden in zip(given, together.hidden.split(counts), strict=True):
        torch.testing.assert_close(model(collate([sample])).views["text"].hidden, hidden, atol=1e-5, rtol=1e-5)
    other = model(collate(given[::-1])).views["text"].hidden.split(counts[::-1])[::-1]
    torch.testing.assert_close(torch.cat(other), together.hidden, atol=1e-5, rtol=1e-5)


def test_dropped_tokens_never_reach_the_encoder():
    """MAE-LM: what was hidden changes nothing but the truth, and no token of the encoder is the mask."""
    model, given = model_of(ENCODERS["ALiBi"], **decoded(masking=RandomMasking(0.3))), samples(40, 9, 61)
    batch = collate(given)
    encoded = model(batch)
    view = encoded.views["text"].view
    assert len(encoded.given.tokens) == 110 + 6 - view.masked.sum() and not view.shown_as_mask.any()
    items = batch.items["text"]
    changed = items.values.where(~view.masked, (items.values + 40) % 200 + 3)
    again = model(type(batch)({"text": type(items)(changed, items.sample, items.seed, items.lengths)}, batch.keys))
    assert torch.equal(again.views["text"].view.masked, view.masked)
    torch.testing.assert_close(again.encoded.tokens, encoded.encoded.tokens)
    torch.testing.assert_close(again.views["text"].hidden, encoded.views["text"].hidden)
    assert not torch.equal(again.views["text"].truth, encoded.views["text"].truth)


def test_texts_whose_hidden_tokens_are_dropped_are_learned():
    model = model_of(ENCODERS["ALiBi"], **decoded()).train()
    batch, losses = collate(samples(40, 40, 40)), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        (term,) = model.objectives[0](model(batch)).values()
        (term.loss / term.count).backward()
        optimizer.step()
        losses.append(term.loss.item() / int(term.count))
    assert losses[-1] < 0.4 * losses[0]


def test_a_tied_head_needs_no_second_table_when_it_is_saved(tmp_path):
    from multimodal.pretrained import from_pretrained, load_token_head
    from multimodal.pretrained.from_training import model_of as kept_of

    _, model = bert(tmp_path / "theirs")
    kept = kept_of(model)
    assert kept.settings.tied == {"heads.tokens.proj.weight": "embeds.text.words.weight"}
    kept.save_pretrained(tmp_path / "ours")
    again = from_pretrained(tmp_path / "ours")
    assert again.heads["tokens"].proj.weight is again.embeds["text"].words.weight
    head = load_token_head(str(tmp_path / "ours"))
    torch.testing.assert_close(head.proj.weight, model.modalities["text"].head.proj.weight)
    assert F.mse_loss(head.hidden[0].weight, kept.heads["tokens"].hidden[0].weight) == 0
