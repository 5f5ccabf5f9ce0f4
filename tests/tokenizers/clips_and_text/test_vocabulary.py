import json

import pytest
import torch

from multimodal.tokenizers.clips_and_text import JointVocabulary
from multimodal.tokenizers.pretrained import CONFIG_NAME, load_tokenizer
from multimodal.tokenizers.text import ByteTokenizer, CharacterTokenizer, FileTokenizer
from tests.tokenizers.clips_and_text.films import LETTERS, NearestOfRow, vocabulary

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "seven", "goes", "up", "##ward"]


@pytest.fixture
def bert(tmp_path) -> FileTokenizer:
    """A small tokenizer with BERT's marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return FileTokenizer(str(tmp_path), special_tokens=True)


def test_words_come_first_then_clips_and_the_fusion_last(bert) -> None:
    joint = JointVocabulary(bert, num_clips=20)
    assert (joint.start_ids, joint.end_ids, joint.mask_id) == ((2,), (3,), 4), "the marks of the words"
    assert (joint.clip_offset, joint.fusion_id, joint.vocab_sizes) == (10, 30, (31,))
    assert joint.encode_clips(torch.tensor([0, 19])).tolist() == [10, 29]
    assert joint.is_clip(torch.tensor([9, 10, 29, 30])).tolist() == [False, True, True, False]


@pytest.mark.parametrize(("words", "size"), [(CharacterTokenizer(LETTERS), 28), (ByteTokenizer(), 259)], ids=["characters", "bytes"])
def test_words_without_marks_get_them_before_the_clips(words, size: int) -> None:
    joint = JointVocabulary(words, num_clips=5)
    assert (joint.start_ids, joint.end_ids, joint.mask_id, joint.clip_offset) == ((size,), (size + 1,), size + 2, size + 3)
    assert joint.vocab_sizes == (size + 3 + 5 + 1,)


def test_an_id_for_what_is_unknown_is_no_mask(bert) -> None:
    from tokenizers import Tokenizer, models

    plain = JointVocabulary(bert, num_clips=1)
    assert plain.mask_id == 4
    unknown = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    unknown.add_special_tokens(["[UNK]"])
    path = bert.init_args["path"] + "/unknown.json"
    unknown.save(path)
    assert JointVocabulary(FileTokenizer(path), num_clips=1).mask_id == 4, "two ids of words, start and end, then the mask"


def test_sequences_are_as_in_the_paper(bert) -> None:
    joint = JointVocabulary(bert, num_clips=20)
    words, clips = joint.encode_text("a seven goes upward"), joint.encode_clips(torch.tensor([7, 7, 0]))
    assert joint.sequence(words, clips).tolist() == [2, 5, 6, 7, 8, 9, 30, 17, 17, 10, 3]
    assert joint.sequence(words).tolist() == [2, 5, 6, 7, 8, 9, 3]
    assert joint.sequence(clips=clips).tolist() == [2, 17, 17, 10, 3]
    assert joint.decode(joint.sequence(words, clips)) == "a seven goes up ##ward [>] <7> <7> <0>"


def test_marks_are_start_end_and_fusion_but_not_the_mask(bert) -> None:
    joint = JointVocabulary(bert, num_clips=20)
    ids = joint.sequence(joint.encode_template("a [MASK] goes"), joint.encode_clips(torch.tensor([1])))
    assert ids.tolist() == [2, 5, 4, 7, 30, 11, 3]
    assert joint.marks(ids).tolist() == [True, False, False, False, True, False, True]
    assert joint.decode(ids) == "a [MASK] goes [>] <1>"


def test_every_clip_is_a_word_of_its_own(bert) -> None:
    joint = JointVocabulary(bert, num_clips=20)
    ids = joint.sequence(joint.encode_text("goes upward a"), joint.encode_clips(torch.tensor([1, 2])))
    assert joint.begins(ids).tolist() == [True, True, True, False, True, True, True, True, True]


def test_templates_of_characters_have_the_mask_too() -> None:
    joint = vocabulary(num_clips=3)
    assert joint.encode_template("go [MASK] on [MASK]").tolist() == [6, 14, 30, 14, 13, 30]


def test_an_id_that_the_clips_do_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="ids of clips must be from 0 to 2, got 1 to 3"):
        vocabulary(num_clips=3).encode_clips(torch.tensor([1, 3]))


def test_the_settings_must_name_the_clips_once() -> None:
    with pytest.raises(ValueError, match="either clips, the tokenizer of clips, or num_clips"):
        JointVocabulary(CharacterTokenizer(LETTERS))
    with pytest.raises(ValueError, match="either clips"):
        JointVocabulary(CharacterTokenizer(LETTERS), NearestOfRow(), 50)
    with pytest.raises(ValueError, match="num_clips must be at least 1, got 0"):
        JointVocabulary(CharacterTokenizer(LETTERS), num_clips=0)


def test_the_fingerprint_tells_words_clips_and_sizes() -> None:
    made = [vocabulary(clips=NearestOfRow()), vocabulary(clips=NearestOfRow(seed=1)), vocabulary(num_clips=50), vocabulary(num_clips=51)]
    made.append(JointVocabulary(ByteTokenizer(), num_clips=50))
    assert len({joint.fingerprint() for joint in made}) == len(made)
    assert vocabulary(clips=NearestOfRow()).fingerprint() == made[0].fingerprint()
    assert not list(made[0].state_dict()), "the weights of the clips' tokenizer are not the model's"


def test_a_saved_vocabulary_comes_back(bert, tmp_path) -> None:
    joint = JointVocabulary(bert, num_clips=20)
    joint.save_pretrained(tmp_path / "joint")
    found = load_tokenizer(str(tmp_path / "joint"))
    assert isinstance(found, JointVocabulary) and found.fingerprint() == joint.fingerprint()
    assert found.encode_text("a seven").tolist() == [5, 6]
    config = json.loads((tmp_path / "joint" / CONFIG_NAME).read_text())
    config["config"]["num_clips"] = 21
    (tmp_path / "joint" / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is not what was saved"):
        load_tokenizer(str(tmp_path / "joint"))


def test_words_and_clips_are_of_two_kinds_and_marks_of_none(bert) -> None:
    (kinds,) = JointVocabulary(bert, num_clips=4).kinds()
    assert kinds.tolist() == [-1] * 5 + [0] * 5 + [1] * 4 + [-1]
    (kinds,) = JointVocabulary(CharacterTokenizer(LETTERS), num_clips=2).kinds()
    assert kinds.tolist() == [0] * len(LETTERS) + [-1] * 3 + [1] * 2 + [-1]
