"""The Python binding against attention in numpy. Usage: test_binding.py <libkvant.so>. Exit code 77: numpy is missing."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
try:
    import numpy as np
except ImportError:
    print("numpy is not installed: the binding's test was left out")
    sys.exit(77)
import kvant


def attention(q, k, v):
    group = q.shape[1] // k.shape[1]
    out = np.empty((q.shape[0], q.shape[1], v.shape[2]))
    for head in range(q.shape[1]):
        logits = q[:, head] @ k[:, head // group].T / np.sqrt(q.shape[2])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, head // group]
    return out


def refused(code, part, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except kvant.KvantError as error:
        assert error.code == code and part in error.message, error
    else:
        raise AssertionError(f"nothing was refused; expected {part!r}")


def test_cache(device, random):
    cache = device.cache([kvant.Layer(2, 64, "q8_0", "q4_0")], capacity=256)
    sequence = cache.sequence()
    k, v = (random.standard_normal((50, 2, 64)) for _ in range(2))
    q = random.standard_normal((1, 8, 64))
    with cache.step([(sequence, 50, 1)]) as step:
        out = step.run(0, k=k, v=v, q=q)
    held_k, held_v = cache.read(sequence, 0, "k"), cache.read(sequence, 0, "v")
    assert 0 < np.abs(held_k - k).max() < 0.03 and 0 < np.abs(held_v - v).max() < 0.4
    assert np.abs(out - attention(q, held_k.astype(float), held_v.astype(float))).max() < 1e-4

    child = cache.fork(sequence, 20)
    cache.truncate(sequence, 10)
    assert (cache.length(child), cache.length(sequence)) == (20, 10)
    assert np.array_equal(cache.read(child, 0, "k"), held_k[:20])
    try:
        with cache.step([(child, 1, 0)]):
            raise KeyError
    except KeyError:
        assert cache.length(child) == 20  # aborted
    refused(1, "tokens (99)", cache.truncate, sequence, 99)
    cache.destroy(child)
    refused(2, "sequence (0x", cache.length, child)
    assert cache.stats()["sequence_tokens"] == 10
    cache.close()


def main():
    random = np.random.default_rng(7)
    with kvant.Context(sys.argv[1]) as context:
        assert {"f16", "q4_0", "nf4_dq"} <= set(context.formats())
        if not any(device["usable"] for device in context.devices()):
            assert not os.environ.get("KVANT_REQUIRE_DEVICE"), "KVANT_REQUIRE_DEVICE is set and there is no device"
            print("no Vulkan device: only the enumeration was tested")
            return
        with context.open() as device:
            assert device.describe()["facts"]["modules"]
            x = random.standard_normal((6, 64)).astype(np.float32)
            data = device.quantize("q8_0", x)
            assert data.shape == (6, 68)
            assert 0 < np.abs(device.dequantize("q8_0", data, 64) - x).max() < 0.03
            refused(2, "q9_9", device.quantize, "q9_9", x)
            test_cache(device, random)
    print("ok")


main()
