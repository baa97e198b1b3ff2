"""numpy arrays to and from the library: element types, shapes, strides, masks in bits. Nothing here calls the library."""
import ctypes as c
import operator

import numpy as np

from . import _abi

_TYPES = {np.dtype(np.float32): _abi.TYPE_F32, np.dtype(np.float16): _abi.TYPE_F16, np.dtype(np.uint16): _abi.TYPE_BF16}


def to_bf16(values):
    """Floats of any shape -> bfloat16 bits as uint16, rounded to nearest even; NaN stays NaN."""
    values = np.asarray(values, np.float32)
    bits = np.atleast_1d(values).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(np.atleast_1d(values)), bits >> 16 | 0x40, rounded).astype(np.uint16).reshape(values.shape)


def from_bf16(bits):
    """bfloat16 bits (uint16, any shape) -> float32, exactly."""
    bits = np.asarray(bits, np.uint16)
    return (np.atleast_1d(bits).astype(np.uint32) << 16).view(np.float32).reshape(bits.shape)


def count(name, value, bits=32):
    """An integer from 0 to 2^bits - 1; ctypes would silently wrap any other."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} ({value!r}) is not an integer") from None
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name} ({number}) is not an integer from 0 to {(1 << bits) - 1}")
    return number


def integers(name, values, dtype, size=None):
    """A contiguous one-dimensional array of `dtype`; None stays None."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.ndim != 1 or size not in (None, array.size):
        raise ValueError(f"{name} has shape {array.shape}; expected ({'n' if size is None else size},)")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; expected integers")
    limits = np.iinfo(dtype)
    if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
        raise ValueError(f"{name} holds {int(array.min())} to {int(array.max())}, beyond {np.dtype(dtype).name}")
    return np.ascontiguousarray(array, dtype)


def rows(name, values, shape):
    """float32 of that shape; None stays None."""
    if values is None:
        return None
    array = np.ascontiguousarray(values, np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    return array


def floats(name, values, size):
    """[size] float32, one number per query head; None stays None."""
    if values is None:
        return None
    array = np.ascontiguousarray(values, np.float32)
    if array.shape != (size,):
        raise ValueError(f"{name} has shape {array.shape}; expected ({size},), one number per query head")
    return array


def pointer(array):
    return None if array is None else array.ctypes.data


def _expect(name, array, tokens, heads, dim):
    shape = array.shape
    if len(shape) != 3 or shape[0] != tokens or heads not in (None, shape[1]) or shape[2] != dim:
        raise ValueError(f"{name} has shape {shape}; expected ({tokens}, {'q_heads' if heads is None else heads}, {dim})")


def _strides(array):
    """Strides of tokens and heads in elements where the library can read the array in place, or None."""
    token, head, last = array.strides
    size = array.itemsize
    if not array.flags.aligned or (last != size and array.shape[2] != 1):
        return None
    # An axis of one has no stride; 0 stands for "packed" in the ABI, so that a broadcast axis cannot be said.
    steps = [step if length > 1 else size for step, length in zip((token, head), array.shape)]
    if any(step <= 0 or step % size for step in steps):
        return None
    return [step // size if length > 1 else 0 for step, length in zip(steps, array.shape)]


def tensor_input(name, values, tokens, heads, dim):
    """[tokens][heads][dim] of float32, float16 or uint16 (bfloat16 bits), in place where its last axis is contiguous; other
    floats, and lists of them, are rounded to float32. heads None: any number."""
    array = np.asarray(values)
    if array.dtype not in _TYPES:
        if array.dtype.kind != "f" and array.size:
            raise TypeError(f"{name} has dtype {array.dtype}; expected float32, float16 or uint16 (bfloat16 bits)")
        array = array.astype(np.float32)
    _expect(name, array, tokens, heads, dim)
    return array if array.size and _strides(array) else np.ascontiguousarray(array)


def tensor_output(name, array, tokens, heads, dim):
    """An array of the caller's that the library fills in place; None makes one of float32."""
    if array is None:
        return np.empty((tokens, heads, dim), np.float32)
    if not isinstance(array, np.ndarray) or array.dtype not in _TYPES:
        raise TypeError(f"{name} is {getattr(array, 'dtype', type(array).__name__)}; expected a numpy array of float32, "
                        "float16 or uint16 (bfloat16 bits)")
    _expect(name, array, tokens, heads, dim)
    if not array.flags.writeable or (array.size and not _strides(array)):
        raise ValueError(f"{name} is read-only or has strides {array.strides} that cannot be written in place")
    return array


def tensor(array):
    """The kvant_tensor of an array that went through tensor_input or tensor_output; it must outlive the call."""
    token, head = _strides(array) if array.size else (0, 0)
    reach = sum((length - 1) * step for length, step in zip(array.shape, array.strides)) + array.itemsize if array.size else 0
    return c.pointer(_abi.Tensor(data=array.ctypes.data, size=reach, type=_TYPES[array.dtype], token_stride=token,
                                 head_stride=head))


def mask_words(name, mask, rows, keys=None):
    """Mask rows as the ABI wants them, bit i % 32 of word i / 32. `mask` is bool [rows][keys], or uint32 [rows][words] as it
    is; keys None: any number of columns."""
    array = np.asarray(mask)
    if array.dtype not in (np.dtype(bool), np.dtype(np.uint32)):
        raise TypeError(f"{name} has dtype {array.dtype}; expected bool, or uint32 for rows of bits")
    packed = array.dtype == np.uint32
    wanted = None if packed or keys is None else keys
    if array.ndim != 2 or array.shape[0] != rows or wanted not in (None, array.shape[1]):
        raise ValueError(f"{name} has shape {array.shape}; expected ({rows}, {'n' if wanted is None else wanted})")
    if packed:
        return np.ascontiguousarray(array)
    padded = np.zeros((rows, max(1, -(-array.shape[1] // 32)) * 32), bool)
    padded[:, :array.shape[1]] = array
    return np.packbits(padded, axis=1, bitorder="little").view("<u4").astype(np.uint32)
