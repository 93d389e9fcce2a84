"""What the source may say, without loading anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.firewall.network import FIREWALL
from tests.ops.kit.programs import need


def render(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FIREWALL / "render", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    shutil.copytree(FIREWALL / "networks", tmp_path / "networks")
    shutil.copy(FIREWALL / "firewall.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", ["nft", "iptables", "ip6tables"])
def test_every_form_is_rendered(form: str) -> None:
    done = render(form)
    assert done.returncode == 0, done.stderr
    assert "443" in done.stdout


def test_a_role_that_a_host_has_not_keeps_its_ports_closed(source: Path) -> None:
    file = source / "firewall.toml"
    file.write_text(file.read_text("utf-8").replace('["edge", "app", "data", "monitoring"]', '["app"]'), "utf-8")
    shown = render("nft", "--source", source).stdout
    assert "8000-8009" in shown
    assert "9100" in shown  # an exporter is everywhere
    assert not any(port in shown for port in ("443", "5432", "9090"))


def test_a_swarm_is_let_in_where_it_is_wanted(source: Path) -> None:
    file = source / "firewall.toml"
    assert "2377" not in render("nft", "--source", source).stdout
    file.write_text(file.read_text("utf-8").replace('["edge", "app"', '["swarm", "edge", "app"'), "utf-8")
    inside = render("nft", "--source", source).stdout.split("chain from_internal")[1].split("}\n")[0:4]
    rules = "".join(inside)
    assert all(word in rules for word in ("2377, 7946", "7946, 4789", "meta l4proto 50 counter accept"))


def test_without_administrators_nothing_is_rendered(source: Path) -> None:
    (source / "networks/admin").write_text("# none\n", "utf-8")
    refused = render("nft", "--source", source)
    assert refused.returncode == 2
    assert "nobody could come in by ssh" in refused.stderr


def test_a_role_that_no_service_has_is_named(source: Path) -> None:
    file = source / "firewall.toml"
    file.write_text(file.read_text("utf-8").replace('"edge", "app"', '"egde", "app"'), "utf-8")
    assert "egde" in render("nft", "--source", source).stderr


def test_a_container_host_forwards(source: Path) -> None:
    file = source / "firewall.toml"
    assert "hook forward" in render("nft", "--source", source).stdout
    file.write_text(file.read_text("utf-8").replace('forward = "drop"', 'forward = "leave"'), "utf-8")
    assert "hook forward" not in render("nft", "--source", source).stdout


def test_is_in_answers_for_both_families(source: Path) -> None:
    for address, code in (("192.168.1.77", 0), ("fd12::1", 0), ("8.8.8.8", 1), ("2001:db8::1", 1)):
        assert render("is-in", "admin", address, "--source", source).returncode == code


def test_who_is_blocked_cannot_log_in_whatever_he_is_else(source: Path) -> None:
    assert render("is-in", "ssh", "192.168.1.77", "--source", source).returncode == 0
    assert render("is-in", "ssh", "8.8.8.8", "--source", source).returncode == 1
    (source / "networks/blocked").write_text("192.168.1.64/26\n", "utf-8")
    assert render("is-in", "ssh", "192.168.1.77", "--source", source).returncode == 1


@pytest.mark.parametrize("script", ["apply", "confirm", "rollback", "off", "network"])
def test_scripts_are_clean_and_explain_themselves(script: str) -> None:
    checked = subprocess.run(
        [need("shellcheck")["shellcheck"], "-x", FIREWALL / script], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    shown = subprocess.run([FIREWALL / script, "--help"], capture_output=True, text=True, check=True).stdout
    assert shown.strip()
