"""A graph that makes pictures, in the form that the server runs: models, samplers and pictures as nodes."""

from __future__ import annotations

import json
from typing import Any

Link = list[Any]  # [id of a node, number of its output]
CFG = 2.0  # of the small base model, and of its PeRFlow
MANY = 25  # steps of the base model
EULER = dict(sampler_name="euler")


class PictureGraph:
    """Every method adds nodes and returns their output; equal nodes are one, which runs once.

    size: of the pictures, in pixels; negative: what every picture avoids.
    """

    def __init__(
        self, checkpoint: str, delta: str, size: tuple[int, int] = (128, 128), seed: int = 1234, negative: str = ""
    ) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self._known: dict[str, str] = {}
        self._delta, self._size, self._seed, self._negative = delta, size, seed, negative
        self._loader = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)[0]

    def add(self, kind: str, **inputs: Any) -> Link:
        """The first output of such a node."""
        known = json.dumps([kind, inputs], sort_keys=True)
        if known not in self._known:
            self._known[known] = f"{len(self.nodes)}"
            self.nodes[self._known[known]] = {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        return [self._known[known], 0]

    def base(self, lora: tuple[str, float] | None = None) -> Link:
        """The base MODEL, with a LoRA (file name, strength) on it."""
        model = [self._loader, 0]
        if lora and lora[1]:
            return self.add("LoraLoaderModelOnly", model=model, lora_name=lora[0], strength_model=lora[1])
        return model

    def perflow(self, strength: float = 1.0, delta: str | None = None, model: Link | None = None) -> Link:
        """A MODEL, the base where none is given, with the delta on it."""
        chosen = dict(delta_name=delta or self._delta, strength=strength, prediction_type="auto", windows=0)
        return self.add("PeRFlowApplyDelta", model=model or self.base(), align_steps=True, partial=False, **chosen)

    def text(self, words: str) -> Link:
        return self.add("CLIPTextEncode", clip=[self._loader, 1], text=words)

    def empty(self) -> Link:
        return self.add("EmptyLatentImage", width=self._size[0], height=self._size[1], batch_size=1)

    def encoded(self, picture: str) -> Link:
        """The latent of a picture in the server's input folder."""
        return self.add("VAEEncode", pixels=self.add("LoadImage", image=picture), vae=[self._loader, 2])

    def masked(self, latent: Link, box: tuple[int, int, int, int]) -> Link:
        """The latent with a mask: the box x, y, width, height (pixels) is inpainted."""
        x, y, width, height = box
        mask = self.add("SolidMask", value=1.0, width=width, height=height)
        nothing = self.add("SolidMask", value=0.0, width=self._size[0], height=self._size[1])
        whole = self.add("MaskComposite", destination=nothing, source=mask, x=x, y=y, operation="add")
        return self.add("SetLatentNoiseMask", samples=latent, mask=whole)

    def sampled(
        self,
        model: Link,
        words: str,
        steps: int = 4,
        cfg: float = CFG,
        *,
        latent: Link | None = None,
        denoise: float = 1.0,
        scheduler: str = "simple",
        negative: str | None = None,
        row: int = 0,
    ) -> Link:
        """The picture that a KSampler with euler makes; the noise is that of the seed + row."""
        how: dict[str, Any] = dict(steps=steps, cfg=cfg, denoise=denoise, scheduler=scheduler, seed=self._seed + row)
        avoided = self.text(self._negative if negative is None else negative)
        return self.decoded(self._ksampled(model, self.text(words), avoided, latent or self.empty(), **how))

    def many(self, words: str, cfg: float = CFG, *, model: Link | None = None, **how: Any) -> Link:
        """The base model's own picture, as everybody samples it."""
        return self.sampled(model or self.base(), words, MANY, cfg, scheduler="normal", **how)

    def windowed(self, words: str, steps: int, cfg: float, row: int = 0) -> Link:
        """PeRFlow's picture by this pack's schedule and sampler, from the noise of the seed + row."""
        model, sampler = self.perflow(), self.add("PeRFlowSampler", solver="euler")
        noise = self.add("RandomNoise", noise_seed=self._seed + row)
        sigmas = self._window_schedule(model, steps)
        return self.decoded(self._custom(model, cfg, words, sampler, sigmas, self.empty(), noise))

    def _window_schedule(self, model: Link, steps: int) -> Link:
        return self.add("PeRFlowWindowSchedule", model=model, steps=steps, denoise=1.0, end="zero", steps_per_window="")

    def edited(
        self,
        model: Link,
        source: str,
        words: str,
        steps: int = 4,
        cfg: float = CFG,
        *,
        emphasis: str = "",
        blend: str = "",
        cross_steps: float = 0.5,
        scheduler: str = "simple",
    ) -> list[Link]:
        """The pictures of the source and of its edit by Prompt-to-Prompt."""
        texts = dict(source=source, edited=words, edit="auto", emphasis=emphasis, blend=blend)
        shares = dict(cross_steps=cross_steps, self_steps=0.4, blend_threshold=0.6)
        clip = [self._loader, 1]
        made = self.add("PeRFlowPromptToPrompt", model=model, clip=clip, latent=self.empty(), **texts, **shares)[0]
        how = dict(steps=steps, cfg=cfg, seed=self._seed, denoise=1.0, scheduler=scheduler)
        both = self.decoded(self._ksampled([made, 0], [made, 1], self.text(self._negative), [made, 2], **how))
        return [self.add("ImageFromBatch", image=both, batch_index=i, length=1) for i in range(2)]

    def _ksampled(self, model: Link, positive: Link, negative: Link, latent: Link, **how: Any) -> Link:
        prompts = dict(positive=positive, negative=negative)
        return self.add("KSampler", model=model, latent_image=latent, **prompts, **EULER, **how)

    def handed_over(self, words: str, steps: int) -> Link:
        """PeRFlow in its first two windows, then the base model in the last half of 2 * `steps` steps."""
        perflow, base = self.perflow(), self.base()
        upper = self.add("SplitSigmas", sigmas=self._window_schedule(perflow, 4), step=2)
        many = self.add("BasicScheduler", model=base, scheduler="simple", steps=2 * steps, denoise=1.0)
        lower = [self.add("SplitSigmas", sigmas=many, step=steps)[0], 1]
        noise, sampler = self.add("RandomNoise", noise_seed=self._seed), self.add("KSamplerSelect", **EULER)
        begun = self._custom(perflow, CFG, words, sampler, upper, self.empty(), noise)
        return self.decoded(self._custom(base, CFG, words, sampler, lower, begun, self.add("DisableNoise")))

    def _custom(
        self, model: Link, cfg: float, words: str, sampler: Link, sigmas: Link, latent: Link, noise: Link
    ) -> Link:
        texts = dict(positive=self.text(words), negative=self.text(self._negative))
        parts = dict(noise=noise, guider=self.add("CFGGuider", model=model, cfg=cfg, **texts), sampler=sampler)
        return self.add("SamplerCustomAdvanced", **parts, sigmas=sigmas, latent_image=latent)

    def decoded(self, samples: Link) -> Link:
        return self.add("VAEDecode", samples=samples, vae=[self._loader, 2])
