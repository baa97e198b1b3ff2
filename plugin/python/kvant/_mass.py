"""Attention mass: what weight tokens get, and sequences pruned by it."""
import ctypes as c

import numpy as np

from . import _abi_manager as _abi
from . import _arrays
from ._managed import Managed


class Mass(Managed):
    """What a Cache of mass=True knows of its tokens. KvantError FAILED_PRECONDITION: it is not one."""

    def mass(self, sequence, layer=None, kv_head=None, begin=0, count=None):
        """float32 [count]: of each token the weights that the queries of Step.run(..., mass=True) had for it, summed
        over the queries, the mean over the query heads of a KV head. layer and kv_head: a number, or None: the mean
        over all. count None: all from `begin` on."""
        sequence, begin = _arrays.count("sequence", sequence, 64), _arrays.count("begin", begin, 64)
        count = max(self.length(sequence) - begin, 0) if count is None else _arrays.count("count", count, 64)
        if count > self.length(sequence):  # before there is an array of that size
            raise ValueError(f"count ({count}) is greater than the sequence's {self.length(sequence)} tokens")
        which = [_abi.MASS_ALL if value is None else _arrays.count(name, value)
                 for name, value in (("layer", layer), ("kv_head", kv_head))]
        out = np.empty(count, np.float32)
        self._ask("sequence_mass", sequence, *which, begin, count, out.ctypes.data)
        return out

    def clear_mass(self, sequence):
        """Sets the masses of the sequence's tokens to 0, for all sequences that share its pages."""
        self._ask("sequence_mass_clear", _arrays.count("sequence", sequence, 64))

    def prune(self, sequence, keep, sinks=0, recent=0):
        """Keeps at most `keep` tokens: the first `sinks` (0: 4), the last `recent` (0: 64), and of the others those of
        the largest mass. Returns the places of those that stay. Keys keep their rotation: the next query's position is
        what it would have been. No step may be open."""
        sequence, keep = _arrays.count("sequence", sequence, 64), _arrays.count("keep", keep, 64)
        args = _abi.PruneArgs(keep_tokens=keep, sinks=_arrays.count("sinks", sinks), recent=_arrays.count("recent", recent))
        places, kept = np.empty(min(keep, self.length(sequence)), np.uint64), c.c_uint64()
        self._ask("sequence_prune", sequence, c.byref(args), places.ctypes.data, c.byref(kept))
        return places[:kept.value]

    def cool(self, target, formats=None, sinks=0, recent=0):
        """V of the pages of least mass becomes narrower until pool_bytes of stats() is at most `target`; returns how many pages.
        formats: one or two names that V of a page becomes, one after the other, from wide to narrow; None: t3, t2. Pages of a
        sequence's first `sinks` (0: 4) and last `recent` (0: 64) tokens stay as they are. No step may be open. KvantError
        RESOURCE_EXHAUSTED: the target cannot be met, and nothing has cooled."""
        ids = None if formats is None else np.array([self._context.format_id(name) for name in formats], np.uint32)
        args = _abi.CoolArgs(target_bytes=_arrays.count("target", target, 64), formats=_arrays.pointer(ids),
                             format_count=0 if ids is None else ids.size, sinks=_arrays.count("sinks", sinks),
                             recent=_arrays.count("recent", recent))
        pages = c.c_uint64()
        self._ask("cache_cool", c.byref(args), c.byref(pages))
        return pages.value
