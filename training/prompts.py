"""Embeddings of prompts, made once and kept on disk, bounded."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .teacher import Prompts, Teacher

BATCH = 32


class PromptStore:
    """A ring of embeddings in 16 bits on disk, for one process; the oldest make room. Ready again after a stop.

    A prompt is encoded when it is first asked for, and again only where it has been pushed out meanwhile. The first
    ones of a run also stay in the memory of the teacher's device, as many as are allowed there.
    """

    def __init__(self, teacher: Teacher, folder: Path, max_gb: float, memory_gb: float = 0.0):
        self.teacher = teacher
        empty = teacher.encode_prompts([""])
        self.shape = tuple(empty.embeddings.shape[1:])
        self.width = empty.embeddings[0].numel()
        row = self.width + empty.pooled.shape[1]
        self.capacity = max(int(max_gb * 1e9 / (2 * row)), BATCH)
        self.device = empty.embeddings.device
        folder.mkdir(parents=True, exist_ok=True)
        self.numbers = folder / f"embeddings-{row}.f16"
        self.index = folder / f"embeddings-{row}.jsonl"
        self.row = row
        self.slots: dict[str, int] = {}
        self.texts: dict[int, str] = {}
        self.next = 0
        self.places: dict[str, int] = {}  # in memory
        self.memory = torch.empty(int(memory_gb * 1e9 / (2 * row)), row, dtype=torch.float16, device=self.device)
        self._read_index()

    def _read_index(self) -> None:
        self.numbers.touch()
        if self.index.is_file():
            for line in self.index.read_text(encoding="utf-8").splitlines():
                try:
                    slot, text = json.loads(line)
                except ValueError:
                    continue  # the last line of a run that was cut off
                if slot < self.capacity:
                    self._forget(slot)
                    if text is not None:
                        self.slots[text], self.texts[slot] = slot, text
                        self.next = (slot + 1) % self.capacity

    def _forget(self, slot: int) -> None:
        text = self.texts.pop(slot, None)
        if text is not None:
            del self.slots[text]

    def embed(self, texts: list[str]) -> Prompts:
        """A row for each text, float32 on the teacher's device."""
        unique = list(dict.fromkeys(texts))
        inside = [text for text in unique if text in self.places]
        outside = [text for text in unique if text not in self.places]
        loaded = self._loaded(outside)
        known = self.memory[[self.places[text] for text in inside]]
        rows = torch.cat([known.float(), loaded.float()])  # autocast lets nothing else be joined
        self._remember(outside, loaded)
        row = {text: i for i, text in enumerate(inside + outside)}
        return self._split(rows[[row[text] for text in texts]])

    def _remember(self, texts: list[str], rows: Tensor) -> None:
        """Keep as many in memory as there is room for."""
        first = len(self.places)
        texts = texts[: len(self.memory) - first]
        self.memory[first : first + len(texts)] = rows[: len(texts)]
        self.places |= {text: first + i for i, text in enumerate(texts)}

    def _loaded(self, unique: list[str]) -> Tensor:
        """[len(unique), row] float16 on the teacher's device, encoded or from the disk."""
        missing = [text for text in unique if text not in self.slots]
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(missing), BATCH):
            found |= self._encode(missing[start : start + BATCH])
        known = [text for text in unique if text not in found]
        if known:
            found |= self._read(known)
        self._store({text: found[text] for text in missing})
        if not unique:
            return self.memory[:0]
        return torch.from_numpy(np.stack([found[text] for text in unique])).to(self.device)

    def _encode(self, texts: list[str]) -> dict[str, np.ndarray]:
        prompts = self.teacher.encode_prompts(texts)
        rows = torch.cat([prompts.embeddings.flatten(1), prompts.pooled], dim=1).to("cpu", torch.float16).numpy()
        return dict(zip(texts, rows, strict=True))

    def _read(self, texts: list[str]) -> dict[str, np.ndarray]:
        found = {}
        with self.numbers.open("rb") as file:
            for text in texts:
                file.seek(self.slots[text] * self.row * 2)
                found[text] = np.frombuffer(file.read(self.row * 2), np.float16)
        return found

    def _store(self, rows: dict[str, np.ndarray]) -> None:
        """Free the slots, write the numbers, then name them: whatever a stop leaves is true."""
        rows = dict(list(rows.items())[-self.capacity :])
        if not rows:
            return
        slots = [(self.next + i) % self.capacity for i in range(len(rows))]
        self._note([(slot, None) for slot in slots if slot in self.texts])
        with self.numbers.open("r+b") as file:
            for slot, numbers in zip(slots, rows.values(), strict=True):
                file.seek(slot * self.row * 2)
                file.write(numbers.tobytes())
        self._note(list(zip(slots, rows, strict=True)))
        for slot, text in zip(slots, rows, strict=True):
            self._forget(slot)
            self.slots[text], self.texts[slot] = slot, text
        self.next = (slots[-1] + 1) % self.capacity

    def _note(self, lines: list[tuple[int, str | None]]) -> None:
        with self.index.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def _split(self, rows: Tensor) -> Prompts:
        return Prompts(rows[:, : self.width].reshape(-1, *self.shape), rows[:, self.width :])
