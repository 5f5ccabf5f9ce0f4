"""An encoder of pretraining becomes that of a classifier, as BEiT's fine-tuning does it; the same weights, other options."""

from functools import partial

import pytest
import timm
import torch

from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder, LayerNorm, Mlp
from multimodal.pretrained import PretrainedModel, load_embed, load_encoder
from multimodal.pretrained.encoder_options import with_options
from multimodal.pretrained.from_training import model_of
from multimodal.pretrained.registry import format_of
from multimodal.pretrained.settings import ModelSettings
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.image import ImageTransform
from multimodal.training import FineTuning
from multimodal.training.optimization import parameter_groups
from tests.pretrained.conftest import image_settings, randomized

FINE_TUNING = {"norm_at": "none", "share_bias": False, "drop_path": 0.2}


def settings(**encoder) -> ModelSettings:
    """A BEiT of pretraining: a last norm, one table for all layers."""
    return ModelSettings(image_settings(norm_at="output", share_bias=True, **encoder).encoder, image_settings().embeds)


@pytest.fixture
def folder(tmp_path):
    randomized(PretrainedModel(settings())).save_pretrained(tmp_path / "beit")
    return str(tmp_path / "beit")


def classifier(folder: str) -> FineTuning:
    image = partial(Input, transform=ImageTransform(size=48), embed=load_embed(folder, "image"))
    head = partial(ClassificationHead, num_classes=5, norm=partial(LayerNorm, eps=1e-6), init_scale=0.001)
    return FineTuning(load_encoder(folder, **FINE_TUNING), {"image": image}, {"label": head}, layer_decay=0.65)


def test_every_layer_gets_the_shared_table_and_the_last_norm_goes(folder):
    before, after = load_encoder(folder), load_encoder(folder, **FINE_TUNING)
    assert before.norm is not None and after.norm is None and after.bias is None
    state = before.state_dict()
    for name, x in after.state_dict().items():
        own = name.endswith(".attn.position_bias.table")
        assert torch.equal(x, state["bias.table" if own else name]), name
    tables = [block.attn.position_bias.table for block in after.blocks]
    assert len(tables) == 3 and len({x.data_ptr() for x in tables}) == 3
    assert after.training and [block.drop_path.rate for block in after.blocks] == pytest.approx([0.0, 0.1, 0.2])
    assert len(after.state_dict()) == len(state) - 2 - 1 + 3  # less the norm and the shared table, and a table for each layer


def test_before_its_norm_the_encoder_computes_the_same(folder, images):
    model = PretrainedModel.from_pretrained(folder)
    tokens = model.embeds["image"].tokens(images, None)
    vectors = model.embeds["image"](tokens)
    _, (last,) = model.encoder.forward_intermediates(vectors, tokens.item, tokens.coordinates, (2,))
    after = load_encoder(folder, **FINE_TUNING).eval()
    torch.testing.assert_close(after(vectors, tokens.item, tokens.coordinates).tokens, last)


def test_the_classifier_is_that_of_timm(folder, images):
    module = classifier(folder).eval()
    torch.nn.init.normal_(module.heads["label"].proj.weight)
    exported = model_of(module).eval()
    written = format_of("beit", "timm").write(exported)
    arguments = {**written.config["model_args"], "num_classes": 5}
    reference = timm.models.beit.Beit(**arguments).eval()
    missing, extra = reference.load_state_dict(written.tensors, strict=False)
    assert not missing and not extra
    assert isinstance(reference.norm, torch.nn.Identity) and reference.fc_norm.eps == 1e-6
    with torch.no_grad():
        torch.testing.assert_close(exported(images), reference(images / 127.5 - 1), atol=2e-5, rtol=1e-4)


def test_the_head_begins_a_thousandth_as_large(folder):
    head = classifier(folder).heads["label"]
    assert head.norm.eps == 1e-6 and not head.proj.bias.any()
    assert 1e-5 < head.proj.weight.std().item() < 3e-5


def test_tables_and_norms_learn_as_fast_as_in_beit(folder):
    module = classifier(folder)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, 0.65, 3)
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    assert [scales[f"encoder.blocks.{i}.attn.position_bias.table"] for i in range(3)] == pytest.approx([0.65**3, 0.65**2, 0.65])
    assert scales["heads.label.norm.weight"] == 1 and scales["encoder.special.tokens"] == pytest.approx(0.65**4)
    undecayed = {names[id(parameter)] for group in groups if group.get("weight_decay") == 0 for parameter in group["params"]}
    assert "encoder.blocks.0.attn.position_bias.table" not in undecayed and "encoder.blocks.0.attn.query_value_bias" in undecayed


def test_without_options_the_encoder_is_as_it_was_saved(folder):
    same = load_encoder(folder, norm_at="output", share_bias=True, drop_path=0.0, checkpoint_activations=False)
    assert settings_of(same) == settings_of(load_encoder(folder))
    assert load_encoder(folder, checkpoint_activations=True).checkpoint_activations


def test_what_a_config_of_a_new_encoder_leaves_behind_is_no_error():
    encoder = Encoder(16, 1, 2)
    assert with_options(encoder, norm_at="output", share_bias=True, drop_path=0.0) is encoder


def test_an_encoder_in_evaluation_stays_in_it(folder):
    encoder = PretrainedModel.from_pretrained(folder).encoder
    assert not with_options(encoder, drop_path=0.5).training and load_encoder(folder, drop_path=0.5).training


def test_options_are_kept_when_the_model_is_saved_again(folder, tmp_path):
    model_of(classifier(folder)).save_pretrained(tmp_path / "again")
    again = load_encoder(str(tmp_path / "again"))
    assert {name: again.init_args[name] for name in FINE_TUNING} == FINE_TUNING


@pytest.mark.parametrize(
    ("saved", "options", "expected"),
    [
        ({"share_bias": False}, {"share_bias": True}, "share_bias: the layers of this encoder have learned a bias each"),
        ({"bias": None}, {"share_bias": False}, "share_bias has no effect: this encoder has no position bias"),
        ({"norm_at": "none"}, {"norm_at": "output"}, "norm_at: this encoder has no norm at the output; allowed are 'none' and 'none'"),
        ({"norm_at": "output"}, {"norm_at": "input"}, "no norm at the input; allowed are 'none' and 'output'"),
        ({}, {"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_that_the_weights_do_not_allow_are_refused(tmp_path, saved, options, expected):
    made = image_settings(**({"norm_at": "output"} | saved))
    PretrainedModel(ModelSettings(made.encoder, made.embeds)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=expected):
        load_encoder(str(tmp_path), **options)


def test_dropout_is_added_to_every_layer_and_acts_in_training_alone(folder):
    plain, dropping = load_encoder(folder), load_encoder(folder, dropout=0.3)
    assert {(block.attn.dropout, block.mlp.drop.p) for block in dropping.blocks} == {(0.3, 0.3)}
    assert all(torch.equal(x, dropping.state_dict()[name]) for name, x in plain.state_dict().items())
    again = build(settings_of(dropping))
    assert again.blocks[0].attn.dropout == again.blocks[0].mlp.drop.p == 0.3
    x, sequence, places = torch.randn(9, plain.dim), torch.zeros(9, dtype=torch.int64), torch.zeros(9, 2, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(dropping.eval()(x, sequence, places).tokens, plain.eval()(x, sequence, places).tokens)
        assert not torch.equal(dropping.train()(x, sequence, places).tokens, dropping(x, sequence, places).tokens)


def test_dropout_out_of_range_is_refused(folder):
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1.0"):
        load_encoder(folder, dropout=1.0)


class Plain(Mlp):
    """An MLP of a user."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)


def test_dropout_of_layers_that_have_none_is_refused():
    with pytest.raises(ValueError, match="dropout: the layers of this encoder have a Plain, which has none"):
        with_options(Encoder(dim=16, depth=1, num_heads=2, mlp=Plain), dropout=0.1)
