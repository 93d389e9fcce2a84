"""Which backups stay. The policy decides on manifests; every other piece stays or goes with the manifest of its run.

So no kept backup ever lacks a piece, and pieces of runs that ended early go with the next run.
"""

from __future__ import annotations

from nllbd.ops.backup.manifest import KIND as MANIFEST
from nllbd.ops.backup.restic import Restic, Snapshot


def apply(restic: Restic, host: str) -> str:
    """Forget what is no longer kept and give its room back; a line that says what was done. Call under the lock."""
    kept = restic.policy_keeps(MANIFEST)
    doomed = to_forget(restic.snapshots(), kept)
    restic.forget([snapshot.id for snapshot in doomed])
    if doomed:
        restic.prune()
    runs = len({snapshot.time for snapshot in doomed})
    return f"ok    retention   {len(kept)} backups of {host} are kept, {runs} went"


def to_forget(snapshots: list[Snapshot], kept_manifests: set[str]) -> list[Snapshot]:
    """Those that belong to no kept manifest."""
    times = {snapshot.time for snapshot in snapshots if snapshot.id in kept_manifests}
    return [snapshot for snapshot in snapshots if snapshot.time not in times]
