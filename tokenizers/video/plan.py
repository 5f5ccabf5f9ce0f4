"""Which packets of a film have to be decoded for the pictures of some moments.

A packet holds one picture. Packets lie in the order of decoding, which differs from that of display, and only the pictures from a key frame
on can be decoded. Times are whole numbers of the film's own ticks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable


class UnplannedError(Exception):
    """The packets do not tell enough: the film has to be decoded from where it can be, up to the moments."""


@runtime_checkable
class TimedPacket(Protocol):
    """What is asked of a packet; PyAV's has it."""

    @property
    def pts(self) -> int | None:
        """When its picture is shown; None: unknown."""

    @property
    def size(self) -> int:
        """In bytes; 0 in an AVI where the picture before stays."""

    @property
    def is_keyframe(self) -> bool:
        """Whether decoding can begin here."""

    @property
    def is_discard(self) -> bool:
        """Whether its picture is decoded for the sake of others only, and never shown."""


def shown_at(packets: Sequence[TimedPacket], moments: Sequence[int]) -> list[int]:
    """Return for each moment when its picture was due: the last one that was due by then.

    Args:
        packets: in the order of decoding, those of all pictures that are due by the last moment.
        moments: in ticks.

    Raises:
        UnplannedError: a packet has no time, or no picture was due by a moment.
    """
    due = sorted(_time(packet) for packet in packets if packet.size and not packet.is_discard)
    places = [bisect_right(due, moment) - 1 for moment in moments]
    if min(places) < 0:
        raise UnplannedError
    return [due[place] for place in places]


def runs_for(packets: Sequence[TimedPacket], wanted: Collection[int]) -> list[range]:
    """Return the places of the packets to decode: ascending runs, each from a key frame to the last wanted picture that rests on it.

    A picture may come after a key frame in the file and before it in display. It rests on the key frame before that one.

    Args:
        packets: in the order of decoding.
        wanted: when the wanted pictures are due, in ticks.

    Raises:
        UnplannedError: a wanted picture has no key frame before it.
    """
    keys: list[int] = []
    runs: list[range] = []
    for place, packet in enumerate(packets):
        if packet.is_keyframe:
            keys.append(place)
        if packet.pts not in wanted:
            continue
        start = next((key for key in reversed(keys) if _time(packets[key]) <= _time(packet)), None)
        if start is None:
            raise UnplannedError
        while runs and start <= runs[-1].stop:  # begun already: starting again would decode the same pictures twice
            start = min(start, runs.pop().start)
        runs.append(range(start, place + 1))
    return runs


def _time(packet: TimedPacket) -> int:
    if packet.pts is None:
        raise UnplannedError
    return packet.pts
