"""Configurations as complete dicts: presets, JSON and back, and the caches made of them."""
import json

from served import LAYERS, PREFIXES, layers, prompt, serve
from support import refused

import kvant
from kvant import ErrorCode


def check_dicts(context):
    plain, llm = context.config_default(), context.config_default("llm")
    assert plain["events"] == 1024 and plain["attention_mass"] is False and plain["tiers"]["compare_recompute"] is True
    assert llm["preset"] == "llm" and llm["capacity_tokens"] == 131072 and llm["policy"]["kind"] == "adaptive"
    for config in (plain, llm, context.config_default("mobile")):
        assert json.loads(context.config_write(config)) == config and context.config_parse(context.config_write(config)) == config
    assert json.loads(context.config_write({})) == plain
    parsed = context.config_parse({"preset": "llm", "tiers": {"host_bytes": "2GiB"}, "attention_mass": True})
    assert parsed == llm | {"tiers": llm["tiers"] | {"host_bytes": 2 << 30}, "attention_mass": True}
    refused(ErrorCode.NOT_FOUND, 'preset ("server")', context.config_default, "server")
    refused(ErrorCode.INVALID_ARGUMENT, "did you mean tiers.disk_bytes", context.config_parse, {"tiers.disk_byte": 1})
    refused(ErrorCode.INVALID_ARGUMENT, "page_tokens (24)", context.config_write, {"page_tokens": 24})
    refused(ErrorCode.INVALID_ARGUMENT, "attention_mass (2) is not 0 or 1", context.config_write, {"attention_mass": 2})
    refused(ValueError, "tiers.disk_byte is no key; expected one of tiers.host_bytes", context.config_write, {"tiers": {"disk_byte": 1}})
    refused(TypeError, "tiers.host_bytes ('2GiB') is not an integer", context.config_write, {"tiers": {"host_bytes": "2GiB"}})
    refused(ValueError, "events (-1)", context.config_write, {"events": -1})
    refused(TypeError, "policy (3) is not a dict", context.config_write, {"policy": 3})
    refused(TypeError, "format_k (7) is not a str", context.config_write, {"format_k": 7})
    refused(ValueError, "holds a zero character", context.config_write, {"model_id": "a\0b"})


def check_caches(context, device):
    config = context.config_default("mobile")
    config["capacity_tokens"], config["format_k"], config["model_id"] = 512, "q8_0", "made up"
    with device.config_apply(config, layers()) as cache, device.configure(config, layers()) as twin:
        assert cache.config() == twin.config() == config
        assert cache.layers == [kvant.Layer(2, 64, "q8_0", "q4_0", window=2048, window_sinks=4)] * LAYERS
        serve(cache, prompt(1))
        assert cache.find(prompt(1)) == 48
        refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_MASS", cache.clear_mass, cache.sequence())
    # The capacity and the model are the arguments' where the configuration has none.
    config = context.config_default() | {"prefix_cache": True, "attention_mass": True, "page_tokens": 32}
    with device.config_apply(config, layers(), 256, PREFIXES) as cache:
        assert cache.stats().total_pages == 8 and cache.page_tokens == 32 and cache.config()["model_id"] == "made up"
        assert cache.mass(cache.sequence()).size == 0
    with device.configure("{}", layers(), 64, mass=True) as cache:
        assert cache.config()["attention_mass"] is True
    refused(ErrorCode.INVALID_ARGUMENT, "capacity_tokens (0)", device.config_apply, context.config_default(), layers())
    refused(ValueError, "no_such_key is no key", device.config_apply, {"no_such_key": 1}, layers(), 64)


def check_config(context, device):
    check_dicts(context)
    check_caches(context, device)
