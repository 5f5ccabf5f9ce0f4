"""From features to ids to a page, by the commands."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.cli import main
from multimodal.clips.cluster import fit_clusters, sizes_of
from multimodal.clips.encode import EncodeOptions, write_clip_ids
from multimodal.clips.examples import use_of_clusters
from multimodal.clips.feature_stream import FeatureStream, clips_of
from multimodal.clips.page import size_bins
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import TreeSettings

SMALL = TreeSettings(branching=2, depth=2)


@pytest.fixture(scope="module")
def clusters(features, tmp_path_factory):
    """The folder of a tree of four clusters."""
    folder = tmp_path_factory.mktemp("clusters")
    fit_clusters(FeatureStream([str(features.root)]), SMALL, folder / "tree")
    return folder / "tree"


@pytest.fixture(scope="module")
def ids(features, clusters, tmp_path_factory) -> ShardIndex:
    folder = tmp_path_factory.mktemp("ids")
    index = write_clip_ids(features, folder / "shards", EncodeOptions(str(clusters), keep_features=True)).index
    assert index is not None
    return index


def all_features(features: ShardIndex, split: str = "train") -> torch.Tensor:
    return torch.cat([found.clips.features for found in clips_of(features, split)])


def test_a_stream_is_the_train_split_again_and_again(features):
    stream = FeatureStream([str(features.root)])
    first, second = torch.cat(list(stream)), torch.cat(list(stream))
    assert torch.equal(first, second) and torch.equal(first, all_features(features)) and len(first) == 2 + 3 + 4 + 5
    assert stream.extractor == features.writer["clips"]["extractor"] and stream.num_samples() == 4


def test_files_of_features_are_read_too(features, tmp_path):
    rows = np.random.default_rng(0).normal(size=(9000, 16)).astype(np.float16)
    np.save(tmp_path / "more.npy", rows)
    parts = list(FeatureStream([str(tmp_path / "more.npy"), str(features.root)]))
    assert np.array_equal(torch.cat(parts[:2]).numpy(), rows) and len(torch.cat(parts[2:])) == 14
    np.save(tmp_path / "flat.npy", rows[0])
    with pytest.raises(ValueError, match="must hold one feature a row"):
        FeatureStream([str(tmp_path / "flat.npy")])
    (tmp_path / "hostile.npy").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=r"hostile.npy cannot be read"):
        FeatureStream([str(tmp_path / "hostile.npy")])
    with pytest.raises(ValueError, match="no split 'dev'; splits there: train, test"):
        FeatureStream([str(features.root)], "dev")


def test_sizes_are_those_of_the_features(features, clusters):
    stream, tokenizer = FeatureStream([str(features.root)]), load_tokenizer(str(clusters))
    sizes, x = sizes_of(stream, tokenizer), all_features(features)
    own = tokenizer.encode(x)
    assert torch.equal(sizes.counts, torch.bincount(own, minlength=tokenizer.vocab_sizes[0])) and sizes.used == len(own.unique())
    assert sizes.distortion == pytest.approx(float((x - tokenizer.decode(own)).square().sum(1).mean()), rel=1e-4)
    assert sizes.variance == pytest.approx(float((x - x.mean(0)).square().sum(1).mean()), rel=1e-4) and sizes.distortion < sizes.variance
    assert 1 <= sizes.perplexity <= sizes.used + 1e-9


def test_a_tree_that_is_there_is_not_fitted_again_nor_replaced(features, clusters):
    stream, before = FeatureStream([str(features.root)]), (clusters / "model.safetensors").stat().st_mtime_ns
    assert fit_clusters(stream, SMALL, clusters).fingerprint() == load_tokenizer(str(clusters)).fingerprint()
    assert (clusters / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds another tokenizer"):
        fit_clusters(stream, TreeSettings(branching=3, depth=2), clusters)


def test_ids_are_those_of_the_tokenizer_and_features_go(features, clusters, ids, tmp_path):
    lean = write_clip_ids(features, tmp_path / "lean", EncodeOptions(str(clusters))).index
    tokenizer = load_tokenizer(str(clusters))
    for split in ("train", "test"):
        for was, now, full in zip(clips_of(features, split), clips_of(lean, split), clips_of(ids, split), strict=True):
            assert torch.equal(now.clips.ids, tokenizer.encode(was.clips.features)) and now.clips.features is None
            assert torch.equal(full.clips.features, was.clips.features) and torch.equal(full.clips.ids, now.clips.ids)
            assert torch.equal(now.clips.starts, was.clips.starts) and now.raw.key == was.raw.key
            assert now.clips.tokenizer == tokenizer.fingerprint() and now.clips.extractor == was.clips.extractor
    with pytest.raises(ValueError, match="holds ids without features"):
        FeatureStream([str(lean.root)])
    with pytest.raises(ValueError, match="its clips have no features: encode with --keep-features"):
        use_of_clusters(lean, "train", tokenizer, 2)


def test_clusters_of_another_extractor_are_refused(features, clusters, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clusters / name).read_bytes())
    said = json.loads((clusters / "clips.json").read_text())
    (tmp_path / "clips.json").write_text(json.dumps({**said, "extractor": "0" * 64}))
    with pytest.raises(ValueError, match=re.escape("are of features of another extractor (000000000000)")):
        write_clip_ids(features, tmp_path / "to", EncodeOptions(str(tmp_path)))


def test_the_nearest_clips_of_a_cluster_are_found(ids, clusters):
    tokenizer = load_tokenizer(str(clusters))
    use, x = use_of_clusters(ids, "train", tokenizer, 2), all_features(ids)
    own = tokenizer.encode(x)
    distances = (x - tokenizer.decode(own)).square().sum(1)
    for cluster in own.unique().tolist():
        expected = distances[own == cluster].sort().values[:2].tolist()
        assert [example.distance for example in use.nearest[cluster]] == pytest.approx(expected)
    assert use.distortion == pytest.approx(float(distances.mean())) and int(use.counts.sum()) == 14
    assert use.largest(1) == [int(use.counts.argmax())]
    pairs = [(a, b) for found in clips_of(ids, "train") for a, b in zip(found.clips.ids[:-1], found.clips.ids[1:], strict=True)]
    assert use.repeats == pytest.approx(sum(int(a == b) for a, b in pairs) / 10) and len(pairs) == 10


def test_sizes_fall_into_bins():
    assert size_bins(torch.tensor([0, 0, 1, 2, 3, 4, 9])) == [("0", 2), ("1", 1), ("2-3", 2), ("4-7", 1), ("8-15", 1)]
    assert size_bins(torch.tensor([0])) == [("0", 1)]


def test_the_commands_lead_from_films_to_a_page(films, config, tmp_path, capsys):
    root, alone = str(films.root), ["--workers", "0"]
    to, tree, told, page = (str(tmp_path / name) for name in ("features", "tree", "ids", "page.html"))
    assert main(["clips", "features", root, "--config", str(config), "--to", to, *alone]) == 0
    assert "EncoderExtractor, 16 numbers each" in capsys.readouterr().out
    assert main(["clips", "cluster", to, "--branching", "2", "--depth", "2", "--to", tree]) == 0
    assert "features: 14 of 16 numbers" in capsys.readouterr().out
    assert main(["clips", "encode", to, "--tokenizer", tree, "--to", told, "--keep-features", *alone]) == 0
    assert main(["clips", "show", told, "--films", root, "--tokenizer", tree, "--to", page, "--clips", "2", "--height", "24"]) == 0
    html = (tmp_path / "page.html").read_text()
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert 4 <= len(found) <= 8 and "http" not in html and "<td>14</td>" in html
    assert {Image.open(io.BytesIO(base64.b64decode(data))).size for data in found} == {(32, 24)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["features", "nowhere", "--config", "none.yaml", "--to", "x"], "none.yaml cannot be read"),
        (["cluster", "nowhere", "--to", "x", "--branching", "1"], "branching must be a whole number"),
        (["encode", "nowhere", "--tokenizer", "t", "--to", "x"], "nowhere"),
        (["cluster", "nowhere", "--to", "x", "--device", "tpu"], "--device must be cpu or cuda, got 'tpu'"),
        (["show", "a", "--films", "b", "--tokenizer", "t", "--to", "x.html", "--clips", "0"], "--clips must be at least 1, got 0"),
        (["paint"], "invalid choice: 'paint'"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["clips", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_help_needs_no_torch():
    code = (
        "import sys; from multimodal.cli import main; assert main(['clips', 'cluster', '--help']) == 0; assert 'torch' not in sys.modules"
    )
    assert "--branching" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
