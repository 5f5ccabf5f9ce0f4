"""Spectrograms in pretraining: a config builds the modality, and an encoder learns to predict hidden patches."""

from collections.abc import Callable

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser

from multimodal.batch import Sample, collate
from multimodal.modality import Modality
from multimodal.nn import BucketedBias, Encoder
from multimodal.recorded import build
from multimodal.training import MaskedPretraining
from tests.tokenizers.zoo import sound, tone

MODALITY = """
class_path: multimodal.modality.Modality
init_args:
  transform:
    class_path: multimodal.tokenizers.audio.SpectrogramTransform
    init_args:
      frames: 48
      sound:
        class_path: multimodal.tokenizers.audio.AudioTransform
        init_args: {seconds: 0.5}
      features:
        class_path: multimodal.tokenizers.audio.LogMel
        init_args: {num_bins: 64}
  embed:
    class_path: multimodal.tokenizers.audio.SpectrogramEmbed
    init_args:
      projection:
        class_path: multimodal.tokenizers.audio.NormedProjection
        init_args: {hidden_dim: 24}
  tokenizer:
    class_path: multimodal.tokenizers.audio.RandomProjectionTokenizer
    init_args: {num_codes: 12, code_dim: 4, hidden_dim: 16}
  masking:
    class_path: multimodal.masking.RandomMasking
    init_args: {mask_ratio: 0.5}
"""


def modality_from(text: str):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--modalities", type=dict[str, Callable[[int], Modality]])
    return parser.instantiate(parser.parse_object({"modalities": {"sounds": yaml.safe_load(text)}})).modalities


def samples(transform, count: int) -> list[Sample]:
    made = []
    for number in range(count):
        file = sound("WAV", "FLOAT", 16_000, samples=tone(0.4 + 0.02 * number, 16_000) * (1 + number) / count)
        item = transform(transform.decode(file), torch.Generator().manual_seed(number), True)
        made.append(Sample(f"sound{number}", {"sounds": item}, seed=1000 + number))
    return made


def test_the_loss_falls_on_a_fixed_batch():
    torch.manual_seed(0)
    encoder = Encoder(dim=32, depth=2, num_heads=2, bias=BucketedBias)
    model = MaskedPretraining(encoder, modality_from(MODALITY), optimizer=lambda groups: torch.optim.AdamW(groups, lr=5e-3))
    batch = collate(samples(model.modalities["sounds"].transform, 4))
    view = model.modalities["sounds"].masked_view(batch.items["sounds"])
    assert view.tokens.grid == (3, 4) and len(view.targets) == 48 and view.masked.sum() == 24
    losses: list[float] = []
    model.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    loader = torch.utils.data.DataLoader([batch] * 40, batch_size=None)
    L.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(model, loader)
    assert losses[-1] < 0.4 * losses[0]


def test_an_embedding_is_built_with_the_settings_of_a_file():
    part = {"class_path": "multimodal.tokenizers.audio.SpectrogramEmbed", "init_args": {"stride": [10, 10], "frequency_first": True}}
    embed = build(part, 8)
    assert embed.tokens(torch.zeros(1, 26, 36)).grid == (3, 2)
