"""What both kinds of cache share: layers, statistics, conversion of a layer in place."""
import ctypes as c
from typing import NamedTuple

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

    def dim(self, side):
        return self.head_dim_v or self.head_dim if side == "v" else self.head_dim

    def format(self, side):
        return self.format_v if side == "v" else self.format_k


class Stats(NamedTuple):
    pool_bytes: int         # device memory of the slabs
    used_bytes: int         # pages held by sequences or the prefix cache; shared pages once
    used_pages: int
    total_pages: int
    sequence_tokens: int    # sum of lengths
    sequence_count: int


class Pool(Object):
    """A paged pool on a device; Cache and PagedCache say who keeps its page tables."""

    def __init__(self, device, layers, capacity, page_tokens, flags, keep=None, **more_args):
        self._context, api, self._api = device._context, device._api, device._api
        self.layers = [Layer(*layer) for layer in layers]
        array = (_abi.LayerArgs * len(self.layers))(*[self._layer_args(i) for i in range(len(self.layers))])
        args = _abi.CacheArgs(layer_count=len(self.layers), layers=array, capacity_tokens=_arrays.count("capacity", capacity, 64),
                              page_tokens=_arrays.count("page_tokens", page_tokens), flags=flags, **more_args)
        self.page_tokens = args.page_tokens or 16
        handle = self._create(device, args)
        super().__init__(api, handle, api.cache_destroy, parent=device, keep=keep)

    def _create(self, device, args):
        return self._make(self._api.cache_create, device._handle, c.byref(args))

    def _layer_args(self, index):
        layer = self.layers[index]
        if layer.rotate not in ("", "k", "v", "kv"):
            raise ValueError(f"layers[{index}].rotate is {layer.rotate!r}, not '', 'k', 'v' or 'kv'")
        fields = {"kv_heads": layer.kv_heads, "head_dim_k": layer.head_dim, "head_dim_v": layer.head_dim_v,
                  "window": layer.window, "window_sinks": layer.window_sinks,
                  "transform_k": int("k" in layer.rotate), "transform_v": int("v" in layer.rotate)}
        return _abi.LayerArgs(format_k=self._context.format_id(layer.format_k), format_v=self._context.format_id(layer.format_v),
                              **{name: _arrays.count(f"layers[{index}].{name}", value) for name, value in fields.items()})

    def stats(self):
        """Stats of memory and sequences."""
        stats = _abi.CacheStats()
        self._call(self._api.cache_stats, self._handle, c.byref(stats))
        return Stats(*(getattr(stats, name) for name in Stats._fields))

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
