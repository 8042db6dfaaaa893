"""Adds cases to chat_templates.json: templates of our own, rendered by transformers' Jinja."""
import datetime, json, sys
import jinja2, transformers
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template
from chat_families import FAMILIES
path = sys.argv[1]
file = json.load(open(path))
for c in file["cases"]:
    if c["name"] == "conditions on what is missing":
        c["rendered"] = render_jinja_template([c["messages"]], chat_template=c["template"], add_generation_prompt=c["add_generation_prompt"], **c["tokens"])[0][0]
cases = [c for c in file["cases"] if not c["name"].startswith(("idiom: ", "family: "))]
TALK = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi a-b-c"}, {"role": "assistant", "content": "Hello\r\nthere"}, {"role": "user", "content": "What is 2+2?"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Now", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]
CALL = TALK[:2] + [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "北京", "days": 2}}}]}, {"role": "tool", "name": "weather", "content": "7.5"}]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
EACH = "{% for m in messages %}"
IDIOMS = [
 ("no tools are none", "{% if tools is not none %}T{{ tools | tojson }}{% else %}-{% endif %}" + EACH + "{{ m.content }}{% endfor %}", TALK, {}),
 ("no tools are defined", "{{ tools is defined }}{{ documents is defined }}{{ documents is none }}", TALK, {}),
 ("no tools are printed", "[{{ tools }}]", TALK, {}),
 ("tools are not none", "{% if tools is not none %}T{{ tools | tojson }}{% endif %}", TALK, {"tools": TOOLS}),
 ("tools by default", "{{ tools | default([]) | length if tools else 0 }}", TALK, {}),
 ("empty tools", "{% if tools is not none %}some{% endif %}{% if not tools %}none{% endif %}", TALK, {"tools": []}),
 ("documents are handed over", "{% for d in documents %}{{ d.title }}: {{ d.text }}\n{% endfor %}", TALK, {"documents": [{"title": "A", "text": "b"}]}),
 ("line ends of windows", "{% for m in messages %}\r\n{{ m.role }}:\r\n{{ m.content }}\r\n{% endfor %}\r\n", TALK, {}),
 ("line ends of old macs", "{{ bos_token }}\r{% for m in messages %}\r{{ m.content }}\r{% endfor %}x", TALK, {}),
 ("line ends in a literal", "{{ 'a\r\nb' + '\\r\\n' }}" + EACH + "{{ m.content | replace('\\r\\n', '|') }}{% endfor %}", TALK, {}),
 ("line ends of windows and signs", "{%- for m in messages -%}\r\n  {{- m.role }}\r\n  {%- if not loop.last %},\r\n{% endif %}\r\n{%- endfor -%}\r\n", TALK, {}),
 ("rsplit", EACH + "{{ m.content.rsplit('-', 1) | join('|') }};{{ m.content.rsplit() | join('/') }};{{ m.content.rsplit('-')[0] }}{% endfor %}", TALK, {}),
 ("rsplit by names", "{{ 'a.b.c'.rsplit(sep='.', maxsplit=1) | tojson }}{{ ' a  b '.rsplit(None, 1) | tojson }}{{ 'abc'.rsplit('x') | tojson }}", TALK, {}),
 ("the last of a split", "{{ messages[1].content.rsplit(' ', 1)[-1] }}{{ messages[1].content.split('-')[-1] }}", TALK, {}),
 ("zfill", EACH + "{{ (loop.index | string).zfill(3) }} {% endfor %}{{ '-7'.zfill(4) }}{{ '+7'.zfill(4) }}{{ '12345'.zfill(2) }}", TALK, {}),
 ("cycler", "{% set c = cycler('odd', 'even') %}" + EACH + "{{ c.next() }} {% endfor %}", TALK, {}),
 ("joiner", "{% set sep = joiner(', ') %}" + EACH + "{{ sep() }}{{ m.role }}{% endfor %}", TALK, {}),
 ("cycle of a loop", EACH + "{{ loop.cycle('a', 'b') }}{% endfor %}", TALK, {}),
 ("format as a filter", "{{ '%s has %d' | format('a', 2) }}{{ '%05.1f' | format(2.25) }}", TALK, {}),
 ("format as a method", "{{ '{} {x}'.format('a', x=3) }}{{ '{0}-{0}'.format('b') }}", TALK, {}),
 ("calls of tools", EACH + "{{ m.role }}{% if m.tool_calls is defined and m.tool_calls %}{% for t in m.tool_calls %}{{ {'name': t.function.name, 'arguments': t.function.arguments} | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %};{% endfor %}", CALL, {}),
 ("arguments one by one", EACH + "{% for t in m.tool_calls or [] %}{% for k, v in t.function.arguments | items %}<{{ k }}>{{ v if v is string else v | tojson }}</{{ k }}>{% endfor %}{% endfor %}{% endfor %}", CALL, {}),
 ("indented tools", "{{ tools | tojson(indent=4) }}{% for t in tools %}{{ t.function | tojson }}{% endfor %}", TALK, {"tools": TOOLS}),
 ("keys and values", "{% for k, v in tools[0].function.items() %}{{ k }}={{ v if v is string else v.keys() | list }};{% endfor %}", TALK, {"tools": TOOLS}),
 ("conditions in a loop", "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role[0] | upper }}{{ loop.revindex0 }}{% else %}none{% endfor %}", TALK, {}),
 ("a slice from the right", "{{ messages[-1].content[-3:] }}{{ messages[::-1][0].role }}{{ messages[1:-1] | length }}", TALK, {}),
 ("sums and tests", "{{ messages | map(attribute='role') | unique | join('+') }}{{ messages | rejectattr('role', 'equalto', 'user') | list | length }}{{ (messages | selectattr('role', 'in', ['user']) | first).content }}", TALK, {}),
 ("methods of text", "{{ ' x '.strip() }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'a\\nb'.splitlines() | join('|') }}{{ 'abcabc'.rfind('b') }}{{ 'AbC'.lower().title() }}{{ '12'.isdigit() }}", TALK, {}),
 ("numbers as python prints them", "{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 2 ** 3 }} {{ 1.0 }} {{ true }} {{ none }} {{ [1, 'a'] }}", TALK, {}),
 ("a dictionary as python prints it", "{{ {'a': 1, 'b': [true, none, 'x']} }}", TALK, {}),
 ("refused with a text made here", "{{ raise_exception('no ' ~ messages[0].role) }}", TALK, {}),
 ("variables in a namespace", "{% set ns = namespace(found=false, n=0) %}" + EACH + "{% if m.role == 'user' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.n }}", TALK, {}),
]
class Then(datetime.datetime):
    """The time of all cases."""
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 2, 3, 4, 5, 6, tzinfo=tz)
chat_template_utils.datetime = Then
IDIOMS += [
 ("splits from both ends", "{{ 'a-b-c'.split('-', 1) | join('|') }}{{ 'a b  c'.split(None, 1) | tojson }}{{ 'a=b=c'.partition('=')[2] }}{{ 'a=b=c'.rpartition('=')[0] }}{{ 'abc'.partition('x') | list }}{{ 'abc'.rpartition('x') | list }}", TALK, {}),
 ("cut and filled", "{{ 'xyaxy'.strip('xy') }}{{ 'pre-x'.removeprefix('pre-') }}{{ 'x.py'.removesuffix('.py') }}{{ 'x'.removesuffix('y') }}{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '0') }}|{{ '北京'.ljust(3, '-') }}", TALK, {}),
 ("replaced so many times", "{{ 'aaa'.replace('a', 'b', 1) }}{{ 'aaa' | replace('a', 'b', 2) }}{{ 'aaa' | replace('a', 'b') }}{{ 121 | replace('1', 'x') }}", TALK, {}),
 ("found by index", "{{ 'a北b'.index('b') }}{{ [1, 2, 3].index(2) }}{{ 'abcabc'.count('b') }}{{ 'STRASSE'.casefold() }}{{ {'a': 1}.copy() }}{{ [1].copy() }}", TALK, {}),
 ("what is a sequence", "{{ 'a' is sequence }}{{ [] is sequence }}{{ {} is sequence }}{{ 1 is sequence }}{{ none is sequence }}{{ 'a' is iterable }}{{ {} is iterable }}{{ 1 is iterable }}", TALK, {}),
 ("lists of lists", "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% for x, y in [(1, 2), (3, 4)] %}{{ x + y }}{% endfor %}{{ [[1, 2], [3]] | sum(start=[]) }}{% for r, ms in messages | groupby('role') %}{{ r }}:{{ ms | length }};{% endfor %}", TALK, {}),
 ("a loop in a loop of its own", "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}" + EACH + "{{ loop.changed(m.role) }}{{ loop.depth }}{% endfor %}", TALK, {}),
 ("a list in a namespace", "{% set ns = namespace({'a': 1}) %}{{ ns.a }}{% set ns.b = [1] %}{% set ns.b = ns.b + [2] %}{{ ns.b }}{{ ns.missing is defined }}", TALK, {}),
 ("a caller with an argument", "{% macro l(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) l([1, 2]) %}<{{ x }}>{% endcall %}", TALK, {}),
 ("json in every style", "{{ {'a': {'b': []}, 'c': {}} | tojson(indent=2) }}{{ {'b': 1, 'a': [1.5, 1e20, 1e-7, true, none]} | tojson(sort_keys=true) }}{{ {'a': 1} | tojson(separators=(',', ':')) }}", TALK, {}),
]
new = []
ALL = [("idiom: " + name, None, *rest) for name, *rest in IDIOMS]
ALL += [(f"family: {family}: {idioms}", family, *rest) for family, idioms, *rest in FAMILIES]
for name, family, template, messages, variables in ALL:
    case = {"name": name, "template": template, "messages": messages, "add_generation_prompt": True, "variables": variables, "tokens": TOKENS}
    kwargs = dict(TOKENS); kwargs.update({k: v for k, v in variables.items() if k not in ("tools", "documents")})
    try:
        out, _ = render_jinja_template([messages], tools=variables.get("tools"), documents=variables.get("documents"), chat_template=template, add_generation_prompt=True, **kwargs)
        case["rendered"] = out[0]
    except jinja2.exceptions.TemplateError as e:
        case["rendered"], case["refused"] = None, str(e)
        if "raise_exception" not in template: print("REFUSED", name, e)
    if family: case["family"] = family
    new.append(case)
file["cases"] = cases + new
json.dump(file, open(path, "w"), ensure_ascii=False, indent=1); open(path, "a").write("\n")
print(len(new), transformers.__version__, jinja2.__version__)
