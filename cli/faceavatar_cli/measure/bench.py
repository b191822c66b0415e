"""The order in which a pack is measured: fresh processes before this one holds its weights, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from faceavatar import AvatarEngine, __version__
from faceavatar.backends import physical_cores
from faceavatar.pack import Pack, find_pack
from faceavatar_cli.measure.cases import Sweep
from faceavatar_cli.measure.fresh import measure_fresh
from faceavatar_cli.measure.machine import load_average, this_machine
from faceavatar_cli.measure.peak import QUICK_SIDE, SIDE, measure_peaks
from faceavatar_cli.measure.report import Report, now
from faceavatar_cli.measure.runs import time_cases

MEASURED = ("unet", "vae_decoder")  # the graphs whose arithmetic is counted: nearly all of a picture's


@dataclass(frozen=True)
class Bench:
    """What is measured, with AvatarEngine.load's arguments; `say` gets a line before each part."""

    pack: str
    provider: str
    precision: str | None
    engines: str | None
    threads: int | None
    say: Callable[[str], None]

    def run(self, sweep_of: Callable[..., Sweep], given: Mapping[str, Any]) -> Report:
        """Measures all of it. sweep_of: full_sweep or quick_sweep, which gets `given`.

        Raises what AvatarEngine.load and generate raise.
        """
        load_before, folder = load_average(), find_pack(self.pack)
        pack = Pack.load(folder, check_hashes=False)
        sweep = sweep_of(pack.manifest.defaults.num_inference_steps, **given)
        loading: dict[str, Any] = {
            "pack": str(folder),
            "provider": self.provider,
            "precision": self.precision,
            "engines": self.engines,
            "threads": self.threads,
        }
        self.say("fresh processes ...")
        fresh = measure_fresh(loading, sweep.base, sweep.fresh_runs)
        self.say("matrix products ...")
        side = QUICK_SIDE if sweep.fresh_runs == 1 else SIDE
        engine = AvatarEngine.load(**loading).wait_until_open()
        before = measure_peaks(engine.provider, self.threads, side)
        timed, skipped, uncounted = time_cases(engine, sweep.cases(), sweep.runs, sweep.seconds, self.say)
        after = measure_peaks(engine.provider, self.threads, side)
        return Report(
            machine=this_machine(),
            when=now(),
            version=__version__,
            pack=pack.name,
            pack_version=pack.manifest.version,
            provider=engine.provider,
            precisions={role: engine.precisions[role] for role in MEASURED},
            threads=self.threads or physical_cores(),
            load_before=load_before,
            peaks={name: max(value, before.get(name, 0.0)) for name, value in after.items()},
            fresh=fresh,
            cases=tuple(timed),
            skipped=tuple(skipped),
            missing=() if uncounted is None else (f"FLOP/s and shares of the peak: {uncounted}",),
        )
