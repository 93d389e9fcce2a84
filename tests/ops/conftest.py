"""The heavy tests take longer than the others may: whole hosts boot in them. They mostly wait, so that two run at once,
those of a folder one after the other, for they share what is slow to build.
"""

from __future__ import annotations

import pytest

HEAVY_TIMEOUT_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.get_closest_marker("ops"):
            continue
        item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(HEAVY_TIMEOUT_S))
