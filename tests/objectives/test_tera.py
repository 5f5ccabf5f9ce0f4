"""TERA whole: what the encoder sees, and the L1 of the entries that are asked for, against a loop over items."""

from functools import partial

import pytest
import torch

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.masking import Alteration, SpanMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder, InterleavedSinCosPosition, LayerNorm, PostNormBlock, RegressionHead
from multimodal.objectives import TokenValues
from multimodal.protocols import Transform
from multimodal.tokenizers.audio import NormalizeBins, SpectrogramEmbed
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import encode, fit, shaken

BINS, LENGTHS = 10, (40, 25, 60, 33)


class Frames(Transform):
    extensions = ("frames",)

    def decode(self, data):
        return data

    def __call__(self, decoded, generator, train):
        return Item(decoded, ragged=True)


def batch_of(*lengths: int) -> Batch:
    items = [3 * torch.sin(torch.arange(n)[:, None] / 4 + torch.arange(BINS) * n / 7) - 5 for n in lengths]
    return collate([Sample(str(i), {"sound": Item(x, ragged=True)}, seed=70 + i) for i, x in enumerate(items)])


def tera(optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2), **settings) -> MaskedPretraining:
    parts = {
        "preparation": [NormalizeBins()],
        "embed": partial(
            SpectrogramEmbed, patch_size=[1, BINS], mean=0.0, std=1.0, position=partial(InterleavedSinCosPosition, size=(100, 1))
        ),
        "masking": SpanMasking(0.3, 4),
        "corruption": Alteration(frequency=0.3, noise=0.3),
        "target": TokenValues(normalize=False, scale=1.0),
        "head": partial(RegressionHead, loss="l1", norm=partial(LayerNorm, eps=1e-12)),
    }
    torch.manual_seed(0)
    encoder = Encoder(16, 2, 2, block=PostNormBlock, norm_at="input")
    return MaskedPretraining(encoder, {"sound": partial(Modality, transform=Frames(), **{**parts, **settings})}, optimizer=optimizer)


def test_the_loss_is_the_l1_of_spans_and_bands():
    model = shaken(tera()).eval()
    batch = model.prepared(batch_of(*LENGTHS), train=False)
    encoded, modality = encode(model, batch), model.modalities["sound"]
    view = encoded.views["sound"].view
    clean, total, count = batch.items["sound"].values, 0.0, 0
    torch.testing.assert_close(view.targets, clean)
    for i, altered in enumerate(view.tokens.inputs.split(LENGTHS)):
        own = [x.split(LENGTHS)[i] for x in (clean, view.asked)]
        x = modality.embed.proj(altered) + modality.embed.position(torch.stack([torch.arange(LENGTHS[i])] * 2, 1) * torch.tensor([1, 0]))
        hidden = model.encoder(x, torch.zeros(LENGTHS[i], dtype=torch.int64)).tokens
        total = total + ((modality.head(hidden) - own[0]).abs() * own[1]).sum()
        count += int(own[1].any(1).sum())
    term = model.objectives[0](encoded)["sound"]
    assert term.count == count
    torch.testing.assert_close(term.loss, total / BINS, atol=1e-4, rtol=1e-4)
    term.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for name, p in model.named_parameters() if "mask_token" not in name)


def test_a_frame_outside_the_spans_is_asked_for_its_band_alone():
    model = tera(corruption=Alteration(frequency=0.5))
    view = model.modalities["sound"].masked_view(model.prepared(batch_of(*LENGTHS), train=False).items["sound"])
    hidden = SpanMasking(0.3, 4)(view.tokens, batch_of(*LENGTHS).items["sound"].seed)
    for asked, spans, values in zip(view.asked.split(LENGTHS), hidden.split(LENGTHS), view.tokens.inputs.split(LENGTHS), strict=True):
        band = asked[~spans][0]
        assert asked[spans].all() and torch.equal(asked[~spans], band.expand_as(asked[~spans])) and (values[:, band] == 0).all()
    assert torch.equal(view.masked, view.asked.any(1)) and view.masked.sum() > hidden.sum()


def test_sounds_of_unequal_length_train_together_and_the_loss_falls():
    model = tera()
    losses = fit(model, [batch_of(*LENGTHS)] * 60, gradient_clip_val=5.0)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_batch_in_parts_has_the_same_loss():
    model = shaken(tera()).eval()
    whole = model.objectives[0](encode(model, model.prepared(batch_of(*LENGTHS), train=False)))["sound"]
    samples = [batch_of(*LENGTHS[: i + 1]) for i in range(4)]
    sums = [model.objectives[0](encode(model, model.prepared(own, train=False)))["sound"].loss for own in samples]
    assert sums[0] < sums[1] < sums[2] < sums[3]
    torch.testing.assert_close(sums[3], whole.loss)


def test_targets_without_those_entries_are_refused():
    class Means(TokenValues):
        def forward(self, items, tokens):
            return tokens.inputs[:, :3]

    model = tera(target=Means())
    with pytest.raises(
        ValueError, match=r"asks for some of the 10 values of a token, but what is predicted is torch.float32 of shape \(3,\)"
    ):
        encode(model, model.prepared(batch_of(8), train=False))
