"""The units as systemd reads them, without booting anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nllbd.config import ROWS
from tests.ops.kit.programs import CHECKOUT, need

SYSTEMD = CHECKOUT / "systemd"
SERVICES = ("nllbd.service", "nllbd@.service")
#: Drop-in → the units that it is for.
DROP_INS = {
    "addresses": "nllbd.service",
    "gpu": "nllbd.service",
    "numa": "nllbd@0.service",
    "public": "nllbd.socket",
    "slot": "nllbd@0.service",
}
EXPOSURE = {"nllbd.service": 2.0, "nllbd@.service": 2.0, "nllbd-check.service": 3.0}
GPU_EXPOSURE = 2.0


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of all units in which what they run exists."""
    program = tmp_path / "bin"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in SYSTEMD.glob("nllbd*.*"):
        text = re.sub(
            r"/(opt/nllbd|usr/local/lib/nllbd|usr/bin/nvidia)[\w/%.-]*", str(program), file.read_text("utf-8")
        )
        (tmp_path / file.name).write_text(text)
    return tmp_path


def verify(*files: Path) -> str:
    """Everything that `systemd-analyze verify` has to say: it exits with 0 on unknown keys."""
    command = [need("systemd-analyze")["systemd-analyze"], "verify", "--man=no", *files]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def files() -> list[str]:
    return sorted(path.name for path in SYSTEMD.glob("nllbd*.*"))


@pytest.mark.parametrize("name", files())
def test_systemd_understands_it(units: Path, name: str) -> None:
    assert verify(units / name.replace("@", "@0")) == ""


@pytest.mark.parametrize("name", [*DROP_INS, "backoff"])
def test_systemd_understands_the_drop_in(units: Path, name: str) -> None:
    unit = DROP_INS.get(name, "nllbd.service")
    folder = units / f"{unit}.d"
    folder.mkdir()
    text = (SYSTEMD / "drop-ins" / f"{name}.conf").read_text("utf-8")
    (folder / f"{name}.conf").write_text(re.sub(r"/(opt/nllbd|usr/bin/nvidia)[\w/%.-]*", str(units / "bin"), text))
    said = verify(units / unit)
    if name == "backoff" and _version() < 254:
        assert {line.split("'")[1] for line in said.splitlines()} == {"RestartSteps", "RestartMaxDelaySec"}
    else:
        assert said == ""


def test_every_drop_in_is_verified() -> None:
    assert {path.stem for path in (SYSTEMD / "drop-ins").glob("*.conf")} == {*DROP_INS, "backoff"}


@pytest.mark.parametrize("name", EXPOSURE)
def test_little_is_exposed(name: str) -> None:
    threshold = str(round(EXPOSURE[name] * 10))
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={threshold}", SYSTEMD / name]
    need("systemd-analyze")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_gpu_variant_gives_up_little(tmp_path: Path) -> None:
    need("systemd-analyze")
    text = (SYSTEMD / "nllbd.service").read_text("utf-8")
    gpu = (SYSTEMD / "drop-ins/gpu.conf").read_text("utf-8").partition("[Service]")[2]
    (tmp_path / "nllbd.service").write_text(text.replace("\n[Install]", f"{gpu}\n[Install]"))
    threshold = str(round(GPU_EXPOSURE * 10))
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={threshold}", tmp_path / "nllbd.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_can_be_a_credential_and_none_has_to_be(name: str) -> None:
    text = (SYSTEMD / name).read_text("utf-8")
    secrets = sorted(row.name for row in ROWS if row.has_file_form)
    assert sorted(re.findall(r"^LoadCredential=(\w+):/etc/nllbd/credentials/\1$", text, re.M)) == secrets
    assert sorted(re.findall(r"^SetCredential=(\w+):-$", text, re.M)) == secrets


def test_instances_differ_from_the_one_daemon_in_nothing_else() -> None:
    single, template = ((SYSTEMD / name).read_text("utf-8").partition("[Service]")[2] for name in SERVICES)
    theirs = ("Environment=CUDA_VISIBLE_DEVICES=%i\n", "Environment=NLLBD_METRICS_PORT=900%i\n")
    for line in theirs:
        assert line in template
        template = template.replace(line, "")
    template = template.replace("/etc/nllbd/instances/%i.toml", "/etc/nllbd/nllbd.toml")
    template = template.replace("RuntimeDirectory=nllbd/%i", "RuntimeDirectory=nllbd").replace("nllbd@%i.", "nllbd.")
    assert template == single


def test_an_instance_that_is_disabled_leaves_the_others_enabled(tmp_path: Path) -> None:
    """`systemctl disable` follows Also=: with the target in it, the others would not come back after a reboot."""
    systemctl = need("systemctl")["systemctl"]
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for unit in SYSTEMD.glob("nllbd*.*"):
        shutil.copy(unit, folder)
    for verb, *names in (("enable", "nllbd.service", "nllbd@9.service"), ("disable", "nllbd.socket", "nllbd.service")):
        subprocess.run([systemctl, f"--root={tmp_path}", verb, *names], check=True, capture_output=True)
    left = {str(link.relative_to(folder)) for link in folder.glob("*.wants/*")}
    assert "multi-user.target.wants/nllbd@9.service" in left
    assert "sockets.target.wants/nllbd@9.socket" in left
    assert not [link for link in left if link.endswith(("/nllbd.service", "/nllbd.socket"))]


def test_timers_come_when_they_should() -> None:
    analyze = need("systemd-analyze")["systemd-analyze"]
    for timer in SYSTEMD.glob("*.timer"):
        when = re.search(r"^OnCalendar=(.+)$", timer.read_text("utf-8"), re.M)
        assert when, timer
        subprocess.run([analyze, "calendar", when[1]], check=True, capture_output=True)
        assert (SYSTEMD / f"{timer.stem}.service").exists()


def test_the_account_and_the_folders_are_made_as_written(tmp_path: Path) -> None:
    programs = need("systemd-sysusers", "systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    command = [programs["systemd-sysusers"], "--dry-run", f"--root={tmp_path}", SYSTEMD / "sysusers.d/nllbd.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Would create user 'nllbd'" in done.stderr + done.stdout or done.returncode == 0
    lines = (SYSTEMD / "tmpfiles.d/nllbd.conf").read_text("utf-8").splitlines()
    modes = {line.split()[1]: line.split()[2] for line in lines if line and not line.startswith("#")}
    assert modes["/etc/nllbd/credentials"] == "0700"
    assert modes["/etc/nllbd/credentials/*"] == "0600"


def test_instances_are_placed_next_to_their_gpus(tmp_path: Path) -> None:
    """On a machine with two nodes whose GPUs are crosswise; nvidia-smi and /sys are stand-ins."""
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin/nvidia-smi"
    smi.write_text("#!/bin/sh\n[ \"$1\" = -L ] || printf '00000000:3B:00.0\\n00000000:AF:00.0\\n'\n")
    smi.chmod(0o755)
    for bus, node in (("0000:3b:00.0", "1"), ("0000:af:00.0", "-1")):
        device = tmp_path / "sys/bus/pci/devices" / bus
        device.mkdir(parents=True)
        (device / "numa_node").write_text(f"{node}\n")
    units = tmp_path / "units"
    environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "NLLBD_SYSFS": str(tmp_path / "sys"), "NLLBD_UNITS": str(units)}
    subprocess.run([SYSTEMD / "nllbd-place"], env=environ, check=True)
    assert "NUMAMask=1\n" in (units / "nllbd@0.service.d/numa.conf").read_text()
    assert "NUMAMask=0\n" in (units / "nllbd@1.service.d/numa.conf").read_text()
    subprocess.run([SYSTEMD / "nllbd-place", "--remove"], env=environ, check=True)
    assert list(units.iterdir()) == []


@pytest.mark.parametrize(
    "script", [SYSTEMD / "nllbd-place", CHECKOUT / "tests/ops/kit/host.sh"], ids=lambda path: path.name
)
def test_scripts_are_clean(script: Path) -> None:
    done = subprocess.run([need("shellcheck")["shellcheck"], script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _version() -> int:
    said = subprocess.run(
        [need("systemctl")["systemctl"], "--version"], capture_output=True, text=True, check=True
    ).stdout
    return int(said.split()[1])
