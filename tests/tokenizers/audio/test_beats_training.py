"""Training of BEATs' tokenizer: codes come to keep what a teacher says, of clips of any length, and what is saved needs no teacher."""

from functools import partial

import pytest
import torch

from multimodal.nn import BucketedBias, Encoder
from multimodal.protocols import Teacher
from multimodal.tokenizers.audio import BeatsTokenizer, LogMel, SpectrogramEmbed, SpectrogramTransform
from multimodal.tokenizers.pretrained import load_tokenizer

MEANS, LENGTHS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 0]]), [48, 85, 33]
EMBED = partial(SpectrogramEmbed, patch_size=16, mean=0.0, std=1.0, position=None)
ENCODER = partial(Encoder, dim=16, depth=1, num_heads=2, bias=partial(BucketedBias, num_buckets=8, max_distance=16))


class Loudness(Teacher):
    """Four kinds of patches by their mean, or of items."""

    dim = 3

    def __init__(self, of_items=False):
        super().__init__()
        self.of_items, self.embed = of_items, EMBED(3)

    def forward(self, values, lengths=None):
        tokens = self.embed.tokens(values, lengths)
        kinds = tokens.inputs.mean(1).round().long().clamp(0, 3)
        features = MEANS[kinds]
        return torch.stack([part.mean(0) for part in features.split(tokens.lengths.tolist())]) if self.of_items else features


def make_tokenizer(teacher: Teacher | None = None, **settings) -> BeatsTokenizer:
    torch.manual_seed(0)
    options = {"num_codes": 8, "code_dim": 4, "estimator": ENCODER, "teacher": teacher} | settings
    return BeatsTokenizer(ENCODER, EMBED, **options)


def spectrograms(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of 32 bins, end to end, of patches that are mostly 0, 1, 2 or 3."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for length in LENGTHS:
        kinds = torch.randint(4, (length // 16 + 1, 2), generator=generator).repeat_interleave(16, 0).repeat_interleave(16, 1)
        clips.append(kinds[:length] + 0.1 * torch.randn(length, 32, generator=generator))
    return torch.cat(clips), torch.tensor(LENGTHS)


def train(tokenizer: BeatsTokenizer, steps: int) -> None:
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    tokenizer.train()
    for step in range(steps):
        values, lengths = spectrograms(step)
        loss = tokenizer.training_loss(values, step / steps, lengths).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.eval()


def test_codes_come_to_keep_the_teachers_features():
    tokenizer, (values, lengths) = make_tokenizer(Loudness()), spectrograms(1000)
    start = tokenizer.eval().training_loss(values, 0.0, lengths).parts["distillation"]
    train(tokenizer, 250)
    step = tokenizer.training_loss(values, 1.0, lengths)
    assert step.parts["distillation"] < 0.05 < start / 5
    kinds = tokenizer.embed.tokens(values, lengths).inputs.mean(1).round().long()
    assert torch.equal(step.ids, tokenizer.encode(values, lengths))
    for code in step.ids.unique():  # patches of one code are of one kind
        assert len(kinds[step.ids == code].unique()) == 1


def test_the_loss_is_that_of_a_computation_by_hand():
    teacher = Loudness()
    tokenizer, (values, lengths) = make_tokenizer(teacher).eval(), spectrograms()
    step = tokenizer.training_loss(values, 0.0, lengths)
    vectors = tokenizer.vectors(values, lengths)
    ids = (vectors @ tokenizer.quantizer.codes.T).argmax(1)
    tokens = tokenizer.embed.tokens(values, lengths)
    codes = tokenizer.quantizer.codes[ids]
    made = tokenizer.to_feature(tokenizer.estimator(tokenizer.from_code(codes), tokens.item, tokens.coordinates).tokens)
    wanted = teacher(values, lengths)
    cosine = (made * wanted).sum(1) / made.norm(dim=1) / wanted.norm(dim=1)
    assert step.parts["distillation"].item() == pytest.approx((1 - cosine).mean().item(), abs=1e-5)
    assert step.loss.item() == pytest.approx(((1 - cosine).mean() + (vectors - codes).square().mean()).item(), abs=1e-5)


def test_a_teacher_of_whole_items_is_compared_with_their_mean():
    teacher = Loudness(of_items=True)
    tokenizer, (values, lengths) = make_tokenizer(teacher).eval(), spectrograms()
    step = tokenizer.training_loss(values, 0.0, lengths)
    tokens = tokenizer.embed.tokens(values, lengths)
    made = tokenizer.features_of(tokenizer.quantizer.lookup(step.ids), tokens).split(tokens.lengths.tolist())
    means = torch.stack([part.mean(0) for part in made])
    expected = 1 - torch.nn.functional.cosine_similarity(means, teacher(values, lengths)).mean()
    assert step.parts["distillation"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_every_parameter_has_a_gradient_but_the_vector_of_the_mask():
    tokenizer, (values, lengths) = make_tokenizer(Loudness()), spectrograms()
    tokenizer.train().training_loss(values, 0.5, lengths).loss.backward()
    without = [name for name, x in tokenizer.named_parameters() if x.grad is None or not x.grad.abs().sum()]
    assert without == ["embed.mask_token"]


def test_a_clip_gets_the_ids_that_it_gets_alone():
    tokenizer, (values, lengths) = make_tokenizer(Loudness()), spectrograms()
    train(tokenizer, 5)
    alone = [tokenizer.encode(own[None]) for own in values.split(LENGTHS)]
    assert torch.equal(tokenizer.encode(values, lengths), torch.cat(alone))


def test_what_is_saved_has_no_teacher_and_gives_the_same_ids(tmp_path):
    tokenizer, (values, lengths) = make_tokenizer(Loudness()), spectrograms()
    train(tokenizer, 5)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert torch.equal(again.encode(values, lengths), tokenizer.encode(values, lengths))
    assert again.fingerprint() == tokenizer.fingerprint() and again.config["teacher_dim"] == 3
    with pytest.raises(ValueError, match="this tokenizer has no teacher"):
        again.training_loss(values, 0.0, lengths)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "teacher_dim is None, and there is no teacher to take it from"),
        ({"teacher": Loudness(), "teacher_dim": 4}, "teacher_dim is 4, and the teacher's features have 3 values"),
    ],
)
def test_a_width_that_is_said_nowhere_or_twice_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_tokenizer(**settings)


def test_without_an_estimator_there_is_nothing_to_train():
    tokenizer, (values, lengths) = make_tokenizer(Loudness(), estimator=None), spectrograms()
    with pytest.raises(ValueError, match="this tokenizer has no estimator"):
        tokenizer.training_loss(values, 0.0, lengths)


def test_statistics_of_another_gain_are_refused():
    with pytest.raises(ValueError, match="mean 0 is not of spectrograms with gain 32768"):
        make_tokenizer(Loudness()).check_source(SpectrogramTransform())
    make_tokenizer(Loudness()).check_source(SpectrogramTransform(features=LogMel(gain=1.0)))
