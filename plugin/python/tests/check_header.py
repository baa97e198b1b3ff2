"""The binding's structs and function tables against the text of the headers: names, order and kinds of all fields."""
import ctypes as c
import pathlib
import re

from support import kvant  # noqa: F401  (sets the path)

from kvant import _abi, _abi_manager

HEADERS = pathlib.Path(__file__).resolve().parents[2] / "include" / "kvant"
SCALARS = {"size_t": c.c_size_t, "uint32_t": c.c_uint32, "int32_t": c.c_int32, "uint64_t": c.c_uint64, "int64_t": c.c_int64,
           "float": c.c_float, "double": c.c_double, "kvant_sequence": c.c_uint64}
SECTIONS = {getattr(_abi_manager, f"Config{name}"): f"config_{name.lower()}" for name in ("Policy", "Tiers", "Hybrid", "Monitor", "Accuracy")}


def kind_of_text(declaration):
    """What a C declaration passes: a scalar of ctypes, "pointer", or None for void."""
    if "*" in declaration:
        return "pointer"
    words = [word for word in re.findall(r"\w+", declaration) if word != "const"]
    if words[0].startswith("kvant_config"):
        return words[0].removeprefix("kvant_")
    return None if words[0] == "void" else SCALARS[words[0]]


def kind_of_type(type_):
    if type_ is None or type_ in SCALARS.values():
        return type_
    if issubclass(type_, c.Array):
        return (type_._type_, type_._length_)
    if type_ in SECTIONS:
        return SECTIONS[type_]
    assert c.sizeof(type_) == c.sizeof(c.c_void_p), type_
    return "pointer"


def fields_of_text(body):
    """Name -> kind, for functions the kinds of result and arguments."""
    fields = []
    for declaration in filter(str.strip, body.split(";")):
        declaration = " ".join(declaration.split())
        if function := re.fullmatch(r"(.*?)\(\*(\w+)\)\((.*)\)", declaration):
            result, name, arguments = function.groups()
            fields.append((name, [kind_of_text(part) for part in (result, *arguments.split(","))]))
        elif array := re.fullmatch(r"(.*?)(\w+)\[(\d+)\]", declaration):
            fields.append((array.group(2), (kind_of_text(array.group(1)), int(array.group(3)))))
        else:
            fields.append((re.search(r"(\w+)$", declaration).group(1), kind_of_text(declaration)))
    return fields


def fields_of_struct(struct):
    for name, type_ in struct._fields_:
        if hasattr(type_, "_argtypes_"):
            yield name, [kind_of_type(part) for part in (type_._restype_, *type_._argtypes_)]
        else:
            yield name, kind_of_type(type_)


def read_header(name):
    """Struct -> body, constant -> value."""
    text = re.sub(r"/\*.*?\*/", "", (HEADERS / name).read_text(encoding="utf-8"), flags=re.S)
    structs = dict(re.findall(r"typedef struct kvant_(\w+) \{(.*?)\n\} kvant_\w+;", text, re.S))
    constants = {name: int(value.rstrip("u"), 0) for name, value in re.findall(r"#define KVANT_(\w+) (\d\w*)", text)}
    return structs, constants


def different(found, expected):
    return [pair for pair in zip(found, expected) if pair[0] != pair[1]]


def check_core():
    structs, constants = read_header("kvant.h")
    del structs["next"]  # the binding chains no extension
    names = {name: "".join(word.title() for word in name.split("_")) for name in structs}
    assert len(structs) >= 14 and "api" in structs
    for name, body in structs.items():
        expected, found = fields_of_text(body), list(fields_of_struct(getattr(_abi, names[name])))
        assert found == expected, (name, different(found, expected))
    for name in ("SIDE_K", "SIDE_V", "TYPE_F32", "TYPE_F16", "TYPE_BF16", "DEVICE_BEST", "CACHE_EXTERNAL_PAGES", "CACHE_PREFIXES",
                 "CACHE_MASS", "PROTECT_K", "PROTECT_V", "TRANSFORM_ROTATE", "TRANSFORM_CENTRE", "ENTRY_QUERY_POSITION", "RUN_NON_CAUSAL", "RUN_INVARIANT", "RUN_MASS", "SEQUENCE_NEAR_TIERS", "POLICY_LRU", "POLICY_NONE",
                 "POLICY_WINDOW", "POLICY_ADAPTIVE"):
        assert getattr(_abi, name) == constants[name], name
    for prefix, enumeration in (("ERROR_", kvant.ErrorCode), ("LOG_", kvant.LogLevel)):
        named = {name[len(prefix):]: value for name, value in constants.items() if name.startswith(prefix)}
        assert named == {entry.name: entry.value for entry in enumeration}, prefix


def check_manager():
    """Of the extension the binding may lack what was appended: a struct's or the table's end, an event's kind."""
    structs, constants = read_header("kvant_ext_manager.h")
    structs.update(read_header("kvant_config.h")[0])
    names = ["state_args", "state_stream", "event", "store_options", "store_args", "store_stats", "tier_functions", "tier_args",
             "tiers_args", "memory_args", "prune_args", "rotation", "config", "config_policy", "config_tiers", "config_hybrid",
             "config_monitor", "config_accuracy"]
    bound = {name: "".join(word.title() for word in name.split("_")) for name in names} | {"ext_manager": "Manager"}
    for name, type_ in bound.items():
        expected, found = fields_of_text(structs[name]), list(fields_of_struct(getattr(_abi_manager, type_)))
        assert found == expected[:len(found)], (name, different(found, expected))
        if rest := expected[len(found):]:
            print(f"kvant_{name}: not bound yet: {', '.join(field for field, _ in rest)}")
    for name in ("STATE_ALL_SEQUENCES", "STATE_PREFIXES", "STATS_JSON", "STATS_PROMETHEUS", "STATS_MONITOR", "TIER_HOST", "TIER_DISK",
                 "TIER_REMOTE", "TIER_CUSTOM", "TIERS_ALWAYS_LOAD", "ROTATION_HALVES", "MEMORY_PRUNE", "TIERS_ALL", "MASS_ALL"):
        assert getattr(_abi_manager, name) == constants[name], name
    for kind in kvant.EventKind:
        assert constants[f"EVENT_{kind.name}"] == kind.value, kind


def check_header():
    check_core()
    check_manager()
