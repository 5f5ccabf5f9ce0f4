"""Check shapes and types of every call while tests run; this must happen before the package is imported."""

import sys
from types import ModuleType

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checker = ModuleType("shape_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is welcome where a float is
sys.modules["shape_checker"] = checker
install_import_hook("multimodal", "shape_checker.check")
