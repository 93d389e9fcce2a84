"""The scripts, without running what they do."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.ops.kit.programs import CHECKOUT, need

BIN = CHECKOUT / "deploy/bin"
SHELL = ["install.sh", "blue-green", "rolling", "host"]


@pytest.mark.parametrize("script", SHELL)
def test_a_script_is_clean(script: str) -> None:
    command = [need("shellcheck")["shellcheck"], "-x", BIN / script]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", [*SHELL, "smoke", "failures"])
def test_a_script_explains_itself(script: str) -> None:
    shown = subprocess.run([BIN / script, "--help"], capture_output=True, text=True, check=False)
    assert "usage" in (shown.stdout + shown.stderr).lower() or script == "failures"


@pytest.mark.parametrize("script", SHELL)
def test_misuse_is_told(script: str) -> None:
    for wrong in (["--nonsense"], ["--nonsense", "value"]):
        assert subprocess.run([BIN / script, *wrong], capture_output=True, check=False).returncode == 2


def test_the_roles_that_install_sh_names_are_those_of_the_firewall() -> None:
    services = tomllib.loads((CHECKOUT / "deploy/firewall/firewall.toml").read_text("utf-8"))["services"]
    roles = {service["role"] for service in services if "role" in service}
    shown = subprocess.run([BIN / "install.sh", "--help"], capture_output=True, text=True, check=True).stdout
    named = re.search(r"what the firewall opens: (.*) \(default", shown)
    assert named
    assert set(named[1].split(", ")) == roles


def test_an_inventory_with_a_host_twice_is_refused(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text("app1 10.0.0.1 app\napp2 10.0.0.1 app\n", "utf-8")
    done = subprocess.run(
        [BIN / "rolling", "--inventory", inventory, "--dry-run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "twice: 10.0.0.1" in done.stderr
