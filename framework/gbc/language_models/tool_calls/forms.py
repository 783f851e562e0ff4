"""The forms in which models are trained to call tools, by the mark that each begins with."""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way to call tools.

    Attributes:
        begin: its mark; with a group `name` it names the tool, and the arguments alone follow.
        end: the mark behind it, which an answer that was cut off lacks; empty if there is none.
        holds: JSON; calls as Python writes them; nothing, for marks that only stand around others; or values without
            types, which only the schema of the tool tells.
    """

    begin: re.Pattern[str]
    end: str = ""
    holds: Literal["json", "python", "nothing", "untyped"] = "json"


def _form(begin: str, end: str = "", holds: Literal["json", "python", "nothing", "untyped"] = "json") -> Form:
    return Form(begin=re.compile(begin), end=end, holds=holds)


_NAME = r"(?P<name>[A-Za-z_][\w.-]*)"
_BAR = "[｜|]"
_JSON = r"(?:(?:<\|constrain\|>)?json)?\s*"
_AHEAD = r"\s*(?=[{\[]|$)"
FORMS = (
    # Values without types: Qwen3-Coder, GLM 4.5, MiniMax and Claude's older form, DeepSeek V3.2, Step-3, FunctionGemma,
    # Apertus. Before the forms that begin likewise.
    _form(r"(?:<tool_call>\s*)?<function=[^>\s]+>\s*<parameter=", holds="untyped"),
    _form(r"<tool_call>\s*[\w.-]+\s*<arg_key>", holds="untyped"),
    _form(r"<invoke name=|<｜DSML｜|<steptml:|<start_function_call>|<\|tools_prefix\|>", holds="untyped"),
    # Hermes, Qwen; Jamba, Hunyuan; Granite, Phi-4; Command-R7B and A; InternLM.
    _form("<tool_call>", "</tool_call>"),
    _form("<tool_calls>", "</tool_calls>"),
    _form(r"<\|tool_call\|>", "<|/tool_call|>"),
    _form(r"<\|START_ACTION\|>", "<|END_ACTION|>"),
    _form(r"<\|action_start\|>\s*<\|plugin\|>", "<|action_end|>"),
    # Nemotron; Glaive; LFM2; Olmo 3; Qwen-Agent.
    _form("<TOOLCALL>", "</TOOLCALL>"),
    _form("<functioncall>", "</functioncall>"),
    _form("<function_call>", "</function_call>"),
    _form(r"<\|tool_call_start\|>", "<|tool_call_end|>", "python"),
    _form("<function_calls>", "</function_calls>", "python"),
    _form("<tool_code>", "</tool_code>", "python"),
    _form(rf"✿FUNCTION✿:\s*{_NAME}\s*✿ARGS✿:"),
    # Llama 3 and 4.
    _form(r"<function=(?P<name>[^>\s]+)>", "</function>"),
    _form(r"<\|python_tag\|>(?=\s*[A-Za-z_][\w.]*\()", holds="python"),
    _form(r"<\|python_tag\|>"),
    _form(r"<\|python_start\|>", "<|python_end|>", "python"),
    # Mistral, up to its tokenizer 7, and from 11 on.
    _form(rf"\[TOOL_CALLS\]\s*{_NAME}\s*(?:\[CALL_ID\]\w*\s*)?(?:\[ARGS\])?{_AHEAD}"),
    _form(r"\[TOOL_CALLS\]"),
    # DeepSeek V3 and R1, V3.1.
    _form(rf"<{_BAR}tool▁call▁begin{_BAR}>function<{_BAR}tool▁sep{_BAR}>{_NAME}\s*```json", "```"),
    _form(rf"<｜tool▁call▁begin｜>{_NAME}<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    _form(rf"<\|tool▁call▁begin\|>{_NAME}<\|tool▁sep\|>", "<|tool▁call▁end|>"),
    # Kimi K2; gpt-oss.
    _form(
        rf"<\|tool_call_begin\|>\s*(?:functions\.)?{_NAME}(?::\d+)?\s*<\|tool_call_argument_begin\|>",
        "<|tool_call_end|>",
    ),
    _form(
        rf"<\|channel\|>(?:commentary|analysis) to=(?:functions\.)?{_NAME}\s*{_JSON}<\|message\|>",
        "<|call|>",
    ),
    _form(
        rf"(?:<\|start\|>assistant)?\s*\bto=(?:functions\.)?{_NAME}\s*<\|channel\|>(?:commentary|analysis)\s*{_JSON}<\|message\|>",
        "<|call|>",
    ),
    _form(
        r"(?:<\|start\|>assistant)?\s*\bto=[^<\s]+[^<]*<\|(?:channel|message)\|>|<\|channel\|>\w+ to=", holds="untyped"
    ),
    # Phi-4-mini and Firefunction; Command-R and R+; ReAct; Gemma.
    _form(r"\bfunctools(?=\[)"),
    _form(r"(?m:^)Action:\s*```json", "```"),
    _form(rf"(?m:^)Action:[ \t]*{_NAME}[ \t]*\nAction Input:"),
    _form("```tool_code", "```", "python"),
    # What stands around them, begins an answer or ends it.
    _form(rf"<{_BAR}(?:tool▁calls▁(?:begin|end)|tool▁call▁end|end▁of▁sentence){_BAR}>", holds="nothing"),
    _form(r"<\|tool_calls_section_(?:begin|end)\|>", holds="nothing"),
    _form(r"<\|(?:START|END)_RESPONSE\|>|<\|END_OF_TURN_TOKEN\|>", holds="nothing"),
    _form(r"<\|start_header_id\|>assistant<\|end_header_id\|>", holds="nothing"),
    _form(r"<\|start\|>assistant|<\|channel\|>(?:final|commentary)<\|message\|>", holds="nothing"),
    _form(r"(?:<\|(?:eot_id|eom_id|eot|im_end|end|return|endoftext)\|>|</s>|<end_of_turn>)\s*\Z", holds="nothing"),
    # Any other beginning of one that is known.
    _form(
        rf"<\|tool_call_begin\|>|<{_BAR}tool▁call▁begin{_BAR}>|<｜tool_call_begin｜>|<\|action_start\|>",
        holds="untyped",
    ),
)
"""Of two that begin at the same place the first counts."""


def form_at(text: str, place: int) -> tuple[Form, re.Match[str]] | None:
    """The next form in a text from a place on; None if there is none."""
    found = [(form, begin) for form in FORMS if (begin := form.begin.search(text, place))]
    return min(found, key=lambda each: each[1].start(), default=None)
