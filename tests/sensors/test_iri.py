"""Issue: the IRI facade. The genuine npm clients publish and fetch through it unchanged, over the session's Tangle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from learnae.sensors import iri
from learnae.sensors.iri import IriError, IriTangle, compute_transaction_hash
from learnae.tangle.trits import ALPHABET
from tests.sensors.npm import HERE, install_clients
from tests.sensors.station_bed import Bed, admit, make_hello, open_bed, start_learnae, wait_until

MODES = ("public", "private", "restricted")
EXPECTED = {f"{client} {mode}": ["one", "two", "three"] for client in ("rust", "typescript") for mode in MODES}


async def start_facade(folder: Path, bed: Bed) -> tuple[subprocess.Popen[bytes], str]:
    """The facade in a process of its own, and its URL."""
    facade = start_learnae("mam", "serve", "--folder", str(folder), "--node", bed.address, "--port", "0")
    assert facade.stdout is not None
    line = (await trio.to_thread.run_sync(facade.stdout.readline)).decode()
    assert "IRI and REST API ready: http://127.0.0.1:" in line, line
    return facade, line.split()[-1]


async def run_clients(url: str) -> dict[str, Any]:
    node, clients = await trio.to_thread.run_sync(install_clients)

    def run() -> subprocess.CompletedProcess[str]:
        command = [node, str(HERE / "network.mjs"), str(clients), url]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    done = await trio.to_thread.run_sync(run)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def ask(url: str, command: dict[str, object]) -> tuple[int, dict[str, Any]]:
    """One IRI command by hand."""
    body = json.dumps(command).encode()
    host, _, port = url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)
        answer = b"".join([part async for part in stream])
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(rest)


def test_genuine_clients__publish_and_fetch_unchanged_and_another_facade_has_it_too(tmp_path: Path) -> None:
    """Three modes, both clients; a second facade on the same Tangle gives the same transactions."""

    async def run() -> None:
        hello = make_hello()
        for name in ("one", "two"):
            admit(tmp_path / name, hello, rate_per_s=500)
        async with open_bed(tmp_path / "node", hello) as bed:
            facades = []
            try:
                facade, url = await start_facade(tmp_path / "one", bed)
                facades.append(facade)
                assert await run_clients(url) == EXPECTED

                other, other_url = await start_facade(tmp_path / "two", bed)
                facades.append(other)
                query: dict[str, object] = {"command": "findTransactions", "tags": ["LEARNAE" + "9" * 20]}
                _, here = await ask(url, query)
                assert len(here["hashes"]) >= 18

                async def is_there() -> bool:
                    return sorted((await ask(other_url, query))[1]["hashes"]) == sorted(here["hashes"])

                with trio.fail_after(30):
                    while not await is_there():
                        await wait_until(lambda: True)
                some: dict[str, object] = {"command": "getTrytes", "hashes": here["hashes"][:5]}
                first, second = [(await ask(place, some))[1] for place in (url, other_url)]
                assert first["trytes"] == second["trytes"]
            finally:
                for facade in facades:
                    facade.kill()
                    await trio.to_thread.run_sync(facade.communicate)

    trio.run(run)


def test_facade__remembers_after_a_kill(tmp_path: Path) -> None:
    async def run() -> None:
        hello = make_hello()
        admit(tmp_path / "mam", hello)
        async with open_bed(tmp_path / "node", hello) as bed:
            facade, url = await start_facade(tmp_path / "mam", bed)
            trytes = make_trytes("A")
            assert (await ask(url, {"command": "storeTransactions", "trytes": [trytes]}))[0] == 200
            facade.kill()
            await trio.to_thread.run_sync(facade.communicate)
            facade, url = await start_facade(tmp_path / "mam", bed)
            try:
                _, found = await ask(url, {"command": "getTrytes", "hashes": [compute_transaction_hash(trytes)]})
                assert found["trytes"] == [trytes]
                status, refused = await ask(url, {"command": "interruptAttachingToTangle"})
                assert status == 400 and "is not known here; known are getTransactionsToApprove" in refused["error"]
            finally:
                facade.kill()
                await trio.to_thread.run_sync(facade.communicate)

    trio.run(run)


# --- without a network ------------------------------------------------------------------------------------------


def make_trytes(letter: str, *, address: str = "B") -> str:
    trytes = letter * 2187 + address.ljust(81, "9") + "9" * 27
    return trytes.ljust(2349, "9") + "C" * 81 + "9" * 162 + "TAG".ljust(27, "9") + "9" * 54


def make_tangle() -> IriTangle:
    def publish(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            tangle.enter(body)

    tangle = IriTangle(publish, lambda: 1_795_000_000_000)
    return tangle


def do(tangle: IriTangle, **command: object) -> dict[str, Any]:
    return tangle.command(json.dumps(command).encode())


def test_commands__store_find_and_give_back() -> None:
    tangle = make_tangle()
    one, two = make_trytes("A"), make_trytes("Z", address="D")
    do(tangle, command="storeTransactions", trytes=[one, two])
    do(tangle, command="broadcastTransactions", trytes=[one, two])
    names = [compute_transaction_hash(one), compute_transaction_hash(two)]

    assert do(tangle, command="findTransactions", addresses=["B".ljust(81, "9")])["hashes"] == names[:1]
    assert do(tangle, command="findTransactions", addresses=["B".ljust(81, "9") + "CHECKSUM9"])["hashes"] == names[:1]
    assert do(tangle, command="findTransactions", bundles=["C" * 81])["hashes"] == names
    assert do(tangle, command="findTransactions", bundles=["C" * 81], addresses=["D".ljust(81, "9")])["hashes"] == names[1:]
    assert do(tangle, command="findTransactions", tags=["TAG"])["hashes"] == names
    assert do(tangle, command="getTrytes", hashes=[names[1], "9" * 81])["trytes"] == [two, "9" * 2673]
    assert do(tangle, command="getTransactionsToApprove", depth=3) == {
        "trunkTransaction": names[0], "branchTransaction": names[1], "duration": 0
    }  # fmt: skip


def test_attached_bundle__is_chained_last_transaction_first() -> None:
    tangle = make_tangle()
    trunk, branch = "T" * 81, "U" * 81
    answer = do(
        tangle, command="attachToTangle", trunkTransaction=trunk, branchTransaction=branch, minWeightMagnitude=9,
        trytes=[make_trytes("A"), make_trytes("E")],
    )  # fmt: skip
    first, second = answer["trytes"]

    assert (first[2430:2511], first[2511:2592]) == (trunk, branch)
    assert (second[2430:2511], second[2511:2592]) == (compute_transaction_hash(first), trunk)
    assert first[:2430] == make_trytes("A")[:2430]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "command 'None' is not known here"),
        (b'{"command": "storeTransactions"}', "expected 1 to 64 transactions"),
        (b'{"command": "storeTransactions", "trytes": ["ABC"]}', "a transaction is 2673 trytes"),
        (b'{"command": "storeTransactions", "trytes": [7]}', "a transaction is 2673 trytes"),
        (b'{"command": "attachToTangle", "trytes": []}', "trunkTransaction is not 81 trytes"),
        (b'{"command": "findTransactions"}', "needs addresses, bundles, tags or approvees"),
        (b'{"command": "findTransactions", "tags": ["abc"]}', "tags: expected a list"),
        (b'{"command": "getTrytes", "hashes": "A"}', "hashes: expected a list"),
    ],
)
def test_bad_command__is_answered_in_words(command: bytes, why: str) -> None:
    with pytest.raises(IriError, match=why):
        make_tangle().command(command)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/api/v1/messages", b"{}"),
        ("POST", "/api/v1/messages", b'{"payload": {"type": 0, "index": "aa", "data": ""}}'),
        ("POST", "/api/v1/messages", b'{"payload": {"type": 2, "index": "zz", "data": ""}}'),
        ("POST", "/api/v1/messages", b'{"payload": {"type": 2, "index": "", "data": ""}}'),
        ("GET", "/api/v1/messages/" + "0" * 64, b""),
        ("GET", "/api/v1/tips", b""),
        ("DELETE", "/api/v1/messages", b""),
    ],
)
def test_bad_rest_request__is_refused(method: str, target: str, body: bytes) -> None:
    with pytest.raises(IriError):
        make_tangle().rest(method, target, body)


@given(st.text(ALPHABET, min_size=40, max_size=80))
def test_transaction__survives_being_packed(text: str) -> None:
    trytes = (text * 70)[:2673]
    packed = iri.encode_transaction(trytes)
    assert len(packed) == 1605 and iri.decode_transaction(packed) == trytes


@given(st.binary(max_size=50))
def test_strangers_body__is_none_of_these(body: bytes) -> None:
    tangle = make_tangle()
    assert tangle.enter(body) == (iri.decode_message(body) is not None)
    assert iri.decode_transaction(b"\x03" + b"\xff" * 1604) is None


def test_store__is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iri, "STORED_MAX", 3)
    tangle = make_tangle()
    for letter in "ABCDE":
        do(tangle, command="storeTransactions", trytes=[make_trytes(letter)])
    assert len(tangle.transactions) == 3
    assert len(do(tangle, command="findTransactions", bundles=["C" * 81])["hashes"]) == 3
