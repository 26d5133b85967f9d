"""Embeddings of prompts, made once and kept on disk, bounded.

`DEPENDS_ON` is what they are made with (`made_with`).
"""

import sqlite3
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .teacher import Prompts, Teacher

BATCH = 32
DEPENDS_ON = {"the teacher's text encoders", "optimizer.precision"}


class PromptStore:
    """Embeddings in a database, for one process; the oldest make room. Ready again after a stop.

    They are kept in float32 where the teacher computes in it, or else in float16. A prompt is encoded when it is first
    wanted, and again only where it has been pushed out meanwhile. The first ones of a run also stay in the memory of the
    teacher's device, as many as are allowed there.
    """

    def __init__(self, teacher: Teacher, folder: Path, max_gb: float, memory_gb: float = 0.0):
        self.teacher = teacher
        empty = teacher.encode_prompts([""])
        self.shape, self.width = tuple(empty.embeddings.shape[1:]), empty.embeddings[0].numel()
        self.row = self.width + empty.pooled.shape[1]
        self.dtype = torch.float32 if teacher.dtype == torch.float32 else torch.float16  # numpy has no bfloat16
        size = self.row * self.dtype.itemsize
        self.capacity = max(int(max_gb * 1e9 / size), BATCH)
        self.room = int(memory_gb * 1e9 / size)
        self.memory: dict[str, Tensor] = {}
        folder.mkdir(parents=True, exist_ok=True)
        name = f"embeddings-{self.row}-{str(self.dtype).removeprefix('torch.')}.sqlite"
        address = (folder / name).absolute().as_uri()
        # Network disks may have no locks, and no other process opens it.
        self.disk = sqlite3.connect(f"{address}?nolock=1", uri=True)
        self.disk.execute("CREATE TABLE IF NOT EXISTS prompts (number INTEGER PRIMARY KEY, text TEXT UNIQUE, row BLOB)")

    def embed(self, texts: list[str]) -> Prompts:
        """A row for each text, float32 on the teacher's device."""
        unique = dict.fromkeys(texts)
        found = self._loaded([text for text in unique if text not in self.memory])
        for text, row in list(found.items())[: self.room - len(self.memory)]:
            self.memory[text] = row.to(self.dtype)
        rows = torch.stack([found[text] if text in found else self.memory[text].float() for text in texts])
        return Prompts(rows[:, : self.width].reshape(-1, *self.shape), rows[:, self.width :])

    def _loaded(self, texts: list[str]) -> dict[str, Tensor]:
        """[row] on the teacher's device for each, encoded or from the disk; float32: autocast joins nothing else."""
        if not texts:
            return {}
        places = ", ".join("?" * len(texts))
        rows = dict(self.disk.execute(f"SELECT text, row FROM prompts WHERE text IN ({places})", texts))
        missing = [text for text in texts if text not in rows]
        for start in range(0, len(missing), BATCH):
            rows |= self._encoded(missing[start : start + BATCH])
        with self.disk:  # one transaction: whatever a stop leaves is true
            self.disk.executemany("INSERT INTO prompts (text, row) VALUES (?, ?)", [(t, rows[t]) for t in missing])
            self.disk.execute(
                "DELETE FROM prompts WHERE number <= (SELECT max(number) FROM prompts) - ?", (self.capacity,)
            )
        kept_as = np.float32 if self.dtype == torch.float32 else np.float16
        numbers = np.stack([np.frombuffer(rows[text], kept_as) for text in texts])
        return dict(zip(texts, torch.from_numpy(numbers).to(self.teacher.device).float(), strict=True))

    def _encoded(self, texts: list[str]) -> dict[str, bytes]:
        prompts = self.teacher.encode_prompts(texts)
        rows = torch.cat([prompts.embeddings.flatten(1), prompts.pooled], dim=1).to("cpu", self.dtype).numpy()
        return {text: row.tobytes() for text, row in zip(texts, rows, strict=True)}
