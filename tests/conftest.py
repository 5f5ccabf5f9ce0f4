"""Check shapes and types of every call while tests run; this must happen before the package is imported."""

import sys
from types import ModuleType

import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception
from jaxtyping import config, install_import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is welcome where a float is


def check_if_possible(function):
    try:
        return check(function)
    except BeartypeDecorHintPep673Exception:  # `Self` in a method
        return function


checker = ModuleType("shape_checker")
checker.check = check_if_possible
sys.modules["shape_checker"] = checker
install_import_hook("multimodal", "shape_checker.check")


@pytest.fixture
def unchecked():
    """As in use, where calls are not checked for their types."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """Files, shards and a tokenizer trained for one epoch, in a folder; see ``tests.workshop``."""
    from tests.workshop import build_workshop  # the package is imported when the hook is there

    folder = tmp_path_factory.mktemp("workshop")
    build_workshop(folder)
    return folder
