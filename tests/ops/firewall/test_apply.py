"""Loading the rules: in one step, and back again unless somebody confirms."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.ops.firewall.network import ADMIN, FIREWALL, INSIDE, OTHER, STRANGER, Network
from tests.ops.kit.programs import eventually

pytestmark = pytest.mark.ops

FORMS = pytest.mark.parametrize("form", ["nft", "iptables"])


def rules(network: Network) -> str:
    """What the kernel has, without counters."""
    saved = [network.run("nft", "-s", "list", "ruleset").stdout]
    for command in ("iptables-save", "ip6tables-save"):
        output = network.run(command).stdout
        saved += [line for line in output.splitlines() if not line.startswith(("#", ":"))]
    return "\n".join(saved)


@FORMS
def test_without_a_confirmation_the_former_rules_come_back(network: Network, form: str) -> None:
    before = rules(network)
    began = time.monotonic()
    network.firewall("apply", "--form", form, "--within", "2")
    assert rules(network) != before
    eventually(lambda: not (network.folder / "state/pending").exists(), 20, "the rollback")
    assert time.monotonic() - began > 1.9
    network.listen([5432])
    assert network.probe(STRANGER[4], [5432]) == {5432: "open"}
    assert not (network.folder / "kept/confirmed").exists()
    late = network.firewall("confirm", check=False)
    assert late.returncode == 1
    assert "nothing waits" in late.stderr


def test_a_bad_change_gives_way_to_the_confirmed_rules(network: Network, source: Path) -> None:
    """An operator shuts himself out: the network of administrators is wrong."""
    network.listen([22, 5432])
    network.load("nft")
    (source / "networks/admin").write_text("192.0.2.0/24\n", "utf-8")
    (source / "networks/internal").write_text("192.0.2.0/24\n", "utf-8")
    network.firewall("apply", "--within", "2")
    assert network.probe(ADMIN[4], [22]) == {22: "dropped"}
    eventually(lambda: not (network.folder / "state/pending").exists(), 20, "the rollback")
    assert network.probe(ADMIN[4], [22]) == {22: "open"}
    assert network.probe(STRANGER[4], [22, 5432]) == {22: "dropped", 5432: "dropped"}


@FORMS
def test_confirmed_rules_stay_and_are_loaded_at_boot(network: Network, form: str) -> None:
    network.listen([443, 5432])
    network.firewall("apply", "--form", form)
    token = (network.folder / "state/pending/token").read_text("utf-8").strip()
    network.firewall("confirm")
    loaded = rules(network)
    network.firewall("rollback", "--token", token)  # the timer comes all the same
    assert rules(network) == loaded
    assert network.probe(STRANGER[4], [443, 5432]) == {443: "open", 5432: "dropped"}
    again = network.firewall("apply")
    assert "nothing to do" in again.stderr

    network.run("nft", "flush", "ruleset")  # a boot: the kernel knows nothing
    subprocess.run(["rm", "-r", network.folder / "state"], check=True)
    network.firewall("apply", "--at-boot")
    assert rules(network) == loaded


def test_a_power_cut_before_the_confirmation_leaves_nothing(network: Network) -> None:
    network.firewall("apply")
    network.run("nft", "flush", "ruleset")
    subprocess.run(["rm", "-r", network.folder / "state"], check=True)
    boot = network.firewall("apply", "--at-boot", check=False)
    assert boot.returncode == 1
    assert "nothing was confirmed" in boot.stderr


def test_a_confirmation_is_for_one_apply_only(network: Network, source: Path) -> None:
    """The timer of an apply that was confirmed does not take back the next one."""
    network.firewall("apply")
    token = (network.folder / "state/pending/token").read_text("utf-8").strip()
    network.firewall("confirm")
    (source / "networks/blocked").write_text("203.0.113.8\n", "utf-8")
    network.firewall("apply", "--within", "60")
    busy = network.firewall("apply", check=False)
    assert busy.returncode == 1
    assert "waits for confirmation" in busy.stderr
    network.firewall("rollback", "--token", token)
    assert (network.folder / "state/pending").exists()
    network.firewall("confirm")
    assert "203.0.113.8" in rules(network)


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("networks/internal", "10.0.0.0/33", "networks/internal:"),
        ("networks/admin", "10.1.2.3/8", "has host bits set"),
        ("firewall.toml", "rolls = []", "firewall.toml"),
        ("firewall.toml", '[[services]]\nname = "x"\ntcp = [70000]\nfrom = "public"', "no port"),
        ("firewall.toml", '[[services]]\nname = "x"\ntcp = [70]\nfrom = "everybody"', "from is one or more of"),
    ],
)
def test_a_source_with_mistakes_changes_nothing(
    network: Network, source: Path, file: str, line: str, complaint: str
) -> None:
    network.load("nft")
    before = rules(network)
    with (source / file).open("a", encoding="utf-8") as opened:
        opened.write(f"\n{line}\n")
    refused = network.firewall("apply", check=False)
    assert refused.returncode == 1
    assert complaint in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert rules(network) == before


def test_nobody_locks_himself_out_unasked(network: Network, source: Path) -> None:
    (source / "networks/admin").write_text("192.0.2.0/24\n", "utf-8")
    command = ["env", "SSH_CONNECTION=192.168.1.5 50000 10.0.0.1 22", str(FIREWALL / "apply")]
    refused = network.run(*command, check=False)
    assert refused.returncode == 1
    assert "192.168.1.5" in refused.stderr
    # sudo hides the variable from what it runs; the shell above has it
    hidden = ["bash", "-c", 'env -u SSH_CONNECTION "$@"; exit', "shell", *command[2:]]
    refused = network.run(*command[:2], *hidden, check=False)
    assert refused.returncode == 1
    assert "192.168.1.5" in refused.stderr
    network.run(*command, "--force")
    network.firewall("rollback")


def test_nobody_blocks_himself(network: Network, source: Path) -> None:
    network.load("nft")
    command = ["env", "SSH_CONNECTION=192.168.1.5 50000 10.0.0.1 22", str(FIREWALL / "network"), "add", "blocked"]
    refused = network.run(*command, "192.168.1.0/24", check=False)
    assert refused.returncode == 1
    assert "lock yourself out" in refused.stderr
    assert "192.168.1.0" not in (source / "networks/blocked").read_text("utf-8")
    network.run(*command, "203.0.113.8")


def test_both_forms_are_not_loaded_at_once(network: Network) -> None:
    network.load("iptables")
    refused = network.firewall("apply", "--form", "nft", check=False)
    assert refused.returncode == 1
    assert "off" in refused.stderr


def test_a_dry_run_shows_and_changes_nothing(network: Network) -> None:
    before = rules(network)
    shown = network.firewall("apply", "--dry-run").stdout
    assert "+table inet nllbd" in shown
    assert rules(network) == before


def test_other_tables_are_left_alone(network: Network) -> None:
    """Docker's and fail2ban's rules outlive an apply, a rollback and off."""
    network.run("nft", "add table ip docker; add chain ip docker nat { type nat hook postrouting priority 100; }")
    network.load("nft")
    network.firewall("off")
    assert network.run("nft", "list", "tables").stdout == "table ip docker\n"


@FORMS
def test_there_is_no_moment_without_rules(network: Network, source: Path, form: str) -> None:
    """While rules are loaded over and over, no stranger reaches the database and nobody is kept from the service."""
    network.listen([443, 5432])
    network.load(form)
    seen: list[tuple[tuple[str, int], str]] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            seen.extend(network.connect([(STRANGER[6], 5432), (STRANGER[4], 5432), (INSIDE[4], 443)], wait_s=0.2))

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        for number in range(3):
            (source / "networks/blocked").write_text(f"192.0.2.{number}\n", "utf-8")
            network.load(form)
    finally:
        done.set()
        knocking.join()
    outcomes = {pair: {outcome for found, outcome in seen if found == pair} for pair, _ in seen}
    assert outcomes[STRANGER[4], 5432] == {"dropped"}
    assert outcomes[STRANGER[6], 5432] == {"dropped"}
    assert "open" in outcomes[INSIDE[4], 443]


def test_a_network_is_added_and_removed_by_one_command(network: Network, source: Path) -> None:
    network.listen([8000])
    network.load("nft")
    assert network.probe(OTHER[4], [8000]) == {8000: "dropped"}
    network.firewall("network", "add", "internal", OTHER[4], "app", "4")
    assert network.probe(OTHER[4], [8000]) == {8000: "open"}
    assert f"internal:{OTHER[4]}  # app 4" in network.firewall("network", "list").stdout
    before = rules(network)
    assert "already" in network.firewall("network", "add", "internal", OTHER[4]).stderr
    assert rules(network) == before
    network.run("nft", "flush", "ruleset")
    network.firewall("apply", "--at-boot")  # it is for the next boot, too
    assert network.probe(OTHER[4], [8000]) == {8000: "open"}
    network.firewall("network", "remove", "internal", OTHER[4])
    assert network.probe(OTHER[4], [8000]) == {8000: "dropped"}
    assert network.firewall("network", "add", "internal", "300.1.1.1", check=False).returncode == 1
    assert "nothing to do" in network.firewall("apply").stderr


def test_a_network_is_not_added_over_changes_that_nobody_confirmed(network: Network, source: Path) -> None:
    network.load("nft")
    file = source / "firewall.toml"
    file.write_text(file.read_text("utf-8").replace("tcp = [80, 443]", "tcp = [80, 443, 23]"), "utf-8")
    refused = network.firewall("network", "add", "internal", OTHER[4], check=False)
    assert refused.returncode == 1
    assert "not applied" in refused.stderr
    assert OTHER[4] not in (source / "networks/internal").read_text("utf-8")
