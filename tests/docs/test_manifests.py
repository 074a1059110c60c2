"""Every manifest in the pages is one: for the reader, for the JSON Schema, and for both alike."""

from __future__ import annotations

import jsonschema
import pytest
from ruamel.yaml import YAML
from tests.docs.pages import Block, blocks

from cloudless.sdk.manifest.reading import read_text
from cloudless.sdk.manifest.schema import manifest_schema

MANIFESTS = blocks("yaml", "json")


def test_there_are_manifests() -> None:
    assert len(MANIFESTS) >= 3


@pytest.mark.parametrize("block", MANIFESTS, ids=lambda block: block.place)
def test_the_reader_takes_it(block: Block) -> None:
    assert list(read_text(block.text, block.place))


@pytest.mark.parametrize("block", MANIFESTS, ids=lambda block: block.place)
def test_the_schema_takes_it(block: Block) -> None:
    validator = jsonschema.Draft7Validator(manifest_schema())
    for document in YAML(typ="safe", pure=True).load_all(block.text):
        assert [error.message for error in validator.iter_errors(document)] == []
