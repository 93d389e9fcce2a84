from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.firewall.network import FIREWALL, Network
from tests.ops.kit.programs import need, need_root


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A server without a firewall, and callers from everywhere."""
    need_root()
    need("ip", "nft", "iptables-restore", "ip6tables-restore")
    with Network(tmp_path) as made:
        yield made


@pytest.fixture
def source(network: Network, tmp_path: Path) -> Path:
    """A copy of the shipped source that a test may edit, in use by `network`."""
    folder = tmp_path / "source"
    (folder / "networks").mkdir(parents=True)
    shutil.copy(FIREWALL / "firewall.toml", folder)
    for file in (FIREWALL / "networks").iterdir():
        shutil.copy(file, folder / "networks")
    network.source = folder
    return folder
