"""The whole house, set up once for all heavy tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.kit.host import Host
from tests.ops.monitoring.house import House, open_house


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    host = Host("app-1", size="2g")
    try:
        with host:
            yield open_house(host)
    finally:
        host.stop()
