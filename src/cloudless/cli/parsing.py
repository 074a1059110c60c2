"""Reading the command line in two steps: which verb, then that verb's own options.

argparse does the work; this module adds global options before and after the verb,
everything after ``--``, and errors that say what was probably meant.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from cloudless.cli.catalog import ALIASES, GROUPS, PLANNED, ROLE_VERBS, SUBVERBS, VERBS, Verb
from cloudless.cli.lean import import_api
from cloudless.domain.errors import CloudlessError
from cloudless.sdk.suggest import did_you_mean

#: What argparse says, and what it means.
_REWORDED = (
    (re.compile(r": expected one argument$"), " needs a value"),
    (re.compile(r": ignored explicit argument '(.*)'$", re.DOTALL), r" takes no value, and '\1' was given"),
    (re.compile(r": invalid int value: '(.*)'$", re.DOTALL), r": '\1' is not a whole number"),
)


class UsageError(CloudlessError):
    """The command line makes no sense; exit code 2."""

    code = "CL-2000"


class ShowHelp(Exception):
    """Not an error: print ``text`` and end with 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Parser(argparse.ArgumentParser):
    """argparse that raises ``UsageError`` and ``ShowHelp`` instead of ending the process."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(add_help=False, allow_abbrev=False, **options)
        self.add_argument("-h", "--help", action=_Help, help="show this text and exit")

    def error(self, message: str) -> NoReturn:
        raise UsageError(_readable(message), hint=f"{self.prog} --help")

    def options(self) -> list[str]:
        """All option strings, for suggestions."""
        return sorted(self._option_string_actions)


class _Help(argparse.Action):
    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise ShowHelp(parser.format_help())


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The whole command line; ``verb`` and ``module`` say who runs it, ``after`` is what follows ``--``.

    Raises ``UsageError`` and ``ShowHelp``.
    """
    words, after = _split_dashes(list(argv))
    if words and words[0] in ("-h", "--help", "help") and (len(words) == 1 or words[0] != "help"):
        raise ShowHelp(overview())
    if len(words) > 1 and words[0] == "help":
        words = [*words[1:], "--help"]
    found = _take_verb(words, None)
    if found.verb is None:
        raise ShowHelp(overview())
    name = ALIASES.get(found.verb, found.verb)
    if name not in VERBS:
        raise _unknown_verb(found.verb)
    if name in ROLE_VERBS:
        rest = found.rest + (["--", *after] if after is not None else [])
        return argparse.Namespace(verb=name, module="", rest=rest, color=found.color)
    if name in SUBVERBS:
        found = _take_subverb(name, found)
        name = f"{name} {found.verb}"
    parser = verb_parser(name)
    arguments, unknown = parser.parse_known_intermixed_args(found.rest, _given(found))
    if unknown:
        raise UsageError(
            f"unknown {_kind_of(unknown[0])} {unknown[0]!r}{did_you_mean(unknown[0], parser.options())}",
            hint=f"cloudless {name} --help",
        )
    arguments.verb, arguments.module, arguments.after = name, verb_of(name).module, after
    return arguments


def byte_count(text: str) -> int:
    """The type of options that take a number of bytes, such as 1048576, 1Mi or 10Gi."""
    from cloudless.domain.quantity import parse_bytes

    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return size


def verb_of(name: str) -> Verb:
    """The verb "get" or "rollout status"."""
    first, _, second = name.partition(" ")
    return SUBVERBS[first][second] if second else VERBS[first]


def _take_verb(words: Sequence[str], given: argparse.Namespace | None) -> argparse.Namespace:
    """Global options and the first word that is none of them; ``rest`` is all that follows."""
    top = global_parser()
    top.add_argument("verb", nargs="?")
    top.add_argument("rest", nargs=argparse.REMAINDER)
    found, unknown = top.parse_known_args(words, given)
    if unknown:
        raise UsageError(
            f"unknown option {unknown[0]}{did_you_mean(unknown[0], top.options())}", hint="cloudless --help"
        )
    return found


def _take_subverb(name: str, found: argparse.Namespace) -> argparse.Namespace:
    known = SUBVERBS[name]
    if not found.rest or found.rest[0] in ("-h", "--help"):
        raise ShowHelp(family_overview(name))
    found = _take_verb(found.rest, _given(found))
    word = found.verb
    if word is None:
        raise ShowHelp(family_overview(name))
    if word not in known:
        guess = did_you_mean(word, known)
        hint = f"cloudless {name} --help" if guess else f"cloudless {name} {next(iter(known))} {word}"
        raise UsageError(
            f"unknown verb '{name} {word}'{guess or ': it is one of ' + ', '.join(known)}", hint=hint
        )
    return found


def family_overview(name: str) -> str:
    """What ``cloudless rollout`` alone prints."""
    lines = [
        f"usage: cloudless {name} VERB NAME [OPTIONS]",
        "",
        f"{VERBS[name].summary.partition(':')[0]}.",
        "",
    ]
    lines += [f"  {word:<14}{verb.summary}" for word, verb in SUBVERBS[name].items()]
    return "\n".join([*lines, "", f"cloudless {name} VERB --help tells more.", ""])


def verb_parser(name: str) -> Parser:
    """The parser of one verb, global options included; imports that verb's module."""
    verb = verb_of(name)
    import_api()  # before the verb does: this way is the cheap one
    module = importlib.import_module(f"cloudless.cli.verbs.{verb.module}")
    described = (module.__doc__ or verb.summary).strip()
    parser = Parser(prog=f"cloudless {name}", description=described)
    module.arguments(parser)
    parser.usage = " ".join([f"cloudless {name} [OPTIONS]", *_positionals(parser)])
    add_global_options(parser.add_argument_group("global options"), default=argparse.SUPPRESS)
    return parser


def _positionals(parser: argparse.ArgumentParser) -> list[str]:
    """How the words that are no options look: FILE, [NAME ...], -- ARG ..."""
    shown = []
    for action in parser._get_positional_actions():
        word = str(action.metavar or action.dest)
        if action.choices is not None and action.metavar is None:
            word = "{" + ",".join(action.choices) + "}"
        optional = action.nargs in ("*", "?") and not word.startswith(("[", "--"))
        more = action.nargs in ("*", "+", "...") and not word.endswith(("...", "...]"))
        word += " ..." if more else ""
        shown.append(f"[{word}]" if optional else word)
    return shown


def global_parser() -> Parser:
    """The options that may stand before the verb."""
    parser = Parser(prog="cloudless", usage="cloudless [OPTIONS] VERB ...")
    add_global_options(parser, default=None)
    return parser


def add_global_options(parser: Any, *, default: Any) -> None:
    """The options that every verb takes."""
    parser.add_argument("--address", metavar="HOST:PORT", default=default, help="the coordinator")
    parser.add_argument("--context", metavar="NAME", default=default, help="a context of config.toml")
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", default=default, help="namespace of names without one"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        default=default,
        type=seconds,
        help="deadline of each call (of one that goes on: until it begins), 30s by default",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=default or "auto" if default is None else default,
        help="when to use colours",
    )


def seconds(text: str) -> float:
    """A duration option: "30s", "1m30s", or a plain number of seconds."""
    try:
        if text.replace(".", "", 1).isdigit():
            return float(text)
        from cloudless.domain.quantity import parse_duration

        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def overview() -> str:
    """What ``cloudless`` alone prints."""
    lines = ["usage: cloudless [OPTIONS] VERB ...", ""]
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {verb.name:<14}{verb.summary}" for verb in VERBS.values() if verb.group == group]
        lines.append("")
    options = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    add_global_options(options.add_argument_group("Options of every verb"), default=None)
    lines += [
        options.format_help().strip(),
        "",
        "Objects are named by name, NAMESPACE/NAME, NAME/ORDINAL for replicas, or a unique id prefix.",
        "cloudless VERB --help tells more.",
        "",
    ]
    return "\n".join(lines)


def _given(found: argparse.Namespace) -> argparse.Namespace:
    values = {key: value for key, value in vars(found).items() if key not in ("verb", "rest")}
    return argparse.Namespace(**values)


def _split_dashes(words: list[str]) -> tuple[list[str], list[str] | None]:
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _kind_of(word: str) -> str:
    return "option" if word.startswith("-") else "argument"


def _unknown_verb(word: str) -> UsageError:
    if word in PLANNED:
        return UsageError(f"{word!r} comes with a later version", hint="cloudless --help")
    guess = did_you_mean(word, [*VERBS, *ALIASES])
    return UsageError(f"unknown verb {word!r}{guess}", hint="cloudless --help")


def _readable(message: str) -> str:
    """argparse's wording, where that is not for its own readers; with a guess for a wrong choice."""
    if "invalid choice: " in message and "(choose from " in message:
        head, _, choices = message.partition("(choose from ")
        word = head.partition("invalid choice: ")[2].strip().strip("'")
        known = [choice.strip(" ')") for choice in choices.split(",")]
        where = head.partition(":")[0]
        return f"{where}: {word!r} is not one of {', '.join(known)}{did_you_mean(word, known)}"
    for pattern, readable in _REWORDED:
        message = pattern.sub(readable, message)
    return message
