from __future__ import annotations

from tests.unit.planning.world import START, WEB, World

from cloudless.domain.plan import Plan, PutJournal
from cloudless.domain.rollout import JournalEntry, RolloutPhase
from cloudless.planning.apply import apply_plan
from cloudless.planning.describe import describe_plan
from cloudless.planning.workload import plan_workload


def test_a_plan_in_sentences() -> None:
    world = World(replicas=1)
    plan = plan_workload(world.cluster, WEB, START, world.new_id)
    revision, create = describe_plan(world.cluster, plan)
    assert revision.sentence == "revision: revision 1: image web:1"
    assert create.sentence == "create web/0 on n0: revision 1"
    assert create.score


def test_a_replica_that_waited_for_a_node_is_placed() -> None:
    world = World(replicas=1)
    ready = dict(world.cluster.nodes)
    world.cluster.nodes.clear()
    plan = plan_workload(world.cluster, WEB, START, world.new_id)
    assert describe_plan(world.cluster, plan)[1].sentence.startswith("create web/0: no node: ")
    cluster = apply_plan(world.cluster, plan)
    cluster.nodes.update(ready)
    placed = describe_plan(cluster, plan_workload(cluster, WEB, START, world.new_id))
    assert [step.sentence for step in placed] == ["place web/0 on n0: revision 1"]


def test_decisions_that_no_replica_shows_come_from_the_journal() -> None:
    world = World(replicas=1)

    def entry(verb: str, phase: RolloutPhase = RolloutPhase.PROGRESSING) -> PutJournal:
        return PutJournal(
            JournalEntry(
                workload_id=WEB,
                revision=2,
                sequence=1,
                at=START,
                verb=verb,
                decided="so",
                because="why",
                phase=phase,
            )
        )

    verbs = ("end", "begin", "surge", "switch", "retire", "pause", "judge", "weigh")
    plan = Plan((*(entry(verb) for verb in verbs), entry("end", RolloutPhase.SUPERSEDED)))
    assert [step.sentence for step in describe_plan(world.cluster, plan)] == [
        "switch: so (why)",
        "weigh: so (why)",
        "judge: so (why)",
        "end: so (why)",
    ]
    assert apply_plan(world.cluster, plan) == world.cluster, "no fact that plans are made on"
