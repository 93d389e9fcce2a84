"""Which backups stay. The policy decides on manifests; every other piece stays or goes with the manifest of its run.

So no kept backup ever lacks a piece, and pieces of runs that ended early go with the next run.
"""

from __future__ import annotations

from nllbd.ops.backup.manifest import KIND as MANIFEST
from nllbd.ops.backup.restic import Restic, Snapshot


def apply(restic: Restic, host: str) -> str:
    """Forget what is no longer kept and give its room back; a line that says what was done. Call under the lock."""
    judged = restic.judged()
    doomed = to_forget(judged)
    if doomed:
        restic.forget([snapshot.id for snapshot in doomed])
    runs = len({snapshot.time for snapshot in doomed})
    kept = len({snapshot.time for snapshot, _ in judged}) - runs
    return f"ok    retention   {kept} backups of {host} are kept, {runs} went"


def to_forget(judged: list[tuple[Snapshot, bool]]) -> list[Snapshot]:
    """Those of runs whose manifest is not kept, or that have none."""
    times = {snapshot.time for snapshot, is_kept in judged if is_kept and snapshot.kind == MANIFEST}
    return [snapshot for snapshot, _ in judged if snapshot.time not in times]
