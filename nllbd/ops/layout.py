"""Commands of operators find the installed service by themselves: its state folder and its credentials."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

STATE = Path("/var/lib/nllbd")
CREDENTIALS = Path("/etc/nllbd/credentials")


def adopt(environ: MutableMapping[str, str]) -> None:
    """Set what the service's unit would have set, for root on a host where it is installed. What is set stays."""
    if os.geteuid() != 0:
        return
    for name, folder in (("STATE_DIRECTORY", STATE), ("CREDENTIALS_DIRECTORY", CREDENTIALS)):
        if folder.is_dir():
            environ.setdefault(name, str(folder))
