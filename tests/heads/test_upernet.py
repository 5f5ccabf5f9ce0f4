"""UPerNet says what transformers' two implementations say with the same weights."""

import pytest
import torch
from transformers import BeitConfig, UperNetConfig
from transformers.models.beit import modeling_beit
from transformers.models.upernet import modeling_upernet

from multimodal.heads import UPerNetHead

DIM, CHANNELS, CLASSES = 8, 6, 5


def levels(sides=((16, 24), (8, 12), (4, 6), (2, 3))):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, DIM, *side, generator=generator) for side in sides]


def randomized(*modules):
    torch.manual_seed(1)
    for module in modules:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        module.eval()
    return modules


def copy(own, theirs):
    """Copy weights in order of definition; the tables have the same layers under other names."""
    values = list(theirs.state_dict().values())
    own.load_state_dict(dict(zip(own.state_dict(), values, strict=True)))


def build(kind):
    if kind == "upernet":
        config = UperNetConfig(hidden_size=CHANNELS, num_labels=CLASSES, auxiliary_channels=7)
        decode = modeling_upernet.UperNetHead(config, [DIM] * 4)
        auxiliary = modeling_upernet.UperNetFCNHead(config, [DIM] * 4)
    else:
        config = BeitConfig(hidden_size=DIM, num_labels=CLASSES, auxiliary_channels=7)
        decode, auxiliary = modeling_beit.BeitUperHead(config), modeling_beit.BeitFCNHead(config)
    return randomized(decode, auxiliary)


@pytest.mark.parametrize("kind", ["upernet", "beit"])
def test_both_classifiers_equal_those_of_transformers(kind):
    decode, auxiliary = build(kind)
    own = UPerNetHead(DIM, CLASSES, channels=decode.channels, auxiliary_channels=7).eval()
    psp = decode.psp_bottleneck if kind == "beit" else decode.bottleneck
    for mine, theirs in (
        (own.pools, decode.psp_modules),
        (own.bottleneck, psp),
        (own.laterals, decode.lateral_convs),
        (own.smooth, decode.fpn_convs),
        (own.fuse, decode.fpn_bottleneck),
        (own.classifier, decode.classifier),
        (own.auxiliary, auxiliary),
    ):
        copy(mine, theirs)
    given = levels()
    torch.testing.assert_close(own.classifier(own.joined(given)), decode(given), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.auxiliary(given[2]), auxiliary(given), atol=1e-5, rtol=1e-5)


def layers(count=2):
    return [torch.randn(count, DIM, 4, 6, generator=torch.Generator().manual_seed(number)) for number in range(4)]


def test_the_second_classifier_speaks_in_training_alone():
    head = UPerNetHead(DIM, CLASSES, channels=CHANNELS, auxiliary_channels=7)
    said = head(layers())
    assert said.logits.shape == (2, CLASSES, 16, 24) and said.auxiliary.shape == (2, CLASSES, 4, 6)
    assert head.eval()(layers()).auxiliary is None
    assert UPerNetHead(DIM, CLASSES, channels=CHANNELS, auxiliary_weight=0)(layers()).auxiliary is None


def test_every_layer_counts():
    head = UPerNetHead(DIM, CLASSES, channels=CHANNELS).eval()
    given = layers()
    whole = head(given).logits
    for number in range(4):
        changed = [x.flip(-1) if i == number else x for i, x in enumerate(given)]
        assert not torch.allclose(head(changed).logits, whole, atol=1e-6)


def test_one_image_cannot_be_trained_on_but_read():
    head = UPerNetHead(DIM, CLASSES, channels=CHANNELS)
    with pytest.raises(ValueError, match=r"batch of one image.*drop_last"):
        head(layers(1))
    assert head.eval()(layers(1)).logits.shape == (1, CLASSES, 16, 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"pool_scales": (0, 2)}, "pool_scales must be sides of at least 1"),
        ({"pool_scales": ()}, "pool_scales must be sides"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight must be at least 0, got -1.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        UPerNetHead(DIM, **{"num_classes": 3, **settings})
