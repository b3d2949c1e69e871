"""The catalogue: what every attack on the ledger may touch, what each one does, and that one class in one file is enough to add one."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

import learnae.lab.attacks
import learnae.lab.rules
from learnae.lab.attack import Conduct, LedgerAttack, Situation
from learnae.lab.bed import ProtocolAttack
from learnae.lab.books import INVENTED, Receipt, draw_truth
from learnae.lab.errors import LabFileError, UnknownLabNameError
from learnae.lab.registry import find_attack, find_rule, list_attacks, list_rules
from tests.lab.jobs import A_RULE, AN_ATTACK

PEERS, CYCLES = 30, 20
RING = (0, 1, 2)
LEDGER = [attack for attack in list_attacks().values() if isinstance(attack, LedgerAttack)]

CATALOGUE = {
    "withhold", "partial-withhold", "ring", "ring-inflated", "stealth-ring", "camouflaged-ring", "slander", "sybil-split", "whitewash",
    "equivocation", "replay", "flood", "voting-cartel", "plagiarism", "poisoned-model", "on-and-off", "free-rider", "false-accusations",
    "identity-hijack",
}  # fmt: skip


def act(name: str, seed: int = 1) -> tuple[tuple[Receipt, ...], Conduct]:
    attack = find_attack(name)
    assert isinstance(attack, LedgerAttack)
    draws, truth = draw_truth(seed, PEERS, CYCLES)
    return truth, attack.act(Situation(draws, truth, RING, Random(seed)))


def of_ring(receipts: object) -> list[Receipt]:
    return [receipt for receipt in receipts if receipt.reporter in RING]  # type: ignore[attr-defined]


def test_catalogue__is_complete() -> None:
    """Every attack of the design is there, at the level that it needs."""
    attacks = list_attacks()

    assert {name for name, attack in attacks.items() if attack.in_catalogue} == CATALOGUE
    played = {"whitewash", "equivocation", "replay", "flood", "voting-cartel", "plagiarism", "poisoned-model", "identity-hijack"}
    assert {name for name in CATALOGUE if isinstance(attacks[name], ProtocolAttack)} == played
    assert set(list_rules()) >= {"tips", "raw", "budgeted", "eigentrust", "yuma", "maxflow", "audited"}


@pytest.mark.parametrize("attack", LEDGER, ids=lambda attack: attack.name)
def test_ledger_attack__touches_only_what_its_ring_decides_about(attack: LedgerAttack) -> None:
    """Receipts between outsiders are as they were, nobody outside says anything new, and nothing an outsider says is false."""
    truth, conduct = act(attack.name)

    def outside(receipts: object) -> Counter[Receipt]:
        return Counter(r for r in receipts if r.reporter not in RING and r.helper not in RING)  # type: ignore[attr-defined]

    assert outside(conduct.receipts) == outside(truth)
    assert Counter(r for r in conduct.receipts if r.reporter not in RING) <= Counter(truth)
    assert all(r.credits > 0 and r.reporter != r.helper and 0 <= r.cycle < CYCLES for r in conduct.receipts)
    assert conduct.accusers <= set(RING) and conduct.hired <= set(RING) and not conduct.victims & set(RING)


@pytest.mark.parametrize("attack", LEDGER, ids=lambda attack: attack.name)
def test_ledger_attack__is_the_same_for_the_same_seed(attack: LedgerAttack) -> None:
    assert act(attack.name)[1] == act(attack.name)[1]


# --- one by one -----------------------------------------------------------------------------------------------------


def test_withhold__says_nothing() -> None:
    assert of_ring(act("withhold")[1].receipts) == []


def test_partial_withhold__says_about_half() -> None:
    truth, conduct = act("partial-withhold")
    assert 0.2 < len(of_ring(conduct.receipts)) / len(of_ring(truth)) < 0.8


def test_ring__is_invented_and_of_plausible_size() -> None:
    receipts = of_ring(act("ring")[1].receipts)

    assert all(r.helper in RING and r.proven == INVENTED and 1 <= r.credits <= 90 for r in receipts)
    assert 0.3 < len(receipts) / (len(RING) * CYCLES) < 0.7


def test_ring_inflated__reports_millions() -> None:
    assert all(r.helper in RING and r.credits == 1_000_000 for r in of_ring(act("ring-inflated")[1].receipts))


def test_stealth_ring__keeps_its_true_total() -> None:
    truth, conduct = act("stealth-ring")

    assert sum(r.credits for r in of_ring(conduct.receipts)) == sum(r.credits for r in of_ring(truth))
    assert all(r.helper in RING for r in of_ring(conduct.receipts))


def test_camouflaged_ring__reports_all_that_is_true() -> None:
    truth, conduct = act("camouflaged-ring")
    extra = Counter(conduct.receipts) - Counter(truth)

    assert Counter(truth) <= Counter(conduct.receipts)
    assert extra and all(r.proven == INVENTED and r.helper in RING for r in extra)


def test_slander__passes_over_the_best_helpers() -> None:
    truth, conduct = act("slander")
    given: Counter[int] = Counter()
    for r in truth:
        given[r.helper] += r.credits
    outsiders = [helper for helper, _ in given.most_common() if helper not in RING]

    assert conduct.victims == frozenset(outsiders[:3])
    assert {r.helper for r in of_ring(conduct.receipts)}.isdisjoint(conduct.victims)
    assert {r.helper for r in of_ring(truth)} & conduct.victims


def test_sybil_split__hires_all_but_the_first_and_they_only_praise_it() -> None:
    _, conduct = act("sybil-split")

    assert conduct.hired == {1, 2}
    assert {r.helper for r in conduct.receipts if r.reporter in conduct.hired} == {0}
    assert not any(r.helper in conduct.hired for r in conduct.receipts)


def test_on_and_off__is_honest_in_every_second_period() -> None:
    truth, conduct = act("on-and-off")

    assert [r for r in conduct.receipts if r.cycle < 10] == [r for r in truth if r.cycle < 10]
    assert all(r.helper in RING for r in of_ring(conduct.receipts) if r.cycle >= 10)


def test_free_rider__helps_nobody_and_reports_honestly() -> None:
    truth, conduct = act("free-rider")

    assert not any(r.helper in RING for r in conduct.receipts)
    assert of_ring(conduct.receipts) == [r for r in of_ring(truth) if r.helper not in RING]


def test_clique__and_staged_help_are_true() -> None:
    """Beside the catalogue: nothing in them is false, so no audit can find them."""
    for name in ("clique", "staged-help"):
        receipts = of_ring(act(name)[1].receipts)
        assert receipts and all(r.credits == r.proven and r.helper in RING for r in receipts)


# --- adding one -----------------------------------------------------------------------------------------------------


def test_adding__a_file_in_the_folder_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/add-an-attack.md: one class in one file, and it is found without editing anything else."""
    for package, text, name in ((learnae.lab.attacks, AN_ATTACK, "loud_ring"), (learnae.lab.rules, A_RULE, "equal_shares")):
        folder = tmp_path / package.__name__
        shutil.copytree(Path(str(package.__file__)).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [str(folder)])

    assert "loud-ring" in list_attacks() and "ring" in list_attacks()
    assert "equal" in list_rules()
    _, conduct = act("loud-ring")
    assert all(r.credits == 2 * r.proven for r in of_ring(conduct.receipts))


def test_adding__a_file_of_ones_own_is_used_by_its_path(tmp_path: Path) -> None:
    attack, rule = tmp_path / "loud.py", tmp_path / "equal.py"
    attack.write_text(AN_ATTACK)
    rule.write_text(A_RULE)

    assert find_attack(str(attack)).name == "loud-ring"
    assert find_rule(str(rule)).name == "equal"
    assert "loud-ring" not in list_attacks()


def test_name__that_leads_nowhere_lists_those_that_there_are() -> None:
    with pytest.raises(
        UnknownLabNameError, match=r"there is no attack 'heist'; choose from: camouflaged-ring, .*, or give the path of a .py file"
    ):
        find_attack("heist")
    with pytest.raises(UnknownLabNameError, match=r"there is no rule 'luck'; choose from: tips, raw, "):
        find_rule("luck")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "there is no such file"),
        ("def broken(:", "it cannot be loaded: SyntaxError"),
        ("import learnae.nowhere", "it cannot be loaded: ModuleNotFoundError"),
        ("x = 1", "it defines 0 of them"),
        (AN_ATTACK + AN_ATTACK.replace("LoudRing", "Louder"), "it defines 2 of them"),
    ],
)
def test_file__that_defines_no_attack_is_explained(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)

    with pytest.raises(LabFileError, match="gives the laboratory no attack: ") as error:
        find_attack(str(path))
    assert why in str(error.value)
    assert str(error.value).endswith("docs/add-an-attack.md shows what such a file holds")
