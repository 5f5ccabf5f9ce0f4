"""BEATs: a whole model equals one computed from the description with loops, and files of the published kind come and go whole."""

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import find_format, format_of
from multimodal.tokenizers.audio import BeatsTokenizer, SpectrogramTransform
from tests.pretrained.vision_parity import check_close, check_same, randomized

TINY = {"dim": 32, "depth": 12, "heads": 4, "hidden": 48, "patch_dim": 24, "kernel": 8, "groups": 4}
FULL = {"dim": 768, "depth": 12, "heads": 12, "hidden": 3072, "patch_dim": 512, "kernel": 128, "groups": 16}
BASE = {"layer_norm_first": False, "deep_norm": True, "relative_position_embedding": True, "gru_rel_pos": True, "conv_bias": False}


def shapes_of(
    dim: int,
    depth: int,
    heads: int,
    hidden: int,
    patch_dim: int,
    kernel: int,
    groups: int,
    classes: int = 0,
    codes: tuple[int, int] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file."""
    names: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (patch_dim, 1, 16, 16)}

    def pair(name: str, *shape: int) -> None:
        names[f"{name}.weight"], names[f"{name}.bias"] = shape, shape[:1]

    pair("layer_norm", patch_dim)
    pair("encoder.layer_norm", dim)
    if patch_dim != dim:
        pair("post_extract_proj", dim, patch_dim)
    conv = "encoder.pos_conv.0"
    names |= {f"{conv}.bias": (dim,), f"{conv}.weight_g": (1, 1, kernel), f"{conv}.weight_v": (dim, dim // groups, kernel)}
    for i in range(depth):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            pair(f"{layer}.self_attn.{name}", dim, dim)
        pair(f"{layer}.self_attn.grep_linear", 8, dim // heads)
        names |= {f"{layer}.self_attn.grep_a": (1, heads, 1, 1), f"{layer}.self_attn.relative_attention_bias.weight": (320, heads)}
        pair(f"{layer}.self_attn_layer_norm", dim)
        pair(f"{layer}.final_layer_norm", dim)
        pair(f"{layer}.fc1", hidden, dim)
        pair(f"{layer}.fc2", dim, hidden)
    if classes:
        pair("predictor", classes, dim)
    if codes:
        pair("quantize_layer.0", dim, dim)
        pair("quantize_layer.2", codes[1], dim)
        names |= {f"quantize.embedding.{name}": codes for name in ("weight", "embed_avg")}
        names |= {"quantize.embedding.cluster_size": codes[:1], "quantize.embedding.initted": (1,), "quantize.cluster_size": codes[:1]}
    return names


def checkpoint_of(**sizes: Any) -> dict[str, Tensor]:
    """Random tensors of a published file; the table of the relative bias stands in every layer."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in shapes_of(**sizes).items():
        around = 1.0 if "norm.weight" in name or "weight_g" in name or "grep_a" in name else 0.0
        made[name] = around + 0.2 * torch.randn(shape, generator=generator)
    for name in made:
        if "relative_attention_bias" in name:
            made[name] = made["encoder.layers.0.self_attn.relative_attention_bias.weight"].clone()
    return made


def saved(path, tensors: dict[str, Tensor], **beside: Any):
    torch.save({"cfg": {**BASE, "max_distance": 800, "num_buckets": 320}, "model": tensors, **beside}, path)
    return path


def imported(path) -> PretrainedModel:
    return import_checkpoint(path).parts[""]


def bucket_of(difference: int) -> int:
    """The bucket of key minus query, as T5 has them, for 320 buckets up to 800."""
    base, distance = (160, difference) if difference > 0 else (0, -difference)
    if distance < 80:
        return base + distance
    return base + min(159, 80 + int(math.log(distance / 80) / math.log(800 / 80) * 80))


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def normed(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def embedded(w: dict[str, Tensor], spectrogram: Tensor) -> Tensor:
    """Patches of one spectrogram, time by time and the lowest band first, with convolutional positions."""
    x = (spectrogram - 15.41663) / (2 * 6.55582)
    patches = [x[t : t + 16, f : f + 16] for t in range(0, len(x) - 15, 16) for f in range(0, x.shape[1] - 15, 16)]
    x = torch.stack([torch.stack([(kernel * patch).sum() for kernel in w["patch_embedding.weight"][:, 0]]) for patch in patches])
    x = linear(w, "post_extract_proj", normed(w, "layer_norm", x))
    direction, gain = w["encoder.pos_conv.0.weight_v"], w["encoder.pos_conv.0.weight_g"]
    width, kernel = direction.shape[1], direction.shape[2]
    weight = torch.stack([gain[0, 0, k] * direction[:, :, k] / direction[:, :, k].norm() for k in range(kernel)], 2)
    made = torch.zeros_like(x)
    for place in range(len(x)):
        for k in range(kernel):
            source = place + k - kernel // 2
            if 0 <= source < len(x):
                for channel in range(x.shape[1]):
                    group = channel // width
                    made[place, channel] += weight[channel, :, k] @ x[source, group * width : (group + 1) * width]
    return normed(w, "encoder.layer_norm", x + F.gelu(made + w["encoder.pos_conv.0.bias"]))


def attended(w: dict[str, Tensor], layer: str, x: Tensor, heads: int) -> Tensor:
    """Attention of one layer as published: logits divided by 32, their maximum subtracted, and multiplied by 32 again."""
    query, key, value = (linear(w, f"{layer}.self_attn.{name}", x).unflatten(1, (heads, -1)) for name in ("q_proj", "k_proj", "v_proj"))
    table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    mixed = torch.zeros_like(query)
    for head in range(heads):
        for i in range(len(x)):
            sums = linear(w, f"{layer}.self_attn.grep_linear", query[i, head])
            a, b = torch.sigmoid(sums[:4].sum()), torch.sigmoid(sums[4:].sum())
            gate = a * (b * w[f"{layer}.self_attn.grep_a"][0, head, 0, 0] - 1) + 2
            small = key[:, head] @ (query[i, head] / math.sqrt(query.shape[-1]) / 32)
            logits = (small - small.max()) * 32
            logits = logits + gate * torch.stack([table[bucket_of(j - i), head] for j in range(len(x))])
            mixed[i, head] = logits.softmax(0) @ value[:, head]
    return linear(w, f"{layer}.self_attn.out_proj", mixed.flatten(1))


def naive_layers(w: dict[str, Tensor], spectrogram: Tensor, depth: int, heads: int) -> list[Tensor]:
    x, alpha = embedded(w, spectrogram), (2 * depth) ** 0.25
    seen = []
    for i in range(depth):
        layer = f"encoder.layers.{i}"
        x = normed(w, f"{layer}.self_attn_layer_norm", alpha * x + attended(w, layer, x, heads))
        x = normed(w, f"{layer}.final_layer_norm", alpha * x + linear(w, f"{layer}.fc2", F.gelu(linear(w, f"{layer}.fc1", x))))
        seen.append(x)
    return seen


def spectrograms(*frames: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [15.4 + 6.5 * torch.randn(count, 32, generator=generator) for count in frames]


@pytest.mark.parametrize("frames", [48, 85])
@torch.no_grad()
def test_every_layer_equals_the_description(tmp_path, frames):
    tensors = checkpoint_of(**TINY, classes=5)
    model = imported(saved(tmp_path / "beats.pt", tensors))
    (values,) = spectrograms(frames)
    expected = naive_layers(tensors, values, TINY["depth"], TINY["heads"])
    final, own = model.forward_intermediates(values[None], output_fmt="NLC")
    assert final.shape == (1, frames // 16 * 2, 32)
    for number, (tokens, reference) in enumerate(zip(own, expected, strict=True)):
        assert reference.abs().mean() > 0.1
        assert (tokens[0] - reference).abs().max() <= 1e-5 * max(1, reference.abs().max()), number
    logits = torch.stack([linear(tensors, "predictor", token) for token in expected[-1]]).mean(0)
    check_close(model(values[None])[0], logits)


@torch.no_grad()
def test_sounds_of_different_lengths_do_not_touch_each_other(tmp_path):
    model = imported(saved(tmp_path / "beats.pt", checkpoint_of(**TINY, classes=5)))
    items = spectrograms(40, 70, 40, 16)
    together = model(torch.cat(items), torch.tensor([len(x) for x in items]))
    check_close(together, torch.cat([model(x[None]) for x in items]))


def test_buckets_are_the_published_ones(tmp_path):
    bias = imported(saved(tmp_path / "beats.pt", checkpoint_of(**TINY))).encoder.bias
    known = {0: 0, 1: 161, -1: 1, 79: 239, 80: 240, 81: 240, -79: 79, -80: 80, 100: 247, 200: 271, 400: 295, 799: 319, -800: 159}
    assert bias.bucket(torch.tensor(list(known))).tolist() == list(known.values()) == [bucket_of(i) for i in known]


@pytest.mark.parametrize(
    ("more", "count"), [({}, 250), ({"classes": 527}, 252), ({"codes": (1024, 256)}, 259)], ids=["base", "fine-tuned", "tokenizer"]
)
def test_published_files_are_used_whole(more, count):
    shapes = shapes_of(**FULL, **more)
    assert len(shapes) == count
    with torch.device("meta"):
        checkpoint = Checkpoint({name: torch.empty(shape) for name, shape in shapes.items()})
        form = find_format(checkpoint.shapes, {})
        (part,) = form.read(checkpoint, ImportOptions())
    assert form.family == ("beats-tokenizer" if "codes" in more else "beats")
    ignored = {name for name in part.keymap.unused(checkpoint.tensors) if part.keymap.reason(name)}
    assert set(part.keymap.unused(checkpoint.tensors)) == ignored and len(ignored) == (3 if "codes" in more else 0)
    beside = ("mask_token", "quantizer.usage", "quantizer.initialized")  # which are no parameters of theirs
    parameters = sum(x.numel() for name, x in part.target.state_dict().items() if not name.endswith(beside))
    training_only = 1024 * 256 + 1024 if "codes" in more else 0
    assert parameters + training_only == {250: 90_311_792, 252: 90_717_055, 259: 91_624_560}[count]


def test_tables_that_differ_are_refused_by_name(tmp_path):
    tensors = checkpoint_of(**TINY)
    tensors["encoder.layers.7.self_attn.relative_attention_bias.weight"][5, 1] += 1e-3
    with pytest.raises(ValueError, match=r"encoder\.layers\.7\.self_attn\.relative_attention_bias\.weight differs from encoder\.layers\.0"):
        imported(saved(tmp_path / "beats.pt", tensors))


@pytest.mark.parametrize("classes", [0, 5])
def test_a_round_trip_is_exact(tmp_path, classes):
    tensors = checkpoint_of(**TINY, classes=classes)
    labels = {str(i): f"/m/0{i}" for i in reversed(range(classes))}
    model = imported(saved(tmp_path / "beats.pt", tensors, **({"label_dict": labels} if classes else {})))
    assert model.settings.labels == tuple(f"/m/0{i}" for i in range(classes))
    written = format_of("beats", "unilm").write(model)
    check_same(written.tensors, tensors)
    assert written.config["cfg"] | BASE == written.config["cfg"]
    (tmp_path / "again").mkdir()
    save_file({name: x.contiguous().clone() for name, x in written.tensors.items()}, tmp_path / "again" / "model.safetensors")
    (tmp_path / "again" / "config.json").write_text(json.dumps(written.config))
    again = imported(tmp_path / "again")
    assert again.settings.labels == model.settings.labels and again.settings.encoder == model.settings.encoder
    (values,) = spectrograms(48)
    assert torch.equal(again(values[None]), model(values[None]))


def test_tensors_alone_get_the_distance_of_all_published_weights(tmp_path):
    torch.save(checkpoint_of(**TINY), tmp_path / "beats.pt")
    assert imported(tmp_path / "beats.pt").encoder.bias.max_distance == 800


def test_a_distance_of_its_own_is_kept(tmp_path):
    path = tmp_path / "beats.pt"
    torch.save({"cfg": {**BASE, "max_distance": 1280}, "model": checkpoint_of(**TINY)}, path)
    model = imported(path)
    assert model.encoder.bias.max_distance == 1280
    assert format_of("beats", "unilm").write(model).config["cfg"]["max_distance"] == 1280


def test_other_kinds_are_refused(tmp_path):
    path = tmp_path / "beats.pt"
    torch.save({"cfg": {**BASE, "deep_norm": False}, "model": checkpoint_of(**TINY)}, path)
    with pytest.raises(ValueError, match="cfg has deep_norm False; all published BEATs have True"):
        imported(path)


def test_the_model_says_how_sounds_are_read(tmp_path):
    transform = imported(saved(tmp_path / "beats.pt", checkpoint_of(**TINY))).transform()
    assert isinstance(transform, SpectrogramTransform)
    assert (transform.features.gain, transform.features.num_bins, transform.frames) == (2.0**15, 128, None)


@torch.no_grad()
def test_ids_of_the_tokenizer_are_those_of_the_description(tmp_path):
    tensors = checkpoint_of(**{**TINY, "depth": 2}, codes=(50, 16))
    tensors["quantize_layer.0.weight"] *= 10  # so that patches get different ids
    tensors["quantize.embedding.weight"] = F.normalize(tensors["quantize.embedding.weight"], dim=-1)
    found = import_checkpoint(saved(tmp_path / "tokenizer.pt", tensors))
    tokenizer = found.parts[""]
    assert isinstance(tokenizer, BeatsTokenizer) and tokenizer.vocab_sizes == (50,)
    assert len(found.report.ignored) == 3
    items = spectrograms(48, 85)
    expected = []
    for values in items:
        x = naive_layers(tensors, values, 2, TINY["heads"])[-1]
        x = linear(tensors, "quantize_layer.2", torch.tanh(linear(tensors, "quantize_layer.0", x)))
        x = x / x.norm(dim=-1, keepdim=True)
        expected += [int(torch.stack([(code - row).square().sum() for code in tensors["quantize.embedding.weight"]]).argmin()) for row in x]
    assert len(set(expected)) > 2
    assert tokenizer.encode(torch.cat(items), torch.tensor([48, 85])).tolist() == expected
    assert tokenizer.encode(items[0][None]).tolist() == expected[:6]


def test_a_tokenizer_is_saved_and_written_back(tmp_path):
    tensors = checkpoint_of(**TINY, codes=(50, 16))
    tokenizer = import_checkpoint(saved(tmp_path / "tokenizer.pt", tensors)).parts[""]
    form = format_of("beats-tokenizer", "unilm")
    assert form.holds(tokenizer)
    written = form.write(tokenizer)
    anew = [f"quantize.embedding.{name}" for name in ("cluster_size", "embed_avg", "initted")]
    assert written.tensors.keys() == tensors.keys()
    check_same({name: x for name, x in written.tensors.items() if name not in anew}, tensors, tuple(anew))
    assert torch.equal(written.tensors["quantize.embedding.embed_avg"], tensors["quantize.embedding.weight"])
    assert written.config["cfg"]["quant_n"] == 50
    tokenizer.save_pretrained(tmp_path / "ours")
    again = BeatsTokenizer.from_pretrained(tmp_path / "ours")
    assert again.fingerprint() == tokenizer.fingerprint()
    (values,) = spectrograms(48)
    assert torch.equal(again.encode(values[None]), tokenizer.encode(values[None]))


def test_a_saved_model_is_the_same(tmp_path):
    model = imported(saved(tmp_path / "beats.pt", checkpoint_of(**TINY, classes=5)))
    randomized(model.heads["classes"])
    model.save_pretrained(tmp_path / "ours")
    (values,) = spectrograms(48)
    assert torch.equal(PretrainedModel.from_pretrained(tmp_path / "ours")(values[None]), model(values[None]))
