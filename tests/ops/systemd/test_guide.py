"""What the deployment guide has in these units' place, and why it does not do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.ops.kit.programs import need

GUIDE = "export API_KEY=$(openssl rand -base64 32)\nexport JWT_SECRET=$(openssl rand -base64 64)\n"


def test_a_secret_in_the_environment_is_every_childs_to_read() -> None:
    """What the daemon starts (a compiler, a shell of an attacker) has it, and so has /proc for the same user."""
    need("openssl", "bash")
    # The child says its name itself: before it has become another program, /proc may not have its environment yet.
    script = f"{GUIDE}sh -c 'echo $$ $API_KEY; read -r end'; true"
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        pid, secret = started.stdout.readline().split()
        assert f"API_KEY={secret}" in Path(f"/proc/{pid}/environ").read_text().split("\0")
        started.communicate("\n")


def test_a_secret_that_is_made_at_each_start_ends_all_sessions() -> None:
    need("openssl", "bash")
    secrets = {
        subprocess.run(["bash", "-c", f"{GUIDE}echo $JWT_SECRET"], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(secrets) == 2
