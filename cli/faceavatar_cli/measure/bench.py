"""The order in which a pack is measured: fresh processes before this one holds its weights, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from faceavatar import AvatarEngine, __version__
from faceavatar.backends import physical_cores, resolve_provider
from faceavatar.pack import Pack, find_pack
from faceavatar_cli.measure.cases import Sweep
from faceavatar_cli.measure.fresh import measure_fresh
from faceavatar_cli.measure.machine import load_average, this_machine
from faceavatar_cli.measure.peak import QUICK_SIDE, SIDE, measure_peaks
from faceavatar_cli.measure.report import Report, now
from faceavatar_cli.measure.runs import time_cases


@dataclass(frozen=True)
class Bench:
    """What is measured, with AvatarEngine.load's arguments; `say` gets a line before each part."""

    pack: str
    provider: str
    precision: str | None
    threads: int | None
    say: Callable[[str], None]

    def run(self, sweep_of: Callable[..., Sweep], given: Mapping[str, Any]) -> Report:
        """Measures all of it. sweep_of: full_sweep or quick_sweep, which gets `given`.

        Raises what AvatarEngine.load and generate raise.
        """
        load_before, folder = load_average(), find_pack(self.pack)
        pack = Pack.load(folder, check_hashes=False)
        sweep = sweep_of(pack.manifest.defaults.num_inference_steps, **given)
        loading = {
            "pack": str(folder),
            "provider": self.provider,
            "precision": self.precision,
            "threads": self.threads,
        }
        self.say("fresh processes ...")
        fresh = measure_fresh(loading, sweep.base, sweep.fresh_runs)
        self.say("matrix products ...")
        provider = resolve_provider(self.provider)
        side = QUICK_SIDE if sweep.fresh_runs == 1 else SIDE
        before = measure_peaks(provider, self.threads, side)
        engine = AvatarEngine.load(folder, self.provider, self.threads, self.precision)
        timed, skipped, uncounted = time_cases(engine, sweep.cases(), sweep.runs, sweep.seconds, self.say)
        after = measure_peaks(engine.provider, self.threads, side)
        return Report(
            machine=this_machine(),
            when=now(),
            version=__version__,
            pack=pack.name,
            pack_version=pack.manifest.version,
            provider=engine.provider,
            precisions=_precisions(engine),
            threads=self.threads or physical_cores(),
            load_before=load_before,
            peaks={name: max(value, before.get(name, 0.0)) for name, value in after.items()},
            fresh=fresh,
            cases=tuple(timed),
            skipped=tuple(skipped),
            missing=() if uncounted is None else (f"FLOP/s and shares of the peak: {uncounted}",),
        )


def _precisions(engine: AvatarEngine) -> dict[str, str]:
    """What the two graphs that cost most compute in."""
    return {"unet": engine.unet.session.precision, "vae_decoder": engine.vae.session.precision}
