"""Films: files to clips."""

from multimodal.tokenizers.video.crop import CornerCrop, RandomResizedCrop, RandomSquare
from multimodal.tokenizers.video.decode import Film, VideoLimits, decode_clip, open_film
from multimodal.tokenizers.video.embed import TubeletEmbed
from multimodal.tokenizers.video.render import ClipRenderer
from multimodal.tokenizers.video.transform import VideoTransform
from multimodal.tokenizers.video.windows import ClipWindows

__all__ = [
    "ClipRenderer",
    "ClipWindows",
    "CornerCrop",
    "Film",
    "RandomResizedCrop",
    "RandomSquare",
    "TubeletEmbed",
    "VideoLimits",
    "VideoTransform",
    "decode_clip",
    "open_film",
]
