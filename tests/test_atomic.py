import pytest

from multimodal.atomic import atomic_file, remove_temporary


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path):
    with atomic_file(tmp_path / "a.tar") as file:
        file.write(b"all")
        assert "a.tar" not in names(tmp_path)
    assert names(tmp_path) == ["a.tar"]
    assert (tmp_path / "a.tar").read_bytes() == b"all"


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    with atomic_file(tmp_path / "a.tar") as one, atomic_file(tmp_path / "a.tar") as two:
        one.write(b"one")
        two.write(b"two")
    assert names(tmp_path) == ["a.tar"]
    assert (tmp_path / "a.tar").read_bytes() == b"one"  # the outer block ends last


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.tar'"), atomic_file(tmp_path / "a.tar"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_only_what_writers_of_the_named_files_left_is_removed(tmp_path):
    left = ["a.tar.0123abcd.tmp", "b.tar.0123abcd.tmp", "a.tar.tmp", "a.tar.0123ABCD.tmp", "a.tar"]
    for name in left:
        (tmp_path / name).touch()
    remove_temporary(tmp_path, {"a.tar"})
    assert names(tmp_path) == sorted(left[1:])
