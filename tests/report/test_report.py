"""The page about a run: what it must show, and that it needs nothing from elsewhere."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from multimodal.batch import Item, Sample, collate
from multimodal.cli import main
from multimodal.masking import RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.report import write_report
from multimodal.report.chart import line_chart
from multimodal.report.run_folder import RunFolder
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed, PatchGridRenderer
from multimodal.training import MaskedPretraining
from multimodal.training.callbacks import LabelProbe, PictureLogger


class Page(HTMLParser):
    """Titles, pictures, charts, tables and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.open, self.tags = html, [], []
        self.titles, self.pictures, self.charts, self.rows, self.text = [], [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(attributes["src"])
        if tag == "svg":
            self.charts.append(attributes["aria-label"])
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text += data
        if self.open[-1:] in (["h1"], ["h2"]):
            self.titles.append(data)
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1].append(data)


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_sections_charts_and_pictures(run, tokenizer_run):
    path = write_report(run, tokenizer_run=tokenizer_run)
    page = read(path)
    assert path == run / "report.html" and page.open == []
    assert page.titles[1:8] == [
        "Curves: drawing",
        "Pictures: drawing",
        "Curves: melody",
        "Pictures: melody",
        "Probes",
        "Config",
        "Tokenizer: tokenizer",
    ]
    assert page.titles[8:] == ["Curves", "Pictures: drawing", "Codebook"]
    melody = ["loss/melody", "accuracy/melody", "accuracy/melody_length", "accuracy/melody_pitch"]
    codebook = ["codebook/usage", "codebook/perplexity", "codebook/dead_codes"]
    assert page.charts == ["loss/drawing", "accuracy/drawing", *melody, "loss", "reconstruction", *codebook]
    assert page.text.count("step 0") >= 1 and page.text.count("step 100") >= 2


def test_pictures_are_those_of_the_first_and_the_last_step(run, tokenizer_run):
    page = read(write_report(run, tokenizer_run=tokenizer_run))
    files = ["drawing/step-00000000", "drawing/step-00000100", "melody/step-00000100"]
    files = [run / f"pictures/{name}.png" for name in files] + [tokenizer_run / "pictures/drawing/step-00000050.png"]
    assert len(page.pictures) == 4
    for source, file in zip(page.pictures, files, strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)))
        assert np.array_equal(np.asarray(shown), np.asarray(Image.open(file)))


def test_nothing_is_loaded_from_elsewhere(run):
    page = read(write_report(run))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base"), tag
        assert not {"href", "srcset", "data", "action"} & set(attributes) and not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/png").startswith("data:image/png")
    without_pictures = re.sub(r'src="data:[^"]*"', "", page.html)
    assert not re.search(r"https?:|//|url\(|@import", without_pictures)


def test_names_and_configs_are_shown_and_never_run(run):
    for probes in run.glob("probe.csv"):
        probes.write_text(probes.read_text().replace("drawing", "<b>drawing</b>"))
    page = read(write_report(run))
    assert "night & day" in page.titles[0]
    assert "note: <script>alert('x')</script>" in page.text
    assert any(row[:1] == ["<b>drawing</b>"] for row in page.rows)
    assert not any(tag in ("script", "b") for tag, _ in page.tags)


def test_a_continued_run_is_joined_by_step(run):
    folder = RunFolder.read(run)
    curve = folder.curves["val/loss/drawing"]
    assert [step for step, _ in curve] == list(range(0, 101, 10))
    assert [int(value - 5 / (step + 1) + 1e-9) for step, value in curve] == [9] * 3 + [10] * 8  # version 10 is later than version 9
    assert folder.modalities() == ["drawing", "melody"]


def test_tables_hold_the_last_scores_and_the_gain_of_the_probes(run):
    page = read(write_report(run))
    scores = dict(row for row in page.rows if len(row) == 2)
    assert scores["accuracy/drawing"] == "1" and scores["accuracy/melody_pitch"] == "0.6" and scores["loss/melody"] == "3"
    probes = [row for row in page.rows if len(row) == 7]
    assert probes == [
        ["modality", "layer", "method", "labels per class", "step 0", "step 100", "gain"],
        ["drawing", "out", "knn", "10", "0.500 ± 0.010", "0.750 ± 0.020", "+0.250"],
        ["drawing", "out", "linear", "all", "0.600 ± 0.000", "0.900 ± 0.000", "+0.300"],
    ]


def test_probes_say_what_to_compare_them_with(run):
    file = run / "probe.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in [f"{head},majority,test_items", *(f"{row},0.125,1200" for row in rows)]))
    assert "1,200 test items; always the most frequent class: 0.125" in read(write_report(run)).text


def test_a_probe_of_layers_has_a_table_of_them(tokenizer_run):
    file = next(tokenizer_run.glob("metrics/*/metrics.csv"))
    file.write_text("step,val/accuracy,val/accuracy/layer_00,val/accuracy/layer_01\n5,0.5,0.25,0.5\n9,0.75,0.125,0.75\n")
    page = read(write_report(tokenizer_run))
    assert "Layers" in page.titles and "accuracy" in page.charts
    start = page.rows.index(["layer", "validation accuracy"])
    assert page.rows[start + 1 : start + 3] == [["00", "0.125"], ["01", "0.750"]]


def test_a_modality_whose_name_continues_anothers_keeps_its_charts(run):
    for file in run.glob("metrics/*/metrics.csv"):
        file.write_text(file.read_text().replace("melody", "drawing_two"))
    charts = read(write_report(run)).charts
    assert charts[:2] == ["loss/drawing", "accuracy/drawing"] and len(charts) == len(set(charts)) == 6


def points(svg: str) -> list[list[tuple[float, float]]]:
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in re.findall(r'points="([^"]*)"', svg)]


def test_lines_lie_where_their_values_are():
    (line,) = points(line_chart("loss", {"val": [(0, 4.0), (50, 3.0), (100, 0.0)]}))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)  # evenly spaced steps
    assert (y1 - y0) * 3 == pytest.approx(y2 - y1, abs=0.5) and y0 < y1 < y2  # larger is higher up


def test_charts_leave_out_what_is_not_finite():
    curve = [(0, 1.0), (1, float("nan")), (2, float("inf")), (3, 2.0)]
    assert [len(line) for line in points(line_chart("x", {"train": curve, "val": [(1, float("nan"))]}))] == [2]
    assert line_chart("x", {"val": [(0, float("nan"))]}) == "" and line_chart("x", {}) == ""
    assert "circle" in line_chart("x", {"val": [(5, 1.0)]})


def test_a_line_cut_by_a_killed_run_is_left_out(run):
    file = run / "metrics/version_10/metrics.csv"
    *lines, last = file.read_text().splitlines()  # the last line is that of val at step 100
    for length in range(len(last)):
        file.write_text("\n".join([*lines, last[:length]]))
        assert RunFolder.read(run).curves["val/loss/drawing"][-1] == (90, pytest.approx(5 / 91 + 10))
    file = run / "probe.csv"
    file.write_text(file.read_text() + "150,drawing,out,kn")
    assert RunFolder.read(run).probes[-1]["step"] == "100"


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"no run in .*metrics.csv not found"):
        write_report(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
    assert "no run in" in capsys.readouterr().err


def test_the_command_writes_the_page_where_it_is_told(run, tmp_path, capsys):
    assert main(["report", str(run), "--to", str(tmp_path / "pages/one.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "pages/one.html")
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["one.html"]


class Data(L.LightningDataModule):
    """Bright and dark pictures, labelled."""

    def evaluation_dataloader(self, split, whole=False):
        generator = torch.Generator().manual_seed(len(split))
        pictures = [torch.randint(100 * (i % 2), 100 * (i % 2) + 100, (1, 8, 8), generator=generator).to(torch.uint8) for i in range(16)]
        samples = [Sample(str(i), {"drawing": Item(picture)}, {"label": i % 2}, seed=i) for i, picture in enumerate(pictures)]
        return torch.utils.data.DataLoader([collate(samples[:10]), collate(samples[10:])], batch_size=None)

    def train_dataloader(self):
        return self.evaluation_dataloader("train")

    val_dataloader = train_dataloader


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a real run of a few steps."""
    folder = tmp_path_factory.mktemp("fitted")
    torch.manual_seed(0)
    drawing = Modality(
        dim=16,
        transform=ImageTransform(size=8, channels=1),
        embed=lambda dim: PatchEmbed(dim, patch_size=4, channels=1),
        masking=RandomMasking(0.5),
        tokenizer=DiscreteVAE(num_tokens=8, channels=1, num_layers=2, width=4, codebook_dim=4),
        renderer=PatchGridRenderer((2, 2)),
    )
    model = MaskedPretraining(Encoder(dim=16, depth=1, num_heads=2), {"drawing": lambda dim: drawing})
    L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        default_root_dir=folder,
        logger=CSVLogger(folder, name="metrics"),
        log_every_n_steps=1,
        callbacks=[PictureLogger(2), LabelProbe("drawing", labels_per_class=(0,))],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, datamodule=Data())
    return folder


def test_a_real_run_gives_a_whole_page(fitted):
    page = read(write_report(fitted))
    assert page.titles[1:] == ["Curves: drawing", "Pictures: drawing", "Probes"]
    assert page.charts == ["loss/drawing", "accuracy/drawing"]
    assert len(page.pictures) == 2 and "6 steps." in page.text
    folder = RunFolder.read(fitted)
    assert [step for step, _ in folder.curves["train/loss/drawing"]] == list(range(1, 7))
    assert len(folder.curves["val/accuracy/drawing"]) == 3


MEASURE = """<script>addEventListener("load", () => {
  const widths = [...document.images].map(image => image.complete ? image.naturalWidth : 0);
  const boxes = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
  const charts = boxes.filter(box => box.width > 200 && box.height > 100).length;
  const crossed = [...document.querySelectorAll("svg")].flatMap(svg => {
    const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
      p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom).map(([b]) => a + " over " + b));
  });
  const lines = [...document.querySelectorAll("polyline")].filter(line => line.getTotalLength() > 0).length;
  const painted = [...document.querySelectorAll("svg")].map(svg => [
    [...svg.querySelectorAll("tspan")].map(part => getComputedStyle(part).fill),
    [...svg.querySelectorAll("polyline")].map(line => getComputedStyle(line).stroke)]);
  const matching = painted.filter(([legend, strokes]) => legend.length && JSON.stringify(legend) === JSON.stringify(strokes)).length;
  const covered = [...document.querySelectorAll("svg")].filter(svg => svg.querySelector(".legend").getBoundingClientRect().bottom
    > svg.querySelectorAll(".grid")[4].getBoundingClientRect().top).length;
  const outside = [...document.querySelectorAll("svg")].flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
    const [inner, outer] = [text.getBoundingClientRect(), svg.getBoundingClientRect()];
    return inner.left < outer.left || inner.right > outer.right || inner.top < outer.top || inner.bottom > outer.bottom;
  }).map(text => text.textContent));
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = JSON.stringify({widths, charts, lines, matching, covered, crossed, outside, wide});
});</script>"""


def open_in_browser(page, folder) -> dict:
    """Return what a browser measures on the page once it has loaded."""

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("needs a browser: install the Debian package `chromium`")
    measured = folder / "measured.html"
    measured.write_text(page.read_text(encoding="utf-8").replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    quiet = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    command = [browser, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=3000"]
    result = subprocess.run([*command, "--dump-dom", measured.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(\{.*?\})</title>", result.stdout)
    assert title, result.stderr[-2000:]
    return json.loads(title[1])


def test_a_browser_shows_every_picture_and_chart(run, tokenizer_run, fitted, tmp_path):
    written = open_in_browser(write_report(run, tokenizer_run=tokenizer_run), tmp_path)
    assert written["widths"] == [100] * 4
    assert written["charts"] == 11 and written["lines"] == 12 + 6
    assert written["matching"] == 11 and written["covered"] == 0  # legends have the colours of their lines, and lie above them
    assert written["crossed"] == written["outside"] == [] and not written["wide"]
    real = open_in_browser(write_report(fitted), tmp_path)
    assert len(real["widths"]) == 2 and min(real["widths"]) > 300
    assert real["charts"] == 2 and real["lines"] == 4 and real["crossed"] == real["outside"] == []
