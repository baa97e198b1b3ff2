"""How the tests say what they expect."""
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
import kvant  # noqa: E402  (the path comes first)

from numpy_attention import attention  # noqa: E402

KV_HEADS, Q_HEADS, DIM = 2, 8, 64


def refused(kind, part, function, *arguments, **named):
    """The call raises ValueError, TypeError, or KvantError if `kind` is an ErrorCode, and the message holds `part`."""
    try:
        function(*arguments, **named)
    except (kvant.KvantError, ValueError, TypeError) as error:
        same = error.code == kind if isinstance(error, kvant.KvantError) else type(error) is kind
        assert same and part in str(error), f"{error!r} instead of {kind!r} with {part!r}"
    else:
        raise AssertionError(f"nothing was refused; expected {part!r}")


def close(found, expected, bound=2e-5):
    """Arrays of one shape agree; minus infinity agrees with itself only."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    with np.errstate(invalid="ignore"):
        difference = np.where(found == expected, 0.0, np.abs(found - expected))
    assert (difference <= bound).all(), f"differs by {difference.max()}, more than {bound}"


def differ(found, plain):
    """The feature at hand changes the result, so that a run which ignores it would be noticed."""
    assert np.abs(np.asarray(found) - plain).max() > 1e-2, "the feature changes nothing here, so nothing was tested"


def random_rows(random, *counts):
    """k and v, or q, with the heads of these tests, as float32."""
    return [random.standard_normal((count, heads, DIM)).astype(np.float32) for count, heads in counts]
