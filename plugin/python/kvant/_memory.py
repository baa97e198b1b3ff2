"""A cache's memory: limits, planned and carried out, and other formats."""
import ctypes as c

import numpy as np

from . import _abi_manager as _abi
from . import _arrays
from ._managed import Managed


class Memory(Managed):
    """What a Cache does about memory. No step may be open."""

    def memory_plan(self, limit, formats=None, prune=False, sinks=0, recent=0):
        """What memory_limit would do: text, an action a line with bytes before and after. Does nothing."""
        args, kept = self._memory_args(limit, formats, prune, sinks, recent)
        text = c.c_char_p()
        self._ask("memory_plan", c.byref(args), c.byref(text))
        del kept
        return text.value.decode()

    def memory_limit(self, limit, formats=None, prune=False, sinks=0, recent=0):
        """Brings all slabs below `limit` bytes and allocates none beyond it from now on; 0: no limit. formats: names that a
        layer's side may become, from wide to narrow; None: q8_0, q4_0. Sequences lose precision and nothing else, unless `prune`:
        then, in a cache with mass, a limit below a quarter of the bytes there are may cost them tokens as well, but for their
        first `sinks` and last `recent` ones (0: 4 and 64). KvantError RESOURCE_EXHAUSTED: the limit cannot be met, and nothing
        has changed."""
        args, kept = self._memory_args(limit, formats, prune, sinks, recent)
        self._ask("memory_limit", c.byref(args))
        del kept
        self._read_formats()

    def memory_weight(self, layer, side, weight):
        """How much an error of a layer's side ("k" or "v") hurts, relative to the others: K 2, V 1 at first. Decides what
        memory_limit narrows first; negative: never."""
        index, side_id, _ = self._place(layer, side)
        self._ask("memory_weight", index, side_id, weight)

    def quantize(self, format_k, format_v):
        """Re-encodes all layers into these formats, on the device. On an error the layers before keep their new ones."""
        try:
            self._ask("cache_quantize", self._context.format_id(format_k), self._context.format_id(format_v))
        finally:
            self._read_formats()

    def _memory_args(self, limit, formats, prune, sinks, recent):
        ids = None if formats is None else np.array([self._context.format_id(name) for name in formats], np.uint32)
        args = _abi.MemoryArgs(limit_bytes=_arrays.count("limit", limit, 64), formats=_arrays.pointer(ids),
                               format_count=0 if ids is None else ids.size, flags=_abi.MEMORY_PRUNE if prune else 0,
                               sinks=_arrays.count("sinks", sinks), recent=_arrays.count("recent", recent))
        return args, ids
