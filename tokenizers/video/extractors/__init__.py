"""Frozen models that give a clip of a film one vector."""

from multimodal.tokenizers.video.extractors.encoder import EncoderExtractor
from multimodal.tokenizers.video.extractors.extractor import ClipExtractor
from multimodal.tokenizers.video.extractors.pictures import PictureExtractor
from multimodal.tokenizers.video.extractors.s3d import S3DExtractor

__all__ = ["ClipExtractor", "EncoderExtractor", "PictureExtractor", "S3DExtractor"]
