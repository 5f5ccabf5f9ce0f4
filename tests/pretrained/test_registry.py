"""Every checkpoint is of exactly one format."""

import pytest

from multimodal.pretrained.registry import all_formats, find_format, format_of

from .conftest import randomized  # noqa: F401


def test_formats_have_names_licence_and_source():
    formats = all_formats()
    assert len({(form.family, form.layout) for form in formats}) == len(formats)
    for form in formats:
        assert form.licence, form.family
        assert form.source.startswith("https://"), form.family


def test_a_format_is_found_by_name():
    assert format_of("beit", "unilm").family == "beit"
    with pytest.raises(ValueError, match=r"no layout 'keras' of family 'beit': its layouts are \[.*'unilm'"):
        format_of("beit", "keras")
    with pytest.raises(ValueError, match="families are"):
        format_of("nonsense", "keras")


def test_tensors_of_none_are_refused_with_their_names():
    with pytest.raises(ValueError, match=r"its 2 tensors \(a, b ...\) do not have the names of any known family"):
        find_format({"a": (1,), "b": (2,)}, {})
