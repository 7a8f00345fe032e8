"""Measure points of a plane: read from the store, or measured here or on an executor.

Only this process writes the store, each point as soon as it is measured.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from functools import cached_property, partial
from pathlib import Path

from lox_kit.models import Model, dtype_of, load_model
from lox_kit.store import MemoryStore, Store, content_key
from lox_kit.threads import Name, Stop, as_finished
from lox_kit.weights import Checkpoint

from .flat import Flat, Walk, check_origin, point_key
from .metrics import Metric, Probe, Reading


class Survey(contextlib.ExitStack):
    """Points of one plane or line under one metric; a context manager.

    Parameters
    ----------
    flat, metric, model : see `landscape.evaluate`
    store : Store, optional
    executor : concurrent.futures.Executor, optional
        Its workers load the plane and the model from disk, once each.
    keep_on : "device" or "cpu"
        See `Walk`.
    """

    def __init__(
        self,
        flat: Flat,
        metric: Metric,
        model: Model,
        *,
        store: Store | None = None,
        executor: Executor | None = None,
        keep_on: str = "device",
    ):
        super().__init__()
        check_origin(model, flat)
        self.probe = metric.prepare(model)
        self.flat, self.metric, self.model = flat, metric, model
        self.store, self.executor = store or MemoryStore(), executor
        self._dtype, self.keep_on = dtype_of(model), keep_on

    def measure(
        self, points: Mapping[Name, tuple[float, ...]], stop: Stop
    ) -> Iterator[tuple[Name, Reading]]:
        """Yield name and reading of each point as it is measured.

        Stored points come first; once `stop()` is true no new point is started. The model has the
        origin's weights again when this ends or is closed.
        """
        keys = {n: self._key(point_key(self.flat, at), self._dtype) for n, at in points.items()}
        known = self.store.get_many("cell", keys.values(), dict)
        for name, key in keys.items():
            if key in known:
                yield name, self.metric.read(known[key], self.store)
        missing = {name: at for name, at in points.items() if keys[name] not in known}
        if missing:
            with (
                self._measuring() as measuring,
                contextlib.closing(as_finished(measuring, missing, self.executor, stop)) as records,
            ):
                for name, record in records:
                    yield name, self._keep(keys[name], record)

    def measure_model(self, model: Model | str | Path) -> Reading:
        """Return the reading of another model, such as a checkpoint that a point stands for.

        Where an accelerator is to hold one model at a time, the resident one leaves it meanwhile.
        """
        if not isinstance(model, Model):
            resident, device = self.model.module, self.model.device
            waits = self.keep_on == "cpu" and not hasattr(resident, "hf_device_map")  # on several
            if waits:
                resident.to("cpu")
            try:
                return self.measure_model(load_model(model, device=str(device)))
            finally:
                if waits:
                    resident.to(device)
        key = self._key(model.key, dtype_of(model))
        record = self.store.get("cell", key, dict)
        if record is None:
            return self._keep(key, self.probe.run(model))
        return self.metric.read(record, self.store)

    # --- the store ----------------------------------------------------------------------------

    def _key(self, model_key: str, dtype: str) -> str:
        return content_key(point=model_key, probe=self.probe.key, dtype=dtype)

    def _keep(self, key: str, record: dict) -> Reading:
        """Store a record and return its reading."""
        self.store.put("cell", key, record)
        return self.metric.read(record, self.store)

    # --- the work -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[Callable[[tuple[float, ...]], dict]]:
        """Give what measures one point: a worker, or the resident model on a walk."""
        if self.executor is not None:
            yield self._work
            return
        with Walk(self.model, self.flat, self.keep_on) as walk:
            yield lambda at: self.probe.run(walk.go(at))

    @cached_property
    def _work(self) -> Callable[[tuple[float, ...]], dict]:
        """What workers call; the plane is written to disk for them, and a model in memory.

        In the store's folder, which workers on other machines see too; removed with this survey.
        """
        above = getattr(self.store, "folder", None)
        made = tempfile.TemporaryDirectory(prefix="landscape-", dir=above)
        folder = Path(self.enter_context(made))
        file = self.flat.save(folder / "flat.safetensors").absolute()
        checkpoint = _on_disk(self.model, folder).absolute()
        loaded = {"device": str(self.model.device), "dtype": self._dtype}
        return partial(work, str(file), str(checkpoint), loaded, self.keep_on, self.probe)


def _on_disk(model: Model, folder: Path) -> Path:
    """Return a checkpoint of the model: the one it was loaded from, or one written to `folder`."""
    with contextlib.suppress(OSError, ValueError):
        checkpoint = Checkpoint(model.name)
        if checkpoint.fingerprint == model.key:
            return checkpoint.path
    model.refuse_writing()
    path = folder / "origin"
    model.module.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


# --- in a worker ------------------------------------------------------------------------------

_PLACE = threading.local()  # of each worker, process or thread: the walk it is on


def work(
    file: str, checkpoint: str, loaded: Mapping, keep_on: str, probe: Probe, at: tuple[float, ...]
) -> dict:
    """Measure one point; the plane and the model stay in memory for the next one.

    Parameters
    ----------
    file : str
        Of the plane; each survey has a file of its own.
    loaded : mapping
        Device and dtype, as `load_model` takes them.
    keep_on : "device" or "cpu"
        Where the directions are, and what `Walk` keeps.
    """
    if getattr(_PLACE, "file", None) != file:
        _PLACE.file = None
        _PLACE.walk = None  # gone before the next model comes
        model, flat = load_model(checkpoint, **loaded), Flat.load(file)
        model.key = flat.origin_key
        flat = flat.to("cpu" if keep_on == "cpu" else loaded["device"])
        _PLACE.walk, _PLACE.file = Walk(model, flat, keep_on), file
    return probe.run(_PLACE.walk.go(at))
