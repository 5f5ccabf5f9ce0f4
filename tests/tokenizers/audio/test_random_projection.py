"""Ids by random projection: the same for a seed, the nearest code, and spread over the codebook."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.tokenizers.audio import RandomProjectionTokenizer
from multimodal.tokenizers.pretrained import load_tokenizer

SMALL = {"num_codes": 40, "code_dim": 8, "hidden_dim": 12}


def spectrograms(count: int = 2, frames: int = 64) -> torch.Tensor:
    return 15.4 + 6.6 * torch.randn(count, frames, 128, generator=torch.Generator().manual_seed(0))


def test_an_id_is_the_nearest_code_of_its_patch():
    tokenizer, values = RandomProjectionTokenizer(**SMALL), spectrograms()
    expected = []
    for item in values:
        for t in range(0, 64, 16):
            for f in range(0, 128, 16):
                x = (item[t : t + 16, f : f + 16].flatten() - 15.41663) / 13.11164
                x = F.layer_norm(F.layer_norm(x @ tokenizer.first, (12,)) @ tokenizer.second, (8,))
                expected.append(int((tokenizer.codebook - x).norm(dim=1).argmin()))
    assert tokenizer.encode(values).tolist() == expected
    assert tokenizer.encode(values.flatten(0, 1), torch.tensor([64, 64])).tolist() == expected


def test_ids_follow_the_seed_alone():
    values = spectrograms()
    torch.manual_seed(1)
    first = RandomProjectionTokenizer(**SMALL)
    torch.manual_seed(2)
    second, other = RandomProjectionTokenizer(**SMALL), RandomProjectionTokenizer(**SMALL, seed=1)
    assert torch.equal(first.encode(values), second.encode(values)) and first.fingerprint() == second.fingerprint()
    assert not torch.equal(first.encode(values), other.encode(values)) and first.fingerprint() != other.fingerprint()


def test_ids_spread_over_the_codebook():
    tokenizer = RandomProjectionTokenizer()
    assert tokenizer.vocab_sizes == (1024,)
    assert len(tokenizer.encode(spectrograms(20, 256)).unique()) > 300


def test_weights_start_as_xavier():
    tokenizer = RandomProjectionTokenizer()
    assert tokenizer.first.abs().max() <= (6 / (256 + 512)) ** 0.5
    assert tokenizer.first.std() == pytest.approx((2 / (256 + 512)) ** 0.5, rel=0.02)
    assert tokenizer.second.std() == pytest.approx((2 / (512 + 256)) ** 0.5, rel=0.02)


def test_loudness_makes_no_difference_to_normalised_patches():
    tokenizer, values = RandomProjectionTokenizer(**SMALL, normalize_patches=True), spectrograms()
    assert torch.equal(tokenizer.encode(values), tokenizer.encode(values + 3))
    assert not torch.equal(RandomProjectionTokenizer(**SMALL).encode(values), RandomProjectionTokenizer(**SMALL).encode(values + 3))


def test_ids_agree_with_vector_quantize_pytorch():
    theirs = pytest.importorskip("vector_quantize_pytorch").RandomProjectionQuantizer(dim=256, codebook_size=40, codebook_dim=8).eval()
    tokenizer = RandomProjectionTokenizer(num_codes=40, code_dim=8, hidden_dim=None, normalize_patches=True, cosine=True)
    tokenizer.second.copy_(theirs.rand_projs[0])
    tokenizer.codebook.copy_(theirs.vq.codebook[0])
    values = spectrograms(6, 160)
    patches = values.unfold(1, 16, 16).unfold(2, 16, 16).flatten(3).flatten(1, 2)  # items, patches, values
    assert torch.equal(tokenizer.encode(values), theirs(patches).flatten())
    assert len(tokenizer.encode(values).unique()) > 30


def test_it_is_saved_and_loaded(tmp_path):
    tokenizer = RandomProjectionTokenizer(**SMALL, seed=5)
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(load_tokenizer(str(tmp_path)).encode(spectrograms()), tokenizer.encode(spectrograms()))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="must be at least 1, got 0, 256 and 512"):
        RandomProjectionTokenizer(num_codes=0)
    with pytest.raises(ValueError, match=r"std must be positive, got -1\.0"):
        RandomProjectionTokenizer(std=-1.0)
