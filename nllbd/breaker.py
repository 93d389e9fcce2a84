"""A circuit breaker: when to stop asking a service, and when to try again. Knows no service and no event loop."""

from __future__ import annotations


class Breaker:
    """Open = ask nobody. It starts open, until the service was reached once.

    It opens at the first lost connection, and at the `max_timeouts`-th timeout in a row: a single one may well be our
    own loop's fault. Each further opening that no call's success came before doubles the pause.
    """

    def __init__(self, max_timeouts: int = 3, first_pause_s: float = 0.1, max_pause_s: float = 5.0) -> None:
        self._max_timeouts = max_timeouts
        self._first_pause_s = first_pause_s
        self._max_pause_s = max_pause_s
        self._num_timeouts = 0
        self._num_failures = 0
        self.is_open = True  # until it was reached once

    def succeed(self) -> None:
        """A call was answered."""
        self._num_timeouts = self._num_failures = 0

    def close(self) -> None:
        """A probe was answered: calls may go through again."""
        self._num_timeouts = 0
        self.is_open = False

    def time_out(self) -> None:
        """A call was not answered in time."""
        self._num_timeouts += 1
        if self._num_timeouts >= self._max_timeouts:
            self.fail()

    def fail(self) -> None:
        """The connection was lost, or a probe failed."""
        self._num_failures += 1
        self.is_open = True

    @property
    def pause_s(self) -> float:
        """How long to wait before the next probe."""
        if self._num_failures <= 1:
            return 0.0
        return min(self._max_pause_s, self._first_pause_s * 2.0 ** min(self._num_failures - 2, 16))
