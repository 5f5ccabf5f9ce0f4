"""What probes of a model told: as a table, in a file, and against another model."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from multimodal.atomic import atomic_file
from multimodal.training.probing import BEST, ProbeResult, paired_bootstrap

COLUMNS = ("layer", "method", "labels_per_class", "accuracy", "std", "draws", "held_out", "chosen", "majority", "test_items")


@dataclass(frozen=True)
class ProbeReport:
    """Probes of one model on one pair of splits.

    Args:
        model: as the user named it.
        fingerprint: of its settings and weights.
        modality: whose features.
        vector: what was read of an item.
        shards: where the items come from.
        train_items: labelled items to draw from.
        left_out: samples of both splits without a label or the modality, and bad ones.
        test_keys: hash of the keys of the test items, in order.
        results: of each layer, method and number of labels.
    """

    model: str
    fingerprint: str
    modality: str
    vector: str
    shards: str
    train_items: int
    left_out: int
    test_keys: str
    results: list[ProbeResult]

    def table(self) -> Table:
        """Return one row for each layer, one column for each method and number of labels."""
        columns = list(dict.fromkeys((result.method, result.labels_per_class) for result in self.results))
        cells = {(str(result.layer), result.method, result.labels_per_class): result for result in self.results}
        table = Table("layer", *(f"{method}, {_labels(count)}" for method, count in columns))
        for layer in dict.fromkeys(str(result.layer) for result in self.results):
            found = [cells.get((layer, *column)) for column in columns]
            table.add_row(layer, *("" if result is None else _score(result) for result in found))
        return table

    def summary(self) -> str:
        """Return what the scores are to be compared with, and on how many items they stand."""
        first = self.results[0]
        layers = [f"{r.method}, {_labels(r.labels_per_class)}: {' '.join(map(str, r.chosen))}" for r in self.results if r.layer == BEST]
        chosen = f"\nlayers chosen on held-out labelled items, draw by draw: {'; '.join(layers)}" if layers else ""
        left_out = f"; {self.left_out:,} samples left out" if self.left_out else ""
        error = math.sqrt(0.25 / first.test_items)
        return (
            f"{first.test_items:,} test items (standard error at most {error:.3f}), {self.train_items:,} to draw from{left_out}; "
            f"always the most frequent class: {first.majority:.3f}{chosen}"
        )

    def save(self, path: Path) -> None:
        """Write a ``.json`` or ``.csv`` file; it appears whole.

        JSON also holds, for the best layer or the only one, the share of draws in which each test item was told right: what
        ``--compare`` needs.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._csv() if path.suffix == ".csv" else json.dumps(self._json(), indent=1) + "\n"
        with atomic_file(path) as file:
            file.write(text.encode())

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows(_row(result).values() for result in self.results)
        return text.getvalue()

    def _json(self) -> dict[str, Any]:
        said = {name: value for name, value in vars(self).items() if name != "results"}
        several = len({result.layer for result in self.results}) > 1
        rows = []
        for result in self.results:
            held_out = None if math.isnan(result.held_out) else result.held_out
            row = {**_row(result), "held_out": held_out, "chosen": list(result.chosen)}
            rows.append(row | ({"hits": result.hits.tolist()} if result.layer == BEST or not several else {}))
        return {**said, "results": rows}

    @classmethod
    def load(cls, path: Path) -> ProbeReport:
        """Read what ``save`` wrote as JSON.

        Raises:
            ValueError: there is no such file, or it holds something else.
        """
        try:
            content = json.loads(path.read_text())
            return cls(**{**content, "results": [_result(row) for row in content["results"]]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no .json of `multimodal probe`: {type(error).__name__}: {error}") from None


def compare(report: ProbeReport, other: ProbeReport) -> Table:
    """Return the differences of two models on the same test items, with the intervals of a paired bootstrap.

    Raises:
        ValueError: the test items are not the same, or no probe is in both.
    """
    if report.test_keys != other.test_keys:
        raise ValueError(f"{report.model} and {other.model} were probed on different test items.")
    theirs = {(result.method, result.labels_per_class): result for result in other.results if len(result.hits)}
    several = len({result.layer for result in report.results}) > 1
    own = [result for result in report.results if result.layer == BEST or not several]
    both = [result for result in own if (result.method, result.labels_per_class) in theirs]
    if not both:
        raise ValueError(f"{report.model} and {other.model} have no probe in common.")
    table = Table("probe", "this", "other", "difference", "95% interval", "p", title=f"against {other.model}")
    for result in both:
        against = theirs[result.method, result.labels_per_class]
        found = paired_bootstrap(result.hits, against.hits)
        name = f"{result.method}, {_labels(result.labels_per_class)}"
        interval = f"{found.low:+.3f} to {found.high:+.3f}"
        table.add_row(name, f"{result.mean:.3f}", f"{against.mean:.3f}", f"{found.mean:+.3f}", interval, f"{found.p_value:.4f}")
    return table


def _row(result: ProbeResult) -> dict[str, Any]:
    said = {name: value for name, value in asdict(result).items() if name != "hits"}
    said |= {"accuracy": result.mean, "chosen": " ".join(map(str, result.chosen))}
    return {name: said[name] for name in COLUMNS}


def _result(row: Mapping[str, Any]) -> ProbeResult:
    said = {name: value for name, value in row.items() if name not in ("accuracy", "hits", "held_out", "chosen")}
    held_out = float("nan") if row["held_out"] is None else float(row["held_out"])
    hits = torch.tensor(row.get("hits", []), dtype=torch.float32)
    return ProbeResult(mean=row["accuracy"], held_out=held_out, chosen=tuple(row["chosen"]), hits=hits, **said)


def _labels(count: int) -> str:
    return f"{count} a class" if count else "all"


def _score(result: ProbeResult) -> str:
    return f"{result.mean:.3f} ± {result.std:.3f}" if result.draws > 1 else f"{result.mean:.3f}"
