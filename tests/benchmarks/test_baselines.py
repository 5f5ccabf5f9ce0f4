import numpy as np
import pytest

from benchmarks.demo.baselines import TableBaseline, few_labels, grid_neighbours, hog_svm_accuracy, sequence_neighbours


def test_sequence_neighbours() -> None:
    previous, following = sequence_neighbours(np.array([3, 0, 1, 2]))
    assert previous.tolist() == [-1, 0, 1, -1, -1, 4]
    assert following.tolist() == [1, 2, -1, -1, 5, -1]


def test_grid_neighbours() -> None:
    left, right, up, down = grid_neighbours(2, rows=2, columns=3)
    assert left.tolist() == [-1, 0, 1, -1, 3, 4, -1, 6, 7, -1, 9, 10]
    assert right.tolist() == [1, 2, -1, 4, 5, -1, 7, 8, -1, 10, 11, -1]
    assert up.tolist() == [-1, -1, -1, 0, 1, 2, -1, -1, -1, 6, 7, 8]
    assert down.tolist() == [3, 4, 5, -1, -1, -1, 9, 10, 11, -1, -1, -1]


def test_backs_off_from_both_neighbours_to_the_most_frequent() -> None:
    ids, lengths = np.array([1, 2, 3, 1, 2, 3, 1, 4, 0, 1]), np.array([10])
    table = TableBaseline((6,)).fit(ids, sequence_neighbours(lengths))

    def guess(sequence: list[int], hidden: list[int]) -> list[int]:
        masked = np.isin(np.arange(len(sequence)), hidden)
        return table.predict(np.array(sequence), sequence_neighbours(np.array([len(sequence)])), masked)[:, 0].tolist()

    assert guess([1, 5, 0], [1]) == [4]  # both: 1 ? 0
    assert guess([1, 5, 5], [1]) == [2]  # no such pair: after 1 mostly 2
    assert guess([1, 5, 3], [1, 2]) == [2, 1]  # next hidden; then none visible: 1 is the most frequent
    assert guess([5, 5, 4], [0, 1]) == [1, 1]  # only the next: before 4 comes 1
    assert guess([5], [0]) == [1]


def test_agrees_with_counting_one_by_one() -> None:
    random = np.random.default_rng(0)
    ids, lengths = random.integers(0, 4, (600, 2)), np.full(60, 10)
    masked, neighbours = random.random(600) < 0.3, sequence_neighbours(np.full(60, 10))
    got = TableBaseline((4, 4)).fit(ids, neighbours).predict(ids, neighbours, masked)
    for row, token in enumerate(np.flatnonzero(masked)):
        places = [index[token] if index[token] >= 0 and not masked[index[token]] else -1 for index in neighbours]
        for field in range(2):
            wanted = {i: ids[place, field] for i, place in enumerate(places) if place >= 0}
            same = np.array(
                [
                    all(index[t] >= 0 and ids[index[t], field] == wanted[i] for i, index in enumerate(neighbours) if i in wanted)
                    for t in range(600)
                ]
            )
            assert got[row, field] == np.bincount(ids[same, field]).argmax()
    assert lengths.sum() == 600


def test_hidden_ids_are_never_read() -> None:
    random = np.random.default_rng(1)
    ids, neighbours, masked = random.integers(0, 3, (200, 1)), sequence_neighbours(np.array([200])), random.random(200) < 0.5
    table = TableBaseline((3,)).fit(ids, neighbours)
    spoilt = np.where(masked[:, None], 0, ids)
    assert np.array_equal(table.predict(ids, neighbours, masked), table.predict(spoilt, neighbours, masked))


def test_accuracies_of_a_pattern() -> None:
    ids = np.stack([np.tile([0, 1, 2], 100), np.zeros(300, int)], axis=1)
    neighbours, masked = sequence_neighbours(np.full(10, 30)), np.arange(300) % 4 == 1
    table, majority = TableBaseline((3, 2)).fit(ids, neighbours).accuracies(ids, neighbours, masked)
    assert table.tolist() == [1, 1]
    assert majority == pytest.approx([(ids[masked, 0] == 0).mean(), 1])


def test_works_on_grids() -> None:
    stripes = np.tile(np.arange(8) % 2, (20, 8, 1)).ravel()
    neighbours = grid_neighbours(20, 8, 8)
    masked = np.random.default_rng(0).random(len(stripes)) < 0.2
    table = TableBaseline((2,), contexts=((0, 1, 2, 3), (0, 1), (2, 3), (0,), (1,), (2,), (3,))).fit(stripes, neighbours)
    assert table.accuracies(stripes, neighbours, masked)[0][0] > 0.99


def test_nothing_to_learn_from_is_no_failure() -> None:
    table = TableBaseline((3,)).fit(np.array([2]), sequence_neighbours(np.array([1])))
    assert table.predict(np.array([1, 0]), sequence_neighbours(np.array([2])), np.array([True, False])).tolist() == [[2]]


def test_few_labels_are_balanced_and_seeded() -> None:
    labels = np.repeat(np.arange(5), 20)
    chosen = few_labels(labels, 3, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [3] * 5 and len(set(chosen.tolist())) == 15
    assert np.array_equal(chosen, few_labels(labels, 3, seed=0)) and not np.array_equal(chosen, few_labels(labels, 3, seed=1))


@pytest.mark.parametrize("use_hog", [True, False])
def test_svm_tells_bars_apart(use_hog: bool) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (40, 28, 28)).astype(np.uint8)
    images[::2, 12:16] += 150
    images[1::2, :, 12:16] += 150
    labels = np.arange(40) % 2
    assert hog_svm_accuracy(images[:20], labels[:20], images[20:], labels[20:], use_hog) == 1
