"""What a run left in its folder."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

Curve = list[tuple[int, float]]
STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class RunFolder:
    """The logs of one run.

    Args:
        path: of the folder.
        curves: metric name ("val/loss/image") -> (step, value), by step.
        pictures: modality -> picture files, by step.
        probes: rows of ``probe.csv``.
        config: text of ``config.yaml``, or "".
    """

    path: Path
    curves: dict[str, Curve]
    pictures: dict[str, list[Path]]
    probes: list[dict[str, str]]
    config: str

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Read a run's folder.

        Raises:
            ValueError: the folder does not exist or holds no metrics.
        """
        files = sorted(path.glob("metrics/version_*/metrics.csv"), key=lambda file: int(file.parent.name.rsplit("_", 1)[1]))
        if not files:
            raise ValueError(f"no run in {path}: metrics/version_*/metrics.csv not found. Give the folder that `fit` got as --run.")
        probes = path / "probe.csv"
        config = path / "config.yaml"
        pictures = {folder.name: sorted(folder.glob("step-*.png")) for folder in sorted(path.glob("pictures/*")) if folder.is_dir()}
        return cls(
            path=path,
            curves=_curves(files),
            pictures=pictures,
            probes=_rows(probes) if probes.is_file() else [],
            config=config.read_text() if config.is_file() else "",
        )

    def modalities(self) -> list[str]:
        """Return the names of the modalities that have curves of their own."""
        names = {
            name.split("/")[2]
            for name in self.curves
            if name.split("/")[0] in STAGES and name.split("/")[1:2] == ["loss"] and name.count("/") == 2
        }
        return sorted(names)

    def stage_curves(self, name: str) -> dict[str, Curve]:
        """Return stage -> curve of a metric; stages without it are left out."""
        return {stage: self.curves[f"{stage}/{name}"] for stage in STAGES if f"{stage}/{name}" in self.curves}


def _curves(files: list[Path]) -> dict[str, Curve]:
    """Join the files of a run that was continued; where steps overlap, the later file holds."""
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for file in files:
        for row in _rows(file):
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    values[name][int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in values.items()}


def _rows(file: Path) -> list[dict[str, str]]:
    """Return the rows that are whole: a run that is being written, or was killed, may end within a line."""
    whole, _, _ = file.read_text().rpartition("\n")
    return list(csv.DictReader(whole.split("\n")))
