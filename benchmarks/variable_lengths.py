"""A training step of BERT on sequences of unequal length: ours packed, transformers' padded to the longest and to 512.

Lengths are those of a lognormal distribution between 16 and 512, or those of real texts; 15 % of the tokens are hidden. All have the same
weights at first, and the losses are compared before anything is timed. Only real tokens are counted.

    python -m benchmarks.variable_lengths
    python -m benchmarks.variable_lengths --texts data/languages/paragraphs --tokenizer data/languages/vocabulary
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import BertConfig, BertForMaskedLM

from benchmarks.side_by_side import Candidate, compare, machine
from multimodal.nn import Encoder, LayerNorm, PostNormBlock, PredictionHead
from multimodal.tokenizers.text import FileTokenizer, TextTokenizer
from multimodal.tokenizers.vocabularies.texts import Texts

EPS = 1e-12
SHORTEST, LONGEST, MEDIAN, SIGMA = 16, 512, 92, 0.8
TOLERANCE = 1e-4
IGNORED = -100


@dataclass(frozen=True)
class Size:
    """Of the models; the default is BERT-base.

    Args:
        dim: width, a multiple of 64.
        depth: layers.
        vocab: ids of a token; the first is padding, which transformers does not train, the last is the mask.
    """

    dim: int = 768
    depth: int = 12
    vocab: int = 30522


@dataclass(frozen=True)
class Work:
    """Sequences end to end.

    Args:
        ids: ``(n,)`` int64, what is to be predicted.
        masked: ``(n,)`` bool, True where the mask is shown.
        lengths: tokens of each sequence.
    """

    ids: Tensor
    masked: Tensor
    lengths: tuple[int, ...]

    def shown(self, mask: int) -> Tensor:
        """The ids with the mask's at hidden places."""
        return self.ids.masked_fill(self.masked, mask)


def lengths_of(batch: int) -> tuple[int, ...]:
    """Return lengths that stand evenly in the distribution, in an order drawn once."""
    share = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch
    normal = torch.erfinv(2 * share - 1) * math.sqrt(2)
    lengths = (MEDIAN * (SIGMA * normal).exp()).round().long().clamp(SHORTEST, LONGEST)
    return tuple(lengths[torch.randperm(batch, generator=torch.Generator().manual_seed(0))].tolist())


def make_work(size: Size, batch: int) -> Work:
    """Draw ids, and hide the same share of each sequence."""
    generator, lengths = torch.Generator().manual_seed(0), lengths_of(batch)
    masked = torch.cat([torch.rand(length, generator=generator).argsort() < max(round(0.15 * length), 1) for length in lengths])
    return Work(torch.randint(1, size.vocab - 1, (sum(lengths),), generator=generator), masked, lengths)


def read_work(source: str, tokenizer: TextTokenizer, batch: int) -> Work:
    """Draw texts once, with the ids around them, cut them at ``LONGEST``, and hide the same share of each.

    Args:
        source: a text file, a folder of them, or shards; each line is a text.
        tokenizer: makes the ids.
        batch: texts to draw; at most as many as there are.
    """
    texts, generator = list(Texts([source])), torch.Generator().manual_seed(0)
    if len(texts) < batch:
        raise ValueError(f"{source} has {len(texts)} texts; {batch} are wanted.")
    room = LONGEST - len(tokenizer.start_ids) - len(tokenizer.end_ids)
    drawn = [texts[number] for number in torch.randperm(len(texts), generator=generator)[:batch].tolist()]
    ids = [tokenizer.mark(tokenizer.encode_text(text.strip())[:room]) for text in drawn]
    masked = [torch.rand(len(own), generator=generator).argsort() < max(round(0.15 * len(own)), 1) for own in ids]
    return Work(torch.cat(ids), torch.cat(masked), tuple(map(len, ids)))


class OurBert(nn.Module):
    """Ours: no padding, predictions at hidden places only.

    Args:
        size: of the model.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        norm = partial(LayerNorm, eps=EPS)
        self.words, self.places = nn.Embedding(size.vocab, size.dim), nn.Embedding(LONGEST, size.dim)
        self.kind, self.norm = nn.Parameter(torch.zeros(size.dim)), norm(size.dim)
        self.encoder = Encoder(size.dim, size.depth, size.dim // 64, block=PostNormBlock, norm=norm, norm_at="none")
        self.head = PredictionHead(size.dim, (size.vocab,), norm=norm)
        self.head.proj.weight = self.words.weight
        self.apply(_small)

    def forward(self, work: Work) -> Tensor:
        """Return the loss."""
        lengths = torch.tensor(work.lengths)
        sequence = torch.arange(len(lengths)).repeat_interleave(lengths)
        place = torch.arange(len(sequence)) - (lengths.cumsum(0) - lengths)[sequence]
        x = self.norm(self.words(work.shown(self.words.num_embeddings - 1)) + self.places(place) + self.kind)
        hidden = self.encoder(x, sequence, wanted=work.masked).tokens
        return self.head.predict(hidden, work.ids[work.masked]).loss.mean()


def _small(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


class TransformersBert(nn.Module):
    """transformers' ``BertForMaskedLM``, without dropout, which would make the losses differ.

    Args:
        size: of the model.
        length: to pad to; None: the longest of the batch.
    """

    def __init__(self, size: Size, length: int | None = None) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=size.vocab,
            hidden_size=size.dim,
            num_hidden_layers=size.depth,
            num_attention_heads=size.dim // 64,
            intermediate_size=4 * size.dim,
            layer_norm_eps=EPS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.model, self.length = BertForMaskedLM(config), length

    def forward(self, work: Work) -> Tensor:
        """Return the loss."""
        ids, real, labels = self.padded(work)
        return self.model(input_ids=ids, attention_mask=real, labels=labels).loss

    def padded(self, work: Work) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, 1 at real tokens, and labels, ``(sequences, length)``."""
        length = self.length or max(work.lengths)
        real = torch.arange(length) < torch.tensor(work.lengths)[:, None]
        ids, labels = torch.zeros(real.shape, dtype=torch.int64), torch.full(real.shape, IGNORED)
        ids[real] = work.shown(self.model.config.vocab_size - 1)
        labels[real] = work.ids.masked_fill(~work.masked, IGNORED)
        return ids, real.long(), labels


@torch.no_grad()
def copy_weights(ours: OurBert, peer: TransformersBert) -> None:
    """Give a peer our weights.

    Raises:
        ValueError: the peer has a weight that nothing was copied to.
    """
    pairs = {"embeddings.word_embeddings": ours.words, "embeddings.position_embeddings": ours.places, "embeddings.LayerNorm": ours.norm}
    for number, block in enumerate(ours.encoder.blocks):
        parts = {
            "attention.output.dense": block.attn.proj,
            "attention.output.LayerNorm": block.norm1,
            "intermediate.dense": block.mlp.fc1,
            "output.dense": block.mlp.fc2,
            "output.LayerNorm": block.norm2,
        }
        pairs |= {f"encoder.layer.{number}.{name}": module for name, module in parts.items()}
    state = {f"bert.{name}.{kind}": value for name, module in pairs.items() for kind, value in module.state_dict().items()}
    for number, block in enumerate(ours.encoder.blocks):
        for kind, value in block.attn.qkv.state_dict().items():
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"bert.encoder.layer.{number}.attention.self.{name}.{kind}"] = part
    state["bert.embeddings.token_type_embeddings.weight"] = torch.stack([ours.kind, torch.zeros_like(ours.kind)])
    hidden, _, norm = ours.head.hidden
    for name, module in (("transform.dense", hidden), ("transform.LayerNorm", norm), ("decoder", ours.head.proj)):
        state |= {f"cls.predictions.{name}.{kind}": value for kind, value in module.state_dict().items()}
    state["cls.predictions.bias"] = ours.head.proj.bias
    if missing := sorted(peer.model.state_dict().keys() - state.keys()):
        raise ValueError(f"transformers' BERT has weights that ours does not name: {missing}.")
    peer.model.load_state_dict(state)


def make_models(size: Size) -> dict[str, nn.Module]:
    """Return ours first, then the peers with its weights."""
    torch.manual_seed(0)
    ours = OurBert(size)
    peers = {
        "transformers, padded to the longest": TransformersBert(size),
        f"transformers, padded to {LONGEST}": TransformersBert(size, LONGEST),
    }
    for peer in peers.values():
        copy_weights(ours, peer)
    return {"ours, packed": ours, **peers}


@torch.no_grad()
def check_same(models: dict[str, nn.Module], work: Work) -> str:
    """Compare the losses, and return a line that says how far they lie apart.

    Raises:
        ValueError: further than is allowed.
    """
    losses = {name: float(model(work)) for name, model in models.items()}
    apart = max(losses.values()) - min(losses.values())
    if apart > TOLERANCE:
        raise ValueError(f"the losses differ by {apart:.2g}, {TOLERANCE:.0e} is allowed: {losses}.")
    return f"same loss: {losses['ours, packed']:.5f}, at most {apart:.1e} apart"


def step(model: nn.Module, work: Work) -> Candidate:
    """Return a call that does one training step and returns the number of real tokens."""
    optimizer = AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> int:
        model(work).backward()
        optimizer.step()
        optimizer.zero_grad()
        return sum(work.lengths)

    return run


def main(arguments: Sequence[str] | None = None, show: Callable[..., None] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=12, help="layers (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=768, help="width, a multiple of 64 (default: %(default)s)")
    parser.add_argument("--vocab", type=int, default=30522, help="ids of a token (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--texts", metavar="SOURCE", help="real texts: a file, a folder of them, or shards (default: random ids)")
    parser.add_argument("--tokenizer", metavar="FILE", help="their tokenizer.json, or its folder; --vocab then has no effect")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: %(default)s)")
    options = parser.parse_args(arguments)
    show = show or Console().print
    if (options.texts is None) != (options.tokenizer is None):
        parser.error("--texts and --tokenizer go together.")
    if options.texts is None:
        size = Size(options.dim, options.depth, options.vocab)
        work = make_work(size, options.batch)
    else:
        tokenizer = FileTokenizer(options.tokenizer, special_tokens=True)
        size = Size(options.dim, options.depth, tokenizer.vocab_sizes[0] + 1)  # the last id is the mask's
        work = read_work(options.texts, tokenizer, options.batch)
    models = make_models(size)
    mean = sum(work.lengths) / options.batch
    show(f"{options.batch} sequences of {min(work.lengths)} to {max(work.lengths)} tokens, {mean:.0f} in the mean")
    show(check_same(models, work))
    steps = {name: step(model.train(), work) for name, model in models.items()}
    show(compare(steps, "real tokens", options.rounds, title="masked step on variable lengths, float32"))
    show(machine(["transformers", "torch"]))


if __name__ == "__main__":
    main()
