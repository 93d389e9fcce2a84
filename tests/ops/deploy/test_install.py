"""install.sh on a booted bare host: everything by one command, twice, by halves, and away again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.deploy.world import MODEL_SETTINGS, SERVER_NAME, Server, Wiring, install_options, make_source, traffic
from tests.ops.kit.programs import CHECKOUT, eventually, need, need_root

pytestmark = pytest.mark.ops

BIN = CHECKOUT / "deploy/bin"
EXTRAS = ("--edge", SERVER_NAME, "--firewall-confirmed", "--exporters", "--backup")
#: Where an installation could leave something.
LISTING = """
{
  find /etc \\( -path '*.wants/nginx.service' -o -path '*.wants/prometheus-*' \\) -prune -o -print
  find /opt /root /home /var/cache /var/lib /usr/lib/systemd/system /usr/local/bin /usr/local/lib -maxdepth 1
  find /var/lib/prometheus
} | sort
getent passwd; getent group; nft list tables
"""


@pytest.fixture(scope="module")
def wiring() -> Iterator[Wiring]:
    need_root()
    need("ip", "nginx", "nft", "prometheus-node-exporter", "prometheus-nginx-exporter", "restic")
    with Wiring(["solo"]) as made:
        yield made


@pytest.fixture(scope="module")
def bare(wiring: Wiring) -> Iterator[Server]:
    server = Server("solo", netns=wiring.spaces["solo"])
    try:
        yield server.boot()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("sources"), "1.0.0")


def listing(server: Server) -> str:
    return server.run("bash", "-c", LISTING).stdout


def test_from_bare_to_running_and_back(
    bare: Server, source: Path, wiring: Wiring, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bare.give(source)
    before = listing(bare)

    said = bare.install(source, "--dry-run", *EXTRAS).stderr
    assert "would: make the account nllbd" in said
    assert "nothing was changed" in said
    assert listing(bare) == before

    bare.host.write("/etc/nllbd/nllbd.toml", MODEL_SETTINGS + "# the operator's own\n")
    bare.install(source, *EXTRAS)
    for unit in ("nllbd.service", "nginx.service", "prometheus-node-exporter.service", "nllbd-backup.timer"):
        assert bare.host.show(unit, "ActiveState") == "active", unit
    assert bare.host.show("nllbd.service", "User") == "nllbd"
    secrets = bare.run("stat", "-c", "%a %U", "/etc/nllbd/credentials", "/etc/nllbd/credentials/api_key").stdout
    assert secrets.split() == ["700", "root", "600", "root"]
    assert bare.key() not in bare.run("journalctl", "--no-pager").stdout
    assert "the operator's own" in bare.run("cat", "/etc/nllbd/nllbd.toml").stdout

    _check_firewall(bare)
    bare.host.kill()  # the power fails: everything that was set up comes back by itself
    bare.host.boot()
    assert "chain input" in bare.run("nft", "list", "table", "inet", "nllbd").stdout
    for unit in ("nllbd.service", "nginx.service"):
        eventually(lambda unit=unit: bare.host.show(unit, "ActiveState") == "active", 60, unit)

    key = bare.run("nllbd", "keys", "create", "Ada").stdout.split()[1]  # as root: in the daemon's database
    bare.host.write("/root/ada", key, 0o600)
    bare.run("/usr/local/lib/nllbd/deploy/bin/smoke", "http://127.0.0.1:8000", "--key-file", "/root/ada")
    bare.run("rm", "/root/ada")

    with traffic(bare, bare.key(), wiring, tmp_path, echoes=False, rate=4) as load:  # through firewall, TLS and nginx
        load.wait_for(5)
        pid = bare.host.show("nllbd.service", "MainPID")
        again = bare.install(source, *EXTRAS).stderr
        assert "nothing to do: everything is as it should be" in again
        assert bare.host.show("nllbd.service", "MainPID") == pid
        assert "nothing to do" in bare.install(source, "--dry-run", *EXTRAS).stderr

        folder = tmp_path_factory.mktemp("newer")
        bare.install(make_source(folder, "1.1.0"), "upgrade", built=False)
        assert bare.version() == "1.1.0"
        broken = make_source(folder, "1.2.0", {"nllbd/daemon.py": "\nraise RuntimeError('broken')\n"})
        refused = bare.install(broken, "upgrade", check=False)
        assert refused.returncode == 1
        assert "1.2.0 was taken back; 1.1.0 is in use" in refused.stderr
        # Interrupted between link and restart: the daemon is the former one, and the same command makes it true.
        bare.run("ln", "-sfn", "releases/1.0.0", "/opt/nllbd/current")
        assert "take 1.0.0 into use: 1.1.0 still runs" in bare.install(source, "upgrade").stderr
        assert bare.version() == "1.0.0"
        load.wait_for(5)
    assert not load.failed, load.report()  # the socket held what came during each restart

    _check_another_address(bare, source)
    assert "this host has a daemon" in bare.install(source, "--no-daemon", check=False).stderr

    kept = bare.install(source, "uninstall").stderr
    assert "kept: /etc/nllbd" in kept
    assert bare.run("test", "-e", "/etc/nllbd/credentials/api_key", check=False).returncode == 0
    assert bare.host.show("nllbd.service", "LoadState") == "not-found"
    bare.host.write("/srv/models/weights", "everybody's")
    bare.run("mount", "--bind", "/srv/models", "/var/lib/nllbd/models")
    refused = bare.install(source, "uninstall", "--purge", check=False)
    assert "mounted, and would be emptied: /var/lib/nllbd/models" in refused.stderr
    bare.run("umount", "/var/lib/nllbd/models")
    bare.install(source, "uninstall", "--purge")
    assert bare.run("cat", "/srv/models/weights").stdout == "everybody's"
    after = listing(bare)
    assert not [line for line in before.splitlines() if line.startswith("/usr") and line not in after.splitlines()]
    left = set(after.splitlines()) - set(before.splitlines())
    assert left <= {"/etc/systemd/system/multi-user.target.wants"}  # Debian's own nginx and exporters are enabled there
    assert "nothing to do" in bare.install(source, "uninstall", "--purge").stderr


def _check_another_address(bare: Server, source: Path) -> None:
    """Given later, it is taken at once; at boot the socket is there before its address is."""
    bare.install(source, "--listen", "127.0.0.7")
    assert "127.0.0.7:8000" in bare.run("ss", "-Hltn", "sport = :8000").stdout
    assert "nothing to do" in bare.install(source, "--listen", "127.0.0.7").stderr
    bare.host.write("/etc/systemd/system/nllbd.socket.d/listen.conf", "[Socket]\nListenStream=192.0.2.7:8000\n")
    bare.host.systemctl("daemon-reload")
    bare.host.systemctl("restart", "nllbd.socket", "nllbd.service")


def _check_firewall(bare: Server) -> None:
    """Where systemd runs, it is its timer that takes unconfirmed rules back."""
    bare.host.write("/etc/nllbd/firewall/networks/blocked", "203.0.113.9\n")
    bare.run("/usr/local/lib/nllbd/firewall/apply", "--within", "1")
    assert "203.0.113.9" in bare.run("nft", "list", "table", "inet", "nllbd").stdout
    eventually(
        lambda: "203.0.113.9" not in bare.run("nft", "list", "table", "inet", "nllbd").stdout, 30, "the rollback"
    )
    bare.host.write("/etc/nllbd/firewall/networks/blocked", "# nobody\n")


def test_a_release_is_never_changed_under_its_version(bare: Server, source: Path, tmp_path: Path) -> None:
    bare.install(source, "release")
    changed = make_source(tmp_path / "changed", "1.0.0", {"nllbd/daemon.py": "# changed\n"})
    bare.host.copy(changed, "/srv/changed")
    refused = bare.run("/srv/changed/deploy/bin/install.sh", "release", *install_options(), check=False)
    assert refused.returncode == 1
    assert "differs" in refused.stderr
    bare.install(source, "uninstall", "--purge")


def test_dependencies_come_from_a_wheelhouse(bare: Server, source: Path, tmp_path: Path) -> None:
    """Into an environment of their own that releases share; nothing is fetched."""
    house = tmp_path / "house"
    house.mkdir()
    refused = _with_wheelhouse(bare, source, house)
    assert refused.returncode != 0  # an empty house has nothing, and no index is asked
    assert "No matching distribution" in refused.stderr or "Cannot install" in refused.stderr
    assert "Retrying" not in refused.stderr
    assert (
        bare.run("ls", "/opt/nllbd/dependencies").stdout == ""
        or ".new" in bare.run("ls", "/opt/nllbd/dependencies").stdout
    )
    bare.install(source, "uninstall", "--purge")


def _with_wheelhouse(bare: Server, source: Path, house: Path) -> subprocess.CompletedProcess[str]:
    bare.host.copy(house, "/srv/house")
    script = f"{bare.give(source)}/deploy/bin/install.sh"
    return bare.run(script, "release", "--wheelhouse", "/srv/house", check=False)
