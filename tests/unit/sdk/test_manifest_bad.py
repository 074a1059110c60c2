"""Bad files: each mistake is named with its exact place, and nothing is returned."""

from __future__ import annotations

import pytest

from cloudless.sdk.manifest.files import read_paths
from cloudless.sdk.manifest.limits import MAX_FILE_BYTES
from cloudless.sdk.manifest.located import ManifestError

HEAD = "kind: Workload\nname: web\nimage: web:1.4\n"

#: text, place, part of the message.
CASES = [
    ("kind: Workload\nname: web\n", "1:1", "image: is required"),
    ("name: web\nimage: x\n", "1:1", "kind is required"),
    ("- a\n", "1:1", "a manifest is a mapping"),
    ("just text\n", "1:1", "a manifest is a mapping"),
    ("kind: Wrokload\nname: web\n", "1:7", "(did you mean 'Workload'?)"),
    ("kind: [Workload]\nname: web\n", "1:7", "must be one of Workload"),
    ("services: {web: {image: x}}\n", "1:1", "compose files are not supported yet"),
    (HEAD + "replcias: 3\n", "4:1", "replcias: is not a known field (did you mean 'replicas'?)"),
    (HEAD + "lables: {a: b}\n", "4:1", "(did you mean 'labels'?)"),
    (HEAD + "replicas: no\n", "4:11", "replicas: must be a valid integer"),
    (HEAD + "replicas: -1\n", "4:11", "greater than or equal to 0"),
    (HEAD + "replicas: 99999999\n", "4:11", "less than or equal to 10000"),
    (HEAD + "replicas: 1.5\n", "4:11", "replicas: must be a valid integer"),
    (HEAD + "replicas: '3'\n", "4:11", "replicas: must be a valid integer"),
    (HEAD + "replicas: 3\nreplicas: 4\n", "5:1", "'replicas' is given twice (first in line 4)"),
    (HEAD + "ports:\n- container_port: 80\n  hostport: 1\n", "6:3", "(did you mean 'host_port'?)"),
    (HEAD + "ports:\n- container_port: 80\n  publsh: 1\n", "6:3", "(did you mean 'publish'?)"),
    (HEAD + "ports:\n- {container_port: 70000}\n", "5:20", "ports[0].container_port: must be less"),
    (
        HEAD + "ports:\n- {container_port: 80, publish: 8, host_port: 8}\n",
        "5:1",
        "conflicts with publish 127.0.0.1:8/tcp",
    ),
    (
        HEAD + "ports:\n- {container_port: 80, publish: 70000}\n",
        "5:33",
        "must be less than or equal to 65535",
    ),
    (HEAD + "ports: 80\n", "4:8", "ports: must be a list"),
    (
        HEAD + "ports:\n- {container_port: 80}\n- {container_port: 80}\n",
        "5:1",
        "container_port 80:TCP is given twice",
    ),
    (HEAD + "env: {PORT: 8080}\n", "4:13", 'env.PORT: must be text; write it in quotes: "8080"'),
    (HEAD + "env: {DEBUG: true}\n", "4:14", 'write it in quotes: "true"'),
    (HEAD + "env: {1A: x}\n", "4:7", "env.1A: must be letters"),
    (HEAD + "env: [A=1]\n", "4:6", "env: must be a mapping"),
    (HEAD + "restart_policy: {policy: ALWAY}\n", "4:26", "(did you mean 'ALWAYS'?)"),
    (HEAD + "rollout: []\n", "4:10", "rollout: must be a mapping"),
    (HEAD + "rollout: {auto_rollback: maybe}\n", "4:26", "auto_rollback: must be true or false"),
    (HEAD + "rollout: {max_surge: 1.5}\n", "4:22", "max_surge: must be a count such as 2, or a percentage"),
    (HEAD + "rollout: {max_surge: ''}\n", "4:22", "max_surge: must not be empty"),
    (HEAD + "rollout: {max_unavailable: ''}\n", "4:28", "max_unavailable: must not be empty"),
    (HEAD + "rollout:\n  strategy: BLUEGREEN\n", "5:13", "(did you mean 'BLUE_GREEN'?)"),
    (
        HEAD + "rollout: {strategy: RECREATE, max_surge: 2}\n",
        "4:10",
        "max_surge: has no meaning with RECREATE",
    ),
    (
        HEAD + "rollout: {strategy: CANARY, steps: [{weight: 10, pause: {for: 10s}}]}\n",
        "4:58",
        "rollout.steps[0].pause.for: is not a known field",
    ),
    (HEAD + "rollout: {strategy: CANARY, steps: [{weight: 101}]}\n", "4:46", "rollout.steps[0].weight"),
    (
        HEAD + "replicas: 2\nrollout: {min_available: 3}\n",
        "5:26",
        "rollout.min_available: asks for 3 available replicas of 2",
    ),
    (
        HEAD + "rollout: {strategy: CANARY, steps: [{weight: 50}, {weight: 10}]}\n",
        "4:60",
        "rollout.steps[1].weight: 10 is below the weight of a step before it",
    ),
    (HEAD + "rollout: {max_surge: lots}\n", "4:22", "must be a count such as 2, or a percentage"),
    (HEAD + "readiness_probe: {tcp: {port: 1}, period: 10}\n", "4:43", "must be a duration such as 30s"),
    (
        HEAD + "readiness_probe: {tcp: {port: 1}, http: {port: 1}}\n",
        "4:18",
        "exactly one of exec, http, tcp, grpc",
    ),
    (HEAD + "stop_grace_period: 1 fortnight\n", "4:20", "'1 fortnight' is not a duration"),
    (HEAD + "resources: {limits: {memory: 64MB}}\n", "4:30", "'64MB' is not a size"),
    (HEAD + "resources: {limits: {cpu: fast}}\n", "4:27", "is not an amount of CPU"),
    (HEAD + "resources: {limits: {memry: 64Mi}}\n", "4:22", "(did you mean 'memory'?)"),
    (HEAD.replace("web:1.4", "WEB:1"), "3:8", "is not an image reference"),
    (HEAD.replace("web:1.4", "''"), "3:8", "image: is required, for example nginx:alpine"),
    (HEAD.replace("name: web", "name: ../x"), "2:7", "name: must be lower-case letters"),
    (HEAD.replace("name: web", "name: " + "a" * 300), "2:7", "is 300 characters long"),
    (HEAD.replace("name: web", "name: 12"), "2:7", 'name: must be text; write it in quotes: "12"'),
    (HEAD + "labels: {-bad: x}\n", "4:10", "labels.-bad: must be a label key"),
    (HEAD + "security_context: {capabilities_add: [ROOT]}\n", "4:19", "'ROOT' is not a capability"),
    (HEAD + "command: echo hi\n", "4:10", "command: must be a list"),
    ("kind: Workload\nname: web\nspec: {image: x, replcias: 1}\n", "3:18", "(did you mean 'replicas'?)"),
    ("kind: Workload\nname: web\nimage: x\nspec: {image: x}\n", "3:1", "image: is not a known field"),
    ("kind: Workload\nname: web\nspec: 5\n", "3:7", "must be a mapping"),
    # YAML itself.
    (HEAD + "env: {A: !!python/object:os.system x}\n", "4:10", "the tag"),
    (HEAD + "replicas: !!int '3'\n", "4:11", "the tag"),
    (HEAD + "env:\n  <<: {A: b}\n", "5:3", "merge keys"),
    (HEAD + "? [a]\n: 1\n", "4:3", "a key must be plain text"),
    (HEAD + "env: *other\n", "4:6", "*other is not an anchor"),
    (HEAD + "env: &e {A: *e}\n", "4:13", "*e is not an anchor that ends above"),
    (HEAD + "env: {A: b\n", "5:1", "cannot be read"),
    (HEAD + "\tenv: x\n", "4:1", "cannot be read"),
    (HEAD + "env: {A: \x07}\n", "4:10", "cannot be read"),
    (HEAD + "replicas: .inf\n", "4:11", "is not a number that can be used"),
    (HEAD + f"replicas: {'9' * 100}\n", "4:11", "the number is too long"),
    ("%YAML 1.1\n---\n" + HEAD, "2:1", "only YAML 1.2 is read"),
    (HEAD + "env: " + "{a: " * 100 + "1" + "}" * 100 + "\n", None, "is nested deeper than 32 levels"),
    (HEAD + "---\nkind: Workload\nname: b\nimage: b\nx: 1\n", "8:1", "x: is not a known field"),
]


@pytest.mark.parametrize(("text", "place", "message"), CASES)
def test_each_mistake_has_its_place(tmp_path, text, place, message):
    path = tmp_path / "web.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_paths([str(path)])
    violations = caught.value.violations
    assert len(violations) == 1, violations
    assert message in violations[0].description
    if place is not None:
        assert violations[0].path == f"{path}:{place}"


def test_all_mistakes_of_a_document_are_told_together(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(HEAD + "replicas: x\nnmae: y\nstop_signal: SIGFOO\n")
    with pytest.raises(ManifestError) as caught:
        read_paths([str(path)])
    assert sorted(where.rpartition("yaml:")[2] for where, _ in caught.value.violations) == [
        "4:11",
        "5:1",
        "6:14",
    ]


def test_a_billion_laughs_are_refused_quickly(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{previous}'] * 10)}]")
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ManifestError, match="expands to more than"):
        read_paths([str(path)])


def test_a_long_text_repeated_by_aliases_is_refused(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text(f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]\n")
    with pytest.raises(ManifestError, match="expands to more than"):
        read_paths([str(path)])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b'{"kind": "Workload",\n "name" "x"}', "a.json:2:9: is not JSON"),
        (
            "a.json",
            b'{"kind": "Workload",\n\t"name": "x",\n\t"image": "a", "image": "b"}',
            "a.json:3:16: 'image' is given twice",
        ),
        ("a.yaml", b"kind: \xff\n", "a.yaml:1:7: is not UTF-8"),
        ("a.yaml", b"# nothing\n", "there is nothing to read"),
        ("a.yaml", b"x" * (MAX_FILE_BYTES + 1), "is larger than 1024 KiB"),
        ("a.json", b"[" * 5000, "a.json:1:1: is nested too deeply"),
    ],
)
def test_bad_files(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        read_paths([str(path)])
    assert message in caught.value.message


def test_what_is_no_file(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        read_paths([str(tmp_path / "missing.yaml")])
    with pytest.raises(ManifestError, match=r"there is no \.yaml"):
        read_paths([str(tmp_path)])


def test_the_same_object_twice(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.yaml").write_text("# again\n" + HEAD)
    with pytest.raises(ManifestError, match=r"b.yaml:2: workload web is given twice \(first at .*a.yaml:1\)"):
        read_paths([str(tmp_path)])
