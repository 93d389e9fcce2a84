"""A model from a hub into model_dir: locked, written beside, checked, then renamed into place.

Layout of model_dir: `<org>--<name>/` is a whole model; `.<org>--<name>.<commit>.partial/` one on its way, kept when a
pull is cut so that the next continues; `.<org>--<name>.lease` is held by the process that pulls.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nllbd.checkpoint import read_checkpoint
from nllbd.errors import CheckpointError
from nllbd.pull.fetch import fetch
from nllbd.pull.hub import Hub, HubModel
from nllbd.pull.lease import Lease
from nllbd.weight_files import CHECKSUMS_FILE, check_archive, check_shapes, read_headers, sha256, weight_files

#: Where a pulled folder came from, as JSON: hub id, commit, licence.
ORIGIN_FILE = "ORIGIN"
_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model folder was pulled from."""

    model_id: str
    commit: str
    licence: str | None


class Report:
    """What a pull tells of itself; the methods do nothing unless they are overridden."""

    def waiting(self, holder: str) -> None:
        """Another process pulls this model."""

    def receiving(self, num_done: int, num_total: int) -> None:
        """So many bytes are here."""

    def checking(self) -> None:
        """All is here and is looked at."""


def folder_of(model_id: str, model_dir: Path) -> Path:
    return model_dir / model_id.replace("/", "--")


def read_origin(folder: Path) -> Origin | None:
    """Where the folder was pulled from; None when it was not, or nobody knows."""
    try:
        found = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
        return Origin(str(found["model_id"]), str(found["commit"]), found.get("licence"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def pull(
    hub: Hub,
    model: HubModel,
    model_dir: Path,
    *,
    update: bool = False,
    report: Report | None = None,
    lease: Callable[..., Lease] = Lease,
) -> bool:
    """Bring a model into model_dir; False when it was there already, brought by another meanwhile or before.

    Raises CheckpointError (another commit is there and `update` is false, checksum, disk full, no model after all),
    NotReady, LeaseLostError.
    """
    report = report or Report()
    target = folder_of(model.model_id, model_dir)
    partial = model_dir / f".{target.name}.{model.commit[:12]}.partial"
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        with lease(model_dir / f".{target.name}.lease", report.waiting) as held:
            if _is_there(model, target, update):
                return False
            _receive(hub, model, partial, report, held)
            report.checking()
            _finish(model, partial)
            held.check()
            _put(partial, target)
    except OSError as error:
        raise _refusal(error, partial, model) from None
    return True


def _is_there(model: HubModel, target: Path, update: bool) -> bool:
    if not target.exists():
        return False
    origin = read_origin(target)
    if origin is not None and origin.commit == model.commit:
        return True
    if update:
        return False
    was = f"commit {origin.commit[:12]}" if origin else "of unknown origin"
    raise CheckpointError(f"{target} is there, {was}; the hub has commit {model.commit[:12]}: --update replaces it")


def _receive(hub: Hub, model: HubModel, partial: Path, report: Report, held: Lease) -> None:
    partial.mkdir(exist_ok=True)
    here = sum(file.stat().st_size for file in partial.iterdir())
    free = shutil.disk_usage(partial).free
    if model.num_bytes - here + _ROOM > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    num_done = 0

    def watch(num_bytes: int) -> None:
        nonlocal num_done
        num_done += num_bytes
        held.check()
        report.receiving(num_done, model.num_bytes)

    for file in model.files:
        fetch(hub, model, file, partial, watch)


def _finish(model: HubModel, partial: Path) -> None:
    """Write what the folder shall say of itself, and see that it is a model. Raises CheckpointError."""
    checkpoint = read_checkpoint(partial, model.model_id)
    weights = weight_files(partial)
    if weights[0].suffix == ".safetensors":
        check_shapes(
            {name: it for file in weights for name, it in read_headers(file).items()}, checkpoint.config, partial
        )
    else:
        for file in weights:
            check_archive(file)
    sums = "".join(f"{file.sha256 or sha256(partial / file.name)}  {file.name}\n" for file in model.files)
    _write(partial / CHECKSUMS_FILE, sums)
    origin: dict[str, Any] = {"model_id": model.model_id, "commit": model.commit, "licence": model.licence}
    _write(partial / ORIGIN_FILE, json.dumps(origin, indent=1) + "\n")


def _put(partial: Path, target: Path) -> None:
    """Rename into place; an older folder is moved aside first and then deleted: whoever has it open keeps it."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    for left in (old, *target.parent.glob(f".{target.name}.*.partial")):
        shutil.rmtree(left, ignore_errors=True)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _refusal(error: OSError, partial: Path, model: HubModel) -> CheckpointError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(f"{error.filename or partial}: {error.strerror or error}")
    shutil.rmtree(partial, ignore_errors=True)
    return CheckpointError(
        f"{partial.parent}: no room for {model.model_id}, which takes {model.num_bytes / 2**30:.2f} GiB; what was "
        "there of it is deleted. Make room, or set model_dir to another disk"
    )
