"""The gallery's prompt: models, samplers and pictures as nodes, in the form that the server runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Link = list[Any]  # [id of a node, number of its output]
SIZE, SEED = 128, 1234
CFG, PERFLOW_CFG = 3.0, 1.0  # of the base model, and of PeRFlow
TEACHER_CFG = 2.5  # which PeRFlow learned


class Studio:
    """Every method adds nodes and returns their output; equal nodes are one, which runs once."""

    def __init__(self, checkpoint: str, delta: str) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self._known: dict[str, str] = {}
        self._delta = delta
        self._loader = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)

    def add(self, kind: str, **inputs: Any) -> Link:
        """The first output of such a node."""
        known = json.dumps([kind, inputs], sort_keys=True)
        if known not in self._known:
            self._known[known] = f"{len(self.nodes)}"
            self.nodes[self._known[known]] = {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        return [self._known[known], 0]

    def base(self, lora: tuple[str, float] | None = None) -> Link:
        """The base MODEL, with a LoRA (file name, strength) on it."""
        model = [self._loader[0], 0]
        if lora and lora[1]:
            return self.add("LoraLoaderModelOnly", model=model, lora_name=lora[0], strength_model=lora[1])
        return model

    def perflow(self, strength: float = 1.0, delta: str | None = None, model: Link | None = None) -> Link:
        """A MODEL, the base where none is given, with the delta on it."""
        chosen = dict(delta_name=delta or self._delta, strength=strength, prediction_type="auto", windows=0)
        return self.add("PeRFlowApplyDelta", model=model or self.base(), align_steps=True, partial=False, **chosen)

    def text(self, words: str) -> Link:
        return self.add("CLIPTextEncode", clip=[self._loader[0], 1], text=words)

    def empty(self) -> Link:
        return self.add("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1)

    def encoded(self, picture: str) -> Link:
        """The latent of a picture in the server's input folder."""
        return self.add("VAEEncode", pixels=self.add("LoadImage", image=picture), vae=[self._loader[0], 2])

    def masked(self, latent: Link, box: tuple[int, int, int, int]) -> Link:
        """The latent with a mask: the box x, y, width, height (pixels) is inpainted."""
        x, y, width, height = box
        mask = self.add("SolidMask", value=1.0, width=width, height=height)
        nothing = self.add("SolidMask", value=0.0, width=SIZE, height=SIZE)
        whole = self.add("MaskComposite", destination=nothing, source=mask, x=x, y=y, operation="add")
        return self.add("SetLatentNoiseMask", samples=latent, mask=whole)

    def sampled(
        self,
        model: Link,
        words: str,
        steps: int = 4,
        *,
        cfg: float = PERFLOW_CFG,
        latent: Link | None = None,
        denoise: float = 1.0,
        scheduler: str = "simple",
    ) -> Link:
        """The picture that a KSampler with euler makes, decoded."""
        how = dict(steps=steps, cfg=cfg, seed=SEED, denoise=denoise, scheduler=scheduler)
        return self.decoded(self._ksampled(model, self.text(words), latent or self.empty(), **how))

    def edited(
        self,
        model: Link,
        source: str,
        words: str,
        steps: int = 4,
        *,
        cfg: float = PERFLOW_CFG,
        emphasis: str = "",
        blend: str = "",
        cross_steps: float = 0.8,
        scheduler: str = "simple",
    ) -> tuple[Link, Link]:
        """The pictures of the source and of its edit by Prompt-to-Prompt."""
        texts = dict(source=source, edited=words, edit="auto", emphasis=emphasis, blend=blend)
        shares = dict(cross_steps=cross_steps, self_steps=0.4, blend_threshold=0.6)
        clip = [self._loader[0], 1]
        made = self.add("PeRFlowPromptToPrompt", model=model, clip=clip, latent=self.empty(), **texts, **shares)[0]
        how = dict(steps=steps, cfg=cfg, seed=SEED, denoise=1.0, scheduler=scheduler)
        both = self.decoded(self._ksampled([made, 0], [made, 1], [made, 2], **how))
        first, second = (self.add("ImageFromBatch", image=both, batch_index=i, length=1) for i in range(2))
        return first, second

    def _ksampled(self, model: Link, positive: Link, latent: Link, **how: Any) -> Link:
        prompts = dict(positive=positive, negative=self.text(""))
        return self.add("KSampler", model=model, latent_image=latent, sampler_name="euler", **prompts, **how)

    def handed_over(self, words: str, steps: int) -> Link:
        """PeRFlow in its first two windows, then the base model in the last half of 2 * `steps` steps."""
        perflow, base = self.perflow(), self.base()
        grid = dict(steps=4, denoise=1.0, end="zero", steps_per_window="")
        upper = self.add("SplitSigmas", sigmas=self.add("PeRFlowWindowSchedule", model=perflow, **grid), step=2)
        many = self.add("BasicScheduler", model=base, scheduler="simple", steps=2 * steps, denoise=1.0)
        lower = [self.add("SplitSigmas", sigmas=many, step=steps)[0], 1]
        noise = self.add("RandomNoise", noise_seed=SEED)
        begun = self._custom(perflow, PERFLOW_CFG, words, upper, self.empty(), noise)
        return self.decoded(self._custom(base, CFG, words, lower, begun, self.add("DisableNoise")))

    def _custom(self, model: Link, cfg: float, words: str, sigmas: Link, latent: Link, noise: Link) -> Link:
        texts = dict(positive=self.text(words), negative=self.text(""))
        guider = self.add("CFGGuider", model=model, cfg=cfg, **texts)
        sampler = self.add("KSamplerSelect", sampler_name="euler")
        parts = dict(noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)
        return self.add("SamplerCustomAdvanced", **parts)

    def decoded(self, samples: Link) -> Link:
        return self.add("VAEDecode", samples=samples, vae=[self._loader[0], 2])

    def shown(self, pictures: Sequence[Link]) -> list[str]:
        """The ids of the nodes that put these pictures out."""
        return [self.add("PreviewImage", images=picture)[0] for picture in pictures]
