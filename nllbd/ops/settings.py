"""What the checks compare with: `/etc/nllbd/ops.toml`, where everything has a default. Reads that file only."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nllbd.errors import ConfigError

DEFAULT_FILE = Path("/etc/nllbd/ops.toml")


@dataclass(frozen=True, slots=True)
class OpsSettings:
    """Where things are, and from where on they are worth a word. Times and ages are in the unit of their name."""

    prometheus: str = ""
    alertmanager: str = ""
    certificates: tuple[str, ...] = ("/etc/letsencrypt/live/*/fullchain.pem", "/etc/nginx/tls/*.pem")
    contacts: str = "/etc/nllbd/contacts.md"
    textfiles: str = "/var/lib/prometheus/node-exporter"
    credentials: str = "/etc/nllbd/credentials"
    units: str = "nllbd*"
    tls: tuple[str, ...] = ()
    public_ports: tuple[int, ...] = (22, 80, 443)
    backup_age_hours: float = 26.0
    verified_age_days: float = 8.0
    certificate_days: float = 21.0
    disk_percent: float = 85.0
    memory_percent: float = 90.0
    memory_growth_percent: float = 30.0
    failed_authentications: int = 500
    usage_factor: float = 10.0
    usage_least_characters: int = 100_000
    unused_days: int = 90
    key_age_days: int = 365
    secret_age_days: int = 365
    slower_percent: float = 30.0
    exposure: float = 2.0
    contacts_age_days: int = 180
    utilisation_percent: float = 70.0


def read_ops_settings(file: Path | None = None) -> OpsSettings:
    """Raises ConfigError. Without `file` the default one is read if it exists."""
    path = file or DEFAULT_FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return OpsSettings()
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    known = {item.name: item.default for item in fields(OpsSettings)}
    return OpsSettings(**{name: _checked(path, name, raw, known) for name, raw in table.items()})


def _checked(path: Path, name: str, raw: Any, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ConfigError(f"{path}: unknown key {name!r}; known are {', '.join(sorted(known))}")
    default = known[name]
    if isinstance(default, tuple):
        kind = int if default and isinstance(default[0], int) else str
        if isinstance(raw, list) and all(isinstance(it, kind) for it in raw):
            return tuple(raw)
    elif isinstance(default, float) and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    elif type(raw) is type(default):
        return raw
    raise ConfigError(f"{path}: {name}: expected something like {default!r}, got {raw!r}")


@dataclass(frozen=True, slots=True)
class State:
    """Where the operator's records are: `ops` in the state folder."""

    folder: Path

    @property
    def figures(self) -> Path:
        return self.folder / "figures.jsonl"

    @property
    def capacity(self) -> Path:
        return self.folder / "capacity.json"

    @property
    def signed(self) -> Path:
        return self.folder / "signed"
