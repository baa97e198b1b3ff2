#!/usr/bin/env python3
"""Closing words of tools/test: counts by label out of ctest's results. A whole run must have run tests of every kind."""
import collections
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

EXPECTED = ["unit", "abi", "layering", "install", "conformance", "faults", "fuzz", "isa", "lavapipe", "swiftshader"]


def main():
    build, whole = sys.argv[1], sys.argv[2] == "0"
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True, text=True)
    labels = {}
    for test in json.loads(listing.stdout)["tests"]:
        values = [p["value"] for p in test.get("properties", []) if p["name"] == "LABELS"]
        labels[test["name"]] = values[0] if values else ["other"]

    counts = collections.defaultdict(collections.Counter)
    failed = []
    for case in ElementTree.parse(f"{build}/results.xml").getroot().iter("testcase"):
        outcome = {"run": "passed", "fail": "failed"}.get(case.get("status"), "not run")
        for label in ["all", *labels.get(case.get("name"), ["other"])]:
            counts[label][outcome] += 1
        if outcome != "passed":
            failed.append(f"{case.get('name')} ({outcome})")

    print("\ntest: label          passed  failed  not run")
    for label in sorted(counts, key=lambda name: (name == "all", name)):
        count = counts[label]
        print(f"      {label:<14} {count['passed']:>6} {count['failed']:>7} {count['not run']:>8}")
    for name in failed:
        print(f"test: FAILED {name}")
    absent = [label for label in EXPECTED if whole and counts[label]["passed"] + counts[label]["failed"] == 0]
    if absent:
        print(f"test: FAILED no test ran of: {', '.join(absent)}")
    if not failed and not absent:
        print("test: everything passed")
    return 1 if failed or absent else 0


if __name__ == "__main__":
    sys.exit(main())
