"""A training run from the configuration to the delta."""

import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import ProjectConfiguration, gather_object
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from perflow_core.training.reflow import lesson
from perflow_core.weights.extraction import Extraction

from . import latents, saving, state, student
from .config import Config
from .endpoints import EndPoints, Examples, Lanes
from .errors import Stopped, TrainingError
from .losses import row_losses
from .plan import plan
from .preview import Preview, saved_sheet
from .prompts import PromptStore
from .stopping import stoppable
from .teacher import load

WEIGHTS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROCESSES_MAY_WAIT = timedelta(days=2)  # for the one that prepares latents or draws the teacher's pictures


class Run:
    """Everything that a step needs. `train` goes from the last state to the last step."""

    def __init__(self, config: Config):
        self.config = config
        output = Path(config.output)
        output.mkdir(parents=True, exist_ok=True)
        self.stop_asked = threading.Event()
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # or processes on a CPU would not find each other
            mixed_precision=config.optimizer.precision,
            gradient_accumulation_steps=config.optimizer.accumulation,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESSES_MAY_WAIT)],
            project_config=ProjectConfiguration(project_dir=str(output)),
            log_with="tensorboard",
        )
        self.teacher = load(config.teacher, config.data.resolution)
        self.prediction_type, self.chord, self.points, self.walk = plan(config, self.teacher)
        self._make_student()
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        folder, cache = output / "prompts" / f"process-{rank}", config.cache
        self.prompts = PromptStore(self.teacher, folder, cache.prompts_gb, cache.prompts_memory_gb)
        self.source = latents.source(config, self.teacher, self.prompts, rank, processes, self.stop_asked.is_set)
        self.accelerator.wait_for_everyone()
        lanes = Lanes(rank, processes, config.optimizer.batch_size, config.optimizer.accumulation)
        self.end_points = EndPoints(
            config, self.teacher, self.prompts, self.source, self.walk, self.chord, self.points, lanes,
            self.stop_asked.is_set,
        )  # fmt: skip
        self.preview = Preview(config, self.teacher, self.prompts, self.chord, self.prediction_type, self.source.shape)
        self.step = 0
        self.losses: list[float] = []
        self._resume()

    def _make_student(self) -> None:
        config, device = self.config.optimizer, self.accelerator.device
        full = self.config.student.method == "full"
        keep = full and self.accelerator.is_main_process
        self.base = {key: weight.clone() for key, weight in self.teacher.unet.state_dict().items()} if keep else {}
        unet = student.make(self.config, self.teacher) if full else None
        student.begin_with(unet, self.config.student, self.prediction_type)
        self.teacher.to(device, WEIGHTS[config.precision])
        unet = unet or student.make(self.config, self.teacher)
        if config.channels_last:
            for network in (unet, self.teacher.unet):
                network.to(memory_format=torch.channels_last)
        unet.to(device)
        optimizer = torch.optim.AdamW(
            student.trainable(unet), config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.unet, self.optimizer = self.accelerator.prepare(unet, optimizer)
        # Not prepared: accelerate would step it once for every process.
        self.schedule = get_scheduler(
            config.schedule,
            self.optimizer.optimizer,
            num_warmup_steps=config.warm_up,
            num_training_steps=config.steps,
        )
        self.ema = EMAModel(self._trainable(), self.config.student.ema_decay, foreach=True)
        self.accelerator.register_for_checkpointing(self.schedule, self.ema)
        if not full:
            state.keep_the_adapter_alone(self.accelerator)

    def _trainable(self) -> list[torch.nn.Parameter]:
        return student.trainable(self.unet)

    def _resume(self) -> None:
        found = state.last(self.config)
        if found:
            self.step, places = state.load(self.accelerator, self.config, found)
            self.source.place = places[self.accelerator.process_index]
            state.lay_out_the_averages(self.optimizer)
            self._take_the_rate_now()
            self.say(f"Continuing from step {self.step}, {found}.")
        self.end_points.forget(self.step)

    def _take_the_rate_now(self) -> None:
        """The state brought back its own learning rate; the configuration may have another."""
        rate = self.config.optimizer.learning_rate
        self.schedule.base_lrs = [rate]
        for group in self.optimizer.param_groups:
            group["initial_lr"] = rate
            group["lr"] = rate * self.schedule.lr_lambdas[0](self.schedule.last_epoch)

    def say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

    def train(self) -> Path:
        """All steps that are left; the path of the last delta. Raises Stopped when it was asked to end earlier."""
        config = self.config
        self.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": self.step}})
        bar = tqdm(
            total=config.optimizer.steps, initial=self.step, desc="training", unit="step",
            disable=not self.accelerator.is_main_process,
        )  # fmt: skip
        with bar, stoppable(self.stop_asked):
            if self.step == 0 and config.preview.every:
                self._show()
            while self.step < config.optimizer.steps:
                try:
                    report = self._one_step()
                except Stopped:  # while the teacher walked; the others may be elsewhere, so they could not save with us
                    if self.accelerator.num_processes == 1:
                        self._save()
                    raise
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{report['loss']:.4f}")
                stop = report.pop("stop") > 0
                self.accelerator.log(report, step=self.step)
                last = self.step == config.optimizer.steps
                if stop or last or self.step % config.save.every == 0:
                    self._save()
                if config.preview.every and (last or self.step % config.preview.every == 0) and not stop:
                    self._show()
                if stop and not last:
                    raise Stopped
        path = self._delta()
        self.accelerator.end_training()
        return path

    def _one_step(self) -> dict[str, float]:
        """One step of the optimizer; its loss, by window too, and whether a process was asked to stop."""
        K, device = self.config.student.windows, self.accelerator.device
        seen = torch.zeros(2, K, device=device)  # the sum of losses and the number of rows, by window
        report: dict[str, float] = {}
        for examples in self.end_points.batches(self.step):
            with self.accelerator.accumulate(self.unet):
                losses, w = self._losses(examples)
                self.accelerator.backward(losses.mean())
                seen[0].index_add_(0, w, losses.detach())
                seen[1].index_add_(0, w, torch.ones_like(losses))
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self._trainable(), self.config.optimizer.clip)
                    report = self._checked(seen, norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.step(self._trainable())
        return report

    def _losses(self, examples: Examples) -> tuple[Tensor, Tensor]:
        device = self.accelerator.device
        line = type(examples.line)(*(part.to(device, non_blocking=True) for part in examples.line))
        chord = self.end_points.chord
        shown = lesson(self.prediction_type, chord, line, examples.T.to(torch.float32).to(device, non_blocking=True))
        prompts = self.prompts.embed(examples.prompts)
        m = self.unet(shown.z, shown.T, **self.teacher.unet_arguments(prompts), return_dict=False)[0]
        losses = row_losses(self.config.optimizer, self.prediction_type, chord, m, shown.m, line.w, shown.T)
        return losses, line.w

    def _checked(self, seen: Tensor, norm: Any) -> dict[str, float]:
        """The step's numbers over all processes. Raises TrainingError for NaN, before the weights take it in."""
        stop = seen.new_full((1,), float(self.stop_asked.is_set()))
        total = self.accelerator.reduce(torch.cat([seen.flatten(), stop]), "sum")
        sums, counts = total[:-1].reshape(2, -1).cpu().double()
        loss = float(sums.sum() / counts.sum())
        overflow = self.config.optimizer.precision == "fp16"  # the scaler passes over such a step and lowers the scale
        if not torch.isfinite(sums).all() or not (overflow or torch.isfinite(torch.as_tensor(norm)).all()):
            good = state.last(self.config)
            kept = f"the last good state is {good}" if good else "no state was saved before"
            raise TrainingError(
                f"The loss or its gradient is NaN at step {self.step + 1}; {kept}: start again with a lower "
                "optimizer.learning_rate, or with optimizer.precision bf16 or no."
            )
        report = {"loss": loss, "learning_rate": self.schedule.get_last_lr()[0], "stop": float(total[-1])}
        report |= {f"loss by window/{w}": float(sums[w] / counts[w]) for w in range(len(sums)) if counts[w] > 0}
        self.losses.append(loss)
        return report

    def _save(self) -> None:
        places = gather_object([self.end_points.place(self.step)])
        state.save(self.accelerator, self.config, self.step, places)
        self.end_points.forget(self.step)
        if self.step % self.config.save.every == 0:
            self._delta()

    def _delta(self) -> Path:
        """Write the delta of the running average."""
        config = self.config
        path = Path(config.output) / "deltas" / f"{config.save.name}-{self.step:06}.safetensors"
        with student.averaged(self.ema, self.unet):
            weights = self.accelerator.get_state_dict(self.unet)  # of all processes, and the weights themselves
            extraction = self._extraction(weights) if self.accelerator.is_main_process else None
        if extraction:
            saving.write(
                extraction,
                path,
                prediction_type=self.prediction_type,
                windows=str(config.student.windows),
                base_prediction=self.teacher.base_prediction,
                architecture=self.teacher.architecture,
                source=f"trained on {self.teacher.name}",
                steps=str(self.step),
                samples=str(self.step * self.end_points.lanes.all),
            )
        self.accelerator.wait_for_everyone()
        return path

    def _extraction(self, weights: dict[str, Tensor]) -> Extraction:
        dtype = saving.DTYPES[self.config.save.precision]
        if self.config.student.method == "full":
            return saving.full_delta(weights, self.base, self.config.save.rank, dtype)
        return saving.adapter_delta(weights, dtype)

    def _show(self) -> None:
        """A sheet of pictures and the paired error, with the running average."""
        unet = self.accelerator.unwrap_model(self.unet)
        with student.averaged(self.ema, self.unet), self.accelerator.autocast():
            sheet, errors = self.preview.sheet(unet)
        if self.accelerator.is_main_process:
            self.preview.write(sheet, self.step)
            tracker = self.accelerator.get_tracker("tensorboard", unwrap=True)
            tracker.add_image("preview", saved_sheet(sheet), self.step)
            for n, error in errors.items():
                tracker.add_scalar(f"paired error/{n} steps", error, self.step)
        self.say(f"Step {self.step}: error to the teacher " + ", ".join(f"{e:.3f} in {n}" for n, e in errors.items()))
        self.accelerator.wait_for_everyone()
