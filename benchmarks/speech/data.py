"""Telephone prompts in five languages with their transcripts, as shards with the fields ``wav`` and ``txt``; nothing is installed.

``python -m benchmarks.speech.data FOLDER`` fetches ten Debian packages with ``apt-get download`` (98 MB) into ``FOLDER/packages``, puts the
prompts whose words are written out into ``FOLDER/files``, and writes ``FOLDER/shards/en``, ``es``, ``fr``, ``it`` and ``ru``. The text
decides the split, so that no transcript of the test is one of training. The sounds keep their licence, CC-BY-SA-3.0.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.debian import fetch
from benchmarks.demo.digits import Counts, made_once
from benchmarks.speech.prompts import ALPHABETS, Prompt, prompts, split_of

PACKAGES = tuple(f"asterisk-core-sounds-{language}{kind}" for language in ALPHABETS for kind in ("", "-wav"))
SPLITS = ("train", "val", "test")
VERSION = 1


def write_files(found: list[Prompt], language: str, folder: Path) -> Counts:
    """Write ``<split>/<language>/<name>.wav`` and ``.txt``, and return how many of each split."""
    counts: Counts = {split: {language: 0} for split in SPLITS}
    for prompt in found:
        split = split_of(prompt.read)
        stem = folder / split / language / prompt.name.replace("/", "_")
        stem.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(prompt.path, stem.with_name(f"{stem.name}.wav"))
        stem.with_name(f"{stem.name}.txt").write_text(f"{prompt.text}\n", encoding="utf-8")
        counts[split][language] += 1
    return counts


def summary(found: list[Prompt], others: int, counts: Counts, language: str) -> str:
    """Return a line about a language: its splits, how many recordings say what another says, and the sounds left out."""
    texts = Counter(prompt.read for prompt in found)
    sizes = ", ".join(f"{split} {counts[split][language]}" for split in SPLITS)
    repeated = len(found) - len(texts)
    return f"{language}: {sizes}; {repeated} prompts say what another says; {others} sounds without a transcript in words left out"


def main() -> None:
    """Fetch, split and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to: packages/, files/ and shards/")
    folder = parser.parse_args().folder
    unpacked = fetch(folder / "packages", PACKAGES)
    for language in ALPHABETS:
        found, others = prompts(unpacked, language)
        settings = {"what": f"prompts in {language}", "version": VERSION}
        files = folder / "files" / language
        counts = made_once(files, settings, lambda to, found=found, language=language: write_files(found, language, to))
        print(summary(found, others, counts, language), flush=True)
        shards = folder / "shards" / language
        if not (shards / "index.json").is_file():
            write = ["shards", "write", str(files), "--to", str(shards), "--split", "folders", "--extensions", "wav,txt", "--workers", "0"]
            subprocess.run([sys.executable, "-m", "multimodal", *write], check=True)


if __name__ == "__main__":
    main()
