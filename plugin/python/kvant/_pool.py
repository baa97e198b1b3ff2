"""What both kinds of cache share: layers, statistics, conversion of a layer in place."""
import ctypes as c
from typing import NamedTuple

import numpy as np

from . import _abi, _arrays
from ._object import Object

_SIDES = {"k": _abi.SIDE_K, "v": _abi.SIDE_V}


class Layer(NamedTuple):
    """Geometry and formats of one layer."""
    kv_heads: int
    head_dim: int           # of K: 32 to 576, a multiple of 8
    format_k: str
    format_v: str
    head_dim_v: int = 0     # 0: as K
    window: int = 0         # sliding window in tokens, the query's own included; 0: none
    window_sinks: int = 0   # first tokens that stay visible outside the window
    rotate: str = ""        # sides whose rows are rotated before they are quantized: "", "k", "v" or "kv"
    centre: str = ""        # sides from whose rows a mean per KV head is subtracted first: "", "k", "v" or "kv"
    means_k: object = None  # of a centred side: [kv_heads][head_dim], as Cache.means gives them; None: measured over the first rows
    means_v: object = None
    protect: str = ""       # sides whose first and newest tokens are read in f16; if one layer says so, in all of them (Protection); not in a PagedCache

    def dim(self, side):
        return self.head_dim_v or self.head_dim if side == "v" else self.head_dim

    def format(self, side):
        return self.format_v if side == "v" else self.format_k


class Protection(NamedTuple):
    """Tokens that attention reads in f16 although their formats are narrower, in the sides that Layer.protect names (docs/protection.md)."""
    first: int = 4      # of a sequence
    newest: int = 64    # that a query sees, its own included
    tokens: int = 0     # room for so many, of all sequences together; 0: an eighth of the capacity, or what one sequence needs


class Stats(NamedTuple):
    pool_bytes: int         # device memory of the slabs
    used_bytes: int         # pages held by sequences or the prefix cache; shared pages once
    used_pages: int
    total_pages: int
    sequence_tokens: int    # sum of lengths
    sequence_count: int


class Pool(Object):
    """A paged pool on a device; Cache and PagedCache say who keeps its page tables."""

    def __init__(self, device, layers, capacity, page_tokens, flags, keep=None, protection=None, **more_args):
        self._context, api, self._api = device._context, device._api, device._api
        self.layers = [Layer(*layer) for layer in layers]
        kept = []  # means, until the library has read them
        array = (_abi.LayerArgs * len(self.layers))(*[self._layer_args(i, kept) for i in range(len(self.layers))])
        args = _abi.CacheArgs(layer_count=len(self.layers), layers=array, capacity_tokens=_arrays.count("capacity", capacity, 64),
                              page_tokens=_arrays.count("page_tokens", page_tokens), flags=flags, **self._protect_args(protection, flags), **more_args)
        self.page_tokens = args.page_tokens or 16
        handle = self._create(device, args)
        super().__init__(api, handle, api.cache_destroy, parent=device, keep=keep)

    def _create(self, device, args):
        return self._make(self._api.cache_create, device._handle, c.byref(args))

    def _protect_args(self, protection, flags):
        sides = {side for layer in self.layers for side in layer.protect}
        if not sides and protection is not None:
            raise ValueError("protection is given, but no layer has a side to protect (Layer.protect)")
        if not sides or flags & _abi.CACHE_EXTERNAL_PAGES:
            return {}
        first, newest, tokens = Protection(*(protection if protection is not None else ()))
        return {"protect_sides": _abi.PROTECT_K * ("k" in sides) | _abi.PROTECT_V * ("v" in sides), "protect_first": _arrays.count("protection.first", first),
                "protect_newest": _arrays.count("protection.newest", newest), "protect_tokens": _arrays.count("protection.tokens", tokens, 64)}

    def _layer_args(self, index, kept):
        layer = self.layers[index]
        for name in ("rotate", "centre", "protect"):
            if getattr(layer, name) not in ("", "k", "v", "kv"):
                raise ValueError(f"layers[{index}].{name} is {getattr(layer, name)!r}, not '', 'k', 'v' or 'kv'")
        for side in "kv":
            means = _arrays.rows(f"layers[{index}].means_{side}", getattr(layer, f"means_{side}"), (layer.kv_heads, layer.dim(side)))
            kept.append(means)
        fields = {"kv_heads": layer.kv_heads, "head_dim_k": layer.head_dim, "head_dim_v": layer.head_dim_v,
                  "window": layer.window, "window_sinks": layer.window_sinks,
                  **{f"transform_{side}": _abi.TRANSFORM_ROTATE * (side in layer.rotate) | _abi.TRANSFORM_CENTRE * (side in layer.centre)
                     for side in "kv"}}
        means_k, means_v = (None if means is None else means.ctypes.data for means in kept[-2:])
        return _abi.LayerArgs(means_k=means_k, means_v=means_v, format_k=self._context.format_id(layer.format_k), format_v=self._context.format_id(layer.format_v),
                              **{name: _arrays.count(f"layers[{index}].{name}", value) for name, value in fields.items()})

    def stats(self):
        """Stats of memory and sequences."""
        stats = _abi.CacheStats()
        self._call(self._api.cache_stats, self._handle, c.byref(stats))
        return Stats(*(getattr(stats, name) for name in Stats._fields))

    def means(self, layer, side):
        """What a centred side ("k" or "v") is centred by, float32 [kv_heads][head_dim]; zeros if by nothing, or nothing yet."""
        index, side_id, spec = self._place(layer, side)
        out = np.empty((spec.kv_heads, spec.dim(side)), np.float32)
        self._call(self._api.cache_means, self._handle, index, side_id, out.ctypes.data, out.size)
        return out

    def convert(self, layer, side, name):
        """Re-encodes one side ("k" or "v") of a layer into the format `name`, on the device. No step may be open."""
        index, side_id, spec = self._place(layer, side)
        self._call(self._api.cache_convert, self._handle, index, side_id, self._context.format_id(name))
        self.layers[index] = spec._replace(**{f"format_{side}": name})

    def _place(self, layer, side):
        """Index, side's number and Layer, checked."""
        if side not in _SIDES:
            raise ValueError(f'side ({side!r}) is not "k" or "v"')
        index = _arrays.count("layer", layer)
        if index >= len(self.layers):
            raise ValueError(f"layer ({index}) is not less than the {len(self.layers)} layers of the cache")
        return index, _SIDES[side], self.layers[index]
