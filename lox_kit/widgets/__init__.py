"""Panels for JupyterLab: each answers one question and opens with one line.

from lox_kit import widgets

setting = widgets.Setting(subspace)               # shared, so that the panels move together
widgets.spectrum(subspace, setting=setting)
widgets.dial(subspace, model, setting=setting)
widgets.landscape(plane, other_model, setting=setting)
widgets.attack_lab(subspace, third_model, store=store, setting=setting)
widgets.rank(subspace, attacked={"arithmetic": run}, setting=setting)
"""

from lox_kit.widgets.panels.attack_lab.panel import attack_lab_panel
from lox_kit.widgets.panels.attack_lab.state import AttackLabState
from lox_kit.widgets.panels.dial.panel import dial_panel
from lox_kit.widgets.panels.dial.state import DialState
from lox_kit.widgets.panels.landscape.panel import landscape_panel
from lox_kit.widgets.panels.landscape.state import LandscapeState
from lox_kit.widgets.panels.rank.panel import rank_panel
from lox_kit.widgets.panels.rank.state import RankState
from lox_kit.widgets.panels.spectrum.panel import spectrum_panel
from lox_kit.widgets.panels.spectrum.state import SpectrumState

from .job import Job
from .setting import Look, Setting
from .shell import Panel

__all__ = ["DialState", "Job", "Look", "Panel", "Setting", "SpectrumState", "dial", "dial_panel"]
__all__ += ["AttackLabState", "attack_lab", "attack_lab_panel"]
__all__ += ["RankState", "rank", "rank_panel"]
__all__ += ["LandscapeState", "landscape", "landscape_panel", "spectrum", "spectrum_panel"]


def spectrum(subspace, *, setting: Setting | None = None) -> Panel:
    """Open the spectrum explorer: energy map, singular values, energy against k.

    Parameters
    ----------
    subspace : SafetySubspace
    setting : Setting, optional
        Shared with other panels.
    """
    return spectrum_panel(SpectrumState(subspace, setting))


def dial(
    subspace,
    model,
    *,
    base=None,
    with_base: bool = True,
    attacked=None,
    forbidden=None,
    allowed=None,
    judge=None,
    template: str = "chat",
    max_new_tokens: int | None = None,
    store=None,
    setting: Setting | None = None,
) -> Panel:
    """Open the LoX dial: answers of base, aligned, LoX and attacked models, and their measures.

    The panel turns the weights of `model` in place; closing it gives them back. Opening it again
    for the same model closes the one before.

    Parameters
    ----------
    subspace : SafetySubspace
    model : Model
        The aligned model, from `load_model`.
    base : Model, optional
        Default: loaded by the name the subspace knows it under, when it is first asked.
    with_base : bool
        False leaves the base out, and its memory.
    attacked : mapping of str to Model, optional
        More columns, by their titles: `{"attacked": run.load()}`.
    forbidden, allowed : sequence of Prompt, optional
        What is measured; default in the sandbox 60 development prompts of each.
    judge : str or Judge, optional
        Default "rule" in the sandbox, "keyword" elsewhere. Helpfulness is the share of allowed
        prompts that it counts as complied with; where it grades harm, as policy, llama-guard and
        classifiers do, "keyword" reads them instead (`judges.helpfulness_judge`).
    template : see `prompts.render`
    max_new_tokens : int, optional
        Default 24 in the sandbox, whose answers are short, 60 elsewhere.
    store : Store, optional
        Keeps the answers beyond the session.
    setting : Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If the model's weights are not those of the subspace's aligned checkpoint.
    """
    state = DialState(
        subspace,
        model,
        base=base,
        with_base=with_base,
        attacked=attacked,
        forbidden=forbidden,
        allowed=allowed,
        judge=judge,
        template=template,
        max_new_tokens=max_new_tokens,
        store=store,
        setting=setting,
    )
    return dial_panel(state)


def landscape(
    plane,
    model,
    *,
    metric=None,
    checkpoints=None,
    trajectories=(),
    grid=None,
    store=None,
    setting: Look | None = None,
) -> Panel:
    """Open the landscape viewer: surface, map, a cut and its cliffs, filled in coarse to fine.

    **Run** moves the weights of `model` in place, so give it a model of its own (not one under a
    dial); they are the origin's again whenever it ends. Opening it again for the same model closes
    the one before.

    Parameters
    ----------
    plane : Plane
    model : Model
        With the weights of the plane's origin, from `load_model`.
    metric : Asr or RefusalMargin, optional
        Default in the sandbox the ASR on 24 development prompts by the rule.
    checkpoints : mapping of name to Model or checkpoint, optional
        Of the plane's `points`: these are measured themselves, too.
    trajectories : sequence of Trajectory, optional
        From `trajectory.project`.
    grid : Grid, optional
        The coarse one, which is halved up to three times; default 5 x 5 around the plane's points.
    store : Store, optional
        Keeps the cells beyond the session; those that it has are not measured again.
    setting : Look or Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If the model is not the plane's origin, a checkpoint's name is not on the plane, it is no
        plane, or there is no metric and the model is not of the sandbox.
    """
    state = LandscapeState(
        plane,
        model,
        metric=metric,
        checkpoints=checkpoints,
        trajectories=trajectories,
        grid=grid,
        store=store,
        setting=setting,
    )
    return landscape_panel(state)


def attack_lab(
    subspace,
    model,
    *,
    attacks=None,
    forbidden=None,
    allowed=None,
    judge=None,
    template: str = "chat",
    max_new_tokens: int | None = None,
    store=None,
    setting: Setting | None = None,
) -> Panel:
    """Open the attack lab: one fine-tuning of the aligned model and of its LoX, seen as it goes on.

    Both are trained on the same rows in the same order, on copies, and measured on the way. A run
    that was cancelled goes on where it was, and one that the store knows is shown at once. Opening
    it again for the same model closes the one before.

    Parameters
    ----------
    subspace : SafetySubspace
    model : Model
        The aligned model, from `load_model`; not one under a dial.
    attacks : mapping of str to Attack, optional
        More attacks, by their names: `{"my data": file_attack("my.jsonl")}`. Offered besides are
        the presets in the model's language whose data are here.
    forbidden, allowed : sequence of Prompt, optional
        What is asked at every point; default in the sandbox 24 development prompts of each.
    judge : str or Judge, optional
        Default "rule" in the sandbox, "keyword" elsewhere. Helpfulness is in the sandbox the share
        of exact answers, elsewhere that of allowed prompts that the judge counts as complied with;
        where it grades harm, as policy, llama-guard and classifiers do, "keyword" reads them
        instead (`judges.helpfulness_judge`).
    template : see `prompts.render`
    max_new_tokens : int, optional
        Default 24 in the sandbox, 60 elsewhere.
    store : Store, optional
        Keeps runs beyond the session, and lists those of before. Default is a folder in
        `folders.cache_folder()` that is removed at the end; a cancelled or paused run may keep
        there what it goes on from: the weights and the optimiser's state.
    setting : Setting, optional
        Shared with other panels: its k and alpha are those of LoX.

    Raises
    ------
    ValueError
        If the model's weights are not those of the subspace's aligned checkpoint, an attack is not
        in its language, or there are no prompts or no attack's data.
    """
    state = AttackLabState(
        subspace,
        model,
        attacks=attacks,
        forbidden=forbidden,
        allowed=allowed,
        judge=judge,
        template=template,
        max_new_tokens=max_new_tokens,
        store=store,
        setting=setting,
    )
    return attack_lab_panel(state)


def rank(
    subspace,
    *,
    attacked=None,
    curve=None,
    forbidden=None,
    allowed=None,
    judge=None,
    ranks=None,
    template: str = "chat",
    max_new_tokens: int | None = None,
    store=None,
    setting: Setting | None = None,
) -> Panel:
    """Open the panel of rank and R: ASR and helpfulness against rank, R_align and R_ft by layer.

    **Run** loads base and aligned by the names the subspace knows them under, one at a time, and
    streams the attacked checkpoints; it moves nothing that another panel holds.

    Parameters
    ----------
    subspace : SafetySubspace
    attacked : mapping of str to AttackRun, path or name, optional
        Checkpoints whose R_ft is shown, by their titles.
    curve : RankCurve, optional
        Of this pair, measured elsewhere: then no model is loaded.
    forbidden, allowed : sequence of Prompt, optional
        What is measured, both or neither; default in the sandbox 120 development prompts of each.
    judge : str or Judge, optional
        Default "rule" in the sandbox, "keyword" elsewhere; see `rank_curve` for helpfulness.
    ranks : sequence of int, optional
        Default the paper's 0, 1, 2, 3, 4, 6, 8, and 16 and 32, as far as they are stored.
    template : see `prompts.render`
    max_new_tokens : int, optional
        Default 24 in the sandbox, whose answers are short, 60 elsewhere.
    store : Store, optional
        Keeps answers, rows and R beyond the session; what it has is shown at once.
    setting : Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If an attacked checkpoint does not fit the subspace or is a model in memory, only one kind
        of prompts is given, a rank is not stored, or the curve is of several pairs.
    """
    state = RankState(
        subspace,
        attacked=attacked,
        curve=curve,
        forbidden=forbidden,
        allowed=allowed,
        judge=judge,
        ranks=ranks,
        template=template,
        max_new_tokens=max_new_tokens,
        store=store,
        setting=setting,
    )
    return rank_panel(state)
