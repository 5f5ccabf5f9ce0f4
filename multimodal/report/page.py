"""The page: curves, pictures, codebook, probes, config; nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from multimodal.report.chart import line_chart
from multimodal.report.run_folder import RunFolder

NAME = "report.html"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #1c1e21; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd }
.charts { display: flex; flex-wrap: wrap; gap: 1em } .charts svg { width: 440px; max-width: 100% }
svg text { font-size: 11px; fill: #555 } svg .title { font-size: 12px; font-weight: 600; fill: #1c1e21 }
svg .grid { stroke: #eee } table { border-collapse: collapse }
td, th { padding: .25em .8em; text-align: right; border-bottom: 1px solid #eee }
td:first-child, th:first-child { text-align: left } img { max-width: 100%; border: 1px solid #ddd; image-rendering: pixelated }
figure { margin: 1em 0 } figcaption { color: #666; font-size: .9em }
pre { background: #f6f8fa; padding: 1em; overflow-x: auto; font-size: 12px }
"""


def write_report(run: Path, to: Path | None = None, tokenizer_run: Path | None = None) -> Path:
    """Write the page about a run and return its path.

    Args:
        run: folder of the run.
        to: the page; None: ``report.html`` in the run's folder.
        tokenizer_run: folder of the run that trained the tokenizer, to show it on the same page.

    Raises:
        ValueError: a folder holds no run.
    """
    folder = RunFolder.read(run)
    body = [f"<h1>{escape(folder.path.name)}</h1>", _summary(folder), *_sections(folder)]
    if tokenizer_run is not None:
        body += [f"<h1>Tokenizer: {escape(tokenizer_run.name)}</h1>", *_sections(RunFolder.read(tokenizer_run))]
    path = to or run / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"Report: {escape(folder.path.name)}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en">{head}<body>{"".join(body)}</body></html>\n'
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _sections(folder: RunFolder) -> Iterable[str]:
    for name in folder.modalities():
        curves = _section(f"Curves: {name}", _charts(folder, f"loss/{name}", f"accuracy/{name}", *_fields(folder, name)))
        yield curves + _pictures(name, folder.pictures.get(name, []))
    if not folder.modalities():
        yield _section("Curves", _charts(folder, "loss", "accuracy", "reconstruction"))
        yield _section("Layers", _layer_table(folder))
        yield "".join(_pictures(name, files) for name, files in folder.pictures.items())
    yield _section("Codebook", _charts(folder, "codebook/usage", "codebook/perplexity", "codebook/dead_codes"))
    yield _section("Probes", _probe_table(folder.probes))
    yield _section("Config", f"<pre>{escape(folder.config)}</pre>" if folder.config else "")


def _summary(folder: RunFolder) -> str:
    steps = max((curve[-1][0] for curve in folder.curves.values() if curve), default=0)
    last = [(name, folder.curves[name][-1][1]) for name in sorted(folder.curves) if name.startswith("val/") and "codebook" not in name]
    rows = [(name.removeprefix("val/"), f"{value:,.4g}") for name, value in last]
    return f"<p>{steps:,} steps. Last scores on the validation split:</p>{_table(('score', 'value'), rows)}"


def _fields(folder: RunFolder, name: str) -> list[str]:
    """Return the accuracies of the fields of a compound token; other modalities may have names that begin alike."""
    others = [other for other in folder.modalities() if other.startswith(f"{name}_")]
    fields = [metric.removeprefix("val/accuracy/") for metric in folder.curves if metric.startswith(f"val/accuracy/{name}_")]
    return [f"accuracy/{field}" for field in sorted(fields) if not any(field == other or field.startswith(f"{other}_") for other in others)]


def _charts(folder: RunFolder, *names: str) -> str:
    charts = "".join(line_chart(name, folder.stage_curves(name)) for name in names)
    return f'<div class="charts">{charts}</div>' if charts else ""


def _pictures(name: str, files: Sequence[Path]) -> str:
    if not files:
        return ""
    chosen = [files[0], files[-1]] if len(files) > 1 else [files[0]]
    figures = [
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
        f"<figcaption>step {int(file.stem.split('-')[1]):,}</figcaption></figure>"
        for file in chosen
    ]
    return _section(f"Pictures: {name}", "".join(figures))


def _probe_table(rows: Sequence[dict[str, str]]) -> str:
    """Return one line for each modality, method and number of labels: the first probe (untrained, when at step 0), the last, the gain."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["modality"], row["layer"], row["method"], row["labels_per_class"]), []).append(row)
    lines = []
    for (modality, layer, method, labels), found in groups.items():
        first, last = found[0], found[-1]
        gain = float(last["accuracy"]) - float(first["accuracy"])
        scores = [f"{float(row['accuracy']):.3f} ± {float(row['std']):.3f}" for row in (first, last)]
        lines.append((modality, layer, method, labels if labels != "0" else "all", *scores, f"{gain:+.3f}"))
    head = (
        ("modality", "layer", "method", "labels per class", f"step {rows[0]['step']}", f"step {rows[-1]['step']}", "gain") if rows else ()
    )
    return _table(head, lines) + _baseline(rows[-1]) if lines else ""


def _baseline(row: dict[str, str]) -> str:
    """Return what the scores are to be compared with; nothing for files of versions that did not say it."""
    if not row.get("majority"):
        return ""
    return f"<p>{int(row['test_items']):,} test items; always the most frequent class: {float(row['majority']):.3f}</p>"


def _layer_table(folder: RunFolder) -> str:
    """Return the last accuracy of each layer's own classifier, if the run trained such."""
    start = "val/accuracy/layer_"
    rows = [(name.removeprefix(start), f"{curve[-1][1]:.3f}") for name, curve in sorted(folder.curves.items()) if name.startswith(start)]
    return _table(("layer", "validation accuracy"), rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{body}</table>"


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" if content else ""
