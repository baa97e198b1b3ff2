#!/usr/bin/env python3
"""The judgement of tools/matrix: what counts as passed, and that nothing else does. No device is used."""
import dataclasses
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tools"))
import matrix_report as report  # noqa: E402
import matrix_rows as rows      # noqa: E402
import matrix_run as run        # noqa: E402

ROW = rows.Row("some-row", "Some driver", "lavapipe", "llvmpipe", 8, 256, allowed=(rows.other_sizes(8), rows.NO_FP16))
HEADER = {"type": "header", "case_count": 3, "validation_layers": True, "quirks": [], "overrides": {},
          "device": {"driver_name": "llvmpipe", "subgroup_size": 8}}
CASES = [{"type": "case", "name": "a", "status": "pass", "fraction": 0.25, "ms": 1500},
         {"type": "case", "name": "b", "status": "quality_warning", "fraction": 0.8},
         {"type": "case", "name": "c", "status": "not_supported", "message": "subgroup size 16"}]
SUMMARY = {"type": "summary", "executed": 2, "validation_messages": 0}


def judged(header=HEADER, cases=tuple(CASES), summary=SUMMARY, exit_code=0, row=ROW, extra=()):
    result = run.Result(row)
    entries = [entry for entry in (header, *cases, summary) if entry is not None]
    run.judge(result, [json.dumps(entry) for entry in entries] + list(extra), exit_code)
    return result


class Judgement(unittest.TestCase):
    def test_a_good_run_passes(self):
        result = judged()
        self.assertEqual(result.problems, [])
        self.assertEqual(result.outcome, "passed")
        self.assertEqual((result.cases, result.worst, result.counts["pass"], result.seconds), (3, 0.8, 1, 1.5))

    def test_a_run_goes_on_where_it_was_cut_off(self):
        cut = [{"type": "messages", "count": 0}, *CASES]
        self.assertEqual(judged(cases=cut).problems, [])

    def test_a_build_of_another_commit_is_no_result(self):
        def problems(commit):
            result = run.Result(ROW)
            lines = [json.dumps(entry) for entry in (dict(HEADER, commit="0123456789ab"), *CASES, SUMMARY)]
            run.judge(result, lines, 0, commit)
            return result.problems
        self.assertEqual(problems("0123456+"), [])
        self.assertEqual(problems("unknown"), [])
        self.assertEqual(len(problems("0123457")), 1)

    def test_each_doubt_is_a_problem(self):
        bad = [dict(CASES[0], status=status) for status in run.BAD]
        attempts = {
            "case without result": dict(cases=CASES[:2]),
            "no summary": dict(summary=None),
            "no header": dict(header=None),
            "a result twice": dict(cases=[CASES[0], CASES[0], CASES[2]]),
            "nothing executed": dict(summary=dict(SUMMARY, executed=0)),
            "an error": dict(summary=dict(SUMMARY, error="no device")),
            "messages": dict(summary=dict(SUMMARY, validation_messages=2)),
            "no layers": dict(header=dict(HEADER, validation_layers=False)),
            "another driver": dict(header=dict(HEADER, device={"driver_name": "SwiftShader driver", "subgroup_size": 8})),
            "another subgroup size": dict(header=dict(HEADER, device={"driver_name": "llvmpipe", "subgroup_size": 4})),
            "an override from elsewhere": dict(header=dict(HEADER, overrides={"fp16": False})),
            "exit status": dict(exit_code=1),
            "died of a signal": dict(exit_code=-11),
            "half a line": dict(extra=['{"type": "ca']),
            "unexplained": dict(cases=CASES[:2] + [dict(CASES[2], message="integer dot product")]),
            "its own subgroup size": dict(cases=CASES[:2] + [dict(CASES[2], message="subgroup size 8")]),
            "a longer reason": dict(cases=CASES[:2] + [dict(CASES[2], message="fp16 arithmetic, and more")]),
            "no reason": dict(cases=CASES[:2] + [{"type": "case", "name": "c", "status": "not_supported"}]),
        }
        attempts.update({case["status"]: dict(cases=[case] + CASES[1:]) for case in bad})
        for what, changes in attempts.items():
            with self.subTest(what):
                result = judged(**changes)
                self.assertNotEqual(result.problems, [])
                self.assertEqual(result.outcome, "FAILED")

    def test_profiles_and_quirks_must_have_arrived(self):
        row = rows.Row("p", "P", "lavapipe", "llvmpipe", 8, 256, profile="mali_g52", quirks="+a_quirk", allowed=ROW.allowed)
        self.assertEqual(len(judged(row=row).problems), 2)
        self.assertEqual(judged(header=dict(HEADER, overrides={"fp16": False}, quirks=["a_quirk"]), row=row).problems, [])

    def test_support_of_the_whole_list_is_held_to_its_row(self):
        row = dataclasses.replace(ROW, least=5)
        reasons = {"subgroup size 4": 2, rows.NO_FP16: 3}
        self.assertEqual(run.judge_support(row, 5, reasons), [])
        self.assertEqual(len(run.judge_support(row, 4, reasons)), 1)
        self.assertEqual(len(run.judge_support(row, 5, {"subgroup size 4": 2})), 1)
        self.assertEqual(len(run.judge_support(row, 5, dict(reasons, other=1))), 1)


class Rows(unittest.TestCase):
    def test_names_profiles_and_allowances_are_sound(self):
        names = [row.name for row in rows.ROWS]
        self.assertEqual(len(names), len(set(names)))
        profiles = {row.profile for row in rows.ROWS if row.profile}
        self.assertEqual(profiles, {path.stem for path in (SOURCE / "tests/profiles").glob("*.json")})
        quirks = (SOURCE / "backend/quirks.cpp").read_text(encoding="utf-8")
        for row in rows.ROWS:
            with self.subTest(row.name):
                for pattern in row.allowed:
                    re.compile(pattern)
                    self.assertFalse(re.fullmatch(pattern, f"subgroup size {row.subgroups}"))
                    self.assertFalse(re.fullmatch(pattern, "module append is not in this build"))
                for quirk in filter(None, row.quirks.split(",")):
                    self.assertEqual(quirk[0], "+")
                    self.assertIn(f'"{quirk[1:]}"', quirks)


class Table(unittest.TestCase):
    def test_rows_replace_their_own_and_keep_others(self):
        order = ["other", "some-row"]
        document = f"head\n{report.BEGIN}\n{report.END}\ntail\n"
        other = run.Result(rows.Row("other", "O", "lavapipe"))
        other.not_run = "there is no such driver"
        first = report.updated_table(document, [report.cells(other, "full", "abc")], order)
        both = report.updated_table(first, [report.cells(judged(), "full", "abc")], order)
        self.assertIn("not run: there is no such driver", both)
        self.assertIn("| some-row |", both)
        self.assertLess(both.index("| other |"), both.index("| some-row |"))
        again = report.updated_table(both, [report.cells(judged(exit_code=1), "full", "abc")], order)
        self.assertIn("FAILED", again)
        self.assertEqual(again.count("| some-row |"), 1)
        self.assertTrue(again.startswith("head\n") and again.endswith("tail\n"))

    def test_shards_stand_beside_each_other_until_the_row_runs_whole(self):
        order = ["other", "some-row"]
        document = f"{report.BEGIN}\n{report.END}"
        for shard in ("10/12", "2/12", "2/12"):
            cells = report.cells(judged(), "full", "abc")
            cells[0] += f" {shard}"
            document = report.updated_table(document, [cells], order)
        names = [line.split(" | ")[0].strip("| ") for line in document.splitlines()[3:-1]]
        self.assertEqual(names, ["some-row 2/12", "some-row 10/12"])
        whole = report.updated_table(document, [report.cells(judged(), "full", "def")], order)
        names = [line.split(" | ")[0].strip("| ") for line in whole.splitlines()[3:-1]]
        self.assertEqual(names, ["some-row"])

    def test_a_document_without_markers_is_refused(self):
        with self.assertRaises(ValueError):
            report.updated_table("no markers", [], [])

    def test_the_document_of_the_tree_has_its_markers(self):
        text = (SOURCE / "docs/matrix.md").read_text(encoding="utf-8")
        report.updated_table(text, [], [row.name for row in rows.ROWS])


class Command(unittest.TestCase):
    """The whole command over stand-ins for the programs that it runs."""

    def matrix(self, script, *words):
        with tempfile.TemporaryDirectory() as folder:
            binary = pathlib.Path(folder) / "bin"
            binary.mkdir()
            for name in ("kvant", "isa_check"):
                if script is not None:
                    path = binary / name
                    path.write_text("#!/bin/sh\n" + script, encoding="utf-8")
                    path.chmod(path.stat().st_mode | stat.S_IXUSR)
            process = subprocess.run([sys.executable, "-B", str(SOURCE / "tools/matrix"), "--build", folder, *words],
                                     capture_output=True, text=True, check=False, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
            return process.returncode, process.stdout + process.stderr

    def test_what_is_not_built_has_not_run(self):
        code, text = self.matrix(None, "--rows", "radv-navi21")
        self.assertEqual(code, 3)
        self.assertIn("not run", text)
        code, text = self.matrix(None, "--rows", "radv-navi21", "--allow-missing", "radv-*")
        self.assertEqual(code, 3, "rows that could not run are no run")

    def test_a_missing_root_has_not_run(self):
        with tempfile.TemporaryDirectory() as folder:
            code, text = self.matrix("exit 0", "--rows", "lavapipe-26.1", "--root", folder)
        self.assertEqual(code, 3)
        self.assertIn("tools/sysroot --full", text)

    @unittest.skipUnless(run.glob.glob(run.MANIFESTS["radv"]), "no RADV on this machine")
    def test_programs_that_do_nothing_crash_or_skip_do_not_pass(self):
        for script, expected in (("exit 0", 1), ("kill -SEGV $$", 1), ("echo it has no such device; exit 77", 3)):
            with self.subTest(script):
                self.assertEqual(self.matrix(script, "--rows", "radv-navi21")[0], expected)

    @unittest.skipUnless(run.glob.glob(run.MANIFESTS["lavapipe"]), "no lavapipe on this machine")
    def test_a_suite_that_says_nothing_does_not_pass(self):
        for script in ("exit 0", "kill -SEGV $$"):
            with self.subTest(script):
                self.assertEqual(self.matrix(script, "--rows", "lavapipe-256")[0], 1)

    def test_what_a_row_lacks_is_asked_for_the_whole_list(self):
        options = types.SimpleNamespace(short=False)
        for says, reasons, problems in (("echo '  9  supported'; echo '  2  subgroup size 4'; echo '  1  fp16 arithmetic'",
                                         {"subgroup size 4": 2, "fp16 arithmetic": 1}, 0),
                                        ("echo '  9  supported'; echo '  2  something else'", {"something else": 2}, 3),
                                        ("echo '  2  subgroup size 4'", {}, 1), ("exit 1", {}, 1)):
            with self.subTest(says), tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "bin/kvant"
                path.parent.mkdir()
                path.write_text("#!/bin/sh\n" + says + "\n", encoding="utf-8")
                path.chmod(path.stat().st_mode | stat.S_IXUSR)
                runner = run.Runner(str(SOURCE), folder, folder, folder, options)
                run.MANIFESTS["stand-in"] = str(path)
                found = runner.support(dataclasses.replace(ROW, driver="stand-in"))
                self.assertEqual(found[0], reasons)
                self.assertEqual(len(found[1]), problems)

    def test_a_shard_has_files_of_its_own_and_must_be_one(self):
        runner = run.Runner("", "", "", "out", types.SimpleNamespace(shard="3/8"))
        self.assertEqual(runner.base(ROW), f"out/{ROW.name}-3-of-8")
        for words in (("8/8",), ("1",), ("1/0",), ("-1/2",), ("1/2", "--short"), ("1/2", "--rows=radv-*")):
            with self.subTest(words):
                code, text = self.matrix(None, f"--shard={words[0]}", *words[1:])
                self.assertEqual(code, 2)
                self.assertIn("--shard", text)

    def test_no_row_is_an_error(self):
        self.assertEqual(self.matrix(None, "--rows", "nothing")[0], 2)


if __name__ == "__main__":
    unittest.main()
