"""Systems of language-model agents: run, blame, improve; what ten lines of Python need, by short paths.

from framework.gbc import CallableModel, agent, attribute, graph_of, run_graph
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framework.gbc.attribution.attribute import attribute as attribute
    from framework.gbc.attribution.culprits.diagnosis import diagnose as diagnose
    from framework.gbc.attribution.options import AttributionOptions as AttributionOptions
    from framework.gbc.attribution.results import Attribution as Attribution
    from framework.gbc.attribution.results import Attributions as Attributions
    from framework.gbc.execution.runner import RunOptions as RunOptions
    from framework.gbc.execution.runner import run_graph as run_graph
    from framework.gbc.graph.functions import agent as agent
    from framework.gbc.graph.functions import graph_of as graph_of
    from framework.gbc.graph.spec import Agent as Agent
    from framework.gbc.graph.spec import Graph as Graph
    from framework.gbc.graph.spec import Tool as Tool
    from framework.gbc.graph.spec import UserTurn as UserTurn
    from framework.gbc.graph.spec import load_graph as load_graph
    from framework.gbc.graph.spec import save_graph as save_graph
    from framework.gbc.graph.trace import read_traces as read_traces
    from framework.gbc.graph.trace import write_traces as write_traces
    from framework.gbc.graph.verbal_loss import VerbalLoss as VerbalLoss
    from framework.gbc.graph.verbal_loss import exact_match as exact_match
    from framework.gbc.graph.verbal_loss import slot_loss as slot_loss
    from framework.gbc.language_models.callables.client import ClientModel as ClientModel
    from framework.gbc.language_models.callables.function import CallableModel as CallableModel
    from framework.gbc.language_models.local import LocalModel as LocalModel
    from framework.gbc.language_models.local import LocalModelConfig as LocalModelConfig
    from framework.gbc.language_models.server import ServerModel as ServerModel
    from framework.gbc.language_models.server import ServerModelConfig as ServerModelConfig
    from framework.gbc.prompt_search.search import optimize as optimize

_MODULES = {
    "attribution.attribute": ("attribute",),
    "attribution.culprits.diagnosis": ("diagnose",),
    "attribution.options": ("AttributionOptions",),
    "attribution.results": ("Attribution", "Attributions"),
    "execution.runner": ("RunOptions", "run_graph"),
    "graph.functions": ("agent", "graph_of"),
    "graph.spec": ("Agent", "Graph", "Tool", "UserTurn", "load_graph", "save_graph"),
    "graph.trace": ("read_traces", "write_traces"),
    "graph.verbal_loss": ("VerbalLoss", "exact_match", "slot_loss"),
    "language_models.callables.client": ("ClientModel",),
    "language_models.callables.function": ("CallableModel",),
    "language_models.local": ("LocalModel", "LocalModelConfig"),
    "language_models.server": ("ServerModel", "ServerModelConfig"),
    "prompt_search.search": ("optimize",),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    # At their first use: commands that need no language model do not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
