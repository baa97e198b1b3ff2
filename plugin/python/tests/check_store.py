"""The store: single prefixes, batches, strides, the cold cache."""
import numpy as np
from served import LAYERS, PREFIXES, layers, prompt, rows
from support import DIM, KV_HEADS, refused

import kvant
from kvant import ErrorCode

COUNT = 40


def tensors(number, layer):
    return [rows(prompt(number, COUNT), layer, side).astype(np.float32) for side in "kv"]


def put(cache, number):
    for layer in range(LAYERS):
        cache.store_put(prompt(number, COUNT), layer, *tensors(number, layer))


def check_single(cache):
    tokens = prompt(1, COUNT)
    assert cache.store_find(tokens) == 0
    found, k, v = cache.store_get(tokens, 0)
    assert found is False and not k.any() and not v.any()
    put(cache, 1)
    assert cache.store_find(tokens) == LAYERS and cache.store_find(tokens, salt=b"x") == 0
    for layer in range(LAYERS):
        found, k, v = cache.store_get(tokens, layer)
        assert found is True and np.array_equal(k, tensors(1, layer)[0]) and np.array_equal(v, tensors(1, layer)[1])
    found, k, _ = cache.store_get(tokens, 0, dtype=np.float16)
    assert found and k.dtype == np.float16 and np.array_equal(k, rows(tokens, 0, "k"))
    assert not cache.store_get(tokens[:-1], 0)[0]  # exactly the tokens that were put
    assert cache.store_stats()[:4] == (2, 5, 3, 1)
    cache.store_erase(tokens)
    assert cache.store_find(tokens) == 0


def check_batch(cache):
    """Rows of [rows][kv_heads][tokens][head_dim], read in place and from what must be copied."""
    batch = [prompt(number, COUNT) for number in (2, 3, 4)]
    for layer in range(LAYERS):
        k, v = (np.stack([tensors(number, layer)[side] for number in (2, 3, 4)]) for side in range(2))
        heads_first = np.ascontiguousarray(k.transpose(0, 2, 1, 3))
        cache.store_put(batch, layer, heads_first.transpose(0, 2, 1, 3), np.repeat(v, 2, axis=0)[::2][::-1][::-1])
    batch[1] = prompt(9, COUNT)
    found, k, v = cache.store_get(batch, 1)
    assert found.tolist() == [True, False, True] and k.shape == (3, COUNT, KV_HEADS, DIM)
    for row, number in ((0, 2), (2, 4)):
        assert np.array_equal(k[row], tensors(number, 1)[0]) and np.array_equal(v[row], tensors(number, 1)[1])
    assert not k[1].any() and cache.store_find(batch).tolist() == [2, 0, 2]
    cache.store_clear()
    assert cache.store_find(batch).tolist() == [0, 0, 0]


def check_refusals(cache):
    k, v = tensors(1, 0)
    refused(ErrorCode.FAILED_PRECONDITION, "the cache has a store already", cache.store_open)
    refused(ErrorCode.INVALID_ARGUMENT, "args.token_count (0)", cache.store_find, [])
    refused(ValueError, "k has shape (39, 2, 64); expected (40, 2, 64)", cache.store_put, prompt(1, COUNT), 0, k[1:], v)
    refused(ValueError, "expected (2, 40, 2, 64)", cache.store_put, [prompt(1, COUNT)] * 2, 0, k, v)
    refused(ValueError, "tokens has shape (1, 1, 1)", cache.store_find, [[[1]]])
    refused(ValueError, "layer (2) is not less than the 2 layers", cache.store_get, prompt(1, COUNT), 2)
    refused(TypeError, "k is float64", cache.store_get, prompt(1, COUNT), 0, dtype=np.float64)
    refused(TypeError, "k has dtype int64", cache.store_put, prompt(1, COUNT), 0, k.astype(np.int64), v)


def check_cold(device):
    """Of two prefixes in a pool for one the older goes cold, and comes back with what q4_0 kept of it."""
    cold = device.cache(layers("q4_0"), capacity=256, prefixes=PREFIXES)
    with device.cache(layers("f32"), capacity=48, prefixes=PREFIXES) as cache:
        cache.store_open(cold, kvant.Policy("lru"), promote_uses=1)
        put(cache, 1)
        put(cache, 2)
        stats = cache.store_stats()
        assert (stats.prefixes, stats.cold_prefixes, stats.demoted, stats.evicted) == (2, 1, 1, 0)
        found, k, _ = cache.store_get(prompt(1, COUNT), 0)
        assert found and 0 < np.abs(k - tensors(1, 0)[0]).max() < 0.5
    cold.close()


def check_store(device):
    with device.cache(layers("f32"), capacity=256, prefixes=PREFIXES) as cache:
        refused(ErrorCode.FAILED_PRECONDITION, "call store_open first", cache.store_clear)
        cache.store_open()
        check_single(cache)
        check_batch(cache)
        check_refusals(cache)
    with device.cache(layers("f32"), capacity=64) as plain:
        refused(ErrorCode.FAILED_PRECONDITION, "KVANT_CACHE_PREFIXES", plain.store_open)
    check_cold(device)
