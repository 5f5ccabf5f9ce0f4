"""Drum sounds of sixteen kits with their instruments, and many sounds without labels, out of Debian packages; nothing is installed.

``python -m benchmarks.drums.data`` fetches the packages (430 MB) into ``data/sounds/packages`` and writes three sets of shards without
labels into ``data/sounds/shards``: ``drums`` (all drum kits, and the samples of Sonic Pi and LMMS), ``instruments`` (recordings of two
SoundFonts) and ``speech`` (telephone prompts in five languages). The sounds keep their licences, which the packages name.
"""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks.debian import fetch
from benchmarks.drums.soundfonts import write_recordings

ROOT = Path("data/sounds")
LANGUAGES = ("en", "es", "fr", "it", "ru")
PACKAGES = (
    "hydrogen-drumkits",
    "hydrogen-data",
    "sonic-pi-samples",
    "lmms-common",
    "avldrums.lv2-soundfont",
    "fluid-soundfont-gm",
    "timgm6mb-soundfont",
    *(f"asterisk-core-sounds-{language}{kind}" for language in LANGUAGES for kind in ("", "-wav")),
)
CLASSES = ("crash", "hihat", "kick", "percussion", "ride", "snare", "tom")
LMMS = ("basses", "bassloops", "beats", "drums", "effects", "instruments", "latin", "misc", "stringsnpads")
"""Folders of LMMS with whole sounds; the others hold single periods."""
HAND = "stick|rim ?click|clap|cowbell|clave|tamb|wood|bongo|conga|agogo|maraca|shaker|snap|cajon|glass|djembe|sangban|dununba|kenkeni"
RULES = (
    ("kick", "kick|bass ?drum"),
    ("percussion", "cowbell|sangban|dununba|kenkeni"),  # some of which have bells
    ("ride", "ride|bell"),
    ("crash", "crash|splash|china|cymbal"),
    ("hihat", r"\bhh\b|hi-? ?hat|\bhat\b|ohh"),
    ("tom", "tom"),
    ("percussion", HAND),
    ("snare", "snare"),
)
"""Class, and what its instruments are called; the first rule that fits decides."""
SAME_DRUMS = {"The Black Pearl 1.0": "GMRockKit"}
"""Kits that hold the same recordings as another: 75 files of these two are byte for byte alike, so they are left out together."""


class Drum(NamedTuple):
    """One recording of an instrument.

    Args:
        path: of the file.
        kit: that it belongs to; kits with recordings in common count as one.
        instrument: one of ``CLASSES``.
    """

    path: Path
    kit: str
    instrument: str


def drums(unpacked: Path, shared: bool = False) -> list[Drum]:
    """Return the recordings whose instrument is known, in a fixed order.

    Args:
        unpacked: folder of the packages.
        shared: kits with recordings in common stay apart, each with all of its own; else they count as one, and every recording once.
    """
    found, seen = [], set()
    for file in sorted(unpacked.glob("usr/share/hydrogen/data/drumkits/*/drumkit.xml")):
        for name, path in _instruments(file):
            instrument = class_of(name)
            content = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
            kit = file.parent.name if shared else SAME_DRUMS.get(file.parent.name, file.parent.name)
            if instrument is not None and content and (known := (content, kit if shared else None)) not in seen:
                seen.add(known)
                found.append(Drum(path, kit, instrument))
    return found


def class_of(name: str) -> str | None:
    """Return the class of an instrument by its name; None: it says nothing."""
    return next((kind for kind, pattern in RULES if re.search(pattern, name.lower())), None)


def _instruments(file: Path) -> Iterable[tuple[str, Path]]:
    """Yield the name of an instrument and the path of a recording, for each that a kit lists."""
    kit = ElementTree.parse(file).getroot()
    for element in kit.iter():
        element.tag = element.tag.rpartition("}")[2]  # without its namespace
    for instrument in kit.iter("instrument"):
        for recording in instrument.iter("filename"):
            yield instrument.findtext("name") or "", file.parent / (recording.text or "none")


def write_shards(unpacked: Path, folder: Path) -> None:
    """Write the shards without labels; those that are there already stay."""
    share = unpacked / "usr" / "share"
    for font in share.glob("sounds/sf2/*.sf2"):
        write_recordings(font, share / "soundfonts" / font.stem)
    sources = {
        "drums": ("hydrogen/data/drumkits/*/*", "sonic-pi/samples/*", *(f"lmms/samples/{name}/*" for name in LMMS), "soundfonts/*_LV2/*"),
        "instruments": ("soundfonts/FluidR3_GM/*", "soundfonts/TimGM6mb/*"),
        "speech": ("asterisk/sounds/*/**/*.wav",),
    }
    for name, patterns in sources.items():
        paths = {path for pattern in patterns for path in share.glob(pattern)}
        sounds = sorted(path for path in paths if path.suffix in (".wav", ".flac", ".aiff", ".ogg"))
        table = folder / f"{name}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["key", "path"])
            rows.writerows([_key(path, share), path.relative_to(unpacked)] for path in sounds)
        write = ["shards", "write", str(table), "--root", str(unpacked), "--to", str(folder / name)]
        options = ["--split", "train=0.97,val=0.03", "--deduplicate", "--samples-per-shard", "500", "--workers", "0"]
        subprocess.run([sys.executable, "-m", "multimodal", *write, *options], check=True)


def _key(path: Path, share: Path) -> str:
    """Return a key without blanks; kits may have recordings of one name in two formats."""
    return re.sub(r"[^\w/-]+", "_", str(path.relative_to(share)))


def main() -> None:
    """Fetch and write."""
    unpacked = fetch(ROOT / "packages", PACKAGES)
    write_shards(unpacked, ROOT / "shards")
    known = drums(unpacked)
    counts = ", ".join(f"{name} {sum(drum.instrument == name for drum in known)}" for name in CLASSES)
    print(f"{len(known)} different drum sounds of {len({drum.kit for drum in known})} kits: {counts}")


if __name__ == "__main__":
    main()
