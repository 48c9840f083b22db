"""Chat templates in the manner of today's models, written here: each does one thing that real ones
do; and conversations for them."""

from typing import Any

_CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

# Qwen3: reasoning only behind the last question, an empty one where there is none
HISTORY_WITHOUT_REASONING = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set "
    "ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role "
    "}}\n{% if m.role == 'assistant' %}{% set answer = "
    "m.content.split('</think>')[-1].lstrip('\n') %}{% set reasoning = m.reasoning_content or "
    "m.content.split('</think>')[0].split('<think>')[-1].strip('\n') if m.reasoning_content or "
    "'</think>' in m.content else '' %}{% if loop.index0 > ns.last %}<think>\n{{ reasoning "
    "}}\n</think>\n\n{% endif %}{{ answer }}{% for call in m.tool_calls or [] %}<tool_call>{{ "
    "call.function | tojson }}</tool_call>{% endfor %}{% else %}{{ m.content }}{% endif "
    "%}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if "
    "enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% "
    "endif %}"
)
# DeepSeek-R1's distills: the finished turn has neither the tag nor the reasoning
PROMPT_OPENS_THINK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% elif "
    "m.role == 'assistant' %}<|assistant|>{{ m.content.split('</think>')[-1].strip() }}{{ "
    "eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt "
    "%}<|assistant|><think>\n{% endif %}"
)
EOS_BEHIND_THE_LAST = (  # Phi-3
    _CHATML
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
ENDED_BY_THE_NEXT_ROLE = (  # GLM-4
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}{% if "
    "add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHANNELS = (  # gpt-oss: reasoning in a channel of its own, and only behind the last question
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set "
    "ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == "
    "'assistant' %}{% if m.thinking and loop.index0 > ns.last "
    "%}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif "
    "%}<|start|>assistant<|channel|>final<|message|>{{ m.content }}{% if loop.last %}<|return|>{% "
    "else %}<|end|>{% endif %}{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% "
    "endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# Llama-2, Mistral: no generation prompt, the system turn inside the first question
INSTRUCTIONS = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}{% set "
    "rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{{ "
    "bos_token }}{% for m in rest %}{% if m.role == 'user' %}[INST] {{ (system if loop.first else "
    "'') + m.content }} [/INST]{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% "
    "endfor %}"
)
RENAMED_ROLE = (  # Gemma: the assistant is `model`, a system turn is refused
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == "
    "'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if "
    "add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MARKED = (  # TRL's training templates: the assistant's words between generation marks
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% "
    "generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content "
    "}}<|im_end|>{% endif %}\n{% endfor %}" + _ASK
)
PARTS_ALONE = (  # vision models
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type "
    "== 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + _ASK
)
# Qwen3.5 without thinking: the prompt closes an empty block that the history does not have
NO_THINKING_IN_THE_PROMPT = (
    _CHATML
    + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
EMPTY_BLOCK_OTHERWISE_SPACED = (  # GLM-4.5 without thinking: the same with other white space
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think></think>\n{% "
    "endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt "
    "%}<|assistant|>\n<think>\n</think>{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}{% if "
    "add_generation_prompt %}ASSISTANT:{% endif %}"
)
TOOLS = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}{% for "
    "m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for call in m.tool_calls "
    "or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% "
    "endfor %}" + _ASK
)

ALL = {
    "chatml": _CHATML + _ASK,
    "history without reasoning": HISTORY_WITHOUT_REASONING,
    "prompt opens think": PROMPT_OPENS_THINK,
    "eos behind the last": EOS_BEHIND_THE_LAST,
    "ended by the next role": ENDED_BY_THE_NEXT_ROLE,
    "channels": CHANNELS,
    "instructions": INSTRUCTIONS,
    "renamed role": RENAMED_ROLE,
    "marked": MARKED,
    "parts alone": PARTS_ALONE,
    "no thinking in the prompt": NO_THINKING_IN_THE_PROMPT,
    "empty block otherwise spaced": EMPTY_BLOCK_OTHERWISE_SPACED,
    "no end": NO_END,
    "tools": TOOLS,
}

SPECIAL_TOKENS = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|tool|>",
    "<|start|>",
    "<|end|>",
    "<|channel|>",
    "<|message|>",
    "<|return|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
)
EOS = "</s>"

TIDE = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "tide", "arguments": {"port": "Kobe"}},
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


TALKS: dict[str, list[dict[str, Any]]] = {
    "one answer": [user("What is 2+2?"), assistant("It is 4.")],
    "Japanese": [user("港は何色ですか。"), assistant("青です。\n以上。")],
    "two answers": [user("Say A"), assistant("A first"), user("Say B"), assistant("B second")],
    "three answers": [
        user("a"),
        assistant("one"),
        user("b"),
        assistant("two"),
        user("c"),
        assistant("three"),
    ],
    "system turn": [
        {"role": "system", "content": "Answer in French."},
        user("Yes?"),
        assistant("Oui."),
    ],
    "a question at the end": [user("hello"), assistant("hi yourself"), user("thanks")],
    "think tags": [
        user("Is 2 even?"),
        assistant("<think>\nHalve it.\n</think>\n\nYes."),
        user("And 3?"),
        assistant("<think>\nOne over.\n</think>\n\nNo."),
    ],
    "reasoning by its key": [
        user("Is 2 even?"),
        assistant("Yes.", reasoning_content="Halve it."),
        user("And 3?"),
        assistant("No.", reasoning_content="One over."),
    ],
    "first answer not trained on": [
        user("Say A"),
        assistant("B?", weight=0),
        user("No, A"),
        assistant("A then"),
    ],
}
