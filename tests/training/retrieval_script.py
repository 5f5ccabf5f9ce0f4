"""Train and score the toy model of retrieval: ``torchrun ... retrieval_script.py FOLDER JSON``; JSON is a list of settings of ``train``.

``train`` writes the weights to ``FOLDER/<name>.safetensors``, and losses and scores to ``FOLDER/<name>.json``.
"""

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import lightning as L
import torch
from safetensors.torch import save_file

from multimodal.heads import LateInteraction, PooledEmbedding
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.image import PatchEmbed
from multimodal.training import Retrieval
from multimodal.training.callbacks import PredictionWriter
from multimodal.training.retrieval_losses import InfoNCE, SigmoidLoss

spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "conftest.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def build(head="pooled", loss="softmax", encoder=None, **settings):
    torch.manual_seed(0)
    heads = {"pooled": partial(PooledEmbedding, embedding_dim=8), "late": partial(LateInteraction, embedding_dim=8)}
    losses = {"softmax": InfoNCE, "sigmoid": partial(SigmoidLoss, bias=-2.0)}
    built = Encoder(**({"dim": 16, "depth": 2, "num_heads": 2} | (encoder or {})))
    pairs = partial(Input, transform=toy.PairTransform(), embed=toy.PairEmbed)
    picture = partial(Input, transform=toy.ImageTransform(), embed=partial(PatchEmbed, patch_size=4, channels=1))
    return Retrieval(built, {"pairs": pairs, "picture": picture}, heads[head], loss=losses[loss](), **settings)


def samples(count=7):
    """Samples with both, one with a picture alone, and two whose pairs are equal."""
    made = [toy.make_sample(number, "picture", "pairs") for number in range(count)]
    made[2] = toy.replace(made[2], items={"picture": made[2].items["picture"]})
    made[5] = toy.replace(made[5], items={**made[5].items, "pairs": made[1].items["pairs"]})
    return made


class Parts(L.LightningDataModule):
    """Of two ranks the first gets five samples and the second two; then the second none, and then the first none."""

    def train_dataloader(self):
        whole, rank = samples(), self.trainer.global_rank
        if self.trainer.world_size == 1:
            batches = [whole, whole[:4], whole[3:]]
        else:
            batches = [[whole[:5], whole[5:]][rank], [whole[:4], []][rank], [[], whole[3:]][rank]]
        return torch.utils.data.DataLoader([toy.collate(batch) for batch in batches], batch_size=None)

    def val_dataloader(self):
        whole, rank = samples(), self.trainer.global_rank
        parts = [whole] if self.trainer.world_size == 1 else [[whole[:4], whole[4:]][rank], []]
        return torch.utils.data.DataLoader([toy.collate(batch) for batch in parts], batch_size=None)

    predict_dataloader = val_dataloader


class Losses(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="sum")))


def train(folder, name, ranks, **settings):
    losses = Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,
        max_epochs=2,
        num_sanity_val_steps=0,
        default_root_dir=f"{folder}/{name}",
        callbacks=[losses, PredictionWriter()],
        **QUIET,
    )
    optimizer = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.5)}  # moves as far as gradients are large
    optimizer["schedule"] = lambda made, _: torch.optim.lr_scheduler.ConstantLR(made, 1.0)
    model = build(**optimizer, **settings)
    trainer.fit(model, Parts())
    scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    trainer.predict(model, datamodule=Parts(), return_predictions=False)
    if trainer.is_global_zero:
        Path(folder, f"{name}.json").write_text(json.dumps({"losses": losses.values, "scores": scores}))
        state = {key: value.clone() for key, value in model.state_dict().items() if value.is_floating_point() and "scores" not in key}
        save_file(state, f"{folder}/{name}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in json.loads(sys.argv[2]):
        train(sys.argv[1], **case)
