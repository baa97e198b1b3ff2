"""The Python binding against attention in numpy. Usage: test_binding.py <libkvant.so>. Exit code 77: numpy is missing."""
import os
import sys

sys.dont_write_bytecode = True
try:
    import numpy as np
except ImportError:
    print("numpy is not installed: the binding's test was left out")
    sys.exit(77)

from support import kvant, refused

from check_arrays import check_arrays
from check_attention import check_attention
from check_cache import check_cache
from check_config import check_config
from check_docs import check_docs
from check_header import check_header
from check_mass import check_mass
from check_memory import check_memory
from check_paged import check_paged
from check_state import check_state
from check_store import check_store
from check_tiers import check_tiers
from check_tokens import check_tokens
from check_watching import check_watching
from kvant import ErrorCode, LogLevel


def check_device(device, random):
    facts = device.describe()
    assert facts["facts"]["modules"] and facts["usable"] and facts["memory_size"] > 0 and facts["type"] in ("cpu", "other") + (
        "integrated", "discrete", "virtual")
    x = random.standard_normal((6, 64)).astype(np.float32)
    data = device.quantize("q8_0", x)
    assert data.shape == (6, 68)
    assert 0 < np.abs(device.dequantize("q8_0", data, 64) - x).max() < 0.03
    refused(ErrorCode.NOT_FOUND, "q9_9", device.quantize, "q9_9", x)
    refused(ValueError, "rows has shape (64,)", device.quantize, "q8_0", x[0])
    refused(ValueError, "data has shape (6, 67); expected (n, 68)", device.dequantize, "q8_0", data[:, 1:], 64)
    refused(TypeError, "data has dtype float32", device.dequantize, "q8_0", x, 64)
    check_k_quants(device, random)
    assert device.measure_copy(1 << 16) > 0
    refused(ErrorCode.INVALID_ARGUMENT, "size (3)", device.measure_copy, 3)


def check_k_quants(device, random):
    """Formats for import and export alone: rows of glued heads."""
    tokens = random.standard_normal((3, 4, 128)).astype(np.float32)  # of 4 heads
    x = tokens.reshape(3, 512)
    for name, block, bound in (("q5_k", 176, 0.0014), ("q3_k", 110, 0.0235), ("q2_k", 84, 0.090)):
        assert device._context.row_bytes(name, 512) == 2 * block
        data = device.quantize(name, x)
        assert data.shape == (3, 2 * block)
        y = device.dequantize(name, data, 512)
        assert y.shape == x.shape and 0 < np.square(y - x).sum() < bound * np.square(x).sum(), name
        refused(ErrorCode.INVALID_ARGUMENT, "head_dim (128) is not a multiple of 256", device.quantize, name, tokens[0])
        refused(ErrorCode.INVALID_ARGUMENT, f"is {name}, which is for quantize and dequantize only", device.cache,
                [kvant.Layer(4, 256, name, "f16")], 32)


def check_older_library(context, device):
    """What a library's extension does not have yet is an error that says so, and only where it is asked for."""
    cache, table = device.cache([kvant.Layer(2, 64, "f16", "f16")], capacity=32), context._manager
    context._manager = type(table)()  # all NULL
    refused(ErrorCode.UNIMPLEMENTED, "memory_plan: the library's kvant.manager/1 does not have it", cache.memory_plan, 0)
    refused(ErrorCode.UNIMPLEMENTED, "cache_configure", device.configure, "{}", [kvant.Layer(2, 64, "f16", "f16")], 32)
    context._manager = table
    assert "0 actions" in cache.memory_plan(0)


def check_profile(device):
    profile = device.profile()
    assert {"append", "attend_decode"} <= set(profile), profile
    assert profile["append"].count > 0 and profile["append"].microseconds > 0
    assert device.profile() == {}


def main():
    random, log = np.random.default_rng(7), []
    check_header()
    check_arrays()
    refused(ErrorCode.INVALID_ARGUMENT, "log_level (99)", kvant.Context, sys.argv[1], log_level=99)
    with kvant.Context(sys.argv[1], log=lambda *message: log.append(message),
                       enable_validation="KVANT_VALIDATION" in os.environ) as context:
        formats = context.formats()
        assert {"f16", "q4_0", "nf4_dq"} <= set(formats) and formats["q4_0"].block_elements == 32
        assert context.row_bytes("q4_0", 64) == 36 and context.build_info()["version"]
        if not any(device["usable"] for device in context.devices()):
            assert not os.environ.get("KVANT_REQUIRE_DEVICE"), "KVANT_REQUIRE_DEVICE is set and there is no device"
            print("no Vulkan device: only the enumeration was tested")
            return
        refused(ErrorCode.INVALID_ARGUMENT, "device_index (77)", context.open, 77)
        with context.open() as device:
            check_device(device, random)
            refused(ErrorCode.FAILED_PRECONDITION, "enable_profiling", device.profile)
        device = context.open(enable_profiling=True)  # goes with its context
        check_cache(device, random, log)
        check_attention(device, random)
        check_paged(device, random)
        check_profile(device)
        for check in (check_watching, check_memory, check_tiers, check_state, check_store):
            check(device)
        check_tokens(device, random)
        check_mass(device, random)
        check_config(context, device)
        check_older_library(context, device)
        check_docs(device, random)
    blame = [message for message in log if message[0] >= LogLevel.HOST_MISBEHAVING]
    assert not blame, blame
    refused(ValueError, "the Device is closed", device.describe)
    print("ok")


main()
