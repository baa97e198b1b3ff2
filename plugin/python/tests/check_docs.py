"""The programs in docs/python.md, as they stand there, one after the other."""
import os
import pathlib
import re
import tempfile

import numpy as np
from support import DIM, KV_HEADS

import kvant

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "python.md"


def check_docs(device, random):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) >= 6, f"{PAGE} has {len(blocks)} programs"
    count = 200
    k, v = ([random.standard_normal((count, KV_HEADS, DIM)).astype(np.float32) for _ in range(2)] for _ in range(2))
    names = {"kvant": kvant, "np": np, "device": device, "prompt_ids": list(range(100)), "k": k, "v": v,
             "layers": [kvant.Layer(KV_HEADS, DIM, "q8_0", "q4_0")] * 2}
    folder = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            for number, block in enumerate(blocks, 1):
                exec(compile(block, f"{PAGE.name}, program {number}", "exec"), names)
            names["cache"].close()  # its tiers are in the folder
        finally:
            os.chdir(folder)
