"""kvant from Python: the plugin by ctypes, tensors as numpy arrays of float32.

    with kvant.Context("libkvant.so") as context, context.open() as device:
        cache = device.cache(layers=[kvant.Layer(2, 64, "q8_0", "q4_0")], capacity=4096)
        sequence = cache.sequence()
        with cache.step([(sequence, 1, 1)]) as step:
            out = step.run(0, k=k, v=v, q=q)
"""
import ctypes as c
import json
from collections import namedtuple

import numpy as np

from . import _abi

__all__ = ["Context", "Device", "Cache", "Step", "Layer", "KvantError"]

Layer = namedtuple("Layer", "kv_heads head_dim format_k format_v head_dim_v window", defaults=(0, 0))


class KvantError(RuntimeError):
    def __init__(self, code, source, message):
        super().__init__(f"{source}: {message}")
        self.code, self.source, self.message = code, source, message


class _Object:
    """A handle that is destroyed once, by close() or at the end of a with block."""

    def __init__(self, context, handle, destroy):
        self._context, self._handle, self._destroy = context, handle, destroy

    def close(self):
        handle, self._handle = self._handle, None
        if handle:
            self._destroy(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Context(_Object):
    def __init__(self, library="libkvant.so"):
        get_api = c.CDLL(library).kvant_get_api
        get_api.restype, get_api.argtypes = c.POINTER(_abi.Api), [c.c_uint32, c.POINTER(c.c_uint32)]
        table = get_api(_abi.VERSION, None)
        if not table or table.contents.struct_size < c.sizeof(_abi.Api):
            raise OSError(f"{library} does not serve version 1.0")
        self.api = table.contents
        super().__init__(self, self._make(self.api.context_create, None), self.api.context_destroy)

    def check(self, error):
        if error:
            code = self.api.error_code(error)
            texts = [text.decode() for text in (self.api.error_source(error), self.api.error_message(error))]
            self.api.error_free(error)
            raise KvantError(code, *texts)

    def _make(self, function, *arguments):
        handle = c.c_void_p()
        self.check(function(*arguments, c.byref(handle)))
        return handle.value

    def _number(self, function, *arguments, type=c.c_uint64):
        value = type()
        self.check(function(*arguments, c.byref(value)))
        return value.value

    def devices(self):
        count = self._number(self.api.device_count, self._handle, type=c.c_uint32)
        return [self._info(self.api.device_info, self._handle, index) for index in range(count)]

    def _info(self, function, *arguments):
        info = _abi.DeviceInfo()
        self.check(function(*arguments, c.byref(info)))
        return {"name": info.name.decode(), "driver": info.driver.decode(), "tier": info.tier, "usable": bool(info.usable),
                "reasons": info.reasons.decode(), "facts": json.loads(info.json)}

    def formats(self):
        """Name -> bits per element."""
        result = {}
        for index in range(self._number(self.api.format_count, self._handle, type=c.c_uint32)):
            info = _abi.FormatInfo()
            self.check(self.api.format_info(self._handle, index, c.byref(info)))
            result[info.name.decode()] = info.bits_per_element
        return result

    def format_id(self, name):
        return self._number(self.api.format_find, self._handle, name.encode(), type=c.c_uint32)

    def open(self, index=_abi.DEVICE_BEST, **options):
        options = {key: value.encode() if isinstance(value, str) else value for key, value in options.items()}
        args = _abi.DeviceArgs(device_index=index, **options)
        return Device(self, self._make(self.api.device_open, self._handle, c.byref(args)), self.api.device_close)


class Device(_Object):
    def describe(self):
        return self._context._info(self._context.api.device_describe, self._handle)

    def quantize(self, name, rows):
        """Rows of floats [n][head_dim] -> canonical bytes [n][row_bytes]."""
        rows = _floats(rows)
        context, (count, dim) = self._context, rows.shape
        width = context._number(context.api.row_bytes, context._handle, context.format_id(name), dim)
        out = np.empty((count, width), np.uint8)
        context.check(context.api.quantize(self._handle, context.format_id(name), dim, count, rows.ctypes.data, rows.nbytes,
                                           out.ctypes.data, out.nbytes))
        return out

    def dequantize(self, name, data, head_dim):
        data = np.ascontiguousarray(data, np.uint8)
        context, out = self._context, np.empty((data.shape[0], head_dim), np.float32)
        context.check(context.api.dequantize(self._handle, context.format_id(name), head_dim, data.shape[0], data.ctypes.data,
                                             data.nbytes, out.ctypes.data, out.nbytes))
        return out

    def cache(self, layers, capacity, page_tokens=0):
        context = self._context
        array = (_abi.LayerArgs * len(layers))(*[
            _abi.LayerArgs(kv_heads=layer.kv_heads, head_dim_k=layer.head_dim, head_dim_v=layer.head_dim_v,
                           format_k=context.format_id(layer.format_k), format_v=context.format_id(layer.format_v),
                           window=layer.window) for layer in layers])
        args = _abi.CacheArgs(layer_count=len(layers), layers=array, capacity_tokens=capacity, page_tokens=page_tokens)
        return Cache(context, context._make(context.api.cache_create, self._handle, c.byref(args)), layers)


class Cache(_Object):
    def __init__(self, context, handle, layers):
        super().__init__(context, handle, context.api.cache_destroy)
        self.layers = layers

    def stats(self):
        stats = _abi.CacheStats()
        self._context.check(self._context.api.cache_stats(self._handle, c.byref(stats)))
        return {name: getattr(stats, name) for name, _ in stats._fields_[2:]}

    def sequence(self):
        return self._context._number(self._context.api.sequence_create, self._handle)

    def fork(self, parent, tokens):
        return self._context._number(self._context.api.sequence_fork, self._handle, parent, tokens)

    def truncate(self, sequence, tokens):
        self._context.check(self._context.api.sequence_truncate(self._handle, sequence, tokens))

    def destroy(self, sequence):
        self._context.check(self._context.api.sequence_destroy(self._handle, sequence))

    def length(self, sequence):
        return self._context._number(self._context.api.sequence_length, self._handle, sequence)

    def read(self, sequence, layer, side, begin=0, count=None):
        """Dequantized tokens [count][kv_heads][head_dim]; side is "k" or "v"."""
        if side not in ("k", "v"):
            raise ValueError(f'side ({side!r}) is not "k" or "v"')
        spec, value_side = self.layers[layer], side == "v"
        count = self.length(sequence) - begin if count is None else count
        dim = spec.head_dim_v or spec.head_dim if value_side else spec.head_dim
        out = np.empty((count, spec.kv_heads, dim), np.float32)
        self._context.check(self._context.api.sequence_read(
            self._handle, sequence, layer, _abi.SIDE_V if value_side else _abi.SIDE_K, begin, count, _tensor(out)))
        return out

    def step(self, entries):
        """Entries (sequence, append, queries); use as a context manager: commits at its end, aborts on an exception."""
        return Step(self, entries)


class Step:
    def __init__(self, cache, entries):
        self._cache, self._context = cache, cache._context
        self._fresh, self._queries = sum(entry[1] for entry in entries), sum(entry[2] for entry in entries)
        array = (_abi.StepEntry * len(entries))(*[
            _abi.StepEntry(sequence=sequence, append=append, queries=queries) for sequence, append, queries in entries])
        args = _abi.StepArgs(entry_count=len(entries), entries=array)
        self._handle = self._context._make(self._context.api.step_plan, cache._handle, c.byref(args))

    def run(self, layer, k=None, v=None, q=None, scale=0.0, soft_cap=0.0, causal=True):
        """Appends k, v [tokens][kv_heads][dim] and attends with q [queries][q_heads][dim]; returns [queries][q_heads][dim_v]."""
        k, v, q = (None if x is None else _floats(x) for x in (k, v, q))
        spec, out = self._cache.layers[layer], None
        dim_v = spec.head_dim_v or spec.head_dim
        _expect("k", k, self._fresh, spec.kv_heads, spec.head_dim)
        _expect("v", v, self._fresh, spec.kv_heads, dim_v)
        _expect("q", q, self._queries, None, spec.head_dim)
        if q is not None:
            out = np.empty((q.shape[0], q.shape[1], dim_v), np.float32)
        tensors = {name: _tensor(x) for name, x in (("k", k), ("v", v), ("q", q), ("out", out)) if x is not None}
        args = _abi.RunArgs(q_heads=0 if q is None else q.shape[1], flags=0 if causal else _abi.RUN_NON_CAUSAL, scale=scale,
                            soft_cap=soft_cap, **tensors)
        self._context.check(self._context.api.step_run(self._handle, layer, c.byref(args)))
        return out

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        handle, self._handle = self._handle, None
        if failure is None:
            error = self._context.api.step_commit(handle)
            if error:
                self._context.api.step_abort(handle)
                self._context.check(error)
        else:
            self._context.api.step_abort(handle)


def _floats(x):
    return np.ascontiguousarray(x, np.float32)


def _expect(name, array, tokens, heads, dim):
    if array is None:
        return
    shape = array.shape
    if len(shape) != 3 or shape[0] != tokens or heads not in (None, shape[1]) or shape[2] != dim:
        raise ValueError(f"{name} has shape {shape}; expected ({tokens}, {'q_heads' if heads is None else heads}, {dim})")


def _tensor(array):
    return c.pointer(_abi.Tensor(data=array.ctypes.data, size=array.nbytes))
