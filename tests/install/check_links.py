#!/usr/bin/env python3
"""Follows the relative links of every Markdown page under a folder; a link to nothing is a failure."""
import pathlib
import re
import sys

folder = pathlib.Path(sys.argv[1])
pages = sorted(folder.rglob("*.md"))
links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
         if "://" not in target]
if not links:
    sys.exit(f"{folder} holds no page with a relative link")
broken = [f"{page}: {target}" for page, target in links if not (page.parent / target).exists()]
if broken:
    sys.exit("links to nothing:\n" + "\n".join(broken))
