"""What can be predicted: values against numpy, features, places; and losses of vectors against torch's."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from multimodal.masking import Drop, HidePlaces, RandomMasking
from multimodal.nn import BucketedBias, ConvPosition, Decoder, PredictionHead, RegressionHead, RelativeBias2d, SinCosPosition
from multimodal.objectives import Places, TeacherFeatures, TokenValues
from multimodal.protocols import Teacher
from multimodal.tokenizers.image import PatchEmbed
from tests.objectives.pictures import Brightness, beit_encoder, beit_modality, build, encode, fit, mae_encoder, mae_modality, picture_batch

ADAM = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-2)}


def values_of(target: TokenValues, channels: int = 3) -> tuple[Tensor, np.ndarray]:
    items = picture_batch(2, channels=channels).items["picture"]
    tokens = PatchEmbed(8, patch_size=4, channels=channels).tokens(items.values, None)
    return target(items, tokens), tokens.inputs.double().numpy() / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_values_are_those_of_numpy(channels):
    made, values = values_of(TokenValues(channels=channels))
    parts = values.reshape(32, channels, -1)  # colours stand one after the other
    mean, variance = parts.mean(-1, keepdims=True), parts.var(-1, ddof=1, keepdims=True)
    np.testing.assert_allclose(made, ((parts - mean) / np.sqrt(variance + 1e-6)).reshape(32, 48), atol=1e-5)


def test_what_keeps_from_dividing_by_zero_may_be_added_to_the_deviation():
    """VideoMAE's cubes: colour by colour, ``(x - mean) / (sqrt(variance) + eps)``, here with an eps that shows."""
    made, values = values_of(TokenValues(channels=3, eps=0.1, eps_to="deviation"))
    parts = values.reshape(32, 3, -1)
    mean, deviation = parts.mean(-1, keepdims=True), parts.std(-1, ddof=1, keepdims=True)
    np.testing.assert_allclose(made, ((parts - mean) / (deviation + 0.1)).reshape(32, 48), atol=1e-5)
    assert (made - values_of(TokenValues(channels=3, eps=0.1))[0]).abs().max() > 0.1


def test_the_statistics_of_colours_come_before_those_of_a_patch():
    """MAE normalises patches of the encoder's view, whose colours are scaled unequally."""
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.4)
    made, values = values_of(TokenValues(mean=mean, std=std))
    view = ((values.reshape(32, 3, 16) - np.array(mean)[:, None]) / np.array(std)[:, None]).reshape(32, 48)
    expected = (view - view.mean(1, keepdims=True)) / np.sqrt(view.var(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    assert np.abs(expected - values_of(TokenValues())[0].numpy()).max() > 0.5
    plain, _ = values_of(TokenValues(False, mean=mean, std=std))
    np.testing.assert_allclose(plain, view, atol=1e-5)


def test_a_patch_of_one_value_is_zero():
    tokens = PatchEmbed(8, patch_size=4, channels=1).tokens(torch.full((1, 1, 4, 4), 77, dtype=torch.uint8), None)
    made = TokenValues()(picture_batch(1).items["picture"], tokens)
    assert made.isfinite().all() and made.abs().max() < 0.01


SETTINGS = st.sampled_from(
    [
        {},
        {"channels": 3},
        {"channels": 3, "eps_to": "deviation"},
        {"normalize": False},
        {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.4)},
        {"normalize": False, "scale": 1.0},
    ]
)


@settings(deadline=None, max_examples=25)
@given(SETTINGS, st.integers(0, 2**31))
def test_values_can_be_restored(chosen, seed):
    target = TokenValues(**chosen)
    batch = picture_batch(1, channels=3, first=seed)
    tokens = PatchEmbed(8, patch_size=4, channels=3).tokens(batch.items["picture"].values, None)
    restored = target.restored(tokens.inputs, target(batch.items["picture"], tokens))
    torch.testing.assert_close(restored, tokens.inputs.float(), atol=1e-3, rtol=1e-4)


class Sums(Teacher):
    """Features of a patch of 4 x 4: its brightness in three ways, and a weight that could be trained."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, values: Tensor) -> Tensor:
        mean = F.avg_pool2d(values.float().mean(1, keepdim=True), 4).flatten() / 255
        return torch.stack([mean, 1 - mean, mean.square()], 1).detach() * self.weight.detach()


@pytest.mark.parametrize("loss", ["cosine", "mse", "smooth_l1"])
def test_features_of_a_teacher_are_compared(loss):
    head = partial(RegressionHead, loss=loss, beta=0.3)
    model = build(beit_encoder(), beit_modality(tokenizer=None, target=TeacherFeatures(Sums()), head=head)).eval()
    batch = picture_batch(3)
    encoded = encode(model, batch)
    view, own = encoded.views["picture"], model.modalities["picture"].head
    truth = Sums()(batch.items["picture"].values)[view.view.masked]
    vectors = view.hidden @ own.proj.weight.T + own.proj.bias
    lengths = vectors.norm(dim=1) * truth.norm(dim=1)
    expected = {
        "cosine": 1 - (vectors * truth).sum(1) / lengths,
        "mse": ((vectors - truth) ** 2).mean(1),
        "smooth_l1": F.smooth_l1_loss(vectors, truth, beta=0.3, reduction="none").mean(1),
    }[loss]
    term = model.objectives[0](encoded)["picture"]
    torch.testing.assert_close(term.loss, expected.sum(), atol=1e-5, rtol=1e-5)
    assert term.correct.shape == (0,) and not any("teacher" in name for name in model.state_dict())
    model._terms(batch, "val")
    assert set(model.scores["val_scores"].compute()) == {"loss/picture", "tokens/picture"}


def test_features_can_be_normalised():
    items = picture_batch(2).items["picture"]
    made = TeacherFeatures(Sums(), normalize=True)(items, PatchEmbed(8, patch_size=4, channels=1).tokens(items.values, None))
    torch.testing.assert_close(made, F.layer_norm(Sums()(items.values), (3,)))
    assert made.mean(1).abs().max() < 1e-5


def test_places_are_numbers_of_the_grid():
    items = picture_batch(2).items["picture"]
    tokens = PatchEmbed(8, patch_size=4, channels=1).tokens(items.values, None)
    assert Places((4, 4))(items, tokens).tolist() == list(range(16)) * 2
    with pytest.raises(ValueError, match=r"Places has the grid \(2, 8\), the tokens lie on \(4, 4\): set grid"):
        Places((2, 8))(items, tokens)


def places(**modality) -> partial:
    parts = {"embed": partial(PatchEmbed, patch_size=4, channels=1), "corruption": HidePlaces(), "target": Places((4, 4))}
    return beit_modality(tokenizer=None, **{**parts, **modality})


@pytest.mark.parametrize("encoder", [{}, {"bias": partial(RelativeBias2d, window=(4, 4))}])
def test_places_are_learned(encoder):
    torch.manual_seed(0)
    model = build(mae_encoder(**encoder), places(), **ADAM)
    losses = fit(model, [picture_batch(4)] * 40)
    assert losses[-1] < 0.7 * losses[0]
    model._terms(picture_batch(4), "val")
    assert {"accuracy/picture", "loss/picture"} <= set(model.scores["val_scores"].compute())


@pytest.mark.parametrize(
    "options", [{"convolution": partial(ConvPosition, kernel_size=3, groups=2)}, {"window": 2}, {"bias": BucketedBias}]
)
def test_an_encoder_that_reads_the_order_is_refused_where_places_are_hidden(options):
    assert mae_encoder(**options).reads_order
    with pytest.raises(ValueError, match=r"modality 'picture' hides places.*but the encoder reads the order of tokens"):
        build(mae_encoder(**options), places())
    build(mae_encoder(**options), mae_modality())


@pytest.mark.parametrize(
    "modality, message",
    [
        (partial(mae_modality, decoder=None), "Drop keeps hidden tokens from the encoder: set a decoder"),
        (partial(beit_modality, target=TokenValues()), "a tokenizer, whose ids are predicted, or another target, not both"),
        (partial(mae_modality, target=TokenValues(channels=3)), "a token of 16 values is not of 3 equal parts"),
        (
            partial(mae_modality, target=TokenValues(mean=(0.5,) * 3, std=(0.5,) * 3)),
            "not of 3 equal parts, for which there are mean and std",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(modality, message):
    with pytest.raises(ValueError, match=message):
        encode(build(mae_encoder(), modality()), picture_batch(1))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"scale": 0.0}, "scale and std must be positive"),
        ({"std": (0.0,)}, "scale and std must be positive"),
        ({"mean": (0.5, 0.5)}, "mean as long as std"),
    ],
)
def test_settings_of_values_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenValues(**settings)


def test_an_eps_that_is_added_to_nothing_is_refused(unchecked):
    with pytest.raises(ValueError, match="eps_to must be one of variance, deviation, got 'mean'"):
        TokenValues(eps_to="mean")


def test_heads_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"a vector has one width, got"):
        RegressionHead(8, (3, 4))
    with pytest.raises(ValueError, match=r"its target gives torch.int64 of shape"):
        RegressionHead(8, (7,)).check(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"its target gives vectors of 7 values, a PredictionHead predicts ids"):
        PredictionHead(8, (7,)).check(torch.zeros(4, 7))


def test_a_decoder_needs_positions_of_the_tokens_axes():
    """Which is told before any data is read where the transform has an example."""
    decoder = partial(Decoder, width=8, depth=1, num_heads=2, position=SinCosPosition)
    with pytest.raises(ValueError, match="tokens have 2 coordinates, the positions 1 axes"):
        encode(build(mae_encoder(), mae_modality(decoder=decoder)), picture_batch(1))


def test_ids_can_be_predicted_from_visible_tokens_alone():
    torch.manual_seed(0)
    modality = beit_modality(
        corruption=Drop(), masking=RandomMasking(0.5), decoder=partial(Decoder, width=8, depth=1, num_heads=2), tokenizer=Brightness()
    )
    losses = fit(build(beit_encoder(), modality, **ADAM), [picture_batch(4)] * 40)
    assert losses[-1] < 0.8 * losses[0]
