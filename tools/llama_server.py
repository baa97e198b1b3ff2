"""One llama-server of the root on a free local port: started, asked over HTTP with timeouts, ended, its log kept and judged."""
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from llama_scenarios import Failed, complaints

START_SECONDS, ANSWER_SECONDS, END_SECONDS = 180, 300, 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def reason_of_end(status, log):
    """One line on how a server ended, with the line of its log that says most."""
    said = complaints(log) or [line for line in log.splitlines() if re.search(r" E |rror|failed to", line) and "enumerate" not in line]
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return f"{how}: {said[0] if said else log.strip()[-200:]}"


def most_at_once(log):
    """The largest number of slots that were at work at the same time, by the server's log."""
    busy, most = set(), 0
    for word, slot in re.findall(r"slot (launch_slot_|\s*release): id\s+(\d+)", log):
        if word == "launch_slot_":
            busy.add(slot)
        else:
            busy.discard(slot)
        most = max(most, len(busy))
    return most


class Server:
    """In a with statement: ready inside it; at its end the server must end well and its log be free of complaints, save one expected."""

    def __init__(self, root, log_path, words, plugin=True, variables=None, expected=None, memory_limit=None):
        self.root, self.log_path, self.words = root, log_path, [str(word) for word in words]
        self.plugin, self.variables, self.expected, self.memory_limit = plugin, variables or {}, expected, memory_limit
        self.process = self.port = None

    def __enter__(self):
        self.port = free_port()
        os.makedirs(os.path.dirname(self.log_path), exist_ok=True)
        command = self.root.command("llama-server", "--host", "127.0.0.1", "--port", self.port, "--offline", "-v", *self.words)
        with open(self.log_path, "w", encoding="utf-8") as file:
            file.write(f"$ llama-server {' '.join(self.words)}\n")
            file.flush()
            self.process = subprocess.Popen(command, cwd=self.root.backends, env=self.root.environment(self.plugin, **self.variables),
                                            stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=self.limit_memory)
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def limit_memory(self):
        if self.memory_limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (self.memory_limit, self.memory_limit))

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failed(f"llama-server did not start, {reason_of_end(self.process.returncode, self.log())}")
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            time.sleep(0.05)
        raise Failed(f"llama-server was not ready after {START_SECONDS} s")

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.kill()
            return
        self.process.terminate()
        try:
            status = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"llama-server did not end within {END_SECONDS} s of SIGTERM") from None
        if status != 0:
            raise Failed(f"llama-server ended with {reason_of_end(status, self.log())}")
        said = [line for line in complaints(self.log()) if self.expected is None or self.expected not in line]
        if said:
            raise Failed(said[0])

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def post(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(f"{path}: HTTP {error.code}: {error.read().decode('utf-8', 'replace')[:200]}") from None
        except (OSError, ValueError) as error:  # a server that aborts closes the connection
            raise Failed(f"{path}: {self.end_or(error)}") from None

    def end_or(self, error):
        try:
            return f"llama-server ended with {reason_of_end(self.process.wait(END_SECONDS), self.log())}"
        except subprocess.TimeoutExpired:
            return f"{error!r} within {ANSWER_SECONDS} s"

    def complete(self, prompt, count, **more):
        """Greedy completion: the server's answer, with its text under 'content'."""
        answer = self.post("/completion", {"prompt": prompt, "n_predict": count, "temperature": 0, "cache_prompt": True, **more})
        if not isinstance(answer.get("content"), str):
            raise Failed(f"/completion answered without a text: {str(answer)[:200]}")
        return answer
