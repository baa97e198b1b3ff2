"""tools/bench-peers without a backend: turns, ratios, what counts as wrong."""
import math
import pathlib
import sys
import unittest
import unittest.mock

sys.dont_write_bytecode = True
SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tools"))
import bench_peers_report as report  # noqa: E402
import bench_peers_run as run  # noqa: E402


class StandIn:
    """Answers as bench_peer does; `script`: word to answer, or to a function of the line."""

    def __init__(self, log, name, **script):
        self.log, self.name, self.script = log, name, {"case": "ready a device", "compare": "error_of 1e-6", "reference": "written", "run": "ms 2"} | script

    def ask(self, line):
        self.log.append((self.name, line.split()[0]))
        answer = self.script[line.split()[0]]
        word, _, rest = (answer() if callable(answer) else answer).partition(" ")
        return word, rest


def measured(rounds=4, log=None, kind="q4_0", case=run.CASES[0], **scripts):
    log = [] if log is None else log
    peers = {name: StandIn(log, name, **scripts.get(name.replace("-", "_"), {})) for name in run.PEERS}
    with unittest.mock.patch("time.sleep", lambda seconds: log.append((None, "pause" if seconds == run.PAUSE else "sleep"))):
        return run.measure(case, kind, peers, StandIn(log, "truth"), "file", rounds, {})


class Turns(unittest.TestCase):
    def test_all_run_in_turn_and_none_first_always(self):
        log = []
        entry = measured(4, log)
        runs = [name for name, verb in log if verb == "run"][run.WARM_UPS * len(run.PEERS):]
        names = list(run.PEERS)
        self.assertEqual(runs, (names + names[::-1]) * 2)
        self.assertTrue(all(len(peer["ms"]) == 4 for peer in entry["peers"].values()))
        # Nobody's threads are still busy when the next one's time is taken.
        counted = log[-2 * 4 * len(names):]
        self.assertEqual({verb for _, verb in counted[::2]}, {"pause"})
        self.assertEqual({verb for _, verb in counted[1::2]}, {"run"})

    def test_who_cannot_is_left_out(self):
        for script in ({"case": "unsupported"}, {"run": "error lost"}):
            entry = measured(Vulkan0=script)
            self.assertNotIn("Vulkan0", entry["peers"])
            self.assertIn("Vulkan0", entry["problems"])
            self.assertEqual(report.complaint(entry), "")
        self.assertIn("unsupported", report.complaint(measured(KVANT0={"case": "unsupported"})))

    def test_a_failure_in_the_middle_takes_the_times_before_it_along(self):
        answers = iter(["ms 1"] * (run.WARM_UPS + 2) + ["error lost"])
        entry = measured(KVANT0={"run": lambda: next(answers)})
        self.assertIn("lost", report.complaint(entry))

    def test_what_errs_is_wrong(self):
        self.assertEqual(report.complaint(measured()), "")
        for error in ("0.5", "nan"):
            self.assertIn("errs", report.complaint(measured(KVANT0={"compare": f"error_of {error}"})))
        self.assertIn("errs", report.complaint(measured(KVANT0={"compare": "error no file"})))


class Report(unittest.TestCase):
    def record(self):
        slow, fast, cpu = {"run": "ms 40"}, {"run": "ms 10"}, {"run": "ms 1"}
        prefill = next(case for case in run.CASES if case.prefill)
        return {"commit": "abc", "processor": "P", "threads": 2, "rounds": 4, "devices": {"KVANT0": "D <1>"},
                "cases": [measured(Vulkan0=slow, Vulkan0_nocm=fast, CPU=cpu), measured(Vulkan0=fast, Vulkan0_nocm=slow, CPU=cpu, KVANT0={"run": "ms 1"}),
                          measured(Vulkan0={"case": "unsupported"}, Vulkan0_nocm={"case": "unsupported"}, case=prefill)]}

    def test_the_better_setting_counts_and_means_are_geometric(self):
        entries = self.record()["cases"]
        self.assertEqual([report.ratio(entry, report.VULKAN) for entry in entries], [5, 10, None])
        self.assertEqual(report.ratio(entries[0], report.CPU), 0.5)
        found = {name: (mean, least) for name, mean, least in report.summary(self.record())}
        self.assertAlmostEqual(found["decode, quantized, of ggml's Vulkan backend"][0], math.sqrt(50))
        self.assertEqual(found["decode, quantized, of ggml's Vulkan backend"][1], 5)
        self.assertEqual(found["prefill, of ggml's CPU backend"], (1, 1))
        self.assertNotIn("prefill, of ggml's Vulkan backend", found)

    def test_the_page_has_each_case_and_no_markup_of_devices(self):
        page = report.html(self.record())
        self.assertEqual(page.count("<td>decode-4k</td>"), 2)
        self.assertIn("D &lt;1&gt;", page)
        self.assertEqual(page.count("<rect"), 8)
        self.assertIn("7.07", report.terminal(self.record()))


if __name__ == "__main__":
    unittest.main()
