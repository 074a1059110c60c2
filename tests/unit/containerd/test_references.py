from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.containerd import references
from cloudless.containerd.errors import InvalidRequest

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:alpine", "docker.io/library/nginx:alpine"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/a/b/c:v1.2_3-x", "127.0.0.1:5000/a/b/c:v1.2_3-x"),
        ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
        ("ghcr.io/Owner".lower() + "/app", "ghcr.io/owner/app:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f:latest"),
    ],
)
def test_short_forms_are_completed(text: str, name: str) -> None:
    assert references.parse(text).name == name
    assert references.parse(name).name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Nginx",
        "nginx:",
        "nginx:-x",
        "nginx@",
        "nginx@sha256:12",
        f"nginx@{DIGEST.upper()}",
        "../x",
        "a//b",
        "/nginx",
        "nginx/",
        "a_._b",
        "nginx\0",
        "nginx\n",
        "http://docker.io/nginx",
        "ab" * 32,
        "-host.io/x",
        "host:port/x",
        "x" * 300,
        "x" * 100_000,
        "a." * 50_000 + "/x",
        "nginx:" + "t" * 129,
        "naïve",
    ],
)
def test_what_is_wrong_is_said(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        references.parse(text)
    assert len(caught.value.message) < 700


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = references.parse(text)
    except InvalidRequest:
        return
    assert references.parse(found.name).name == found.name
    assert references.parse(references.familiar(found.name)).name == found.name
