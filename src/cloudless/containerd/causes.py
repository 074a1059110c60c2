"""The cause in what containerd says: its texts grew through several programs and repeat themselves.

``errors`` and ``pull`` use it for messages that people read. A text that nothing here
knows stays as it is, without the wrappings around it.
"""

from __future__ import annotations

import re

#: What the programs on the way put before the cause.
_WRAPPINGS = re.compile(
    "^(?:"
    + "|".join(
        (
            r'failed to (?:pull and unpack image|resolve reference|unpack image on \S+) "[^"]*": ',
            r"failed to (?:do request|copy|authorize|create containerd task|create shim task): ",
            r"failed to fetch \w+ token: ",
            r"httpReadSeeker: (?:failed open: )?",
            r'(?:Get|Head|Post) "[^"]*": ',
            r"rpc error: code = \w+ desc = ",
            r"OCI runtime (?:create|exec) failed: ",
            r"(?:runc create|exec) failed: ",
            r"unable to start container process: ",
            r"server message: ",
        )
    )
    + ")"
)
#: The program's folder cannot be entered.
NO_WORKING_DIR = r"chdir to cwd|chdir(?: to)? `"
_FOLDER = re.compile(r"""chdir to cwd \("([^"]*)"\)|chdir(?: to)? `([^`]*)`""")
_COMMAND = re.compile(r"""exec: "([^"]*)":|executable file `([^`]*)`|the path `([^`]*)`|exec `([^`]*)`""")


def unwrapped(text: str) -> str:
    """Without the wrappings before and the ": unknown" behind.

    >>> unwrapped('failed to pull and unpack image "h/x:1": failed to resolve reference "h/x:1": gone')
    'gone'
    """
    while (shorter := _WRAPPINGS.sub("", text)) != text:
        text = shorter
    return text.removesuffix(": unknown")


def command_cause(text: str) -> str:
    """Which command cannot be executed, and why.

    >>> command_cause('OCI runtime create failed: exec: "nope": executable file not found in $PATH: unknown')
    'command not found: nope'
    >>> command_cause('exec: "/etc/passwd": permission denied: unknown')
    'cannot execute /etc/passwd: permission denied'
    """
    if re.search(NO_WORKING_DIR, text):
        return _folder_cause(text)
    found = _COMMAND.search(text)
    name = next((group for group in found.groups() if group), "") if found else ""
    if re.search(r"not found|no such file|No such file", text):
        return f"command not found: {name}" if name else "command not found"
    lowered = text.lower()
    why = next((one for one in ("permission denied", "is a directory") if one in lowered), "")
    if "exec format error" in lowered:
        why = "it is no program of this machine's kind (exec format error)"
    return f"cannot execute {name or 'the command'}: {why or unwrapped(text)}"


def _folder_cause(text: str) -> str:
    """Why a working directory cannot be entered.

    >>> _folder_cause('chdir to cwd ("/nope") set in config.json failed: no such file or directory: unknown')
    'working directory /nope does not exist'
    """
    found = _FOLDER.search(text)
    name = next((group for group in found.groups() if group), "") if found else ""
    lowered = text.lower()
    known = {"no such file": "does not exist", "not a directory": "is no folder"}
    why = next((said for words, said in known.items() if words in lowered), "")
    if "permission denied" in lowered:
        why = "may not be entered (permission denied)"
    return f"working directory {name or 'of the program'} {why or f'cannot be entered: {unwrapped(text)}'}"


def pull_cause(text: str) -> str:
    """Why an image did not come.

    >>> pull_cause('failed to do request: Head "https://h/v2/": dial tcp: lookup h: no such host')
    'no such host h'
    >>> pull_cause('dial tcp 127.0.0.1:5000: connect: connection refused')
    '127.0.0.1:5000: connection refused'
    """
    text = unwrapped(text)
    if found := re.search(r"lookup ([^\s:]+)(?: on \S+)?: (no such host|.*)$", text):
        host, why = found.groups()
        return f"no such host {host}" if why == "no such host" else f"{host}: {why}"
    if found := re.search(r"dial tcp (\S+): (?:connect: )?(.*)$", text):
        return f"{found[1]}: {found[2]}"
    if found := re.search(r"unexpected status(?: from \w+ request to \S+| code \S+)?: (\d\d\d .*)$", text):
        return f"the registry answers {found[1]}"
    if re.fullmatch(r"\S+: not found", text):
        return "the registry does not have it"
    return text
