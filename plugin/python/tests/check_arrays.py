"""Element types, strides and bits, without a device."""
import numpy as np
from support import refused

from kvant import _arrays, from_bf16, to_bf16


def check_bf16():
    assert to_bf16([1.0, -2.5, 0.0, np.inf]).tolist() == [0x3F80, 0xC020, 0, 0x7F80]
    # Halfway between two: to the even one, both ways.
    halfway = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    assert to_bf16(halfway).tolist() == [0x3F80, 0x3F82, 0x3F81]
    assert np.isnan(from_bf16(to_bf16(np.array([0x7F800001], np.uint32).view(np.float32)))).all()
    every = np.arange(0x10000, dtype=np.uint16)
    numbers = every[~np.isnan(from_bf16(every))]
    assert np.array_equal(to_bf16(from_bf16(numbers)), numbers)
    assert from_bf16(to_bf16(1.5)) == 1.5


def check_masks():
    mask = np.zeros((2, 40), bool)
    mask[0, [0, 31, 32]] = mask[1, 39] = True
    words = _arrays.mask_words("mask", mask, 2, 40)
    assert words.tolist() == [[0x80000001, 1], [0, 0x80]]
    assert _arrays.mask_words("mask", words, 2, 40) is words
    assert _arrays.mask_words("mask", np.zeros((1, 0), bool), 1).shape == (1, 1)
    refused(ValueError, "mask has shape (2, 40); expected (3, 40)", _arrays.mask_words, "mask", mask, 3, 40)
    refused(ValueError, "mask has shape (2, 40); expected (2, 41)", _arrays.mask_words, "mask", mask, 2, 41)
    refused(TypeError, "mask has dtype int64", _arrays.mask_words, "mask", mask.astype(np.int64), 2, 40)


def check_tensors():
    packed = np.arange(5 * 6 * 8, dtype=np.float32).reshape(5, 6, 8)

    def strides(array):
        given = _arrays.tensor(_arrays.tensor_input("k", array, *array.shape)).contents
        return given.data == array.ctypes.data, given.token_stride, given.head_stride, given.size

    assert strides(packed) == (True, 48, 8, packed.nbytes)
    assert strides(packed[:, 2:4]) == (True, 48, 8, (4 * 48 + 8 + 8) * 4)      # a part of the heads: in place
    assert strides(packed.transpose(1, 0, 2)) == (True, 8, 48, packed.nbytes)  # [heads][tokens]: in place
    assert strides(packed[:, :, ::2])[0] is False and strides(packed[::-1])[0] is False
    assert strides(np.broadcast_to(packed[:, :1], packed.shape))[0] is False   # the ABI takes stride 0 for packed
    assert strides(packed[:1, 3:4]) == (True, 0, 0, 32)
    for dtype, code in ((np.float32, 0), (np.float16, 1), (np.uint16, 2), (np.float64, 0), (np.dtype(">f4"), 0)):
        array = _arrays.tensor_input("k", packed.astype(dtype), 5, 6, 8)
        assert _arrays.tensor(array).contents.type == code and np.array_equal(array.astype(float), packed)
    refused(TypeError, "k has dtype int32", _arrays.tensor_input, "k", packed.astype(np.int32), 5, 6, 8)
    refused(ValueError, "k has shape (5, 6, 8); expected (5, q_heads, 9)", _arrays.tensor_input, "k", packed, 5, None, 9)
    refused(TypeError, "out is list", _arrays.tensor_output, "out", [], 5, 6, 8)
    refused(ValueError, "cannot be written in place", _arrays.tensor_output, "out", packed[::-1], 5, 6, 8)


def check_numbers():
    assert _arrays.count("n", np.int64(7)) == 7
    refused(ValueError, "n (-1) is not an integer from 0 to 4294967295", _arrays.count, "n", -1)
    refused(ValueError, "n (4294967296)", _arrays.count, "n", 1 << 32)
    refused(TypeError, "n (1.5) is not an integer", _arrays.count, "n", 1.5)
    assert _arrays.integers("pages", [], np.int32).dtype == np.int32
    refused(ValueError, "pages holds -1 to 2147483648, beyond int32", _arrays.integers, "pages", [-1, 1 << 31], np.int32)
    refused(TypeError, "pages has dtype float64", _arrays.integers, "pages", [1.0], np.int32)
    refused(ValueError, "pages has shape (2,); expected (3,)", _arrays.integers, "pages", [1, 2], np.int32, 3)


def check_arrays():
    check_bf16()
    check_masks()
    check_tensors()
    check_numbers()
