"""VQ-KD: ids and features equal those of the described steps, all 220 tensors are accounted for, and encoding changes nothing."""

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.pretrained import from_pretrained, import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.registry import format_of
from multimodal.tokenizers.image import VqKdTokenizer
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.quantizers import FiniteScalarQuantizer
from tests.pretrained.vision_parity import check_close, check_same, half, images, randomized

CODES, CODE, TEACHER = 30, 6, 10


def trunk(channels: int, patch: int, size: int, depth: int = 2) -> torch.nn.Module:
    """The trunk as timm has it: positions added, no relative bias, no layer scale, a norm of each token."""
    settings = {"use_abs_pos_emb": True, "use_rel_pos_bias": False, "init_values": 0.0, "global_pool": "token", "num_classes": 0}
    shape = {"img_size": size, "patch_size": patch, "in_chans": channels, "embed_dim": 32, "depth": depth, "num_heads": 4}
    return randomized(timm.create_model("beit_base_patch16_224", **settings, **shape), seed=channels)


def published(rows: int = 2) -> tuple[dict[str, torch.nn.Module], dict[str, Tensor]]:
    """The two trunks, and a whole file."""
    trunks = {"encoder": trunk(3, 16, 16 * rows), "decoder": trunk(CODE, 1, rows)}
    tensors = {f"{kind}.{name}": x for kind, own in trunks.items() for name, x in own.state_dict().items()}
    tensors = {name.replace("coder.norm.", "coder.fc_norm."): x for name, x in tensors.items()}
    generator = torch.Generator().manual_seed(5)
    linear = {
        "encode_task_layer.0": (32, 32),
        "encode_task_layer.2": (CODE, 32),
        "decode_task_layer.0": (32, 32),
        "decode_task_layer.2": (TEACHER, 32),
    }
    for name, shape in linear.items():
        tensors |= {
            f"{name}.weight": torch.randn(shape, generator=generator) * 0.3,
            f"{name}.bias": torch.randn(shape[0], generator=generator),
        }
    codes = F.normalize(torch.randn(CODES, CODE, generator=generator), dim=1)
    tensors |= {
        "quantize.embedding.weight": codes,
        "quantize.embedding.embed_avg": codes.clone(),
        "quantize.embedding.initted": torch.ones(1),
    }
    tensors |= {"quantize.embedding.cluster_size": torch.zeros(CODES), "quantize.cluster_size": torch.rand(CODES, generator=generator)}
    return trunks, tensors


def imported(tensors: dict[str, Tensor], folder) -> VqKdTokenizer:
    torch.save({"model": tensors}, folder / "vqkd.pth")
    tokenizer = import_checkpoint(folder / "vqkd.pth", options=ImportOptions(num_heads=4)).parts[""]
    assert isinstance(tokenizer, VqKdTokenizer)
    return tokenizer


@torch.no_grad()
def steps(trunks: dict, tensors: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and features by the description."""

    def layers(name: str, x: Tensor) -> Tensor:
        x = F.linear(x, tensors[f"{name}.0.weight"], tensors[f"{name}.0.bias"]).tanh()
        return F.linear(x, tensors[f"{name}.2.weight"], tensors[f"{name}.2.bias"])

    vectors = F.normalize(layers("encode_task_layer", trunks["encoder"].forward_features(half(pixels))[:, 1:]), dim=-1)
    codes = tensors["quantize.embedding.weight"]
    ids = (vectors[:, :, None] - codes).square().sum(-1).argmin(-1)
    side = int(ids.shape[1] ** 0.5)
    grid = codes[ids].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return ids, layers("decode_task_layer", trunks["decoder"].forward_features(grid)[:, 1:])


@pytest.mark.parametrize("rows", [2, 3])
def test_ids_and_features_follow_the_description(tmp_path, rows):
    trunks, tensors = published(rows)
    tokenizer, pixels = imported(tensors, tmp_path), images(16 * rows, count=6)
    ids, features = steps(trunks, tensors, pixels)
    assert len(ids.unique()) > 5
    assert torch.equal(tokenizer.encode(pixels), ids.flatten())
    with torch.no_grad():
        check_close(tokenizer.decode(ids.unflatten(1, (rows, rows))), features)
    assert tokenizer.vocab_sizes == (CODES,)


def test_the_range_is_fixed_and_not_that_of_the_batch(tmp_path):
    trunks, tensors = published()
    tokenizer, dark = imported(tensors, tmp_path), images() % 2  # all values 0 or 1: the original takes such a batch to lie in [0, 1]
    assert torch.equal(tokenizer.encode(dark), steps(trunks, tensors, dark)[0].flatten())
    mixed = torch.cat([dark, images()])
    assert torch.equal(tokenizer.encode(mixed)[: 2 * 4], tokenizer.encode(dark))


def test_encoding_changes_nothing_in_any_mode(tmp_path):
    tokenizer, pixels = imported(published()[1], tmp_path), images()
    before = {name: x.clone() for name, x in tokenizer.state_dict().items()}
    fingerprint, ids = tokenizer.fingerprint(), tokenizer.encode(pixels)
    for mode in (True, False):
        assert torch.equal(tokenizer.train(mode).encode(pixels), ids)
    assert tokenizer.fingerprint() == fingerprint
    assert all(torch.equal(x, before[name]) for name, x in tokenizer.state_dict().items())
    names = {name for name, _ in tokenizer.named_parameters()}
    assert not any(name.startswith("quantizer") for name in names)


def test_it_is_saved_and_written_back_as_it_was(tmp_path):
    _, tensors = published()
    tokenizer, pixels = imported(tensors, tmp_path), images()
    tokenizer.save_pretrained(tmp_path / "own")
    for again in (load_tokenizer(str(tmp_path / "own")), from_pretrained(tmp_path / "own")):
        assert torch.equal(again.encode(pixels), tokenizer.encode(pixels))
    check_same(format_of("vqkd", "unilm").write(tokenizer).tensors, tensors)


def test_an_encoder_alone_encodes(tmp_path):
    _, tensors = published()
    tokenizer, pixels = imported({k: x for k, x in tensors.items() if not k.startswith("decode")}, tmp_path), images()
    assert torch.equal(tokenizer.encode(pixels), imported(tensors, tmp_path).encode(pixels))
    with pytest.raises(ValueError, match="no decoder"):
        tokenizer.decode(torch.zeros(1, 2, 2, dtype=torch.long))


def test_codes_of_another_kind_have_no_place_in_the_file():
    with torch.device("meta"):
        lattice = VqKdTokenizer(num_codes=None, quantizer=FiniteScalarQuantizer)
        codebook = VqKdTokenizer()
    assert format_of("vqkd", "unilm").holds(codebook) and not format_of("vqkd", "unilm").holds(lattice)


def test_an_imported_codebook_is_ready_to_be_trained_on(tmp_path):
    tokenizer = imported(published()[1], tmp_path).train()
    codes = tokenizer.quantizer.codes.clone()
    tokenizer.quantizer.quantize(tokenizer.code_vectors(images()))
    assert bool(tokenizer.quantizer.initialized) and (tokenizer.quantizer.codes * codes).sum(1).median() > 0.99  # no k-means anew


def test_a_codebook_that_was_not_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="initted is 0"):
        imported({**published()[1], "quantize.embedding.initted": torch.zeros(1)}, tmp_path)


def test_other_sizes_are_refused(tmp_path):
    tokenizer = imported(published()[1], tmp_path)
    with pytest.raises(ValueError, match="reads images of 32 x 32 pixels, got 48 x 48"):
        tokenizer.encode(images(48))
    with pytest.raises(ValueError, match=r"on a grid of \(2, 2\), got \(3, 3\)"):
        tokenizer.decode(torch.zeros(1, 3, 3, dtype=torch.long))


def test_the_published_file(tmp_path):
    with torch.device("meta"):
        tokenizer = VqKdTokenizer()
    written = format_of("vqkd", "unilm").write(tokenizer).tensors
    codebook = ("quantize.embedding.weight", "quantize.embedding.cluster_size", "quantize.embedding.embed_avg")
    assert len(written) == 220
    assert written["encoder.pos_embed"].shape == (1, 197, 768) and written["decoder.patch_embed.proj.weight"].shape == (768, 32, 1, 1)
    assert sum(x.numel() for x in tokenizer.parameters()) + sum(written[name].numel() for name in codebook) == 109_361_696
    tensors = {name: torch.ones(x.shape) if "initted" in name else torch.zeros(x.shape) for name, x in written.items()}
    torch.save(
        {"model": {**tensors, "teacher_model.weight": torch.zeros(3), "scaling_layer.scale": torch.zeros(3), "loss_fn.x": torch.zeros(1)}},
        tmp_path / "x.pth",
    )
    report = import_checkpoint(tmp_path / "x.pth").report
    assert (report.num_read, len(report.ignored)) == (223, 3 + 3)
