"""A checkpoint that does not fit is refused in one line, and nothing of it is loaded."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from multimodal import __version__
from multimodal.training.checkpoint_contents import FORMAT, KEY, check_fits, describe

HEAD = "modalities.picture.head.proj.weight"


def drop(checkpoint):
    for name in list(checkpoint["state_dict"])[:5]:
        del checkpoint["state_dict"][name]


def rename(checkpoint):
    checkpoint["state_dict"]["old." + HEAD] = checkpoint["state_dict"].pop(HEAD)


def change(**said):
    return lambda checkpoint: checkpoint[KEY].update(said)


FAULTS = {
    "missing tensors": (drop, r"does not fit the model; 5 missing: encoder\.\S+, encoder\.\S+, encoder\.\S+, \.\.\.\. Nothing was loaded"),
    "a tensor too many": (
        lambda checkpoint: checkpoint["state_dict"].update(extra=torch.zeros(2)),
        r"does not fit the model; 1 not in the model: extra\. Nothing was loaded",
    ),
    "renamed": (rename, rf"1 missing: {HEAD}; 1 not in the model: old\.{HEAD}"),
    "another shape": (
        lambda checkpoint: checkpoint["state_dict"].update({HEAD: torch.zeros(12, 16)}),
        rf"1 of another shape: {HEAD} \(12, 16\) instead of \(11, 16\)",
    ),
    "a later format": (
        change(format=FORMAT + 1, version="9.0"),
        rf"has format {FORMAT + 1}, written by multimodal 9\.0; this version, .* reads 1 to {FORMAT}",
    ),
    "no format": (change(format="x"), "has format 'x'"),
    "another model": (change(model="a.B"), r"is of a a\.B, not of a multimodal\.training\.masked_pretraining\.MaskedPretraining"),
    "other modalities": (change(tokenizers={"sound": "0"}), "has the modalities sound; the model has pairs, picture"),
    "another tokenizer": (
        change(tokenizers={"picture": "0123456789abcdef", "pairs": "pairs"}),
        "another tokenizer for 'picture': its fingerprint is 0123456789ab, the config's is [0-9a-f]{12}",
    ),
    "half a description": (lambda checkpoint: checkpoint.update({KEY: {"format": 1}}), "damaged: what it says about itself"),
}


def copied(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {"state_dict": state, KEY: describe(model, model.fingerprints)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit(make_model, fault):
    model = make_model()
    checkpoint = copied(model)
    FAULTS[fault][0](checkpoint)
    with pytest.raises(ValueError, match=FAULTS[fault][1]) as raised:
        check_fits(checkpoint, model, model.fingerprints, "a.ckpt")
    assert str(raised.value).startswith("a.ckpt") and "\n" not in str(raised.value)


def test_one_that_fits_is_accepted_also_without_a_description(make_model):
    model = make_model()
    checkpoint = copied(model)
    check_fits(checkpoint, model, model.fingerprints)
    del checkpoint[KEY]
    check_fits(checkpoint, model, model.fingerprints)


def test_a_tensor_that_does_not_fit_names_the_version_that_wrote_it(make_model):
    model = make_model()
    checkpoint = copied(model)
    rename(checkpoint)
    checkpoint[KEY]["version"] = "0.0.1"
    with pytest.raises(ValueError, match=r"\(of multimodal 0\.0\.1\) does not fit"):
        check_fits(checkpoint, model, model.fingerprints)


class Stop(L.Callback):
    """Ends a run before a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KeyError("stopped")


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("stops", [(4, 6), (3, 4, 8, 9), (4, 5, 6, 7, 8)])
def test_runs_continued_twice_take_the_steps_of_one(tmp_path, make_model, mixed_samples, loader, validated, stops):
    """Epochs have four batches; checkpoints are of every step."""
    last = tmp_path / "last.ckpt"
    for stop in (*stops, None):
        keeper = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1, enable_version_counter=False)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(accelerator="cpu", max_epochs=3, callbacks=[keeper, Stop(stop)], **quiet)
        try:
            data = (loader([mixed_samples] * 4), loader([mixed_samples]) if validated else None)
            trainer.fit(make_model(), *data, ckpt_path=last if last.exists() else None, weights_only=True)
        except KeyError:
            assert trainer.global_step == stop and trainer.current_epoch == stop // 4
    assert trainer.global_step == 12 and trainer.current_epoch == 3


def test_a_trainer_saves_the_description_and_refuses_before_it_loads(tmp_path, make_model, mixed_samples, loader):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, **quiet)
    model = make_model()
    trainer.fit(model, loader([mixed_samples]))
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    fingerprint = model.modalities["picture"].tokenizer.fingerprint()
    assert checkpoint[KEY] == {
        "format": FORMAT,
        "version": __version__,
        "model": "multimodal.training.masked_pretraining.MaskedPretraining",
        "tokenizers": {"picture": fingerprint, "pairs": "pairs"},
    }
    change(tokenizers={"picture": "0" * 64, "pairs": "pairs"})(checkpoint)
    torch.save(checkpoint, path)
    other = make_model()
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="another tokenizer for 'picture'"):
        L.Trainer(accelerator="cpu", max_epochs=2, **quiet).fit(other, loader([mixed_samples]), ckpt_path=path, weights_only=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
