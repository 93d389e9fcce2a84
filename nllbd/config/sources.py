"""Where settings come from: flags, environment, systemd credentials, TOML file. Builds `Settings`, remembers origins.

Precedence: flag > environment > credential > TOML file > default. An unknown key anywhere is an error that names the
nearest known one. Knows no setting by name but the few environment names that are ignored on purpose.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nllbd.config.table import ROWS, ROWS_BY_NAME, Row, Settings, state_folder
from nllbd.errors import ConfigError

DEFAULT_FILE = Path("/etc/nllbd/nllbd.toml")
PREFIX = "NLLBD_"
_MAX_SECRET_BYTES = 1 << 20
_NO_SECRET = "-"  # what a unit sets for a credential that has no file


@dataclass(frozen=True)
class _Found:
    """A raw value and where it stood. `raw` is text, or a TOML scalar or array."""

    raw: Any
    where: str


def load_settings(
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
) -> Settings:
    """The effective settings.

    `flags` is keyed by setting name (`api_key_file` for the file form). Without `config_file`, /etc/nllbd/nllbd.toml
    is read if it exists. Raises ConfigError that says which key, from where, and what was expected.
    """
    environ = os.environ if environ is None else environ
    layers = (
        _from_flags(flags or {}),
        _from_environ(environ),
        _from_credentials(environ),
        _from_file(config_file),
    )
    found: dict[str, _Found] = {}
    for layer in reversed(layers):
        found |= layer
    values = {name: _parsed(ROWS_BY_NAME[name], item) for name, item in found.items()}
    values.setdefault("model_dir", state_folder(environ) / "models")
    origins = {name: item.where for name, item in found.items()}
    notes = (*_notes(environ), *(f"{name} is set, but this version does not act on it yet" for name in _pending(found)))
    return Settings(**values, origins=origins, notes=notes)


def _from_flags(flags: Mapping[str, str]) -> dict[str, _Found]:
    spelled = {name: f"flag --{name.replace('_', '-')}" for name in flags}
    return _layer(flags, spelled, "settings")


def _from_environ(environ: Mapping[str, str]) -> dict[str, _Found]:
    """The environment's layer: `NLLBD_X` beats bare `X`; value and file form of one secret at once is an error."""
    values: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for key, name in _environ_names(environ):
        if environ[key].strip() or _is_secret(name):
            values[name] = environ[key]
            spelled[name] = f"environment {key}"
    return _layer(values, spelled, f"environment names ({PREFIX}<NAME>)")


def _environ_names(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(environment key, setting name), bare names first so that prefixed ones overwrite them."""
    for row in ROWS:
        for suffix in ("", "_FILE") if row.has_file_form else ("",):
            if row.bare and row.bare + suffix in environ:
                yield row.bare + suffix, row.name + suffix.lower()
    for key in sorted(environ):
        if key.startswith(PREFIX) and not _from_kubernetes(key, environ[key]):
            yield key, key.removeprefix(PREFIX).lower()


def _from_kubernetes(key: str, value: str) -> bool:
    """Whether Kubernetes put this there for a Service named nllbd, as it does in every pod of the namespace."""
    if key == f"{PREFIX}PORT":
        return "://" in value
    return key.startswith((f"{PREFIX}SERVICE_", f"{PREFIX}PORT_"))


def _from_credentials(environ: Mapping[str, str]) -> dict[str, _Found]:
    """systemd's LoadCredential=: one file a setting, named like it; `-` in it is the same as no file."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return {}
    present = (row for row in ROWS if row.has_file_form and (Path(folder) / row.name).is_file())
    layer = {row.name: _read_secret(row, Path(folder) / row.name, f"credential {row.name}") for row in present}
    return {name: item for name, item in layer.items() if item.raw != _NO_SECRET}


def _from_file(config_file: Path | None) -> dict[str, _Found]:
    path = config_file or DEFAULT_FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if config_file is None:
            return {}
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return _layer(table, dict.fromkeys(table, str(path)), "settings")


def _layer(values: Mapping[str, Any], spelled: Mapping[str, str], known_as: str) -> dict[str, _Found]:
    """Check the names of one source, read the files that it names. Keys are setting names, or `<secret>_file`."""
    layer: dict[str, _Found] = {}
    for name, raw in values.items():
        row = ROWS_BY_NAME.get(name)
        if row is not None:
            layer[name] = _Found(raw, spelled[name])
            continue
        row = ROWS_BY_NAME.get(name.removesuffix("_file"))
        if row is None or not row.has_file_form:
            raise _unknown(name, spelled[name], known_as)
        if row.name in values:
            one, other = spelled[row.name], spelled[name]
            both = f"{one} and {other}" if one != other else f"{one}: {row.name} and {name}"
            raise ConfigError(f"{both} are both set: keep one of the two", field=row.name)
        if not isinstance(raw, str) or not raw:
            raise ConfigError(f"{spelled[name]}: expected the path of a file", field=row.name)
        layer[row.name] = _read_secret(row, Path(raw).expanduser(), spelled[name])
    return layer


def _read_secret(row: Row, path: Path, where: str) -> _Found:
    """A file's content without its closing line break."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_SECRET_BYTES).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{where}: {path}: cannot be read: {error.strerror}", field=row.name) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path}: not UTF-8 text", field=row.name) from None
    return _Found(content, where)


def _parsed(row: Row, item: _Found) -> Any:
    if item.raw == "" and row.has_file_form:
        raise ConfigError(f"{item.where}: {row.name} is empty: give it a value or remove it", field=row.name)
    try:
        return row.kind.parse(item.raw)
    except ValueError:
        raise row.refusal(item.raw, item.where) from None


def _unknown(name: str, where: str, known_as: str) -> ConfigError:
    near = nearest(name, ROWS_BY_NAME)
    hint = f"did you mean {near!r}?" if near else f"`nllbd config sample` lists all {known_as}"
    return ConfigError(f"{where}: unknown setting {name!r}; {hint}", field=name)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when none is."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def _is_secret(name: str) -> bool:
    """Whether an empty value is a mistake to report (a secret) rather than the same as unset."""
    row = ROWS_BY_NAME.get(name.removesuffix("_file"))
    return row is not None and row.secret


def _pending(names: Iterable[str]) -> list[str]:
    return [row.name for row in ROWS if row.pending and row.name in names]


def _notes(environ: Mapping[str, str]) -> Iterator[str]:
    if "NODE_ENV" in environ:
        yield "NODE_ENV is set; nllbd has no such mode and ignores it"
    ignored = sorted(key for key in environ if key.startswith(PREFIX) and _from_kubernetes(key, environ[key]))
    if ignored:
        yield f"ignored {', '.join(ignored)}: Kubernetes sets these for a Service; use enableServiceLinks: false"
