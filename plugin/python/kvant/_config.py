"""Configurations as dicts of dicts, with the keys of docs/configuration.md, by way of the struct kvant_config."""
import ctypes as c
import json

from . import _abi_manager as _abi
from . import _arrays
from ._managed import Managed

_SWITCHES = {"prefix_cache", "attention_mass", "tiers.compare_recompute"}


def _members(struct):
    """(name, type) of what is a key, or a section."""
    hidden = ("struct_size", "next", "reserved0", "reserved")
    return [(name, type_) for name, type_ in struct._fields_ if name not in hidden]


def to_dict(struct, prefix=""):
    """Every key of a filled-in struct with its value."""
    values = {}
    for name, _ in _members(struct):
        value = getattr(struct, name)
        if isinstance(value, c.Structure):
            values[name] = to_dict(value, f"{name}.")
        elif isinstance(value, bytes):
            values[name] = value.decode()
        else:
            values[name] = bool(value) if prefix + name in _SWITCHES else value
    return values


def fill(struct, values, prefix=""):
    """Writes the values, whose keys are members, into the struct; the others stay."""
    members = dict(_members(struct))
    if not isinstance(values, dict):
        raise TypeError(f"{prefix[:-1] or 'config'} ({values!r}) is not a dict")
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in members:
            raise ValueError(f"{key} is no key; expected one of {', '.join(prefix + member for member in members)}")
        if issubclass(members[name], c.Structure):
            fill(getattr(struct, name), value, f"{key}.")
        elif members[name] is c.c_char_p:
            if not isinstance(value, str):
                raise TypeError(f"{key} ({value!r}) is not a str")
            if "\0" in value:
                raise ValueError(f"{key} ({value!r}) holds a zero character")
            setattr(struct, name, value.encode())
        else:
            setattr(struct, name, _arrays.count(key, value, 8 * c.sizeof(members[name])))


class Configs(Managed):
    """Configurations, checked by the library and complete. No device is needed."""

    def config_default(self, preset=None):
        """Every key with its value: of a preset, "llm", "mobile" or "research", or with None the defaults. KvantError
        NOT_FOUND: there is no such preset."""
        return to_dict(self._config_default(preset))

    def config_parse(self, config):
        """Every key with its value, of JSON (text or a dict) that names some of them. KvantError INVALID_ARGUMENT names
        the key that is wrong."""
        text, struct = config if isinstance(config, str) else json.dumps(config), _abi.Config()
        self._ask("config_parse", text.encode(), c.byref(struct))
        return to_dict(struct)

    def config_write(self, config):
        """JSON text with every key, of a dict with numbers, switches and texts; what it lacks is the default."""
        text, struct = c.c_char_p(), self._config_struct(config)
        self._ask("config_write", c.byref(struct), c.byref(text))
        return text.value.decode()

    def _config_default(self, preset):
        struct = _abi.Config()
        self._ask("config_default", None if preset is None else preset.encode(), c.byref(struct))
        return struct

    def _config_struct(self, config):
        struct = self._config_default(None)
        fill(struct, config)
        return struct
