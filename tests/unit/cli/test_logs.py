"""``cloudless logs``: what it asks for, and what terminals, pipes and programs get."""

from __future__ import annotations

import base64
import datetime
import json
import os
import signal
import subprocess
import sys

import pytest
from fake_coordinator import NOW
from tests.unit.cli.test_terminal import LIMIT_S, SOURCE, Screen

from cloudless import api
from cloudless.cli.logs.painting import color_of
from cloudless.domain.errors import Exhausted, Unavailable

Kind = api.LogMarkerKind
TIME = "2026-01-02T03:04:05.000000000Z"


@pytest.fixture
def web(cli):
    cli("run", "web", "web:1.4", "--replicas", "2")


def entry(text: bytes, ordinal: int = 0, **fields) -> api.LogEntry:
    given = {"at": NOW, "line": text, "replica": f"web/{ordinal}", "container_id": f"c{ordinal}"}
    return api.LogEntry(**given | fields)


def marker(kind: Kind, **fields) -> api.LogChunk:
    replica = fields.pop("replica", "web/0")
    return api.LogChunk(
        replica_id=replica, container_id="c0", marker=api.LogMarker(kind=kind, at=NOW, **fields)
    )


@pytest.fixture
def spoken(served, fake, web):
    """One replica that wrote, was killed and started again, and lost something."""
    served.do(fake.log, entry(b"one"), entry(b"oops", stream="stderr"))
    ended = api.ExitStatus(code=137, oom_killed=True)
    served.do(fake.log_chunks, marker(Kind.EXITED, exit=ended), marker(Kind.RESTARTED, runs=1))
    served.do(fake.log_chunks, marker(Kind.ROTATED), marker(Kind.GAP, gap_bytes=7, message="rotated away"))
    served.do(fake.log, entry(b"two"))
    served.do(fake.log_chunks, marker(Kind.SOURCE_ENDED))


def test_a_pipe_gets_the_bytes_and_stderr_what_is_missing(cli, spoken):
    result = cli("logs", "web")
    assert (result.code, result.out) == (0, "one\noops\ntwo\n")
    assert result.err == "── web/0 lost 7 bytes here: rotated away\n"
    assert cli("logs", "web", "--no-markers") == (0, "one\noops\ntwo\n", "")
    assert cli("logs", "web", "-o", "raw").out == "one\noops\ntwo\n"


def test_markers_may_be_among_the_lines(cli, spoken):
    result = cli("logs", "web", "--markers")
    assert result.err == ""
    assert result.out.splitlines() == [
        "one",
        "oops",
        "── web/0 exited with code 137: out of memory",
        "── web/0 restarted on n1, run 2",
        "── web/0 lost 7 bytes here: rotated away",
        "two",
    ]
    stamped = cli("logs", "web", "--markers", "-t").out.splitlines()
    assert stamped[0] == f"{TIME} one"
    assert stamped[2] == f"── {TIME} web/0 exited with code 137: out of memory"


def test_prefixes(cli, served, fake, spoken):
    assert cli("logs", "web", "--prefix").out.splitlines()[0] == "web/0 | one"
    served.do(fake.log, entry(b"ten", 10))
    lines = cli("logs", "web").out.splitlines()
    assert sorted(lines) == ["web/0  | one", "web/0  | oops", "web/0  | two", "web/10 | ten"]
    assert cli("logs", "web", "--no-prefix").out.splitlines() == ["one", "oops", "two", "ten"]
    assert cli("logs", "web", "-t", "--prefix").out.splitlines()[0] == f"web/0  | {TIME} one"
    painted = cli("logs", "web", "--color", "always").out
    assert f"\x1b[{color_of('web/0')}mweb/0\x1b[0m  | one" in painted
    assert f"\x1b[{color_of('web/10')}mweb/10\x1b[0m | ten" in painted


def test_lines_of_one_batch_are_in_order_of_time(cli, served, fake, web):
    def at(second: int) -> dict:
        return {"at": NOW + datetime.timedelta(seconds=second)}

    served.do(fake.log, entry(b"a", **at(0)), entry(b"c", **at(2)), entry(b"b", 1, **at(1)))
    assert cli("logs", "web").out == "web/0 | a\nweb/1 | b\nweb/0 | c\n"
    assert cli("logs", "web", "-o", "raw").out == "a\nb\nc\n"
    times = [json.loads(line)["line"] for line in cli("logs", "web", "-o", "json").out.splitlines()]
    assert times == ["a", "b", "c"]


def test_a_selector_always_has_prefixes(cli, served, fake):
    served.do(fake.log, entry(b"one"))
    assert cli("logs", "-l", "app=x").out == "web/0 | one\n"
    assert fake.asked("logs")[-1].label_selector == "app=x"


def test_json(cli, served, fake, spoken):
    served.do(fake.log, entry(b"\xff\x1b[2J", stream="stderr"), entry(b"half", partial=True))
    found = [json.loads(line) for line in cli("logs", "web", "-o", "json").out.splitlines()]
    assert found[0] == {
        "time": TIME,
        "namespace": "default",
        "workload": "web",
        "replica": "web/0",
        "replica_id": "web/0",
        "container_id": "c0",
        "node": "n1",
        "revision": 1,
        "stream": "stdout",
        "line": "one",
    }
    kinds = [one.get("marker") for one in found]
    assert kinds == [None, None, "EXITED", "RESTARTED", "ROTATED", "GAP", None, "SOURCE_ENDED", None, None]
    assert (found[2]["exit"]["code"], found[2]["exit"]["oom_killed"], found[3]["runs"]) == (137, True, 1)
    assert found[2]["text"] == "exited with code 137: out of memory"
    assert (found[5]["gap_bytes"], found[5]["time"], found[5]["node"]) == (7, TIME, "n1")
    assert (found[8]["stream"], found[8]["line"]) == ("stderr", "�\x1b[2J")
    assert base64.b64decode(found[8]["data"]) == b"\xff\x1b[2J"
    assert (found[9]["line"], found[9]["partial"]) == ("half", True)


def test_json_names_the_source_of_a_line_that_the_limit_cut(cli, served, fake, web):
    served.do(fake.log, entry(b"01", partial=True))
    served.do(fake.log_chunks, marker(Kind.LIMIT_REACHED, replica=""))
    cut, told = [json.loads(line) for line in cli("logs", "web", "-o", "json").out.splitlines()]
    assert (cut["line"], cut["partial"], cut["replica"], cut["container_id"]) == ("01", True, "web/0", "c0")
    assert (told["marker"], told["replica"]) == ("LIMIT_REACHED", "")


def test_bytes_pass_through_a_pipe(cli, served, fake, web):
    wild = b"\xff\x00 raw\x1b[2J\r"
    served.do(fake.log, entry(wild))
    assert cli("logs", "web").out == wild.decode(errors="surrogateescape") + "\n"
    assert cli("logs", "web", "--prefix").out == "web/0 | " + wild.decode(errors="surrogateescape") + "\n"


def test_pieces_of_long_lines_are_one_line(cli, served, fake, web):
    for text, partial in ((b"begin ", True), (b"middle ", True), (b"end", False), (b"next", False)):
        served.do(fake.log, entry(text, partial=partial))
    assert cli("logs", "web").out == "begin middle end\nnext\n"
    assert cli("logs", "web", "--prefix").out == "web/0 | begin middle end\nweb/0 | next\n"
    assert cli("logs", "web", "-o", "raw").out == "begin middle end\nnext\n"
    served.do(fake.log, entry(b"no end", partial=True))
    assert cli("logs", "web").out == "begin middle end\nnext\nno end"
    assert cli("logs", "web", "-o", "raw").out == "begin middle end\nnext\nno end"
    assert cli("logs", "web", "--prefix").out.endswith("web/0 | no end\n")


def test_what_is_asked_for(cli, web, fake):
    def asked(*words: str) -> api.StreamLogsRequest:
        assert cli("logs", *words).code == 0
        return fake.asked("logs")[-1]

    request = asked("web")
    assert (request.namespace, request.name, request.replica) == ("default", "web", "")
    assert (request.follow, request.tail_lines, request.current_only) == (False, None, False)
    request = asked("web/1", "--tail", "3", "--since", "5m")
    assert (request.replica, request.tail_lines, request.current_only) == ("1", 3, True)
    ago = datetime.datetime.now(datetime.UTC) - request.since
    assert datetime.timedelta(minutes=5) <= ago < datetime.timedelta(minutes=6)
    request = asked("web", "--until", "2026-01-02T03:04:05Z", "--previous", "--stream", "stderr", "--gone")
    assert (request.until, request.previous, request.stream) == (NOW, True, "stderr")
    assert not request.current_only
    assert asked("web", "--tail", "3", "--gone").current_only is False
    assert asked("web", "--no-gone").current_only is True
    request = asked("web", "--include", "a", "--include", "b", "--exclude", "c", "--limit-bytes", "9")
    assert (request.include, request.exclude, request.limit_bytes) == (["a", "b"], ["c"], 9)
    assert asked("web", "--replica", "ab", "--tail", "all").replica == "ab"
    assert asked("web", "--limit-bytes", "2Ki").limit_bytes == 2048


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("web", "-l", "a=b"),
        ("web", "--tail", "many"),
        ("web", "--since", "yesterday"),
        ("web", "--until", "25:00"),
        ("web/0", "--replica", "1"),
        ("web", "-f", "--previous"),
        ("web", "--limit-bytes", "-1"),
        ("web", "--limit-bytes", "x"),
        ("web", "--stream", "stdin"),
        ("web", "-o", "yaml"),
        ("web", "--limit-bytes", "0"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense(cli, web, words):
    result = cli("logs", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")


@pytest.mark.parametrize("option", ["--tail", "--limit-bytes"])
@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 20, "9" * 5000])
def test_numbers_that_no_request_can_carry(cli, web, option, number):
    result = cli("logs", "web", option, number)
    assert (result.code, result.out) == (2, "")
    assert option in result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-l", "app=nothing"), "no workload with labels app=nothing has logs\n"),
        (("web",), "web has no replicas that have started, and none of its logs are kept\n"),
        (("web", "-o", "json"), "web has no replicas that have started, and none of its logs are kept\n"),
        (("web", "--no-markers"), ""),
    ],
)
def test_why_there_is_nothing_is_told(cli, web, words, said):
    assert cli("logs", *words) == (0, "", said)


def test_that_there_is_no_earlier_run_is_told(cli, served, fake, web):
    source = api.LogSource(namespace="default", name="web")
    served.do(fake.log_sources.update, {"web/0": source})
    served.do(fake.log_chunks, marker(Kind.SOURCE_ENDED))
    assert cli("logs", "web", "--previous") == (0, "", "web has no earlier run whose logs are kept\n")


def test_that_nothing_has_started_is_told(cli, served, fake, web):
    source = api.LogSource(namespace="default", name="web")
    served.do(fake.log_sources.update, {"web/0": source})
    served.do(fake.log_chunks, marker(Kind.SOURCE_ENDED))
    assert cli("logs", "web") == (0, "", "nothing of web has started yet\n")
    assert cli("logs", "web", "--since", "1s") == (0, "", ""), "it may have started before"
    served.do(fake.log_chunks, marker(Kind.STARTED))
    assert cli("logs", "web") == (0, "", ""), "it has just written nothing"


def test_who_follows_what_has_not_started_is_told(served, fake, web):
    served.do(setattr, fake, "log_catches_up", True)
    screen = Screen(served, "logs", "web", "-f")
    screen.until("nothing of web has started yet; waiting")
    served.do(fake.log, entry(b"one"))
    screen.until("one")
    screen.interrupt()
    assert screen.end() == 0


@pytest.mark.parametrize("verb", ["logs", "exec"])
def test_the_beginning_of_a_replicas_id_names_it(cli, served, fake, web, verb):
    found = json.loads(cli("get", "replicas", "web", "-o", "json").out)["items"][1]["id"]
    served.do(fake.log, entry(b"x"))
    served.do(setattr, fake, "program", [api.ExecResponse(exit=api.ExecExit())])
    result = cli(verb, found, *(["--detach", "--", "true"] if verb == "exec" else []))
    assert result.code == 0, result
    asked = fake.asked("logs" if verb == "logs" else "program")[-1]
    assert (asked.name, asked.replica) == ("web", found)
    assert cli(verb, "nothing", *(["--", "true"] if verb == "exec" else [])).code != 0


def test_a_name_that_is_not_there(cli, web):
    result = cli("logs", "wbe")
    assert result.code == 5
    assert "did you mean 'web'?" in result.err


def test_the_newest_lines_of_what_is_gone(cli, served, fake, web):
    served.do(fake.log, entry(b"last words"))
    served.do(fake.logs_kept.add, "old")
    assert cli("logs", "old", "--tail", "3")[:2] == (0, "last words\n")
    for words in (("--tail", "3", "--no-gone"), ("--tail", "3", "-f"), ("-f",)):
        assert cli("logs", "old", *words).code == 5
    assert cli("logs", "nosuch", "--tail", "3").code == 5


def test_a_node_that_is_away_is_an_error_after_all_the_rest(cli, served, fake, web, monkeypatch):
    monkeypatch.setattr("cloudless.sdk.logs.LOG_NODE_PATIENCE_S", 0.0)
    served.do(fake.log, entry(b"one"))
    served.do(fake.log_chunks, marker(Kind.NODE_UNREACHABLE, replica="", node="n2"))
    served.do(setattr, fake, "log_end", Unavailable("node n2 cannot be reached"))
    result = cli("logs", "web")
    assert (result.code, result.out) == (8, "one\n")
    assert result.err.startswith("── node n2 cannot be reached\nerror: node n2 cannot be reached\n")


def test_a_lost_connection_is_told_and_nothing_is_lost(cli, served, fake, web):
    for text in (b"one", b"two", b"three"):
        served.do(fake.log, entry(text))
    served.do(setattr, fake, "log_breaks", [2])
    result = cli("logs", "web")
    assert (result.code, result.out) == (0, "one\ntwo\nthree\n")
    assert result.err.splitlines() == [
        "── no leader; waiting for the coordinator",
        "── connected again; going on where it broke off",
    ]


# On a terminal.


def test_following_on_a_terminal(served, fake, web):
    for ordinal in (0, 1):
        served.do(fake.log, entry(b"one\ttwo \x1b]0;title\x07", ordinal))
    screen = Screen(served, "logs", "web", "-f")
    text = screen.until(f"\x1b[{color_of('web/1')}mweb/1\x1b[0m | one")
    assert f"\x1b[{color_of('web/0')}mweb/0\x1b[0m | one\ttwo \\x1b]0;title\\x07" in text
    assert fake.asked("logs")[-1].tail_lines == 10
    ended = api.ExitStatus(code=3)
    served.do(fake.log_chunks, marker(Kind.EXITED, exit=ended), marker(Kind.SOURCE_ENDED))
    screen.until("\x1b[2m── web/0 has ended: nothing more will come\x1b[0m")
    assert "\x1b[2m── web/0 exited with code 3\x1b[0m" in screen.text
    screen.interrupt()
    assert screen.end() == 0
    assert "Traceback" not in screen.text


def test_colours_of_programs_go_on_a_terminal_unless_raw_is_asked_for(served, fake, web):
    line = b"\x1b[1;31mred\x1b[0m \x1b[2J caf\xc3\xa9 \xff\r"
    served.do(fake.log, entry(line))
    screen = Screen(served, "logs", "web")
    assert screen.end() == 0
    assert screen.text == "red \\x1b[2J café \ufffd\r\n"
    served.do(fake.log_batches.clear)
    served.do(fake.log, entry(b"\x1b[1;31mred\x1b[0m"))
    raw = Screen(served, "logs", "web", "-o", "raw")
    assert raw.end() == 0
    assert raw.text == "\x1b[1;31mred\x1b[0m\r\n"


def test_no_colours_and_ascii(served, fake, spoken):
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        screen = Screen(served, "logs", "web", "--prefix", **environ)
        screen.end()
        assert screen.text.startswith("web/0 | one\r\nweb/0 | oops\r\n── web/0 exited")
        assert "\x1b" not in screen.text
    plain = Screen(served, "logs", "web", "-t", NO_COLOR="1", PYTHONIOENCODING="ascii")
    plain.end()
    assert f"-- {TIME} web/0 restarted on n1, run 2" in plain.text
    assert "──" not in plain.text
    assert "has ended" not in plain.text


def test_the_limit_is_told_after_the_last_piece(served, fake, web):
    served.do(fake.log, entry(b"0123"), entry(b"01", partial=True), entry(b"other", 1))
    served.do(fake.log_chunks, marker(Kind.LIMIT_REACHED, replica=""))
    screen = Screen(served, "logs", "web", "--no-prefix", NO_COLOR="1")
    screen.end()
    assert screen.text.splitlines() == ["0123", "other", "01", "── stopped: the limit of bytes is reached"]


def test_the_prompt_gets_a_line_of_its_own(served, fake, web):
    served.do(fake.log, entry(b"no end", partial=True))
    screen = Screen(served, "logs", "web")
    screen.end()
    assert screen.text == "no end\r\n"


def test_a_prompt_is_shown_when_one_follows_and_ctrl_c_begins_a_new_line(served, fake, web):
    served.do(fake.log, entry(b"Continue? ", partial=True))
    screen = Screen(served, "logs", "web", "-f")
    screen.until("Continue? ")
    served.do(fake.log, entry(b"yes"), entry(b"More? ", partial=True))
    screen.until("More? ")
    screen.interrupt()
    assert screen.end() == 0
    assert screen.text.replace("\r", "") == "Continue? yes\nMore? \n"


def test_what_is_told_of_the_connection_has_lines_of_its_own(served, fake, web):
    served.do(fake.log, entry(b"Continue? ", partial=True))
    served.do(fake.log_breaks.append, 2)
    screen = Screen(served, "logs", "web", "-f", NO_COLOR="1")
    screen.until("Continue? ")
    served.do(fake.log, entry(b"yes", partial=True))
    screen.until("connected again")
    served.do(fake.log, entry(b" of course"))
    screen.until("of course")
    screen.interrupt()
    assert screen.end() == 0
    assert screen.text.splitlines() == [
        "Continue? yes…",
        "── no leader; waiting for the coordinator",
        "── connected again; going on where it broke off",
        "… of course",
    ]


def test_an_error_comes_after_what_has_no_end(served, fake, web):
    served.do(fake.log, entry(b"last words", partial=True))
    served.do(setattr, fake, "log_end", Exhausted("too many readers"))
    screen = Screen(served, "logs", "web", NO_COLOR="1")
    assert screen.end() != 0
    assert screen.text.splitlines()[:2] == ["last words", "error: too many readers"]


# On pipes.


def environment(served) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCE,
        "CLOUDLESS_ADDRESS": served.address,
        "HOME": "/nonexistent",
    }


def following(served, *words: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "cloudless", "logs", "web", "-f", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(served), **options
    )


def test_each_line_comes_at_once_and_ctrl_c_leaves_with_0(served, fake, web):
    with following(served) as process:
        for text in (b"one", b"two"):
            served.do(fake.log, entry(text))
            assert process.stdout.readline() == text + b"\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_ends_it_quietly_even_when_nothing_is_written(served, fake, web):
    with following(served) as process:
        served.do(fake.log, entry(b"one"))
        assert process.stdout.readline() == b"one\n"
        process.stdout.close()
        assert process.wait(LIMIT_S) == 0
        assert process.stderr.read() == b""


def test_a_reader_that_does_not_read_can_be_left(served, fake, web):
    for _ in range(40):
        served.do(fake.log, entry(b"x" * 10_000))
    with following(served) as process:
        served.do(fake.log, entry(b"x" * 10_000))
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0


def test_a_file_is_appended_to(served, fake, web, tmp_path):
    served.do(fake.log, entry(b"two"))
    command = f"echo one > out; {sys.executable} -m cloudless logs web >> out"
    env = environment(served)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, check=True, timeout=LIMIT_S)
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"
