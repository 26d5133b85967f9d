"""A training run from the configuration to the delta."""

import sys
import threading
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import ProjectConfiguration, gather_object
from diffusers.optimization import get_scheduler
from torch import Tensor
from tqdm import tqdm

from perflow_core.errors import tensors_named
from perflow_core.training.descent import NotFiniteError
from perflow_core.training.reflow import Batch, Segment
from perflow_core.training.starting_delta import Beginning

from . import (
    latents,
    made_with,
    needs,
    optimizers,
    output,
    prompts,
    saving,
    sharding,
    starting_delta,
    state,
    student,
    tracking,
)
from .accelerated import AcceleratedDescent
from .average import RunningAverage, averaged
from .buckets import Buckets
from .config import Config, without_effect
from .layouts import UnknownLayoutError
from .plan import plan
from .prepared_latents import Share
from .preview import Preview
from .prompts import PromptStore
from .segment_cache import Lanes, Rows, SegmentCache
from .starting_delta import StartingDelta
from .stopping import Stopped, TrainingError, stoppable
from .teacher import load
from .validation import Validation

PROCESSES_MAY_WAIT = timedelta(days=2)  # for the one that prepares latents or draws the teacher's pictures


class Run:
    """Everything that a step needs. `train` goes from the last state to the last step."""

    def __init__(self, config: Config, fits: bool = False):
        """fits: for a plan, which has said what is to be said of the configuration, and whether it fits."""
        self.config = config
        tracking.check(config)
        folder_of_run = output.made(config.output)
        self.deltas = folder_of_run / "deltas"
        self.stop_requested = threading.Event()
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # or processes on a CPU would not find each other
            mixed_precision=config.optimizer.precision,
            gradient_accumulation_steps=config.optimizer.accumulation,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESSES_MAY_WAIT)],
            project_config=ProjectConfiguration(project_dir=str(folder_of_run)),
        )
        if config.optimizer.precision == "fp16" and self.accelerator.device.type == "cpu":
            raise TrainingError(
                'optimizer.precision is "fp16" on a CPU, which has "no" or "bf16": choose one of these.'
            )
        if not fits:
            self.say(without_effect(config))
        sharding.check(self.accelerator, config)
        self.sharded = sharding.is_sharded(self.accelerator)
        optimizers.check(config.optimizer, self.accelerator.device)
        if not fits:
            self._check_that_it_fits()
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.lock = output.lock(folder_of_run, rank)
        if rank == 0:  # the others write when the student is there, which takes all of them
            output.tidy(folder_of_run)
        self.teacher = load(config.teacher, config.data.resolution)
        start = starting_delta.read(config, self.teacher)  # its weights are not kept
        self.reflow = plan(config, self.teacher, start.prediction_type if start else None)
        if start:
            start.check(self.reflow.prediction_type, config.student.windows, self.reflow.chord.own_edges)
        self.start_facts = start.facts if start else {}
        self.digests = dict(self.teacher.digests) | {starting_delta.DIGEST: start.digest if start else ""}
        self.facts = made_with.of_run(config, self.digests, processes)
        found = state.of_this_run(config, self.facts)  # before the caches, which a refused run has to leave as they are
        self._make_student(start, fresh=found is None)
        del start
        folder, cache = folder_of_run / "prompts" / f"process-{rank}", config.cache
        self.say(made_with.renewed(folder, made_with.chosen(self.facts, prompts.DEPENDS_ON)))
        self.prompts = PromptStore(self.teacher, folder, cache.prompts_gb, cache.prompts_memory_gb)
        self.source = self._latents(rank, processes)
        lanes = Lanes(rank, processes, config.optimizer.batch_size, config.optimizer.accumulation)
        self.segments = SegmentCache(
            config,
            self.teacher,
            self.prompts,
            self.source,
            self.reflow,
            lanes,
            self.stop_requested.is_set,
            partial(sharding.least, self.accelerator) if self.sharded else None,
        )
        self.say(self.segments.fit(self.facts))
        self.validation = (
            Validation(config, self.teacher, self.prompts, self.source, self.reflow)
            if config.validation.held_out and isinstance(self.source, latents.LatentFiles)
            else None
        )
        square = Buckets.square(config.data.resolution).largest
        shape = latents.shape_of(square, self.source, self.teacher)
        self.preview = Preview(config, self.teacher, self.prompts, self.reflow, shape)
        self.step = 0
        self.delta: Path | None = None  # the last one that was written
        self.losses: list[float] = []
        self._resume(found)

    def _check_that_it_fits(self) -> None:
        """Before anything long begins. Raises TrainingError."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        try:
            needed = needs.of(self.config, processes, traced=device.type == "cuda")
        except UnknownLayoutError as error:  # a teacher that cannot be used at all is named where it is loaded
            self.say(f"Whether the run fits is not known. {error}")
        else:
            place, here = needs.Place.here(self.config, device), needs.on_this_machine(processes)
            needs.check(needed, place, self.config.output, here, self.sharded)

    def _latents(self, rank: int, processes: int) -> latents.LatentFiles | latents.PictureStream:
        """x0; the processes share the work where latents are made first."""
        share = Share(rank, processes, self.stop_requested.is_set, self.say)
        source = latents.source(self.config, self.facts, self.teacher, self.prompts, share)
        self.accelerator.wait_for_everyone()
        return source

    def _make_student(self, start: StartingDelta | None, fresh: bool) -> None:
        """start: what it begins with; fresh: not one whose weights a state has."""
        config, device = self.config.optimizer, self.accelerator.device
        full = self.config.student.method == "full"
        keep = full and self.accelerator.is_main_process
        self.base = {key: weight.clone() for key, weight in self.teacher.unet.state_dict().items()} if keep else {}
        unet = student.make(self.config, self.teacher) if full else None
        if unet and start and fresh:
            self._say_beginning(start, student.begin_with(unet, start, self.config.student.delta_rank, device))
        self.teacher.to(device, needs.PRECISIONS[config.precision], but_unet=self.sharded and not full)
        unet = unet or student.make(self.config, self.teacher)
        if config.channels_last and self.teacher.convolves:
            for network in (unet, self.teacher.unet):
                network.to(memory_format=torch.channels_last)
        if not self.sharded:  # FSDP takes each process' part of it from the CPU
            unet.to(device)
        self.beside = self._begin_lora(unet, start, fresh) if start and not full else {}
        optimizer = optimizers.make(config, student.trainable(unet), device)
        self.unet, self.optimizer = self.accelerator.prepare(unet, optimizer)
        if self.config.teacher.float8:  # now, as processes cannot exchange 8 bits, and an adapter would begin in them
            self.teacher.to_float8()
        if self.beside:
            self.teacher.beside = student.switched(self.teacher.unet, self.beside)
            self.teacher.beside.to_student(True)
        self.descent = AcceleratedDescent(self.accelerator, self.unet, self.optimizer, config.clip, self.stop_requested)
        # Not prepared: accelerate would step it once for every process.
        self.schedule = get_scheduler(
            config.schedule,
            self.optimizer.optimizer,
            num_warmup_steps=config.warm_up,
            num_training_steps=config.steps,
        )
        self.ema = self._running_average()
        self.accelerator.register_for_checkpointing(*filter(None, [self.schedule, self.ema]))
        if not full:
            state.save_only_the_adapter(self.accelerator)

    def _say_beginning(self, start: StartingDelta, beginning: Beginning) -> None:
        config = self.config.student
        few = config.method == "lora" or config.delta_rank
        how = beginning.text(start.name) if few else f"begins with {start.name}"
        self.say(f"The student {how}. {start.other_guidance(self.config)}".rstrip())

    def _begin_lora(self, unet: torch.nn.Module, start: StartingDelta, fresh: bool) -> dict[str, Tensor]:
        """Give a LoRA a delta; what of it the student has beside its adapters."""
        beside = student.beside_adapters(unet, start)
        if beside and self.sharded:
            raise TrainingError(
                f"student.delta: {start.name} has {tensors_named(list(beside))}, which no adapter is for, and "
                "with FSDP it begins with adapters alone: train without FSDP, or choose a delta of these layers only."
            )
        if fresh:
            rank, device = self.config.student.rank, self.accelerator.device
            self._say_beginning(start, student.begin_adapters_with(unet, start, rank, device))
        return beside

    def _running_average(self) -> RunningAverage | None:
        config = self.config.student
        place = self.accelerator.device if config.ema_on == "card" else torch.device("cpu")
        return RunningAverage(student.trainable(self.unet), config.ema_decay, place) if config.ema_decay else None

    def _resume(self, found: Path | None) -> None:
        if found:
            self.step, places = state.load(self.accelerator, found)
            self.source.place = places[self.accelerator.process_index]
            state.match_memory_layout(self.optimizer)
            # The state brought back its own learning rate; the configuration may have another.
            self.schedule.base_lrs = [self.config.optimizer.learning_rate]
            for group in self.optimizer.param_groups:
                group["initial_lr"] = self.config.optimizer.learning_rate
                group["lr"] = group["initial_lr"] * self.schedule.lr_lambdas[0](self.schedule.last_epoch)
            self.say(f"Continuing from step {self.step}, {found}.")
            self._write_the_missing_delta()
        self.segments.forget(self.step)

    def say(self, text: str) -> None:
        """A line for the user, once for all processes; nothing to say is not said."""
        if text and self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

    def train(self) -> Path:
        """All steps that are left; the path of the last delta. Raises Stopped where the user stopped it earlier."""
        config = self.config
        tracking.begin(self.accelerator, config, self.step)
        bar = tqdm(
            total=config.optimizer.steps, initial=self.step, desc="training", unit="step",
            disable=not self.accelerator.is_main_process,
        )  # fmt: skip
        with bar, stoppable(self.stop_requested):
            if self.step == 0 and config.preview.every:
                self._show()
            while self.step < config.optimizer.steps:
                try:
                    report = self._one_step()
                except Stopped:  # at the teacher's work; the others may be elsewhere, so they could not save with us
                    if self.accelerator.num_processes == 1:
                        self._save()
                    raise
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{report['loss']:.4f}")
                stop = self.descent.stop
                self.accelerator.log(report, step=self.step)
                last = self.step == config.optimizer.steps
                if stop or last or self.step % config.save.every == 0:
                    self._save()
                if config.preview.every and (last or self.step % config.preview.every == 0) and not stop:
                    self._show()
                if self.validation and (last or self.step % config.validation.every == 0) and not stop:
                    self._validate(self.validation)
                if stop and not last:
                    raise Stopped
        delta = self.delta or self._delta()  # a run that had ended may have other [save] now
        self.accelerator.end_training()
        return delta

    def _one_step(self) -> dict[str, float]:
        """One step of the optimizer; its loss, by window too. Raises TrainingError for NaN."""
        batches = (self._batch(rows) for rows in self.segments.batches(self.step))
        try:
            losses = self.segments.reflow.step(batches, self.descent)
        except NotFiniteError as error:
            good = state.last(self.config)
            kept = f"the last good state is {good}" if good else "no state was saved before"
            raise TrainingError(
                f"The loss or its gradient is NaN at step {self.step + 1}; {kept}: start again with a lower "
                "optimizer.learning_rate, or with optimizer.precision bf16 or no."
            ) from error
        report = {"loss": losses.mean, "learning_rate": self.schedule.get_last_lr()[0]}
        self.losses.append(losses.mean)
        self.schedule.step()
        if self.ema:
            self.ema.step(student.trainable(self.unet))
        return report | {f"loss by window/{w}": loss for w, loss in losses.by_window.items()}

    def _batch(self, rows: Rows) -> Batch:
        """On the student's device."""
        device = self.accelerator.device
        network = self.teacher.network(self.unet, self.prompts.embed(rows.prompts), None, torch.float32)
        self.teacher.rest()  # the student's step is where memory is short
        segment = Segment(*(part.to(device, non_blocking=True) for part in rows.segment))
        T = rows.T.to(torch.float32).to(device, non_blocking=True)
        return Batch(segment, T, lambda z, T: network(z, T)[0])

    def _save(self) -> None:
        places = gather_object([self.segments.place(self.step)])
        state.save(self.accelerator, self.config, self.facts, self.step, places)
        self.segments.forget(self.step)
        if self._delta_is_due:
            self.delta = self._delta()

    @property
    def _delta_is_due(self) -> bool:
        """At step 0, where the first round was stopped, the student is still what it began with."""
        return self.step > 0 and (self.step % self.config.save.every == 0 or self.step == self.config.optimizer.steps)

    def _write_the_missing_delta(self) -> None:
        """Of a run that was killed, or whose disk was full, between its state and its delta."""
        written = saving.is_written(self.deltas, state.identity(self.facts), self.step)
        if self._delta_is_due and not gather_object([written])[0]:  # another process may not see the file yet
            self.delta = self._delta()

    def _delta(self) -> Path:
        """Write the delta of the running average; its path, which the first process alone knows."""
        config = self.config
        path = self.deltas / f"{config.save.name}-{self.step:06}.safetensors"
        guidance = config.teacher.guidance
        facts = (
            self.teacher.base.metadata(self.reflow.chord)
            | self.teacher.facts
            | self.start_facts
            | {
                "guidance": guidance if isinstance(guidance, str) else f"{guidance:g}",
                "architecture": self.teacher.architecture,
                "source": f"trained on {self.teacher.name}",
                "steps": str(self.step),
                "samples": str(self.step * self.segments.lanes.all),
                "run": state.identity(self.facts),
            }
        )
        with averaged(self.ema, student.trainable(self.unet)):
            weights = self.accelerator.get_state_dict(self.unet)  # of all processes, and the weights themselves
            if self.accelerator.is_main_process:
                path = saving.write(
                    path,
                    weights,
                    self.base,
                    self.beside,
                    self.teacher.names,
                    config.save,
                    **self.reflow.metadata(),
                    **facts,
                )
                saving.keep_last(path, config.save)
        self.accelerator.wait_for_everyone()
        return path

    def _validate(self, validation: Validation) -> None:
        """Log the loss on what is held out, with the running average."""
        unet = self.accelerator.unwrap_model(self.unet)
        with averaged(self.ema, student.trainable(self.unet)), self.accelerator.autocast():
            losses = validation.losses(unet)
        by_window = {f"validation loss by window/{w}": loss for w, loss in losses.by_window.items()}
        self.accelerator.log({"validation loss": losses.mean} | by_window, step=self.step)
        self.accelerator.wait_for_everyone()

    def _show(self) -> None:
        """A sheet of pictures and the paired error, with the running average."""
        unet = self.accelerator.unwrap_model(self.unet)
        with averaged(self.ema, student.trainable(self.unet)), self.accelerator.autocast():
            sheet, errors = self.preview.sheet(unet)
        if self.accelerator.is_main_process:
            self.preview.write(sheet, self.step)
            tracking.show(self.accelerator, sheet, self.step)
        self.accelerator.log({f"paired error/{n} steps": error for n, error in errors.items()}, step=self.step)
        self.say(f"Step {self.step}: error to the teacher " + ", ".join(f"{e:.3f} in {n}" for n, e in errors.items()))
        self.accelerator.wait_for_everyone()
