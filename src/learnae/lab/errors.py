"""What a user of the laboratory may read when something fails; the family is `learnae.errors`."""

from __future__ import annotations

from learnae.errors import LearnaeError


class UnknownLabNameError(LearnaeError):
    """The laboratory has no attack or rule of that name."""

    def __init__(self, what: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no {what} {name!r}; choose from: {', '.join(known)}, or give the path of a .py file that defines one")


class LabFileError(LearnaeError):
    """A file that should define an attack or a rule does not."""

    def __init__(self, path: str, what: str, why: str) -> None:
        super().__init__(f"{path} gives the laboratory no {what}: {why}; docs/add-an-attack.md shows what such a file holds")


class LabTrialError(LearnaeError):
    """A trial of the laboratory failed where it should not; `command` repeats it."""

    def __init__(self, what: str, command: str) -> None:
        super().__init__(f"a trial failed: {what}; repeat it with: {command}")
        self.command = command


class ClusterError(LearnaeError):
    """The cluster that was named cannot be used."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"the Dask cluster at {address} cannot be used: {why}; start `dask scheduler` and `dask worker` with learnae installed, "
            "check --cluster, or leave it out to use this machine"
        )
