"""The pages of strategies: their fields exist, and their timelines are journals as the code writes them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, blocks

from cloudless.domain.strategy import CanaryStep, RolloutStrategy, Strategy
from cloudless.sdk.manifest.reading import read_text

FOLDER = ROOT / "docs" / "strategies"
PAGES = sorted(FOLDER.glob("*.md"))
PLANNING = ROOT / "src" / "cloudless" / "planning"


def strategy_of(page: Path) -> Strategy:
    return Strategy(page.stem.upper().replace("-", "_"))


def known_verbs() -> set[str]:
    """Every verb that a planner puts into a journal."""
    noted = {
        verb
        for path in PLANNING.glob("*.py")
        for verb in re.findall(r"\bnote\(\s*\"(\w+)\"", path.read_text())
    }
    named = re.findall(r"^        \w+: \"(\w+)\",$", (PLANNING / "carrying.py").read_text(), re.MULTILINE)
    return noted | set(named)


def test_each_strategy_has_its_page() -> None:
    assert {strategy_of(page) for page in PAGES} == set(Strategy)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_manifest_is_of_its_strategy(page: Path) -> None:
    (block,) = blocks("yaml", page=page)
    (manifest,) = read_text(block.text, block.place)
    assert manifest.workload.spec.rollout.strategy is strategy_of(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_fields_exist(page: Path) -> None:
    known = {*RolloutStrategy.model_fields, *(f"steps[].{name}" for name in CanaryStep.model_fields)}
    for row in re.findall(r"^\| (`.+?) \|", page.read_text(), re.MULTILINE):
        assert set(re.findall(r"`([\w\[\].]+)`", row)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_timeline_is_a_whole_journal(page: Path) -> None:
    journal = json.loads(page.with_suffix(".json").read_text())["journal"]
    verbs = [entry["verb"] for entry in journal]
    assert verbs[0] == "begin"
    assert verbs.count("end") == 1
    assert set(verbs) <= known_verbs()
    assert strategy_of(page).value in journal[0]["decided"]
    assert [entry["offset_s"] for entry in journal] == sorted(entry["offset_s"] for entry in journal)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_picture_shows_every_replica(page: Path) -> None:
    picture = xml.etree.ElementTree.fromstring(page.with_suffix(".svg").read_text())
    shown = {element.text for element in picture.iter() if element.tag.endswith("text")}
    named = set(re.findall(r"web/\d+", page.with_suffix(".json").read_text()))
    assert len(named) >= 4
    assert named <= shown
    assert f"({page.stem}.svg)" in page.read_text()


def test_verbs_are_found_in_the_code() -> None:
    assert {"begin", "surge", "retire", "switch", "weigh", "pause", "promote", "bake", "judge", "end"} <= (
        known_verbs()
    )
