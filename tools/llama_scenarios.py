"""Scenarios of llama.cpp end to end: what one is, which are chosen, how a text is judged, and the table of outcomes. Nothing here runs a program."""
import dataclasses
import fnmatch
import time
import typing


class Failed(Exception):
    """What was seen is not what must be; the text says what."""


class Skipped(Exception):
    """This scenario cannot be run here; the text says why."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str                            # group/variant, such as server-shift/q8_0
    what: str                            # one line for the table
    run: typing.Callable[[], str]        # returns what was seen, raises Failed or Skipped
    bounded: bool = True                 # part of the run without --full


@dataclasses.dataclass(frozen=True)
class Outcome:
    scenario: Scenario
    word: str                            # passed, failed or skipped
    note: str
    seconds: float


def chosen(scenarios, full, only):
    """Those of the run: the bounded ones or all, and of these the ones whose name has one of the patterns (or is like it, with * and ?)."""
    taken = [one for one in scenarios if full or one.bounded]
    if not only:
        return taken
    return [one for one in taken if any(pattern in one.name or fnmatch.fnmatchcase(one.name, pattern) for pattern in only)]


def carried_out(scenario):
    begin = time.monotonic()
    try:
        word, note = "passed", scenario.run()
    except Failed as failure:
        word, note = "failed", str(failure)
    except Skipped as reason:
        word, note = "skipped", str(reason)
    except Exception as surprise:  # such as an answer without what it always has: the other scenarios are still worth their line
        word, note = "failed", f"{type(surprise).__name__}: {surprise}"
    return Outcome(scenario, word, note or "", time.monotonic() - begin)


def heading(scenarios):
    name, what = widths(scenarios)
    return f"{'scenario':<{name}}  {'what':<{what}}  {'outcome':<7}  {'s':>6}  seen"


def widths(scenarios):
    return max([8] + [len(one.name) for one in scenarios]), max([4] + [len(one.what) for one in scenarios])


def line(outcome, scenarios):
    name, what = widths(scenarios)
    note = " ".join(outcome.note.split())
    return f"{outcome.scenario.name:<{name}}  {outcome.scenario.what:<{what}}  {outcome.word:<7}  {outcome.seconds:>6.1f}  {note}".rstrip()


def total(outcomes):
    counts = {word: sum(one.word == word for one in outcomes) for word in ("passed", "failed", "skipped")}
    return ", ".join(f"{count} {word}" for word, count in counts.items()) + f", {sum(one.seconds for one in outcomes):.0f} s"


def status(outcomes):
    """0 if all passed (a skipped one is no failure), 77 if nothing but skipped ones, else 1."""
    if any(one.word == "failed" for one in outcomes):
        return 1
    return 0 if any(one.word == "passed" for one in outcomes) else 77


def in_common(one, other):
    """How many first characters two texts share."""
    count = 0
    for a, b in zip(one, other):
        if a != b:
            break
        count += 1
    return count


def require_same(seen, wanted, of_what, least=None):
    """Fails unless two texts are equal, or with least, unless they share that many first characters (types that round may part at a near
    tie, long after whatever is judged). Returns what to say of them."""
    shared = in_common(seen, wanted)
    if seen == wanted and seen:
        return f"{len(seen)} characters are {of_what}"
    if least is not None and shared >= least > 0:
        return f"{shared} of {len(seen)} characters are {of_what}"
    raise Failed(f"the text is not {of_what}: {shared} characters are the same, then {seen[shared:shared + 40]!r} "
                 f"instead of {wanted[shared:shared + 40]!r}")


def complaints(log):
    """Lines of a log that no run may have: errors of the backend (validation messages are among them), aborts and assertions."""
    return [text.strip() for text in log.splitlines()
            if any(word in text for word in ("ggml_kvant: error", "GGML_ASSERT", "pre-allocated tensor", "terminate called"))]
