"""Three booted hosts, a load balancer and two servers, under traffic: in, upgraded, taken back, out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.deploy.world import (
    ADDS_A_COLUMN,
    SERVER_NAME,
    SETTINGS,
    Server,
    Wiring,
    database,
    install_options,
    make_source,
    make_wheel,
    traffic,
    write_transport,
)
from tests.ops.kit.programs import CHECKOUT, need, need_root

pytestmark = pytest.mark.ops

BIN = CHECKOUT / "deploy/bin"
#: Breaks on the second server only: the first one is upgraded by then.
BREAKS_ON_APP2 = {
    "nllbd/daemon.py": "\nimport socket\n\nif socket.gethostname() == 'app2':\n    raise RuntimeError('broken')\n"
}


class Fleet:
    """The hosts, and the operator's machine: an inventory and a way to reach them."""

    def __init__(self, wiring: Wiring, folder: Path) -> None:
        self.wiring, self.folder = wiring, folder
        self.servers = {name: Server(name, netns=wiring.spaces[name]) for name in wiring.spaces}
        self.inventory = folder / "hosts"
        self.bin = BIN

    def set_up(self, source: Path, database_url: str) -> None:
        for server in self.servers.values():
            server.boot()
        self.bin = source / "deploy/bin"
        self.transport = write_transport(self.folder, self.servers.values())
        addresses = self.wiring.addresses
        for name in ("app1", "app2"):
            server = self.servers[name]
            server.host.write("/etc/nllbd/nllbd.toml", SETTINGS + f'metrics_host = "{addresses[name]}"\n')
            server.host.write("/etc/nllbd/credentials/database_url", database_url, 0o600)
            if name == "app2":  # one key for both
                server.host.write("/etc/nllbd/credentials/api_key", self.servers["app1"].key(), 0o600)
            server.install(source, "--listen", addresses[name], "--firewall-confirmed", "--roles", "app")
        edge = ("--no-daemon", "--edge", SERVER_NAME, "--server", f"{addresses['app1']}:8000")
        self.servers["lb"].install(source, *edge, "--firewall-confirmed", "--roles", "edge,monitoring")
        self.inventory.write_text(
            f"lb    {addresses['lb']}  edge,monitoring\napp1  {addresses['app1']}  app\n", "utf-8"
        )

    def operate(self, script: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of deploy/bin's commands, on the operator's machine."""
        options = ["--inventory", str(self.inventory), "--transport", str(self.transport)]
        command, rest = ([arguments[0]], arguments[1:]) if script == "host" else ([], arguments)
        done = subprocess.run(
            [self.bin / script, *command, *options, *map(str, rest)],
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def roll(self, source: Path, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        options = (
            "--source",
            str(source),
            "--wheel",
            str(make_wheel(source)),
            "--install",
            " ".join(install_options()),
            "--watch",
            "1",
        )
        return self.operate("rolling", *options, *more, check=check)

    def traffic(self) -> object:
        return traffic(self.servers["lb"], self.servers["app1"].key(), self.wiring, self.folder)

    def pool(self) -> dict[str, str]:
        """Server → state, as nginx has it."""
        shown = self.servers["lb"].run("/etc/nginx/nllbd/bin/nginx-upstream", "show", "--json").stdout
        pools = json.loads(shown)
        return {server["address"]: server["state"] for server in pools["pools"][pools["active"]]}

    def versions(self) -> dict[str, str]:
        return {name: self.servers[name].version() for name in ("app1", "app2")}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    need_root()
    need("ip", "nginx", "nft")
    with Wiring(["lb", "app1", "app2"]) as wiring, database(wiring) as url:
        made = Fleet(wiring, tmp_path_factory.mktemp("operator"))
        try:
            made.set_up(make_source(tmp_path_factory.mktemp("first"), "1.0.0"), url)
            yield made
        finally:
            for server in made.servers.values():
                server.stop()


def test_a_host_comes_in_is_upgraded_and_goes_and_no_request_is_lost(fleet: Fleet, tmp_path: Path) -> None:
    app1, app2 = (fleet.wiring.addresses[name] for name in ("app1", "app2"))
    lb = fleet.servers["lb"]
    with fleet.traffic() as load:
        load.wait_for(5)
        assert "nothing was changed" in fleet.operate("host", "add", "app2", app2, "--dry-run").stderr
        fleet.operate("host", "add", "app2", app2)
        assert fleet.pool() == {f"{app1}:8000": "up", f"{app2}:8000": "up"}
        assert app2 in lb.run("nft", "list", "set", "inet", "nllbd", "internal4").stdout or "10.0.0.0/8" in (
            lb.run("cat", "/etc/nllbd/firewall/networks/internal").stdout
        )
        assert f'"{app2}:9000"' in lb.run("cat", "/etc/prometheus/targets/app2.yml").stdout
        assert "nothing to do" in fleet.operate("host", "add", "app2", app2).stderr

        source = make_source(tmp_path, "1.1.0", ADDS_A_COLUMN)  # both versions serve from one database meanwhile
        assert "nothing was changed" in fleet.roll(source, "--dry-run").stderr
        fleet.roll(tmp_path / "1.1.0")
        assert fleet.versions() == {"app1": "1.1.0", "app2": "1.1.0"}
        assert set(fleet.pool().values()) == {"up"}
        for name in ("app1", "app2"):
            assert "10.66.0.1" in (said := fleet.servers[name].run("nllbd", "db", "check").stdout)
            assert "at revision 0002" in said
        assert "nothing to do" in fleet.roll(tmp_path / "1.1.0").stderr

        broken = fleet.roll(make_source(tmp_path, "1.2.0", BREAKS_ON_APP2), check=False)
        assert broken.returncode == 1, broken.stderr
        assert "stopped at app2" in broken.stderr, broken.stderr
        assert fleet.versions() == {"app1": "1.1.0", "app2": "1.1.0"}  # app1 had been upgraded by then
        assert set(fleet.pool().values()) == {"up"}

        fleet.operate("rolling", "--rollback", "--watch", "1", "app1")
        assert set(fleet.pool().values()) == {"up"}

        fleet.operate("host", "remove", "app2", "--stop")
        assert fleet.pool() == {f"{app1}:8000": "up"}
        assert lb.run("test", "-e", "/etc/prometheus/targets/app2.yml", check=False).returncode == 1
        assert "nothing to do" in fleet.operate("host", "remove", "app2").stderr
        load.wait_for(5)
    assert not load.failed, load.report()
    assert os.stat(fleet.inventory).st_mode & 0o777 == 0o644


def test_a_host_that_does_not_answer_is_not_taken_in(fleet: Fleet) -> None:
    before = (fleet.pool(), fleet.inventory.read_text("utf-8"))
    app2 = fleet.servers["app2"]
    app2.run("systemctl", "stop", "nllbd.service", "nllbd.socket")
    refused = fleet.operate("host", "add", "app2", fleet.wiring.addresses["app2"], check=False)
    assert refused.returncode == 1
    assert "what was done is undone" in refused.stderr
    assert (fleet.pool(), fleet.inventory.read_text("utf-8")) == before
    unknown = fleet.operate("host", "add", "app9", "10.66.0.9", check=False)
    assert "app9 cannot be reached" in unknown.stderr


def test_the_last_server_is_not_taken_out(fleet: Fleet) -> None:
    refused = fleet.operate("host", "remove", "app1", check=False)
    assert refused.returncode == 1
    assert "the last daemon" in refused.stderr
    assert set(fleet.pool().values()) == {"up"}
    assert "app1" in fleet.inventory.read_text("utf-8")
