"""A small model of two modalities: images, and sequences of two-field ids."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from multimodal.batch import Item, Sample, collate
from multimodal.heads import ClassificationHead
from multimodal.masking import MaskReplaceKeep, RandomMasking
from multimodal.modality import Input, Modality
from multimodal.nn import Encoder, SinCosPosition
from multimodal.protocols import Embed, Tokenizer, Tokens, Transform
from multimodal.tokenizers.image import DiscreteVAE, PatchEmbed
from multimodal.training import FineTuning, MaskedPretraining

SIZES = (5, 7)


class PairTokenizer(Tokenizer):
    vocab_sizes = SIZES
    field_names = ("left", "right")

    def encode(self, values):
        return values

    def fingerprint(self):
        return "pairs"


class PairTransform(Transform):
    extensions = ("pairs",)

    def __init__(self):
        self.tokenizer = PairTokenizer()

    def decode(self, data):
        return data

    def __call__(self, decoded, generator, train):
        return Item(decoded, ragged=True)


class PairEmbed(Embed):
    vocab_sizes = SIZES

    def __init__(self, dim):
        super().__init__()
        self.left, self.right, self.mask = nn.Embedding(SIZES[0], dim), nn.Embedding(SIZES[1], dim), nn.Parameter(torch.ones(dim))
        self.position = SinCosPosition(dim)

    def tokens(self, values, lengths):
        tokens = Tokens(values, lengths, torch.zeros(len(values), 1))
        return Tokens(values, lengths, tokens.position[:, None])

    def forward(self, tokens, shown_as_mask=None):
        x = self.left(tokens.inputs[:, 0]) + self.right(tokens.inputs[:, 1])
        if shown_as_mask is not None:
            x = torch.where(shown_as_mask[:, None], self.mask, x)
        return x + self.position(tokens.coordinates)


class ImageTransform(PairTransform):
    extensions = ("img",)


def build_model(**settings) -> MaskedPretraining:
    torch.manual_seed(0)
    picture = partial(
        Modality,
        transform=ImageTransform(),
        embed=partial(PatchEmbed, patch_size=4, channels=1),
        tokenizer=DiscreteVAE(num_tokens=11, channels=1, num_layers=2, width=4, codebook_dim=4),
        masking=RandomMasking(0.5),
    )
    pairs = partial(
        Modality, transform=PairTransform(), embed=PairEmbed, masking=RandomMasking(0.3), corruption=MaskReplaceKeep(), weight=0.5
    )
    return MaskedPretraining(Encoder(dim=16, depth=2, num_heads=2), {"picture": picture, "pairs": pairs}, **settings)


@pytest.fixture
def make_model():
    return build_model


def build_classifier(encoder=None, head=None, heads=None, **settings) -> FineTuning:
    """Three classes, from pictures and pairs; with several experts, pairs are of the second."""
    torch.manual_seed(0)
    built = Encoder(**({"dim": 16, "depth": 2, "num_heads": 2} | (encoder or {})))
    picture = partial(Input, transform=ImageTransform(), embed=partial(PatchEmbed, patch_size=4, channels=1))
    pairs = partial(Input, transform=PairTransform(), embed=PairEmbed, expert=min(built.num_experts - 1, 1))
    told = {"label": partial(ClassificationHead, num_classes=3, **(head or {}))} | (heads or {})
    return FineTuning(built, {"picture": picture, "pairs": pairs}, told, **settings)


@pytest.fixture
def make_classifier():
    return build_classifier


def make_sample(number: int, *names: str) -> Sample:
    """A sample whose content, length and seed follow from its number."""
    generator = torch.Generator().manual_seed(number)
    items = {}
    if "picture" in names:
        items["picture"] = Item(torch.randint(256, (1, 16, 16), generator=generator, dtype=torch.uint8))
    if "pairs" in names:
        length = 3 + number % 5
        values = torch.stack([torch.randint(size, (length,), generator=generator) for size in SIZES], 1)
        items["pairs"] = Item(values, ragged=True)
    return Sample(f"sample{number}", items, seed=1000 + number)


def make_samples() -> list[Sample]:
    """Pictures, pairs, and samples with both, in uneven numbers."""
    names = [("picture",), ("pairs",), ("picture", "pairs"), ("pairs",), ("pairs",), ("picture",), ("pairs",), ("picture", "pairs")]
    return [make_sample(number, *present) for number, present in enumerate(names)]


@pytest.fixture
def mixed_samples():
    return make_samples()


def make_labelled_samples() -> list[Sample]:
    """The same, three quarters of them with a label."""
    return [replace(sample, labels={} if number % 4 == 3 else {"label": number % 3}) for number, sample in enumerate(make_samples())]


@pytest.fixture
def labelled_samples():
    return make_labelled_samples()


@pytest.fixture
def loader():
    """Return a loader of ready batches."""

    def make(batches):
        return torch.utils.data.DataLoader([collate(samples) for samples in batches], batch_size=None)

    return make


class Server:
    """Starts and awaits runs in processes of their own; see ``fault_server.py``."""

    def __init__(self):
        script = Path(__file__).with_name("fault_server.py")
        self.process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running = set()

    def ask(self, **request) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, folder: Path, ranks: int = 1, stalled_rank: int | None = None, **settings) -> list[int]:
        numbers = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for rank in range(ranks):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x"}
            mine = settings | ({"stall": 5} if rank == stalled_rank else {})
            mine |= {"environment": {key: str(value) for key, value in environment.items()}} if ranks > 1 else {}
            numbers.append(self.ask(start={"folder": str(folder), "rank": rank, "ranks": ranks, **mine}))
        self.running |= set(numbers)
        return numbers

    def wait(self, numbers: list[int]) -> list[int]:
        codes = [self.ask(wait=number) for number in numbers]
        self.running -= set(numbers)
        return codes

    def await_mark(self, folder: Path, text: str, rank: int = 0) -> None:
        deadline, path = time.monotonic() + 30, folder / f"marks.{rank}"
        while not (path.exists() and text in path.read_text().splitlines()):
            assert time.monotonic() < deadline, (folder / f"log.{rank}").read_text()[-2000:]
            time.sleep(0.01)

    def close(self):
        for number in self.running:
            os.kill(number, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.close()
