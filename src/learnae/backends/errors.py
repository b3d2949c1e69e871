"""What a user may read when files for and from IPFS cannot be used; the family is `learnae.errors`."""

from __future__ import annotations

from learnae.errors import LearnaeError


class CarError(LearnaeError):
    """A CAR file cannot be imported."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"the CAR file {path} cannot be imported: {why}; nothing was kept")


class NotStoredError(LearnaeError):
    """A file that a command needs is not in the block store, or not as a file."""

    def __init__(self, cid: str, folder: str, why: str) -> None:
        super().__init__(f"{cid} cannot be read from {folder}: {why}; `learnae ipfs ls {folder}` shows what is there")


class KuboError(LearnaeError):
    """The user's IPFS daemon does not answer, or not as Kubo."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"the IPFS daemon at {url} cannot be used: {why}; "
            "check that `ipfs daemon` runs and that `kubo` in settings.json names its RPC API"
        )
