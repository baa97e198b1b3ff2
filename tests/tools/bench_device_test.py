"""tools/bench-device without a device: how much it asks for, what it makes of the answers, and what it says of what failed."""
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import bench_device_parts as parts  # noqa: E402


def decode_found(share):
    return {"copy_bytes_per_second": 1e12, "results": [{"shape": "s", "device_bytes": 3 * 2**30, "device_seconds": 0.002, "wall_seconds": 0.003,
                                                        "bytes_per_second": share * 2e12, "share_of_copy": share}]}


class Sizes(unittest.TestCase):
    def test_every_format_holds_as_many_bytes_as_asked(self):
        for form, bits in parts.BITS.items():
            sequences = parts.sequences_for(form, parts.FULL, 0)
            held = sequences * 2 * parts.KV_HEADS * parts.HEAD_DIM * bits / 8 * parts.FULL.decode_tokens
            self.assertGreaterEqual(held, 2 << 30)
            self.assertLess(held, 2.2 * (1 << 30))

    def test_never_more_than_half_of_the_memory(self):
        each = 2 * parts.KV_HEADS * parts.HEAD_DIM * 2 * parts.FULL.decode_tokens
        self.assertEqual(parts.sequences_for("f16", parts.FULL, each * 6), 3)
        self.assertEqual(parts.sequences_for("f16", parts.FULL, each), 1)

    def test_the_command_names_it_all(self):
        words = parts.decode_command("q4_0", 4, parts.FULL, 0)
        options = dict(zip(words[2::2], words[3::2]))
        self.assertEqual(words[:2], ["bench", "decode"])
        self.assertEqual((options["--formats"], options["--gqa"], options["--tokens"]), ("q4_0", "4", "32768"))
        self.assertEqual(options["--batch"], str(parts.sequences_for("q4_0", parts.FULL, 0)))


class Judgement(unittest.TestCase):
    def test_wanted_shares_are_of_the_format_and_of_few_query_heads(self):
        self.assertEqual(parts.decode_row(decode_found(0.8), "f16", 1)["wanted"], 0.85)
        self.assertEqual(parts.decode_row(decode_found(0.8), "t4", 4)["wanted"], 0.75)
        self.assertIsNone(parts.decode_row(decode_found(0.8), "f16", 8)["wanted"])
        self.assertEqual([parts.verdict(0.85, 0.85), parts.verdict(0.84, 0.85), parts.verdict(0.5, None)], ["reached", "below", ""])

    def test_prefill_is_compared_by_length(self):
        count = len(parts.BITS)
        found = {"results": [{"format": form, "device_seconds": 0.0, "wall_seconds": 0.004, "flops_per_second": 1e13} for form in parts.BITS] * 2}
        rows = parts.prefill_rows(found, parts.FULL, {"4096": 0.003})
        self.assertEqual([row["tokens"] for row in rows], [512] * count + [4096] * count)
        self.assertEqual([rows[0]["of_sdpa"], rows[-1]["of_sdpa"]], [None, 0.75])
        self.assertEqual([rows[0]["wanted"], rows[-1]["wanted"]], [None, 0.5])


class Report(unittest.TestCase):
    def test_figures_stand_under_their_commands_and_failures_say_why(self):
        rows = [parts.decode_row(decode_found(0.9), "f16", 4), parts.decode_row(decode_found(0.5), "q4_0", 4)]
        record = {"device": {"name": "D", "driver": "V"}, "commit": "abc", "command": "tools/bench-device", "rounds": 7,
                  "parts": {"decode": parts.decode_part(rows, ["kvant bench decode --formats f16"]), "prefill": {"why": "it ended with 3"}}}
        text = parts.markdown(record)
        self.assertIn("# D\n", text)
        self.assertIn("    kvant bench decode --formats f16\n", text)
        self.assertIn("| f16 | 4 | s | 3.00 | 2.000 | 1.8e+03 | 2e+03 | 90.0 % | 85.0 % | reached |", text)
        self.assertIn("| 50.0 % | 75.0 % | below |", text)
        self.assertIn("Not measured: it ended with 3", text)


if __name__ == "__main__":
    unittest.main()
