"""A small disk for a store: memory mounted where nobody but this process and its children see it, gone with them."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x00020000
SIZE_MB = 1024


def mount(folder: Path) -> bool:
    """Whether the folder is now a disk of its own: that takes root on Linux. Called from the only thread."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return False
    private = ["mount", "--make-rprivate", "/"]
    small = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    return all(subprocess.run(command, capture_output=True).returncode == 0 for command in (private, small))


def unmount(folder: Path) -> None:
    """Where there is one."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)
