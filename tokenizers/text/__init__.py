"""Texts: files to ids of bytes, of characters or of a trained vocabulary."""

from multimodal.tokenizers.text.byte import ByteTokenizer
from multimodal.tokenizers.text.character import CharacterTokenizer
from multimodal.tokenizers.text.decode import decode_text
from multimodal.tokenizers.text.embed import TextEmbed
from multimodal.tokenizers.text.file import FileTokenizer
from multimodal.tokenizers.text.ngrams import HashedNgrams
from multimodal.tokenizers.text.pair import TextPairTransform
from multimodal.tokenizers.text.question_transform import QuestionTransform
from multimodal.tokenizers.text.tokenizer import TextTokenizer
from multimodal.tokenizers.text.transform import TextTransform
from multimodal.tokenizers.text.word_tags import WordTagTransform

__all__ = [
    "ByteTokenizer",
    "CharacterTokenizer",
    "FileTokenizer",
    "HashedNgrams",
    "QuestionTransform",
    "TextEmbed",
    "TextPairTransform",
    "TextTokenizer",
    "TextTransform",
    "WordTagTransform",
    "decode_text",
]
