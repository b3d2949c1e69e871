"""Paper 2.2, the old format: the genuine npm clients judge what we write, and we read what they write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from learnae.sensors.mam_lines import answer_create, answer_parse
from learnae.tangle.trits import ALPHABET
from tests.sensors.npm import HERE, install_clients

OURS = 200
RUST, TYPESCRIPT = 192, 8  # What each client makes; the second takes a second for each.


@pytest.fixture(scope="module")
def clients() -> tuple[str, Path]:
    return install_clients()


def make_asked(rng: Random, *, tree_max: int = 1, security_max: int = 3) -> dict[str, Any]:
    """A random message: any mode, security, key number and length of text."""

    def make_trytes(size: int) -> str:
        return "".join(rng.choices(ALPHABET, k=size))

    mode = rng.choice(("public", "private", "restricted"))
    count = rng.choice([size for size in (1, 1, 1, 1, 1, 1, 2, 4) if size <= tree_max])
    return {
        "seed": make_trytes(81),
        "message": make_trytes(rng.randint(1, 240)),
        "security": rng.choice([level for level in (1,) * 12 + (2, 2, 3) if level <= security_max]),
        "mode": mode,
        "side_key": make_trytes(rng.randint(1, 81)) if mode == "restricted" else None,
        "start": rng.randint(0, 40),
        "count": count,
        "index": rng.randrange(count),
        "next_count": rng.choice([size for size in (1, 1, 1, 2) if size <= tree_max]),
    }


def ask_clients(node: tuple[str, Path], folder: Path, asked: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Ask each client its questions, all clients at the same time."""
    running = {}
    for client, questions in asked.items():
        lines = folder / f"{client}.jsonl"
        lines.write_text("".join(json.dumps({"client": client, **question}) + "\n" for question in questions))
        with lines.open() as source, (folder / f"{client}.out").open("w") as target:
            running[client] = subprocess.Popen([node[0], str(HERE / "clients.mjs"), str(node[1])], stdin=source, stdout=target)
    for process in running.values():
        assert process.wait(300) == 0
    return {client: [json.loads(line) for line in (folder / f"{client}.out").read_text().splitlines()] for client in asked}


def test_ours__are_read_by_both_clients(clients: tuple[str, Path], tmp_path: Path) -> None:
    rng = Random(5)
    asked = [make_asked(rng, tree_max=4 if n % 4 == 0 else 1) for n in range(OURS)]
    made = [answer_create(json.dumps(question).encode()) for question in asked]
    questions = [
        {"work": "parse", "payload": message["payload"], "root": message["root"], "side_key": question["side_key"]}
        for question, message in zip(asked, made, strict=True)
    ]

    answers = ask_clients(clients, tmp_path, {"rust": questions, "typescript": questions})

    expected = [{"message": a["message"], "next_root": m["next_root"]} for a, m in zip(asked, made, strict=True)]
    assert answers["rust"] == expected
    assert answers["typescript"] == expected


def test_theirs__are_read_by_us_and_name_the_same_roots(clients: tuple[str, Path], tmp_path: Path) -> None:
    rng = Random(6)
    asked = {
        "rust": [make_asked(rng, tree_max=2 if n % 8 == 0 else 1) for n in range(RUST)],
        "typescript": [make_asked(rng, security_max=1 + (n == 0)) for n in range(TYPESCRIPT)],
    }
    answers = ask_clients(clients, tmp_path, {c: [{"work": "create", **a} for a in questions] for c, questions in asked.items()})

    for client, questions in asked.items():
        for question, made in zip(questions, answers[client], strict=True):
            line = {"payload": made["payload"], "root": made["root"], "side_key": question["side_key"]}
            content = answer_parse(json.dumps(line).encode())
            assert (content["message"], content["security"]) == (question["message"], question["security"])
            assert content["next_root"] == made["next_root"]
    for client in asked:
        for question, made in list(zip(asked[client], answers[client], strict=True))[:12]:
            ours = answer_create(json.dumps(question).encode())
            assert {name: ours[name] for name in ("root", "next_root", "address")} == {
                name: made[name] for name in ("root", "next_root", "address")
            }


def test_changed_message__is_refused_by_all_three(clients: tuple[str, Path], tmp_path: Path) -> None:
    """The judges are not deaf: the same tryte changed is refused here and there."""
    made = answer_create(json.dumps(make_asked(Random(7))).encode())
    place = len(made["payload"]) // 2
    letter = "A" if made["payload"][place] != "A" else "B"
    changed = {"payload": made["payload"][:place] + letter + made["payload"][place + 1 :], "root": made["root"], "side_key": None}

    answers = ask_clients(clients, tmp_path, {client: [{"work": "parse", **changed}] for client in ("rust", "typescript")})

    assert "error" in answer_parse(json.dumps(changed).encode())
    assert all("message" not in client_answers[0] for client_answers in answers.values())
