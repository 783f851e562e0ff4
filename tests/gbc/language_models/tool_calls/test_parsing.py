"""Calls of tools in each form that models write, thoughts that are no calls, and what cannot be understood."""

import json

import pytest

from framework.core.errors import DataError
from framework.gbc.language_models.tool_calls.parsing import CalledTool, call_of, parse_tool_calls
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts

A = CalledTool(name="a", arguments={"x": 1})
B = CalledTool(name="b", arguments={})
HERMES = '<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>'
OPENAI = {"id": "1", "type": "function", "function": {"name": "a", "arguments": '{"x": 1}'}}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "a", "arguments": {"x": 1}}', (A,)),
        ('{"name": "a", "parameters": {"x": 1}}', (A,)),
        ('{"type": "function", "name": "a", "parameters": {"x": 1}}', (A,)),
        ('{"name": "a", "input": {"x": 1}}', (A,)),
        ('{"name": "a", "arguments": {"x": 1}, "parameters": {"x": 1}}', (A,)),
        ('{"name": "a", "arguments": "{\\"x\\": 1}"}', (A,)),
        ('{"name": "b"}', (B,)),
        ('{"name": "b", "arguments": null}', (B,)),
        ('{"name": "b", "arguments": ""}', (B,)),
        ('{"name": "a", "parameters": {"x": 1}}; {"name": "b"}', (A, B)),
        ('{"name": "a", "parameters": {"x": 1}}\n{"name": "b"}', (A, B)),
        ('[{"name": "a", "arguments": {"x": 1}}, {"name": "b"}]', (A, B)),
        (
            json.dumps({"role": "assistant", "content": None, "tool_calls": [OPENAI, {"function": {"name": "b"}}]}),
            (A, B),
        ),
        (json.dumps(OPENAI), (A,)),
        ('```json\n{"name": "a", "arguments": {"x": 1}}\n```', (A,)),
        ('```\n{"name": "a", "arguments": {"x": 1}}\n```\n```json\n{"name": "b"}```', (A, B)),
        (HERMES, (A,)),
        (f'I will look.\n{HERMES}\n<tool_call>{{"name": "b"}}</tool_call>', (A, B)),
        (HERMES.replace("</tool_call>", ""), (A,)),
        ('<tool_call>{"name": "a", "arguments": {"x": 1}}\n{"name": "b"}</tool_call>', (A, B)),
        ('<tool_call>{"name": "b"}<tool_call>{"name": "b"}</tool_call>', (B, B)),
        ('<function=a>{"x": 1}</function>', (A,)),
        ('<|python_tag|>{"name": "a", "parameters": {"x": 1}}', (A,)),
        ('[TOOL_CALLS] [{"name": "a", "arguments": {"x": 1}}]', (A,)),
        (f"<think>Or <tool_call>f</tool_call>?</think>{HERMES}", (A,)),
        (f"Or <tool_call>f</tool_call>? </think>\n{HERMES}", (A,)),
        ('<think>hm</think>\n{"name": "b"}', (B,)),
        # As Command-R, Granite and Phi, Jamba and Hunyuan, InternLM are trained.
        ('Action: ```json\n[{"tool_name": "a", "parameters": {"x": 1}}]\n```', (A,)),
        ('<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "a", "parameters": {"x": 1}}]<|END_ACTION|>', (A,)),
        ('<|tool_call|>[{"name": "a", "arguments": {"x": 1}}]', (A,)),
        ('<|tool_call|>[{"name": "a", "arguments": {"x": 1}}]<|/tool_call|><|end|>', (A,)),
        ('functools[{"name": "a", "arguments": {"x": 1}}]', (A,)),
        ('<tool_calls>[{"name": "a", "arguments": {"x": 1}}, {"name": "b"}]</tool_calls>', (A, B)),
        ('<|action_start|><|plugin|>\n{"name": "a", "parameters": {"x": 1}}<|action_end|>', (A,)),
        # Mistral, whose marks a tokenizer may leave out; DeepSeek; Kimi; gpt-oss.
        ('[TOOL_CALLS]a[ARGS]{"x": 1}[TOOL_CALLS]b[CALL_ID]123[ARGS]{}', (A, B)),
        ('[TOOL_CALLS]a{"x": 1}', (A,)),
        ('a{"x": 1}', (A,)),
        (
            "Look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>a\n"
            '```json\n{"x": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
            (A,),
        ),
        (
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>a<｜tool▁sep｜>{"x": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            (A,),
        ),
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.a:0<|tool_call_argument_begin|>"
            '{"x": 1}<|tool_call_end|><|tool_calls_section_end|>',
            (A,),
        ),
        (
            "<|channel|>analysis<|message|>[b()]<|end|><|start|>assistant<|channel|>commentary to=functions.a "
            '<|constrain|>json<|message|>{"x": 1}<|call|>',
            (A,),
        ),
        # As Python writes them: Llama 3.2 and 4, Gemma, Llama's own tools; and ReAct.
        ("[a(x=1), b()]", (A, B)),
        ("<|python_start|>[a(x=1)]<|python_end|>", (A,)),
        ("```tool_code\na(x=1)\n```", (A,)),
        ("<|python_tag|>a.call(x=1)", (A,)),
        ('Thought: hm\nAction: a\nAction Input: {"x": 1}', (A,)),
        ("a(x=1)", (A,)),
        # gpt-oss with the tool before the channel; what else is written instead of the marks that a model was taught.
        (
            '<|start|>assistant to=functions.a<|channel|>commentary <|constrain|>json<|message|>{"x": 1}<|call|>',
            (A,),
        ),
        (
            '<|channel|>commentary<|message|>I do.<|end|> to=a<|channel|>analysis json<|message|>{"x": 1}',
            (A,),
        ),
        (
            '<|tool▁calls▁begin|><|tool▁call▁begin|>function<|tool▁sep|>a\n```json\n{"x": 1}\n```<|tool▁call▁end|>',
            (A,),
        ),
        ('<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "a", "parameters": {"x": 1}}<|eot_id|>', (A,)),
        # Nemotron; Glaive; LFM2; Olmo 3; Qwen-Agent.
        ('<TOOLCALL>[{"name": "a", "arguments": {"x": 1}}, {"name": "b"}]</TOOLCALL>', (A, B)),
        ('<function_call>{"name": "a", "arguments": {"x": 1}}</function_call>', (A,)),
        ("<|tool_call_start|>[a(x=1), b()]<|tool_call_end|>", (A, B)),
        ("<function_calls>\na(x=1)\nb()\n</function_calls>", (A, B)),
        ("<tool_code>a(x=1)</tool_code>", (A,)),
        ('✿FUNCTION✿: a\n✿ARGS✿: {"x": 1}', (A,)),
        ('{"function_call": {"name": "a", "arguments": "{\\"x\\": 1}"}}', (A,)),
        ('{"name": "a", "parameters": {"x": 1}}<|eot_id|>', (A,)),
        ('\ufeff{"name": "b"}', (B,)),
        ('<tool_call>{"name": "a", "arguments": {"x": "</think>"}}</tool_call>', None),
        ('{"name": "a", "arguments": {"x": "<think>b</think> <tool_call>"}}', None),
    ],
)
def test_calls(text: str, calls: tuple[CalledTool, ...] | None):
    found = parse_tool_calls(text)
    if calls is None:
        # Marks in the text of an argument belong to it.
        ((name, value),) = found[0].arguments.items()
        assert (found[0].name, name) == ("a", "x")
        assert value in text
    else:
        assert found == calls


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello.", "Hello."),
        ("", ""),
        ("[Note] Hello.", "[Note] Hello."),
        ("```python\nf(1)\n```", "```python\nf(1)\n```"),
        (f"<think>{HERMES}</think> Hello.", "Hello."),
        (f"{HERMES} no.</think>Hello.", "Hello."),
        (f"<thinking>{HERMES}</thinking> Hello. <think>b</think> Bye.", "Hello.  Bye."),
        (f"Hello.<think>{HERMES}", "Hello."),
        (f"<think>{HERMES}", ""),
        (f"<THINK>{HERMES}</THINK>Hello.", "Hello."),
        (f"<reasoning>{HERMES}</reasoning>Hello.", "Hello."),
        (f"[THINK]{HERMES}[/THINK]Hello.", "Hello."),
        (f"<seed:think>{HERMES}</seed:think>Hello.", "Hello."),
        (f"<think>a<think>b</think>{HERMES}</think>Hello.", "Hello."),
        ("See [the page](http://localhost).", "See [the page](http://localhost)."),
        ('It is {"a": 1}.', 'It is {"a": 1}.'),
        ("[1, 2]", "[1, 2]"),
        ("Call a(x=1).", "Call a(x=1)."),
    ],
)
def test_what_is_no_call(text: str, said: str):
    assert parse_tool_calls(text) == ()
    assert without_thoughts(text) == said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "a", "arguments": ', "not JSON"),
        ('{"name": "a", "x": 1}', "unknown x"),
        ('{"function": {"name": "a"}, "x": 1}', "unknown x"),
        ('{"tool": "a"}', "no name"),
        ('{"name": "a", "arguments": [1]}', "arguments are no object"),
        ('{"name": "a", "arguments": "x"}', "not JSON"),
        ('{"name": "a", "arguments": {}, "parameters": {"x": 1}}', "arguments and parameters differ"),
        ('{"name": "a", "name": "b"}', "two values of 'name'"),
        ('{"name": "a", "arguments": {"x": "\\ud83d"}}', "half of a character"),
        ('{"name": "a"} Thank you.', "text beside it"),
        ("<tool_call>f(1)</tool_call>", "not JSON up to </tool_call>"),
        ('<tool_call>{"name": "a"} and f(1)</tool_call>', "not JSON up to </tool_call>"),
        ("<tool_call></tool_call>", "no call in it"),
        ("<tool_call><function=a><parameter=x>1</parameter></function></tool_call>", "have no types"),
        ("<function=a></function>", "not one object of arguments"),
        ("<|python_tag|>f(1)", "an argument without a name"),
        ("<tool_call>a\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>", "have no types"),
        ('<invoke name="a"><parameter name="x">1</parameter></invoke>', "have no types"),
        ('[a(x=1, y="tw', "not a call of Python's"),
        ("[a(1)]", "an argument without a name"),
        ('<functioncall> {"name": "a", "arguments": \'{}\'} </functioncall>', "not JSON"),
        ("<function_calls>\nx = a(y=1)\n</function_calls>", "not a call of Python's"),
        ('<｜DSML｜function_calls><｜DSML｜invoke name="a">', "have no types"),
        ("<start_function_call>call:a{x:1}<end_function_call>", "have no types"),
        ("<|channel|>analysis to=python code<|message|>print(1)<|call|>", "have no types"),
        ("<|start|>assistant to=functions.a<|channel|>commentary code<|message|>x", "have no types"),
        ('<|tools_prefix|>[{"a": {"x": 1}}]<|tools_suffix|>', "have no types"),
        ("[a(x=open('f'))]", "is not a value of JSON"),
        ("[a(x=1), 2]", "not a call of Python's"),
        ("[a(**b)]", "arguments with"),
        ('{"name": "a", "tool_name": "b"}', "two names"),
        ('{"name": "a", "arguments": {"x": NaN}}', "not JSON compliant"),
        ('I call it: {"name": "a", "arguments": {"x": 1}}', "text beside it"),
        ('So:\n```json\n{"name": "a", "arguments": {"x": 1}}\n```', "text beside it"),
        ('<｜tool▁call▁begin｜>a<｜tool▁sep｜>{"x": 1', "not JSON"),
        ('{"tool_calls": []}', "no call in it"),
        (f'{HERMES}<tool_call>{{"name"</tool_call>', "not JSON"),
    ],
)
def test_what_cannot_be_understood(text: str, words: str):
    with pytest.raises(DataError, match=f"malformed tool call .*{words}"):
        parse_tool_calls(text)


def test_a_call_must_be_an_object():
    with pytest.raises(ValueError, match="not an object"):
        call_of(["a"])
