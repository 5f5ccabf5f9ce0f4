"""Films: files to clips."""

from multimodal.tokenizers.video.decode import Film, VideoLimits, decode_clip, open_film
from multimodal.tokenizers.video.embed import TubeletEmbed
from multimodal.tokenizers.video.transform import VideoTransform

__all__ = ["Film", "TubeletEmbed", "VideoLimits", "VideoTransform", "decode_clip", "open_film"]
