"""What is published of BEATs and of the AST family, in numbers: front ends, frames and patches, their order; and ids of another library."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchaudio.compliance.kaldi import fbank

from multimodal.batch import Item, Sample, collate
from multimodal.masking import Drop, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Attention, BucketedBias, ConvPosition, Decoder, DeepNormBlock, Encoder, GatedBias
from multimodal.tokenizers.audio import LogMel, NormedProjection, RandomProjectionTokenizer, SpectrogramEmbed, SpectrogramTransform
from multimodal.tokenizers.audio.patches import cut_patches
from multimodal.training import MaskedPretraining
from tests.pretrained.vision_parity import randomized

SECOND = 16_000


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_the_front_end_of_beats():
    """unilm ``beats/BEATs.py``: 16-bit samples, and Kaldi's settings but for the number of bins."""
    wave = noise(3 * SECOND) + 0.05
    theirs = fbank((wave * 2**15)[None], num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10)
    assert (LogMel()(wave) - theirs).abs().max() < 5e-4


def test_the_front_end_of_ast_audiomae_and_eat():
    """A waveform without its mean, Hanning's window, no dither, no factor."""
    wave = noise(3 * SECOND) + 0.05
    theirs = fbank(
        (wave - wave.mean())[None],
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    own = LogMel(window="hanning", gain=1.0)(wave)
    loud = theirs > -10  # at full scale 1 rounding of the constant is heard in the quietest bins, which are at -16
    assert loud.float().mean() > 0.9 and (own - theirs)[loud].abs().max() < 5e-3
    beats = LogMel()(wave)
    assert (beats - own)[loud].mean() == pytest.approx(20.8, abs=0.1)


@pytest.mark.parametrize(
    ("seconds", "frames", "grid"), [(1, 98, (6, 8)), (10, 998, (62, 8)), (30, 2998, (187, 8)), (10.255, 1024, (64, 8))]
)
def test_numbers_of_frames_and_patches(seconds, frames, grid):
    features = LogMel()
    samples = round(seconds * SECOND)
    assert features.num_frames(samples) == 1 + (samples - 400) // 160 == frames
    tokens = SpectrogramEmbed(8).tokens(features(noise(samples))[None])
    assert tokens.grid == grid and tokens.lengths.tolist() == [grid[0] * grid[1]]


def test_published_lengths_are_filled_or_cut_to_512_patches():
    transform = SpectrogramTransform(frames=1024)
    item = transform.example()
    assert SpectrogramEmbed(8).tokens(item.values[None]).lengths.tolist() == [512]


def test_the_place_of_a_patch_is_8_t_plus_f():
    spectrogram = torch.zeros(998, 128)
    places = list(itertools.product(range(62), range(8)))
    for t, f in places:
        spectrogram[16 * t : 16 * t + 16, 16 * f : 16 * f + 16] = 8 * t + f
    for values, lengths in ((spectrogram[None], None), (spectrogram, torch.tensor([998]))):
        tokens = cut_patches(values, lengths, (16, 16), (16, 16))
        assert torch.equal(tokens.inputs, torch.arange(496.0)[:, None].expand(-1, 256))
        assert tokens.coordinates.tolist() == [list(place) for place in places]


def make_beats() -> MaskedPretraining:
    """BEATs with all its parts, small, and with weights that all matter."""
    torch.manual_seed(0)
    encoder = Encoder(
        dim=32,
        depth=3,
        num_heads=4,
        block=DeepNormBlock,
        attention=partial(Attention, content_bias=GatedBias),
        bias=BucketedBias,
        convolution=partial(ConvPosition, kernel_size=16, groups=4),
    )
    modality = partial(
        Modality,
        transform=SpectrogramTransform(),
        embed=partial(SpectrogramEmbed, projection=partial(NormedProjection, hidden_dim=24), position=None),
        masking=RandomMasking(0.75),
        corruption=Drop(),
        tokenizer=RandomProjectionTokenizer(num_codes=20, code_dim=8, hidden_dim=16),
        decoder=partial(Decoder, width=16, depth=1, num_heads=2),
    )
    model = MaskedPretraining(encoder, {"sounds": modality})
    randomized(model.encoder)
    return model.eval()


BEATS = make_beats()


def batch_of(lengths: list[int]):
    items = [15.4 + 6.5 * torch.randn(count, 128, generator=torch.Generator().manual_seed(count)) for count in lengths]
    samples = [Sample(str(count), {"sounds": Item(item, ragged=True)}, seed=count) for count, item in zip(lengths, items, strict=True)]
    return collate(samples)


@given(lengths=st.lists(st.integers(16, 130), min_size=2, max_size=6, unique=True))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_a_clip_alone_is_the_clip_in_any_batch(lengths):
    together = batch_of(lengths)
    part = BEATS.encode({"sounds": BEATS.modalities["sounds"].plain_tokens(together.items["sounds"])})
    tokens = part.tokens.split([count // 16 * 8 for count in lengths])
    ids = BEATS.modalities["sounds"].ids(together.items["sounds"]).split([len(own) for own in tokens])
    for place, count in enumerate(lengths):
        alone = batch_of([count]).items["sounds"]
        own = BEATS.encode({"sounds": BEATS.modalities["sounds"].plain_tokens(alone)}).tokens
        assert own.abs().mean() > 0.1
        torch.testing.assert_close(tokens[place], own, atol=1e-5, rtol=0)
        assert torch.equal(ids[place], BEATS.modalities["sounds"].ids(alone))


@torch.no_grad()
def test_what_is_hidden_of_a_clip_and_predicted_for_it_does_not_depend_on_the_batch():
    lengths = [98, 33, 64]
    together = BEATS(batch_of(lengths)).views["sounds"]
    hidden = together.hidden.split([int(x.sum()) for x in together.view.masked.split([n // 16 * 8 for n in lengths])])
    for place, count in enumerate(lengths):
        alone = BEATS(batch_of([count])).views["sounds"]
        assert alone.view.masked.sum() == round(0.75 * (count // 16 * 8))
        torch.testing.assert_close(hidden[place], alone.hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "kind", [{"hidden_dim": 128}, {"hidden_dim": None, "normalize_patches": True, "cosine": True}], ids=["two maps", "BEST-RQ"]
)
def test_ids_are_those_of_another_library_with_the_same_weights(kind):
    """It compares directions, and does not centre what it projects: where ours does, codes are centred here and have one length."""
    library = pytest.importorskip("vector_quantize_pytorch", reason="pip install vector-quantize-pytorch")
    own = RandomProjectionTokenizer(num_codes=500, code_dim=64, **kind)
    codes = own.codebook if own.cosine else own.codebook - own.codebook.mean(1, keepdim=True)
    own.codebook = codes if own.cosine else F.normalize(codes, dim=1)
    theirs = library.RandomProjectionQuantizer(dim=len(own.second), codebook_size=500, codebook_dim=64)
    theirs.rand_projs.copy_(own.second[None])
    theirs.vq._codebook.embed.data.copy_(F.normalize(codes, dim=1)[None])
    values = 15.4 + 66 * noise(998 * 128).view(1, 998, 128)
    patches = (cut_patches(values, None, (16, 16), (16, 16)).inputs - own.mean) / own.std
    expected = theirs((patches if own.first is None else patches @ own.first)[None]).flatten()
    ids = own.encode(values)
    assert len(ids) == 496 and len(ids.unique()) > 200
    assert torch.equal(ids, expected)
