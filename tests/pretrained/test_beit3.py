"""BEiT-3: against a computation from the description, token by token; and every tensor of its files."""

import math

import pytest
import torch
from torch import Tensor

from multimodal.pretrained import ModelSettings, PretrainedModel, import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import format_of
from tests.pretrained.text_parity import check_accounts, check_close
from tests.pretrained.vision_parity import check_same, half, imagenet, images

NORMS = ("self_attn.inner_attn_ln", "self_attn_layer_norm", "final_layer_norm")


def encoder_shapes(dim=768, depth=12, hidden=3072, patch=16, window=14, vocab=64010, length=1024) -> dict[str, tuple]:
    """The names and shapes of an encoder, as the published files have them."""
    shapes: dict[str, tuple] = {
        "text_embed.weight": (vocab, dim),
        "vision_embed.mask_token": (1, 1, dim),
        "vision_embed.cls_token": (1, 1, dim),
        "vision_embed.proj.weight": (dim, 3, patch, patch),
        "vision_embed.proj.bias": (dim,),
        "encoder.embed_positions.A.weight": (window**2 + 3, dim),
        "encoder.embed_positions.B.weight": (length, dim),
    }
    for expert in "AB":
        norms = {f"encoder.layer_norm.{expert}": dim}
        for i in range(depth):
            layer = f"encoder.layers.{i}."
            linear = {f"{layer}self_attn.{name}_proj.{expert}": (dim, dim) for name in ("k", "v", "q", "out")}
            linear |= {f"{layer}ffn.{expert}.fc1": (hidden, dim), f"{layer}ffn.{expert}.fc2": (dim, hidden)}
            shapes |= {f"{name}.weight": shape for name, shape in linear.items()} | {
                f"{name}.bias": shape[:1] for name, shape in linear.items()
            }
            norms |= {f"{layer}{name}.{expert}": dim for name in NORMS} | {f"{layer}ffn.{expert}.ffn_layernorm": hidden}
        shapes |= {f"{name}.{leaf}": (size,) for name, size in norms.items() for leaf in ("weight", "bias")}
    return {f"beit3.{name}": shape for name, shape in shapes.items()}


TINY = {"dim": 24, "depth": 2, "hidden": 40, "patch": 8, "vocab": 30, "length": 16}
HEADS = ImportOptions(num_heads=3)


def saved(path, window=4, equal=False, more: dict[str, tuple] | None = None, without: str = "\0") -> dict[str, Tensor]:
    shapes = encoder_shapes(**TINY, window=window) | (more or {})
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=generator) * 0.2 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, shape in shapes.items()
        if not name.startswith(without)
    }
    if equal:
        state |= {name.replace(".B.", ".A."): x for name, x in state.items() if ".B." in name and "positions" not in name}
    torch.save({"model": state}, path)
    return state


def imported(path, options=HEADS) -> PretrainedModel:
    model = import_checkpoint(path, options=options).parts[""]
    assert isinstance(model, PretrainedModel)
    return model


def linear(state, name, expert, x):
    return state[f"beit3.{name}.{expert}.weight"] @ x + state[f"beit3.{name}.{expert}.bias"]


def normalized(state, name, x):
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + 1e-5).sqrt() * state[f"beit3.{name}.weight"] + state[f"beit3.{name}.bias"]


def embedded(state, pixels: Tensor | None, ids: Tensor | None) -> list[tuple[str, Tensor]]:
    """The tokens of one image and one text with the table that each belongs to: class token, patches, words; positions from row 2 on."""
    tokens = []
    if pixels is not None:
        table, size = state["beit3.encoder.embed_positions.A.weight"], TINY["patch"]
        tokens.append(("A", state["beit3.vision_embed.cls_token"][0, 0] + table[2]))
        weight, bias = state["beit3.vision_embed.proj.weight"], state["beit3.vision_embed.proj.bias"]
        for row in range(pixels.shape[1] // size):
            for column in range(pixels.shape[2] // size):
                patch = pixels[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                tokens.append(("A", (weight * patch).sum((1, 2, 3)) + bias + table[2 + len(tokens)]))
    if ids is not None:
        rows = state["beit3.encoder.embed_positions.B.weight"][2:]
        tokens += [("B", state["beit3.text_embed.weight"][word] + row) for word, row in zip(ids.tolist(), rows, strict=False)]
    return tokens


def layers_of(state, tokens: list[tuple[str, Tensor]], heads: int = 3) -> list[Tensor]:
    """The tokens after every layer and after the last norm, one at a time."""
    experts, x, found = [expert for expert, _ in tokens], [vector for _, vector in tokens], []
    for i in range(TINY["depth"]):
        layer = f"encoder.layers.{i}."
        normed = [normalized(state, f"{layer}self_attn_layer_norm.{e}", v) for e, v in zip(experts, x, strict=True)]
        query, key, value = (
            torch.stack([linear(state, f"{layer}self_attn.{name}_proj", e, v) for e, v in zip(experts, normed, strict=True)])
            for name in "qkv"
        )
        width = query.shape[1] // heads
        mixed = torch.zeros_like(query)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            for place in range(len(x)):
                weights = torch.stack([query[place, own] @ other / math.sqrt(width) for other in key[:, own]]).softmax(0)
                mixed[place, own] = sum(weight * v for weight, v in zip(weights, value[:, own], strict=True))
        for place, expert in enumerate(experts):
            inner = normalized(state, f"{layer}self_attn.inner_attn_ln.{expert}", mixed[place])
            x[place] = x[place] + linear(state, f"{layer}self_attn.out_proj", expert, inner)
            normed_one = normalized(state, f"{layer}final_layer_norm.{expert}", x[place])
            weights = [
                (state[f"beit3.{layer}ffn.{expert}.{fc}.weight"], state[f"beit3.{layer}ffn.{expert}.{fc}.bias"]) for fc in ("fc1", "fc2")
            ]
            hidden = torch.nn.functional.gelu(weights[0][0] @ normed_one + weights[0][1])
            x[place] = x[place] + weights[1][0] @ normalized(state, f"{layer}ffn.{expert}.ffn_layernorm", hidden) + weights[1][1]
        found.append(torch.stack(x))
    return [*found, torch.stack([normalized(state, f"encoder.layer_norm.{e}", v) for e, v in zip(experts, x, strict=True)])]


IDS = torch.tensor([3, 29, 0, 7, 7])


@pytest.mark.parametrize("window", [2, 4])
@torch.no_grad()
def test_an_image_and_a_text_together_are_those_of_the_loops(tmp_path, window):
    state, pixels = saved(tmp_path / "beit3.pth", window), images(8 * window, count=1)
    model = imported(tmp_path / "beit3.pth")
    encoded, own, _, where = model.encode({"image": pixels, "text": IDS}, {"text": torch.tensor([5])}, [0, 1])
    expected = layers_of(state, embedded(state, half(pixels)[0], IDS))
    for layer, reference in zip([*own, encoded.tokens], expected, strict=True):
        check_close(torch.cat([layer[where["image"]], layer[where["text"]]]), reference[1:])
    check_close(encoded.class_token, expected[-1][:1])


@torch.no_grad()
def test_an_image_alone_and_a_text_alone_are_those_of_the_loops(tmp_path):
    state, pixels = saved(tmp_path / "beit3.pth"), images(32, count=1)
    model = imported(tmp_path / "beit3.pth")
    final, own = model.forward_intermediates(pixels, output_fmt="NLC", return_prefix_tokens=True, modality="image")
    for layer, reference in zip(
        [torch.cat([special, x], 1) for x, special in own] + [final], layers_of(state, embedded(state, half(pixels)[0], None)), strict=True
    ):
        check_close(layer[0], reference)
    expected = layers_of(state, embedded(state, None, IDS))
    for values, lengths in ((IDS[None], None), (IDS, torch.tensor([5]))):
        final, own = model.forward_intermediates(values, lengths, output_fmt="NLC", modality="text")
        for layer, reference in zip([*own, final], expected, strict=True):
            check_close(layer[0], reference)


@torch.no_grad()
def test_with_equal_experts_it_is_an_encoder_without_experts(tmp_path):
    saved(tmp_path / "beit3.pth", equal=True)
    model, pixels = imported(tmp_path / "beit3.pth"), images(32)
    settings = model.settings
    encoder = {**settings.encoder, "init_args": {**settings.encoder["init_args"], "num_experts": 1}}
    single = PretrainedModel(ModelSettings(encoder, settings.embeds)).eval()
    state = {name.replace(".experts.0.", "."): x for name, x in model.state_dict().items() if ".experts.1." not in name}
    single.load_state_dict(state)
    values, lengths = {"image": pixels, "text": IDS}, {"text": torch.tensor([2, 3])}
    together, alone = model.encode(values, lengths)[0], single.encode(values, lengths)[0]
    check_close(together.tokens, alone.tokens)
    check_close(together.class_token, alone.class_token)


@torch.no_grad()
def test_the_classifier_takes_the_mean_patch_of_imagenets_statistics(tmp_path):
    more = {"fc_norm.weight": (24,), "fc_norm.bias": (24,), "head.weight": (6, 24), "head.bias": (6,)}
    state, pixels = saved(tmp_path / "beit3.pth", more=more, without="beit3.encoder.layer_norm"), images(32, count=1)
    model = imported(tmp_path / "beit3.pth")
    last = layers_of({**state, **dict.fromkeys([f"beit3.encoder.layer_norm.A.{leaf}" for leaf in ("weight", "bias")], torch.zeros(24))},
                     embedded(state, imagenet(pixels)[0], None))[-2]  # fmt: skip
    pooled = torch.nn.functional.layer_norm(last[1:].mean(0), (24,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-5)
    check_close(model(pixels, modality="image")[0], state["head.weight"] @ pooled + state["head.bias"])


@torch.no_grad()
def test_the_masked_word_head_reads_the_texts_tokens(tmp_path):
    state = saved(tmp_path / "beit3.pth", more={"mlm_head.weight": (30, 24), "mlm_head.bias": (30,)})
    model = imported(tmp_path / "beit3.pth")
    final = layers_of(state, embedded(state, None, IDS))[-1]
    logits = model.heads["text_tokens"](model.forward_features(IDS[None], modality="text")[0])[0]
    check_close(logits, final @ state["mlm_head.weight"].T + state["mlm_head.bias"])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"mlm_head.weight": (30, 24), "mlm_head.bias": (30,)},
        {"fc_norm.weight": (24,), "fc_norm.bias": (24,), "head.weight": (6, 24), "head.bias": (6,)},
    ],
    ids=["encoder", "masked words", "classifier"],
)
def test_a_round_trip_gives_the_file_back(tmp_path, more):
    state = saved(tmp_path / "beit3.pth", more=more)
    check_same(format_of("beit3", "unilm").write(imported(tmp_path / "beit3.pth")).tensors, state)


def test_the_base_encoder_has_491_tensors_and_all_have_a_place():
    shapes = encoder_shapes()
    assert len(shapes) == 491
    assert sum(math.prod(shape) for shape in shapes.values()) == 220_987_392
    model = check_accounts(shapes, {}, "beit3", "unilm", ignored=0)[""].target
    assert sum(x.numel() for x in model.parameters()) == 220_987_392
    assert model.encoder.num_heads == 12


@pytest.mark.parametrize(
    "more",
    [
        {"language_head.weight": (768, 768), "vision_head.weight": (768, 768), "logit_scale": ()},
        {
            "pooler.norm.weight": (768,),
            "pooler.dense.weight": (768, 768),
            "head.0.weight": (1536, 768),
            "head.1.weight": (1536,),
            "head.3.bias": (3129,),
        },
    ],
    ids=["retrieval", "questions"],
)
def test_of_other_fine_tuned_models_the_encoder_is_read(more):
    parts = check_accounts(encoder_shapes() | more, {}, "beit3", "unilm", ignored=len(more))
    assert not parts[""].target.heads


def test_positions_that_are_no_square_are_refused(tmp_path):
    saved(tmp_path / "beit3.pth", more={"beit3.encoder.embed_positions.A.weight": (18, 24)})
    with pytest.raises(ValueError, match="a table of 18 image positions is of no square of patches"):
        imported(tmp_path / "beit3.pth")
