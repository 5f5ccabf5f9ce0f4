"""Images: decoding and crops, patches, discrete visual tokens."""

from multimodal.tokenizers.image.augment import RandAugment, RandomErasing
from multimodal.tokenizers.image.autoencoder import QuantizedAutoencoder
from multimodal.tokenizers.image.classification_transform import ClassificationTransform
from multimodal.tokenizers.image.dalle import DalleTokenizer
from multimodal.tokenizers.image.decode import decode_image
from multimodal.tokenizers.image.dvae import DiscreteVAE
from multimodal.tokenizers.image.embed import PatchEmbed
from multimodal.tokenizers.image.feature_render import CodeFeatureRenderer, FeatureRenderer
from multimodal.tokenizers.image.mask import MaskReader
from multimodal.tokenizers.image.photometric import PhotometricDistortion
from multimodal.tokenizers.image.pixel_render import PixelRenderer
from multimodal.tokenizers.image.render import PatchGridRenderer
from multimodal.tokenizers.image.segmentation_transform import SegmentationTransform
from multimodal.tokenizers.image.teachers import ModelTeacher, TimmTeacher, TransformersTeacher
from multimodal.tokenizers.image.transform import ImageTransform
from multimodal.tokenizers.image.vqkd import VqKdTokenizer

__all__ = [
    "ClassificationTransform",
    "CodeFeatureRenderer",
    "DalleTokenizer",
    "DiscreteVAE",
    "FeatureRenderer",
    "ImageTransform",
    "MaskReader",
    "ModelTeacher",
    "PatchEmbed",
    "PatchGridRenderer",
    "PhotometricDistortion",
    "PixelRenderer",
    "QuantizedAutoencoder",
    "RandAugment",
    "RandomErasing",
    "SegmentationTransform",
    "TimmTeacher",
    "TransformersTeacher",
    "VqKdTokenizer",
    "decode_image",
]
