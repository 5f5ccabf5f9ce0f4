"""Letters spoken in many languages, out of Debian packages; nothing is installed.

``python -m benchmarks.letters.data`` fetches the packages (133 MB) into ``data/sounds/packages_letters`` and counts what is there.
Learned from are the alphabets of KLettres, one voice and one microphone each; told are the telephone prompts of Asterisk, of other voices.
The names of the letters, not their shapes, are what is heard, so a letter counts for the language that it is named in: the Russian prompts
name them in English. The sounds keep their licences, which the packages name.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks.debian import fetch

ROOT = Path("data/sounds")
LEARNED, TOLD = "klettres", "asterisk"
NAMED_IN = {"en": "en", "es": "es", "fr": "fr", "it": "it", "ru": "en"}
"""Language of each package of prompts, and the language that it names the letters a to z in."""
PACKAGES = ("klettres-data", *(f"asterisk-core-sounds-{language}-wav" for language in NAMED_IN))
LETTERS = tuple(string.ascii_lowercase)
LANGUAGES = tuple(sorted(set(NAMED_IN.values())))


class Letter(NamedTuple):
    """One recording of a letter.

    Args:
        path: of the file.
        package: ``LEARNED`` or ``TOLD``.
        voice: folder of the package, which is one speaker.
        language: that the letter is named in.
        letter: one of ``LETTERS``.
    """

    path: Path
    package: str
    voice: str
    language: str
    letter: str


def letters(unpacked: Path) -> list[Letter]:
    """Return the recordings of the letters a to z in a fixed order; other letters are left out."""
    share = unpacked / "usr" / "share"
    return [*_alphabets(share / "klettres"), *_prompts(share / "asterisk" / "sounds")]


def _alphabets(folder: Path) -> Iterable[Letter]:
    """Yield what the alphabets list; the name of a file need not tell the letter, and some languages come without sounds."""
    for file in sorted(folder.glob("*/sounds.xml")):
        voice = file.parent.name
        for sound in ElementTree.parse(file).getroot().iterfind("language/alphabet/sound"):
            letter, path = sound.get("name", "").lower(), folder / sound.get("file", "none")
            if letter in LETTERS and path.is_file():
                yield Letter(path, LEARNED, voice, voice.split("_")[0], letter)


def _prompts(folder: Path) -> Iterable[Letter]:
    for voice in sorted(folder.glob("*_*_*")):
        language = NAMED_IN.get(voice.name.split("_")[0])
        for letter in LETTERS if language else ():
            path = voice / "letters" / f"{letter}.wav"
            if path.is_file():
                yield Letter(path, TOLD, voice.name, str(language), letter)


def main() -> list[Letter]:
    """Fetch, and count."""
    known = letters(fetch(ROOT / "packages_letters", PACKAGES))
    for package in (LEARNED, TOLD):
        voices = Counter(letter.voice for letter in known if letter.package == package)
        print(f"{package}: {voices.total()} letters of {len(voices)} voices: {', '.join(f'{x} {n}' for x, n in voices.items())}")
    return known


if __name__ == "__main__":
    main()
