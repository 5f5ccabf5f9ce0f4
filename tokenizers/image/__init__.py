"""Images: decoding and crops, patches, discrete visual tokens."""

from multimodal.tokenizers.image.dalle import DalleTokenizer
from multimodal.tokenizers.image.decode import decode_image
from multimodal.tokenizers.image.dvae import DiscreteVAE
from multimodal.tokenizers.image.embed import PatchEmbed
from multimodal.tokenizers.image.render import PatchGridRenderer
from multimodal.tokenizers.image.transform import ImageTransform
from multimodal.tokenizers.image.vqkd import VqKdTokenizer

__all__ = ["DalleTokenizer", "DiscreteVAE", "ImageTransform", "PatchEmbed", "PatchGridRenderer", "VqKdTokenizer", "decode_image"]
