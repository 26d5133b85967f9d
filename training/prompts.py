"""Embeddings of prompts, made once and kept on disk, bounded.

`DEPENDS_ON` is what they are made with (`made_with`).
"""

import sqlite3
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .stopping import TrainingError
from .teacher import Prompts, Teacher

BATCH = 32
DEPENDS_ON = {"the teacher's text encoders", "teacher.clip_skip", "teacher.text_length", "optimizer.precision"}


class PromptStore:
    """Embeddings in a database, for one process; the oldest make room. Ready again after a stop.

    They are kept in float32 where the teacher computes in it, or else in float16. A prompt is encoded when it is first
    wanted, and again only where it has been pushed out meanwhile. The first ones of a run also stay in the memory of
    the teacher's device, as many as are allowed there. Zeros behind a prompt are not kept.
    """

    def __init__(self, teacher: Teacher, folder: Path, max_gb: float, memory_gb: float = 0.0):
        self.teacher = teacher
        empty = teacher.encode_prompts([""])
        self.shape, self.width = tuple(empty.embeddings.shape[1:]), empty.embeddings[0].numel()
        self.row = self.width + empty.pooled.shape[1]
        self.dtype = torch.float32 if teacher.dtype == torch.float32 else torch.float16  # numpy has no bfloat16
        size = self.row * self.dtype.itemsize
        self.capacity = max(int(max_gb * 1e9), BATCH * size)  # in bytes, as is the room in memory
        self.room = int(memory_gb * 1e9)
        self.memory: dict[str, Tensor] = {}
        folder.mkdir(parents=True, exist_ok=True)
        name = f"embeddings-{self.row}-{str(self.dtype).removeprefix('torch.')}.sqlite"
        self.path = (folder / name).absolute()
        self.disk = self._opened()

    def embed(self, texts: list[str]) -> Prompts:
        """A row for each text, float32 on the teacher's device, zeros behind shorter prompts.

        They have the tokens of the empty prompt at least: flow models read what fills a prompt up.
        """
        unique = dict.fromkeys(texts)
        found = self._loaded([text for text in unique if text not in self.memory])
        for text, row in found.items():
            kept = row.to(self.dtype)
            if kept.nbytes <= self.room:
                self.memory[text] = kept
                self.room -= kept.nbytes
        rows = [found[text] if text in found else self.memory[text].float() for text in texts]
        pooled = self.row - self.width
        embeddings = [row[: len(row) - pooled].reshape(-1, self.shape[-1]) for row in rows]
        prompts = Prompts(
            torch.nn.utils.rnn.pad_sequence(embeddings, batch_first=True),
            torch.stack([row[len(row) - pooled :] for row in rows]),
        )
        return prompts.filled_up(self.shape[0])

    def _opened(self) -> sqlite3.Connection:
        """The database; a new one where the file is none."""
        # Network disks may have no locks, and no other process opens it.
        disk = sqlite3.connect(f"{self.path.as_uri()}?nolock=1", uri=True)
        try:
            disk.execute("CREATE TABLE IF NOT EXISTS prompts (number INTEGER PRIMARY KEY, text TEXT UNIQUE, row BLOB)")
            (self.used,) = disk.execute("SELECT coalesce(sum(length(row)), 0) FROM prompts").fetchone()
        except sqlite3.DatabaseError as error:
            disk.close()
            self._forget(error)
            return self._opened()
        return disk

    def _forget(self, error: sqlite3.DatabaseError) -> None:
        """Delete the file, which is broken. Raises TrainingError where it is the disk that cannot be used."""
        if isinstance(error, sqlite3.OperationalError):
            raise TrainingError(
                f"{self.path} cannot be used ({error}): free disk space, or see whether it may be written."
            ) from error
        tqdm.write(f"{self.path} is made again: it cannot be read ({error}).", file=sys.stderr)
        self.path.unlink()

    def _loaded(self, texts: list[str]) -> dict[str, Tensor]:
        """A row on the teacher's device for each, encoded or from the disk; float32: autocast joins nothing else."""
        if not texts:
            return {}
        try:
            rows = self._rows(texts)
        except sqlite3.DatabaseError as error:
            self.disk.close()
            self._forget(error)
            self.disk = self._opened()
            rows = self._rows(texts)
        kept_as = np.float32 if self.dtype == torch.float32 else np.float16
        together = torch.from_numpy(np.frombuffer(b"".join(rows[text] for text in texts), kept_as).copy())
        sizes = [len(rows[text]) // self.dtype.itemsize for text in texts]
        parts = torch.split(together.to(self.teacher.device).float(), sizes)
        return dict(zip(texts, parts, strict=True))

    def _rows(self, texts: list[str]) -> dict[str, bytes]:
        """As they are kept; those that were not there are there then."""
        places = ", ".join("?" * len(texts))
        rows = dict(self.disk.execute(f"SELECT text, row FROM prompts WHERE text IN ({places})", texts))
        missing = [text for text in texts if text not in rows]
        for start in range(0, len(missing), BATCH):
            rows |= self._encoded(missing[start : start + BATCH])
        with self.disk:  # one transaction: whatever a stop leaves is true
            self.disk.executemany("INSERT INTO prompts (text, row) VALUES (?, ?)", [(t, rows[t]) for t in missing])
            self.used += sum(len(rows[text]) for text in missing)
            self._make_room()
        return rows

    def _make_room(self) -> None:
        """Delete the oldest rows where there are more bytes than may be."""
        last = 0
        for number, size in self.disk.execute("SELECT number, length(row) FROM prompts ORDER BY number"):
            if self.used <= self.capacity:
                break
            last, self.used = number, self.used - size
        self.disk.execute("DELETE FROM prompts WHERE number <= ?", (last,))

    def _encoded(self, texts: list[str]) -> dict[str, bytes]:
        prompts = self.teacher.encode_prompts(texts)
        lengths = prompts.lengths
        rows = [torch.cat([e[:n].flatten(), p]) for e, p, n in zip(*prompts, lengths, strict=True)]
        return {text: row.to("cpu", self.dtype).numpy().tobytes() for text, row in zip(texts, rows, strict=True)}
