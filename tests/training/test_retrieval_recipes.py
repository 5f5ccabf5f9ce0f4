"""The recipes of retrieval run as they stand on a small model: from files to scores, embeddings and lists."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.moving_digits.films import write_film
from multimodal.cli import main
from multimodal.heads import LateInteraction, PooledEmbedding
from multimodal.lightning_cli import _command
from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.settings import part

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI.s args parameter")

CONFIGS = Path(__file__).resolve().parents[2] / "configs/finetune"
WORDS = [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"), ("six", "sechs")]


@pytest.fixture
def folder(tmp_path):
    """A small model of texts with its vocabulary, and shards of numbers in two languages."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *(word for pair in WORDS for word in pair)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    encoder = part("multimodal.nn.Encoder", dim=16, depth=2, num_heads=2)
    embed = part("multimodal.tokenizers.text.TextEmbed", vocab_size=len(vocabulary))
    PretrainedModel(ModelSettings(encoder, {"text": embed})).save_pretrained(tmp_path / "model")
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    rows = [
        {"key": f"{split}{number}", "english": " ".join((one, *english)), "german": german, "split": split}
        for split, english in (("train", ["five"]), ("val", []), ("test", ["one"]))
        for number, (one, german) in enumerate(WORDS)
    ]
    listed = tmp_path / "pairs.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["--key-column", "key", "--split-column", "split", "--text-columns", "english,german"]
    assert main(["shards", "write", str(listed), "--to", str(tmp_path / "shards"), "--workers", "0", *columns]) == 0
    return tmp_path


def options(name: str, folder: Path) -> list[str]:
    """Return the options of a recipe for texts, with the small model in the place of the published one."""
    model, start = str(folder / "model"), "--model.init_args"
    given = [f"{start}.encoder.init_args.folder={model}"]
    for language in ("english", "german"):
        parts = f"{start}.modalities.{language}.init_args"
        given += [f"{parts}.embed.init_args.folder={model}"]
        given += [f"{parts}.transform.init_args.transform.init_args.tokenizer.init_args.path={model}/tokenizer.json"]
    shards = f"--data.init_args.shards={folder / 'shards'}"
    return ["--config", str(CONFIGS / f"{name}.yaml"), *given, shards, "--trainer.accelerator=cpu", f"--run={folder / 'run'}"]


@pytest.mark.parametrize(("name", "head"), [("text_retrieval", PooledEmbedding), ("text_late_interaction", LateInteraction)])
def test_a_recipe_of_texts_goes_from_shards_to_scores_and_lists(folder, name, head):
    given = options(name, folder)
    assert main(["fit", *given, "--trainer.max_epochs=1"]) == 0
    assert main(["test", *given, "--ckpt_path=last"]) == 0
    assert main(["predict", *given, "--ckpt_path=last"]) == 0

    scores = json.loads((folder / "run/test.json").read_text())
    assert scores["test/pairs"] == 6 and 1 <= scores["test/median_rank/english_to_german"] <= 6
    predictions = folder / "run/predictions"
    vectors, keys = np.load(predictions / "german.npy"), (predictions / "german.keys.txt").read_text().split()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert len(keys) == len(vectors) == 6  # one word each, and no vector for the marks around it
    assert vectors.shape[1] == (16 if head is PooledEmbedding else 128)
    lines = (predictions / "english_to_german.tsv").read_text().splitlines()
    assert lines[0] == "query\trank\tfound\tsimilarity" and len(lines) == 1 + 6 * 6


def test_texts_share_one_table_and_one_head(folder):
    model = _command(options("text_retrieval", folder), run=False).model
    english, german = (model.modalities[name].embed for name in ("english", "german"))
    assert english is german and model.heads["english"] is model.heads["german"]
    assert model.loss.temperature == pytest.approx(0.05)


def test_pictures_and_captions_have_heads_of_their_own(tmp_path):
    recipe = str(CONFIGS / "image_text_retrieval.yaml")
    model = _command(["--config", recipe, "--trainer.accelerator=cpu", f"--run={tmp_path}"], run=False).model
    assert model.names == ("image", "text") and model.heads["image"] is not model.heads["text"]
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 793_344


def test_films_are_learned_with_what_is_said_of_them(tmp_path):
    random, files = np.random.default_rng(0), tmp_path / "files"
    for split, count in (("train", 6), ("val", 3)):
        (files / split).mkdir(parents=True)
        for number in range(count):
            write_film(random.integers(0, 255, (8, 32, 32), np.uint8), files / split / f"{number}.mp4")
            (files / split / f"{number}.txt").write_text(WORDS[number][0])
    assert main(["shards", "write", str(files), "--to", str(tmp_path / "shards"), "--split", "folders", "--workers", "0"]) == 0
    given = ["--config", str(CONFIGS / "video_text_retrieval.yaml"), f"--data.init_args.shards={tmp_path / 'shards'}"]
    small = ["--data.init_args.num_workers=0", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu"]
    assert main(["fit", *given, *small, "--trainer.max_epochs=1", f"--run={tmp_path / 'run'}"]) == 0
    metrics = next((tmp_path / "run/metrics").rglob("metrics.csv")).read_text()
    assert "val/recall_1/video_to_text" in metrics and "val/recall_1/text_to_video" in metrics
