"""Films of a few clips with captions, and a tokenizer of clips whose ids are plain. Not a test by itself."""

import json

import torch
from torch import Tensor

from multimodal.tokenizers.clip_file import Clips, write_clips
from multimodal.tokenizers.clips_and_text import JointVocabulary
from multimodal.tokenizers.pretrained import PretrainedTokenizer
from multimodal.tokenizers.text import CharacterTokenizer

NUM_CLIPS = 50
LETTERS = "abcdefghijklmnopqrstuvwxyz' "


class NearestOfRow(PretrainedTokenizer):
    """Clips of one number each: the id is the nearest of the whole numbers."""

    def __init__(self, size: int = NUM_CLIPS, width: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("centroids", torch.randn(size, width, generator=torch.Generator().manual_seed(seed)))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        return (self.size,)

    def encode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return torch.cdist(values, self.centroids).argmin(1)


def vocabulary(**settings) -> JointVocabulary:
    settings = settings or {"num_clips": NUM_CLIPS}
    return JointVocabulary(CharacterTokenizer(LETTERS), **settings)


def clip_file(count: int = 40, seconds: float = 1.5, first: int = 0, tokenizer: str = "") -> bytes:
    """A film whose clip number i has the id ``first + i``."""
    starts = torch.arange(count) * seconds
    return write_clips(Clips(starts, starts + seconds, ids=torch.arange(count) + first, tokenizer=tokenizer))


def caption_file(texts: list[str], seconds: float = 6.0) -> bytes:
    """One sentence after the other, each of so many seconds."""
    spoken = [{"start": number * seconds, "end": (number + 1) * seconds, "text": text} for number, text in enumerate(texts)]
    return json.dumps(spoken).encode()
