"""An opened device: facts, profile, stand-alone conversion of rows, and the caches made on it."""
import ctypes as c
import json
from typing import NamedTuple

import numpy as np

from . import _abi, _arrays
from ._cache import Cache
from ._object import Object
from ._paged import PagedCache


class Profile(NamedTuple):
    count: int            # dispatches or copies
    microseconds: float   # device time, summed


class Device(Object):
    """From Context.open(). One thread at a time uses a device, its caches and their steps; other calls wait."""

    def __init__(self, context, handle):
        super().__init__(context._api, handle, context._api.device_close, parent=context)
        self._context = context

    def describe(self):
        """Dict of name, driver, type ("discrete", "cpu", ...), vendor_id, device_id, api_version, memory_size, tier, usable,
        reasons, and facts: a dict of snapshot, plan, modules and quirks, overrides applied."""
        return self._context._info(self._api.device_describe, self._handle)

    def profile(self):
        """Device time since the last call, as a dict of label ("append", "attend_decode", ...) -> Profile. Waits for submitted
        work. KvantError (FAILED_PRECONDITION) unless the device was opened with enable_profiling."""
        result = {}
        for index in range(self._number(self._api.device_profile, self._handle, type=c.c_uint32)):
            entry = _abi.ProfileEntry()
            self._call(self._api.device_profile_entry, self._handle, index, c.byref(entry))
            result[entry.label.decode()] = Profile(entry.count, entry.microseconds)
        return result

    def measure_copy(self, size):
        """Bytes per second of a device-to-device copy of `size` bytes (a multiple of 4), best of a few."""
        return self._number(self._api.device_measure_copy, self._handle, _arrays.count("size", size, 64), type=c.c_double)

    def quantize(self, name, rows):
        """Floats [n][head_dim] -> canonical bytes uint8 [n][row_bytes] in the format `name`; bytes as in docs/formats/.
        "q5_k", "q3_k" and "q2_k", which no cache holds, want rows of a multiple of 256: all heads of a token glued."""
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2:
            raise ValueError(f"rows has shape {rows.shape}; expected (n, head_dim)")
        number, head_dim = rows.shape
        out = np.empty((number, self._context.row_bytes(name, head_dim)), np.uint8)
        self._call(self._api.quantize, self._handle, self._context.format_id(name), head_dim, number, rows.ctypes.data,
                   rows.nbytes, out.ctypes.data, out.nbytes)
        return out

    def dequantize(self, name, data, head_dim):
        """Canonical bytes uint8 [n][row_bytes] -> float32 [n][head_dim]."""
        data, row = np.asarray(data), self._context.row_bytes(name, head_dim)
        if data.dtype != np.uint8:
            raise TypeError(f"data has dtype {data.dtype}; expected uint8")
        if data.ndim != 2 or data.shape[1] != row:
            raise ValueError(f"data has shape {data.shape}; expected (n, {row}), rows of {head_dim} elements in {name}")
        data = np.ascontiguousarray(data)
        out = np.empty((data.shape[0], head_dim), np.float32)
        self._call(self._api.dequantize, self._handle, self._context.format_id(name), head_dim, data.shape[0],
                   data.ctypes.data, data.nbytes, out.ctypes.data, out.nbytes)
        return out

    def cache(self, layers, capacity, page_tokens=0, prefixes=None, slab_bytes=0, mass=False, protection=None):
        """A Cache of `layers` (Layer tuples) for `capacity` tokens of all sequences together, in pages of 16 or 32 tokens
        (0: 16). Device memory is taken by the step that first needs it. prefixes: Prefixes, to keep pages for later sequences
        that begin alike (Cache.open). slab_bytes: memory of a layer is taken and given back by so much; 0: 256 MiB.
        mass: room to count what attention each token gets (Cache.mass), 8 bytes per token, layer and KV head.
        protection: Protection, how many tokens are read in f16 where Layer.protect asks."""
        return Cache(self, layers, capacity, page_tokens, prefixes, slab_bytes, mass=mass, protection=protection)

    def configure(self, config, layers, capacity=0, page_tokens=0, prefixes=None, slab_bytes=0, mass=False):
        """A Cache with what `config` (JSON text or a dict, docs/configuration.md) says instead of what the other arguments say:
        formats, capacity, prefix cache, policy, tiers, limit, store. What it does not name stays as they have it."""
        text = config if isinstance(config, str) else json.dumps(config)
        return Cache(self, layers, capacity, page_tokens, prefixes, slab_bytes, text, mass)

    def config_apply(self, config, layers, capacity=0, prefixes=None):
        """A Cache of exactly this configuration: a dict of Context.config_default or config_parse, changed or not. The arguments
        give what no configuration knows, and the capacity and the model where it has none."""
        return Cache(self, layers, capacity, prefixes=prefixes, config=self._context._config_struct(config))

    def paged_cache(self, layers, capacity, page_tokens=0):
        """A PagedCache: the caller keeps the page tables. All layers have equal head counts, head dimensions and windows."""
        return PagedCache(self, layers, capacity, page_tokens)
