"""Debian packages as data: fetched and unpacked, never installed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def fetch(folder: Path, packages: Sequence[str]) -> Path:
    """Return the folder with the unpacked packages, ``folder/unpacked``; what is there already is not fetched again.

    ``apt-get download`` and ``dpkg -x`` need no rights of an administrator.
    """
    unpacked = folder / "unpacked"
    if not unpacked.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *packages], cwd=folder, check=True)
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(folder / "partial")], check=True)
        (folder / "partial").rename(unpacked)
    return unpacked
