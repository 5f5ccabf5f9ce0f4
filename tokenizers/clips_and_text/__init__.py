"""Clips of films and what is said meanwhile, as one sequence: VideoBERT."""

from multimodal.tokenizers.clips_and_text.captions import Caption, read_captions
from multimodal.tokenizers.clips_and_text.clips_after_text import ClipsAfterTextTransform
from multimodal.tokenizers.clips_and_text.embed import JointEmbed
from multimodal.tokenizers.clips_and_text.feature_files import ClipFeatureTransform, FeatureArrayTransform
from multimodal.tokenizers.clips_and_text.film import Film, Passage
from multimodal.tokenizers.clips_and_text.first_rows import load_joint_embed, load_joint_head, new_joint_embed
from multimodal.tokenizers.clips_and_text.head import JointHead
from multimodal.tokenizers.clips_and_text.sentences import join_sentences
from multimodal.tokenizers.clips_and_text.transform import ClipsAndTextTransform, Regimes
from multimodal.tokenizers.clips_and_text.vocabulary import JointVocabulary

__all__ = [
    "Caption",
    "ClipFeatureTransform",
    "ClipsAfterTextTransform",
    "ClipsAndTextTransform",
    "FeatureArrayTransform",
    "Film",
    "JointEmbed",
    "JointHead",
    "JointVocabulary",
    "Passage",
    "Regimes",
    "join_sentences",
    "load_joint_embed",
    "load_joint_head",
    "new_joint_embed",
    "read_captions",
]
