"""Train models of ``test_together.py`` on one process or two: ``ddp_script.py FOLDER DEVICES NAME ...``.

Weights go to ``NAME_DEVICES_RANK.pt``.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from multimodal.batch import collate
from tests.objectives.pictures import fit, picture_sample
from tests.objectives.test_together import make, weights


def main(folder: str, devices: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    samples = [picture_sample(number) for number in range(5)]
    rank = int(os.environ.get("LOCAL_RANK", 0))
    parts = [samples[:3], samples[3:]]
    batches = [samples, samples[:3]] if devices == 1 else [parts[rank], samples[:3] if rank == 0 else []]
    settings = {"strategy": "ddp", "devices": devices, "use_distributed_sampler": False} if devices > 1 else {"devices": 1}
    for name in names:
        model = make(name)
        fit(model, [collate(own) for own in batches], **settings)
        torch.save(weights(model), f"{folder}/{name}_{devices}_{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
