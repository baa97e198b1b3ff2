"""A cache watched: statistics, the monitor, events."""
import ctypes as c
import enum
import json
from typing import NamedTuple

from . import _abi_manager as _abi
from . import _arrays
from ._managed import Managed


class EventKind(enum.IntEnum):
    """`Event.kind`, as KVANT_EVENT_* in kvant_ext_manager.h."""
    PAGE_PUBLISHED = 0
    PAGE_EVICTED = 1
    PREFIX_HIT = 2
    PREFIX_MISS = 3
    TIER_STORE = 4
    TIER_HIT = 5
    TIER_MISS = 6
    CONVERT = 7
    SEQUENCE_CREATED = 8
    SEQUENCE_DESTROYED = 9
    LIMIT_CHANGED = 10
    POLICY_CHANGED = 11
    SAVE = 12
    LOAD = 13
    PRUNED = 14
    COOLED = 15


class Event(NamedTuple):
    """docs/monitoring.md says what a and b are."""
    number: int    # from 1 on, without gaps
    time_ms: int   # of a monotonic clock
    kind: int      # EventKind, or a plain int that this binding does not know
    a: int
    b: int
    sequence: int  # 0: none


class Watching(Managed):
    """What a Cache tells of itself. docs/monitoring.md has every name."""

    def statistics(self):
        """All figures of the cache, its layers, sequences and tiers, as a dict."""
        return json.loads(self._stats_text(_abi.STATS_JSON))

    def prometheus(self, labels=None):
        """The same but for single sequences, in Prometheus' text format 0.0.4. labels: a dict, given to every series."""
        pairs = [f"{name}={value}" for name, value in (labels or {}).items()]
        if torn := [pair for pair in pairs if "," in pair]:
            raise ValueError(f"labels: {torn[0]!r} holds a comma, which separates labels")
        return self._stats_text(_abi.STATS_PROMETHEUS, ",".join(pairs).encode() if pairs else None)

    def monitor(self):
        """Dict of samples, trends and recommendations, from the snapshots that observe() took."""
        return json.loads(self._stats_text(_abi.STATS_MONITOR))

    def observe(self):
        """A snapshot for the monitor: call it every few seconds."""
        self._ask("stats_observe")

    def sample_errors(self, every_tokens):
        """From now on one of so many appended tokens, at most one a step, is compared with what is stored of it, where K and V
        are float32; 0: none. statistics()["quantization"] has the figures."""
        self._ask("stats_sample_errors", _arrays.count("every_tokens", every_tokens, 64))

    def events(self, since=0, most=1024):
        """At most `most` events with numbers above `since`, oldest first, and how many before them are lost: ([Event], lost).
        The next call's `since` is the last one's number."""
        room = (_abi.Event * _arrays.count("most", most))()
        for event in room:
            event.struct_size = c.sizeof(event)
        count, lost = c.c_uint32(), c.c_uint64()
        self._ask("events_poll", _arrays.count("since", since, 64), len(room), room, c.byref(count), c.byref(lost))
        kinds = EventKind._value2member_map_
        return [Event(e.number, e.time_ms, kinds.get(e.kind, e.kind), e.a, e.b, e.sequence)
                for e in room[:count.value]], lost.value

    def _stats_text(self, kind, labels=None):
        text, size = c.c_char_p(), c.c_uint64()
        self._ask("stats_text", kind, labels, c.byref(text), c.byref(size))
        return c.string_at(text, size.value).decode()
