"""The library, loaded: build facts, formats, devices and the log."""
import ctypes as c
import enum
import json
from typing import NamedTuple

from . import _abi, _abi_manager, _arrays
from ._config import Configs
from ._device import Device


class LogLevel(enum.IntEnum):
    """Levels of log messages, as KVANT_LOG_* in kvant.h. The last two blame: the host broke a rule of kvant.h; the library met
    a state it should not."""
    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3
    HOST_MISBEHAVING = 4
    PLUGIN_MISBEHAVING = 5


class Format(NamedTuple):
    block_elements: int       # elements that share a scale; 1 for formats without one
    block_bytes: int          # canonical bytes of a block
    bits_per_element: float   # in the pool, at head dimension 128, scales included


def load(library):
    """The function table of a libkvant.so; OSError if it cannot be loaded or serves another major version."""
    get_api = c.CDLL(library).kvant_get_api
    get_api.restype, get_api.argtypes = c.POINTER(_abi.Api), [c.c_uint32, c.POINTER(c.c_uint32)]
    table = get_api(_abi.VERSION, None)
    if not table or table.contents.struct_size < c.sizeof(_abi.Api):
        raise OSError(f"{library} does not serve version 1.1")
    return table.contents


def _log_callback(log):
    if log is None:
        return _abi.LogCallback()  # NULL

    def receive(_, level, message, size):
        level = LogLevel(level) if level in LogLevel._value2member_map_ else level
        log(level, c.string_at(message, size).decode(errors="replace"))

    return _abi.LogCallback(receive)


class Context(Configs):
    """The library `library` (a path, or a name that the loader finds) with its log and devices.

    log: a function of (LogLevel, str), called during calls of this binding, on the same thread; it must not call back into a
    device's objects. Messages below log_level are left out. enable_validation: Vulkan's validation layer with synchronization
    checks, if it is installed; its messages come as LogLevel.PLUGIN_MISBEHAVING.
    A machine without Vulkan is no error here: devices() is empty, and open() says why."""

    def __init__(self, library="libkvant.so", log=None, log_level=LogLevel.WARNING, enable_validation=False):
        api, callback = load(library), _log_callback(log)
        self._api = api
        args = _abi.ContextArgs(log=callback, log_level=_arrays.count("log_level", log_level),
                                enable_validation=bool(enable_validation))
        handle = self._make(api.context_create, c.byref(args))
        super().__init__(api, handle, api.context_destroy, keep=callback)
        self._manager = _abi_manager.load(api, handle)

    @property
    def _context(self):
        return self

    def build_info(self):
        """Dict of version, commit, compiler, sanitizers, shader_set and missing_modules (a list of kernel names)."""
        info = _abi.BuildInfo()
        self._call(self._api.get_build_info, c.byref(info))
        facts = {name: getattr(info, name).decode() for name, _ in info._fields_[2:]}
        facts["missing_modules"] = [name for name in facts["missing_modules"].split(",") if name]
        return facts

    def formats(self):
        """Dict of format name -> Format, in the order of the ids."""
        result = {}
        for index in range(self._number(self._api.format_count, self._handle, type=c.c_uint32)):
            info = _abi.FormatInfo()
            self._call(self._api.format_info, self._handle, index, c.byref(info))
            result[info.name.decode()] = Format(info.block_elements, info.block_bytes, info.bits_per_element)
        return result

    def format_id(self, name):
        """KvantError (NOT_FOUND) names the formats that exist."""
        return self._number(self._api.format_find, self._handle, name.encode(), type=c.c_uint32)

    def row_bytes(self, name, head_dim):
        """Canonical bytes of a row of head_dim elements in the format `name`."""
        return self._number(self._api.row_bytes, self._handle, self.format_id(name), _arrays.count("head_dim", head_dim))

    def devices(self):
        """A dict per device, see Device.describe; the position in the list is the index for open()."""
        number = self._number(self._api.device_count, self._handle, type=c.c_uint32)
        return [self._info(self._api.device_info, self._handle, index) for index in range(number)]

    def _info(self, function, *arguments):
        info = _abi.DeviceInfo()
        self._call(function, *arguments, c.byref(info))
        facts = {name: getattr(info, name) for name, _ in info._fields_[2:]}
        for name in ("name", "driver", "reasons"):
            facts[name] = facts[name].decode()
        types = ("other", "integrated", "discrete", "virtual", "cpu")
        facts["type"] = types[info.type] if info.type < len(types) else types[0]
        facts["usable"] = bool(info.usable)
        facts["facts"] = json.loads(facts.pop("json"))
        return facts

    def open(self, index=None, enable_profiling=False, capability_override=None, quirks=None, pipeline_cache_folder=None,
             memory_limit=0):
        """Opens the device `index` of devices(); None: the best one.

        enable_profiling: for Device.profile(). capability_override: JSON text or a dict that narrows the device. quirks:
        "+name,-name". pipeline_cache_folder: where compiled pipelines are kept. memory_limit: bytes of device memory, 0 for
        none of our own. KvantError (UNAVAILABLE) lists why no device can be used."""
        if isinstance(capability_override, dict):
            capability_override = json.dumps(capability_override)
        texts = {"capability_override": capability_override, "quirks": quirks, "pipeline_cache_folder": pipeline_cache_folder}
        texts = {name: None if value is None else str(value).encode() for name, value in texts.items()}
        args = _abi.DeviceArgs(device_index=_abi.DEVICE_BEST if index is None else _arrays.count("index", index),
                               enable_profiling=bool(enable_profiling),
                               memory_limit=_arrays.count("memory_limit", memory_limit, 64), **texts)
        return Device(self, self._make(self._api.device_open, self._handle, c.byref(args)))
