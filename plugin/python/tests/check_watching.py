"""Statistics, the monitor and events."""
from served import PREFIXES, layers, prompt, serve
from support import refused

from kvant import ErrorCode, EventKind


def check_events(cache):
    events, lost = cache.events()
    assert [event.number for event in events] == list(range(1, len(events) + 1)) and lost == 0
    kinds = [event.kind for event in events]
    assert kinds.count(EventKind.SEQUENCE_CREATED) == 2 and kinds.count(EventKind.PAGE_PUBLISHED) == 3
    hit = next(event for event in events if event.kind == EventKind.PREFIX_HIT)
    assert (hit.a, hit.b) == (48, 48)
    some, lost = cache.events(2, 1)
    assert (some, lost) == ([events[2]], 0) and cache.events(len(events)) == ([], 0)
    assert all(a.time_ms <= b.time_ms for a, b in zip(events, events[1:]))
    refused(ValueError, "since (-1)", cache.events, -1)


def check_watching(device):
    with device.cache(layers("q8_0"), capacity=256, prefixes=PREFIXES) as cache:
        cache.sample_errors(1)
        for _ in range(2):
            serve(cache, prompt(1))
            cache.observe()
        stats = cache.statistics()
        assert stats["lookups"]["queries_tokens"] == 96 and stats["lookups"]["hit_tokens"] == 48
        assert [layer["format_k"] for layer in stats["layers"]] == ["q8_0"] * 2
        # Rows of float16 are no samples; rows of float32 are.
        assert stats["quantization"] == [] or all(entry["samples"] == 0 for entry in stats["quantization"])
        text = cache.prometheus({"model": "made up", "replica": 1})
        assert 'kvant_lookup_hit_tokens_total{model="made up",replica="1"} 48\n' in text
        assert "kvant_lookup_hit_tokens_total 48\n" in cache.prometheus()
        monitor = cache.monitor()
        assert set(monitor) == {"samples", "trends", "recommendations"} and monitor["trends"]
        check_events(cache)
        refused(ErrorCode.INVALID_ARGUMENT, "1a", cache.prometheus, {"1a": "b"})
        refused(ValueError, "'a=b,c' holds a comma", cache.prometheus, {"a": "b,c"})
        refused(ValueError, "every_tokens (-1)", cache.sample_errors, -1)
        with cache.step([(cache.sequence(), 4, 0)]) as step:
            for layer in range(2):
                step.run(layer, k=[[[0.3] * 64] * 2] * 4, v=[[[0.7] * 64] * 2] * 4)
        assert {(entry["layer"], entry["side"]) for entry in cache.statistics()["quantization"] if entry["samples"]} == {
            (layer, side) for layer in range(2) for side in "kv"}
