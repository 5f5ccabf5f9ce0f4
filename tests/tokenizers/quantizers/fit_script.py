"""Fit a tree into the folder that is named: a process to be killed."""

import sys
from pathlib import Path

import torch

from multimodal.tokenizers.quantizers.hierarchical_k_means import fit_levels
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import TreeSettings

torch.set_num_threads(1)
vectors = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
fit_levels([vectors], TreeSettings(branching=6, depth=3, tolerance=0), Path(sys.argv[1]))
