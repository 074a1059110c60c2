"""Network namespaces without a helper process: make, remove, open a socket inside.

A namespace belongs to a thread, so a worker thread steps inside and back; the main
thread never does. A thread that cannot step back would do the host's work in a
replica's network: then the process ends at once (replicas do not depend on it).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import threading
from collections.abc import Iterator

log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_EXIT_SOFTWARE = 70
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


@contextlib.contextmanager
def _away(step_out: tuple[str, int, int] | tuple[str, int]) -> Iterator[None]:
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("the main thread must stay in the host's network namespace")
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(*step_out)
        try:
            yield
        finally:
            try:
                _call("setns", home, _CLONE_NEWNET)
            except OSError:
                log.critical("a thread is lost in a network namespace; the process ends")
                os._exit(_EXIT_SOFTWARE)
    finally:
        os.close(home)


@contextlib.contextmanager
def inside(path: str) -> Iterator[None]:
    """Run the block in the namespace at ``path``; only on a worker thread. Raises ``OSError``."""
    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _away(("setns", target, _CLONE_NEWNET)):
            yield
    finally:
        os.close(target)


@contextlib.contextmanager
def created(path: str) -> Iterator[None]:
    """Make a namespace, keep it alive at ``path``, and run the block inside it.

    ``path`` may exist as the plain file that a killed attempt left. Raises ``OSError``.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with _away(("unshare", _CLONE_NEWNET)):
        _call("mount", _OWN.encode(), os.fsencode(path), b"", _MS_BIND, None)
        yield


def exists(path: str) -> bool:
    """Whether ``path`` is a namespace, and not just a file or nothing."""
    try:
        return os.stat(path).st_dev == os.stat(_OWN).st_dev
    except FileNotFoundError:
        return False


def remove(path: str) -> None:
    """Let go of the namespace at ``path``; nothing there is no error."""
    while exists(path):  # a killed attempt may have mounted twice
        _call("umount2", os.fsencode(path), _MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def open_socket(path: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in the namespace at ``path``, usable from every thread."""
    with inside(path):
        return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
