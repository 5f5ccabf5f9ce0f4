import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.tokenizers.clips_and_text.captions import Caption
from multimodal.tokenizers.clips_and_text.sentences import join_sentences, split_sentences


def test_captions_are_joined_up_to_the_full_stop_and_cut_after_it() -> None:
    found = join_sentences([Caption(0, 2, "roll the"), Caption(2, 6, "dough. Now"), Caption(6, 8, "wait!")])
    assert [caption.text for caption in found] == ["roll the dough.", "Now wait!"]
    assert found[0].start == 0 and found[1].end == 8
    assert found[0].end == pytest.approx(2 + 4 * 6 / 10)  # "dough." is 6 of the 10 characters of its caption
    assert found[1].start == pytest.approx(2 + 4 * 7 / 10)


def test_captions_without_a_full_stop_stay_as_they_are() -> None:
    captions = [Caption(0, 2, "roll the dough"), Caption(2, 4, "now wait")]
    assert join_sentences(captions) == captions


def test_a_pause_ends_a_sentence() -> None:
    captions = [Caption(0, 1, "so"), Caption(1.5, 2, "then"), Caption(9, 10, "it is done.")]
    assert [caption.text for caption in join_sentences(captions)] == ["so then", "it is done."]
    assert [caption.text for caption in join_sentences(captions, max_pause_s=10)] == ["so then it is done."]
    with pytest.raises(ValueError, match="max_pause_s must be at least 0, got -1"):
        join_sentences(captions, -1)


def test_numbers_and_quotes_do_not_confuse_it() -> None:
    assert split_sentences('Add 2.5 cups. "Really?" Yes!\nThen stir…') == ["Add 2.5 cups.", '"Really?"', "Yes!", "Then stir…"]
    assert split_sentences("\u52a0\u6c34\u3002\u6405\u62cc\uff01") == ["\u52a0\u6c34\u3002", "\u6405\u62cc\uff01"]
    assert split_sentences("  \n") == []


@given(st.lists(st.text(alphabet='ab .!?。"', min_size=1, max_size=12).map(str.strip).filter(bool), min_size=1, max_size=6))
def test_no_word_is_lost_and_times_stay_inside(texts: list[str]) -> None:
    captions = [Caption(number, number + 1, text) for number, text in enumerate(texts)]
    found = join_sentences(captions)
    assert "".join("".join(x.text for x in found).split()) == "".join("".join(texts).split())
    assert all(0 <= x.start < x.end <= len(texts) + 1e-9 for x in found)
