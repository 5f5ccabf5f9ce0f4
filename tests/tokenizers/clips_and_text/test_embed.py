from functools import partial

import pytest
import torch
from torch import nn

from multimodal.batch import Item, Sample, collate
from multimodal.masking import MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder, LayerNorm, LearnedPosition, PredictionHead
from multimodal.nn.block import PostNormBlock
from multimodal.pretrained import folder as saved
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.clips_and_text import (
    ClipsAndTextTransform,
    JointEmbed,
    JointHead,
    load_joint_embed,
    load_joint_head,
    new_joint_embed,
)
from multimodal.tokenizers.clips_and_text.first_rows import at_width
from multimodal.tokenizers.text import TextEmbed
from tests.tokenizers.clips_and_text.films import NUM_CLIPS, NearestOfRow, vocabulary

DIM, WORDS = 16, 31


learned = partial(LearnedPosition, size=(64,))


def embedding(**settings) -> JointEmbed:
    torch.manual_seed(0)
    return JointEmbed(DIM, WORDS, NUM_CLIPS, 30, (29,), position=learned, norm=LayerNorm, **settings).eval()


def sequence(text: str | None = "go up", clips: tuple[int, ...] | None = (0, 7, 49)) -> torch.Tensor:
    joint = vocabulary()
    words = None if text is None else joint.encode_text(text)
    return joint.sequence(words, None if clips is None else joint.encode_clips(torch.tensor(clips)))


def types(embed: JointEmbed, ids: torch.Tensor) -> list[int]:
    return embed.tokens(ids, torch.tensor([len(ids)])).inputs[:, 1].tolist()


def test_clips_and_the_mark_after_them_are_of_the_second_type() -> None:
    embed = embedding()
    assert types(embed, sequence("go")) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert types(embed, sequence("go", None)) == [0, 0, 0, 0]
    assert types(embed, sequence(None, (3, 4))) == [0, 1, 1, 1]
    both = torch.cat([sequence(None, (3, 4)), sequence("go", None)])
    assert embed.tokens(both, torch.tensor([4, 4])).inputs[:, 1].tolist() == [0, 1, 1, 1, 0, 0, 0, 0]


def test_a_token_is_the_norm_of_row_type_and_position() -> None:
    embed, ids = embedding(), sequence("a", (2,))
    rows = [embed.words.weight[28], embed.words.weight[0], embed.fusion.weight[0], embed.clips.weight[2], embed.words.weight[29]]
    kinds = [0, 0, 0, 1, 1]
    expected = torch.stack(rows) + embed.types.weight[kinds] + embed.position.table[:5]
    torch.testing.assert_close(embed(embed.tokens(ids, torch.tensor([5]))), embed.norm(expected))
    hidden = embed(embed.tokens(ids, torch.tensor([5])), torch.tensor([False, False, False, True, False]))
    rows[3] = embed.words.weight[30]
    torch.testing.assert_close(hidden[3], embed.norm(rows[3] + embed.types.weight[1] + embed.position.table[3]), msg="one mask for both")


def test_words_alone_are_embedded_as_in_bert(tmp_path) -> None:
    bert = TextEmbed(DIM, 28, mask_id=None, position=learned, num_types=2, norm=LayerNorm)
    folder = model_folder(tmp_path, bert)
    joint = load_joint_embed(folder, "text", vocabulary(clips=NearestOfRow(width=DIM)))
    ids = vocabulary().encode_text("a seven goes up and left")
    lengths = torch.tensor([len(ids)])
    torch.testing.assert_close(joint(joint.tokens(ids, lengths)), bert(bert.tokens(ids, lengths)))
    assert joint.words.weight.shape == (31, DIM) and torch.equal(joint.words.weight[:28], bert.words.weight)


def test_the_head_of_a_bert_says_the_same_of_words(tmp_path) -> None:
    bert = PredictionHead(DIM, (28,), norm=LayerNorm)
    nn.init.normal_(bert.proj.bias)
    folder = model_folder(tmp_path, TextEmbed(DIM, 28), bert)
    head = load_joint_head(folder, vocabulary(), restrict=False)
    hidden = torch.randn(5, DIM)
    torch.testing.assert_close(head(hidden)[0][:, :28], bert(hidden)[0])
    assert head(hidden)[0].shape == (5, 82) and not head.restrict
    again = build(settings_of(head, ("dim",)), DIM)
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(hidden)[0], head(hidden)[0])
    folder = model_folder(tmp_path, TextEmbed(DIM, 28), PredictionHead(DIM, (20,)))
    with pytest.raises(ValueError, match="predicts 20 words, the vocabulary has 28"):
        load_joint_head(folder, vocabulary())


def model_folder(tmp_path, embed: TextEmbed, head: PredictionHead | None = None) -> str:
    encoder = Encoder(DIM, 1, 2)
    heads = {} if head is None else {"tokens": head}
    settings = {name: settings_of(part, ("dim",)) for name, part in heads.items()}
    model = PretrainedModel(ModelSettings(settings_of(encoder), {"text": settings_of(embed, ("dim",))}, settings))
    for name, part in heads.items():
        model.heads[name].load_state_dict(part.state_dict())
    model.embeds["text"].load_state_dict(embed.state_dict())
    saved.save(model, tmp_path / "bert")
    return str(tmp_path / "bert")


def test_a_model_of_other_words_is_refused(tmp_path) -> None:
    folder = model_folder(tmp_path, TextEmbed(DIM, 20))
    with pytest.raises(ValueError, match="has 20 words, the vocabulary 28"):
        load_joint_embed(folder, "text", vocabulary(), first_clips="random", freeze_clips=False)
    folder = model_folder(tmp_path, TextEmbed(DIM, 28, mask_id=3))
    with pytest.raises(ValueError, match="has the mask 3, the vocabulary 30"):
        load_joint_embed(folder, "text", vocabulary(), first_clips="random", freeze_clips=False)


def test_clips_begin_as_the_centroids() -> None:
    clips = NearestOfRow(width=DIM)
    assert torch.equal(new_joint_embed(DIM, vocabulary(clips=clips), first_clips="centroids").clips.weight, clips.centroids)
    narrow = NearestOfRow(width=3)
    found = new_joint_embed(DIM, vocabulary(clips=narrow), first_clips="centroids").clips.weight
    assert torch.equal(found[:, :3], narrow.centroids) and not found[:, 3:].any()
    scaled = new_joint_embed(DIM, vocabulary(clips=clips)).clips.weight.detach()
    assert scaled.square().mean().sqrt() == pytest.approx(0.02) and scaled.mean(0).abs().max() < 1e-6
    ratio = torch.pdist(clips.centroids) / torch.pdist(scaled)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), msg="all distances at one scale")


def test_wider_centroids_keep_their_distances_along_the_principal_axes() -> None:
    flat = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    rows = flat @ torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(4)))[0][:4]
    found = at_width(rows, 4)
    torch.testing.assert_close(torch.pdist(found), torch.pdist(rows))
    assert torch.equal(found, at_width(rows.clone(), 4))


def test_what_has_no_centroids_is_refused() -> None:
    with pytest.raises(ValueError, match="first_clips needs the tokenizer of clips"):
        new_joint_embed(DIM, vocabulary(num_clips=3))
    with pytest.raises(ValueError, match="freeze_clips keeps what was drawn at random"):
        new_joint_embed(DIM, vocabulary(), first_clips="random", freeze_clips=True)


def test_frozen_clips_are_not_trained_and_words_are() -> None:
    embed = new_joint_embed(DIM, vocabulary(clips=NearestOfRow()), freeze_clips=True)
    embed(embed.tokens(sequence(), torch.tensor([11]))).square().sum().backward()
    assert embed.clips.weight.grad is None and embed.words.weight.grad.abs().sum() > 0 and embed.fusion.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("replacement", ["same kind", "any"])
def test_random_tokens_are_of_the_same_kind_or_of_any(replacement: str) -> None:
    embed, count = embedding(replacement=replacement), 20_000
    ids = torch.tensor([3, 40]).repeat(count // 2)
    tokens = embed.tokens(ids, torch.tensor([count]))
    found = embed.random_inputs(tokens, torch.rand(count, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(found[:, 1], tokens.inputs[:, 1]), "types stay"
    drawn = torch.bincount(found[:, 0], minlength=82)
    assert drawn[:-1].min() > 0 and drawn[-1] == 0, "the fusion is never drawn"
    same = (found[:, 0] < WORDS) == (ids < WORDS)
    assert same.all() if replacement == "same kind" else 0.4 < same.float().mean() < 0.6


def test_it_is_built_again_from_its_settings() -> None:
    embed = new_joint_embed(DIM, vocabulary(clips=NearestOfRow()), position=learned, norm=LayerNorm, dropout=0.1)
    again = build(settings_of(embed, ("dim",)), DIM)
    again.load_state_dict(embed.state_dict())
    tokens = embed.tokens(sequence(), torch.tensor([11]))
    torch.testing.assert_close(again.eval()(tokens), embed.eval()(tokens))


def modality(restrict: bool = True, tied: bool = True, **settings) -> Modality:
    torch.manual_seed(0)
    joint = vocabulary(clips=NearestOfRow())
    return Modality(
        DIM,
        ClipsAndTextTransform(joint),
        new_joint_embed(DIM, joint, norm=LayerNorm, **settings),
        RandomMasking(0.5),
        MaskReplaceKeep(),
        head=lambda dim, sizes: JointHead(dim, sizes, WORDS, restrict=restrict, norm=LayerNorm),
        tied=tied,
    )


def test_the_head_shares_the_tables_of_the_embedding() -> None:
    own = modality()
    assert own.head.proj.words.weight is own.embed.words.weight
    assert own.head.proj.clips.weight is own.embed.clips.weight and own.head.proj.fusion.weight is own.embed.fusion.weight
    apart = modality(tied=False)
    assert apart.head.proj.words.weight is not apart.embed.words.weight
    assert not modality(freeze_clips=True).head.proj.clips.weight.requires_grad


def test_vocabularies_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of the embedding are \(31, 49, 30, \(29,\)\), those of the vocabulary \(31, 50, 30, \(29,\)\)"):
        Modality(DIM, ClipsAndTextTransform(vocabulary()), JointEmbed(DIM, 31, 49, 30, (29,)), RandomMasking())
    with pytest.raises(ValueError, match="the tables must be those of a JointEmbed of as many words and clips"):
        JointHead(DIM, (82,), 30).tie(embedding())
    with pytest.raises(ValueError, match="give either num_words or vocabulary"):
        JointHead(DIM, (82,))
    with pytest.raises(ValueError, match=r"the vocabulary of the head has \(82,\) ids, that of the modality \(83,\)"):
        JointHead(DIM, (83,), vocabulary=vocabulary())
    with pytest.raises(ValueError, match="words, clips and one id more; got num_words 81"):
        JointHead(DIM, (82,), 81)


@pytest.mark.parametrize("restrict", [True, False])
def test_the_restricted_softmax_is_the_full_one_with_others_at_minus_infinity(restrict: bool) -> None:
    torch.manual_seed(1)
    head = JointHead(DIM, (82,), WORDS, restrict=restrict, norm=LayerNorm)
    nn.init.normal_(head.proj.clips.bias)
    hidden, truth = torch.randn(40, DIM, requires_grad=True), torch.randint(0, 81, (40,))
    logits = head(hidden)[0].float()
    if restrict:
        clip = (truth >= WORDS)[:, None]
        ids = torch.arange(82)[None]
        logits = logits.masked_fill(torch.where(clip, (ids < WORDS) | (ids == 81), ids >= WORDS), float("-inf"))
    expected = -logits.log_softmax(1)[torch.arange(40), truth]
    found = head.predict(hidden, truth)
    torch.testing.assert_close(found.loss, expected)
    assert torch.equal(found.ids, logits.argmax(1)) and torch.equal(found.correct[:, 0], found.ids == truth)
    by_hand = torch.autograd.grad(expected.sum(), [hidden, head.proj.words.weight], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(found.loss.sum(), [hidden, head.proj.words.weight]), by_hand)


def test_nothing_hidden_has_no_loss() -> None:
    found = JointHead(DIM, (82,), WORDS).predict(torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64))
    assert found.loss.shape == (0,) and found.correct.shape == (0, 1)


def test_marks_are_never_hidden() -> None:
    own = modality()
    ids = [sequence("go up and left"), sequence("go", None), sequence(None, (1, 2, 3, 4, 5, 6))]
    for seed in range(30):
        samples = [Sample(str(i), {"film": Item(x, ragged=True, labels=x * 0 - 1)}, seed=seed * 7 + i) for i, x in enumerate(ids)]
        items = collate(samples).items["film"]
        view = own.masked_view(items)
        special = torch.isin(items.values, torch.tensor([28, 29, 81]))
        assert not view.masked[special].any() and torch.equal(view.tokens.inputs[special, 0], items.values[special])
        assert [int(part.sum()) for part in view.masked.split(items.lengths.tolist())] == [8, 1, 3], "half of those that are no marks"


def test_sequences_packed_together_are_encoded_as_alone() -> None:
    embed = embedding()
    torch.manual_seed(2)
    encoder = Encoder(DIM, 2, 2, block=PostNormBlock).eval()
    ids = [sequence("go up and left"), sequence("go", None), sequence(None, (1, 2, 3))]
    lengths = torch.tensor([len(x) for x in ids])
    tokens = embed.tokens(torch.cat(ids), lengths)
    together = encoder(embed(tokens), tokens.item, tokens.coordinates).tokens.split(lengths.tolist())
    for own, found in zip(ids, together, strict=True):
        alone = embed.tokens(own, torch.tensor([len(own)]))
        torch.testing.assert_close(found, encoder(embed(alone), alone.item, alone.coordinates).tokens, atol=1e-5, rtol=1e-5)
