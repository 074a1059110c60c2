"""Change fields of a workload and wait for the new revision.

--set takes a path and a value in YAML: --set replicas=3, --set rollout.max_surge=1,
--set resources.limits.memory=128Mi, --set "ports=[{container_port: 80}]". An empty value
takes the field back to its default."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudless.cli import exits
from cloudless.cli.changing import add_change_options, before_dry_run, finish
from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="the workload")
    parser.add_argument("--image", metavar="IMAGE", help="the new image")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="any field of the specification"
    )
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="K=V", help="set a variable; K- removes it"
    )
    parser.add_argument("-m", "--message", default="", help="why; kept with the revision")
    add_change_options(parser)


async def run(context: Context) -> int:
    """Read, change, write, wait."""
    arguments = context.arguments
    changes = Changes.of(arguments)
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only

        name = workload_only(arguments.name)
        async with suggesting(client, name):
            before = await before_dry_run(context, client, name)
            workload = await client.edit(
                name, changes.fields_for, message=arguments.message, dry_run=arguments.dry_run
            )
        await finish(context, client, workload, before=before)
    return exits.OK


class Changes(NamedTuple):
    """What the options ask for: paths with new values, and variables (None removes one)."""

    image: str
    values: list[tuple[str, str]]
    variables: dict[str, str | None]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Changes:
        """Read the options; raises ``UsageError``."""
        if not (arguments.image or arguments.set or arguments.env):
            raise UsageError("nothing to change", hint="cloudless update web --image web:1.5")
        values, variables = [], {}
        for text in arguments.set:
            path, equals, value = text.partition("=")
            if not equals or not path:
                raise UsageError(
                    f"--set {text!r} is not PATH=VALUE", hint="cloudless update web --set rollout.max_surge=1"
                )
            values.append((path.removeprefix("spec."), value))
        for text in arguments.env:
            key, equals, value = text.partition("=")
            if not key or (not equals and not key.endswith("-")):
                raise UsageError(f"--env {text!r} is not K=V, or K- to remove it")
            variables[key if equals else key.removesuffix("-")] = value if equals else None
        return cls(arguments.image or "", values, variables)

    def fields_for(self, before: Workload) -> dict[str, Any]:
        """The top-level fields that change, with their new values; raises ``Invalid``."""
        from cloudless.sdk.manifest.editing import put

        spec = before.spec.model_dump(mode="json", exclude_unset=True)
        touched: dict[str, None] = {}
        if self.image:
            spec["image"] = self.image
            touched["image"] = None
        if self.variables:
            merged = spec.get("env", {}) | self.variables
            spec["env"] = {key: value for key, value in merged.items() if value is not None}
            touched["env"] = None
        for path, value in self.values:
            touched[put(spec, path, value)] = None
        return {field: spec.get(field, _default(field)) for field in touched}


def _default(field: str) -> Any:
    from cloudless.domain.workload import WorkloadSpec

    if field not in WorkloadSpec.model_fields or WorkloadSpec.model_fields[field].is_required():
        return None  # validation says what is wrong with it
    return WorkloadSpec.model_fields[field].get_default(call_default_factory=True)
