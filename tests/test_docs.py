"""What the pages name must be there: a map that leads nowhere is worse than none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_paper_map__names_only_tests_that_exist() -> None:
    """docs/paper-map.md: section -> symbol -> test."""
    page = (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))
    named = set(re.findall(r"\btest_\w+(?=`)", page)) - {path.stem for path in ROOT.glob("tests/**/*.py")}

    assert len(named) > 20
    assert sorted(name for name in named if f"def {name}(" not in tests) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page__links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page__names_only_modules_that_exist(page: Path) -> None:
    """A path such as protocol/lane.py in backquotes is below src/learnae or the root of the project."""
    paths = re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.(?:py|sol|md|txt|json))`", page.read_text(encoding="utf-8"))

    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / "src" / "learnae" / path).exists()] == []
