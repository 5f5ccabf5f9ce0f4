"""Training a tokenizer: the loss falls, the folder loads, a collapse is announced."""

import csv
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from multimodal.batch import Item, Sample, collate
from multimodal.nn import Encoder, Frozen
from multimodal.protocols import Teacher
from multimodal.tokenizers.audio import BeatsTokenizer, LogMel, SpectrogramEmbed, SpectrogramRenderer, SpectrogramTransform
from multimodal.tokenizers.image import DiscreteVAE, FeatureRenderer, ImageTransform, PatchGridRenderer, QuantizedAutoencoder, VqKdTokenizer
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.quantizers import EuclideanCodebook, ResidualQuantizer
from multimodal.training import TokenizerTraining
from multimodal.training.callbacks import PictureLogger, PredictionWriter, StepSeed
from multimodal.training.checkpoint_contents import check_fits
from multimodal.training.scores import CodebookUse
from tests.ranks import run_script


def make_batches(with_view: bool = False) -> list:
    """Two batches of random images of flat squares; with a view, the encoder's values are another size."""
    generator = torch.Generator().manual_seed(0)
    images = (torch.randint(4, (12, 1, 2, 2), generator=generator) * 85).to(torch.uint8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    items = [Item(torch.zeros(1, 5, 5, dtype=torch.uint8), tokenizer_values=x) if with_view else Item(x) for x in images]
    samples = [Sample(str(number), {"drawing": item}, seed=number) for number, item in enumerate(items)]
    return [collate(samples[:8]), collate(samples[8:])]


def make_training(**settings) -> TokenizerTraining:
    torch.manual_seed(0)
    tokenizer = DiscreteVAE(num_tokens=16, channels=1, num_layers=2, width=8, codebook_dim=8)
    return TokenizerTraining(tokenizer, ImageTransform(size=8, channels=1), name="drawing", **settings)


def trainer_for(folder, epochs: int = 1, **settings) -> L.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        accelerator="cpu", max_epochs=epochs, default_root_dir=folder, log_every_n_steps=1, **quiet, **{"logger": False} | settings
    )


def loader(**settings):
    return torch.utils.data.DataLoader(make_batches(**settings), batch_size=None)


def logged(folder) -> dict[str, list[float]]:
    with (folder / "metrics/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def test_the_run_leaves_a_tokenizer_and_its_curves(tmp_path):
    training = make_training(renderer=PatchGridRenderer((2, 2), min_size=8), optimizer=lambda groups: torch.optim.AdamW(groups, lr=5e-3))
    trainer = trainer_for(
        tmp_path, epochs=100, logger=CSVLogger(tmp_path, name="metrics"), callbacks=[PictureLogger(3)], check_val_every_n_epoch=20
    )
    trainer.fit(training, loader(), loader())
    loaded = load_tokenizer(str(tmp_path / "tokenizer"))
    values = make_batches()[0].items["drawing"].values
    assert loaded.fingerprint() == training.tokenizer.fingerprint()
    assert torch.equal(loaded.encode(values), training.tokenizer.encode(values))

    curves = logged(tmp_path)
    assert curves["val/reconstruction"][-1] < 0.4 * curves["train/reconstruction"][0]
    assert len(curves["train/loss"]) == 200 and curves["train/temperature"][0] == 1.0 and curves["train/temperature"][-1] < 0.07
    ids = torch.cat([loaded.encode(batch.items["drawing"].values) for batch in make_batches()])
    counts = ids.bincount(minlength=16)
    share = counts[counts > 0] / counts.sum()
    assert curves["val/codebook/usage"][-1] == pytest.approx((counts > 0).sum().item() / 16)
    assert curves["val/codebook/dead_codes"][-1] == (counts == 0).sum()
    assert curves["val/codebook/perplexity"][-1] == pytest.approx(torch.exp(-(share * share.log()).sum()).item(), rel=1e-4)
    assert len(list((tmp_path / "pictures/drawing").glob("step-*.png"))) == 5


def test_pictures_show_the_image_and_what_its_tokens_keep():
    renderer = PatchGridRenderer((2, 2), min_size=8)
    training = make_training(renderer=renderer).eval()
    batch = make_batches(with_view=True)[0]
    rows = training.pictures(batch, 2)["drawing"]
    assert [list(row) for row in rows] == [["image", "tokens decoded"]] * 2
    view = batch.items["drawing"].tokenizer_values
    assert torch.equal(rows[1]["image"], view[1].expand(3, -1, -1))
    decoded = training.tokenizer.decode(training.tokenizer.encode(view[1:2]).view(1, 2, 2))[0]
    assert torch.equal(rows[1]["tokens decoded"], (decoded * 255).round().to(torch.uint8).expand(3, -1, -1))
    assert make_training().pictures(batch, 2) == {}


def test_the_tokenizers_view_is_what_is_trained_on(tmp_path):
    training = make_training()
    trainer_for(tmp_path).fit(training, loader(with_view=True), loader(with_view=True))  # values of 5 x 5 would be refused
    trainer_for(tmp_path, callbacks=[PredictionWriter()]).predict(training, loader(with_view=True), return_predictions=False)
    ids = np.load(tmp_path / "predictions/drawing.npy")
    assert ids.shape == (12, 4)
    expected = [training.tokenizer.encode(batch.items["drawing"].values) for batch in make_batches()]
    assert np.array_equal(ids.ravel(), torch.cat(expected))
    assert (tmp_path / "predictions/drawing.keys.txt").read_text().split() == [str(number) for number in range(12)]


def collapse(training: TokenizerTraining) -> TokenizerTraining:
    training.tokenizer.encoder[-1].weight.data.zero_()
    training.tokenizer.encoder[-1].bias.data.copy_(torch.arange(16.0))
    return training


def test_a_collapse_is_announced(tmp_path):
    with pytest.warns(UserWarning, match=r"codebook is collapsing: 6\.2% of its ids.*min_usage 10%"):
        trainer_for(tmp_path).validate(collapse(make_training(min_usage=0.1)), loader(), verbose=False)


def test_a_small_but_sufficient_use_is_not(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the codebook")
        trainer_for(tmp_path).validate(collapse(make_training(min_usage=0.06)), loader(), verbose=False)


def test_scores_are_exact_over_uneven_batches(tmp_path):
    training = make_training()
    whole = collate(
        [Sample(str(i), {"drawing": Item(x)}) for i, x in enumerate(torch.cat([b.items["drawing"].values for b in make_batches()]))]
    )
    one = trainer_for(tmp_path).test(training, torch.utils.data.DataLoader([whole], batch_size=None), verbose=False)[0]
    parts = trainer_for(tmp_path).test(training, loader(), verbose=False)[0]
    for name in ("test/reconstruction", "test/codebook/usage", "test/codebook/perplexity"):
        assert parts[name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.parametrize(
    ("ids", "usage", "perplexity", "dead"), [([0, 1, 2, 3], 1.0, 4.0, 0), ([2, 2, 2], 0.25, 1.0, 3), ([0, 0, 3, 3], 0.5, 2.0, 2)]
)
def test_codebook_use_by_hand(ids, usage, perplexity, dead):
    use = CodebookUse(4)
    use.update(torch.tensor(ids[:2]))
    use.update(torch.tensor(ids[2:]))
    values = use.compute()
    assert values["usage"] == usage and values["dead_codes"] == dead
    assert values["perplexity"].item() == pytest.approx(perplexity)


def test_batches_without_items_teach_nothing_and_spoil_no_score(tmp_path):
    empty = collate([])
    others = collate([Sample("a", {"sound": Item(torch.zeros(3))})])
    training = make_training()
    first, second = make_batches()
    data = torch.utils.data.DataLoader([empty, first, others, second], batch_size=None)
    trainer = trainer_for(tmp_path, callbacks=[PredictionWriter(), PictureLogger(2)])
    trainer.fit(training, data, data)
    assert trainer.global_step == 4 and all(p.isfinite().all() for p in training.parameters())
    assert trainer.test(training, data, verbose=False) == trainer.test(training, loader(), verbose=False)
    trainer.predict(training, data, return_predictions=False)
    assert np.load(tmp_path / "predictions/drawing.npy").shape == (12, 4)


def test_no_collapse_is_announced_of_a_split_without_items(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the codebook")
        trainer_for(tmp_path).validate(make_training(), torch.utils.data.DataLoader([collate([])], batch_size=None), verbose=False)


def test_a_loss_of_nothing_has_gradients_of_zero():
    training = make_training()
    training.training_step(collate([]), 0).backward()
    assert all((p.grad == 0).all() for p in training.tokenizer.parameters())


class Brightness(Teacher):
    """Mean brightness of each quarter of a patch of 4 x 4 pixels."""

    dim = 4

    def forward(self, values):
        quarters = torch.nn.functional.avg_pool2d(values.float() / 128 - 0.9, 2)
        return torch.nn.functional.pixel_unshuffle(quarters, 2).movedim(1, -1).flatten(0, 2)


def make_distillation(**settings) -> TokenizerTraining:
    torch.manual_seed(0)
    sizes = {"code_dim": 4, "dim": 8, "depth": 1, "num_heads": 2, "hidden_dim": 8, "patch_size": 4, "channels": 1, "grid": (2, 2)}
    decoder = {"teacher_dim": None, "decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2, "decoder_hidden_dim": 8}
    tokenizer = VqKdTokenizer(num_codes=12, **sizes, **decoder, teacher=Brightness())
    settings = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=5e-3)} | settings
    return TokenizerTraining(tokenizer, ImageTransform(size=8, channels=1), name="drawing", **settings)


def test_codes_that_stand_for_features_are_learned_drawn_and_left_behind(tmp_path):
    training = make_distillation(renderer=FeatureRenderer(min_size=8))
    trainer = trainer_for(
        tmp_path, 40, logger=CSVLogger(tmp_path, name="metrics"), callbacks=[PictureLogger(2)], check_val_every_n_epoch=20
    )
    trainer.fit(training, loader(), loader())
    curves = logged(tmp_path)
    assert curves["val/distillation"][-1] < 0.3 * curves["train/distillation"][0]
    assert curves["val/codebook/usage"][-1] > 0.5 and "train/revived_codes" in curves and "val/commitment" in curves
    loaded = load_tokenizer(str(tmp_path / "tokenizer"))
    assert loaded.fingerprint() == training.tokenizer.fingerprint() and loaded.teacher is None
    rows = training.eval().pictures(make_batches()[0], 2)["drawing"]
    assert [tuple(row) for row in rows] == [FeatureRenderer.columns] * 2


class Brighter(Brightness):
    """Another teacher."""


def test_a_run_goes_on_with_its_own_teacher_alone(tmp_path):
    saved, trainer = tmp_path / "saved.ckpt", trainer_for(tmp_path)
    trainer.fit(make_distillation(), loader())
    trainer.save_checkpoint(saved)
    other = make_distillation()
    other.tokenizer.teacher = Frozen(Brighter())
    with pytest.raises(
        ValueError, match=r"was trained with another tokenizer.teacher: its fingerprint is \w{12}, the config's is \w{12}\."
    ):
        trainer_for(tmp_path, 2).fit(other, loader(), ckpt_path=saved)
    checkpoint = torch.load(saved, weights_only=True)
    check_fits(checkpoint, other, {})  # to be used, its teacher does not matter
    del checkpoint["multimodal"]["frozen"]  # as of a version that did not note it
    torch.save(checkpoint, saved)
    trainer_for(tmp_path, 2).fit(other, loader(), ckpt_path=saved)


def test_the_statistics_of_codes_go_on_exactly(tmp_path):
    def run(epochs, **resume):
        constant = {"schedule": lambda optimizer, steps: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)}
        training, trainer = make_distillation(**constant), trainer_for(tmp_path, epochs, callbacks=[StepSeed(0)])
        trainer.fit(training, loader(), **resume)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return training.tokenizer.state_dict()

    whole, half = run(6), run(3)
    again = run(6, ckpt_path=tmp_path / "3.ckpt")
    assert not torch.equal(half["quantizer.codes"], whole["quantizer.codes"]) and whole["quantizer.usage"].sum() > 0
    assert all(torch.equal(x, again[name]) for name, x in whole.items())


def test_each_field_of_several_is_counted(tmp_path):
    torch.manual_seed(0)
    stage = partial(EuclideanCodebook, num_codes=5, commitment_weight=0.0)
    quantizer = partial(ResidualQuantizer, num_stages=2, stage=stage)
    tokenizer = QuantizedAutoencoder(quantizer, channels=1, num_layers=2, width=8, dim=4)
    training = TokenizerTraining(tokenizer, ImageTransform(size=8, channels=1), name="drawing", renderer=PatchGridRenderer((2, 2), 8))
    trainer_for(tmp_path, 2).fit(training, loader())
    scores = trainer_for(tmp_path).test(training, loader(), verbose=False)[0]
    ids = torch.cat([tokenizer.encode(batch.items["drawing"].values) for batch in make_batches()])
    used = [len(field.unique()) / 5 for field in ids.unbind(1)]
    assert [scores[f"test/codebook/usage_field{i}"] for i in range(2)] == pytest.approx(used)
    assert scores["test/codebook/usage"] == pytest.approx(sum(used) / 2)
    assert scores["test/codebook/dead_codes"] == pytest.approx(5 - 5 * sum(used) / 2)
    rows = training.pictures(make_batches()[0], 1)["drawing"]
    assert [list(row) for row in rows] == [["image", "tokens decoded"]]


def make_sounds(**settings) -> TokenizerTraining:
    torch.manual_seed(0)
    tokenizer = BeatsTokenizer(partial(Encoder, dim=16, depth=1, num_heads=2), SpectrogramEmbed, num_codes=12, code_dim=4)
    return TokenizerTraining(
        tokenizer, **{"transform": SpectrogramTransform(features=LogMel(num_bins=32)), "name": "sound"} | settings
    ).eval()


def sound_batch(*frames: int):
    items = [15.4 + 6.5 * torch.randn(count, 32, generator=torch.Generator().manual_seed(count)) for count in frames]
    return collate([Sample(str(count), {"sound": Item(x, ragged=True)}) for count, x in zip(frames, items, strict=True)])


def test_items_of_different_lengths_are_drawn_one_by_one():
    renderer = SpectrogramRenderer(min_size=1)
    training, batch = make_sounds(renderer=renderer), sound_batch(48, 85, 33)
    rows = training.pictures(batch, 2)["sound"]
    assert [list(row) for row in rows] == [["spectrogram", "codes"]] * 2
    assert [tuple(row["codes"].shape) for row in rows] == [(3, 32, 48), (3, 32, 80)]
    for row, own in zip(rows, batch.items["sound"].values.split([48, 85, 33]), strict=False):
        ids = training.tokenizer.encode(own[None])
        drawn = renderer.render(training.tokenizer, own, ids, ids, torch.zeros(len(ids), dtype=torch.bool))
        assert all(torch.equal(row[name], drawn[name]) for name in row)
    assert not torch.equal(rows[0]["codes"], rows[1]["codes"][:, :, :48])


def test_items_of_different_lengths_have_no_array_of_ids(tmp_path):
    training = make_sounds()
    with pytest.raises(ValueError, match=r"items of different lengths have no array of ids: `multimodal shards tokenize` stores them"):
        training.predict_step(sound_batch(48, 85), 0)
    same = collate([Sample(str(i), {"sound": Item(15 + torch.randn(48, 32))}) for i in range(2)])
    assert training.predict_step(same, 0)["sound"][1].shape == (2, 6)


@pytest.mark.parametrize(("mean", "gain"), [(15.41663, 1.0), (-4.2677393, 2.0**15)])
def test_statistics_of_another_gain_than_the_transforms_are_refused(mean, gain):
    embed = partial(SpectrogramEmbed, mean=mean)
    tokenizer = BeatsTokenizer(partial(Encoder, dim=16, depth=1, num_heads=2), embed, num_codes=12, code_dim=4)
    with pytest.raises(ValueError, match=rf"mean {mean:g} is not of spectrograms with gain {gain:g}, whose means lie in"):
        TokenizerTraining(tokenizer, SpectrogramTransform(features=LogMel(gain=gain)))
    TokenizerTraining(tokenizer, SpectrogramTransform(features=LogMel(gain=2.0**15 / gain)))


def test_processes_agree_on_the_codes_where_one_has_no_items(tmp_path):
    script = Path(__file__).with_name("tokenizer_ranks_script.py")
    run_script(script, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert bool(first["quantizer.initialized"]) and first["quantizer.usage"].sum() > 0
    assert all(torch.equal(x, second[name]) for name, x in first.items())
