"""All verbs: where each lives and one line about it. Nothing here imports a verb."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """``module`` holds ``arguments(parser)`` and ``async run(context) -> int``."""

    name: str
    module: str
    summary: str
    group: str


_VERBS = """
work   | run      | run          | Run an image as a workload
work   | apply    | apply        | Create or change what files describe
work   | diff     | diff         | Show what apply would change
work   | create   | create       | Create what files describe; fails when it exists
work   | update   | update       | Change fields of a workload
work   | scale    | scale        | Change the number of replicas
work   | delete   | delete       | Remove workloads
work   | rollout  | rollout      | Watch and steer rollouts: status, history, pause, promote, abort, undo ...
look   | get      | get          | List objects, or watch them
look   | describe | describe     | Show one object with all that explains it
look   | nodes    | nodes        | List nodes
look   | events   | events       | List what happened, or watch it
look   | logs     | logs         | Show what replicas write
inside | exec     | execute      | Run a program in a replica
inside | attach   | attach       | Join a replica's own program
inside | cp       | cp           | Copy files to and from a replica
inside | port-forward | portforward | Lead local ports to ports of replicas
inside | image    | image        | List, pull, remove and import images of this node
more   | serve    | -            | Run the coordinator, the agent, or both
more   | reset    | -            | Remove all that serve made on this machine
more   | schema   | schema       | Print the JSON Schema of manifests
more   | version  | version      | Print versions of client and coordinator
"""
VERBS: dict[str, Verb] = {
    name: Verb(name, module, summary, group)
    for group, name, module, summary in (
        (cell.strip() for cell in line.split("|")) for line in _VERBS.strip().splitlines()
    )
}
_ROLLOUT_VERBS = """
status  | Show where a rollout is, and why
watch   | Follow a rollout until it ends
history | List the revisions of a workload, or show the journal of one
pause   | Take no further step until resumed
resume  | Go on after a pause
promote | Go on from a wait for promotion
abort   | Go back to the last revision that was proved healthy
undo    | Make an older revision the newest
restart | Make new replicas of the same specification
retry   | Try a failed, rolled back or aborted rollout again
"""
#: Verbs that take a second word: verb -> that word -> what it does.
SUBVERBS: dict[str, dict[str, Verb]] = {
    "rollout": {
        name: Verb(f"rollout {name}", f"rollout.{name}", summary, "work")
        for name, summary in (
            (cell.strip() for cell in line.split("|")) for line in _ROLLOUT_VERBS.strip().splitlines()
        )
    }
}
GROUPS = {"work": "Change", "look": "Look", "inside": "Go inside", "more": "More"}
#: Verbs that read their own words (``cli.serve``).
ROLE_VERBS = frozenset({"serve", "reset"})
#: Verbs that go on for ever: Ctrl-C is how they end well.
LEFT_AT_WILL = frozenset({"logs", "port-forward"})
#: Other words for the same verb.
ALIASES = {"rm": "delete", "ls": "get", "ps": "get", "node": "nodes", "images": "image", "event": "events"}
#: Verbs of later versions: named so that the answer is better than "unknown".
PLANNED = frozenset("top join token ctx compose completion cordon uncordon drain".split())
