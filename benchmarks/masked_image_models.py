"""BEiT that predicts hidden patches, three times with the same weights: ours, transformers' and timm's.

Letters in shapes: b images, n patches of one, m hidden patches of all images, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count

import torch
from jaxtyping import Bool, Float, Int, UInt8
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BeitConfig, BeitForMaskedImageModeling

from multimodal.nn import Attention, Encoder, PredictionHead, RelativeBias2d
from multimodal.tokenizers.image import PatchEmbed

EPS = 1e-6
PATCH = 16


@dataclass(frozen=True)
class Size:
    """Of the models; the default is BEiT-base at 224 pixels.

    Args:
        dim: width.
        depth: layers.
        num_heads: of each layer; a head is 64 wide in BEiT.
        image: side of an image in pixels, a multiple of 16.
        vocab: ids that a patch can have.
    """

    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    image: int = 224
    vocab: int = 8192

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (self.image // PATCH, self.image // PATCH)


@dataclass(frozen=True)
class Work:
    """What all models are given.

    Args:
        images: ``(b, 3, height, width)`` uint8.
        masked: ``(b, n)`` bool, True at hidden patches.
        ids: ``(m,)`` int64, the ids of the hidden patches, row by row.
    """

    images: UInt8[Tensor, "b c height width"]
    masked: Bool[Tensor, "b n"]
    ids: Int[Tensor, " m"]


def make_work(size: Size, batch: int, mask_ratio: float) -> Work:
    """Draw images, and hide the same number of patches in each, at places of its own."""
    generator = torch.Generator().manual_seed(0)
    patches = size.grid[0] * size.grid[1]
    hidden = round(mask_ratio * patches)
    images = torch.randint(0, 256, (batch, 3, size.image, size.image), dtype=torch.uint8, generator=generator)
    masked = torch.rand(batch, patches, generator=generator).argsort(1) < hidden
    return Work(images, masked, torch.randint(0, size.vocab, (batch * hidden,), generator=generator))


class NoPosition(nn.Module):
    """Adds nothing to the patches: the encoder's bias knows where they lie."""

    def forward(self, coordinates: Int[Tensor, "n 2"]) -> Float[Tensor, " 1"]:
        """Return zero."""
        return torch.zeros(1, device=coordinates.device)


def make_encoder(size: Size) -> Encoder:
    """Return BEiT's encoder; one bias for all layers, as in its pretraining."""
    return Encoder(
        size.dim,
        size.depth,
        size.num_heads,
        attention=partial(Attention, bias="query_value"),
        layer_scale=0.1,
        bias=partial(RelativeBias2d, window=size.grid),
        class_token=True,
    )


class OurBeit(nn.Module):
    """Ours, from the parts that ``MaskedPretraining`` uses.

    Args:
        size: of the model.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = PatchEmbed(size.dim, PATCH, position=lambda dim: NoPosition())
        self.encoder = make_encoder(size)
        self.head = PredictionHead(size.dim, (size.vocab,))
        nn.init.normal_(self.encoder.bias.table, std=0.2)  # zero at first: a bias that is forgotten or misplaced would not be seen

    def forward(self, work: Work) -> Tensor:
        """Return the loss."""
        masked = work.masked.flatten()
        tokens = self.embed.tokens(work.images)
        hidden = self.encoder(self.embed(tokens, masked), tokens.item, tokens.coordinates, wanted=masked).tokens
        return self.head.predict(hidden, work.ids).loss.mean()


class VisibleBeit(OurBeit):
    """Ours with an encoder that sees the visible patches alone; two more layers read the hidden ones out of them (MAE, BEATs).

    Args:
        size: of the model.
        readout_depth: layers after the encoder, which see all places.
    """

    def __init__(self, size: Size, readout_depth: int = 2) -> None:
        super().__init__(size)
        self.readout = Encoder(
            size.dim // 2, readout_depth, size.num_heads // 2, bias=partial(RelativeBias2d, window=size.grid), class_token=False
        )
        self.narrow = nn.Linear(size.dim, size.dim // 2)
        self.head = PredictionHead(size.dim // 2, (size.vocab,))
        self.mask_token = nn.Parameter(torch.zeros(size.dim // 2))

    def forward(self, work: Work) -> Tensor:
        """Return the loss."""
        masked = work.masked.flatten()
        visible = (~masked).nonzero()[:, 0]
        tokens = self.embed.tokens(work.images)
        item, coordinates = tokens.item, tokens.coordinates
        shown = tokens.with_inputs(tokens.inputs[visible])
        encoded = self.encoder(self.embed(shown), item[visible], coordinates[visible]).tokens
        mask = self.mask_token.expand(len(masked), -1)
        x = mask.to(encoded.dtype).index_copy(0, visible, self.narrow(encoded).to(encoded.dtype))
        return self.head.predict(self.readout(x, item, coordinates, wanted=masked).tokens, work.ids).loss.mean()


class TransformersBeit(nn.Module):
    """transformers' ``BeitForMaskedImageModeling``.

    Args:
        size: of the model.
        attention: "sdpa", its default, or "eager".
    """

    def __init__(self, size: Size, attention: str) -> None:
        super().__init__()
        config = BeitConfig(
            hidden_size=size.dim,
            num_hidden_layers=size.depth,
            num_attention_heads=size.num_heads,
            intermediate_size=4 * size.dim,
            image_size=size.image,
            patch_size=PATCH,
            vocab_size=size.vocab,
            use_mask_token=True,
            use_shared_relative_position_bias=True,
            layer_norm_eps=EPS,
            drop_path_rate=0.0,
            attn_implementation=attention,
        )
        self.model = BeitForMaskedImageModeling(config)

    def forward(self, work: Work) -> Tensor:
        """Return the loss."""
        return self.model(normalised(work.images), bool_masked_pos=work.masked, labels=work.ids).loss


class TimmBeit(nn.Module):
    """timm's BEiT with a mask token, and a head at the hidden patches as in unilm's pretraining.

    Args:
        size: of the model.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.model = Beit(
            img_size=size.image,
            embed_dim=size.dim,
            depth=size.depth,
            num_heads=size.num_heads,
            use_abs_pos_emb=False,
            use_shared_rel_pos_bias=True,
            init_values=0.1,
            norm_layer=partial(nn.LayerNorm, eps=EPS),
            num_classes=0,
            global_pool="",
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.head = nn.Linear(size.dim, size.vocab)

    def forward(self, work: Work) -> Tensor:
        """Return the loss."""
        model, x = self.model, self.model.patch_embed(normalised(work.images))
        x = torch.where(work.masked[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat((model.cls_token.to(x.dtype).expand(len(x), -1, -1), x), dim=1)
        bias = model.rel_pos_bias()
        for block in model.blocks:
            x = block(x, shared_rel_pos_bias=bias)
        return F.cross_entropy(self.head(model.norm(x)[:, 1:][work.masked]), work.ids)


def normalised(images: UInt8[Tensor, "b c height width"]) -> Float[Tensor, "b c height width"]:
    """Return pixels in [-1, 1], as the peers want them."""
    return images.float().div_(127.5).sub_(1)


@torch.no_grad()
def copy_weights(ours: OurBeit, peer: TransformersBeit | TimmBeit) -> None:
    """Give a peer our weights.

    Raises:
        ValueError: the peer has a weight that nothing was copied to.
    """
    state = transformers_layout(ours) if isinstance(peer, TransformersBeit) else timm_layout(ours)
    own = peer.state_dict()
    if missing := sorted(own.keys() - state.keys()):
        raise ValueError(f"{type(peer).__name__} has weights that ours does not name: {missing}.")
    peer.load_state_dict({name: value.reshape(own[name].shape) for name, value in state.items()})


def timm_layout(ours: OurBeit) -> dict[str, Tensor]:
    """Return our weights under timm's names."""
    renames = {"scale1.gamma": "gamma_1", "scale2.gamma": "gamma_2"}
    state = {"mask_token": ours.embed.mask_token, "head.weight": ours.head.proj.weight, "head.bias": ours.head.proj.bias}
    model = {
        "cls_token": ours.encoder.special.tokens,
        "patch_embed.proj.weight": ours.embed.proj.weight,
        "patch_embed.proj.bias": ours.embed.proj.bias,
        "rel_pos_bias.relative_position_bias_table": ours.encoder.bias.table,
        "norm.weight": ours.encoder.norm.weight,
        "norm.bias": ours.encoder.norm.bias,
    }
    for number, block in enumerate(ours.encoder.blocks):
        for name, value in block.state_dict().items():
            if name != "attn.query_value_bias":
                model[f"blocks.{number}.{renames.get(name, name)}"] = value
        model[f"blocks.{number}.attn.q_bias"], model[f"blocks.{number}.attn.v_bias"] = block.attn.query_value_bias
    return state | {f"model.{name}": value for name, value in model.items()}


def transformers_layout(ours: OurBeit) -> dict[str, Tensor]:
    """Return our weights under transformers' names."""
    state = {
        "beit.embeddings.cls_token": ours.encoder.special.tokens,
        "beit.embeddings.mask_token": ours.embed.mask_token,
        "beit.embeddings.patch_embeddings.projection.weight": ours.embed.proj.weight,
        "beit.embeddings.patch_embeddings.projection.bias": ours.embed.proj.bias,
        "beit.shared_position_bias.relative_position_bias_table": ours.encoder.bias.table,
        "layernorm.weight": ours.encoder.norm.weight,
        "layernorm.bias": ours.encoder.norm.bias,
        "lm_head.weight": ours.head.proj.weight,
        "lm_head.bias": ours.head.proj.bias,
    }
    renames = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    for block, number in zip(ours.encoder.blocks, count()):
        own = {f"{theirs}.{kind}": block.state_dict()[f"{name}.{kind}"] for name, theirs in renames.items() for kind in ("weight", "bias")}
        own |= {"lambda_1": block.scale1.gamma, "lambda_2": block.scale2.gamma}
        for letter, weight in zip("qkv", block.attn.qkv.weight.chunk(3), strict=True):
            own[f"attention.{letter}_proj.weight"] = weight
        own["attention.q_proj.bias"], own["attention.v_proj.bias"] = block.attn.query_value_bias
        state |= {f"beit.layers.{number}.{name}": value for name, value in own.items()}
    return {f"model.{name}": value for name, value in state.items()}
