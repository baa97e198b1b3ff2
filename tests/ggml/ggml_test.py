#!/usr/bin/env python3
"""What tools/ggml-test and tools/llama-e2e take for passed, failed and missing, and that nothing else passes. No device is used."""
import array
import contextlib
import importlib.machinery
import importlib.util
import io
import math
import pathlib
import struct
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tools"))


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SOURCE / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


import llama_bench  # noqa: E402
import llama_company  # noqa: E402
import llama_context  # noqa: E402
import llama_hybrid  # noqa: E402
import llama_hybrid_scenarios as hybrids  # noqa: E402
import llama_server  # noqa: E402
import llama_server_scenarios as ways  # noqa: E402
import llama_texts  # noqa: E402
import llama_scenarios  # noqa: E402
from llama_scenarios import Failed, Outcome, Scenario, Skipped  # noqa: E402

TOOL = load("ggml-test")
OUTPUT = """Testing 2 devices
  CPY(type_src=f32,type_dst=f16,ne_src=[256,4,4,4]): \x1b[1;32mOK\x1b[0m
  CPY(type_src=i16,type_dst=f16,ne_src=[256,4,4,4]): not supported [KVANT0]
[CPY] ERR = 0.000000276 > 0.000000060   CPY(type_src=bf16,type_dst=q8_0,ne_src=[256,4,4,4]): \x1b[1;31mFAIL\x1b[0m
  CONT(type=f32): \x1b[1;32mOK\x1b[0m
"""


class Counting(unittest.TestCase):
    def test_each_outcome_is_counted_for_its_operation_alone(self):
        counts, failed, lines = TOOL.count(OUTPUT, "CPY")
        self.assertEqual(counts, (1, 1, 1))
        self.assertEqual(len(failed), 1)
        self.assertEqual(lines, [])
        self.assertEqual(TOOL.count(OUTPUT, "CONT")[0], (1, 0, 0))
        self.assertEqual(TOOL.count(OUTPUT, "DUP")[0], (0, 0, 0))

    def test_errors_of_the_backend_and_aborts_are_seen(self):
        for line in ("ggml_kvant: error: validation: x", "GGML_ASSERT(a) failed"):
            self.assertEqual(TOOL.count(OUTPUT + line, "CPY")[2], [line])

    def test_only_ties_of_q8_0_are_drawn_again_and_an_error_stays_one(self):
        class Root:
            def __init__(self, outcomes):
                self.outcomes, self.words = list(outcomes), None

            def run(self, _program, *words, **_environment):
                self.words = words
                outcome = self.outcomes.pop(0)
                return (0 if outcome == "OK" else 1), f"  CPY(type_src=bf16,type_dst=q8_0,ne_src=[256,4,4,4]): {outcome}\n", ""

        line = TOOL.count(OUTPUT, "CPY")[1][0]
        self.assertRegex(line, TOOL.TIES)
        for other in ("CPY(type_src=f32,type_dst=q8_0,", "CPY(type_src=f16,type_dst=q4_0,", "SET_ROWS(type_src=f16,type_dst=q8_0,"):
            self.assertNotRegex(other, TOOL.TIES)
        root = Root(["FAIL", "OK"])
        self.assertTrue(TOOL.passes_when_drawn_again(root, {}, line))
        self.assertRegex("type_src=bf16,type_dst=q8_0,ne_src=[256,4,4,4]", f"^{root.words[-1]}$")
        for outcomes in (["FAIL"] * (TOOL.DRAWS - 1), ["not supported"] * (TOOL.DRAWS - 1)):
            root = Root(outcomes)
            self.assertFalse(TOOL.passes_when_drawn_again(root, {}, line))
            self.assertEqual(root.outcomes, [])

    def test_a_root_that_is_not_there_is_skipped_and_a_wrong_operation_refused(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(TOOL.main(["--root", "/no/such/root"]), 77)
            self.assertEqual(load("llama-e2e").main(["--root", "/no/such/root"]), 77)
            self.assertEqual(TOOL.main(["--op", "MUL_MAT"]), 2)


def scenario(name, run=lambda: "", bounded=True):
    return Scenario(name, "what it does", run, bounded)


def raising(error):
    def run():
        raise error
    return run


class Table(unittest.TestCase):
    def test_patterns_choose_by_part_and_by_wildcard_and_only_full_has_all(self):
        some = [scenario("a/f16"), scenario("a/q4_0"), scenario("b/f16", bounded=False)]
        names = lambda *how: [one.name for one in llama_scenarios.chosen(some, *how)]  # noqa: E731
        self.assertEqual(names(False, None), ["a/f16", "a/q4_0"])
        self.assertEqual(names(True, ["f16"]), ["a/f16", "b/f16"])
        self.assertEqual(names(True, ["a/q*", "b/"]), ["a/q4_0", "b/f16"])
        self.assertEqual(names(False, ["b/"]), [])

    def test_outcomes_and_exit_status(self):
        one, two, three = (llama_scenarios.carried_out(scenario("n", run)) for run in (lambda: "seen", raising(Failed("bad")), raising(Skipped("why"))))
        self.assertEqual([(o.word, o.note) for o in (one, two, three)], [("passed", "seen"), ("failed", "bad"), ("skipped", "why")])
        self.assertEqual(llama_scenarios.carried_out(scenario("n", raising(KeyError("timings")))).word, "failed")
        self.assertEqual([llama_scenarios.status(o) for o in ([one, three], [one, two, three], [three])], [0, 1, 77])
        self.assertIn("1 passed, 1 failed, 1 skipped", llama_scenarios.total([one, two, three]))

    def test_columns_stand_under_their_headings_and_notes_are_one_line(self):
        some = [scenario("short"), scenario("a/longer/name")]
        head = llama_scenarios.heading(some)
        for one in some:
            line = llama_scenarios.line(Outcome(one, "failed", "two\nlines", 1.25), some)
            self.assertEqual(line.index("failed"), head.index("outcome"))
            self.assertEqual(line.index("two lines"), head.index("seen"))

    def test_the_names_of_scenarios_are_unlike(self):
        names = [one.name for module in (llama_texts, ways, llama_company, hybrids) for one in module.scenarios(None)]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(sum(name.startswith("perplexity/") for name in names), 81)


class Judging(unittest.TestCase):
    def test_a_text_must_be_the_same_or_share_what_is_asked(self):
        self.assertIn("5 characters", llama_scenarios.require_same("abcde", "abcde", "the CPU's"))
        self.assertIn("3 of 5", llama_scenarios.require_same("abcxx", "abcde", "the CPU's", 3))
        for seen, wanted, least in (("abcxx", "abcde", None), ("abcxx", "abcde", 4), ("", "", None), ("abc", "abcde", None), ("x", "y", 0)):
            with self.assertRaises(Failed):
                llama_scenarios.require_same(seen, wanted, "the CPU's", least)

    def test_perplexity_is_read_and_judged(self):
        self.assertEqual(llama_texts.read_perplexity("[1]2.50,[2]2.5642,\nFinal estimate: PPL = 2.5641 +/- 0.1", 2), 2.5641)
        self.assertEqual(llama_texts.read_perplexity("[1]2.50,[2]2.5642,", 2), 2.5642)
        self.assertIsNone(llama_texts.read_perplexity("[1]2.50,", 2))
        llama_texts.judge_perplexity(2.5070, 2.5)
        for here, there in ((2.51, 2.5), (2.49, 2.5), (None, 2.5), (2.5, None), (math.nan, 2.5)):
            with self.assertRaises(Failed):
                llama_texts.judge_perplexity(here, there)

    def test_a_text_too_short_is_written_again_and_not_for_ever(self):
        runs = iter(["lost", "also lost", " " + "x" * 40 + "\n", "never asked for"])
        self.assertEqual(llama_texts.read_text(lambda: next(runs)), "x" * 40)
        runs = iter(["longer", "short"] * llama_texts.TRIES)
        self.assertEqual(llama_texts.read_text(lambda: next(runs)), "longer")
        self.assertEqual(len(list(runs)), llama_texts.TRIES)

    def test_log_probabilities_of_a_given_text(self):
        ways.judge_forced([-1.0, -2.0], [-1.05, -1.95])
        for here, there in (([-1.0, -1.0], [-1.3, -0.7]), ([], []), ([-1.0], [-1.0, -1.0]), ([math.nan], [-1.0])):
            with self.assertRaises(Failed):
                ways.judge_forced(here, there)
        self.assertEqual(ways.literal_grammar('a"\\\n'), 'root ::= "a\\"\\\\\\n"')

    def test_the_cache_must_be_where_it_should(self):
        log = "llama_kv_cache:     KVANT0 KV buffer size =     0.00 MiB\nllama_kv_cache:     KVANT0 KV buffer size =     1.50 MiB\n"
        llama_context.require_cache_on(log, ["KVANT0"])
        for text, devices in ((log.replace("1.50", "0.00"), ["KVANT0"]), (log, ["CPU"]), (log, ["CPU", "KVANT0"]), ("", ["KVANT0"])):
            with self.assertRaises(Failed):
                llama_context.require_cache_on(text, devices)

    def test_complaints_and_ends_of_servers(self):
        abort = "x.cpp:1: pre-allocated tensor (k) in a buffer (KVANT0) that cannot run the operation (ROPE)"
        self.assertEqual(llama_scenarios.complaints(f"fine\n{abort}\n"), [abort])
        self.assertEqual(llama_server.reason_of_end(-6, f"fine\n{abort}\n"), f"signal SIGABRT: {abort}")
        self.assertEqual(llama_server.reason_of_end(1, "fine\nerror: invalid device\nbye"), "exit status 1: error: invalid device")

    def test_slots_at_work_at_once(self):
        log = "".join(f"I slot {word}: id  {slot} | task\n" for word, slot in (("launch_slot_", 0), ("launch_slot_", 1), ("     release", 0),
                                                                               ("launch_slot_", 2), ("     release", 1), ("     release", 2)))
        self.assertEqual(llama_server.most_at_once(log), 2)

    def test_the_hidden_symbol_has_the_same_hash(self):
        def elf_hash(name):
            value = 5381
            for byte in name:
                value = (value * 33 + byte) % 2**32
            return value
        self.assertEqual(elf_hash(llama_company.OLD_SYMBOL[1:-1]), elf_hash(llama_company.HIDDEN_SYMBOL[1:-1]))
        self.assertIn(llama_company.HIDDEN_SYMBOL, llama_company.hide_symbol(b"x" + llama_company.OLD_SYMBOL + b"y"))
        self.assertRaises(Skipped, llama_company.hide_symbol, b"no such name")

    def test_the_words_for_the_cpu_leave_layers_out(self):
        self.assertEqual(llama_company.reference_words(("-fa", "on", "-ngl", 3, "-nkvo", "-ot", "x", "-np", 4)), ["-fa", "on", "-np", 4])


KV_LOG = "KVANT0 KV buffer size = 1.50 MiB\n"


class FakeServer:
    """Answers as it is told, by device."""

    def __init__(self, answer, log):
        self.answer, self.text = answer, log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def log(self):
        return self.text

    def complete(self, prompt, count, **more):
        return self.answer(prompt, count, more)

    def post(self, path, _):
        return {"n_saved": 301} if "save" in path else {"n_restored": 301}


class FakeRoot:
    def __init__(self, scratch):
        self.scratch = scratch

    @staticmethod
    def run(*_, **__):
        return 0, "", ""


class FakeContext:
    model = "tiny.gguf"

    def __init__(self, answers, log, scratch=None):
        self.answers, self.log, self.root = answers, KV_LOG + log, FakeRoot(scratch)

    def text(self, begin, end):
        return "x" * (end - begin)

    def server(self, _, device, *words):
        return FakeServer(self.answers[device], self.log)


class Ways(unittest.TestCase):
    """The scenarios of the server, with servers that answer right and wrong."""
    busy = "".join(f"slot launch_slot_: id  {slot}\n" for slot in range(4))
    shifted = "slot context shift, n_keep = 1\napplying K-shift\n"
    moved = "reusing chunk with size 200, shifting KV cache [201, 401) -> [101, 301)\n"

    def fails(self, scenario_of, log, here, there=None, kind="f16"):
        answers = {"KVANT0": here, "none": there or here}
        with tempfile.TemporaryDirectory() as scratch:
            (pathlib.Path(scratch) / "slots").mkdir()
            (pathlib.Path(scratch) / "slots" / f"{kind}.bin").touch()
            try:
                scenario_of(FakeContext(answers, log, scratch), "name", kind)
            except Failed:
                return True
        return False

    @staticmethod
    def text(prompt, count, _):
        return {"content": f"{prompt}!", "tokens_predicted": count, "timings": {"cache_n": 299}}

    def test_slots(self):
        self.assertFalse(self.fails(ways.slots, self.busy, self.text))
        self.assertTrue(self.fails(ways.slots, "", self.text))
        other = lambda prompt, count, more: {"content": "alone" if "cache_prompt" in more else "together"}  # noqa: E731
        self.assertTrue(self.fails(ways.slots, self.busy, other, kind="q4_0"))
        self.assertTrue(self.fails(ways.slots, self.busy, self.text, lambda *_: {"content": "other"}))

    def test_shift(self):
        self.assertFalse(self.fails(ways.shift, self.shifted, self.text))
        self.assertTrue(self.fails(ways.shift, "", self.text))
        self.assertTrue(self.fails(ways.shift, self.shifted, lambda *_: {"content": "t", "tokens_predicted": 30}))
        self.assertTrue(self.fails(ways.shift, self.shifted, self.text, lambda *_: {"content": "other"}))

    def test_reuse(self):
        self.assertFalse(self.fails(ways.reuse, self.moved, self.text))
        self.assertTrue(self.fails(ways.reuse, "", self.text))
        self.assertTrue(self.fails(ways.reuse, self.moved, lambda *_: {"content": "t", "timings": {"cache_n": 100}}))
        self.assertTrue(self.fails(ways.reuse, self.moved, self.text, lambda *_: {"content": "other"}))

    def test_save(self):
        def answering(*texts, reused=301):
            given = iter(texts)
            return lambda *_: {"content": next(given), "timings": {"cache_n": reused}}
        there = lambda *_: {"content": "next", "timings": {"cache_n": 301}}  # noqa: E731
        self.assertFalse(self.fails(ways.save, "", answering("x", "text", "other", "text", "next"), there))
        self.assertTrue(self.fails(ways.save, "", answering("x", "text", "other", "tent", "next"), there))
        self.assertTrue(self.fails(ways.save, "", answering("x", "text", "other", "text", "last"), there))
        self.assertTrue(self.fails(ways.save, "", answering("x", "text", "other", "text", "next", reused=0), there))

    def test_draft(self):
        def drafting(*texts, drafted=9, accepted=5):
            given = iter(texts)
            return lambda *_: {"content": next(given), "timings": {"draft_n": drafted, "draft_n_accepted": accepted}}
        self.assertFalse(self.fails(ways.draft, "", drafting("text", "text")))
        self.assertTrue(self.fails(ways.draft, "", drafting("text", "tent")))
        self.assertTrue(self.fails(ways.draft, "", drafting("text", "text", accepted=0)))
        self.assertTrue(self.fails(ways.draft, "", drafting("text", "text", drafted=5)))

    def test_types_that_round_are_judged_by_log_probabilities(self):
        def giving(value):
            return lambda prompt, count, more: {"content": "x" * count, "timings": {"cache_n": 299},
                                                "completion_probabilities": [{"logprob": value}] * count}
        self.assertFalse(self.fails(ways.reuse, self.moved, giving(-1.0), giving(-1.05), "q4_0"))
        self.assertTrue(self.fails(ways.reuse, self.moved, giving(-1.0), giving(-1.3), "q4_0"))


class Hybrid(unittest.TestCase):
    """The models with recurrent state that are written for their scenarios, and what is read of where states are."""
    value, tensor = llama_hybrid.Value, llama_hybrid.Tensor

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "x.gguf"

    def test_a_file_is_laid_out_as_gguf_has_it(self):
        llama_hybrid.write_gguf(self.path, {"k": self.value(4, 7)}, [self.tensor("a", (3,), array.array("f", [1, 2, 3])),
                                                                     self.tensor("b", (1, 2), array.array("f", [4, 5]))])
        head = struct.pack("<4sIQQ Q1sII Q1sIQIQ Q1sIQQIQ", b"GGUF", 3, 2, 1, 1, b"k", 4, 7, 1, b"a", 1, 3, 0, 0, 1, b"b", 2, 1, 2, 0, 32)
        head += bytes(-len(head) % 32)
        self.assertEqual(self.path.read_bytes(), head + struct.pack("<3f20x2f24x", 1, 2, 3, 4, 5))

    def test_every_kind_of_value_is_read_as_it_was_written(self):
        numbers = {0: 255, 1: -1, 2: 65535, 3: -2, 4: 1 << 31, 5: -3, 6: 0.5, 7: True, 10: 1 << 63, 11: -4, 12: 0.25}
        metadata = {f"one{kind}": self.value(kind, number) for kind, number in numbers.items()}
        metadata |= {f"many{kind}": self.value(9, [number] * 3, kind) for kind, number in numbers.items()}
        metadata |= {"text": self.value(8, b"\xff"), "texts": self.value(9, [b"", b"ab"], 8), "none": self.value(9, [], 5)}
        llama_hybrid.write_gguf(self.path, metadata, [])
        self.assertEqual(llama_hybrid.read_metadata(self.path), metadata)

    def test_what_is_no_such_file_is_refused(self):
        llama_hybrid.write_gguf(self.path, {"key": self.value(8, b"some text")}, [])
        good = self.path.read_bytes()
        kind = good.index(b"key") + 3
        for data in (b"", b"GGML" + good[4:], good[:4] + b"\2" + good[5:], good[:kind + 16], good[:kind] + b"\15" + good[kind + 1:],
                     good[:kind] + struct.pack("<IIQ", 9, 9, 1) + good[kind:]):
            self.path.write_bytes(data)
            with self.assertRaises(llama_hybrid.WrongFile):
                llama_hybrid.read_metadata(self.path)

    def test_models_are_always_the_same_and_need_a_vocabulary(self):
        vocabulary = self.path.with_name("vocabulary.gguf")
        llama_hybrid.write_gguf(vocabulary, {"tokenizer.ggml.tokens": self.value(9, [b"<s>", b"<0x41>", b"z", b"\xe2\x96\x81"], 8)}, [])
        for make, name in ((llama_hybrid.hybrid, b"lfm2"), (llama_hybrid.recurrent, b"mamba")):
            files = []
            for _ in range(2):
                llama_hybrid.write_model(self.path, make, vocabulary)
                files.append(self.path.read_bytes())
            self.assertEqual(*files)
            metadata = llama_hybrid.read_metadata(self.path)
            self.assertEqual(metadata["general.architecture"].value, name)
            self.assertEqual(len(metadata["tokenizer.ggml.tokens"].value), 4)
            with self.assertRaises(llama_hybrid.WrongFile):
                llama_hybrid.write_model(self.path, make, self.empty())

    def empty(self):
        path = self.path.with_name("empty.gguf")
        llama_hybrid.write_gguf(path, {}, [])
        return path

    def test_only_visible_letters_have_a_way_out(self):
        way_out = llama_hybrid.embeddings([b"<s>", b"<0x41>", b"z", b"<0x0A>", b"\xe2\x96\x81"], "norm")[-1].values
        rows = [any(way_out[row * llama_hybrid.WIDTH:(row + 1) * llama_hybrid.WIDTH]) for row in range(5)]
        self.assertEqual(rows, [False, True, True, False, False])

    def test_states_must_be_where_they_should(self):
        log = "".join(f"llama_memory_recurrent, layer   {layer}: dev = KVANT0\n" for layer in (0, 2))
        log += "llama_memory_recurrent: layer   1: skipped\nllama_memory_recurrent:     KVANT0 RS buffer size =     0.00 MiB\n"
        places = {0: "KVANT0", 2: "KVANT0"}
        hybrids.require_states_on(log, places)
        for text in ("", log.replace("KVANT0", "CPU"), log.replace("KVANT0 RS", "CPU RS"), log.replace("2: dev = KVANT0", "2: dev = CPU"),
                     log.replace("layer   2: dev", "layer   2:"), log + "CPU RS buffer size = 0.00 MiB\n"):
            with self.assertRaises(Failed):
                hybrids.require_states_on(text, places)

    def test_a_checkpoint_must_have_been_put_back(self):
        def judged(log, here, there="text", reused=299):
            answers = {"KVANT0": lambda *_: {"content": here, "timings": {"cache_n": reused}}, "none": lambda *_: {"content": there}}
            return hybrids.checkpoint(FakeContext(answers, log), "name", "f16", ("KVANT0",))
        restored = "restored context checkpoint (pos_min = 296, pos_max = 296)\n"
        self.assertIn("position 296", judged(restored, "text"))
        for words in (("", "text"), (restored, "tent"), (restored, "text", "text", 0)):
            with self.assertRaises(Failed):
                judged(*words)


class Speed(unittest.TestCase):
    lines = "\n".join(['{"n_prompt": 128, "n_gen": 0, "n_depth": 0, "samples_ts": [4.0, 2.0]}', "no JSON",
                       '{"n_prompt": 0, "n_gen": 16, "n_depth": 512, "samples_ts": [1.0, 9.0, 2.0]}'])

    def test_samples_medians_and_ratios(self):
        samples = llama_bench.read_samples(self.lines)
        self.assertEqual(samples, {("pp", 0): [4.0, 2.0], ("tg", 512): [1.0, 9.0, 2.0]})
        self.assertEqual(llama_bench.medians(samples), {("pp", 0): 3.0, ("tg", 512): 2.0})
        self.assertEqual((llama_bench.ratio(3.0, 2.0), llama_bench.ratio(3.0, None), llama_bench.ratio(None, 2.0)), ("1.50", "-", "-"))

    def test_table_has_a_line_for_each_test_and_depth_and_a_dash_for_what_is_missing(self):
        values = {("KVANT0", "f16", "tg", 512): 6.0, ("CPU", "f16", "tg", 512): 4.0}
        lines = llama_bench.table(values, ["f16"], [0, 512], ["KVANT0", "Vulkan0", "CPU"])
        self.assertEqual(len(lines), 5)
        self.assertEqual(lines[2].split(), ["f16", "tg16", "512", "6.00", "-", "4.00", "-", "1.50"])
        self.assertTrue(all(len(line) == len(lines[0]) for line in lines))

    def test_wrong_words_are_refused(self):
        tool = load("llama-e2e")
        for words in (["--bench", "--types", "f17"], ["--bench", "--depths", "0,-1"], ["--repetitions", "0"], ["--bench", "--validation"],
                      ["--list", "--only", "no such scenario"], ["--columns", "GPU"]):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as end:
                tool.main(words)
            self.assertEqual(end.exception.code, 2, words)


if __name__ == "__main__":
    unittest.main()
