"""Dependencies point one way. The table below is the architecture; a module that reaches past it fails here.

daemon → http → translator → {text, cache, store, bridge}      engine → {sched, runner}      runner → model → kernels
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nllbd"

#: Part → the parts of nllbd that it may import, itself aside. A part is a folder or a module; the longest name counts.
MAY_IMPORT: dict[str, set[str]] = {
    # The ground: plain values that everyone may know.
    "errors": set(),
    "sched.sequence": set(),
    "language_table": set(),
    "checkpoint": {"errors", "languages", "sched.sequence"},
    "languages": {"errors", "language_table"},
    "weight_files": {"checkpoint", "errors"},
    "pull": {"checkpoint", "errors", "weight_files"},
    "bulk": {"errors"},
    "config": {"errors", "sched.sequence"},
    "principal": {"sched.sequence"},
    "store.key_text": set(),
    "store.records": {"principal", "sched.sequence"},
    # What outlives the daemon: its parts in memory (keys, usage, audit) know the database only as a Protocol.
    "store": {"store.key_text", "store.records", "errors", "log", "principal", "sched.sequence"},
    "accounts": {"config", "errors", "log", "metrics", "store"},
    "security": {"config", "errors", "log", "principal", "redis_client", "store.key_text", "store.records"},
    # The engine: scheduling knows no tensor, the model knows no scheduling, the kernels know neither.
    "sched": {"sched.sequence"},
    "kernels": set(),
    "model": {"kernels", "checkpoint", "errors"},
    "engine": {"sched", "sched.sequence", "model", "bridge.protocol", "cgroup", "checkpoint", "errors"},
    # The engine process: its end of the wire besides.
    "engine.worker": {"engine", "bridge", "bridge.protocol", "sched", "sched.sequence", "errors"},
    # Event loop ↔ engine: knows the engine only as a protocol of plain values.
    "bridge.protocol": {"sched.sequence"},
    "bridge": {"bridge.protocol", "sched.sequence", "errors"},
    # A thread runs the engine in this process; it is handed in, or built by the engine's own builder when started.
    "bridge.thread": {"bridge", "bridge.protocol", "sched.sequence", "errors", "engine"},
    # The request side: text to segments and back.
    "text": {"languages", "checkpoint", "errors", "sched.sequence"},
    "text.glossary": set(),
    "signals": set(),
    "journal": set(),
    "log_writer": set(),
    "log": {"journal", "log_writer"},
    "busiest": set(),
    "sentry": {"errors"},
    "tracing": {"errors"},
    "gpu": set(),
    "cgroup": set(),
    "lifecycle": {"errors"},
    "pacing": set(),
    "tally": set(),
    "textwork": {"errors"},
    "timeouts": set(),
    "metrics": {"gpu", "bridge.protocol", "tally"},
    "breaker": set(),
    "redis_sentinel": set(),
    "redis_wire": {"redis_sentinel"},
    "redis_client": {"breaker", "log", "metrics", "redis_wire"},
    "job": {"checkpoint", "config", "errors", "sched.sequence", "text.glossary"},
    "inflight": {"bridge.protocol", "sched.sequence"},
    "admission": {"errors", "sched.sequence"},
    "cache": {"log", "metrics", "pacing", "redis_client", "sched.sequence"},
    "segments": {
        "bridge.protocol",
        "cache",
        "errors",
        "inflight",
        "languages",
        "metrics",
        "pacing",
        "sched.sequence",
        "text",
        "tracing",
    },
    "document": {"text", "text.glossary", "job", "languages", "errors", "segments"},
    "streaming": {"document", "job"},
    "translator": {
        "admission",
        "bridge.protocol",
        "cache",
        "checkpoint",
        "config",
        "document",
        "errors",
        "inflight",
        "job",
        "languages",
        "metrics",
        "pacing",
        "sched.sequence",
        "segments",
        "streaming",
        "text",
        "textwork",
        "timeouts",
        "tracing",
    },
    "glossaries": {"accounts", "errors", "languages", "store.key_text", "store.records", "text.glossary"},
    # HTTP speaks to the translator; of the engine it sees state and figures.
    "http": {
        "accounts",
        "bridge.protocol",
        "busiest",
        "checkpoint",
        "config",
        "errors",
        "glossaries",
        "job",
        "languages",
        "lifecycle",
        "log",
        "metrics",
        "principal",
        "redis_client",
        "sched.sequence",
        "security",
        "store",
        "store.key_text",
        "store.records",
        "text",
        "timeouts",
        "tracing",
        "translator",
    },
    # The outermost ring puts everything together.
    "announce": set(),
    "systemd": {"errors"},
    "standing": {"bridge.protocol", "lifecycle", "systemd"},
    "sockets": {"errors", "systemd"},
    "endpoint": {"sockets"},
    "assembly": {"bridge.protocol", "cache", "checkpoint", "config", "errors", "job", "metrics", "redis_client"},
    "daemon": {
        "accounts",
        "announce",
        "assembly",
        "bridge",
        "bridge.protocol",
        "cache",
        "checkpoint",
        "config",
        "endpoint",
        "errors",
        "http",
        "job",
        "lifecycle",
        "log",
        "metrics",
        "redis_client",
        "sentry",
        "security",
        "signals",
        "sockets",
        "standing",
        "systemd",
        "text",
        "tracing",
        "translator",
    },
    # Beside the daemon: what operators run.
    "ops": {
        "accounts",
        "checkpoint",
        "config",
        "errors",
        "pull",
        "redis_wire",
        "store",
        "store.records",
        "weight_files",
    },
    "commands": {
        "accounts",
        "assembly",
        "bridge.thread",
        "bulk",
        "cgroup",
        "checkpoint",
        "config",
        "daemon",
        "errors",
        "http",
        "job",
        "languages",
        "metrics",
        "model",
        "ops",
        "principal",
        "pull",
        "redis_wire",
        "sched.sequence",
        "store",
        "store.key_text",
        "store.records",
        "systemd",
        "text",
        "translator",
        "weight_files",
    },
    "cli": {"commands", "errors", "signals"},  # a command is imported by name when it is called
    "__main__": {"cli"},
}

#: Only these may import torch, and what comes with it.
TENSOR_PARTS = {"engine", "model", "kernels"}
TENSOR_LIBRARIES = {"torch", "triton", "safetensors"}
#: Only these may speak HTTP.
HTTP_PARTS = {"http", "daemon", "endpoint"}
#: `sched` and what everyone may import get along without anything installed.
STDLIB_ONLY = {"breaker", "sched", "sched.sequence", "errors", "checkpoint", "config", "languages", "language_table"}


def _modules() -> list[str]:
    """Every module of the package, as its dotted name inside it: `sched.plan`, `http` for a package's __init__."""
    paths = (path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py")))
    names = (".".join(path.with_suffix("").parts).removesuffix("__init__").rstrip(".") for path in paths)
    return [name for name in names if name]


MODULES = _modules()
NOWHERE = "(in no part)"


def _part(module: str) -> str:
    """The part that a module belongs to: the longest name in the table that is the module or a package of it."""
    names = module.split(".")
    prefixes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MAY_IMPORT), NOWHERE)


@cache
def _imports(module: str) -> frozenset[str]:
    """Full names of all that a module imports, inside functions too, `if TYPE_CHECKING` too."""
    path = PACKAGE.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return frozenset(_imported_names(ast.parse(source.read_text(encoding="utf-8")), module))


def _imported_names(tree: ast.AST, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"nllbd.{module} line {node.lineno}: relative import; write it out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _inner_imports(module: str) -> Iterator[str]:
    """Modules of nllbd that a module imports; `from nllbd.x import y` is `x.y` if that is a module, else `x`."""
    known = set(MODULES)
    for name in _imports(module):
        if not name.startswith("nllbd."):
            continue
        inner = name.removeprefix("nllbd.")
        while inner and inner not in known:
            inner = inner.rpartition(".")[0]
        if inner:  # else something of the package itself, such as __version__
            yield inner


def _libraries(module: str) -> set[str]:
    """Top-level names of what a module imports from outside nllbd and the standard library."""
    tops = {name.split(".")[0] for name in _imports(module)}
    return tops - {"nllbd"} - sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_its_part_may(module: str) -> None:
    part = _part(module)
    assert part != NOWHERE, f"nllbd.{module} is in no part: add it to MAY_IMPORT and say what it may know"
    reached = {_part(inner) for inner in _inner_imports(module)} - {part}
    assert reached <= MAY_IMPORT[part], f"nllbd.{module} may not import {sorted(reached - MAY_IMPORT[part])}"


@pytest.mark.parametrize("module", [it for it in MODULES if _part(it).split(".")[0] not in TENSOR_PARTS])
def test_no_tensors_outside_the_engine(module: str) -> None:
    assert not _libraries(module) & TENSOR_LIBRARIES


@pytest.mark.parametrize("module", [it for it in MODULES if _part(it) not in HTTP_PARTS])
def test_no_http_library_outside_http(module: str) -> None:
    assert "aiohttp" not in _libraries(module)


@pytest.mark.parametrize("module", [it for it in MODULES if _part(it) in STDLIB_ONLY])
def test_standard_library_only(module: str) -> None:
    assert _libraries(module) == set()


def test_the_table_has_no_part_that_is_gone() -> None:
    gone = {part for part in MAY_IMPORT if part not in MODULES}
    assert not gone


def test_the_table_allows_nothing_that_nobody_uses() -> None:
    used: dict[str, set[str]] = {part: set() for part in MAY_IMPORT}
    for module in MODULES:
        used.setdefault(_part(module), set()).update(_part(inner) for inner in _inner_imports(module))
    unused = {part: sorted(allowed - used[part]) for part, allowed in MAY_IMPORT.items() if allowed - used[part]}
    assert not unused


def test_no_cycles() -> None:
    """The allowed parts form no circle, so the whole can be read from the ground up."""
    left = {part: set(allowed) for part, allowed in MAY_IMPORT.items()}
    while ready := {part for part, needs in left.items() if not needs & left.keys()}:
        left = {part: needs for part, needs in left.items() if part not in ready}
    assert not left, f"parts in a circle: {sorted(left)}"


def test_transformers_stays_out() -> None:
    """It is the reference in tests and benchmarks; nothing that runs needs it."""
    assert not [module for module in MODULES if "transformers" in _libraries(module)]


@pytest.mark.parametrize("module", ["nllbd.http.app", "nllbd.daemon", "nllbd.cli", "nllbd.bridge.process"])
def test_importing_it_does_not_import_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
