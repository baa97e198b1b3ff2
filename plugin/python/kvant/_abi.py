"""kvant.h in ctypes: the structs and the function table, field by field in the header's order."""
import ctypes as c

VERSION = 1 << 16 | 2
SIDE_K, SIDE_V = 0, 1
TRANSFORM_ROTATE, TRANSFORM_CENTRE = 1, 2
PROTECT_K, PROTECT_V = 1, 2
TYPE_F32, TYPE_F16, TYPE_BF16 = 0, 1, 2
DEVICE_BEST = 0xFFFFFFFF
CACHE_EXTERNAL_PAGES = 1
CACHE_PREFIXES = 2
CACHE_MASS = 4
POLICY_LRU, POLICY_NONE, POLICY_WINDOW, POLICY_ADAPTIVE = range(4)
ENTRY_QUERY_POSITION = 1
RUN_NON_CAUSAL, RUN_INVARIANT, RUN_MASS = 1, 2, 4
SEQUENCE_NEAR_TIERS = 1


class Struct(c.Structure):
    """A struct of the ABI: struct_size is set, all else is zero unless given."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.struct_size = c.sizeof(self)


def _struct(name, *fields):
    head = [("struct_size", c.c_size_t), ("next", c.c_void_p)]
    return type(name, (Struct,), {"_fields_": head + list(fields)})


_u32, _u64, _f32, _ptr, _str = c.c_uint32, c.c_uint64, c.c_float, c.c_void_p, c.c_char_p

# log(user_data, level, message, message_size): the message has no NUL at its end, so it is a pointer, not a string.
LogCallback = c.CFUNCTYPE(None, _ptr, _u32, _ptr, c.c_size_t)
ContextArgs = _struct("ContextArgs", ("user_data", _ptr), ("log", LogCallback), ("log_level", _u32), ("enable_validation", _u32))
DeviceInfo = _struct("DeviceInfo", ("name", _str), ("driver", _str), ("type", _u32), ("vendor_id", _u32), ("device_id", _u32),
                     ("api_version", _u32), ("memory_size", _u64), ("tier", _u32), ("usable", _u32), ("reasons", _str),
                     ("json", _str))
DeviceArgs = _struct("DeviceArgs", ("device_index", _u32), ("enable_profiling", _u32), ("capability_override", _str),
                     ("quirks", _str), ("pipeline_cache_folder", _str), ("memory_limit", _u64))
FormatInfo = _struct("FormatInfo", ("name", _str), ("block_elements", _u32), ("block_bytes", _u32),
                     ("bits_per_element", c.c_double))
LayerArgs = _struct("LayerArgs", ("kv_heads", _u32), ("head_dim_k", _u32), ("head_dim_v", _u32), ("format_k", _u32),
                    ("format_v", _u32), ("window", _u32), ("window_sinks", _u32), ("unused", _u32), ("transform_k", _u32),
                    ("transform_v", _u32), ("means_k", _ptr), ("means_v", _ptr))
PolicyArgs = _struct("PolicyArgs", ("kind", _u32), ("sink_pages", _u32), ("ttl_ms", _u64))
CacheArgs = _struct("CacheArgs", ("layer_count", _u32), ("layer_stride", _u32), ("layers", c.POINTER(LayerArgs)),
                    ("capacity_tokens", _u64), ("page_tokens", _u32), ("flags", _u32), ("model_id", _str), ("rope", _str),
                    ("policy", c.POINTER(PolicyArgs)), ("slab_bytes", _u64), ("protect_sides", _u32), ("protect_first", _u32),
                    ("protect_newest", _u32), ("reserved", _u32), ("protect_tokens", _u64))
SequenceArgs = _struct("SequenceArgs", ("tokens", _ptr), ("token_count", _u64), ("salt", _str), ("salt_size", _u64),
                       ("leave_tokens", _u64), ("ttl_ms", _u64), ("priority", _u32), ("flags", _u32))
PrefixStats = _struct("PrefixStats", ("lookups", _u64), ("lookup_tokens", _u64), ("hits", _u64), ("hit_tokens", _u64),
                      ("published_pages", _u64), ("merged_pages", _u64), ("evicted_capacity", _u64), ("evicted_expired", _u64),
                      ("evicted_cleared", _u64), ("evicted_limit", _u64), ("pages", _u64), ("unshared_pages", _u64))
CacheStats = _struct("CacheStats", ("pool_bytes", _u64), ("used_bytes", _u64), ("used_pages", _u64), ("total_pages", _u64),
                     ("sequence_tokens", _u64), ("sequence_count", _u64))
Tensor = _struct("Tensor", ("data", _ptr), ("size", _u64), ("buffer", _u64), ("offset", _u64), ("type", _u32),
                 ("reserved", _u32), ("token_stride", _u64), ("head_stride", _u64))
StepEntry = _struct("StepEntry", ("sequence", _u64), ("append", _u32), ("queries", _u32), ("flags", _u32),
                    ("query_position", c.c_int32), ("mask", _ptr), ("mask_begin", _u64), ("mask_row_words", _u32),
                    ("reserved", _u32), ("tokens", _ptr))
StepArgs = _struct("StepArgs", ("entry_count", _u32), ("entry_stride", _u32), ("entries", c.POINTER(StepEntry)))
PagedArgs = _struct("PagedArgs", ("batch", _u32), ("token_count", _u32), ("slot_mapping", _ptr), ("qo_indptr", _ptr),
                    ("kv_indptr", _ptr), ("kv_indices", _ptr), ("kv_last_page_len", _ptr), ("query_positions", _ptr),
                    ("mask", _ptr), ("mask_row_words", _u32), ("reserved", _u32))
_TP = c.POINTER(Tensor)
RunArgs = _struct("RunArgs", ("k", _TP), ("v", _TP), ("q", _TP), ("out", _TP), ("lse", _TP), ("q_heads", _u32),
                  ("flags", _u32), ("scale", _f32), ("soft_cap", _f32), ("sinks", _ptr), ("alibi_slopes", _ptr))
ProfileEntry = _struct("ProfileEntry", ("label", _str), ("count", _u64), ("microseconds", c.c_double))
BuildInfo = _struct("BuildInfo", ("version", _str), ("commit", _str), ("compiler", _str), ("sanitizers", _str),
                    ("shader_set", _str), ("missing_modules", _str))


def _call(*arguments):
    return c.CFUNCTYPE(_ptr, *arguments)


def _destroy():
    return c.CFUNCTYPE(None, _ptr)


_pu32, _pu64, _out = c.POINTER(_u32), c.POINTER(_u64), c.POINTER(_ptr)


class Api(c.Structure):
    """The function table of version 1.1. An error is a pointer; None is success."""
    _fields_ = [
        ("struct_size", c.c_size_t), ("version", _u32), ("reserved", _u32),
        ("error_code", c.CFUNCTYPE(_u32, _ptr)), ("error_message", c.CFUNCTYPE(_str, _ptr)),
        ("error_source", c.CFUNCTYPE(_str, _ptr)), ("error_free", _destroy()), ("get_build_info", _call(c.POINTER(BuildInfo))),
        ("context_create", _call(c.POINTER(ContextArgs), _out)), ("context_destroy", _destroy()),
        ("get_extension", c.CFUNCTYPE(_ptr, _ptr, _str)),
        ("format_count", _call(_ptr, _pu32)), ("format_info", _call(_ptr, _u32, c.POINTER(FormatInfo))),
        ("format_find", _call(_ptr, _str, _pu32)),
        ("device_count", _call(_ptr, _pu32)), ("device_info", _call(_ptr, _u32, c.POINTER(DeviceInfo))),
        ("device_open", _call(_ptr, c.POINTER(DeviceArgs), _out)), ("device_close", _destroy()),
        ("device_describe", _call(_ptr, c.POINTER(DeviceInfo))), ("device_profile", _call(_ptr, _pu32)),
        ("device_profile_entry", _call(_ptr, _u32, c.POINTER(ProfileEntry))),
        ("device_measure_copy", _call(_ptr, _u64, c.POINTER(c.c_double))),
        ("row_bytes", _call(_ptr, _u32, _u32, _pu64)),
        ("quantize", _call(_ptr, _u32, _u32, _u64, _ptr, _u64, _ptr, _u64)),
        ("dequantize", _call(_ptr, _u32, _u32, _u64, _ptr, _u64, _ptr, _u64)),
        ("cache_create", _call(_ptr, c.POINTER(CacheArgs), _out)), ("cache_destroy", _destroy()),
        ("cache_stats", _call(_ptr, c.POINTER(CacheStats))), ("cache_convert", _call(_ptr, _u32, _u32, _u32)),
        ("sequence_create", _call(_ptr, _pu64)), ("sequence_destroy", _call(_ptr, _u64)),
        ("sequence_fork", _call(_ptr, _u64, _u64, _pu64)), ("sequence_truncate", _call(_ptr, _u64, _u64)),
        ("sequence_length", _call(_ptr, _u64, _pu64)),
        ("sequence_read", _call(_ptr, _u64, _u32, _u32, _u64, _u64, _TP)),
        ("sequence_export", _call(_ptr, _u64, _u32, _u32, _u64, _u64, _ptr, _u64)),
        ("step_plan", _call(_ptr, c.POINTER(StepArgs), _out)), ("step_run", _call(_ptr, _u32, c.POINTER(RunArgs))),
        ("step_commit", _call(_ptr)), ("step_abort", _destroy()),
        ("paged_plan", _call(_ptr, c.POINTER(PagedArgs), _out)), ("paged_read", _call(_ptr, _u32, _u32, _u64, _ptr, _TP)),
        ("paged_copy", _call(_ptr, _u32, _ptr, _ptr)),
        ("sequence_open", _call(_ptr, c.POINTER(SequenceArgs), _pu64, _pu64)),
        ("prefix_find", _call(_ptr, c.POINTER(SequenceArgs), _pu64)), ("prefix_clear", _call(_ptr, _pu64)),
        ("prefix_policy", _call(_ptr, c.POINTER(PolicyArgs))), ("prefix_stats", _call(_ptr, c.POINTER(PrefixStats))),
        ("cache_means", _call(_ptr, _u32, _u32, _ptr, _u64)),
    ]
