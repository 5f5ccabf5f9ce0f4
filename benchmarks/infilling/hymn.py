"""What the model of chorales makes of a hymn: three MIDI files and their piano rolls, for the docs.

``python -m benchmarks.infilling.hymn [--to docs]``, after ``python -m benchmarks.infilling.run``. The melody is "Old Hundredth" (Geneva
1551); the setting for four voices was written for this file, so that all of it may be passed on, which the corpus of music21 may not.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.infilling.run import RUN
from multimodal.tokenizers.midi import Score, sort_notes, write_score

WORK = Path("runs/infilling_hymn")
KEY = "old_hundredth"
BEAT = 480
NAMES = ("soprano", "alto", "tenor", "bass")
LINES = (
    ("G4 G4 F#4 E4 D4 G4 A4 B4", "D4 D4 D4 B3 B3 B3 D4 D4", "B3 B3 A3 G3 F#3 G3 F#3 G3", "G3 G3 D3 E3 B2 E3 D3 G2"),
    ("B4 B4 B4 A4 G4 C5 B4 A4", "D4 D4 E4 D4 E4 E4 D4 D4", "G3 G3 G3 F#3 B3 G3 G3 F#3", "G3 G3 E3 D3 E3 C3 G2 D3"),
    ("G4 A4 B4 A4 G4 E4 F#4 G4", "D4 D4 D4 D4 B3 C4 C4 B3", "B3 A3 G3 F#3 G3 G3 A3 G3", "G3 F#3 G3 D3 E3 C3 D3 G2"),
    ("D5 B4 G4 A4 C5 B4 A4 G4", "D4 D4 E4 D4 E4 D4 D4 B3", "B3 G3 B3 A3 A3 G3 F#3 G3", "G3 G3 E3 D3 A2 B2 D3 G2"),
)
"""Four lines of two bars each, soprano to bass, in crotchets."""
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
PICTURES = ["--model.init_args.filling.init_args.pictures", "true"]
FILLINGS = {
    "voice": ("fill_voice.yaml", []),
    "bars": ("fill_bars.yaml", []),
    "harmony": ("fill_voice.yaml", ["--model.init_args.filling.init_args.masking.init_args.masking.init_args.numbers", "[1, 2, 3]"]),
}
"""What is hidden -> a config of ``configs/predict/``, and options: the alto, bars 2 and 3, or all voices but the melody."""


def main() -> None:
    """Write the hymn, fill it in three times, and put the files where they are wanted."""
    parser = argparse.ArgumentParser(description="Fill in a hymn with the model of chorales.")
    parser.add_argument("--to", type=Path, default=Path("docs"), help="folder for the files (default: %(default)s)")
    options = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    path = WORK / "files/test" / f"{KEY}.mid"
    path.parent.mkdir(parents=True)
    path.write_bytes(write_score(hymn()))
    _run("shards", "write", str(WORK / "files"), "--to", str(WORK / "shards"), "--split", "folders")
    saved = ["--config", str(RUN / "config.yaml"), "--ckpt_path", str(RUN / "checkpoints/last.ckpt")]
    for name, (config, more) in FILLINGS.items():
        data = ["--data.init_args.shards", str(WORK / "shards"), "--run", str(WORK / name), *PICTURES]
        _run("predict", *saved[:2], "--config", f"configs/predict/{config}", *saved[2:], *data, *more)
        for extension in ("mid", "png"):
            shutil.copy(WORK / name / "predictions/midi" / f"{KEY}.{extension}", options.to / f"infilled_{name}.{extension}")


def hymn() -> Score:
    """Return the hymn, a track for each voice."""
    rows = [
        (place * BEAT, pitch_of(name), BEAT, 80, 0, track)
        for track in range(len(NAMES))
        for place, name in enumerate(" ".join(line[track] for line in LINES).split())
    ]
    return Score(sort_notes(torch.tensor(rows)), metres=torch.tensor([[0, 4, 4]]), track_names=NAMES)


def pitch_of(name: str) -> int:
    """Return the MIDI pitch of a name such as F#4; C4 is 60."""
    return STEPS[name[0]] + name.count("#") + 12 * (int(name[-1]) + 1)


def _run(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "multimodal", *command], check=True)


if __name__ == "__main__":
    main()
