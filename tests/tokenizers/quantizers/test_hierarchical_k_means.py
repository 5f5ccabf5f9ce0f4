"""Trees of clusters: the way down, the fit, what is refused, and going on after a stop."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from multimodal.tokenizers.quantizers import hierarchical_k_means
from multimodal.tokenizers.quantizers.hierarchical_k_means import _split, fit_levels
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import STATE_NAME, FitState, Progress, TreeSettings
from multimodal.tokenizers.quantizers.hierarchical_k_means_tree import Level, descend, nearest_child, path_of

SCRIPT = Path(__file__).with_name("fit_script.py")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_tree(dim: int, depth: int, branching: int, seed: int) -> list[Level]:
    generator, levels, count = torch.Generator().manual_seed(seed), [], 1
    for number in range(depth):
        children = torch.randint(1, branching + 1, (count,), generator=generator)
        count = int(children.sum())
        levels.append(Level.of(children, drawn(count, dim, seed=seed + number)))
    return levels


def levels_of(state: FitState) -> list[Level]:
    return [Level.of(*level) for level in state.levels]


def by_hand(vector: torch.Tensor, levels: list[Level]) -> list[int]:
    """The number of the child at each level, by its definition, in float64."""
    way, node = [], 0
    for level in levels:
        first = sum(level.children[:node].tolist())
        own = level.centroids[first : first + int(level.children[node])].double()
        way.append(int((own - vector.double()).square().sum(1).argmin()))
        node = first + way[-1]
    return [*way, node]


def nested(depth: int, branching: int, each: int, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters in clusters, ten times as far from each other at each level above; and the cluster of each vector."""
    centers = torch.zeros(1, dim)
    for level in range(depth):
        corners = torch.eye(dim)[:branching] * 10.0 ** (depth - level)
        centers = (centers[:, None] + corners).flatten(0, 1)
    true = torch.arange(len(centers)).repeat_interleave(each)
    vectors = centers[true] + 0.01 * drawn(len(true), dim)
    order = torch.randperm(len(true), generator=torch.Generator().manual_seed(1))
    return vectors[order], true[order]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 6), st.integers(0, 60), st.integers(0, 99))
def test_the_way_down_is_the_one_walked_by_hand(dim, depth, branching, count, seed):
    levels, vectors = random_tree(dim, depth, branching, seed), drawn(count, dim, seed=seed + 50)
    ids = descend(vectors, levels)
    walked = [by_hand(vector, levels) for vector in vectors]
    assert ids.tolist() == [way[-1] for way in walked]
    assert path_of(ids, levels).tolist() == [way[:-1] for way in walked]


def test_children_that_rounding_cannot_tell_apart_are_told_apart():
    near = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    base = drawn(1, 256) * 100
    centroids = torch.cat([base * near, base, base])
    level = Level.of(torch.tensor([3]), centroids)
    vectors = torch.cat([base * near * near, base])
    assert nearest_child(vectors, torch.zeros(2, dtype=torch.int64), level).tolist() == [0, 1]  # of equal ones the first


def test_a_vector_goes_its_way_in_any_batch():
    levels, vectors = random_tree(16, 3, 12, 3), drawn(500, 16, seed=9)
    whole = descend(vectors, levels)
    assert torch.equal(whole, torch.cat([descend(part, levels) for part in vectors.split(7)]))


def test_nested_clusters_are_found_exactly():
    vectors, true = nested(depth=3, branching=4, each=20)
    state = fit_levels([vectors], TreeSettings(branching=4, depth=3))
    assert [len(centroids) for _, centroids in state.levels] == [4, 16, 64]
    ids = descend(vectors, levels_of(state))
    pairs = set(zip(ids.tolist(), true.tolist(), strict=True))
    assert len(pairs) == 64 and len({leaf for leaf, _ in pairs}) == 64  # one leaf for each cluster, and the other way round
    path = path_of(ids, levels_of(state))
    for level in range(3):
        above = {(tuple(way[: level + 1]), cluster // 4 ** (2 - level)) for way, cluster in zip(path.tolist(), true.tolist(), strict=True)}
        assert len(above) == 4 ** (level + 1)  # also the clusters above are those that were made
    assert state.counts.tolist() == [20] * 64
    means = torch.stack([vectors[ids == leaf].double().mean(0) for leaf in range(64)]).float()
    torch.testing.assert_close(state.levels[-1][1], means, rtol=0, atol=1e-5)


def test_distortion_is_measured_and_close_to_that_of_scikit_learn():
    vectors = drawn(3000, 12) + 3 * drawn(30, 12, seed=1)[torch.arange(3000) % 30]
    ours = []
    for seed in range(3):
        state = fit_levels([vectors], TreeSettings(branching=12, depth=1, seed=seed))
        restored = state.levels[0][1][descend(vectors, levels_of(state))]
        assert state.distortion == pytest.approx(float((vectors - restored).square().sum(1).mean()), rel=1e-5)
        ours.append(state.distortion)
    theirs = [KMeans(12, n_init=1, random_state=seed).fit(vectors.numpy()).inertia_ / 3000 for seed in range(3)]
    assert sum(ours) < 1.1 * sum(theirs)


def test_each_level_lowers_the_distortion():
    told: list[Progress] = []
    fit_levels([drawn(2000, 6)], TreeSettings(branching=3, depth=4), listener=told.append)
    done = [progress for progress in told if progress.stage == "level"]
    assert [progress.level for progress in done] == [1, 2, 3, 4]
    assert all(after.distortion < before.distortion for before, after in zip(done, done[1:], strict=False))
    means = [progress.distortion for progress in told if progress.stage == "means" and progress.level == 1]
    assert means == sorted(means, reverse=True)


def test_leaves_are_the_same_with_the_same_seed_wherever_the_stream_is_cut(monkeypatch):
    vectors, one = drawn(1000, 5), TreeSettings(branching=5, depth=2, seed=3, sample_rows=100)
    monkeypatch.setattr(hierarchical_k_means, "ROWS", 64)
    cuts = ([vectors], [vectors.numpy()], list(vectors.split(1)), [vectors[:0], vectors[:990].numpy(), vectors[990:]], [vectors.double()])
    for number, cut in enumerate(cuts):
        state = fit_levels(cut, one)
        first = state if number == 0 else first
        assert all(
            torch.equal(a, b) for mine, other in zip(state.levels, first.levels, strict=True) for a, b in zip(mine, other, strict=True)
        )
    seeded = fit_levels([vectors], replace(one, seed=4))
    assert not torch.equal(seeded.levels[0][1], first.levels[0][1])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=60),
    st.integers(2, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.0, 1e3]),
)
def test_any_few_features_make_a_whole_tree(values, branching, depth, least, standardize, offset):
    vectors = torch.tensor(values, dtype=torch.float32)[:, None] * torch.tensor([1.0, -2.0, 0.0]) + offset
    state = fit_levels([vectors], TreeSettings(branching, depth, least, standardize, sample_rows=20))
    distinct = len(set(values))
    for (children, centroids), above in zip(state.levels, [1, *(len(c) for _, c in state.levels)], strict=False):
        assert len(children) == above and 1 <= int(children.min()) <= int(children.max()) <= branching
        assert len(centroids) == int(children.sum()) <= distinct
        assert bool(centroids.isfinite().all())
    assert int(state.counts.sum()) == len(values)
    if least == 1 and branching >= distinct:
        assert len(state.levels[-1][1]) == distinct and state.distortion < 1e-6 * (1 + offset**2)


def test_nodes_of_few_features_have_fewer_children():
    vectors = torch.cat([drawn(100, 4), 100 + drawn(5, 4)])
    state = fit_levels([vectors], TreeSettings(branching=2, depth=2, min_cluster_size=3))
    assert sorted(state.levels[1][0].tolist()) == [1, 2]  # 5 features are not twice 3
    assert fit_levels([drawn(11, 4)], TreeSettings(branching=12, depth=1, min_cluster_size=4)).levels[0][0].tolist() == [2]


def test_an_empty_cluster_takes_half_of_the_widest_sibling():
    level = Level.of(torch.tensor([3, 2, 2]), torch.tensor([[0.0], [10], [99], [5], [6], [7], [99]]))
    counts, spread = torch.tensor([4, 4, 0, 2, 2, 3, 0]), torch.tensor([1.0, 4, 0, 1, 1, 0, 0], dtype=torch.float64)
    moved, split = _split(level, counts, spread, seed=0)
    assert split and sorted([moved[1].item(), moved[2].item()]) == pytest.approx([9.99, 10.01])  # 0.01 deviations on either side
    assert moved[[0, 3, 4, 5]].flatten().tolist() == [0, 5, 6, 7]  # others are left alone
    assert moved[6].item() == 99  # its sibling's features are all equal


def test_what_is_no_feature_is_named():
    good, bad = drawn(9000, 4), drawn(3, 4)
    bad[1, 2] = torch.nan
    for stream, message in (
        ([good, bad], "feature 9001 holds nan at place 2"),
        ([drawn(5, 4) * 1e25], "feature 0 holds .*its square must be finite"),
        ([good, drawn(2, 5)], r"array 1 of the features is torch.float32 of shape \(2, 5\); floating point \(n, 4\)"),
        ([torch.ones(3, 4, dtype=torch.int64)], "array 0 of the features is torch.int64"),
        ([drawn(4)], r"shape \(4,\)"),
        ([], "there are no features"),
        ([drawn(0, 3)], "there are no features"),
        (iter([good]), "not an iterator"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_levels(stream, TreeSettings(depth=1))


class Shrinking:
    """Gives one feature fewer, or more, each time it is read."""

    def __init__(self, change: int) -> None:
        self.count, self.change = 100, change

    def __iter__(self):
        self.count += self.change
        return iter([np.random.default_rng(0).normal(size=(self.count, 3))])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_stream_that_changes_is_refused(change):
    with pytest.raises(ValueError, match="must give the same each time"):
        fit_levels(Shrinking(change), TreeSettings(branching=2, depth=1))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("branching", 1), ("depth", 0), ("depth", 17), ("min_cluster_size", 0), ("max_passes", 0), ("sample_rows", 0), ("seed", -1)],
)
def test_settings_outside_their_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} must be .*, got {value}"):
        TreeSettings(**{setting: value})
    with pytest.raises(ValueError, match=r"tolerance must be in \[0, 1\), got 1"):
        TreeSettings(tolerance=1)


class StoppedError(Exception):
    pass


def test_a_fit_that_was_stopped_anywhere_goes_on_to_the_same_tree(tmp_path):
    vectors, how = drawn(600, 4), TreeSettings(branching=4, depth=3, standardize=True, tolerance=0)
    told: list[Progress] = []
    whole = fit_levels([vectors], how, listener=told.append)
    assert len(told) > 12
    for stop in range(len(told)):
        folder, heard = tmp_path / str(stop), []

        def listen(progress: Progress, heard: list = heard, stop: int = stop) -> None:
            heard.append(progress)
            if len(heard) > stop:
                raise StoppedError

        with pytest.raises(StoppedError):
            fit_levels([vectors], how, folder, listen)
        later: list[Progress] = []
        resumed = fit_levels([vectors], how, folder, later.append)
        assert len(later) <= len(told) - stop + 1  # what was done is not done again
        assert resumed.distortion == whole.distortion and torch.equal(resumed.counts, whole.counts)
        for mine, other in zip(resumed.levels, whole.levels, strict=True):
            assert torch.equal(mine[0], other[0]) and torch.equal(mine[1], other[1])
    assert fit_levels([vectors], how, folder).distortion == whole.distortion


def test_a_fit_goes_on_with_the_same_features_and_settings_only(tmp_path):
    vectors, how = drawn(200, 4), TreeSettings(branching=3, depth=1)
    fit_levels([vectors], how, tmp_path)
    with pytest.raises(ValueError, match="depth 1 instead of 2"):
        fit_levels([vectors], replace(how, depth=2), tmp_path)
    with pytest.raises(ValueError, match="a fit of other features: 200 of them, here are 199"):
        fit_levels([vectors[1:]], how, tmp_path)
    with pytest.raises(ValueError, match="other features"):
        fit_levels([vectors.flip(0)[:, [1, 0, 2, 3]]], how, tmp_path)
    state = tmp_path / STATE_NAME
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is not the state of a fit"):
        fit_levels([vectors], how, tmp_path)


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_tree(tmp_path):
    command = [sys.executable, str(SCRIPT)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=300)
    folder = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen([*command, str(folder)])
        before = (folder / STATE_NAME).stat().st_mtime_ns if (folder / STATE_NAME).is_file() else 0
        while process.poll() is None and not ((folder / STATE_NAME).is_file() and (folder / STATE_NAME).stat().st_mtime_ns > before):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(folder)], check=True, timeout=300)
    assert (folder / STATE_NAME).read_bytes() == (tmp_path / "whole" / STATE_NAME).read_bytes()
    assert [path.name for path in folder.iterdir()] == [STATE_NAME]
