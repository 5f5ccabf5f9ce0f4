"""DALL-E's tokenizer: ids equal those of transformers' codebook and of the published description; pickles, safetensors and back."""

import math
import sys
import types
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from multimodal.pretrained import from_pretrained, import_checkpoint
from multimodal.pretrained.registry import format_of
from multimodal.tokenizers.image import DalleTokenizer
from multimodal.tokenizers.pretrained import load_tokenizer
from tests.pretrained.vision_parity import check_close, check_same, images, write

WIDTH, TOKENS, CODE = 8, 40, 6


def published(kind: str, width: int = WIDTH, tokens: int = TOKENS, code: int = CODE) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a published file."""
    encoder = kind == "encoder"
    widths = [width * 2**i for i in range(4)][:: 1 if encoder else -1]
    first, last = ((width, 3, 7, 7), (tokens, widths[-1], 1, 1)) if encoder else ((code, tokens, 1, 1), (6, widths[-1], 1, 1))
    shapes, before = {"blocks.input": first, "blocks.output.conv": last}, first[0]
    for group, out in enumerate(widths, 1):
        for block in (1, 2):
            name, hidden = f"blocks.group_{group}.block_{block}", out // 4
            if before != out:
                shapes[f"{name}.id_path"] = (out, before, 1, 1)
            sides = (3, 3, 3, 1) if encoder else (1, 3, 3, 3)
            for conv, (a, b, k) in enumerate(zip((before, *[hidden] * 3), (*[hidden] * 3, out), sides, strict=True), 1):
                shapes[f"{name}.res_path.conv_{conv}"] = (b, a, k, k)
            before = out
    weights = {f"{name}.w": shape for name, shape in shapes.items()}
    return {**weights, **{f"{name}.b": shape[:1] for name, shape in shapes.items()}}


def random_tensors(kind: str, seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """Weights with which ids vary and pixels do not all lie at the ends of their range."""
    generator, gain = torch.Generator().manual_seed(seed), 8 if kind == "encoder" else 2
    made = {}
    for name, shape in published(kind, **sizes).items():
        scale = 1.0 if len(shape) == 1 else (gain / math.prod(shape[1:])) ** 0.5
        made[name] = torch.randn(shape, generator=generator) * scale
    return made


def run(tensors: dict[str, torch.Tensor], x: torch.Tensor, kind: str) -> torch.Tensor:
    """What the description says, step by step."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        weight = tensors[f"{name}.w"]
        return F.conv2d(x, weight, tensors[f"{name}.b"], padding=(weight.shape[-1] - 1) // 2)

    x = conv("blocks.input", x)
    for group in range(1, 5):
        for block in (1, 2):
            name, branch = f"blocks.group_{group}.block_{block}", x
            for i in range(1, 5):
                branch = conv(f"{name}.res_path.conv_{i}", branch.clamp(min=0))
            x = (conv(f"{name}.id_path", x) if f"{name}.id_path.w" in tensors else x) + branch / 64
        if group < 4:
            x = F.max_pool2d(x, 2) if kind == "encoder" else x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return conv("blocks.output.conv", x.clamp(min=0))


def module_tree(tensors: dict[str, torch.Tensor], classes: dict[str, type]) -> nn.Module:
    """A module with these parameters whose classes have the paths of the original."""
    root = classes["Encoder"]()
    for name, x in tensors.items():
        owner = root
        *places, leaf = name.split(".")
        for i, place in enumerate(places):
            if place not in owner._modules:
                kind = "Conv2d" if i == len(places) - 1 else "EncoderBlock" if place.startswith("block_") else "Sequential"
                owner.add_module(place, classes[kind]())
            owner = owner._modules[place]
        owner.register_parameter(leaf, nn.Parameter(x.clone(), requires_grad=False))
    root.blocks.output.add_module("relu", nn.ReLU())
    root.blocks.group_1.add_module("pool", nn.MaxPool2d(kernel_size=2))
    return root


@pytest.fixture
def dall_e(monkeypatch) -> dict[str, type]:
    """The classes of the original, by its paths, for as long as a test pickles them."""
    classes = {"Sequential": nn.Sequential}
    for path, names in (("dall_e", ()), ("dall_e.encoder", ("Encoder", "EncoderBlock")), ("dall_e.utils", ("Conv2d",))):
        module = types.ModuleType(path)
        monkeypatch.setitem(sys.modules, path, module)
        for name in names:
            classes[name] = type(name, (nn.Module,), {"__module__": path, "device": torch.device("cpu")})
            setattr(module, name, classes[name])
    return classes


def save_pickles(folder: Path, classes: dict[str, type], legacy: bool = False, kinds: tuple[str, ...] = ("encoder", "decoder")) -> dict:
    tensors = {kind: random_tensors(kind, seed) for seed, kind in enumerate(kinds)}
    for kind, own in tensors.items():
        tree = module_tree(own, classes)
        tree.device, tree.vocab_size = torch.device("cpu"), TOKENS
        torch.save(tree, folder / f"{kind}.pkl", _use_new_zipfile_serialization=not legacy)
    return tensors


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_pickled_modules_become_a_tokenizer_as_described(tmp_path, dall_e, monkeypatch, legacy):
    tensors = save_pickles(tmp_path, dall_e, legacy)
    for name in [name for name in sys.modules if name.startswith("dall_e")]:
        monkeypatch.delitem(sys.modules, name)
    tokenizer, pixels = import_checkpoint(tmp_path).parts[""], images(32, 48)
    assert isinstance(tokenizer, DalleTokenizer) and not any(name.startswith("dall_e") for name in sys.modules)
    with torch.no_grad():
        expected = run(tensors["encoder"], 0.8 * pixels / 255 + 0.1, "encoder")
        check_close(tokenizer.logits(pixels), expected)
        assert tokenizer.encode(pixels).unflatten(0, (2, 4, 6)).equal(expected.argmax(1))
        ids = torch.randint(0, TOKENS, (2, 3, 5), generator=torch.Generator().manual_seed(0))
        decoded = run(tensors["decoder"], F.one_hot(ids, TOKENS).movedim(-1, 1).float(), "decoder")[:, :3].sigmoid()
        check_close(tokenizer.decode(ids), ((decoded - 0.1) / 0.8).clamp(0, 1))
    assert len(tokenizer.encode(pixels).unique()) >= 5


def test_an_encoder_alone_encodes_and_says_that_it_cannot_decode(tmp_path, dall_e):
    save_pickles(tmp_path, dall_e, kinds=("encoder",))
    tokenizer = import_checkpoint(tmp_path / "encoder.pkl").parts[""]
    assert tokenizer.encode(images()).shape == (2 * 16,)
    with pytest.raises(ValueError, match=r"no decoder: import decoder\.pkl"):
        tokenizer.decode(torch.zeros(1, 2, 2, dtype=torch.long))


def test_safetensors_made_of_the_pickles_are_written_back_as_they_were(tmp_path):
    both = {f"{kind}.{name}": x for kind in ("encoder", "decoder") for name, x in random_tensors(kind).items()}
    save_file(both, tmp_path / "dalle.safetensors")
    tokenizer = import_checkpoint(tmp_path / "dalle.safetensors").parts[""]
    check_same(format_of("dalle", "openai").write(tokenizer).tensors, both)
    tokenizer.save_pretrained(tmp_path / "own")
    again, pixels = load_tokenizer(str(tmp_path / "own")), images()
    assert torch.equal(again.encode(pixels), tokenizer.encode(pixels))
    assert again.fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize("prefix", ["", "image_codebook."])
@pytest.mark.parametrize("size", [32, 48])
def test_the_codebook_of_flava_gives_equal_logits(tmp_path, prefix, size):
    torch.manual_seed(0)
    reference = transformers.FlavaImageCodebook(transformers.FlavaImageCodebookConfig(hidden_size=WIDTH, vocab_size=TOKENS)).eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = reference.state_dict()
    assert len(state) == 74
    save_file({prefix + name: x for name, x in state.items()}, tmp_path / "model.safetensors")
    tokenizer, pixels = import_checkpoint(tmp_path).parts[""], images(size)
    mapped = 0.8 * pixels / 255 + 0.1
    with torch.no_grad():
        check_close(tokenizer.logits(pixels), reference(mapped))
        assert tokenizer.encode(pixels).equal(reference.get_codebook_indices(mapped).flatten())
    written = write(tokenizer, "transformers", tmp_path / "back", "dalle")
    again = transformers.FlavaImageCodebook.from_pretrained(written).eval()
    check_same(again.state_dict(), state)
    assert isinstance(from_pretrained(written), DalleTokenizer)


def test_the_published_sizes():
    assert [len(published(kind, 256, 8192, 128)) for kind in ("encoder", "decoder")] == [74, 76]
    with torch.device("meta"):
        tokenizer = DalleTokenizer()
    for kind, network in (("encoder", tokenizer.encoder), ("decoder", tokenizer.decoder)):
        own = sorted(tuple(x.shape) for x in network.parameters())
        assert own == sorted(published(kind, 256, 8192, 128).values())
    assert sum(x.numel() for x in tokenizer.encoder.parameters()) == 53_786_240
    assert sum(x.numel() for x in tokenizer.decoder.parameters()) == 43_829_766
    assert tokenizer.vocab_sizes == (8192,)


def test_ids_do_not_depend_on_autocast():
    torch.manual_seed(0)
    tokenizer, pixels = DalleTokenizer(64, 16, decoder=False), images()
    with torch.autocast("cpu", torch.bfloat16):
        logits = tokenizer.logits(pixels)
    assert logits.dtype == torch.float32 and torch.equal(logits, tokenizer.logits(pixels))


def test_sides_that_the_stride_does_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"whose sides 8 divides, got \(32, 36\)"):
        DalleTokenizer(8, 4, decoder=False).encode(images(32, 36))
