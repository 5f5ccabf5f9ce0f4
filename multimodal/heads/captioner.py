"""Writes a text about what an encoder has seen, one id after the other.

Letters in shapes: b texts, l ids of a text, m tokens that were seen, d width of the encoder, v ids and the one that ends a text.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.nn import initialize_linear
from multimodal.recorded import Recorded


class CaptionDecoder(Recorded, nn.Module):
    """A transformer decoder that attends to the tokens of an encoder (https://arxiv.org/abs/1706.03762), with norms before its layers.

    Its ids are those of a tokenizer of texts, one that begins a text and one that ends it. The table of ids is also the weight of the last
    layer.

    Args:
        dim: width of the encoder (filled in by the model).
        num_ids: of the tokenizer (filled in by the model).
        width: of the decoder, a multiple of ``num_heads``.
        depth: number of layers.
        num_heads: of a layer's attentions.
        dropout: share of numbers that are dropped in training, in [0, 1).
        max_ids: of a text, at least 1; positions are learned.

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(
        self,
        dim: int,
        num_ids: int,
        width: int = 256,
        depth: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        max_ids: int = 64,
    ) -> None:
        super().__init__()
        if min(num_ids, width, depth, num_heads, max_ids) < 1 or width % num_heads:
            raise ValueError(
                "width, depth, num_heads and max_ids must be at least 1, and width a multiple of num_heads; got "
                f"{width}, {depth}, {num_heads} and {max_ids}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}.")
        self.num_ids, self.max_ids, self.end_id, self.begin_id = num_ids, max_ids, num_ids, num_ids + 1
        self.memory = nn.Linear(dim, width)
        self.memory_norm = nn.LayerNorm(width)
        self.table = nn.Embedding(num_ids + 2, width)
        self.position = nn.Parameter(torch.zeros(max_ids + 1, width))
        self.drop = nn.Dropout(dropout)
        layer = nn.TransformerDecoderLayer(width, num_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, depth, nn.LayerNorm(width))
        for own in self.layers.layers[1:]:  # which the class copies from the first, weights and all
            for parameter in own.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        self.bias = nn.Parameter(torch.zeros(num_ids + 1))
        self.memory.apply(initialize_linear)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        nn.init.normal_(self.position, std=0.02)

    def read(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b m width"]:
        """Return what was seen as the decoder attends to it; made once for all steps of a search."""
        return self.memory_norm(self.memory(tokens))

    def forward(self, ids: Int[Tensor, "b l"], memory: Float[Tensor, "b m width"], valid: Bool[Tensor, "b m"]) -> Float[Tensor, "b l v"]:
        """Return the logits of what follows each id, the last being the end of the text; float32.

        Args:
            ids: texts, each beginning with ``begin_id``; what fills them up at their ends changes nothing before it.
            memory: see ``read``.
            valid: False where there is nothing; each text has at least one token.
        """
        x = self.table(ids) * math.sqrt(self.table.embedding_dim) + self.position[: ids.shape[1]]
        ahead = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        hidden = self.layers(self.drop(x), memory, tgt_mask=ahead, memory_key_padding_mask=~valid, tgt_is_causal=True)
        return (nn.functional.linear(hidden, self.table.weight[:-1]) + self.bias).float()  # no text goes on with its beginning
