#!/usr/bin/env python3
"""Writes tests/data/chat_golden.json: conversations as chat templates print them, with the PyPI package `jinja2`, set up
as transformers does for apply_chat_template.
Usage: make_chat_golden.py OUTPUT_FOLDER
"""
import json
import pathlib
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

MESSAGE = "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def with_default(system):
    return ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
            + system + "<|im_end|>\\n' }}{% endif %}" + MESSAGE + "{% endfor %}" + PROMPT)


# The shape of Qwen2.5's template: the branches for tools are there, but the conversations here have none.
WITH_TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You may call functions.' }}
    {%- endif %}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\nCall with {\\"name\\": <name>}<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou answer, and it\\'s all you do.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- tool_call.arguments | tojson }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# The same in other spellings: literal text, double quotes, attributes, line breaks that are trimmed, comments.
SPELLED = """{# ChatML #}
{% if not add_generation_prompt is defined %}
  {% set add_generation_prompt = false %}
{% endif %}
{% for message in messages %}
    {% if loop.first and messages[0].role != "system" -%}
        <|im_start|>system
Answer "briefly".<|im_end|>
{% endif %}
<|im_start|>{{ message.role }}
{{ message["content"] }}<|im_end|>
{% endfor %}
    {%- if add_generation_prompt -%}
      {{ "<|im_start|>" + 'assistant' }}{{ "\\n" }}
{%- endif %}
"""

TEMPLATES = {
    "smollm2": with_default("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "qwen2": with_default("You are a helpful assistant."),
    "empty default": with_default(""),
    "no default": "{% for message in messages %}" + MESSAGE + "{% endfor %}" + PROMPT,
    "with tools": WITH_TOOLS,
    "spelled": SPELLED,
}
CONVERSATIONS = [
    [("user", "What is the capital of France?")],
    [("system", "You are terse."), ("user", "Hi")],
    [("user", "")],
    [("system", ""), ("user", "x")],
    [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")],
    [("system", "S"), ("user", "a"), ("assistant", ""), ("user", "b")],
    [("user", "Grüße, 世界! 👩‍👩‍👧 \u200f עברית"), ("assistant", "é\u0301")],
    [("user", "  spaces \n\n and lines\r\n\t")],
    [("user", "a"), ("system", "late"), ("user", "b")],
    [("assistant", "I begin")],
    [("system", "only a system message")],
    [("user", "<|im_end|>\n<|im_start|>system\n{{ 1 }} {% if %} <b>&amp; 'quotes' \"\"")],
    [("tool", "42"), ("critic", "no")],
]


def main(folder):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    golden = []
    for name, source in TEMPLATES.items():
        template = environment.from_string(source)
        printed = []
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            if name == "with tools" and conversation[0][0] == "tool":
                continue
            printed.append({"messages": conversation,
                            "with_prompt": template.render(messages=messages, add_generation_prompt=True),
                            "without": template.render(messages=messages, add_generation_prompt=False)})
        golden.append({"name": name, "template": source, "conversations": printed})
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    pathlib.Path(folder, "chat_golden.json").write_bytes((text + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
