"""Whether a folder is on storage that can go away while the machine stays: NFS, GlusterFS, CephFS, SMB, FUSE.

What is mapped from there is read when it is touched, at any later time: with the server gone such a touch hangs or
kills the process. What must go on serving is copied into memory, then.
"""

from __future__ import annotations

import os
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORKS = ("9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "virtiofs")
_SHARED = frozenset({*_NETWORKS, "fuse", "gfs2", "glusterfs", "ocfs2"})


def is_shared(path: Path, mounts: Path = _MOUNTS) -> bool:
    """By the type of the file system; False where the kernel does not say."""
    try:
        device = path.stat().st_dev
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return _type_of(f"{os.major(device)}:{os.minor(device)}", lines) in _SHARED


def _type_of(device: str, lines: list[str]) -> str:
    """Format: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: `… major:minor … - type source …`."""
    for line in lines:
        about, _, filesystem = line.partition(" - ")
        if about.split()[2:3] == [device]:
            return filesystem.partition(" ")[0].partition(".")[0]  # fuse.glusterfs is a fuse
    return ""
