"""Segmentation: exact means over pixels, whole images and windows, files of predictions, and a loss that falls."""

from dataclasses import replace
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.heads import DenseLogits, LinearSegmentation, SegmentationHead, UPerNetHead
from multimodal.modality import Input, Modality
from multimodal.nn import Encoder
from multimodal.protocols import Embed
from multimodal.tokenizers.image import ImageTransform, PatchEmbed, SegmentationTransform
from multimodal.training import SemanticSegmentation, SlidingWindow

SGD = {
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
CLASSES = 3


class PlainHead(SegmentationHead):
    """A linear layer for each patch, without a norm over the batch, and a second one."""

    num_layers, auxiliary_weight = 1, 0.5

    def __init__(self, dim: int, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first, self.second = nn.Conv2d(dim, num_classes, 1), nn.Conv2d(dim, num_classes, 1)

    def forward(self, layers):
        return DenseLogits(self.first(layers[0]), self.second(layers[0]) if self.training else None)


def build(head=PlainHead, size=16, encoder=None, transform=None, **settings) -> SemanticSegmentation:
    torch.manual_seed(0)
    built = Encoder(**({"dim": 16, "depth": 2, "num_heads": 2} | (encoder or {})))
    own = transform or SegmentationTransform(size=size, channels=1)
    picture = partial(Input, transform=own, embed=partial(PatchEmbed, patch_size=4, channels=1))
    return SemanticSegmentation(built, {"picture": picture}, head, **settings)


def sample(number: int, labelled: float = 1.0, height: int = 16, width: int = 16) -> Sample:
    """Brightness is the class, of each quarter of the picture; a share of the pixels has no label."""
    generator = torch.Generator().manual_seed(number)
    classes = torch.randint(CLASSES, (2, 2), generator=generator).repeat_interleave(height // 2, 0).repeat_interleave(width // 2, 1)
    values = (classes * 100 + torch.randint(50, (1, height, width), generator=generator)).to(torch.uint8)
    hidden = torch.rand(height, width, generator=generator) >= labelled
    return Sample(f"sample{number}", {"picture": Item(values, labels=classes.masked_fill(hidden, -1).to(torch.int16))}, seed=number)


def samples(count: int = 6) -> list[Sample]:
    """Pictures with labels at shares of their pixels that differ much; the last has none."""
    return [sample(number, labelled=[1.0, 0.1, 0.6][number % 3] if number < count - 1 else 0.0) for number in range(count)]


def loader(batches):
    return torch.utils.data.DataLoader([collate(batch) for batch in batches], batch_size=None)


def step(model, batch):
    model.log = lambda *args, **kwargs: None
    return model.training_step(batch, 0)


def fit(model, batches, **settings):
    L.Trainer(max_epochs=1, **QUIET, **settings).fit(model, loader(batches))
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point() and "scores" not in name}


def test_the_loss_is_the_sum_over_labelled_pixels_of_both_classifiers():
    model, batch = build(), collate(samples())
    items = batch.items["picture"]
    said, labels = model.forward(items.values), items.labels.long()
    there = labels >= 0
    expected = 0
    for logits, weight in ((said.logits, 1.0), (said.auxiliary, 0.5)):
        whole = F.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False).log_softmax(1)
        expected = expected - weight * whole.permute(0, 2, 3, 1)[there].gather(1, labels[there][:, None]).sum()
    torch.testing.assert_close(step(model, batch), expected)


def test_accumulated_batches_equal_one_large_batch():
    # the parts differ in their numbers of labelled pixels: a mean of means would not agree
    given, start = samples(), build().state_dict()
    whole = fit(build(**SGD), [given])
    accumulated = fit(build(**SGD), [given[:1], given[1:3], given[3:]], accumulate_grad_batches=3)
    assert any(not torch.equal(whole[name], start[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(whole[name], accumulated[name], atol=1e-6, rtol=1e-5)


def test_pixels_without_a_label_change_nothing():
    given = samples()
    assert (given[-1].items["picture"].labels == -1).all()
    without, whole = fit(build(**SGD), [given[:-1]]), fit(build(**SGD), [given])
    for name in whole:
        torch.testing.assert_close(whole[name], without[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("present", [6, 0])
@pytest.mark.parametrize("encoder", [{}, {"class_token": True}])
@pytest.mark.parametrize("head", [PlainHead, partial(UPerNetHead, num_classes=CLASSES, channels=4, auxiliary_channels=4)])
def test_every_parameter_has_a_gradient(present, encoder, head):
    model = build(head, encoder=encoder)
    loss = step(model, collate(samples()[:present]))
    loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert (loss > 0) == bool(present)


def test_patches_go_back_to_their_places():
    # one patch that differs changes the logits of its own place the most, class token or not
    for encoder in ({}, {"class_token": True, "num_registers": 2}):
        model = build(encoder=encoder).eval()
        plain = torch.zeros(1, 1, 16, 24, dtype=torch.uint8)
        changed = plain.clone()
        changed[..., 8:12, 20:24] = 255
        moved = (model(changed).logits - model(plain).logits).abs().sum((0, 1))
        assert moved.shape == (4, 6) and moved.argmax() == 2 * 6 + 5


@pytest.mark.parametrize(
    ("depth", "num_layers", "expected"),
    [(12, 4, (3, 5, 7, 11)), (24, 4, (7, 11, 15, 23)), (4, 4, (0, 1, 2, 3)), (2, 4, (0, 0, 0, 1)), (12, 1, (11,)), (12, 2, (5, 11))],
)
def test_layers_are_spread_over_the_depth(depth, num_layers, expected):
    head = partial(UPerNetHead, channels=4) if num_layers == 4 else partial(LinearSegmentation, num_layers=num_layers)
    assert build(partial(head, num_classes=CLASSES), encoder={"depth": depth}).layers == expected


def test_the_head_reads_the_layers_named_before_the_final_norm():
    model = build(partial(LinearSegmentation, num_classes=CLASSES, num_layers=2), encoder={"depth": 3}, layers=[0, 2]).eval()
    seen = []
    model.head.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    values = collate(samples(2)).items["picture"].values
    model(values)
    tokens = model.modality.embed.tokens(values, None)
    _, expected = model.encoder.forward_intermediates(model.modality.embed(tokens), tokens.item, tokens.coordinates, (0, 1, 2))
    for found, layer in zip(seen[0], (0, 2), strict=True):
        torch.testing.assert_close(found.permute(0, 2, 3, 1).flatten(0, 2), expected[layer])


def test_a_window_of_the_image_is_the_image():
    values = collate(samples()).items["picture"].values
    whole, windowed = build().eval(), build(window=SlidingWindow(16)).eval()
    torch.testing.assert_close(windowed.pixel_logits(values, (16, 16)), whole.pixel_logits(values, (16, 16)))
    assert whole.pixel_logits(values, (32, 20)).shape == (len(values), CLASSES, 32, 20)


def test_images_of_any_size_are_scored_through_the_window():
    model = build(window=SlidingWindow(16, 8)).eval()
    model.validation_step(collate([sample(0, height=22, width=34)]), 0)
    model.validation_step(collate([sample(1, height=10, width=6)]), 1)
    assert float(model.scores["val_scores"].compute()["pixels"]) == 22 * 34 + 60


def test_scores_and_loss_agree_with_the_logits():
    model = build(class_names=["a", "b", "c"]).eval()
    batch = collate(samples())
    with torch.no_grad():
        for part in (samples()[:2], samples()[2:]):
            model.validation_step(collate(part), 0)
    items = batch.items["picture"]
    logits, labels = model.pixel_logits(items.values, (16, 16)).detach(), items.labels.long()
    there = labels >= 0
    scores = model.scores["val_scores"].compute()
    assert float(scores["loss"]) == pytest.approx(float(F.cross_entropy(logits, labels, ignore_index=-1)), rel=1e-5)
    assert float(scores["pixel_accuracy"]) == pytest.approx(float((logits.argmax(1) == labels)[there].float().mean()))
    assert {"iou/a", "iou/b", "iou/c"} >= {name for name in scores if name.startswith("iou/")} != set()


def test_the_loss_falls_and_the_classes_are_told():
    model = build(
        partial(UPerNetHead, num_classes=CLASSES, channels=8, auxiliary_channels=4),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=5e-3),
        schedule=SGD["schedule"],
        layer_decay=0.9,
    )
    batches = [[sample(8 * batch + number) for number in range(8)] for batch in range(80)]
    trainer = L.Trainer(max_epochs=1, **QUIET)
    trainer.fit(model, loader(batches), loader([[sample(number) for number in range(1000, 1008)]]))
    assert trainer.callback_metrics["val/mean_iou"] > 0.8 and trainer.callback_metrics["train/loss"] < 1.0


def test_a_frozen_encoder_keeps_its_weights():
    start, model = build().state_dict(), build(freeze=True, encoder={"drop_path": 0.5}, **SGD)
    trained = fit(model, [samples()] * 2)
    moved = {name for name in trained if not torch.equal(trained[name], start[name])}
    assert moved == {"head.first.weight", "head.first.bias", "head.second.weight", "head.second.bias"}
    model.train()
    assert model.head.training and not model.encoder.training


def test_predictions_are_files_of_the_size_of_the_image(tmp_path):
    model = build(window=SlidingWindow(16, 8))
    given = [[replace(sample(3, height=22, width=34), key="../../cat/x")], [sample(4, labelled=0.0)]]
    L.Trainer(**QUIET, default_root_dir=tmp_path / "run").predict(model, loader(given), return_predictions=False)
    folder = tmp_path / "run" / "predictions" / "picture"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert len(files) == 2 and files[0].startswith("cat/x-") and files[1] == "sample4.png"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]
    image = Image.open(folder / files[0])
    expected = model.eval().pixel_logits(given[0][0].items["picture"].values[None], (22, 34)).argmax(1)[0]
    assert image.mode == "P" and torch.equal(torch.from_numpy(np.array(image)).long(), expected)


def test_pictures_show_input_truth_and_prediction():
    rows = build().eval().pictures(collate(samples()), 2)["picture"]
    assert len(rows) == 2 and list(rows[0]) == ["input", "truth", "prediction"]
    assert {picture.shape for row in rows for picture in row.values()} == {(3, 96, 96)}
    assert build().pictures(collate([]), 2) == {}


def test_a_class_without_a_place_names_its_sample():
    model = build()
    given = samples()
    given[2].items["picture"].labels[3, 4] = CLASSES
    with pytest.raises(ValueError, match="mask of sample 'sample2' has class 3, but the head's num_classes is 3: allowed are 0 to 2"):
        model.on_before_batch_transfer(collate(given), 0)


def test_items_without_labels_are_refused():
    bare = Sample("a", {"picture": Item(torch.zeros(1, 16, 16, dtype=torch.uint8))})
    with pytest.raises(ValueError, match="the items of modality 'picture' bring no labels"):
        build().on_before_batch_transfer(collate([bare]), 0)


def test_an_epoch_without_a_labelled_pixel_stops():
    message = r"no pixel of the epoch has a label: do the shards of the training split hold masks in a field mask\.png"
    with pytest.raises(ValueError, match=message):
        fit(build(), [[sample(0, labelled=0.0), sample(1, labelled=0.0)]])


@pytest.mark.parametrize("accumulated", [1, 8])
def test_a_split_without_masks_is_found_after_the_first_batches(accumulated):
    model, bare = build(), [sample(0, labelled=0.0)]
    with pytest.raises(ValueError, match="no pixel of the first 50 training batches has a label"):
        fit(model, [bare] * 60, accumulate_grad_batches=accumulated)
    assert model.trainer.fit_loop.epoch_loop.batch_progress.current.processed == 50


def test_one_labelled_sample_among_the_first_batches_is_enough():
    bare = [sample(0, labelled=0.0)]
    fit(build(), [bare] * 49 + [[sample(1)]] + [bare] * 5)


def test_the_first_batches_are_counted_in_the_first_epoch_only():
    bare, model = [sample(0, labelled=0.0)], build()
    batches = loader([bare] * 30 + [[sample(1)]])
    L.Trainer(max_epochs=2, **QUIET).fit(model, batches)  # the 50th batch stands before any label of its epoch
    assert model.trainer.global_step == 62


class NoGrid(PatchEmbed):
    def tokens(self, values, lengths=None):
        return replace(super().tokens(values, lengths), grid=None)


def test_tokens_without_a_grid_cannot_be_segmented():
    model = build()
    model.modality.embed = NoGrid(16, 4, 1)
    assert isinstance(model.modality.embed, Embed)
    with pytest.raises(ValueError, match="the tokens of modality 'picture' lie on no grid"):
        model(torch.zeros(1, 1, 16, 16))


def masked_modality(dim: int) -> Modality:
    from multimodal.masking import RandomMasking
    from multimodal.tokenizers.image import DiscreteVAE

    embed, tokenizer = PatchEmbed(dim, 4, 1), DiscreteVAE(num_tokens=11, channels=1, num_layers=2, width=4, codebook_dim=4)
    return Modality(dim, SegmentationTransform(size=16, channels=1), embed, RandomMasking(0.5), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [0, 1]}, r"the head reads 1 layers, got layers \[0, 1\]"),
        ({"layers": [2]}, r"layers must ascend from 0 to 1 at most, got \[2\]"),
        ({"class_names": ["a"]}, "class_names has 1 names, the head's num_classes is 3"),
        ({"freeze": True, "layer_decay": 0.5}, "layer_decay has no effect with freeze"),
        ({"transform": ImageTransform(size=16, channels=1)}, "an? ImageTransform, reads no masks"),
        ({"size": 18}, "images of 18 x 18 pixels cannot be cut"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_one_modality_of_plain_input_is_wanted():
    encoder = Encoder(dim=16, depth=2, num_heads=2)
    with pytest.raises(ValueError, match="'picture' is one of pretraining"):
        SemanticSegmentation(encoder, {"picture": masked_modality}, PlainHead)
    picture = partial(Input, transform=SegmentationTransform(size=16, channels=1), embed=partial(PatchEmbed, patch_size=4, channels=1))
    with pytest.raises(ValueError, match="modalities must be one, whose pixels are to be told apart; got a, b"):
        SemanticSegmentation(encoder, {"a": picture, "b": picture}, PlainHead)
