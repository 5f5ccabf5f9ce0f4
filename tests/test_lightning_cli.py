"""What the command shows while it trains."""

import lightning as L
import torch

from multimodal.lightning_cli import ProgressBar


class Scored(L.LightningModule):
    """Learns nothing and logs three scores."""

    def training_step(self, batch, batch_idx):
        return None

    def validation_step(self, batch, batch_idx):
        self.log_dict({"val/loss": 1.23456, "val/accuracy": 0.5, "val/best_layer": 11.0}, prog_bar=True, batch_size=1)
        self.log("val/of_no_bar", 9.5, batch_size=1)

    def configure_optimizers(self):
        return None


def trainer_in(folder, bar: ProgressBar) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[bar], default_root_dir=folder, **quiet)
    trainer.fit(Scored(), torch.utils.data.DataLoader([0]), torch.utils.data.DataLoader([0]))
    return trainer


def test_whole_scores_are_printed_whole(tmp_path, capsys):
    bar = ProgressBar()
    bar.disable()
    trainer_in(tmp_path, bar)
    assert "epoch 1/1, step 1: val/loss 1.235, val/accuracy 0.500, val/best_layer 11\n" in capsys.readouterr().out


def test_scores_right_of_the_bar_have_short_names_and_figures(tmp_path):
    bar = ProgressBar()
    shown = bar.get_metrics(trainer_in(tmp_path, bar), Scored())
    assert shown == {"loss": "1.235", "accuracy": "0.500", "best_layer": "11"}
