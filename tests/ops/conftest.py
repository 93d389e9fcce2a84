"""The heavy tests take longer than the others may: whole hosts boot in them. They mostly wait, so that two run at once,
those of a folder one after the other, for they share what is slow to build.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

HEAVY_TIMEOUT_S = 300


class FolderScheduling(LoadScopeScheduling):  # type: ignore[misc]  # has no types
    """One worker does a folder, in the order of its files. (xdist 3.8's own groups do nothing under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling:
    return FolderScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("ops") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(HEAVY_TIMEOUT_S))
