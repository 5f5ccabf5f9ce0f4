"""Models of our own as teachers: features of tokens of items of any length, logits of whole items, and the tokenizer they train."""

from functools import partial

import pytest
import torch

from multimodal.nn import Encoder, Frozen
from multimodal.tokenizers.audio import BeatsTokenizer, SpectrogramEmbed
from multimodal.tokenizers.teachers import EncoderTeacher
from tests.pretrained.test_beats import TINY, checkpoint_of, imported, saved
from tests.pretrained.vision_parity import randomized

LENGTHS = [48, 85, 33]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beats")
    model = imported(saved(folder / "beats.pt", checkpoint_of(**TINY, classes=5)))
    randomized(model.heads["classes"])
    model.save_pretrained(folder / "ours")
    return str(folder / "ours"), model.eval()


def spectrograms() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(sum(LENGTHS), 128, generator=torch.Generator().manual_seed(0)) + 15, torch.tensor(LENGTHS)


@pytest.mark.parametrize("layer", [None, 0, -1])
def test_features_are_those_of_each_item_alone(classifier, layer):
    folder, model = classifier
    teacher, (values, lengths) = EncoderTeacher(folder, layer=layer).eval(), spectrograms()
    features = teacher(values, lengths)
    assert teacher.dim == 32 and not teacher.of_items and not features.requires_grad
    expected = []
    for own in values.split(LENGTHS):
        final, layers = model.forward_intermediates(own[None], output_fmt="NLC")
        expected.append((final if layer is None else layers[layer])[0])
    torch.testing.assert_close(features, torch.cat(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(teacher(values[:48][None]), expected[0], atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_each_item_alone(classifier):
    folder, model = classifier
    teacher, (values, lengths) = EncoderTeacher(folder, head="classes").eval(), spectrograms()
    assert teacher.dim == 5 and teacher.of_items
    expected = torch.cat([model(own[None]) for own in values.split(LENGTHS)])
    torch.testing.assert_close(teacher(values, lengths), expected, atol=1e-5, rtol=1e-5)


def test_a_frozen_teacher_is_known_by_its_layer_and_head(classifier):
    chosen = [{}, {"layer": 0}, {"layer": 11}, {"layer": -1}, {"head": "classes"}]
    found = [Frozen(EncoderTeacher(classifier[0], **options)).fingerprint() for options in chosen]
    assert len(set(found)) == 4 and found[2] == found[3]  # -1 is the last, 11
    assert found == [Frozen(EncoderTeacher(classifier[0], **options)).fingerprint() for options in chosen]


@pytest.mark.parametrize("options", [{}, {"head": "classes"}], ids=["features", "logits"])
def test_a_tokenizer_learns_from_it(classifier, options):
    torch.manual_seed(0)
    trunk, embed = partial(Encoder, dim=16, depth=1, num_heads=2), SpectrogramEmbed
    tokenizer = BeatsTokenizer(trunk, embed, num_codes=16, code_dim=8, estimator=trunk, teacher=EncoderTeacher(classifier[0], **options))
    values, lengths = spectrograms()
    optimizer, losses = torch.optim.Adam(tokenizer.parameters(), lr=3e-3), []
    for _ in range(40):
        step = tokenizer.training_loss(values, 0.0, lengths)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        losses.append(step.parts["distillation"].item())
    assert losses[-1] < 0.6 * losses[0]
    assert not any("teacher" in name for name, _ in tokenizer.named_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "speakers"}, r"has no head 'speakers' with logits of whole items, only \['classes'\]"),
        ({"head": "classes", "layer": 3}, "a head reads the encoder's output: leave out layer 3, or head 'classes'"),
        ({"layer": 12}, "12"),
        ({"modality": "text"}, "text"),
    ],
)
def test_what_is_not_there_is_named(classifier, options, message):
    with pytest.raises(ValueError, match=message):
        EncoderTeacher(classifier[0], **options)
