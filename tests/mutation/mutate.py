#!/usr/bin/env python3
"""Mutation run: each line of mutations.txt is put into a copy of the tree, which is built and tested until something fails.

Every check must first pass on the unchanged copy: what fails there would catch anything. A mutation that no check notices has
survived; one with `equivalent:` in its note is expected to, and is an error if it does not. The copy is a git worktree of HEAD
under build/mutation, so nothing here is touched.

  tests/mutation/mutate.py                     the whole list
  tests/mutation/mutate.py --only 'shaders/*'  those of some files
  tests/mutation/mutate.py --every 3           every third, from all parts of the list
  tests/mutation/mutate.py --resume            without those that an earlier run at the same commit has tried
"""
import argparse
import fnmatch
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SEPARATOR = " => "


class Mutation:
    def __init__(self, number, path, old, new, note):
        self.number, self.path, self.old, self.new, self.note = number, path, old, new, note
        self.equivalent = note.startswith("equivalent:")

    def key(self):
        return f"{self.path}: {self.old}{SEPARATOR}{self.new}"

    def apply(self, tree):
        file = tree / self.path
        text = file.read_text()
        if text.count(self.old) != 1:
            raise SystemExit(f"mutations.txt, {self.path}: '{self.old}' occurs {text.count(self.old)} times, not once")
        file.write_text(text.replace(self.old, self.new))
        return text


def read_list():
    """Blocks of a path on a line of its own, then lines `old => new`, with `  # note` at the end if there is one."""
    mutations, path = [], None
    for line in (HERE / "mutations.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith("  "):
            path = line.strip()
            continue
        body, _, note = line.strip().partition("  # ")
        old, found, new = body.partition(SEPARATOR)
        if not found or path is None or old == new:
            raise SystemExit(f"mutations.txt: not a mutation: {line}")
        mutations.append(Mutation(len(mutations) + 1, path, old, new, note))
    keys = [m.key() for m in mutations]
    if len(set(keys)) != len(keys):
        raise SystemExit("mutations.txt: a mutation stands twice")
    return mutations


def checks_of(path, build):
    """Commands that may notice, the quick ones first; the first failure ends the search."""
    tool, unit, abi = build / "bin/kvant", build / "bin/unit_tests", build / "bin/abi_tests"
    conform = [str(tool), "conform", "--fail-fast", "--timeout", "300"]
    if path.startswith("shaders/"):
        name = pathlib.Path(path).stem
        if name in ("attend_matrix", "matrix_shared", "matrix_tiles"):  # its driver is in the full root of tools/sysroot
            return [[sys.executable, "-B", str(ROOT / "tools/matrix"), "--build", str(build), "--rows", "lavapipe-26.1", "--subset", "quick",
                     "--filter", "*attend_prefill_cm1*"],
                    ["ctest", "--test-dir", str(build), "-R", "^conformance.matrix-bias$", "--no-tests=error"]]
        first = {"append": "append*", "read": "read*", "copy": "copy*", "convert": "convert*", "gather": "gather*",
                 "rotate": "rotate*", "attend_merge": "merge*", "score": "score*", "rope": "rope*", "hadamard": "hadamard*", "means": "means*"}.get(name)
        if name.startswith("format_") or name == "nf4":
            first = "append*"
        commands = [conform + ["--subset", "quick", "--filter", first]] if first else []
        if name == "score":
            return commands
        if name in ("attention_hooks", "attend_values"):  # what the list's cases cannot ask for
            commands.append([str(build / "bin/conformance_tests"), "--test-suite=bias", "--abort-after=1"])
        return commands + [conform + ["--subset", "quick"]]
    return [[str(unit)], conform + ["--subset", "smoke"], [str(abi)], conform + ["--subset", "quick"]]


def run(command, cwd, env, limit):
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=limit, errors="replace")
        return done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as expired:
        return 124, f"no end within {limit} s: {expired.cmd[0]}"


def failure_text(command, code, output):
    name = pathlib.Path(command[0]).name + " " + " ".join(command[1:2])
    lines = [line.strip() for line in output.splitlines()]
    for mark in ("TEST CASE:", "fail ", "crash ", "timeout ", "FATAL", "internal_error"):
        for line in lines:
            if line.startswith(mark):
                return f"{name.strip()}: {line[:120]}"
    return f"{name.strip()}: exit status {code}"


class Clean:
    """The checks on the unchanged copy, each once, before it is first used."""

    def __init__(self, results, commit, build, env, out):
        self.commit, self.build, self.env, self.out = commit, build, env, out
        self.passed = {r["clean"] for r in results if "clean" in r}

    def require(self, commands):
        for command in commands:
            text = " ".join(command)
            if text in self.passed:
                continue
            started = time.monotonic()
            code, output = run(command, self.build, self.env, 3600)
            if code != 0:
                raise SystemExit(f"mutate: without a mutation this fails: {text}: {failure_text(command, code, output)}")
            print(f"[clean] passes in {time.monotonic() - started:.0f} s: {text}", flush=True)
            self.passed.add(text)
            self.out.write(json.dumps({"clean": text, "commit": self.commit}) + "\n")
            self.out.flush()


def try_mutation(mutation, tree, build, env, jobs):
    original = mutation.apply(tree)
    try:
        shader = mutation.path.startswith("shaders/")
        targets = ["kvant", "kvant_tool"] + (["conformance_tests"] if shader else ["unit_tests", "abi_tests"])
        code, output = run(["cmake", "--build", str(build), "-j", str(jobs), "--target", *targets], tree, env, 1800)
        if code != 0:
            error = next((line for line in output.splitlines() if "error" in line.lower()), output[-200:])
            return "does not build", error.strip()[:160]
        for command in checks_of(mutation.path, build):
            code, output = run(command, build, env, 1800)
            if code == 124:
                return "no end", output
            if code != 0:
                return "caught", failure_text(command, code, output)
        return "survived", ""
    finally:
        (tree / mutation.path).write_text(original)


def report_text(results, commit, listed):
    caught = sum(r["outcome"] in ("caught", "no end") for r in results)
    endless = sum(r["outcome"] == "no end" for r in results)
    live = [r for r in results if r["outcome"] == "survived"]
    unbuilt = [r for r in results if r["outcome"] == "does not build"]
    counted = len(results) - len(unbuilt) - sum(r["equivalent"] for r in live)
    lines = [f"{len(results)} mutations of {listed} in the list, at commit {commit}: {caught} caught ({endless} because a check did not end), {len(live)} survived "
             f"({sum(r['equivalent'] for r in live)} of them equivalent), {len(unbuilt)} do not build: "
             f"{100 * caught / max(counted, 1):.1f} % of {counted} caught.", "",
             "| mutation | outcome | by |", "|---|---|---|"]
    for r in results:
        mutation = r["mutation"].replace("|", "\\|")
        lines.append(f"| `{mutation}` | {r['outcome']} | {(r['note'] or r['by']).replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="mutations of files that match")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one in N of them")
    parser.add_argument("--list", action="store_true", help="check the list against the sources, and print it")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no mutation after so long")
    options = parser.parse_args()
    if options.every < 1:
        parser.error(f"--every ({options.every}) must be 1 or more")
    listed = read_list()
    mutations = [m for m in listed if fnmatch.fnmatch(m.path, options.only)][::options.every]
    for m in mutations:  # each must still be found in the sources
        if (ROOT / m.path).read_text().count(m.old) != 1:
            raise SystemExit(f"{m.path}: '{m.old}' does not stand there exactly once")
    if options.list:
        print("\n".join(m.key() for m in mutations))
        print(f"{len(mutations)} mutations", file=sys.stderr)
        return 0

    work = ROOT / "build/mutation"
    tree, build, log = work / "tree", work / "tree/build/validation", work / "results.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(ROOT)]
    subprocess.run(git + ["worktree", "prune"], check=True)
    if not tree.exists():
        subprocess.run(git + ["worktree", "add", "--quiet", "--detach", str(tree), "HEAD"], check=True)
    head = subprocess.run(git + ["rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "-C", str(tree), "checkout", "--quiet", "--force", "--detach", head], check=True)
    if (ROOT / "build/sysroot").exists() and not (tree / "build/sysroot").exists():
        (tree / "build").mkdir(exist_ok=True)
        (tree / "build/sysroot").symlink_to((ROOT / "build/sysroot").resolve())
    env = dict(os.environ, CCACHE_BASEDIR=str(tree), CCACHE_NOHASHDIR="1", KVANT_REQUIRE_DEVICE="1",
               XDG_CACHE_HOME=str(work / "cache"))
    subprocess.run(["cmake", "--preset", "validation"], cwd=tree, env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(build), "-j", str(options.jobs), "--target", "kvant", "kvant_tool", "unit_tests",
                    "abi_tests", "conformance_tests"], cwd=tree, env=env, check=True, stdout=subprocess.DEVNULL)

    kept = []
    if options.resume and log.exists():
        kept = [json.loads(line) for line in log.read_text().splitlines()]
        if any(r["commit"] != head for r in kept):
            raise SystemExit(f"mutate: {log} is of another commit than {head[:12]}; without --resume it begins anew")
    results = [r for r in kept if "mutation" in r]
    seen = {r["mutation"] for r in results}
    started = time.monotonic()
    with log.open("a" if options.resume else "w") as out:
        clean = Clean(kept, head, build, env, out)
        for i, m in enumerate(mutations):
            if m.key() in seen:
                continue
            if (time.monotonic() - started) / 60 > options.minutes:
                print(f"stopped before {m.key()}", file=sys.stderr)
                break
            clean.require(checks_of(m.path, build))
            outcome, by = try_mutation(m, tree, build, env, options.jobs)
            results.append({"mutation": m.key(), "commit": head, "outcome": outcome, "by": by, "note": m.note,
                            "equivalent": m.equivalent})
            out.write(json.dumps(results[-1]) + "\n")
            out.flush()
            print(f"[{i + 1}/{len(mutations)}] {outcome:15} {m.key()}  {by}", flush=True)
    (work / "report.md").write_text(report_text(results, head[:12], len(listed)))
    print((work / "report.md").read_text().splitlines()[0])
    bad = [r for r in results if r["outcome"] == "does not build" or (r["outcome"] == "survived") != r["equivalent"]]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
