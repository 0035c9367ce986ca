"""Limits of this process's control groups: what a container, a batch system or systemd lets it use of the machine.

Both versions are read, also where a machine has mounted both. A limit of a parent group holds for its children, so the
smallest on the path from the process's own group to the root counts. https://docs.kernel.org/admin-guide/cgroup-v2.html
and https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

N = TypeVar("N", int, float)

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPU time that this process's groups may use, in cores, such as 0.5; None without a limit.

    `root`: the file system's, below which /proc and the mount points are looked up.
    """
    return _smallest(root, {"cpu.max": _cores_v2, "cpu.cfs_quota_us": _cores_v1})


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes of memory that this process's groups may use; None without a limit. `root` as in `cpu_quota`."""
    return _smallest(root, {"memory.max": _bytes, "memory.limit_in_bytes": _bytes})


def _cores_v2(file: Path) -> float:
    quota, period = file.read_text().split()
    return int(quota) / int(period)  # 'max' is no number: no limit


def _cores_v1(file: Path) -> float:
    quota, period = int(file.read_text()), int(file.with_name("cpu.cfs_period_us").read_text())
    if quota <= 0:
        raise ValueError("no limit")
    return quota / period


def _bytes(file: Path) -> int:
    return int(file.read_text())


def _smallest(root: Path, files: dict[str, Callable[[Path], N]]) -> N | None:
    """The smallest limit in these files of all groups of this process. A file that says no number sets none."""
    found: list[N] = []
    for folder in _groups(root):
        for name, read in files.items():
            try:
                found.append(read(folder / name))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return min(found, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The directories of this process's groups in every mounted hierarchy, each followed by its parents."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
        mounts = (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # this system has no control groups
        return
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        kind, _, options = after.partition(" ")
        if kind not in ("cgroup", "cgroup2"):
            continue
        mounted, point = (_unescaped(field) for field in before.split(" ")[3:5])
        top = root / point.lstrip("/")
        for _, controllers, path in groups:
            if _belongs(controllers, kind, options):
                inner = top / _below(path, mounted)
                yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _belongs(controllers: str, kind: str, options: str) -> bool:
    """Whether a line of /proc/self/cgroup is about the hierarchy of a mount: version 2 names no controllers there."""
    if kind == "cgroup2":
        return not controllers
    return bool(controllers) and set(controllers.split(",")) <= set(re.split(r"[ ,]", options))


def _below(path: str, mounted: str) -> PurePosixPath:
    """A group's path below the part of its hierarchy that is mounted; empty where the group is outside it."""
    inner = PurePosixPath(path)
    if ".." in inner.parts or not inner.is_relative_to(mounted):
        return PurePosixPath()
    return inner.relative_to(mounted)


def _unescaped(field: str) -> str:
    """A field of mountinfo, where blanks and backslashes are octal escapes."""
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), field)
