import pytest
from rich.console import Console

from benchmarks.side_by_side import Speeds, compare, cpu_seconds, machine, measure


def burn(seconds: float) -> None:
    end = cpu_seconds() + seconds
    while cpu_seconds() < end:
        pass


def text_of(table) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_every_candidate_runs_once_per_round_after_a_warm_up_and_the_first_place_goes_round() -> None:
    calls = []

    def candidate(name):
        return lambda: calls.append(name) or 1

    measure({name: candidate(name) for name in "abc"}, rounds=3)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"


def test_speed_is_units_over_processor_seconds() -> None:
    fast, slow = measure({"fast": lambda: burn(0.02) or 8, "slow": lambda: burn(0.04) or 4}, rounds=3)
    assert fast.median == pytest.approx(400, rel=0.3) and slow.median == pytest.approx(100, rel=0.3)
    assert all(ratio == pytest.approx(4, rel=0.4) for ratio in fast.ratios(slow))


def test_ratios_are_taken_within_a_round() -> None:
    ours, peer = Speeds("ours", (10.0, 100.0, 40.0)), Speeds("peer", (5.0, 50.0, 20.0))
    assert ours.ratios(peer) == [2.0, 2.0, 2.0]
    assert ours.median == 40 and ours.spread == 1.5


def test_the_table_divides_ours_by_each_peer() -> None:
    shown = text_of(compare({"ours": lambda: burn(0.01) or 500, "theirs": lambda: burn(0.01) or 5}, "notes", rounds=1, title="notes read"))
    assert "notes/CPU-s" in shown and "ours is faster by" in shown and "notes read" in shown
    factor = float(next(line for line in shown.splitlines() if "theirs" in line).split("│")[4].strip().rstrip("x"))
    assert factor == pytest.approx(100, rel=0.5)


@pytest.mark.parametrize(
    ("candidates", "rounds"), [({}, 3), ({"a": lambda: 1}, 0), ({"a": lambda: 0}, 1)], ids=["none", "no rounds", "idle"]
)
def test_nothing_measured_is_refused(candidates, rounds) -> None:
    with pytest.raises(ValueError, match=r"at least one|did no work"):
        compare(candidates, "units", rounds)


def test_versions_stand_below_the_table() -> None:
    line = machine(["torch", "no-such-package-here"])
    assert "torch 2" in line and "no-such-package-here absent" in line
