"""A process with a ComfyUI of its own that does one job after another, and the other end of the line to it."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Found = dict[str, Any]
# Memory mode -> ComfyUI's arguments. Without any, it takes dynamic VRAM on an NVIDIA GPU.
MODES = {
    "dynamic": (),
    "normal": ("--disable-dynamic-vram",),
    "lowvram": ("--disable-dynamic-vram", "--lowvram"),
    "novram": ("--novram",),
    "cpu": ("--cpu", "--fp16-unet"),
}


class TooLongError(Exception):
    """A job was not done in its time; its process is ended."""


class Worker:
    """The asking side. Starting takes a while, so that several may start at the same time."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.mode, self.log = mode, folder / f"{mode}.log"
        with self.log.open("w") as log:
            command = [sys.executable, "-u", sys.argv[0], "worker", mode, str(folder)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._asking = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, job: str, limit: float, **inputs: Any) -> Found:
        """The job's findings; what goes wrong in it is {"error": ...}. Lines that it says are printed as they come."""
        with self._asking:
            return self._ask(job, limit, inputs)

    def _ask(self, job: str, limit: float, inputs: dict[str, Any]) -> Found:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the answer is
            print(json.dumps({"job": job, **inputs}), file=self._process.stdin, flush=True)
        end = time.monotonic() + limit
        while True:
            try:
                line = self._answers.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                self.close()
                raise TooLongError(f"{job} in mode {self.mode} was not done in {limit:.0f} s") from None
            if line is None:
                self._process.wait()
                return {"error": f"the process of mode {self.mode} ended: {self.end_of_log()}"}
            answer = json.loads(line)
            if "said" not in answer:
                return answer
            print(answer["said"], flush=True)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-400:].strip()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._answers.put(line)
        self._answers.put(None)


def serve(jobs: dict[str, Callable[..., Found]], context: Any) -> None:
    """The answering side: one JSON line a job on stdin, one with the findings on what was stdout."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what ComfyUI prints goes to the log

    def say(text: str) -> None:
        print(json.dumps({"said": text}), file=out, flush=True)

    for line in sys.stdin:
        inputs = json.loads(line)
        try:
            found = jobs[inputs.pop("job")](context, say, **inputs)
        except Exception as error:
            where = traceback.format_exc()[-2000:]
            found = {"error": f"{type(error).__name__}: {str(error)[:500]}", "traceback": where}
        print(json.dumps(found), file=out, flush=True)
