"""Memory limits, planned and met; other formats; policies; configurations."""
import json

from served import LAYERS, PREFIXES, holds, layers, prompt, rows, serve
from support import refused

import kvant
from kvant import ErrorCode

SLAB = 1 << 16


def check_limit(device):
    with device.cache(layers("f32"), capacity=512, slab_bytes=SLAB) as cache:
        sequence, long = cache.sequence(), prompt(1, 400)
        with cache.step([(sequence, 400, 0)]) as step:
            for layer in range(LAYERS):
                step.run(layer, k=rows(long, layer, "k"), v=rows(long, layer, "v"))
        before = cache.stats()
        limit = before.pool_bytes // 2
        cache.memory_weight(0, "k", -1)  # never narrowed
        plan = cache.memory_plan(limit)
        assert "convert V of layer" in plan and "convert K of layer 0" not in plan and cache.stats() == before
        cache.memory_limit(limit, ["q8_0"])
        assert cache.stats().pool_bytes <= limit and cache.layers[0].format_k == "f32"
        assert "q8_0" in {layer.format_v for layer in cache.layers}
        assert cache.export(sequence, 0, "k").shape == (400, 2, 256)
        after = cache.stats()
        refused(ErrorCode.RESOURCE_EXHAUSTED, "1024 bytes", cache.memory_limit, 1024)
        assert cache.stats() == after
        cache.memory_limit(0)
        assert cache.statistics()["limit_bytes"] in (0, None)
        refused(ValueError, "limit (-1)", cache.memory_limit, -1)
        refused(ErrorCode.NOT_FOUND, "q9_9", cache.memory_plan, limit, ["q9_9"])
        refused(ValueError, "layer (2) is not less", cache.memory_weight, 2, "k", 1)
        refused(ErrorCode.INVALID_ARGUMENT, "weight (nan)", cache.memory_weight, 1, "k", float("nan"))


def check_quantize(device):
    with device.cache(layers("f32"), capacity=64) as cache:
        sequence, _ = serve(cache, prompt(1))
        cache.quantize("q8_0", "q4_0")
        assert {(layer.format_k, layer.format_v) for layer in cache.layers} == {("q8_0", "q4_0")}
        assert cache.export(sequence, 1, "k").shape == (48, 2, 68)
        holds(cache, sequence, prompt(1), bound=0.3)
        refused(ErrorCode.NOT_FOUND, "q9_9", cache.quantize, "q9_9", "f32")
        with cache.step([(sequence, 0, 1)]) as step:
            refused(ErrorCode.FAILED_PRECONDITION, "a step of the cache is open", cache.quantize, "f32", "f32")
            step.abort()


def check_policy(device):
    """Without a policy that evicts a full pool is an error; with another one there is room."""
    with device.cache(layers(), capacity=64, prefixes=PREFIXES._replace(policy=kvant.Policy("none"))) as cache:
        cache.destroy(serve(cache, prompt(1))[0])
        refused(ErrorCode.RESOURCE_EXHAUSTED, "1 of the 4 pages", serve, cache, prompt(2))
        cache.set_policy(kvant.Policy("adaptive"))
        serve(cache, prompt(2))
        assert cache.statistics()["policy"] == "adaptive" and cache.prefix_stats().evicted_capacity > 0


def check_configure(device):
    short = prompt(1, 8)
    config = {"preset": "mobile", "format_k": "q8_0", "format_v": "q4_0", "model_id": "made up", "capacity_tokens": 512}
    with device.configure(config, layers()) as cache:
        assert cache.config()["capacity_tokens"] == 512 and cache.config()["policy"]["kind"] == "lru"
        assert cache.layers[0] == kvant.Layer(2, 64, "q8_0", "q4_0", window=2048, window_sinks=4)
        serve(cache, prompt(1))
        assert cache.find(prompt(1)) == 48
    # What the JSON does not name stays as the arguments have it.
    with device.configure("{}", layers(), 256, 32, PREFIXES) as cache:
        assert cache.page_tokens == 32 and cache.layers == layers() and cache.config()["model_id"] == "made up"
        assert json.dumps(cache.config()) and cache.stats().total_pages == 8
    with device.configure({"hybrid": {"hot_format": "f32", "cold_format": "q8_0"}, "prefix_cache": True}, layers(), 64) as cache:
        cache.store_put(short, 0, rows(short, 0, "k"), rows(short, 0, "v"))  # its store is open
    refused(ErrorCode.INVALID_ARGUMENT, "capacity", device.configure, {"capacity_tokens": "many"}, layers(), 64)
    refused(ErrorCode.INVALID_ARGUMENT, "no_such_key", device.configure, {"no_such_key": 1}, layers(), 64)
    with device.cache(layers(), capacity=64) as plain:
        refused(ErrorCode.FAILED_PRECONDITION, "cache_create", plain.config)


def check_memory(device):
    check_limit(device)
    check_quantize(device)
    check_policy(device)
    check_configure(device)
