#!/usr/bin/env python3
"""Runs a test program of this build in the full root, with this build's adapter as its argument and the validation layers. Exit status: the
program's; 1 if a validation message came; 77 where there is no such root."""
import argparse
import json
import os
import sys

sys.dont_write_bytecode = True
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{SOURCE}/tools")
from ggml_root import GgmlRoot, Missing  # noqa: E402


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--build", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--mode", help="the program's second argument")
    parser.add_argument("--capabilities", default="{}", type=json.loads, help="JSON: what the device is said to have (KVANT_CAPABILITIES)")
    options = parser.parse_args(argv)
    try:
        root = GgmlRoot(options.root, options.build, f"{options.build}/ggml-test")
        checks = root.validation()
    except Missing as missing:
        print(f"skipped: {missing}")
        return 77
    checks["KVANT_CAPABILITIES"] = json.dumps(json.loads(checks.get("KVANT_CAPABILITIES", "{}")) | options.capabilities)
    words = [root.plugin] + ([options.mode] if options.mode else [])
    status, printed, log = root.run(os.path.abspath(options.program), *words, plugin=False, timeout=1200, **checks)
    print(printed, log, sep="")
    return status or (1 if "ggml_kvant: error: validation" in log else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
