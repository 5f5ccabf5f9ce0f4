import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.shards.keys import MAX_KEY_BYTES, clean_key, parse_fractions, split_of, stable_hash

ANY_NAME = st.text(st.characters(exclude_categories=()) | st.sampled_from("./\\ \n"), max_size=300)


@pytest.mark.parametrize("name", ["7/0001", "A b/ünï", "a/b/c", "日本/x", "-", "x" * 200])
def test_good_names_stay(name):
    assert clean_key(name) == name


@pytest.mark.parametrize("name", ["../../etc/passwd", "/abs", "a/../b", "v1.2", "a\\b", "new\nline", ".", "", "x" * 201, "a//b", "\ud800"])
def test_bad_names_are_changed_and_marked(name):
    key = clean_key(name)
    assert key != name
    assert key.endswith(f"-{stable_hash(name):016x}")
    assert_safe(key)


@given(ANY_NAME)
def test_every_key_is_safe_and_stays_when_cleaned_again(name):
    key = clean_key(name)
    assert_safe(key)
    assert clean_key(key) == key


@given(st.lists(ANY_NAME, unique=True, min_size=2, max_size=2))
def test_different_names_have_different_keys(names):
    assert clean_key(names[0]) != clean_key(names[1])


def assert_safe(key):
    assert key
    assert len(key.encode()) <= MAX_KEY_BYTES
    assert not set(key) & set(".\\\n\0")
    assert all(key.split("/"))


def test_hashes_never_change():
    assert stable_hash("sample", 0, 1, "7/0001") == 0xCC99B81E69920CA1


def test_split_follows_the_shares_and_stays_for_a_key():
    fractions = parse_fractions("train=0.8, val=0.1,test=0.1")
    splits = [split_of(f"key{number}", fractions) for number in range(5000)]
    assert splits == [split_of(f"key{number}", fractions) for number in range(5000)]
    assert 0.78 < splits.count("train") / 5000 < 0.82
    assert 0.08 < splits.count("test") / 5000 < 0.12


@pytest.mark.parametrize("argument", ["train", "train=x", "train=0.5,train=0.5", "a/b=1", "train=0", "=1", ""])
def test_split_arguments_of_another_form_are_refused(argument):
    with pytest.raises(ValueError, match="split"):
        parse_fractions(argument)


def test_shares_must_add_up():
    with pytest.raises(ValueError, match=r"add up to 0\.9, not 1"):
        parse_fractions("train=0.8,val=0.1")
