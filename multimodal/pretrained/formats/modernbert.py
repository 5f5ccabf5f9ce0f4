"""ModernBERT (https://arxiv.org/abs/2412.13663): masked-word models and classifiers.

Source: transformers ``models/modernbert``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats import layers, vision, words
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.keymap import Entry, KeyMap, equal_copies, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

WORDS = "embeddings.tok_embeddings.weight"
POOLS = {"cls": "first", "mean": "mean"}
"""Theirs -> ours."""
THETAS = (160_000.0, 10_000.0)
WINDOW = 128
IGNORED = {"*inv_freq": "rotary frequencies, which are computed"}


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors and the config of a ModernBERT tell.

    Args:
        hidden: width of the MLP, after its gate.
        eps: of the norms.
        act: activation of the MLP.
        vocab: ids.
        mask_id: of the mask; None: unknown.
        window: tokens that a local layer sees to each side.
        global_every: layers 0, this, twice this ... are global.
        thetas: base of the rotary angles, of global and of local layers.
        biases: which parts have a bias: "norm", "attention", "mlp", "head".
        head_act: activation of the head's hidden layer.
        predicts: whether there is a masked-word head.
        tied: whether that head has the table of words as its weight.
        classes: of the classifier; 0 without.
        pool: our name of the classifier's pooling.
    """

    eps: float
    act: str
    vocab: int
    mask_id: int | None
    window: int
    global_every: int
    thetas: tuple[float, float]
    biases: frozenset[str]
    head_act: str
    predicts: bool
    tied: bool
    classes: int
    pool: str


def settings_of(sizes: Sizes, labels: tuple[str, ...] = ()) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(sizes.eps, bias="norm" in sizes.biases)
    hidden_bias, heads = "head" in sizes.biases, {}
    if sizes.predicts:
        heads["tokens"] = part(
            layers.NN + "PredictionHead", vocab_sizes=[sizes.vocab], norm=norm, hidden_bias=hidden_bias, act=sizes.head_act
        )
    if sizes.classes:
        more = {"hidden": sizes.head_act, "hidden_norm": norm, "hidden_bias": hidden_bias}
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool=sizes.pool, **more)
    attention_bias = "attention" in sizes.biases
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention("all" if attention_bias else "none", output_bias=attention_bias),
        mlp=part(layers.NN + "GatedMlp", hidden_dim=sizes.hidden, bias="mlp" in sizes.biases, act=sizes.act),
        norm=norm,
        first_norm=False,
        rotary=part(layers.NN + "RotaryPosition", axes=1, max_period=sizes.thetas[0]),
        window=sizes.window,
        global_every=sizes.global_every,
        local_rotary=part(layers.NN + "RotaryPosition", axes=1, max_period=sizes.thetas[1]),
    )
    embed = part("multimodal.tokenizers.text.TextEmbed", vocab_size=sizes.vocab, mask_id=sizes.mask_id, norm=norm)
    tied = {"heads.tokens.proj.weight": "embeds.text.words.weight"} if sizes.predicts and sizes.tied else {}
    return ModelSettings(encoder, {"text": embed}, heads, tied=tied, labels=labels)


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has a head that ModernBERT does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds["text"]["init_args"]
    heads = {name: dict(head.get("init_args", {})) for name, head in model.settings.heads.items()}
    if set(heads) - {"tokens", "classes"} or len(heads) > 1:
        raise ValueError(f"ModernBERT's layout holds one head, 'tokens' or 'classes'; the model has {sorted(heads)}.")
    tokens, classes = heads.get("tokens", {}), heads.get("classes", {})
    if classes and not (classes.get("pool") in POOLS.values() and classes.get("hidden") == "gelu" and classes.get("hidden_norm")):
        raise ValueError("ModernBERT's classifier has pool 'first' or 'mean', hidden 'gelu' and a hidden_norm: no other head fits.")
    mlp, attention, norm = (encoder[name]["init_args"] for name in ("mlp", "attention", "norm"))
    flags = {
        "norm": norm["bias"],
        "attention": attention["output_bias"],
        "mlp": mlp["bias"],
        "head": (tokens or classes).get("hidden_bias", False),
    }
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=mlp["hidden_dim"],
        eps=float(norm["eps"]),
        act=mlp["act"],
        vocab=embed["vocab_size"],
        mask_id=embed["mask_id"],
        window=encoder["window"],
        global_every=encoder["global_every"],
        thetas=(encoder["rotary"]["init_args"]["max_period"], encoder["local_rotary"]["init_args"]["max_period"]),
        biases=frozenset(name for name, has in flags.items() if has),
        head_act=str((tokens or classes).get("act" if tokens else "hidden", "gelu")),
        predicts=bool(tokens),
        tied="heads.tokens.proj.weight" in model.settings.tied,
        classes=classes.get("num_classes", 0),
        pool=classes.get("pool", "first"),
    )


def thetas_of(config: Mapping[str, Any]) -> tuple[float, float]:
    """Return the bases of the rotary angles, of global and local layers.

    Raises:
        ValueError: the angles are scaled in a way that is not known here.
    """
    bases = [config.get("global_rope_theta", THETAS[0]), config.get("local_rope_theta") or THETAS[1]]
    for i, name in enumerate(("full_attention", "sliding_attention")):
        said = (config.get("rope_parameters") or {}).get(name) or {}
        if said.get("rope_type", "default") != "default":
            raise ValueError(f"rope_parameters of {name} have rope_type {said['rope_type']!r}; only 'default' can be read.")
        bases[i] = said.get("rope_theta", bases[i])
    return float(bases[0]), float(bases[1])


def global_every_of(config: Mapping[str, Any], depth: int) -> int:
    """Return the distance of global layers.

    Raises:
        ValueError: they are not evenly spaced from layer 0.
    """
    types = config.get("layer_types")
    if not types:
        return int(config.get("global_attn_every_n_layers", 3))
    places = [i for i, kind in enumerate(types) if kind == "full_attention"]
    step = places[1] if len(places) > 1 else depth
    if places != list(range(0, depth, step)):
        raise ValueError(f"layer_types has its global layers at {places}; they must be evenly spaced from layer 0.")
    return step


class TransformersModernBert(Format):
    """The names in the files of transformers: ModernBertModel, ModernBertForMaskedLM, ModernBertForSequenceClassification."""

    family, layout = "modernbert", "transformers"
    licence, source = "Apache-2.0", "https://huggingface.co/docs/transformers/model_doc/modernbert"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Its names, and no norm before the first attention."""
        prefix = "model." if f"model.{WORDS}" in shapes else ""
        return (
            prefix + WORDS in shapes
            and f"{prefix}layers.0.attn.Wqkv.weight" in shapes
            and f"{prefix}layers.0.attn_norm.weight" not in shapes
        )

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``mask_id`` is the id of the mask, where no tokenizer beside the weights tells."""
        vision.check_settings(options, "mask_id")
        shapes, config = checkpoint.shapes, checkpoint.config
        prefix = "model." if f"model.{WORDS}" in shapes else ""
        (vocab, dim), depth = shapes[prefix + WORDS], count_layers(shapes, re.escape(prefix) + r"layers\.(\d+)\.")
        names = {"norm": "final_norm.bias", "attention": "layers.0.attn.Wo.bias", "mlp": "layers.0.mlp.Wo.bias"}
        biases = {what for what, name in names.items() if prefix + name in shapes} | ({"head"} if "head.dense.bias" in shapes else set())
        classes = shapes.get("classifier.weight", (0,))[0]
        if (pool := config.get("classifier_pooling", "cls")) not in POOLS:
            raise ValueError(f"classifier_pooling is {pool!r}; known are {', '.join(POOLS)}.")
        sizes = Sizes(
            dim=dim,
            depth=depth,
            heads=words.num_heads_of(config, dim, options),
            hidden=shapes[f"{prefix}layers.0.mlp.Wo.weight"][1],
            eps=float(config.get("norm_eps", 1e-5)),
            act=words.activation_of(config, "hidden_activation"),
            vocab=vocab,
            mask_id=words.mask_id_of(checkpoint, options),
            window=int(config.get("local_attention", WINDOW)) // 2,
            global_every=global_every_of(config, depth),
            thetas=thetas_of(config),
            biases=frozenset(biases),
            head_act=words.activation_of(config, "classifier_activation"),
            predicts="decoder.bias" in shapes,
            tied=words.is_tied(checkpoint, "decoder.weight", prefix + WORDS),
            classes=classes,
            pool=POOLS[pool],
        )
        settings = settings_of(sizes, vision.labels_of(config, classes))
        return [Part(PretrainedModel(settings), self.keymap(sizes, prefix, shapes))]

    def keymap(self, sizes: Sizes, prefix: str, present: Collection[str]) -> KeyMap:
        """Return where the tensors are; ``present``: names in the file, where the decoder may be stored or not."""
        stored = [name for name in (prefix + WORDS, "decoder.weight") if name in present]
        entries = [equal_copies("embeds.text.words.weight", stored if sizes.tied else stored[:1])]
        normed = "norm" in sizes.biases
        entries += [*pair("embeds.text.norm", f"{prefix}embeddings.norm", normed), *pair("encoder.norm", f"{prefix}final_norm", normed)]
        for i in range(sizes.depth):
            entries += layer_entries(f"encoder.blocks.{i}", f"{prefix}layers.{i}", sizes.biases, first=i == 0)
        head = "heads.tokens" if sizes.predicts else "heads.classes"
        if sizes.predicts or sizes.classes:
            entries += [*pair(f"{head}.hidden.0", "head.dense", "head" in sizes.biases), *pair(f"{head}.hidden.2", "head.norm", normed)]
        if sizes.classes:
            entries += pair("heads.classes.proj", "classifier")
        if not sizes.predicts:
            return KeyMap(entries, IGNORED)
        entries.append(same("heads.tokens.proj.bias", "decoder.bias"))
        if not sizes.tied:
            return KeyMap([*entries, same("heads.tokens.proj.weight", "decoder.weight")], IGNORED)
        return KeyMap(entries, IGNORED, {"heads.tokens.proj.weight": words.TIED})

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        prefix = "model." if sizes.predicts or sizes.classes else ""
        present = {prefix + WORDS} | ({"decoder.weight"} if sizes.predicts and not sizes.tied else set())
        return Written(
            self.keymap(sizes, prefix, present).to_theirs(model.state_dict()), {**config_of(sizes), **vision.id2label(model, sizes.classes)}
        )


def layer_entries(ours: str, theirs: str, biases: Collection[str], first: bool) -> list[Entry]:
    """Return the entries of a layer; the first has no norm before its attention."""
    attention, mlp, norm = "attention" in biases, "mlp" in biases, "norm" in biases
    entries = [] if first else pair(f"{ours}.norm1", f"{theirs}.attn_norm", norm)
    entries += [*pair(f"{ours}.attn.qkv", f"{theirs}.attn.Wqkv", attention), *pair(f"{ours}.attn.proj", f"{theirs}.attn.Wo", attention)]
    entries += [*pair(f"{ours}.norm2", f"{theirs}.mlp_norm", norm), *pair(f"{ours}.mlp.fc1", f"{theirs}.mlp.Wi", mlp)]
    return entries + pair(f"{ours}.mlp.fc2", f"{theirs}.mlp.Wo", mlp)


def config_of(sizes: Sizes) -> dict[str, Any]:
    """Return the config of transformers."""
    name = "ModernBertForMaskedLM" if sizes.predicts else "ModernBertForSequenceClassification" if sizes.classes else "ModernBertModel"
    kinds = ["sliding_attention" if i % sizes.global_every else "full_attention" for i in range(sizes.depth)]
    rope = {
        kind: {"rope_type": "default", "rope_theta": base}
        for kind, base in zip(("full_attention", "sliding_attention"), sizes.thetas, strict=True)
    }
    special = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    return {
        "model_type": "modernbert",
        "architectures": [name],
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_activation": vision.hidden_act(sizes.act),
        "norm_eps": sizes.eps,
        "vocab_size": sizes.vocab,
        "local_attention": 2 * sizes.window,
        "layer_types": kinds,
        "rope_parameters": rope,
        "norm_bias": "norm" in sizes.biases,
        "attention_bias": "attention" in sizes.biases,
        "mlp_bias": "mlp" in sizes.biases,
        "classifier_bias": "head" in sizes.biases,
        "classifier_activation": vision.hidden_act(sizes.head_act),
        "classifier_pooling": next(theirs for theirs, ours in POOLS.items() if ours == sizes.pool),
        "tie_word_embeddings": sizes.tied or not sizes.predicts,
        **({} if sizes.vocab == 50368 else dict.fromkeys(special)),  # the class's defaults are ids of the published vocabulary
    }


FORMATS = (TransformersModernBert(),)
