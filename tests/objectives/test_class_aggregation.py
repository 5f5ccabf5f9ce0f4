"""BEiT v2's aggregation in the class token, against a dense computation by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn import Block, DropPath, Encoder, RelativeBias2d
from multimodal.objectives import ClassAggregation, MaskedPrediction
from multimodal.pretrained.from_training import model_of
from tests.objectives.pictures import beit_encoder, beit_modality, build, encode, fit, mae_modality, picture_batch, shaken

BOTH = [MaskedPrediction, partial(ClassAggregation, early_layer=2, depth=2)]


def norm(x: Tensor, layer: torch.nn.Module) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-6)


def dense_layer(x: Tensor, block: Block, bias: Tensor) -> Tensor:
    """One pre-norm layer of BEiT on ``(images, tokens, width)``: q and v biases, layer scale, 2 heads, written from the description."""
    query_bias, value_bias = block.attn.query_value_bias
    q, k, v = (norm(x, block.norm1) @ block.attn.qkv.weight.T).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q + query_bias, k, v + value_bias))
    mixed = (q @ k.transpose(2, 3) / 8**0.5 + bias).softmax(-1) @ v
    x = x + block.scale1.gamma * (mixed.transpose(1, 2).flatten(2) @ block.attn.proj.weight.T + block.attn.proj.bias)
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    made = F.gelu(norm(x, block.norm2) @ fc1.weight.T + fc1.bias) @ fc2.weight.T + fc2.bias
    return x + block.scale2.gamma * made


def dense_bias(bias: RelativeBias2d) -> Tensor:
    """The bias of a class token before 4 x 4 patches."""
    places = torch.cat([torch.full((1, 2), -1), torch.cartesian_prod(torch.arange(4), torch.arange(4))])
    return bias(places[None])


def test_the_loss_is_that_of_early_patches_beside_the_last_class_token():
    model = shaken(build(beit_encoder(), beit_modality(), BOTH)).eval()
    batch = picture_batch(3)
    encoded = encode(model, batch)
    masked, targets = encoded.views["picture"].view.masked, encoded.views["picture"].view.targets
    encoder, modality, branch = model.encoder, model.modalities["picture"], model.objectives[1].branch
    tokens = modality.embed.tokens(batch.items["picture"].values, None)
    patches = (tokens.inputs / 255 - 0.5) / 0.5 @ modality.embed.proj.weight.T + modality.embed.proj.bias
    patches = torch.where(masked[:, None], modality.embed.mask_token, patches)
    x = torch.cat([encoder.special.tokens.expand(3, 1, 16), patches.view(3, 16, 16)], 1)
    bias, states = dense_bias(encoder.bias), []
    for block in encoder.blocks:
        x = dense_layer(x, block, bias)
        states.append(x)
    late = torch.cat([x[:, :1], states[1][:, 1:]], 1)
    for block in branch.blocks:
        late = dense_layer(late, block, bias)
    hidden = masked.view(3, 16)
    for goal, made in zip(model.objectives, (x, late), strict=True):
        logits = norm(made[:, 1:], encoder.norm)[hidden] @ modality.head.proj.weight.T + modality.head.proj.bias
        expected = F.cross_entropy(logits, targets[masked], reduction="sum")
        torch.testing.assert_close(goal(encoded)["picture"].loss, expected, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(x, late, atol=0.1)


def test_the_layers_stand_in_for_the_tenth_and_eleventh_of_twelve():
    encoder = beit_encoder(depth=12, drop_path=0.22)
    goal = ClassAggregation(encoder, {}, early_layer=9)
    assert encoder.depth == 12 and len(goal.branch.blocks) == 2
    rates = [[part.rate for part in block.modules() if isinstance(part, DropPath)] for block in goal.branch.blocks]
    assert rates == [[pytest.approx(0.22 * 9 / 11)], [pytest.approx(0.22 * 10 / 11)]]
    wide = Encoder(dim=96, depth=12, num_heads=2, class_token=True)
    for number, block in zip((10, 11), ClassAggregation(wide, {}, early_layer=9).branch.blocks, strict=True):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / (2 * number) ** 0.5, rel=0.05)
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_layers_learn_and_are_not_taken_away():
    model = build(beit_encoder(), beit_modality(), BOTH)
    encoded = encode(model, picture_batch(2))
    model.objectives[1](encoded)["picture"].loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.objectives[1].named_parameters()}
    assert len(gradients) > 20 and all(x is not None and x.abs().sum() > 0 for x in gradients.values())
    assert model.encoder.blocks[3].mlp.fc2.weight.grad.abs().sum() > 0  # through the class token
    kept = model_of(model).state_dict()
    assert not any("branch" in name or "objectives" in name for name in kept)
    assert {name for name in kept if name.startswith("encoder.")} == {f"encoder.{name}" for name in model.encoder.state_dict()}


def test_only_the_class_token_carries_what_the_early_layer_does_not_know():
    model = shaken(build(beit_encoder(), beit_modality(), BOTH)).eval()
    encoded = encode(model, picture_batch(1))
    model.objectives[1](encoded)["picture"].loss.backward()
    last = model.encoder.blocks[3]
    assert last.norm2.weight.grad.abs().sum() > 0
    model.zero_grad()
    for block in model.objectives[1].branch.blocks:
        block.attn.proj.weight.data.zero_()  # nothing flows between tokens of the branch any more
    again = encode(model, picture_batch(1))
    model.objectives[1](again)["picture"].loss.backward()
    assert last.norm2.weight.grad is None or last.norm2.weight.grad.abs().sum() == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"window": 4, "bias": None}, {"share_bias": False}, {"checkpoint_activations": True}, {"drop_path": 0.3}, {"norm_at": "none"}],
)
def test_encoders_with_other_options_learn(options):
    torch.manual_seed(0)
    model = build(beit_encoder(**options), beit_modality(), BOTH, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    losses = fit(model, [picture_batch(4)] * 30)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    "encoder, settings, message",
    [
        ({}, {"early_layer": 0}, "at most the encoder's depth, 4.*got 0 and 2"),
        ({}, {"early_layer": 3}, "at most the encoder's depth, 4.*got 3 and 2"),
        ({}, {"early_layer": 2, "depth": 0}, "at least 1.*got 2 and 0"),
        ({"class_token": False}, {"early_layer": 2}, "needs an encoder with a class token"),
        ({"num_registers": 2}, {"early_layer": 2}, "without registers and experts"),
        ({"num_experts": 2}, {"early_layer": 2}, "without registers and experts"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(encoder, settings, message):
    with pytest.raises(ValueError, match=message):
        ClassAggregation(beit_encoder(**encoder), {}, **settings)


def test_a_decoder_is_refused():
    with pytest.raises(ValueError, match="modality 'picture' has a decoder"):
        build(beit_encoder(), mae_modality(), BOTH)


def test_scores_are_named_after_the_class_token():
    model = build(beit_encoder(), beit_modality(), BOTH)
    model._terms(picture_batch(3), "val")
    scores = model.scores["val_scores"].compute()
    assert set(scores) == {f"{score}/picture{end}" for score in ("loss", "accuracy", "tokens") for end in ("", "_from_class")}
    assert scores["tokens/picture"] == scores["tokens/picture_from_class"] == 18
