"""What of this host a stranger could use: sockets that listen, modes of secrets, old TLS, the unit's sandbox."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import stat
import subprocess
import warnings
from collections.abc import Iterable
from pathlib import Path

import psutil

_SCORE = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")
_TIMEOUT_S = 5.0


def open_ports(allowed: Iterable[int]) -> list[int]:
    """TCP ports that listen beyond the loopback and are not among `allowed`."""
    links = psutil.net_connections(kind="tcp")
    listening = [it.laddr for it in links if it.status == psutil.CONN_LISTEN and it.laddr]
    ports = {address.port for address in listening if not _is_local(address.ip)}
    return sorted(ports - set(allowed))


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def loose_files(folder: Path) -> list[str]:
    """Secrets that others than their owner can read."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return [f"{path} is {stat.filemode(path.stat().st_mode)}" for path in files if path.stat().st_mode & 0o077]


def unit_exposure(unit: str) -> float | None:
    """systemd's score, 0 to 10; None where it cannot be told."""
    if shutil.which("systemd-analyze") is None:
        return None
    command = ["systemd-analyze", "security", "--no-pager", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = _SCORE.search(done.stdout)
    return float(match[1]) if match else None


def accepts_old_tls(address: str) -> bool:
    """Whether `host:port` speaks TLS 1.1 or older. Raises OSError if nobody answers there at all."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as link:
        try:
            with context.wrap_socket(link, server_hostname=host):
                return True
        except (ssl.SSLError, ConnectionError):
            return False
