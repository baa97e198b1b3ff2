#!/usr/bin/env python3
"""What tools/ggml-test takes for passed, failed and missing, and that nothing else passes. No device is used."""
import importlib.machinery
import importlib.util
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tools"))


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SOURCE / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


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

    def test_a_root_that_is_not_there_is_skipped_and_a_wrong_operation_refused(self):
        self.assertEqual(TOOL.main(["--root", "/no/such/root"]), 77)
        self.assertEqual(load("llama-e2e").main(["--root", "/no/such/root"]), 77)
        self.assertEqual(TOOL.main(["--op", "MUL_MAT"]), 2)


if __name__ == "__main__":
    unittest.main()
