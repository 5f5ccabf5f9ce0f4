"""Fill in what is hidden: iterative masked decoding."""

from multimodal.filling.allowed import AllowedIds
from multimodal.filling.filling import Filled, Filling
from multimodal.filling.iterative import IterativeDecoding
from multimodal.filling.schedule import still_hidden
from multimodal.filling.windows import SlidingWindows

__all__ = ["AllowedIds", "Filled", "Filling", "IterativeDecoding", "SlidingWindows", "still_hidden"]
