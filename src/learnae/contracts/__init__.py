"""The contracts of a session as data: sources in `solidity`, built artefacts in `artefacts`, read by `load_artefact`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Artefact:
    """One compiled contract: what is deployed, and how a reader recognises it on a chain."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes  # init code, without constructor arguments
    runtime: bytes  # code on the chain, with zeros where the immutables are
    immutables: dict[str, tuple[int, ...]]  # name -> offsets in `runtime`, 32 bytes each

    def read_immutables(self, code: bytes) -> dict[str, bytes] | None:
        """The immutables of deployed code, 32 bytes each; None if `code` is not this contract."""
        if len(code) != len(self.runtime):
            return None
        masked = bytearray(code)
        found: dict[str, bytes] = {}
        for name, offsets in self.immutables.items():
            values = {code[offset : offset + 32] for offset in offsets}
            if len(values) != 1:
                return None
            found[name] = values.pop()
            for offset in offsets:
                masked[offset : offset + 32] = bytes(32)
        return found if bytes(masked) == self.runtime else None


def parse_artefact(text: str) -> Artefact:
    """Read the JSON text that `learnae.contracts.build` wrote."""
    fields = json.loads(text)
    return Artefact(
        name=fields["contract"],
        abi=fields["abi"],
        bytecode=bytes.fromhex(fields["bytecode"][2:]),
        runtime=bytes.fromhex(fields["runtime"][2:]),
        immutables={name: tuple(offsets) for name, offsets in fields["immutables"].items()},
    )


@cache
def load_artefact(name: str) -> Artefact:
    """The shipped artefact of `Governance`, `ProofOfIdentity`, `Session` or `Tips`."""
    return parse_artefact((resources.files(__package__) / "artefacts" / f"{name}.json").read_text(encoding="utf-8"))
