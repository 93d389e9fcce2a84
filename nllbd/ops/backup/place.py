"""Files out of a backup into a system that has files already: what is there is replaced one by one, each in one step,
links too, and belongs to whoever has its owner's name here, whatever number that is.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owners:
    """Numbers of the lost host → those that the same names have here; of names that are not here: the number itself."""

    users: Mapping[int, int]
    groups: Mapping[int, int]

    @classmethod
    def here(cls, names: Mapping[str, Mapping[str, str]]) -> Owners:
        """`names`: the manifest's `owners`."""
        return cls(
            _moved(names["users"], lambda name: pwd.getpwnam(name).pw_uid),
            _moved(names["groups"], lambda name: grp.getgrnam(name).gr_gid),
        )

    def give(self, path: Path, facts: os.stat_result) -> None:
        user, group = self.users.get(facts.st_uid, facts.st_uid), self.groups.get(facts.st_gid, facts.st_gid)
        with suppress(PermissionError):  # not root: everything is ours
            os.chown(path, user, group, follow_symlinks=False)


def _moved(names: Mapping[str, str], number_of: Callable[[str], int]) -> dict[int, int]:
    moved = {}
    for number, name in names.items():
        with suppress(KeyError):
            moved[int(number)] = number_of(name)
    return moved


def put(source: Path, target: Path, owners: Owners, tops: Iterable[str]) -> int:
    """Bring everything below `source` to the same place below `target`; how many files and links that were.

    `tops`: what was backed up; folders above these keep their owners and modes. Raises OSError.
    """
    inside = tuple(Path(str(top).lstrip("/")) for top in tops)
    count = 0
    for folder, names, files in os.walk(source):
        here = Path(folder).relative_to(source)
        _put_folder(Path(folder), target / here, owners, is_ours=any(here.is_relative_to(top) for top in inside))
        links = [name for name in names if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            _put_file(Path(folder, name), target / here / name, owners)
            count += 1
    return count


def _put_folder(source: Path, target: Path, owners: Owners, *, is_ours: bool) -> None:
    is_new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    if is_new or is_ours:
        facts = source.stat()
        owners.give(target, facts)
        target.chmod(stat.S_IMODE(facts.st_mode))


def _put_file(source: Path, target: Path, owners: Owners) -> None:
    facts = source.lstat()
    if not (stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode)):
        return  # sockets and pipes are made by whoever listens
    draft = target.with_name(f".{target.name}.restored")
    draft.unlink(missing_ok=True)
    if stat.S_ISLNK(facts.st_mode):
        draft.symlink_to(os.readlink(source))
        owners.give(draft, facts)
    else:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        shutil.copyfile(source, draft)
        owners.give(draft, facts)
        draft.chmod(stat.S_IMODE(facts.st_mode))
    draft.replace(target)
