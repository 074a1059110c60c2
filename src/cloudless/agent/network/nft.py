"""A minimal binding of libnftables: run commands, all of them or none.

The library costs 1 ms where starting ``nft`` costs 10. One context is made at the first
call, on the calling thread, and is used from that thread only.
"""

from __future__ import annotations

import ctypes

LIBRARY = "libnftables.so.1"


class NftError(Exception):
    """The commands were refused and nothing was changed; the text is nft's own."""


class Nft:
    """One libnftables context."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._context = ctypes.c_void_p()

    def run(self, commands: str) -> str:
        """Carry out ``commands`` (nft's language) as one transaction and return what they print.

        Raises ``NftError``, also when the library is not installed.
        """
        library = self._open()
        status = library.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed: bytes = library.nft_ctx_get_output_buffer(self._context) or b""
        complaint: bytes = library.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            raise NftError(complaint.decode(errors="replace").strip() or f"nft: status {status}")
        return printed.decode(errors="replace")

    def close(self) -> None:
        """Free the context; ``run`` would open a new one."""
        if self._library is not None:
            self._library.nft_ctx_free(self._context)
            self._library = None

    def _open(self) -> ctypes.CDLL:
        if self._library is not None:
            return self._library
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NftError(f"{LIBRARY} cannot be loaded (is nftables installed?): {error}") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
        context = library.nft_ctx_new(0)
        if not context:
            raise NftError("nft: no context (out of memory?)")
        self._context = ctypes.c_void_p(context)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._library = library
        return library
