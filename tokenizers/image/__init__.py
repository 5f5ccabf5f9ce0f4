"""Images: decoding and crops, patches, discrete visual tokens."""

from multimodal.tokenizers.image.decode import decode_image
from multimodal.tokenizers.image.dvae import DiscreteVAE
from multimodal.tokenizers.image.embed import PatchEmbed
from multimodal.tokenizers.image.render import PatchGridRenderer
from multimodal.tokenizers.image.transform import ImageTransform

__all__ = ["DiscreteVAE", "ImageTransform", "PatchEmbed", "PatchGridRenderer", "decode_image"]
