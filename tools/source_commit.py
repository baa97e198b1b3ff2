"""Which commit a tool of this tree ran at."""
import os
import subprocess

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def source_commit():
    """Commit of the working tree, with a mark when files differ from it."""
    def git(*words):
        return subprocess.run(["git", "-C", SOURCE, *words], capture_output=True, text=True, check=False).stdout.strip()
    changed = [line for line in git("status", "--porcelain").splitlines() if not line.split(maxsplit=1)[-1].startswith("docs/")]
    return (git("rev-parse", "--short=7", "HEAD") or "unknown") + ("+" if changed else "")
