"""MidiBERT: against a computation with loops, as no installed package has its attention; and every tensor of its files."""

import math

import pytest
import torch
from torch import Tensor

from multimodal.heads import ClassificationHead, TokenClassifier
from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.registry import format_of
from multimodal.tokenizers.midi import CompoundTokenizer, MidiTransform, OctupleTokenizer, score_of, write_notes
from tests.pretrained.text_parity import check_accounts, check_close
from tests.pretrained.vision_parity import check_same

OCTUPLE = (262, 134, 135, 262, 134, 38, 260, 55)
COMPOUND = (4, 18, 88, 66)


def trunk_shapes(
    vocabs=COMPOUND, dim=768, depth=12, hidden=3072, field=256, length=512, width=64, words=30522, prefix=""
) -> dict[str, tuple]:
    """The names and shapes of a trunk, as the published files have them."""
    norm = {"weight": (dim,), "bias": (dim,)}
    shapes: dict[str, tuple] = {
        "bert.embeddings.word_embeddings.weight": (words, dim),
        "bert.embeddings.position_embeddings.weight": (length, dim),
        "bert.embeddings.token_type_embeddings.weight": (2, dim),
        **{f"bert.embeddings.LayerNorm.{leaf}": shape for leaf, shape in norm.items()},
        "bert.pooler.dense.weight": (dim, dim),
        "bert.pooler.dense.bias": (dim,),
        "in_linear.weight": (dim, field * len(vocabs)),
        "in_linear.bias": (dim,),
        **{f"word_emb.{i}.lut.weight": (size, field) for i, size in enumerate(vocabs)},
    }
    linear = {f"attention.self.{name}": (dim, dim) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (dim, dim), "intermediate.dense": (hidden, dim), "output.dense": (dim, hidden)}
    for i in range(depth):
        layer = f"bert.encoder.layer.{i}."
        shapes[f"{layer}attention.self.distance_embedding.weight"] = (2 * length - 1, width)
        for name, shape in linear.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}{name}.{leaf}": shape for leaf, shape in norm.items()}
    return {prefix + name: shape for name, shape in shapes.items()}


def random_state(shapes: dict[str, tuple], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.2 + (1.0 if "LayerNorm.weight" in name else 0.0) for name, shape in shapes.items()
    }


TINY = {"dim": 24, "depth": 2, "hidden": 40, "field": 16, "length": 12, "width": 8, "words": 5}


def saved(path, head=False, **more) -> dict[str, Tensor]:
    shapes = trunk_shapes(**{**TINY, **more}, prefix="midibert." if head else "")
    vocabs = more.get("vocabs", COMPOUND)
    for i, size in enumerate(vocabs if head else ()):
        shapes |= {f"mask_lm.proj.{i}.weight": (size, TINY["dim"]), f"mask_lm.proj.{i}.bias": (size,)}
    state = random_state(shapes)
    torch.save({"epoch": 3, "state_dict": state, "best_acc": 0.5, "optimizer": {"state": {}}}, path)
    return state


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def normalized(state, name, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def attended(state, layer, x, width, length):
    """Attention of one sequence with relative keys and queries, pair by pair."""
    query, key, value = (linear(state, f"{layer}attention.self.{name}", x) for name in ("query", "key", "value"))
    table, out = state[f"{layer}attention.self.distance_embedding.weight"], torch.zeros_like(x)
    for head in range(x.shape[1] // width):
        own = slice(head * width, (head + 1) * width)
        for i in range(len(x)):
            scores = []
            for j in range(len(x)):
                distance = table[i - j + length - 1]
                scores.append((query[i, own] @ key[j, own] + query[i, own] @ distance + key[j, own] @ distance) / math.sqrt(width))
            out[i, own] = torch.stack(scores).softmax(0) @ value[:, own]
    return out


def layers_of(state: dict[str, Tensor], ids: Tensor, width: int = 8, length: int = 12, depth: int = 2) -> list[Tensor]:
    """The tokens of one piece after every layer, as described."""
    tables = [state[f"word_emb.{i}.lut.weight"] for i in range(ids.shape[1])]
    fields = torch.cat([table[column] * math.sqrt(table.shape[1]) for table, column in zip(tables, ids.T, strict=True)], 1)
    x = linear(state, "in_linear", fields) + state["bert.embeddings.token_type_embeddings.weight"][0]
    x, found = normalized(state, "bert.embeddings.LayerNorm", x), []
    for i in range(depth):
        layer = f"bert.encoder.layer.{i}."
        mixed = linear(state, f"{layer}attention.output.dense", attended(state, layer, x, width, length))
        x = normalized(state, f"{layer}attention.output.LayerNorm", x + mixed)
        hidden = torch.nn.functional.gelu(linear(state, f"{layer}intermediate.dense", x))
        x = normalized(state, f"{layer}output.LayerNorm", x + linear(state, f"{layer}output.dense", hidden))
        found.append(x)
    return found


def pieces(vocabs, lengths) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randint(size, (sum(lengths),), generator=generator) for size in vocabs], 1)


def imported(path) -> PretrainedModel:
    model = import_checkpoint(path).parts[""]
    assert isinstance(model, PretrainedModel)
    return model


@pytest.mark.parametrize("lengths", [[5, 1, 3], [12, 7]], ids=["short", "full length"])
@pytest.mark.parametrize("vocabs", [COMPOUND, OCTUPLE], ids=["four fields", "eight fields"])
def test_every_layer_is_that_of_the_loops(tmp_path, vocabs, lengths):
    state = saved(tmp_path / "trunk.ckpt", vocabs=vocabs)
    model, ids = imported(tmp_path / "trunk.ckpt"), pieces(vocabs, lengths)
    with torch.no_grad():
        _, own = model.forward_intermediates(ids, torch.tensor(lengths), output_fmt="NLC")
    for piece, (length, notes) in enumerate(zip(lengths, ids.split(lengths), strict=True)):
        for layer, expected in zip(own, layers_of(state, notes), strict=True):
            check_close(layer[piece, :length], expected)


def test_the_logits_are_those_of_each_fields_projection(tmp_path):
    state = saved(tmp_path / "model.ckpt", head=True)
    model, ids = imported(tmp_path / "model.ckpt"), pieces(COMPOUND, [9])
    trunk = {name.removeprefix("midibert."): x for name, x in state.items()}
    with torch.no_grad():
        logits = model.heads["tokens"](model.forward_features(ids[None])[0])
    for i, own in enumerate(logits):
        check_close(own, linear(state, f"mask_lm.proj.{i}", layers_of(trunk, ids)[-1]))


@pytest.mark.parametrize("head", [False, True], ids=["trunk", "with its head"])
@pytest.mark.parametrize(("vocabs", "family"), [(COMPOUND, "midibert"), (OCTUPLE, "adversarial-midibert")])
def test_a_round_trip_gives_the_used_tensors_back(tmp_path, vocabs, family, head):
    state = saved(tmp_path / "model.ckpt", head, vocabs=vocabs)
    model = imported(tmp_path / "model.ckpt")
    assert model.settings.origin.family == family
    written = format_of(family, model.settings.origin.layout).write(model)
    prefix = "midibert." if head else ""
    unused = tuple(f"{prefix}bert.{name}" for name in ("embeddings.word", "embeddings.position", "pooler"))
    check_same(written.tensors, state, without=unused)


def test_the_trunk_has_217_tensors_and_23_million_unused_words():
    shapes = trunk_shapes()
    assert len(shapes) == 217
    assert sum(math.prod(shape) for shape in shapes.values()) == 111_100_160
    model = check_accounts(shapes, {}, "midibert", "midi-bert", ignored=4)[""].target
    unused = 30522 * 768 + 512 * 768 + 768 * 769
    assert unused == 23_440_896 + 983_808
    assert sum(x.numel() for x in model.parameters()) == 111_100_160 - unused
    assert (model.encoder.num_heads, model.embeds["midi"].max_length) == (12, 512)


def test_the_head_adds_135_thousand():
    shapes = trunk_shapes(prefix="midibert.")
    for i, size in enumerate(COMPOUND):
        shapes |= {f"mask_lm.proj.{i}.weight": (size, 768), f"mask_lm.proj.{i}.bias": (size,)}
    assert sum(math.prod(shape) for shape in shapes.values()) == 111_235_504
    check_accounts(shapes, {}, "midibert", "midi-bert", ignored=4)


def test_the_adversarial_trunk_has_227_tensors():
    shapes = trunk_shapes(OCTUPLE, length=1024)
    shapes |= {f"attention_linear.{i}.weight": shape for i, shape in ((0, (1024, 2048)), (2, (1024, 1024)), (4, (2048, 1024)))}
    shapes |= {f"attention_linear.{i}.bias": (size,) for i, size in ((0, 1024), (2, 1024), (4, 2048))}
    assert len(shapes) == 227
    assert sum(math.prod(shape) for shape in shapes.values()) == 118_595_840
    model = check_accounts(shapes, {}, "adversarial-midibert", "adversarial-midi-bert", ignored=10)[""].target
    assert model.embeds["midi"].max_length == 1024
    assert model.settings.embeds["midi"]["init_args"]["mask_ids"][3] == 257


NOTES = {"classifier.1.weight": (256, 768), "classifier.1.bias": (256,), "classifier.3.weight": (4, 256), "classifier.3.bias": (4,)}
PIECES = {
    "attention.ws1.weight": (128, 768),
    "attention.ws2.weight": (4, 128),
    "classifier.0.weight": (256, 3072),
    "classifier.0.bias": (256,),
    "classifier.2.weight": (8, 256),
    "classifier.2.bias": (8,),
}


@pytest.mark.parametrize("head", [NOTES, PIECES], ids=["of notes", "of pieces"])
@pytest.mark.parametrize(
    ("vocabs", "family", "layout", "tensors"),
    [
        (COMPOUND, "midibert", "midi-bert", 217),
        (OCTUPLE, "adversarial-midibert", "adversarial-midi-bert", 221),
    ],
)
def test_every_tensor_of_a_fine_tuned_model_is_read(head, vocabs, family, layout, tensors):
    shapes = trunk_shapes(vocabs, prefix="midibert.")
    assert len(shapes) == tensors  # of the second system, without the six of layers that are not used
    model = check_accounts(shapes | head, {}, family, layout, ignored=4)[""].target
    own = model.heads["places" if head is NOTES else "classes"]
    assert sum(x.numel() for x in own.parameters()) == sum(math.prod(shape) for shape in head.values())
    assert own.num_classes == (4 if head is NOTES else 8)


TINY_NOTES = {"classifier.1.weight": (6, 24), "classifier.1.bias": (6,), "classifier.3.weight": (4, 6), "classifier.3.bias": (4,)}
TINY_PIECES = {
    "attention.ws1.weight": (5, 24),
    "attention.ws2.weight": (3, 5),
    "classifier.0.weight": (6, 72),
    "classifier.0.bias": (6,),
    "classifier.2.weight": (8, 6),
    "classifier.2.bias": (8,),
}


@pytest.mark.parametrize("head", [TINY_NOTES, TINY_PIECES], ids=["of notes", "of pieces"])
def test_logits_of_a_fine_tuned_model_are_those_of_the_loops(tmp_path, head):
    shapes = trunk_shapes(**TINY, prefix="midibert.") | head
    state = random_state(shapes)
    torch.save({"state_dict": state}, tmp_path / "tuned.ckpt")
    model, lengths = imported(tmp_path / "tuned.ckpt"), [5, 1, 12]
    ids, name = pieces(COMPOUND, lengths), "places" if head is TINY_NOTES else "classes"
    with torch.no_grad():
        logits = model.logits(model.features(ids, torch.tensor(lengths)), name)
    trunk = {name.removeprefix("midibert."): x for name, x in state.items()}
    for own, length, notes in zip(logits, lengths, ids.split(lengths), strict=True):
        x = layers_of(trunk, notes)[-1]
        if name == "places":
            check_close(own[:length], linear(state, "classifier.3", linear(state, "classifier.1", x).relu()))
            continue
        weights = ((x @ state["attention.ws1.weight"].T).tanh() @ state["attention.ws2.weight"].T).softmax(0)
        pooled = torch.cat([weights[:, i] @ x for i in range(3)])
        check_close(own, linear(state, "classifier.2", linear(state, "classifier.0", pooled).relu()))


@pytest.mark.parametrize("head", [TINY_NOTES, TINY_PIECES], ids=["of notes", "of pieces"])
def test_a_fine_tuned_model_is_written_as_it_was_read(tmp_path, head):
    state = random_state(trunk_shapes(**TINY, prefix="midibert.") | head)
    torch.save({"state_dict": state}, tmp_path / "tuned.ckpt")
    written = format_of("midibert", "midi-bert").write(imported(tmp_path / "tuned.ckpt")).tensors
    unused = ("word_embeddings", "position_embeddings", "pooler")
    check_same(written, {name: x for name, x in state.items() if not any(part in name for part in unused)})


def test_heads_of_other_kinds_cannot_be_written(tmp_path):
    saved(tmp_path / "trunk.ckpt")
    layout = format_of("midibert", "midi-bert")
    for name, head, message in (
        ("places", TokenClassifier(24, 4), "MidiBERT's classifier of notes is a TokenClassifier without norm"),
        ("classes", ClassificationHead(24, 4, hidden="relu"), "MidiBERT's classifier of pieces is a ClassificationHead that pools by"),
        ("other", ClassificationHead(24, 4), r"holds one head, 'tokens', 'places' or 'classes'; the model has \['other'\]"),
    ):
        model = imported(tmp_path / "trunk.ckpt")
        model.heads[name] = head
        with pytest.raises(ValueError, match=message):
            layout.write(model)


@pytest.mark.parametrize(("vocabs", "tokenizer"), [(COMPOUND, CompoundTokenizer()), (OCTUPLE, OctupleTokenizer())])
def test_the_tables_are_those_of_the_tokenizer_that_reads_files(tmp_path, vocabs, tokenizer):
    saved(tmp_path / "trunk.ckpt", vocabs=vocabs)
    model = imported(tmp_path / "trunk.ckpt")
    assert model.embeds["midi"].vocab_sizes == tokenizer.vocab_sizes == vocabs
    assert tuple(model.embeds["midi"].mask_ids.tolist()) == tokenizer.mask_ids
    transform = model.transform()
    assert isinstance(transform, MidiTransform) and transform.max_notes == 12
    assert transform.tokenizer.fingerprint() == tokenizer.fingerprint()
    notes = torch.tensor([[480 * i, 60, 480, 80] for i in range(20)])
    ids = transform(transform.decode(write_notes(notes)), torch.Generator(), train=False).values
    assert torch.equal(ids, tokenizer.encode_score(score_of(notes[:12])))
    assert torch.isfinite(model.forward_features(ids[None])).all()


def test_a_number_of_heads_that_contradicts_the_file_is_refused(tmp_path):
    from multimodal.pretrained.format import ImportOptions

    saved(tmp_path / "trunk.ckpt")
    with pytest.raises(ValueError, match="num_heads 4 does not fit: vectors of distances are 8 wide, so there are 3 heads"):
        import_checkpoint(tmp_path / "trunk.ckpt", options=ImportOptions(num_heads=4))
