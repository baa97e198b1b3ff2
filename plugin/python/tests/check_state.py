"""Saved state: files, streams and bytes, and what is refused."""
import io
import pathlib
import tempfile

from served import PREFIXES, holds, layers, prompt, serve
from support import refused

import kvant
from kvant import ErrorCode


class Trickle(io.RawIOBase):
    """Takes and gives a few bytes at a time, as sockets do."""

    def __init__(self):
        super().__init__()
        self.data, self.place = b"", 0

    def write(self, data):
        self.data += bytes(data[:100])
        return min(len(data), 100)

    def read(self, size=-1):
        part = self.data[self.place:self.place + min(size, 100)]
        self.place += len(part)
        return part


class Broken:
    """Fails after some calls."""

    def __init__(self, calls, answer):
        self.calls, self.answer = calls, answer

    def write(self, data):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("the line is dead")
        return len(data)

    def read(self, size):
        self.calls -= 1
        return self.answer(size) if self.calls < 0 else b""


def check_ways(cache, device, first, second):
    """The same state by each way."""
    tokens = prompt(1)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state.kvant"
        cache.save(path)
        data = cache.save_bytes()
        # A save counts itself as an event, not in the bytes.
        assert path.read_bytes() == data and len(data) > 48 * 2 * 2 * 64 * 2
        trickle = Trickle()
        cache.save(trickle)
        assert trickle.data == data
        for source in (path, str(path), data, bytearray(data), io.BytesIO(data), trickle):
            with device.cache(layers(), capacity=256, prefixes=PREFIXES) as other:
                loaded = other.load(source)
                assert set(loaded) == {first, second}
                holds(other, loaded[first], tokens)
                holds(other, loaded[second], tokens[:20])
                assert other.stats().used_bytes == cache.stats().used_bytes
        refused(ErrorCode.UNAVAILABLE, "no/such", cache.save, folder + "/no/such/file")
        refused(ErrorCode.NOT_FOUND, "nothing.kvant", cache.load, folder + "/nothing.kvant")
    return data


def check_parts(cache, device, first, second):
    with device.cache(layers(), capacity=256, prefixes=PREFIXES) as other:
        assert list(other.load(cache.save_bytes([second], prefixes=False))) == [second]
        assert other.find(prompt(1)) == 16  # the page that the saved sequence fills
        assert other.load(cache.save_bytes([], prefixes=True)) == {}
        assert other.find(prompt(1)) == 48 and other.stats().sequence_count == 1


def check_refusals(cache, device, data):
    refused(ErrorCode.INVALID_ARGUMENT, "args ask for nothing", cache.save_bytes, [], prefixes=False)
    refused(ErrorCode.NOT_FOUND, "args.sequences[0]", cache.save_bytes, [12345])
    refused(ValueError, "sequences[0] (-1)", cache.save_bytes, [-1])
    before = cache.stats()
    wrong = bytearray(data)
    wrong[len(wrong) // 2] ^= 1
    refused(ErrorCode.DATA_LOSS, "", cache.load, wrong)
    refused(ErrorCode.DATA_LOSS, "", cache.load, data[:-1])
    with device.cache(layers(), capacity=256, prefixes=PREFIXES._replace(model_id="another")) as other:
        refused(ErrorCode.INCOMPATIBLE, "another", other.load, data)
    for call in (lambda: cache.save(Broken(2, None)), lambda: cache.load(Broken(0, lambda size: b"x" * (size + 1)))):
        try:
            call()
        except (RuntimeError, OSError) as failure:
            # What the stream raised, not what the library made of it.
            assert not isinstance(failure, kvant.KvantError) and isinstance(failure.__cause__, kvant.KvantError), repr(failure)
        else:
            raise AssertionError("a broken stream was taken")
    assert cache.stats() == before


def check_state(device):
    with device.cache(layers(), capacity=256, prefixes=PREFIXES) as cache:
        first, _ = serve(cache, prompt(1))
        second = cache.fork(first, 20)
        data = check_ways(cache, device, first, second)
        check_parts(cache, device, first, second)
        check_refusals(cache, device, data)
