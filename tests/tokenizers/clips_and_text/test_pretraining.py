"""Films, texts and films without words in one batch, from bytes to a step of training."""

import torch

from multimodal.batch import Batch, collate
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.masking import MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder, LayerNorm, PostNormBlock
from multimodal.objectives import Alignment, MaskedPrediction
from multimodal.pretrained.from_training import model_of
from multimodal.tokenizers.clip_file import FIELD
from multimodal.tokenizers.clips_and_text import ClipsAndTextTransform, JointHead, new_joint_embed
from multimodal.training import MaskedPretraining
from tests.tokenizers.clips_and_text.films import NearestOfRow, caption_file, clip_file, vocabulary

DIM = 32
TEXTS = ["take the dough", "roll it out", "add some oil", "put it in"]


def training() -> MaskedPretraining:
    torch.manual_seed(0)
    joint = vocabulary(clips=NearestOfRow())

    def film(dim: int) -> Modality:
        embed = new_joint_embed(dim, joint, norm=LayerNorm)
        head = JointHead(dim, joint.vocab_sizes, vocabulary=joint, norm=LayerNorm)
        return Modality(dim, ClipsAndTextTransform(joint), embed, RandomMasking(0.3), MaskReplaceKeep(), head=head, tied=True)

    encoder = Encoder(DIM, 2, 2, block=PostNormBlock, norm_at="none")
    return MaskedPretraining(encoder, {"film": film}, [MaskedPrediction, lambda e, m: Alignment(e, m, weight=3.0)])


def batch(own: MaskedPretraining, turn: int = 0) -> Batch:
    clips = clip_file(16, tokenizer=own.modalities["film"].transform.tokenizer.clip_fingerprint)
    kinds = [{FIELD: clips, "captions.json": caption_file(TEXTS)}] * 16 + [{FIELD: clips}, {"txt": b"Take the dough. Roll it out."}]
    prepare = SamplePreparation(own.transforms, [], seed=0, train=True)
    return collate([prepare(RawSample("shard", str(i), fields, tuple(fields)), 0, turn) for i, fields in enumerate(kinds)])


def test_a_batch_of_all_kinds_is_learned() -> None:
    own = training().train()
    optimizer = torch.optim.Adam(own.parameters(), 3e-3)
    data, losses = batch(own), []
    assert data.items["film"].labels is not None and set(data.items["film"].labels.tolist()) == {-1, 0, 1}
    for _ in range(30):
        terms = own._terms(data, "train")
        assert {name for name, _ in terms} == {"film", "film_alignment"}
        loss = sum(term.weight * term.loss for term in terms.values()) / sum(term.weight * term.count for term in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.75 * losses[0]


def test_another_turn_draws_other_stretches_and_the_same_turn_the_same() -> None:
    own = training()
    first, again, other = (batch(own, turn).items["film"].values for turn in (0, 0, 1))
    assert torch.equal(first, again) and not (first.shape == other.shape and torch.equal(first, other))


def test_an_exported_model_embeds_and_predicts_alike() -> None:
    own = training().eval()
    model = model_of(own)
    items = batch(own).items["film"]
    embed, head = own.modalities["film"].embed, own.modalities["film"].head
    tokens = embed.tokens(items.values, items.lengths)
    torch.testing.assert_close(model.embeds["film"](tokens), embed(tokens))
    hidden = torch.randn(3, DIM)
    torch.testing.assert_close(model.heads["tokens"](hidden)[0], head(hidden)[0])
    assert model.heads["tokens"].proj.words.weight is model.embeds["film"].words.weight, "tied there too"
