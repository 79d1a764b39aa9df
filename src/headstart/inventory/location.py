"""Where a bank lies: a file of one's own by default, one that is named, or a server by its URL."""

from __future__ import annotations

import os
import re
from pathlib import Path

from headstart.core import Refused, Unfit, Unreadable

FILE_NAME = "bank.db"
SERVER = "postgresql+psycopg://"
NETWORK_FILE_SYSTEMS = {
    "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.davfs", "fuse.gcsfuse",
    "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.smbnetfs", "gfs2", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb", "smb2", "smb3", "smbfs",
}  # fmt: skip


def default_file() -> Path:
    """`$HEADSTART_HOME/bank.db`, else `bank.db` in the user's data folder."""
    from headstart.io.places import home

    return home() / FILE_NAME


def is_url(location: str) -> bool:
    """Whether this names a server, not a file.

    >>> is_url("postgresql://team@host/bank"), is_url("shelf.db"), is_url("C:/shelf.db")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.\-]+://", location) is not None


def server_url(location: str) -> str:
    """The URL with the driver that headstart installs; raises `Unfit` for another kind of server."""
    scheme, rest = location.split("://", 1)
    if scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise Unfit(
            f"a bank cannot lie on a server of the kind `{scheme}`",
            where="the location of the bank",
            fix="name a file, or a PostgreSQL server: postgresql://user@host/database",
        )
    return SERVER + rest


def mount_type(path: str, mounts: str) -> str:
    """The file system type under an absolute path, by the text of /proc/mounts; empty where that does not say.

    >>> mount_type("/mnt/team/a.db", "ext4 / ext4 rw 0 0\\nhost:/x /mnt/team nfs4 rw 0 0")
    'nfs4'
    """
    best, found = -1, ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), parts[1])
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= best:  # of two mounts at one point the later one is seen
            best, found = len(point), parts[2]
    return found


def prepared_file(location: str | Path | None, *, mounts: str | None = None) -> Path:
    """The absolute path of the bank's file, with its folder made, and refused where SQLite would lose data.

    mounts: the text of /proc/mounts; read from there when None. Raises `Refused` on a network file system, and
    `Unreadable` where nothing can be written.
    """
    path = default_file() if location is None else Path(location).expanduser()
    if path.is_dir():
        path = path / FILE_NAME
    path = path.absolute()
    where = f"the bank `{path}`"
    kind = mount_type(os.path.realpath(path), _mounts() if mounts is None else mounts)
    if kind.lower() in NETWORK_FILE_SYSTEMS:
        raise Refused(
            f"the file system there is `{kind}`, a network one, on which two machines would damage a SQLite file",
            where=where,
            fix="name a file on a local disk, or share one bank by PostgreSQL: --bank postgresql://user@host/database",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unreadable(
            f"its folder could not be made: {error.strerror or error}",
            where=where,
            fix="name a file in a folder that you may write to, with --bank or HEADSTART_HOME",
        ) from error
    for needed in (path.parent, path):
        if needed.exists() and not os.access(needed, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise Unreadable(
                f"`{needed}` is read-only for you",
                where=where,
                fix="name a file in a folder that you may write to, with --bank or HEADSTART_HOME",
            )
    return path


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no such table outside Linux: nothing is known, and nothing is refused
        return ""
