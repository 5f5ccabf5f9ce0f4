"""The interfaces between rooms: what a modality brings, and what the shared code calls.

Letters in shapes: n tokens of all items end to end, items, k fields of a compound token, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from multimodal.batch import Batch, Item, Items
from multimodal.recorded import Recorded
from multimodal.tokens import Tokens


class Moments(NamedTuple):
    """Sums over values of one file, channel by channel; those of several files add up to exact means.

    Args:
        num_values: of each channel.
        sums: of the values, in the units that a config names them in.
        squares: of their squares.
    """

    num_values: int
    sums: tuple[float, ...]
    squares: tuple[float, ...]


class Transform(ABC):
    """Bytes of a file -> the values of an item. Runs in the data workers, on one sample at a time."""

    extensions: ClassVar[tuple[str, ...]]
    """Names of the shard fields (file extensions, lower case, no dot) that hold this modality."""

    @property
    def num_views(self) -> int:
        """In evaluation an item is so many views, from all of which classes are told (``FineTuning``).

        They lie along a first axis of the values. Those of ragged items lie end to end, so many at most; labels say the view of each entry:
        see ``multimodal.windowed.item_of_windows``.
        """
        return 1

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """Return the decoded file.

        Raises:
            ValueError: the file is damaged, empty, over a limit, or not of this modality; the message says which.
        """

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return name -> what is measured of one file, for ``multimodal shards stats``; none by default.

        Raises:
            ValueError: as ``decode``.
        """
        return {}

    @abstractmethod
    def __call__(self, decoded: Any, generator: torch.Generator, train: bool) -> Item:
        """Return the item; crops and augmentation draw from ``generator`` and happen only when ``train``."""

    def example(self) -> Item | None:
        """Return an item such as ``__call__`` returns, on which a model tries whether its parts fit; None: there is none to be had."""
        return None


class LabelledTransform(Transform):
    """A transform that reads a second file too, which says the class of every place of an item (each pixel of an image)."""

    label_extensions: tuple[str, ...]
    """Names of the shard fields that hold the labels; the first that a sample has is read."""

    @abstractmethod
    def decode_labels(self, data: bytes) -> Any:
        """Return the decoded labels.

        Raises:
            ValueError: as ``decode``.
        """

    @abstractmethod
    def labelled(self, decoded: Any, labels: Any | None, generator: torch.Generator, train: bool) -> Item:
        """Return the item with the labels of the same view; all -1 where the sample has none (``labels`` None).

        Raises:
            ValueError: the labels do not fit the item.
        """

    def __call__(self, decoded: Any, generator: torch.Generator, train: bool) -> Item:
        """Return the item of a sample without labels."""
        return self.labelled(decoded, None, generator, train)


class Preparation(nn.Module, ABC):
    """A change of all items of a modality at once, where the batch lies: features of a signal, or augmentation."""

    keeps_ids: ClassVar[bool] = False
    """Whether ids that were made of the items before it are still theirs."""
    normalizes: ClassVar[bool] = False
    """Whether it takes the statistics of values out, so that those of the values before it say nothing of its own."""

    @abstractmethod
    def forward(self, items: Items, train: bool) -> Items:
        """Return the changed items; what is drawn is a function of the items' seeds, and drawn only when ``train``."""


class Tokenizer(nn.Module, ABC):
    """Values <-> ids of a finite vocabulary. A token has one id, or one id for each of several fields."""

    @property
    @abstractmethod
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids of each field; one entry where a token has one id."""

    @property
    def field_names(self) -> tuple[str, ...]:
        """A name for each field, in order."""
        return ("token",) if len(self.vocab_sizes) == 1 else tuple(f"field{i}" for i in range(len(self.vocab_sizes)))

    @abstractmethod
    def encode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the ids of all items end to end, ``(n,)`` int64 for one field or ``(n, k)`` for k fields.

        Args:
            values: ``(items, ...)``; of ragged items end to end, with ``lengths``: see ``Items``.
            lengths: ``(items,)`` int64 for ragged items, else None.
        """

    def marks(self, ids: Tensor) -> Tensor | None:
        """Return ``(n,)`` bool, True at ids that say nothing themselves ([CLS], [SEP]), which are never hidden; None: there are no such."""
        return None

    def begins(self, ids: Tensor) -> Tensor | None:
        """Return ``(n,)`` bool, True where a word begins, as whole words may be hidden; None: tokens are no parts of words."""
        return None

    def groups(self, ids: Tensor, lengths: Tensor) -> Mapping[str, Tensor]:
        """Return group name -> ``(n,)`` int64, which bar, track, ... of its item each token belongs to, -1: to none; by default no groups.

        ``lengths``: ``(items,)`` int64, of the items, whose ids lie end to end.
        """
        return {}

    def annotated(self, tokens: Tokens, ids: Tensor) -> Tokens:
        """Return tokens with all that their ids say of them: the one way by which a modality asks."""
        return replace(
            tokens,
            fields=self.field_names,
            marks=self.marks(ids),
            begins=self.begins(ids),
            groups=lambda: self.groups(ids, tokens.lengths),
        )

    def kinds(self) -> tuple[Tensor, ...]:
        """Return for each field ``(vocab_size,)`` int64, the kind of each id: a hidden id is filled in with one of its kind.

        -1: ids that say nothing themselves (PAD, MASK, [CLS]), which are never filled in. By default all ids are of kind 0.
        """
        return tuple(torch.zeros(size, dtype=torch.int64) for size in self.vocab_sizes)

    def file_of(self, ids: Tensor) -> tuple[str, bytes] | None:
        """Return what the ids of one item say as a file, its extension (no dot) and its bytes; None: they cannot be written as one.

        Args:
            ids: ``(n,)`` or ``(n, k)``; those that a model predicted may be any.
        """
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash (hex) of class, settings and weights: tokenizers with equal fingerprints give equal ids."""

    def check_source(self, source: Transform | Preparation) -> None:
        """Look whether its settings suit what makes the values; nothing by default.

        Raises:
            ValueError: they do not.
        """


class Target(nn.Module, ABC):
    """What is to be predicted of a hidden token: ids, or a vector."""

    @property
    def field_names(self) -> tuple[str, ...]:
        """A name for each field of ids; nothing for vectors."""
        return ()

    @abstractmethod
    def sizes(self, embed: Embed) -> tuple[int, ...]:
        """Return the number of ids of each field; for vectors their width, alone.

        Args:
            embed: how the modality enters the encoder.
        """

    @abstractmethod
    def forward(self, items: Items, tokens: Tokens) -> Tensor:
        """Return the ids ``(n,)`` or ``(n, k)`` int64, or the vectors ``(n, size)`` float32, of all tokens, without gradients.

        Args:
            items: as the data module made them.
            tokens: of the items, as they are before any is hidden.
        """

    def restored(self, inputs: Tensor, vectors: Tensor) -> Tensor:
        """Return predicted vectors as values of tokens.

        Args:
            inputs: ``(n, size)``, the true values.
            vectors: ``(n, size)``.

        Raises:
            ValueError: what is predicted are no values.
        """
        raise ValueError(f"what a {type(self).__name__} asks for are no values of tokens, which could be drawn.")


class Teacher(nn.Module, ABC):
    """A frozen model whose features of the tokens of an item are to be predicted, or to be turned into codes."""

    of_items: bool = False
    """Whether it gives one feature for each item instead of one for each of its tokens."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the features."""

    @abstractmethod
    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features ``(n, dim)`` float32 of the tokens of all items end to end, without gradients.

        Args:
            values: as a transform makes them; see ``Tokenizer.encode``.
            lengths: of ragged items, else None.
        """


class Embed(Recorded, nn.Module, ABC):
    """How a modality enters the encoder. Its constructor takes the width first, and settings that are plain or build a part.

    ``tokens`` cuts the values into tokens; ``forward`` turns tokens into vectors and puts the mask where one is to be shown.
    Between the two the corruption may replace inputs.
    """

    @abstractmethod
    def tokens(self, values: Tensor, lengths: Tensor | None) -> Tokens:
        """Return the tokens of items laid out like ``Items.values`` and ``Items.lengths``."""

    @property
    def input_size(self) -> int:
        """How many numbers the inputs of one token are.

        Raises:
            ValueError: its tokens are no vectors of numbers.
        """
        raise ValueError(f"the tokens of a {type(self).__name__} are no vectors of numbers, which could be predicted.")

    @abstractmethod
    def forward(self, tokens: Tokens, shown_as_mask: Tensor | None = None) -> Tensor:
        """Return ``(n, d)``; tokens where ``shown_as_mask`` (``(n,)`` bool) is True appear as the mask, with their position.

        Of tokens of several ids it may be ``(n, k)``, True at the fields that appear as the mask.
        """

    def check_source(self, source: Transform | Preparation) -> None:
        """Look whether its settings suit what makes the values; nothing by default.

        Raises:
            ValueError: they do not.
        """

    def example(self) -> Item | None:
        """Return an item to trace an exported model with, where no transform says what items look like; None: there is none to be had."""
        return None

    def random_inputs(self, tokens: Tokens, noise: Tensor) -> Tensor:
        """Return random inputs like ``tokens.inputs`` for the random share of a corruption.

        By default those of another token of the same item. ``noise``: ``(n,)``, uniform in [0, 1).
        """
        item = tokens.item
        starts = (tokens.lengths.cumsum(0) - tokens.lengths)[item]
        return tokens.inputs[starts + (noise * tokens.lengths[item]).long()]


class Masking(ABC):
    """Which tokens to hide and predict."""

    num_mixed: int = 1
    """So many items in a row are encoded as one sequence (MixedAE)."""
    learns: ClassVar[bool] = False
    """Whether it learns with the encoder which tokens to hide (``multimodal.objectives.MaskerTraining``)."""

    @abstractmethod
    def __call__(self, tokens: Tokens, seed: Tensor) -> Tensor:
        """Return ``(n,)`` bool, True where a token is hidden; or ``(n, k)``, True at the fields of it that are.

        ``seed``: ``(items,)`` int64. The result for an item depends on its own seed and tokens only, never on what else is in the batch.
        """


class Shown(NamedTuple):
    """What the encoder sees of tokens.

    Args:
        tokens: all of them, with replaced inputs or without places where these are not to be seen.
        as_mask: ``(n,)`` or ``(n, k)`` bool, True where the mask is shown.
        visible: ``(n,)`` bool, True at the tokens that the encoder gets at all; None: it gets all.
    """

    tokens: Tokens
    as_mask: Tensor
    visible: Tensor | None = None


class Corruption(ABC):
    """What the encoder sees at the hidden positions."""

    hides_places: ClassVar[bool] = False
    """Whether it shows tokens whose places are not to be known."""
    hides_fields: ClassVar[bool] = False
    """Whether it can hide some fields of a token and show the others."""

    @abstractmethod
    def __call__(self, embed: Embed, tokens: Tokens, masked: Tensor, seed: Tensor) -> Shown:
        """Return what is shown where ``masked`` (``(n,)`` bool, or ``(n, k)`` if it ``hides_fields``); ``seed``: ``(items,)`` int64."""

    def asked(self, tokens: Tokens, masked: Tensor, seed: Tensor) -> Tensor | None:
        """Return ``(n, size)`` bool, True at the entries of the target's vectors that are to be predicted; None: all of hidden tokens."""
        return None


class Renderer(ABC):
    """Pictures of one item and of its tokens, for logs and reports."""

    columns: ClassVar[tuple[str, ...]]
    """Names of the pictures, from left to right: the item first; last, where ids can be decoded, what the true ids keep of it."""

    @abstractmethod
    def render(self, tokenizer: Tokenizer | Target, values: Tensor, ids: Tensor, predicted: Tensor, masked: Tensor) -> Mapping[str, Tensor]:
        """Return column name -> ``(3, height, width)`` uint8. All tensors lie where the tokenizer's weights do.

        Args:
            tokenizer: decodes ids where it can; or the target that is predicted instead of a tokenizer's ids.
            values: the encoder's view of the item, as in ``Items.values``.
            ids: ``(n,)`` or ``(n, k)``, the true ids; ``(n, size)``, the true vectors.
            predicted: like ``ids``: the true ones with the predictions at the masked positions.
            masked: ``(n,)`` bool.
        """


class TokenCounter(ABC):
    """Counts the tokens that the encoder will get."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """Return ``(samples,)`` int64, the tokens of each sample over all modalities."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash (hex): counters with equal fingerprints count alike."""
