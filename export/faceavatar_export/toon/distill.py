"""Distils the UNet: few steps without guidance give what many steps with guidance give.

`python -m faceavatar_export.toon.distill DATA RUN TOKENIZER.json`, or `torchrun --nproc-per-node N -m ...`,
reads RUN/unet.pt (the averaged weights are the teacher) and writes RUN/fewstep.pt. `--compare` prints how far
from the teacher's guided end the student and the teacher themselves come in few steps.

The noise's way to the picture is cut into SEGMENTS, as phased consistency models do (Wang et al. 2024,
arXiv:2405.18407): from anywhere in a segment the student's single DDIM step must land where the guided
teacher's steps leave the segment. With zero terminal SNR and angles cos(phi) = sqrt(alpha_bar), a DDIM step
is a rotation, x_j = cos(d) x_i - sin(d) v with d = phi_i - phi_j, so that the v which lands on x_j is
(cos(d) x_i - x_j) / sin(d) (as in progressive distillation, Salimans and Ho 2022, appendix D). Guidance is
built into the student, so the unconditional half is not run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faceavatar_export.toon.conditions import ConditionMaker, Conditions
from faceavatar_export.toon.network import make_schedule
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.train_unet import Material, Model, face_weights, load_material, load_text
from faceavatar_export.toon.training import (
    Average,
    Stage,
    choose_device,
    join_processes,
    load_checkpoint,
)

SEGMENTS = 4
BUILT_IN_GUIDANCE = 3.5
KEPT = 48  # teacher's trajectories are dear: the last batches of them are trained on several times


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [distill]: `batch` trajectories a process, `substeps` of the teacher in each segment."""

    minutes: float
    batch: int
    lr: float
    decay: float
    face_weight: float
    substeps: int
    reuse: int


@dataclass(frozen=True, slots=True)
class Trajectories:
    """latents (K + 1, B, 64, 8, 8) at `timesteps` (K,), the last ones clean, and what steered them."""

    latents: Tensor
    timesteps: Tensor
    told: Conditions


def grid(steps: int) -> Tensor:
    """Trailing timesteps int64 (steps,), as DDIM with `timestep_spacing="trailing"` has them."""
    return torch.round(1000 - torch.arange(steps) * 1000 / steps).long() - 1


def angles(timesteps: Tensor) -> Tensor:
    """phi of timesteps, cos(phi)^2 = alpha_bar; 0 is appended for the clean picture."""
    alpha_bar = make_schedule().alphas_cumprod[timesteps.cpu()]
    return torch.cat([torch.acos(alpha_bar.sqrt()), torch.zeros(1)]).to(timesteps.device)


def rotate(latents: Tensor, v: Tensor, turn: Tensor) -> Tensor:
    """A DDIM step of v-prediction by the angle `turn` (broadcast)."""
    return torch.cos(turn) * latents - torch.sin(turn) * v


def landing_v(latents: Tensor, landing: Tensor, turn: Tensor) -> Tensor:
    """The v with which `rotate` lands on `landing`."""
    return (torch.cos(turn) * latents - landing) / torch.sin(turn)


@torch.inference_mode()
def guided_trajectories(
    teacher: Model, told: Conditions, empty: Tensor, noise: Tensor, steps: int, guidance: float
) -> Trajectories:
    """The teacher's DDIM with guidance from `noise` (B, 64, 8, 8); guidance 1 runs the conditional half."""
    timesteps = grid(steps).to(noise.device)
    phi, kept, count = angles(timesteps), [noise], len(noise)
    states, faces = told.states, told.face_embeds
    if guidance != 1:
        states = torch.cat([empty.expand(count, -1, -1), states])
        faces = torch.cat([torch.zeros_like(faces), faces])
    for i, t in enumerate(timesteps):
        with torch.autocast(noise.device.type, torch.bfloat16):
            x = kept[-1].repeat(len(states) // count, 1, 1, 1)
            v = teacher(x, t.expand(len(states)), states, faces).float()
        if guidance != 1:
            without, wanted = v.chunk(2)
            v = without + guidance * (wanted - without)
        kept.append(rotate(kept[-1], v, phi[i] - phi[i + 1]))
    return Trajectories(torch.stack(kept), timesteps, told)


def student_loss(
    student: Model, seen: Trajectories, weights: Tensor, rng: np.random.Generator, inner: int = 1
) -> Tensor:
    """The student's error in v at every segment's start and at `inner` random places within each."""
    steps, count = len(seen.timesteps), seen.latents.shape[1]
    length = steps // SEGMENTS
    phi, device = angles(seen.timesteps), seen.latents.device
    starts = [(k * length, (k + 1) * length) for k in range(SEGMENTS)]
    if length > 1:
        starts += [(a + int(rng.integers(1, length)), b) for a, b in starts for _ in range(inner)]
    latents = torch.cat([seen.latents[i] for i, _ in starts])
    turn = torch.cat([(phi[i] - phi[j]).expand(count) for i, j in starts])[:, None, None, None]
    target = landing_v(latents, torch.cat([seen.latents[j] for _, j in starts]), turn)
    t = torch.cat([seen.timesteps[i].expand(count) for i, _ in starts])
    states = seen.told.states.repeat(len(starts), 1, 1)
    faces = seen.told.face_embeds.repeat(len(starts), 1)
    with torch.autocast(device.type, torch.bfloat16):
        predicted = student(latents, t, states, faces)
    return torch.as_tensor((weights * (predicted.float() - target).square()).mean())


class Teacher:
    """Draws conditions and noise, and keeps the last trajectories."""

    def __init__(
        self,
        model: Model,
        material: Material,
        maker: ConditionMaker,
        settings: Settings,
        seed: tuple[int, ...],
    ) -> None:
        self._model, self._material, self._maker, self._settings = model, material, maker, settings
        self.rng = np.random.default_rng(seed)
        self._kept: deque[Trajectories] = deque(maxlen=KEPT)
        self._used = 0

    def next(self) -> Trajectories:
        """Fresh trajectories every `reuse` calls, in between any of those kept."""
        self._used += 1
        if self._used % self._settings.reuse == 1 or self._settings.reuse == 1:
            self._kept.append(self.fresh(self._settings.batch))
            return self._kept[-1]
        return self._kept[int(self.rng.integers(len(self._kept)))]

    def fresh(self, count: int) -> Trajectories:
        """New ones, from noise alone: no drawn picture is needed, only who and what might be asked for."""
        m, device = self._material, next(self._model.parameters()).device
        rows = self.rng.choice(len(m.weights), count, p=m.weights)
        told = self._maker.make([m.people[i] for i in rows], m.embeddings[rows], self.rng, 1)
        told = Conditions(told.states.to(device), told.face_embeds.to(device))
        noise = torch.from_numpy(self.rng.standard_normal((count, 64, 8, 8), np.float32)).to(device)
        empty = self._maker.states([""], 1).to(device)
        steps = SEGMENTS * self._settings.substeps
        seen = guided_trajectories(self._model, told, empty, noise, steps, BUILT_IN_GUIDANCE)
        return Trajectories(seen.latents.clone(), seen.timesteps, told)


def load_teacher(run: Path, device: torch.device) -> Model:
    """The averaged UNet of a run, frozen."""
    average = Average(Model())
    if load_checkpoint(run / "unet.pt", average=average)[0] == 0:
        raise FileNotFoundError(f"{run / 'unet.pt'}: no trained UNet; run train_unet first")
    return average.module.to(device).eval()


def train(data: Path, run: Path, tokenizer: Path, settings: Settings, device: torch.device) -> None:
    """Trains for the settings' minutes of wall clock; RUN/fewstep.pt is the checkpoint."""
    material, maker = load_material(data, 3.0), load_text(run, tokenizer)
    team = join_processes(device)
    model, student = load_teacher(run, device), Model()
    student.load_state_dict(model.state_dict())
    student = student.to(device).requires_grad_(True)
    average = Average(student, settings.decay)
    optimizer = torch.optim.AdamW(student.parameters(), settings.lr, (0.9, 0.98), weight_decay=1e-4)
    stage = Stage(run / "fewstep.pt", ("loss",), settings, team, student, optimizer, average=average)
    teacher = Teacher(model, material, maker, settings, (31, stage.step, stage.rank))
    weights = face_weights(settings.face_weight, device)
    for _ in stage.steps(log_every=20, save_every=60):
        loss = student_loss(student, teacher.next(), weights, teacher.rng)
        stage.learn(loss)
        stage.note(loss=loss)
        if stage.leads:
            average.update(student, stage.step)


def compare(
    data: Path, run: Path, tokenizer: Path, device: torch.device, count: int = 32
) -> dict[str, float]:
    """Root mean square distance in latents to the teacher's 20 guided steps from the same noise."""
    material, maker = load_material(data, 3.0), load_text(run, tokenizer)
    teacher, average = load_teacher(run, device), Average(Model())
    load_checkpoint(run / "fewstep.pt", average=average)
    student = average.module.to(device)
    rng, rows = np.random.default_rng(3), np.array(material.held)[:: len(material.held) // count][:count]
    told = maker.make([material.people[i] for i in rows], material.embeddings[rows], rng, 1)
    told = Conditions(told.states.to(device), told.face_embeds.to(device))
    noise = torch.from_numpy(rng.standard_normal((len(rows), 64, 8, 8), np.float32)).to(device)
    empty = maker.states([""], 1).to(device)

    def end(model: Model, steps: int, guidance: float) -> Tensor:
        return guided_trajectories(model, told, empty, noise, steps, guidance).latents[-1]

    goal = end(teacher, 20, BUILT_IN_GUIDANCE)
    runs = {f"student, {n} steps": end(student, n, 1) for n in (1, 2, 4, 8, 20)}
    runs |= {f"teacher, {n} steps, guided": end(teacher, n, BUILT_IN_GUIDANCE) for n in (4, 8)}
    runs |= {f"teacher, {n} steps, not guided": end(teacher, n, 1) for n in (4, 20)}
    return {name: (x - goal).square().mean().sqrt().item() for name, x in runs.items()}


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    for path in ("data", "run", "tokenizer"):
        parser.add_argument(path, type=Path)
    parser.add_argument("--compare", action="store_true", help="print distances instead of training")
    args = parser.parse_args()
    device = choose_device(args.device)
    if args.compare:
        for name, value in compare(args.data, args.run, args.tokenizer, device).items():
            print(f"{name:32} {value:.3f}")
        return
    settings = read_settings(Settings, "distill", device.type, args.config, vars(args))
    train(args.data, args.run, args.tokenizer, settings, device)


if __name__ == "__main__":
    main()
