import json
from pathlib import Path

import pytest
import yaml

from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform
from multimodal.tokenizers.midi import MidiTransform

ROOT = Path(__file__).resolve().parents[3]
IMAGES = {"class_path": "multimodal.tokenizers.image.ImageTransform", "init_args": {"size": 16, "scale": [0.5, 1.0]}}


@pytest.fixture
def tokenizer(tmp_path):
    made = DiscreteVAE(num_tokens=9, num_layers=2, width=4, codebook_dim=4)
    made.save_pretrained(tmp_path / "tokenizer")
    return made


@pytest.fixture
def config(tmp_path, tokenizer):
    """The parts of a config in three files, named by relative path."""

    def make(**modality):
        for folder, name, content in (
            ("transform", "pictures", IMAGES),
            ("modality", "pictures", {"class_path": "m.M", "init_args": {"transform": "../transform/pictures.yaml", **modality}}),
            ("pretrain", "main", {"model": {"init_args": {"modalities": {"sight": "../modality/pictures.yaml"}}}, "data": "gone.yaml"}),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "pretrain/main.yaml"

    return make


def loads(folder):
    return {"class_path": "multimodal.tokenizers.pretrained.load_tokenizer", "init_args": {"folder": str(folder)}}


def test_a_file_and_a_folder(tmp_path, tokenizer):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(IMAGES))
    transform, loaded = TokenizerRecipe.from_files(tmp_path / "t.yaml", tmp_path / "tokenizer").build()
    assert isinstance(transform, ImageTransform) and (transform.size, transform.scale) == (16, (0.5, 1.0))
    assert loaded.fingerprint() == tokenizer.fingerprint()


def test_the_config_of_a_pretraining_names_both(config, tmp_path, tokenizer):
    recipe = TokenizerRecipe.from_config(config(tokenizer=loads(tmp_path / "tokenizer")), "sight")
    transform, loaded = recipe.build()
    assert transform.size == 16 and loaded.fingerprint() == tokenizer.fingerprint()
    assert hash(recipe) == hash(TokenizerRecipe.from_config(config(tokenizer=loads(tmp_path / "tokenizer")), "sight"))


def test_a_tokenizer_on_the_command_line_goes_before_that_of_the_config(config, tmp_path, tokenizer):
    path = config(tokenizer=loads(tmp_path / "elsewhere"))
    _, loaded = TokenizerRecipe.from_config(path, "sight", tmp_path / "tokenizer").build()
    assert loaded.fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize(("recipe", "name"), [("images", "image"), ("music", "midi"), ("demo", "image"), ("demo", "midi")])
def test_the_recipes_of_the_project_are_understood(recipe, name, tmp_path, tokenizer):
    path = ROOT / f"configs/pretrain/{recipe}.yaml"
    made = TokenizerRecipe.from_config(path, name)
    if made.tokenizer is None:
        transform, loaded = made.build()
        assert isinstance(transform, MidiTransform) and transform.transpose == 5 and loaded is None
    else:
        assert json.loads(made.tokenizer)["class_path"].endswith("load_tokenizer")
        transform, _ = TokenizerRecipe.from_config(path, name, tmp_path / "tokenizer").build()
        assert isinstance(transform, ImageTransform)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**IMAGES, "init_args": {"siz": 3}}, "transform .multimodal.tokenizers.image.ImageTransform.: Option 'siz' is not accepted"),
        ({**IMAGES, "init_args": {"flip": 2.0}}, "flip must be a probability"),
        ({"class_path": "multimodal.tokenizers.image.Gone"}, "has no attribute 'Gone'"),
        ({"class_path": "multimodal.tokenizers.image.DiscreteVAE"}, "transform"),
        (None, "the transform is empty"),
        ("no class", "transform"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(tmp_path, settings, message):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=message) as error:
        TokenizerRecipe.from_files(tmp_path / "t.yaml", None).build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {init_args: {modalities: {sound: {}}}}", r"has no model.init_args.modalities.sight; modalities there: sound"),
        ("model: {init_args: {modalities: {sight: {}}}}", r"modality 'sight' has no transform"),
        ("model: {init_args: {modalities: {sight: {init_args: {masking: x}}}}}", r"modality 'sight' has no transform"),
        ("model: {init_args: {modalities: {sight: {init_args: {transform: gone.yaml}}}}}", r"gone.yaml cannot be read: .*No such file"),
        ("trainer: {}", r"has no model.init_args.modalities.sight\."),
        ("[1, 2]", r"has no model.init_args.modalities.sight\."),
        ("a: [", r"cannot be read: while parsing"),
    ],
)
def test_a_config_without_the_modality_is_named(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        TokenizerRecipe.from_config(path, "sight")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_missing_file_or_folder_is_named(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"gone.yaml cannot be read"):
        TokenizerRecipe.from_files(tmp_path / "gone.yaml", None)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(IMAGES))
    with pytest.raises(ValueError, match=r"no tokenizer in .*gone: config.json not found"):
        TokenizerRecipe.from_files(tmp_path / "t.yaml", tmp_path / "gone").build()
