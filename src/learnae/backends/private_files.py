"""Small files that only their owner may read: keystores, and the password of one. Imports nothing that takes time."""

from __future__ import annotations

import getpass
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from learnae.errors import KeystoreError

_FILE_BYTES_MAX: Final = 65536


def read_password(file: Path | None, *, confirm: bool = False, ask: Callable[[str], str] = getpass.getpass) -> str:
    """The password from a file that only its owner can read, or from a prompt; twice if `confirm`.

    Raises: KeystoreError: the file cannot be read or others may read it; the two entries differ; no terminal to ask on.
    """
    if file is not None:
        try:
            return read_private(file).decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise KeystoreError(file, "the password file is not UTF-8 text") from error
    try:
        password = ask("Password of the keystore: ")
        if confirm and ask("Once more: ") != password:
            raise KeystoreError("", "the two passwords differ; try again")
    except EOFError as error:
        raise KeystoreError("", "there is no terminal to ask for the password; give --password-file") from error
    return password


def read_private(path: Path) -> bytes:
    """The content of a plain file of mode 0600 or less. Raises: KeystoreError."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise KeystoreError(path, "it is no plain file")
            if found.st_mode & 0o077:
                raise KeystoreError(path, f"others may read it (mode {found.st_mode & 0o777:o}); run `chmod 600 {path}`")
            return file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise KeystoreError(path, f"it cannot be read: {error.strerror or error}") from error
