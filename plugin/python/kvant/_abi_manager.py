"""kvant_ext_manager.h and kvant_config.h in ctypes: the structs and the function table, field by field in the header's order."""
import ctypes as c

from . import _abi
from ._abi import _TP, _call, _ptr, _pu32, _pu64, _str, _struct, _u32, _u64

NAME = b"kvant.manager/1"
STATE_ALL_SEQUENCES, STATE_PREFIXES = 1, 2
STATS_JSON, STATS_PROMETHEUS, STATS_MONITOR = range(3)
TIER_HOST, TIER_DISK, TIER_REMOTE, TIER_CUSTOM = range(1, 5)
TIERS_ALWAYS_LOAD = 1
TIERS_ALL = 0xFFFFFFFF
MEMORY_PRUNE = 1
MASS_ALL = 0xFFFFFFFF
ROTATION_HALVES = 1

StateArgs = _struct("StateArgs", ("sequences", _ptr), ("sequence_count", _u32), ("flags", _u32))
StreamWrite = c.CFUNCTYPE(_u32, _ptr, _ptr, _u64)
StreamRead = c.CFUNCTYPE(_u64, _ptr, _ptr, _u64)
StateStream = _struct("StateStream", ("user_data", _ptr), ("write", StreamWrite), ("read", StreamRead))
Event = _struct("Event", ("number", _u64), ("time_ms", _u64), ("a", _u64), ("b", _u64), ("sequence", _u64), ("kind", _u32),
                ("reserved", _u32))
StoreOptions = _struct("StoreOptions", ("cold_cache", _ptr), ("policy", c.POINTER(_abi.PolicyArgs)), ("promote_uses", _u32),
                       ("reserved", _u32))
StoreArgs = _struct("StoreArgs", ("tokens", _ptr), ("token_count", _u64), ("salt", _str), ("salt_size", _u64), ("batch", _u32),
                    ("layer", _u32), ("k", _TP), ("v", _TP), ("k_batch_stride", _u64), ("v_batch_stride", _u64))
StoreStats = _struct("StoreStats", ("puts", _u64), ("lookups", _u64), ("hits", _u64), ("prefixes", _u64), ("cold_prefixes", _u64),
                     ("evicted", _u64), ("demoted", _u64), ("promoted", _u64))
TierPut = c.CFUNCTYPE(_u32, _ptr, _ptr, _ptr, _u64)
TierGet = c.CFUNCTYPE(_u64, _ptr, _ptr, _ptr, _u64)
TierContains = c.CFUNCTYPE(_u32, _ptr, _ptr)
TierErase = c.CFUNCTYPE(None, _ptr, _ptr)
TierClear = c.CFUNCTYPE(None, _ptr)
TierFunctions = _struct("TierFunctions", ("user_data", _ptr), ("name", _str), ("put", TierPut), ("get", TierGet),
                        ("contains", TierContains), ("erase", TierErase), ("clear", TierClear))
TierArgs = _struct("TierArgs", ("kind", _u32), ("timeout_ms", _u32), ("capacity_bytes", _u64), ("location", _str),
                   ("functions", c.POINTER(TierFunctions)))
TiersArgs = _struct("TiersArgs", ("tier_count", _u32), ("tier_stride", _u32), ("tiers", c.POINTER(TierArgs)), ("format_k", _str),
                    ("format_v", _str), ("store_after_uses", _u32), ("flags", _u32), ("min_tokens", _u64), ("queue_bytes", _u64))
MemoryArgs = _struct("MemoryArgs", ("limit_bytes", _u64), ("formats", _ptr), ("format_count", _u32), ("flags", _u32),
                     ("sinks", _u32), ("recent", _u32))
PruneArgs = _struct("PruneArgs", ("keep_tokens", _u64), ("sinks", _u32), ("recent", _u32))
CoolArgs = _struct("CoolArgs", ("target_bytes", _u64), ("formats", _ptr), ("format_count", _u32), ("sinks", _u32), ("recent", _u32),
                   ("reserved", _u32))
Rotation = _struct("Rotation", ("frequencies", _ptr), ("pair_count", _u32), ("flags", _u32))


def _section(name, *fields):
    return type(name, (c.Structure,), {"_fields_": list(fields)})


ConfigPolicy = _section("ConfigPolicy", ("kind", _str), ("ttl_ms", _u64), ("sink_pages", _u32), ("reserved0", _u32),
                        ("reserved", _u64 * 4))
ConfigTiers = _section("ConfigTiers", ("host_bytes", _u64), ("disk_folder", _str), ("disk_bytes", _u64), ("remote_servers", _str),
                       ("format", _str), ("min_tokens", _u64), ("queue_bytes", _u64), ("remote_timeout_ms", _u32),
                       ("store_after_uses", _u32), ("compare_recompute", _u32), ("reserved0", _u32), ("reserved", _u64 * 8))
ConfigHybrid = _section("ConfigHybrid", ("hot_format", _str), ("cold_format", _str), ("promote_uses", _u32), ("reserved0", _u32),
                        ("reserved", _u64 * 4))
ConfigAccuracy = _section("ConfigAccuracy", ("centre", _str), ("rotate", _str), ("protect", _str), ("protect_first", _u32), ("protect_newest", _u32),
                          ("reserved", _u64 * 4))
ConfigMonitor = _section("ConfigMonitor", ("history", _u32), ("reserved0", _u32), ("interval_ms", _u64), ("reserved", _u64 * 4))
Config = _struct("Config", ("preset", _str), ("capacity_tokens", _u64), ("memory_limit_bytes", _u64), ("preallocate_bytes", _u64),
                 ("slab_bytes", _u64), ("format_k", _str), ("format_v", _str), ("model_id", _str), ("page_tokens", _u32),
                 ("window", _u32), ("window_sinks", _u32), ("prefix_cache", _u32), ("events", _u32), ("attention_mass", _u32),
                 ("policy", ConfigPolicy), ("tiers", ConfigTiers), ("hybrid", ConfigHybrid), ("monitor", ConfigMonitor),
                 ("accuracy", ConfigAccuracy))

_text = c.POINTER(_str)


class Manager(c.Structure):
    """The function table. A slot more is a line more, at the end: a library that lacks it leaves the slot NULL."""
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("state_save", _call(_ptr, c.POINTER(StateArgs), c.POINTER(StateStream))),
        ("state_load", _call(_ptr, c.POINTER(StateStream), _pu32)),
        ("state_loaded", _call(_ptr, _u32, _pu64, _pu64)),
        ("state_save_file", _call(_ptr, c.POINTER(StateArgs), _str)),
        ("state_load_file", _call(_ptr, _str, _pu32)),
        ("stats_text", _call(_ptr, _u32, _str, _text, _pu64)),
        ("stats_observe", _call(_ptr)),
        ("stats_sample_errors", _call(_ptr, _u64)),
        ("events_poll", _call(_ptr, _u64, _u32, c.POINTER(Event), _pu32, _pu64)),
        ("store_open", _call(_ptr, c.POINTER(StoreOptions))),
        ("store_put", _call(_ptr, c.POINTER(StoreArgs))),
        ("store_get", _call(_ptr, c.POINTER(StoreArgs), _ptr)),
        ("store_find", _call(_ptr, c.POINTER(StoreArgs), _ptr)),
        ("store_erase", _call(_ptr, c.POINTER(StoreArgs))),
        ("store_clear", _call(_ptr)),
        ("store_stats", _call(_ptr, c.POINTER(StoreStats))),
        ("sequence_write", _call(_ptr, _u64, _u32, _u64, _u64, _TP, _TP)),
        ("clear_all", _call(_ptr, _pu64)),
        ("tiers_set", _call(_ptr, c.POINTER(TiersArgs))),
        ("tiers_store", _call(_ptr)),
        ("tiers_prefetch", _call(_ptr, c.POINTER(_abi.SequenceArgs))),
        ("tiers_wait", _call(_ptr)),
        ("memory_plan", _call(_ptr, c.POINTER(MemoryArgs), _text)),
        ("memory_limit", _call(_ptr, c.POINTER(MemoryArgs))),
        ("memory_weight", _call(_ptr, _u32, _u32, c.c_double)),
        ("cache_quantize", _call(_ptr, _u32, _u32)),
        ("cache_configure", _call(_ptr, c.POINTER(_abi.CacheArgs), _str, c.POINTER(_ptr))),
        ("config_text", _call(_ptr, _text)),
        ("sequence_keep", _call(_ptr, _u64, _u64, _ptr)),
        ("sequence_identify", _call(_ptr, _u64, _u64, _ptr)),
        ("sequence_shift", _call(_ptr, _u64, _u64, _u64, c.POINTER(Rotation), c.c_int64)),
        ("config_default", _call(_ptr, _str, c.POINTER(Config))),
        ("config_parse", _call(_ptr, _str, c.POINTER(Config))),
        ("config_write", _call(_ptr, c.POINTER(Config), _text)),
        ("config_apply", _call(_ptr, c.POINTER(_abi.CacheArgs), c.POINTER(Config), c.POINTER(_ptr))),
        ("tiers_clear", _call(_ptr, _u32)),
        ("sequence_mass", _call(_ptr, _u64, _u32, _u32, _u64, _u64, _ptr)),
        ("sequence_mass_clear", _call(_ptr, _u64)),
        ("sequence_prune", _call(_ptr, _u64, c.POINTER(PruneArgs), _ptr, _pu64)),
        ("cache_cool", _call(_ptr, c.POINTER(CoolArgs), _pu64)),
    ]


def load(api, context):
    """The library's table, as far as it goes; all NULL where the library does not have the extension."""
    table, address = Manager(), api.get_extension(context, NAME)
    if address:
        c.memmove(c.byref(table), address, min(c.c_size_t.from_address(address).value, c.sizeof(table)))
    return table
