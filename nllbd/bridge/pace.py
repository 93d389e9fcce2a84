"""How long a step may last before it counts as hanging: judged by how long this engine's steps have lasted so far.

A big model on a slow machine is slow in every step; a hang is a step out of all proportion. Knows no process and no
clock. One event loop.
"""

from __future__ import annotations

_WARM_STEPS = 20
_COLD_FLOORS = 3.0  # a child that has just begun may touch every page of its weights for the first time
_MULTIPLE = 50.0
_TRIAL_MULTIPLE = 10.0  # a trial repeats what ran before, in smaller groups


class Pace:
    """What the steps of all children of one engine took.

    Args:
        step_s: the most that a step may ever last, and what holds until a first step was seen.
        floor_s: no step is hung that is shorter than this.
    """

    def __init__(self, step_s: float, floor_s: float) -> None:
        self._step_s = step_s
        self._floor_s = floor_s
        self._num_steps = 0
        self._recent_s = 0.0
        self._longest_s = 0.0

    def begin_life(self) -> None:
        """A new child: it has yet to warm up."""
        self._num_steps = 0

    def record(self, num_steps: int, longest_s: float) -> None:
        """The present child has done so many steps; the longest of its recent ones took `longest_s`."""
        self._num_steps = num_steps
        if num_steps:
            self._recent_s = longest_s
            self._longest_s = max(self._longest_s, longest_s)

    def limit_s(self, *, on_trial: bool) -> float:
        """Seconds after which the present step hangs. `on_trial`: only suspects of a hang are in the engine.

        Always a multiple of the longest step, never of a usual one: encoding takes many times as long as decoding.
        """
        if not self._longest_s:
            return self._step_s
        if on_trial:
            least, known = self._floor_s, _TRIAL_MULTIPLE * self._longest_s
        elif self._num_steps >= _WARM_STEPS:
            least, known = self._floor_s, _MULTIPLE * self._recent_s
        else:
            least, known = _COLD_FLOORS * self._floor_s, _MULTIPLE * self._longest_s
        return min(self._step_s, max(least, known))
