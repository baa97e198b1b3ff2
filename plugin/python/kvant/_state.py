"""Saved state of a cache: to and from files, streams and bytes."""
import ctypes as c
import io
import os

import numpy as np

from . import _abi_manager as _abi
from . import _arrays
from ._managed import Managed
from ._object import KvantError


class _Stream:
    """A binary file of Python's as a kvant_state_stream. What it raises ends the call and comes out of it."""

    def __init__(self, file):
        self._file, self.failure = file, None
        self.struct = _abi.StateStream(write=_abi.StreamWrite(self._write), read=_abi.StreamRead(self._read))

    def _write(self, _, data, size):
        try:
            rest = memoryview(c.string_at(data, size))
            while len(rest):
                taken = self._file.write(rest)
                taken = len(rest) if taken is None else taken
                if not 0 < taken <= len(rest):
                    raise OSError(f"write took {taken} of {len(rest)} bytes")
                rest = rest[taken:]
            return 1
        except BaseException as failure:  # nothing may leave a callback
            self.failure = failure
            return 0

    def _read(self, _, out, size):
        try:
            data = self._file.read(size)
            if len(data) > size:
                raise OSError(f"read gave {len(data)} bytes; expected at most {size}")
            c.memmove(out, data, len(data))
            return len(data)
        except BaseException as failure:
            self.failure = failure
            return 0  # the end: the library refuses what is cut off

    def run(self, call):
        try:
            call(c.byref(self.struct))
        except KvantError as error:
            if self.failure is not None:
                raise self.failure from error
            raise


class State(Managed):
    """What a Cache saves and loads. Bytes are the same on all devices; the cache that loads them has the same model_id, rope,
    layers, formats and page_tokens. A wrong byte is KvantError DATA_LOSS, another model or other layers INCOMPATIBLE."""

    def save(self, target, sequences=None, prefixes=True):
        """Saves `sequences` (None: all), and with prefixes=True what the prefix cache holds, to `target`: a path, which names
        the old file or the new one, whole, at any moment; or a binary file, whose write() is called."""
        chosen = None if sequences is None else _handles("sequences", sequences)
        flags = (_abi.STATE_ALL_SEQUENCES if chosen is None else 0) | (_abi.STATE_PREFIXES if prefixes else 0)
        args = _abi.StateArgs(sequences=_arrays.pointer(chosen), sequence_count=0 if chosen is None else chosen.size, flags=flags)
        if hasattr(target, "write"):
            _Stream(target).run(lambda stream: self._ask("state_save", c.byref(args), stream))
        else:
            self._ask("state_save_file", c.byref(args), os.fsencode(target))

    def save_bytes(self, sequences=None, prefixes=True):
        """The same, as bytes."""
        target = io.BytesIO()
        self.save(target, sequences, prefixes)
        return target.getvalue()

    def load(self, source):
        """Loads what save() wrote, from a path, a binary file or bytes: a dict from the handle that a sequence had when it was
        saved to the one it has now. A load that fails changes nothing."""
        count = c.c_uint32()
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = io.BytesIO(source)
        if hasattr(source, "read"):
            _Stream(source).run(lambda stream: self._ask("state_load", stream, c.byref(count)))
        else:
            self._ask("state_load_file", os.fsencode(source), c.byref(count))
        saved, now, loaded = c.c_uint64(), c.c_uint64(), {}
        for index in range(count.value):
            self._ask("state_loaded", index, c.byref(saved), c.byref(now))
            loaded[saved.value] = now.value
        return loaded


def _handles(name, sequences):
    return np.array([_arrays.count(f"{name}[{i}]", sequence, 64) for i, sequence in enumerate(sequences)], np.uint64)
