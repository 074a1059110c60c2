"""Links between pages lead somewhere, and every page can be reached from the README."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT, anchors, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} does not exist"
        assert there.is_relative_to(ROOT), f"{target} is not in the project"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def test_every_page_is_linked() -> None:
    reached, waiting = {ROOT / "README.md"}, [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        for target in links(page):
            there = (page.parent / target.partition("#")[0]).resolve()
            found = sorted(there.glob("*.md")) if there.is_dir() else [there]
            for one in found:
                if one.suffix == ".md" and one in PAGES and one not in reached:
                    reached.add(one)
                    waiting.append(one)
    assert sorted(set(PAGES) - reached) == []
