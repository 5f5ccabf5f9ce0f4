"""What two processes have that quantize together."""

from pathlib import Path

import pytest
import torch

from tests.ranks import run_script

SCRIPT = Path(__file__).with_name("ranks_script.py")


@pytest.fixture(scope="session")
def of_ranks(tmp_path_factory):
    """For each rank what ``ranks_script.py`` writes: quantizer -> states, and the number of revived codes."""
    folder = tmp_path_factory.mktemp("ranks")
    run_script(SCRIPT, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
