"""Configs of rounds: what they may say, and what is set in the recipes of a round."""

from pathlib import Path

import pytest
import yaml

from multimodal.cli import main
from multimodal.iteration.plan import IterationPlan

ROOT = Path(__file__).parents[2]


def written(folder: Path, **content) -> Path:
    (folder / "iterate.yaml").write_text(yaml.safe_dump(content))
    return folder / "iterate.yaml"


@pytest.mark.parametrize("name", ["beats_base", "beats_sounds"])
def test_the_configs_that_come_with_the_project_are_whole(name):
    plan, run = IterationPlan.read(ROOT / f"configs/iterate/{name}.yaml")
    assert run == f"runs/{name}_rounds" and plan.sources
    assert "RandomProjectionTokenizer" in str(plan.first_tokenizer)
    config = plan.tokenizer_config(Path("taught"), 2, Path("here"))
    assert "'folder': 'taught'" in str(config) and config["run"] == "here"
    config = plan.pretrain_config(Path("made"), [Path("a"), Path("b")], Path("there"))
    assert config["data"]["init_args"]["shards"] == ["a", "b"]
    assert config["model"]["init_args"]["modalities"]["audio"]["init_args"]["tokenizer"]["init_args"] == {"folder": "made"}
    assert "made" not in str(plan.pretrain), "the recipe itself stays as it is"


def test_a_fine_tuned_teacher_is_read_by_its_head():
    plan, _ = IterationPlan.read(ROOT / "configs/iterate/beats_base.yaml")
    finetune = {"model": {"class_path": "multimodal.pretrained.load_encoder"}}
    plan = IterationPlan(**vars(plan) | {"finetune": finetune, "supervised_from": 3, "supervised_lr": 5e-4})
    rates = [plan.tokenizer_config(Path("x"), number, Path("y"))["model"]["init_args"]["optimizer"]["init_args"] for number in (2, 3)]
    assert rates == [{"lr": rate, "betas": [0.9, 0.98], "weight_decay": 0.01} for rate in (5e-5, 5e-4)]
    assert [plan.is_supervised(number) for number in (1, 2, 3, 4)] == [False, False, True, True]
    assert "'head': 'classes'" in str(plan.tokenizer_config(Path("x"), 3, Path("y")))
    assert "head': 'classes'" not in str(plan.tokenizer_config(Path("x"), 2, Path("y")))
    assert plan.finetune_config(Path("m"), Path("r"))["model"]["init_args"] == {"folder": "m"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": ""}, "modality is missing"),
        ({"modality": "smell"}, r"the recipe of pretrain has no model.init_args.modalities.smell"),
        ({"round": 3}, "unknown key 'round'; allowed are modality"),
        ({"tokenizer": "tokenizer"}, "tokenizer must be the path of a recipe"),
        ({"tokenizer": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"tokenizer": "pretrain.yaml"}, "names no teacher of the class EncoderTeacher"),
        ({"crops": -1}, "crops must be at least 0, got -1"),
        ({"crops": "many"}, "crops must be of the kind int, got 'many'"),
        ({"supervised_from": 2}, "finetune and supervised_from belong together"),
        ({"supervised_lr": 1e-3}, "supervised_lr must be above 0, and has an effect only with supervised_from; got 0.001"),
        ({"finetune": "tokenizer.yaml", "supervised_from": 1}, "supervised_from must be a round from 2 on"),
        ({"finetune": "tokenizer.yaml", "supervised_from": 2}, "names none of load_encoder, load_embed"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, recipes, change, message, capsys):
    for name in ("pretrain", "tokenizer"):
        (tmp_path / f"{name}.yaml").write_text((recipes / f"{name}.yaml").read_text())
    content = {"modality": "audio", "pretrain": "pretrain.yaml", "tokenizer": "tokenizer.yaml", "run": str(tmp_path / "run")} | change
    path = written(tmp_path, **content)
    with pytest.raises(ValueError, match=message):
        IterationPlan.read(path)
    assert main(["tokenizers", "iterate", "--config", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_what_is_made_on_the_device_is_refused_since_tokenizers_would_not_see_it(recipes):
    plan, _ = IterationPlan.read(recipes / "iterate.yaml")
    pretrain = yaml.safe_load(yaml.safe_dump(plan.pretrain))
    pretrain["model"]["init_args"]["modalities"]["audio"]["init_args"]["preparation"] = ["multimodal.tokenizers.audio.Spectrograms"]
    with pytest.raises(ValueError, match="modality 'audio' of pretrain has a preparation"):
        IterationPlan(**vars(plan) | {"pretrain": pretrain})


def test_a_config_without_a_run_asks_for_one(recipes, capsys):
    assert main(["tokenizers", "iterate", "--config", str(recipes / "iterate.yaml")]) == 2
    assert "give the folder for all rounds by --run" in capsys.readouterr().err
    assert main(["tokenizers", "iterate", "--config", str(recipes / "iterate.yaml"), "--run", "x", "--rounds", "0"]) == 2
    assert "--rounds must be at least 1, got 0" in capsys.readouterr().err
