"""ComfyUI as a server of our own: started with the pack in it, driven over HTTP and its websocket, ended with it."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import websocket
from environment import PACK, UserError

from .installed_pack import FOLDER, install_pack

Json = dict[str, Any]
PATIENCE = 180  # seconds until it answers

# Variables that a server does not inherit. PYTHONPATH: scripts/ and the pack's nodes/ must not hide ComfyUI's server.py
# and nodes.py. PYTEST_CURRENT_TEST: packs that see it take themselves for tested and bring no nodes.
_NOT_HANDED_ON = {"PYTHONPATH", "PYTEST_CURRENT_TEST"}


class ComfyServer:
    """`with ComfyServer(comfyui, base) as server:` - models, inputs, outputs and the log lie below `base`."""

    def __init__(
        self, comfyui: Path, base: Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.comfyui, self.base = comfyui, base
        self.log = base / "server.log"
        self.port = _free_port()
        self.client = uuid.uuid4().hex
        self.arguments = [*_device_arguments(), *arguments]
        self._environment = dict(environment or {})
        self._tail: collections.deque[str] = collections.deque(maxlen=15)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ComfyServer:
        for folder in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        install_pack(PACK, self.base / "custom_nodes" / FOLDER)
        try:
            self._start()
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process we started, if it still runs."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def get(self, path: str) -> Json:
        """The server's answer to a GET."""
        return json.loads(self._request(path))

    def object_info(self) -> Json:
        return self.get("/object_info")

    def history(self, prompt_id: str) -> Json:
        """What a finished prompt left: "outputs" by node id, "status"."""
        return self.get(f"/history/{prompt_id}").get(prompt_id, {})

    def image(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        query = urllib.parse.urlencode({"filename": filename, "subfolder": subfolder, "type": type})
        return self._request(f"/view?{query}")

    def forget(self) -> None:
        """Let go of models, of what nodes gave and of the list of prompts: the next prompt runs all of its nodes."""
        self._request("/free", json.dumps({"free_memory": True, "unload_models": True}).encode())
        # The server gets to that before the next prompt or, where it is late, right after it.
        self.run({"1": {"class_type": "PreviewAny", "inputs": {"source": ""}}})
        # 0.16.3's page reports an error where the list of what ran has a prompt that gave text alone.
        self._request("/history", json.dumps({"clear": True}).encode())

    def queue(self, prompt: Json) -> str:
        """Hand over a graph in API form; returns its prompt id."""
        body = json.dumps({"prompt": prompt, "client_id": self.client}).encode()
        answer = json.loads(self._request("/prompt", body))
        if answer.get("node_errors"):  # it runs the branches without errors; the whole graph was meant
            raise UserError(f"ComfyUI refused a part of the graph: {_reason(answer)}")
        return answer["prompt_id"]

    def run(self, prompt: Json, on_event: Callable[[str, Json], None] = lambda kind, data: None) -> Json:
        """Run a graph to its end and return its history.

        on_event(kind, data) hears the server's messages: "executing" {node}, "progress" {node, value, max},
        "progress_text" {node, text}, "execution_cached", "executed" and so on.
        """
        address = f"ws://127.0.0.1:{self.port}/ws?clientId={self.client}"
        with contextlib.closing(websocket.create_connection(address, timeout=5, http_no_proxy=["*"])) as messages:
            prompt_id = self.queue(prompt)
            while True:
                kind, data = self._message(messages)
                if data.get("prompt_id", prompt_id) != prompt_id:
                    continue
                on_event(kind, data)
                if kind == "execution_error":
                    node, reason = f"{data['node_type']} (node {data['node_id']})", data["exception_message"].strip()
                    raise UserError(f"{node} failed: {reason.rstrip('.')} (see {self.log}).")
                if kind == "execution_interrupted":
                    raise UserError("ComfyUI was interrupted before the graph was done.")
                # Not execution_success: that one is sent before the history is in place.
                if kind == "executing" and data["node"] is None:
                    return self.history(prompt_id)

    def _message(self, messages: websocket.WebSocket) -> tuple[str, Json]:
        while True:
            try:
                message = messages.recv()
            except websocket.WebSocketTimeoutException:
                self._check_alive()
                continue
            except (websocket.WebSocketException, OSError) as error:
                self._check_alive()
                raise UserError(f"The connection to ComfyUI broke ({error}): see {self.log}.") from None
            if isinstance(message, str):
                content = json.loads(message)
                return content["type"], content.get("data") or {}
            if int.from_bytes(message[:4], "big") == 3:  # a line of text for a node; other numbers are previews
                end = 8 + int.from_bytes(message[4:8], "big")
                return "progress_text", {"node": message[8:end].decode(), "text": message[end:].decode()}

    def _start(self) -> None:
        where = ["--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(self.base)]
        main = [sys.executable, "-u", str(self.comfyui / "main.py"), "--disable-auto-launch", "--disable-api-nodes"]
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}
        self._process = subprocess.Popen(
            [*main, *where, "--database-url", "sqlite:///:memory:", *self.arguments],
            cwd=self.base,
            env=environment | {"PYTHONUTF8": "1"} | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        threading.Thread(target=self._keep_log, args=(self._process,), daemon=True).start()

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        with self.log.open("w", encoding="utf-8") as log:
            for line in process.stdout or ():
                text = re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()
                print(text, file=log, flush=True)
                self._tail.append(text)

    def _wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self._check_alive()
            try:
                self.get("/system_stats")
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.2)
        raise UserError(f"ComfyUI did not answer within {PATIENCE} s: see {self.log}.")

    def _check_alive(self) -> None:
        code = self._process.poll() if self._process else None
        if code is not None:
            time.sleep(0.2)  # the last lines are still on their way
            raise UserError(f"ComfyUI ended by itself (code {code}). The end of {self.log}:\n" + "\n".join(self._tail))

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        try:
            with _DIRECT.open(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace").strip() or str(error)
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                text = _reason(json.loads(text))
            raise UserError(f"ComfyUI refused {path.split('?')[0]}: {text}") from None


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy must not see talk with ourselves


def _reason(answer: Json) -> str:
    """What the server says is wrong, by node where it names nodes."""
    nodes = [
        f"{node['class_type']} (node {name}): {problem['message']}: {problem['details']}"
        for name, node in answer.get("node_errors", {}).items()
        for problem in node["errors"]
    ]
    return "; ".join(nodes) or f"{answer['error']['message']} {answer['error'].get('details', '')}".strip()


def to_api(workflow: Json, object_info: Json) -> Json:
    """A graph as saved by the web page, in the form the server runs."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api

    try:
        return convert_ui_to_api(workflow, object_info)
    except WorkflowConversionError as error:
        raise UserError(f"The workflow could not be converted: {error}.") from None


def _device_arguments() -> list[str]:
    import torch

    return [] if torch.cuda.is_available() or torch.backends.mps.is_available() else ["--cpu"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
