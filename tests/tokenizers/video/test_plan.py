"""Which packets are decoded for which pictures."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.tokenizers.video.plan import UnplannedError, runs_for, shown_at


class Packet(NamedTuple):
    pts: int | None
    is_keyframe: bool = False
    size: int = 1
    is_discard: bool = False


@st.composite
def streams(draw) -> list[Packet]:
    """Groups of pictures, each with a key frame that is shown first and others in any order."""
    packets: list[Packet] = []
    for _ in range(draw(st.integers(1, 5))):
        begin = len(packets)
        others = draw(st.permutations(range(begin + 1, begin + 1 + draw(st.integers(0, 6)))))
        packets += [Packet(10 * begin, is_keyframe=True), *(Packet(10 * place) for place in others)]
    return packets


@given(streams(), st.data())
def test_each_moment_shows_the_last_picture_that_is_due(packets, data):
    moments = sorted(data.draw(st.lists(st.integers(0, 10 * len(packets) + 20), min_size=1, max_size=6)))
    assert shown_at(packets, moments) == [max(packet.pts for packet in packets if packet.pts <= moment) for moment in moments]


@given(streams(), st.data())
def test_runs_hold_every_wanted_picture_from_its_key_frame_on_and_nothing_after(packets, data):
    wanted = data.draw(st.sets(st.sampled_from([packet.pts for packet in packets]), min_size=1))
    runs = runs_for(packets, wanted)
    decoded = [place for run in runs for place in run]
    assert decoded == sorted(set(decoded))
    assert {packets[place].pts for place in decoded} >= wanted
    for run in runs:
        assert packets[run.start].is_keyframe and packets[run.stop - 1].pts in wanted
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    groups = {max(key for key in keys if key <= place) for place, packet in enumerate(packets) if packet.pts in wanted}
    assert {max(key for key in keys if key <= place) for place in decoded} == groups


def test_what_lies_between_distant_pictures_is_left_out():
    packets = [Packet(time, is_keyframe=time % 10 == 0) for time in range(40)]
    assert runs_for(packets, {3, 32}) == [range(4), range(30, 33)]
    assert runs_for(packets, {3, 5, 14}) == [range(6), range(10, 15)]


def test_a_picture_shown_before_the_key_frame_it_follows_rests_on_the_one_before():
    packets = [Packet(0, True), Packet(2), Packet(1), Packet(5, True), Packet(3), Packet(4), Packet(7), Packet(6)]
    assert runs_for(packets, {4}) == [range(6)]
    assert runs_for(packets, {4, 5}) == [range(6)]  # not [range(3, 4), range(6)]
    assert runs_for(packets, {6}) == [range(3, 8)]


def test_packets_without_a_picture_to_show_are_no_answer():
    packets = [Packet(0, True), Packet(1, size=0), Packet(2, is_discard=True), Packet(3)]
    assert shown_at(packets, [1, 2, 3]) == [0, 0, 3]


@pytest.mark.parametrize(
    ("packets", "moments"),
    [([], [0]), ([Packet(5, True)], [4]), ([Packet(0, True), Packet(None)], [0])],
    ids=["none", "too late", "no time"],
)
def test_moments_that_the_packets_do_not_settle_are_not_planned(packets, moments):
    with pytest.raises(UnplannedError):
        shown_at(packets, moments)


def test_pictures_before_any_key_frame_are_not_planned():
    with pytest.raises(UnplannedError):
        runs_for([Packet(0), Packet(1), Packet(2, True)], {1})
