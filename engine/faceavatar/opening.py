"""How a pack's graphs are opened: by which provider, in which precision, compiled or plain.

Chooses the provider of "auto" and refuses what it cannot do before a graph is opened. Does not know what the
graphs are for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from faceavatar.backends import (
    GPU_PROVIDERS,
    PRECISIONS,
    Platform,
    Precision,
    Session,
    TensorSpec,
    available_providers,
    open_engine,
    platform_of,
    resolve_provider,
)
from faceavatar.engines import FOLDER, Engines
from faceavatar.errors import (
    EngineStale,
    InvalidRequest,
    MissingGraph,
    PackInvalid,
    ProviderUnavailable,
)
from faceavatar.guard import GuardedSession
from faceavatar.pack import Pack, stored_precision

Asked = str | Mapping[str, str] | None
IGNORE = "ignore"
CPU_PROVIDERS = frozenset({"cpu", "openvino"})
# Where nearly all time and memory go. The face's nets stay in float32: an identity must not depend on the
# precision of the pictures, and a request spends less than a hundredth of its time in them.
REDUCED_ROLES = frozenset(
    {"text_encoder", "text_encoder_2", "unet", "unet_step", "unet_shallow", "vae_decoder", "vae_encoder"}
)
# From here on openvino's faster steps outweigh what it takes to compile (docs/decisions.md).
LARGE_UNET = 256_000_000


@dataclass(frozen=True)
class Opening:
    """A pack, and how its graphs are opened.

    provider: a resolved one, not "auto". precision: None for what each graph is stored in, one for the pack,
    or one for each of some roles. engines: compiled engines to be used where they fit. left_aside: a sentence
    where engines were there and not wanted. device_loop: the steps are unet_step's, on the device, and not
    unet's. cuda_graphs: its launches are recorded once and replayed.
    """

    pack: Pack
    provider: str
    threads: int | None = None
    precision: Asked = None
    engines: Engines | None = None
    left_aside: str | None = None
    check_hashes: bool = True
    device_loop: bool = False
    cuda_graphs: bool = False
    _said: list[str] = field(default_factory=list, repr=False, compare=False)
    _computed: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        pack: Pack,
        provider: str = "auto",
        threads: int | None = None,
        precision: Asked = None,
        engines: str | os.PathLike[str] | None = None,
        check_hashes: bool = True,
        device_loop: bool | None = None,
        cuda_graphs: bool = False,
    ) -> Opening:
        """Check the arguments of AvatarEngine.load. Raises as that does, before a graph is opened."""
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InvalidRequest("threads", threads, "a whole number from 1, or None for each physical core")
        check_asked(pack, precision)
        used = choose_provider(pack, provider, precision)
        loop = stays_on_device(pack, used, device_loop, cuda_graphs), cuda_graphs
        if engines == IGNORE:
            return cls(pack, used, threads, precision, None, _left_aside(pack, used), check_hashes, *loop)
        folder = pack.folder / FOLDER if engines is None else Path(engines).expanduser()
        found = Engines.read(folder, pack.name, pack.found)
        if found is None and engines is not None:
            allowed = f'"{IGNORE}", None for those in the pack, or a folder with an engines.json'
            raise InvalidRequest("engines", os.fspath(engines), allowed)
        return cls(pack, used, threads, precision, found, None, check_hashes, *loop)

    def open(self, role: str, precision: Precision | None = None) -> Session:
        """The session of a role: its engine where one was compiled, else the graph.

        precision: in place of the one that this role would have.
        Raises what Pack.open raises, EngineStale, and HashMismatch for an engine that was changed.
        """
        wanted = precision or self.precision_of(role)
        session = self._engine(role, wanted) or self.pack.open(
            *(role, self.provider, self.threads, wanted), record=self.cuda_graphs and role == "unet_step"
        )
        with self._lock:
            self._said.extend(words for words in session.warnings if words not in self._said)
            self._computed.setdefault(role, session.precision)
        return session

    def guarded(self, role: str) -> GuardedSession:
        """As open, for runs: watched, and run again in fp32 where its own precision overflows."""
        exactly = partial(self.pack.open_fp32, role, self.provider, self.threads)
        return GuardedSession(self.open(role), role, exactly)

    @property
    def net(self) -> str:
        """The role whose graph takes the steps."""
        return "unet_step" if self.device_loop else "unet"

    def precision_of(self, role: str) -> Precision | None:
        """What a role was asked to compute in, None for what it is stored in."""
        return precision_of(self.pack, role, self.precision)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is otherwise than one may expect, of all that was opened so far."""
        with self._lock:
            aside = [] if self.left_aside is None else [self.left_aside]
            return (*aside, *self._said)

    @property
    def precisions(self) -> Mapping[str, str]:
        """What the graphs opened so far really compute in, by role."""
        with self._lock:
            return dict(self._computed)

    def _engine(self, role: str, precision: Precision | None) -> Session | None:
        if self.engines is None:
            return None
        graph = self.pack.graph(role)
        computed = precision or stored_precision(graph)
        hashes = self.pack.source_hashes(role, self.provider)
        entry = self.engines.find(role, self.provider, computed, hashes, here(self.provider))
        if entry is None:
            return None
        files, path = self.engines.files(entry, self.check_hashes), self.pack.file(next(iter(hashes)))
        record = self.cuda_graphs and role == "unet_step"
        session = open_engine(files, path, self.provider, self.threads, computed, record)
        return self.pack.held(role, session)


class Later:
    """A Session that is opened in the background; whoever needs it waits for it."""

    def __init__(self, open_it: Callable[[], Session]) -> None:
        pool = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._future = pool.submit(open_it)
        pool.shutdown(wait=False)

    def wait(self) -> Session:
        """The session. Raises what opening it raised."""
        return self._future.result()

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self.wait().inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self.wait().outputs

    @property
    def provider(self) -> str:
        return self.wait().provider

    @property
    def precision(self) -> Precision:
        return self.wait().precision

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.wait().warnings

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.wait().run(feeds)


def engine_problems(pack: Pack, folder: str | os.PathLike[str] | None = None) -> list[str]:
    """What is wrong with the compiled engines of a pack, a line each; every file is hashed anew.

    folder: where they lie, by default in the pack. Whether they fit is asked of providers that work here.
    """
    place = pack.folder / FOLDER if folder is None else Path(folder).expanduser()
    try:
        engines = Engines.read(place, pack.name, pack.found)
    except PackInvalid as error:
        return [str(error)]
    if engines is None:
        return []
    found = [str(problem) for entry in engines.entries for problem in engines.problems(entry)]
    ready = set(available_providers())
    for role, provider, precision in sorted({entry.key[:3] for entry in engines.entries}):
        if provider not in ready or role not in pack.manifest.graphs:
            continue
        try:
            engines.find(role, provider, precision, pack.source_hashes(role, provider), here(provider))
        except EngineStale as error:
            found.append(str(error))
    return found


def roles_for(pack: Pack, provider: str) -> tuple[str, ...]:
    """The roles that a provider runs: the step graph is for loops that stay on a GPU."""
    roles = pack.manifest.graphs
    return tuple(role for role in roles if role != "unet_step" or provider not in CPU_PROVIDERS)


def here(provider: str) -> Platform:
    """This device and the versions that engines of a provider depend on, faceavatar's among them."""
    from faceavatar import __version__

    found = platform_of(provider)
    return Platform(found.device, found.driver, {"faceavatar": __version__, **found.versions})


def precision_of(pack: Pack, role: str, asked: Asked) -> Precision | None:
    """What a role is to compute in, None for what it is stored in.

    One precision for the pack means the graphs that are stored in it, or where none is, those that nearly all
    time goes into; full precision means all.
    """
    if asked is None or role not in pack.manifest.graphs:
        return None
    if not isinstance(asked, str):
        return _named(asked.get(role))
    wanted, stored = (
        _named(asked),
        {name: stored_precision(one) for name, one in pack.manifest.graphs.items()},
    )
    if wanted == "fp32" or stored[role] == wanted:
        return wanted
    return wanted if wanted not in stored.values() and role in REDUCED_ROLES else None


def choose_provider(pack: Pack, provider: str, precision: Asked = None) -> str:
    """The provider that runs the pack: the one named, or for "auto" the fastest here that can.

    A GPU where one works; on the processor openvino for a UNet of LARGE_UNET bytes or more, else cpu.
    Raises ProviderUnavailable.
    """
    if provider != "auto":
        used = resolve_provider(provider)
        problem = _precision_problem(pack, used, precision)
        if problem is not None:
            raise ProviderUnavailable(problem)
        return used
    names = available_providers()
    if unet_bytes(pack) >= LARGE_UNET and "openvino" in names:
        names.remove("openvino")
        names.insert(names.index("cpu"), "openvino")
    problems = {name: _precision_problem(pack, name, precision) for name in names}
    for name, problem in problems.items():
        if problem is None:
            return name
    raise ProviderUnavailable(next(problem for problem in problems.values() if problem is not None))


def stays_on_device(pack: Pack, provider: str, asked: bool | None, cuda_graphs: bool = False) -> bool:
    """Whether the steps are the step graph's: by itself on a GPU where the pack has one, else when asked.

    Raises MissingGraph and InvalidRequest for what cannot be had.
    """
    has, on_gpu = "unet_step" in pack.manifest.graphs, provider in GPU_PROVIDERS
    if asked and not has:
        raise MissingGraph(
            f"{pack.name}: device_loop needs the graph unet_step, and this pack has none; "
            "add it: python -m faceavatar_export.step_graph PACK"
        )
    if asked and provider == "openvino":
        allowed = "None or False with openvino, which shares its memory with the host anyway"
        raise InvalidRequest("device_loop", asked, allowed)
    stays = has and on_gpu if asked is None else asked
    if cuda_graphs and not (stays and on_gpu):
        allowed = f"False with provider {provider!r} {'and' if stays else 'without'} a loop on the device"
        raise InvalidRequest("cuda_graphs", cuda_graphs, allowed)
    return stays


def unet_bytes(pack: Pack) -> int:
    """How much the UNet's graph and weights weigh on disk."""
    return sum(pack.manifest.files[name].size for name in pack.sources("unet", "openvino"))


def check_asked(pack: Pack, asked: Asked) -> None:
    """Raises InvalidRequest for a precision or a role that does not exist."""
    roles = pack.manifest.graphs
    wanted = {} if asked is None else {"": asked} if isinstance(asked, str) else dict(asked)
    allowed = f"None, {', '.join(PRECISIONS)}, or one of these for each of some roles ({', '.join(roles)})"
    for role, name in wanted.items():
        if name not in PRECISIONS or (role and role not in roles):
            raise InvalidRequest("precision", f"{role}={name}" if role else name, allowed)


def _named(name: str | None) -> Precision | None:
    return next((known for known in PRECISIONS if known == name), None)


def _precision_problem(pack: Pack, provider: str, asked: Asked) -> str | None:
    """Why a provider cannot run the pack in the precision asked for, in words, or None.

    Half-precision graphs on a processor must be asked for: it runs them, slower than full precision; and
    bfloat16 ones ONNX Runtime's CPU provider cannot run at all.
    """
    graphs = pack.manifest.graphs
    stored = {role: stored_precision(graph) for role, graph in graphs.items()}
    wanted = {role: precision_of(pack, role, asked) for role in graphs}
    brains = [role for role, name in stored.items() if name == "bf16"]
    if brains and provider == "cpu":
        return (
            f"{pack.name}: {', '.join(brains)} are bf16 graphs, which provider 'cpu' has no kernels for; "
            "use openvino or cuda, or export the pack in fp32"
        )
    halves = [role for role, name in stored.items() if name == "fp16" and wanted[role] is None]
    if halves and provider in CPU_PROVIDERS:
        return (
            f"{pack.name}: {', '.join(halves)} are fp16 graphs, which provider {provider!r} only emulates, "
            'slowly; use a GPU, export the pack in fp32, or insist with precision="fp16"'
            + (' (or compute in precision="bf16")' if provider == "openvino" else "")
        )
    others = [role for role, name in wanted.items() if name not in {None, stored[role]}]
    if others and provider == "cpu":
        asked_for = wanted[others[0]]
        return (
            f"{pack.name}: provider 'cpu' computes in what a graph is stored in, and {', '.join(others)} "
            f"would have to compute in {asked_for}; use provider 'openvino' where doctor says that it has "
            f"{asked_for}, or a GPU with a pack exported with --precision {asked_for}"
        )
    return None


def _left_aside(pack: Pack, provider: str) -> str | None:
    """What a result says where engines for this provider are there and were not wanted."""
    if not (pack.folder / FOLDER / "engines.json").is_file():
        return None
    return (
        f"the compiled engines of {pack.name} were left aside (engines={IGNORE!r}): "
        f"provider {provider!r} ran its plain graphs"
    )
