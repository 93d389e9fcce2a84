"""Blue and green on one booted host, under traffic: a good version takes over, a bad one is taken back at any stage."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.deploy.world import ADDS_A_COLUMN, SERVER_NAME, SETTINGS, Server, Wiring, make_source, traffic
from tests.ops.kit.programs import CHECKOUT, eventually, need, need_root

pytestmark = pytest.mark.ops

BLUE_GREEN = "/usr/local/lib/nllbd/deploy/bin/blue-green"

#: What is wrong with a version, and the stage at which that is found.
CRASHES = {"nllbd/daemon.py": "\nraise RuntimeError('broken')\n"}
CANNOT_MIGRATE = ADDS_A_COLUMN | {
    "nllbd/store/migrations/versions/r0003_broken.py": (
        'from alembic import op\n\nrevision = "0003"\ndown_revision = "0002"\n\n\n'
        'def upgrade() -> None:\n    op.drop_table("audit")\n    raise RuntimeError("broken")\n'
    ),
    "nllbd/store/migrate.py": '\nHEAD = "0003"\n',
}
#: Put around every request for a translation.
_WRAPPED = """

_build_app = build_app


@web.middleware
async def _wrapped(request, handler):
    if request.path != "/translate":
        return await handler(request)
    {action}


def build_app(context):
    app = _build_app(context)
    app.middlewares.append(_wrapped)
    return app
"""
MISTRANSLATES = {
    "nllbd/http/app.py": _WRAPPED.format(action='return web.json_response({"translated_text": "", "translations": []})')
}
DIES_LATER = {  # it does well while it is tried out, and kills itself once people come
    "nllbd/http/app.py": _WRAPPED.format(
        action="""
    import os, signal
    if "aiohttp" in request.headers.get("User-Agent", ""):  # our traffic; the smoke test is another program
        os.kill(os.getpid(), signal.SIGKILL)
    return await handler(request)"""
    )
}

FAILS_LATER = {
    "nllbd/http/app.py": _WRAPPED.format(
        action="""
    if "aiohttp" in request.headers.get("User-Agent", ""):
        raise RuntimeError("broken")
    return await handler(request)"""
    )
}


@pytest.fixture(scope="module")
def wiring() -> Iterator[Wiring]:
    need_root()
    need("ip", "nginx")
    with Wiring(["solo"]) as made:
        yield made


@pytest.fixture(scope="module")
def server(wiring: Wiring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A host with version 1.0.0 behind its own nginx, as install.sh leaves it."""
    made = Server("solo", netns=wiring.spaces["solo"])
    try:
        made.boot()
        made.host.write("/etc/nllbd/nllbd.toml", SETTINGS)
        made.install(make_source(tmp_path_factory.mktemp("first"), "1.0.0"), "--edge", SERVER_NAME)
        yield made
    finally:
        made.stop()


def put_release(server: Server, folder: Path, version: str, edits: dict[str, str] | None = None) -> None:
    server.install(make_source(folder, version, edits), "release")


def served_version(server: Server) -> str:
    """By the daemon that nginx asks now."""
    answer = server.run("curl", "-sk", "--resolve", f"{SERVER_NAME}:443:127.0.0.1", f"https://{SERVER_NAME}/version")
    return str(json.loads(answer.stdout)["version"])


def _environ(server: Server, unit: str) -> bytes:
    return (server.host.root / f"proc/{server.host.show(unit, 'MainPID')}/environ").read_bytes()


def active_units(server: Server) -> set[str]:
    listed = server.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "nllbd*.service").stdout
    return set(re.findall(r"^(nllbd(?:@\d)?\.service)", listed, re.MULTILINE))


def test_a_new_version_takes_over_and_no_request_is_lost(server: Server, wiring: Wiring, tmp_path: Path) -> None:
    """Twice: from nllbd.service to a slot, and from slot to slot, with a migration that both versions live with."""
    put_release(server, tmp_path, "1.1.0")
    put_release(server, tmp_path, "1.2.0", ADDS_A_COLUMN)
    with traffic(server, server.key(), wiring, tmp_path) as load:
        load.wait_for(5)
        for version, unit in (("1.1.0", "nllbd@9.service"), ("1.2.0", "nllbd@8.service")):
            shown = server.run(BLUE_GREEN, "--dry-run", version).stderr
            assert "nothing was changed" in shown
            server.run(BLUE_GREEN, "--watch", "2", version)
            assert served_version(server) == version == server.version()
            assert active_units(server) == {unit}
            assert server.host.show(unit, "UnitFileState") == "enabled"
            assert b"CUDA_VISIBLE_DEVICES=0\0" in _environ(server, unit)
            load.wait_for(5)
    assert not load.failed, load.report()
    assert "at revision 0002" in server.run("nllbd", "db", "check").stdout
    refused = server.run("/usr/local/lib/nllbd/deploy/bin/install.sh", "rollback", check=False)
    assert "this host runs in slots" in refused.stderr


@pytest.mark.parametrize(
    ("version", "edits", "stage"),
    [
        ("2.0.0", CANNOT_MIGRATE, "database"),
        ("2.0.1", CRASHES, "start"),
        ("2.0.2", MISTRANSLATES, "smoke"),
    ],
    ids=["database", "start", "smoke"],
)
def test_a_broken_version_is_taken_back_and_no_request_is_lost(
    server: Server, wiring: Wiring, tmp_path: Path, version: str, edits: dict[str, str], stage: str
) -> None:
    before, units = served_version(server), active_units(server)
    put_release(server, tmp_path, version, edits)
    with traffic(server, server.key(), wiring, tmp_path) as load:
        load.wait_for(3)
        refused = server.run(BLUE_GREEN, "--watch", "2", version, check=False)
        assert refused.returncode == 1
        assert f"failed at stage: {stage}" in refused.stderr, refused.stderr
        assert f"{version} was taken back" in refused.stderr
        load.wait_for(3)
    assert not load.failed, load.report()
    assert served_version(server) == before
    assert active_units(server) == units


@pytest.mark.parametrize(("version", "edits"), [("2.1.0", DIES_LATER), ("2.1.1", FAILS_LATER)], ids=["dies", "fails"])
def test_a_version_that_dies_in_traffic_is_taken_back(
    server: Server, wiring: Wiring, tmp_path: Path, version: str, edits: dict[str, str]
) -> None:
    """After the switch: nginx goes back to the old version, which has never stopped. It costs callers seconds."""
    before, units = served_version(server), active_units(server)
    put_release(server, tmp_path, version, edits)
    with traffic(server, server.key(), wiring, tmp_path) as load:
        load.wait_for(3)
        refused = server.run(BLUE_GREEN, "--watch", "20", version, check=False)
        assert refused.returncode == 1
        assert "failed at stage: watch" in refused.stderr
        taken_back = load.num_sent
        load.wait_for(5)
    assert served_version(server) == before
    assert active_units(server) == units
    assert load.failed
    began = [outcome.began_at for outcome in load.failed]
    assert max(began) - min(began) < 10, load.report()
    late = [outcome for outcome in load.failed if outcome.number > taken_back]
    assert not late, load.report()


def test_a_deployment_that_is_killed_is_begun_anew(server: Server, wiring: Wiring, tmp_path: Path) -> None:
    """Killed between the switch and the end: both versions run, the next call tidies up."""
    put_release(server, tmp_path, "1.3.0")
    with traffic(server, server.key(), wiring, tmp_path) as load:
        load.wait_for(3)
        running = server.host.popen("bash", "-c", f"exec {BLUE_GREEN} --watch 600 1.3.0")
        eventually(lambda: served_version(server) == "1.3.0", 60, "the switch")
        server.run("bash", "-c", "kill -KILL $(pgrep -f '[b]lue-green --watch 600')")
        running.wait(10)
        assert len(active_units(server)) == 2
        server.run(BLUE_GREEN, "--watch", "1", "1.3.0")
        load.wait_for(3)
    assert not load.failed, load.report()
    assert served_version(server) == "1.3.0"
    assert len(active_units(server)) == 1
    assert "nothing to do" in server.run(BLUE_GREEN, "1.3.0").stderr


def test_two_deployments_at_a_time_are_refused(server: Server) -> None:
    lock = "/run/nllbd-deploy.lock"
    server.run("systemd-run", "--quiet", "--unit", "holder", "flock", lock, "sleep", "infinity")
    try:
        eventually(lambda: server.run("flock", "-n", lock, "true", check=False).returncode, 20, "the lock is taken")
        refused = server.run("env", "NLLBD_LOCK_WAIT_S=0", BLUE_GREEN, server.version(), check=False)
        assert refused.returncode == 1
        assert "another installation or deployment runs" in refused.stderr
    finally:
        server.run("systemctl", "stop", "holder")


def test_the_guides_slots_share_a_port(server: Server, tmp_path: Path) -> None:
    """Its two stacks publish the same port 8000: the second never starts beside the first."""
    for name in ("blue", "green"):
        server.host.write(
            f"/etc/systemd/system/guide-{name}.service",
            "[Service]\nType=notify\nUser=nllbd\nStateDirectory=guide\nEnvironment=HOME=/var/lib/guide\n"
            "ExecStart=/opt/nllbd/current/bin/nllbd serve --runner fake --port 8777 --metrics-port 0 --config /dev/null"
            "\n",
        )
    server.host.systemctl("daemon-reload")
    try:
        server.host.systemctl("start", "guide-blue.service")
        second = server.host.systemctl("start", "guide-green.service", check=False)
        assert second.returncode != 0
        said = "".join(entry["MESSAGE"] for entry in server.host.journal("guide-green.service"))
        assert "port 8777 of 127.0.0.1 is taken" in said
        # And the guide's health check of the new stack is answered by the old one.
        assert server.run("curl", "-sf", "http://127.0.0.1:8777/health").returncode == 0
    finally:
        server.host.systemctl("stop", "guide-blue.service", "guide-green.service", check=False)


def test_the_guides_sed_changes_every_image_of_the_stack(tmp_path: Path) -> None:
    """`s/nllb-translator:.*/…/` rewrites the file that is under version control, in place, all services of it, and what
    stands behind a name, too: a digest, a comment. A release here is a folder that is never changed."""
    stack = tmp_path / "docker-stack.yml"
    stack.write_text(
        "services:\n"
        "  nllb-server: {image: nllb-translator:1.0@sha256:abc}\n"
        "  nllb-old: {image: nllb-translator:0.9}  # kept for the archive\n",
        "utf-8",
    )
    subprocess.run(["sed", "-i", "s/nllb-translator:.*/nllb-translator:2.0/", stack], check=True)
    text = stack.read_text("utf-8")
    assert text.count("nllb-translator:2.0") == 2
    assert "}" not in text  # the line's end is gone: this is no YAML mapping any more


def test_the_guide_takes_the_first_stack_it_finds(tmp_path: Path) -> None:
    """`docker stack ls | grep nllb | head -1`: while both are there, and with any other stack whose name has nllb in
    it, the one that serves is not the one that is found."""
    listed = "NAME\nnllb-blue\nnllb-green\nnllb-monitoring\n"  # green serves; blue is what a failed deployment has left
    script = "grep nllb | head -1"
    found = subprocess.run(["bash", "-c", script], input=listed, capture_output=True, text=True, check=True).stdout
    assert found.strip() == "nllb-blue"
    assert (CHECKOUT / "deploy/bin/lib/slots.sh").read_text("utf-8").count("upstream show --json") == 2
