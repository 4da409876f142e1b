"""What happens to frames between nodes: lost, doubled, late, overtaken; all or none of a frame, never a part.

Only the peers' control connections are touched, and only behind their handshakes: a lost frame in the middle of
a byte stream is what a peer sees whose sender dropped it from a full queue, or sent it on a connection that
broke. The bulk connections carry parts of larger things, which their streams hold together: those only break.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.sim.network import Stretch

BULK = b"\x64bulk"
"""Stands in the first frame of a bulk connection: the CBOR string of its kind."""
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a link treats frames. Shares are chances per frame."""

    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0
    """Share of frames that are held up while others overtake them."""
    late_s: float = 0.0
    """Longest that one is held up."""
    delay_s: float = 0.0
    """Added to the way of every frame, in order."""


FAIR = Conditions()
"""Every frame arrives, once, in order."""


class FrameWeather:
    """The conditions of all links. Implements `network.Weather`."""

    def __init__(self, random: Random, ports: Sequence[int]) -> None:
        """`ports`: where nodes listen for their peers."""
        self.random = random
        self.struck: Counter[str] = Counter()
        """Frames that something happened to, by what."""
        self._ports = ports
        self._conditions: dict[tuple[str, str], Conditions] = {}

    def set(self, source: str, target: str, conditions: Conditions) -> None:
        """From now on this direction of the link is like that."""
        if conditions == FAIR:
            self._conditions.pop((source, target), None)
        else:
            self._conditions[source, target] = conditions

    def clear(self) -> None:
        """Fair weather everywhere."""
        self._conditions.clear()

    def on(self, source: str, target: str) -> Conditions | None:
        """The conditions of a direction; None: fair."""
        return self._conditions.get((source, target))

    def stretches(self, source: str, target: str, port: int) -> tuple[Stretch | None, Stretch | None]:
        """See network.Weather."""
        if port not in self._ports:
            return None, None
        back = FrameStretch(self, (target, source), 1, None)
        return FrameStretch(self, (source, target), 2, back), back


class FrameStretch:
    """One direction of one connection, cut into its frames."""

    def __init__(
        self, weather: FrameWeather, link: tuple[str, str], handshake_frames: int, back: FrameStretch | None
    ) -> None:
        """`back`: the other direction, for the dialler's, whose first frame says what the connection is for."""
        self._weather = weather
        self._link = link
        self._spared = handshake_frames
        self._back = back
        self._spares_all = False
        self._rest = b""

    def judge(self, data: bytes) -> Sequence[tuple[float, bool, bytes]]:
        """See network.Stretch. Bytes of a frame that is not whole yet wait for the others."""
        if self._spares_all:
            return [(0.0, False, data)]
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        conditions = self._weather.on(*self._link)
        judged: list[tuple[float, bool, bytes]] = []
        spared_until = 0
        while size - at >= 4:
            end = at + 4 + _LENGTH.unpack_from(data, at)[0]
            if end > size:
                break
            if self._spared:
                self._spared -= 1
                if self._back is not None and BULK in data[at:end]:
                    self._spares_all = self._back._spares_all = True
                    return [(0.0, False, data)]
                spared_until = end
            elif conditions is not None:
                self._judge(conditions, data[at:end], judged)
            at = end
        self._rest = data[at:]
        if conditions is None:
            return [(0.0, False, data[:at])] if at else []
        return [(0.0, False, data[:spared_until]), *judged] if spared_until else judged

    def _judge(self, conditions: Conditions, frame: bytes, judged: list[tuple[float, bool, bytes]]) -> None:
        random, struck = self._weather.random, self._weather.struck
        draw = random.random()
        if draw < conditions.loss:
            struck["frame lost"] += 1
            return
        judged.append((conditions.delay_s, False, frame))
        if draw < conditions.loss + conditions.late:
            struck["frame overtaken"] += 1
            judged[-1] = (conditions.delay_s + random.random() * conditions.late_s, True, frame)
        elif draw > 1 - conditions.double:
            struck["frame doubled"] += 1
            judged.append((conditions.delay_s + random.random() * conditions.late_s, True, frame))
