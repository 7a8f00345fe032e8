"""transformers, asked with care: which class a config is of, its model without values.

No code of a checkpoint is run, nothing is printed, and what goes wrong is one line.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from .files import read_object
from .quantised import FIELDS, fields_of

INFINITE = ("time_step_limit",)  # fields of a config in which infinity has a meaning (Mamba)
_LAYERS = re.compile(r"(layers?|depths?|blocks)$")  # fields that say how many parts are made
MOST = 2000  # of them: the largest models have some 130, and a thousand take two seconds to make
loading = threading.RLock()


@contextlib.contextmanager
def transformers_for(folder: Path) -> Iterator:
    """Give the library to work on a folder with: it reports nothing, and fails in a line.

    One thread at a time: while it loads it changes classes of its own, and where two loads overlap
    it leaves them changed, so that later models have untied heads.
    """
    file = folder / "config.json"
    for field, value in fields_of(read_object(file) if file.is_file() else {}):
        if isinstance(value, int) and value > MOST and _LAYERS.search(field):
            raise ValueError(f"{file}: {field} is {value}; up to {MOST} layers are read.")
    quiet_transformers()
    import transformers
    from transformers.utils.logging import get_verbosity, set_verbosity

    with loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, about its defaults
        level = get_verbosity()
        set_verbosity(50)  # critical errors alone
        try:
            yield transformers
        except MemoryError:
            raise
        except Exception as error:  # of any kind: a config may hold anything
            said = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{folder}: transformers cannot load it ({type(error).__name__}: {said}). Is one "
                "of its config files damaged?"
            ) from error
        finally:
            set_verbosity(level)


def quiet_transformers() -> None:
    """Turn transformers' own progress bars off: ours say what is being done and for how long.

    It imports torchao where that is installed, which logs which kernels are not for this machine.
    """
    from transformers.utils.logging import disable_progress_bar

    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()


def class_and_config(library, folder: Path) -> tuple:
    """Return transformers' class for a folder, of text alone or images and text, and its config.

    A quantisation is taken out of the config: what is read here is not quantised.
    """
    config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for part in (config, config.get_text_config()):
        for field in FIELDS:
            part.__dict__.pop(field, None)
    for auto in (library.AutoModelForCausalLM, library.AutoModelForImageTextToText):
        made = auto._model_mapping.get(type(config), None)
        if made is not None and made.config_class is type(config):  # not of its text alone
            return made, config
    raise ValueError(f"{config.model_type} is no language model, or one for other tasks")


def skeleton(folder: Path) -> torch.nn.Module:
    """Return the model of a folder's config.json, all its parameters without values.

    Raises
    ------
    ValueError
        If transformers does not know the architecture.
    ImportError
        Without transformers.
    """
    with transformers_for(folder) as library:
        made, config = class_and_config(library, folder)
        with torch.device("meta"):
            return made._from_config(
                config, attn_implementation="eager", dtype=torch.get_default_dtype()
            )


def refuse_code(folder: Path) -> None:
    """Raise if a config asks for code, other weight files, or a number that is none.

    Left to itself, transformers asks on standard input whether to run code.
    """
    if other := sorted(folder.glob("shard-*-model-*.safetensors")):
        raise ValueError(f"{other[0]}: of a distributed save, which is not read; save it as one.")
    for file in sorted(f for f in folder.glob("*config.json") if f.is_file()):
        for field, value in fields_of(read_object(file)):
            kernel = field.endswith("_implementation") and "/" in str(value)
            if kernel or (field in ("auto_map", "transformers_weights") and value):
                raise ValueError(
                    f"{file}: {field} names code or weights of its own ({str(value)[:80]}), and "
                    "neither is loaded. If transformers knows this architecture by itself, take "
                    "the field out in a copy."
                )
            if isinstance(value, float) and not math.isfinite(value) and field not in INFINITE:
                raise ValueError(f"{file}: {field} is {value}, which is no number to compute with.")
