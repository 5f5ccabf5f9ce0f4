"""Small recipes, and a few tones to learn from."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from multimodal.cli import main
from multimodal.config_files import read_config
from tests.tokenizers.zoo import sound

CONFIGS = Path(__file__).parents[2] / "configs"
ENCODER = {"dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """Shards of 16 decaying tones of different length, half of them "low"."""
    folder, random = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for number in range(16):
        kind = "low" if number % 2 else "high"
        time = np.arange(int(16_000 * random.uniform(0.3, 0.8))) / 16_000
        wave = 0.3 * np.sin(2 * np.pi * (300 if number % 2 else 3000) * time) * np.exp(-4 * time) + 0.01 * random.standard_normal(len(time))
        (folder / "files" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "files" / kind / f"{number:02d}.wav").write_bytes(sound("WAV", "PCM_16", 16_000, samples=wave.astype(np.float32)))
    assert main(["shards", "write", str(folder / "files"), "--to", str(folder / "shards"), "--split", "train=0.75,val=0.25"]) == 0
    return folder / "shards"


@pytest.fixture(scope="session")
def recipes(tones, tmp_path_factory) -> Path:
    """A folder with ``iterate.yaml``, which stores ids, and the recipes that it names."""
    folder = tmp_path_factory.mktemp("recipes")
    pretrain = read_config(CONFIGS / "pretrain/beats_sounds.yaml")
    tokenizer = read_config(CONFIGS / "tokenizer/beats_sounds.yaml")
    for recipe in (pretrain, tokenizer):
        recipe["data"] = {
            "class_path": "multimodal.datamodules.shard_datamodule.ShardDataModule",
            "init_args": {"shards": str(tones), "batch_size": 4},
        }
        recipe["trainer"] = {"max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False}
    model = pretrain["model"]["init_args"]
    model["encoder"] = model["encoder"] | ENCODER
    modality = model["modalities"]["audio"]["init_args"]
    modality["decoder"]["init_args"] = {"width": 16, "depth": 1, "num_heads": 2}
    modality["tokenizer"]["init_args"]["num_codes"] = 64
    made = tokenizer["model"]["init_args"]["tokenizer"]["init_args"]
    made |= {"num_codes": 16, "code_dim": 8}
    made["encoder"]["init_args"] |= ENCODER
    made["estimator"]["init_args"] |= {"dim": 16, "num_heads": 2}
    plan = {"modality": "audio", "pretrain": "pretrain.yaml", "tokenizer": "tokenizer.yaml", "crops": 2}
    for name, content in {"pretrain": pretrain, "tokenizer": tokenizer, "finetune": finetune(modality, tones), "iterate": plan}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def finetune(modality: dict, tones: Path) -> dict:
    """Return a recipe that tells low tones from high ones."""
    load = "multimodal.pretrained.load_"
    reads = {
        "transform": modality["transform"],
        "embed": {"class_path": load + "embed", "init_args": {"folder": "none", "modality": "audio"}},
    }
    head = {"class_path": "multimodal.heads.ClassificationHead", "init_args": {"num_classes": 2}}
    model = {
        "encoder": {"class_path": load + "encoder", "init_args": {"folder": "none"}},
        "modalities": {"audio": {"class_path": "multimodal.modality.Input", "init_args": reads}},
        "heads": {"label": head},
    }
    data = {"shards": str(tones), "batch_size": 4}
    return {
        "model": {"class_path": "multimodal.training.FineTuning", "init_args": model},
        "data": {"class_path": "multimodal.datamodules.shard_datamodule.ShardDataModule", "init_args": data},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False},
    }
