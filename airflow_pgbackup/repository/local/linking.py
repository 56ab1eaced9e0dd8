"""Hard links from outside into a local repository: a file gets a second name there, and no byte is copied.

Both names refer to one file. A write under the old name changes the backup; its digest then differs from that of
the manifest, which every verification detects.
"""

from __future__ import annotations

import errno
import io
import os
from contextlib import ExitStack
from pathlib import Path

from airflow_pgbackup.errors import AlreadyExists
from airflow_pgbackup.repository.byte_source import CHUNK, ByteSource
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.layout import check_key
from airflow_pgbackup.repository.local.naming import temporary_name
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.local.root import unlink
from airflow_pgbackup.repository.nofollow import open_regular, parent_below

# Another file system; none with hard links; not our file, see fs.protected_hardlinks in proc(5); too many links.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def link_into(
    repository: LocalRepository, key: str, root: Path, name: str, *, sha256: str, cancel: CancelFlag | None = None
) -> bool:
    """Store a file under a new key as a hard link; return False if that is not possible here.

    :param root: the directory of the source. `name` is the file's path below it: relative, with no symbolic link among
        its segments.
    :param sha256: that the file must have.
    :raises AlreadyExists: the key is taken.
    :raises VerificationFailed: the file has another digest.
    :raises OSError: the file is a link, or not a regular file, or was removed.
    """
    repository.uuid  # noqa: B018  raises where there is no repository
    place = repository._root
    path = place.path(check_key(key))
    temporary = path.parent / temporary_name()
    with ExitStack() as stack:
        source, last = stack.enter_context(parent_below(root, name))
        os.close(open_regular(last, dir_fd=source))  # its errors are about the source, not the repository

        def link() -> int | None:
            directory, _ = stack.enter_context(parent_below(place.directory, key))
            try:
                os.link(last, temporary.name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_LINK:
                    return None
                raise
            return directory

        with place.errors("cannot write", path):
            if os.path.lexists(path):
                raise AlreadyExists(f"{path} exists already")
            stack.callback(place.remove_empty, path.parent)
            directory = place.in_directory(path.parent, link)
        if directory is None:
            return False
        stack.callback(unlink, temporary.name, directory)
        with io.FileIO(open_regular(temporary.name, dir_fd=directory), "rb") as stream:
            found = ByteSource(stream, sha256=sha256, cancel=cancel)
            while found.read(CHUNK):
                pass
            found.check()
            with place.errors("cannot flush", path):
                os.fsync(stream.fileno())  # whoever wrote it may not have, and the manifest will be durable
        place.give_name(key, temporary, directory)
    return True
