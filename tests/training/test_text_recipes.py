"""The recipes of pretraining on texts build as they stand, have the published sizes and numbers, and learn."""

import importlib
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import nn

from multimodal.batch import Items, Sample, collate
from multimodal.lightning_cli import Command, _command
from multimodal.masking import MixedMasking, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.tokenizers.text import TextEmbed, TextTransform
from tests.pretrained.text_parity import randomized
from tests.test_layout import read_config

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI.s args parameter")

CONFIGS = Path(__file__).resolve().parents[2] / "configs/pretrain"
# name: ids of the vocabulary, id of the mask, shares hidden in training and in evaluation
PUBLISHED = {
    "bert_base": (30522, 103, 0.15, 0.15),
    "bert_base_whole_word": (30522, 103, 0.15, 0.15),
    "mosaicbert_base": (30528, 103, 0.3, 0.15),
    "modernbert_base": (50368, 50284, 0.3, 0.15),
    "electra_small": (30522, 103, 0.15, 0.15),
    "mae_lm_base": (30522, 103, 0.15, 0.15),
}
MODALITY = "model.init_args.modalities.text.init_args"


def vocabulary(folder: Path, size: int) -> Path:
    """Write a WordPiece vocabulary whose ids have gaps."""
    letters = "abcdefgh"
    vocab = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, **{x: 10 + i for i, x in enumerate(letters)}}
    vocab |= {f"##{x}": 20 + i for i, x in enumerate(letters)} | {"last": size - 1}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def command(name: str, folder: Path, *more: str) -> Command:
    """Build the parts of a recipe, the encoder with fewer and narrower layers."""
    small = [f"--model.init_args.encoder.init_args.{key}" for key in ("dim=48", "depth=2", "num_heads=4")]
    own = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--run={folder}", *more]
    return _command(["--config", str(CONFIGS / f"{name}.yaml"), *small, *own], run=False)


def published(name: str, folder: Path) -> Command:
    path = vocabulary(folder, PUBLISHED[name][0])
    more = [f"--{MODALITY}.transform.init_args.tokenizer.init_args.path={path}"]
    if name == "mae_lm_base":
        more += [f"--{MODALITY}.decoder.init_args.{key}" for key in ("width=48", "depth=1", "num_heads=2")]
    if name == "electra_small":
        generator = "model.init_args.objectives.init_args.generator.init_args"
        more += [f"--{generator}.{key}" for key in ("dim=16", "depth=1", "num_heads=1")]
    return command(name, folder, *more)


def texts(model, count: int = 6) -> list[Sample]:
    transform, generator = model.transforms["text"], torch.Generator().manual_seed(0)
    words = ["abc", "d", "efgh", "aa", "bcd"]
    made = []
    for number in range(count):
        drawn = [words[i] for i in torch.randint(5, (4 + 3 * number,), generator=generator).tolist()]
        made.append(transform(transform.decode(" ".join(drawn).encode()), generator, train=False))
    return [Sample(str(i), {"text": item}, seed=50 + i) for i, item in enumerate(made)]


def check_hidden(part: Modality, items: Items, trained: float, evaluated: float) -> None:
    """Check how much is hidden in training and in evaluation, the same each time."""
    free = items.lengths - 2
    for mode, ratio in ((False, evaluated), (True, trained)):
        view = part.train(mode).masked_view(items)
        counts = torch.zeros_like(free).index_add_(0, view.tokens.item, view.masked.long())
        expected = (free * ratio).round().long().clamp(min=1)
        assert torch.equal(counts, expected) if isinstance(part.masking, RandomMasking) else (counts <= expected).all()
        assert torch.equal(view.masked, part.masked_view(items).masked)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_builds_and_every_part_of_it_learns(tmp_path, name):
    vocab, mask, trained, evaluated = PUBLISHED[name]
    model = published(name, tmp_path).model
    part = model.modalities["text"]
    assert part.embed.vocab_sizes == (vocab,) and part.embed.mask_id == mask
    assert part.head.proj.weight is part.embed.words.weight
    assert part.masking.mask_ratio == trained and (part.eval_masking or part.masking).mask_ratio == evaluated
    batch = collate(texts(model, 12))
    check_hidden(part, batch.items["text"], trained, evaluated)
    terms = model._terms(batch, "train")
    sum(term.weight * term.loss for term in terms.values()).backward()
    silent = [name for name, x in model.named_parameters() if x.requires_grad and (x.grad is None or not x.grad.abs().sum())]
    assert all("types" in name or "query_value" in name for name in silent if not name.endswith("qkv.bias")), silent


def test_a_masking_of_evaluation_mixes_as_many_items():
    with pytest.raises(ValueError, match="eval_masking mixes 2 items, masking 1"):
        Modality(8, TextTransform(), TextEmbed, RandomMasking(), eval_masking=MixedMasking(num_mixed=2))


def built(settings: object) -> object:
    """Return a setting of a recipe with classes and builders in place of their names."""
    if isinstance(settings, str) and settings.startswith("multimodal."):
        module, _, name = settings.rpartition(".")
        return getattr(importlib.import_module(module), name)
    if isinstance(settings, dict) and "class_path" in settings:
        return partial(built(settings["class_path"]), **{key: built(value) for key, value in settings.get("init_args", {}).items()})
    return settings


def parts_of(name: str) -> nn.ModuleDict:
    """Build encoder, embedding and head of a recipe at full size, without memory."""
    model = read_config(CONFIGS / f"{name}.yaml")["model"]["init_args"]
    part = model["modalities"]["text"]["init_args"]
    with torch.device("meta"):
        encoder = Encoder(**{key: built(value) for key, value in model["encoder"].items()})
        embed = built(part["embed"])(encoder.dim)
        head = built(part["head"])(encoder.dim, embed.vocab_sizes)
    if part["tied"]:
        head.proj.weight = embed.table
    return nn.ModuleDict({"encoder": encoder, "embed": embed, "head": head})


def size(module: nn.Module) -> int:
    return sum(x.numel() for x in module.parameters())


def size_of(make, config) -> int:
    with torch.device("meta"):
        return size(make(config))


@pytest.mark.parametrize("name", ["bert_base", "bert_base_whole_word", "mae_lm_base"])
def test_bert_has_the_published_size(name):
    parts = parts_of(name)
    assert size(parts) == size_of(transformers.BertForMaskedLM, transformers.BertConfig()) == 109_514_298
    without_pooler = size_of(partial(transformers.BertModel, add_pooling_layer=False), transformers.BertConfig())
    assert size(parts["encoder"]) + size(parts["embed"]) == without_pooler


def test_modernbert_has_the_published_size():
    assert size(parts_of("modernbert_base")) == size_of(transformers.ModernBertForMaskedLM, transformers.ModernBertConfig()) == 149_655_232


def test_mosaicbert_has_the_published_size():
    parts = parts_of("mosaicbert_base")
    assert size(parts) == pytest.approx(137e6, rel=0.005)
    layer = 768 * 2304 + 2304 + 768 * 768 + 768 + 4 * 768 + 768 * 6144 + 3072 * 768  # theirs has 768 more: a bias
    assert size(parts["encoder"]) == 12 * layer
    assert size(parts["embed"]) == (30528 + 2 + 2) * 768


def test_electra_has_the_published_size():
    config = transformers.ElectraConfig()  # small
    parts = parts_of("electra_small")
    assert size(parts["encoder"]) + size(parts["embed"]) == size_of(transformers.ElectraModel, config) == 13_483_008


def test_the_generator_of_electra_is_a_quarter_as_wide():
    goal = read_config(CONFIGS / "electra_small.yaml")["model"]["init_args"]["objectives"][0]
    own = goal["init_args"]["generator"]["init_args"]
    assert (own["dim"], own["depth"], own["num_heads"]) == (64, 12, 1)
    assert goal["class_path"] == "multimodal.objectives.ReplacedTokenDetection" and goal["init_args"]["detection"] == 50 * 0.15


def test_a_published_bert_goes_on_with_its_own_head(tmp_path):
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=256
    )
    randomized(transformers.BertForMaskedLM(config)).save_pretrained(tmp_path / "theirs")
    imported = import_checkpoint(tmp_path / "theirs", options=ImportOptions(settings={"mask_id": "4"})).parts[""]
    imported.save_pretrained(tmp_path / "runs")
    vocabulary(tmp_path, 60)
    folders = [f"--model.init_args.encoder.init_args.folder={tmp_path / 'runs'}"]
    folders += [f"--{MODALITY}.{part}.init_args.folder={tmp_path / 'runs'}" for part in ("embed", "head")]
    folders += [f"--{MODALITY}.transform.init_args.tokenizer.init_args.path={tmp_path / 'tokenizer.json'}"]
    more = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--run={tmp_path / 'run'}"]
    model = _command(["--config", str(CONFIGS / "bert_continue.yaml"), *folders, *more], run=False).model.eval()
    part = model.modalities["text"]
    assert part.head.proj.weight is part.embed.words.weight
    assert torch.equal(part.head.hidden[0].weight, imported.heads["tokens"].hidden[0].weight)
    assert len(model._terms(collate(texts(model)), "val")) == 1


def test_the_recipe_for_a_cpu_learns_its_texts(tmp_path):
    model = command("text", tmp_path).model
    batch = collate(texts(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        (term,) = model._terms(batch, "train").values()
        (term.loss / term.count).backward()
        optimizer.step()
        losses.append(term.loss.item() / int(term.count))
    assert losses[0] > 5 and losses[-1] < 0.6 * losses[0]
