"""The machine we run on, as files below a root, and what can be found about it.

Everything is read below `Machine.root`, so that any board can be played by a folder.
"""

from __future__ import annotations

import os
import platform
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str  # of the thing: "memory"
    status: Status  # fail: what was asked for will not work
    message: str
    fix: str = ""  # a command to type, or the one thing to do


@dataclass(frozen=True)
class Machine:
    """Files and identity; the defaults are this machine's."""

    root: Path = Path("/")
    architecture: str = field(default_factory=platform.machine)
    python: tuple[int, int] = sys.version_info[:2]
    uid: int = field(default_factory=os.geteuid)
    gids: frozenset[int] = field(default_factory=lambda: frozenset([os.getegid(), *os.getgroups()]))

    packages: Mapping[str, str] | None = None  # name -> version; None: ask this Python

    @property
    def is_this(self) -> bool:
        """Whether programs can be run on it."""
        return self.root == Path("/")

    @property
    def is_container(self) -> bool:
        """Docker or Podman, which hide parts of the machine."""
        return any((self.root / name).exists() for name in (".dockerenv", "run/.containerenv"))

    def version_of(self, package: str) -> str:
        """The version of a Python package; "" when it is not installed."""
        if self.packages is not None:
            return self.packages.get(package, "")
        from importlib import metadata

        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return ""

    def text(self, path: str | Path) -> str:
        """What a small file says; "" when it is missing or may not be read."""
        try:
            return (self.root / path).read_bytes().decode("utf-8", "replace").strip("\0\n ")
        except OSError:
            return ""

    def number(self, path: str | Path) -> int:
        """The whole number in a small file; 0 when there is none."""
        words = self.text(path).split()
        return int(words[0]) if words and words[0].isdecimal() else 0

    def memory(self) -> tuple[int, int] | None:
        """Bytes that are free, and bytes there are, as far as a container may use them."""
        lines = (line.split() for line in self.text("proc/meminfo").splitlines())
        sizes = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
        if "MemTotal:" not in sizes:
            return None
        limit = self.number("sys/fs/cgroup/memory.max") or sizes["MemTotal:"]
        total = min(limit, sizes["MemTotal:"])
        return min(sizes.get("MemAvailable:", 0), total), total

    def celsius(self) -> float | None:
        """At the hottest place; None where the kernel does not tell."""
        zones = self.glob("sys/class/thermal/thermal_zone*")
        degrees = [self.number(zone / "temp") / 1000 for zone in zones]
        return max(degrees) if any(degrees) else None

    def glob(self, pattern: str) -> list[Path]:
        """Files below the root that fit, in order."""
        try:
            return sorted(self.root.glob(pattern))
        except OSError:
            return []

    def may_use(self, path: Path) -> bool:
        """Whether this user may read and write a device node."""
        try:
            node = path.stat()
        except OSError:
            return False
        if self.uid == 0:
            return True
        if node.st_uid == self.uid:
            needed = stat.S_IRUSR | stat.S_IWUSR
        elif node.st_gid in self.gids:
            needed = stat.S_IRGRP | stat.S_IWGRP
        else:
            needed = stat.S_IROTH | stat.S_IWOTH
        return node.st_mode & needed == needed

    def group(self, gid: int) -> str:
        """Name of a group, or its number."""
        for line in self.text("etc/group").splitlines():
            parts = line.split(":")
            if len(parts) > 2 and parts[2] == str(gid):
                return parts[0]
        return str(gid)
