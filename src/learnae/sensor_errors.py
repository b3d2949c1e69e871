"""What can go wrong with sensors, gateways and the old MAM format, for a caller or a machine (`learnae.errors`)."""

from __future__ import annotations

from learnae.errors import LearnaeError


class ReadingError(LearnaeError):
    """A reading cannot be sent."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"a reading cannot be sent: {why}; {remedy}")


class SourceError(LearnaeError):
    """Where readings come from gives something that cannot be used."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")


class AdmissionError(LearnaeError):
    """A member's countersignature for a sensor cannot be used."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this admission cannot be used: {why}; ask a member for a new one (`learnae sensor admit FOLDER ID`)")


class PayloadError(LearnaeError):
    """A device's message cannot be understood; it is told and left out."""


class MappingError(LearnaeError):
    """A gateway's mapping file is wrong."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"the mapping cannot be used, {where}: {why}; docs/sensors.md shows a whole one")


class BrokerError(LearnaeError):
    """An MQTT broker cannot be used."""

    def __init__(self, broker: str, why: str) -> None:
        super().__init__(f"the broker {broker}: {why}; check --broker, and user and password")


class LinkError(LearnaeError):
    """A node's line for sensors cannot be used."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"no node for sensors at {address}: {why}; check --node, and `listen` in the node's sensors.toml")


class MamError(LearnaeError):
    """A MAM v0 message cannot be made or read."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"MAM: {why}; {remedy}")
