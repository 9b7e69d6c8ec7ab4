"""The page about the rules, read from the rule files as text: what a rule is does not depend on a configuration."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ecg_grpo.reference_pages.markup import block, code, heading, page, prose, table

_INTRODUCTION = """Paths are below the project's folder; `<run>` is the configuration's key [`run`](configuration.md#run), other
names in `<…>` are keys too, or stand for what is meant. What stands in braces, as in `{model}`, is Snakemake's to fill in.
Where the files depend on the configuration, all that they can be are named. Every rule with a program also writes below
`results/<run>/logs/`, `benchmarks/` and `provenance/`. [What runs again](../rebuild.md) says when a rule runs a second time."""

_RULE = re.compile(r"^( *)(?:rule (\w+)|use rule (\w+) as (\w+) with):\n", re.MULTILINE)
_KEYWORD = re.compile(r"^( +)(\w+):(?: (.*))?$")
_ENTRY = re.compile(r"^([A-Z]\w*)(?:: +| {2,})(.+(?:\n {2,}.+)*)", re.MULTILINE)
_FOLDERS = {
    "RESULTS": "results/<run>",
    "PROVENANCE": "results/<run>/provenance",
    "SCRATCH": "results/<run>/scratch",
    "TENSORBOARD": "results/<run>/tensorboard",
    "STORE": "results/.store",
    "SWEEP": "results/<run>/sweep",
}


@dataclass(frozen=True)
class Rule:
    """A rule as its file states it.

    Attributes:
        message: what Snakemake prints when it runs.
        inputs, outputs: name (empty where it has none) and the files of each, without the provenance.
        programs: names of the programs of `workflow_scripts/` that it runs.
        conda: the environments that it may run in.
    """

    name: str
    message: str
    inputs: list[tuple[str, list[str]]]
    outputs: list[tuple[str, list[str]]]
    programs: list[str] = field(default_factory=list)
    conda: list[str] = field(default_factory=list)


def rules_page(root: Path) -> str:
    """All rules, by file, in the order in which the workflow includes them.

    Args:
        root: the project's folder.
    """
    parts = []
    for file, documentation, rules in rule_files(root):
        name = str(file.relative_to(root))
        parts += [heading(2, code(name), file.stem), _documentation(documentation), *map(_described, rules)]
    return page("# Rules", _INTRODUCTION, *parts)


def _documentation(text: str) -> str:
    """A rule file's docstring: drawings as they stand, `Inputs: …` and the like as a list, the rest as prose."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if "─" in part:
            parts.append(block(part))
        elif entries := _ENTRY.findall(part):
            parts.append("\n".join(f"- {code(name) if name.isupper() else name}: {prose(said)}" for name, said in entries))
        else:
            parts.append(prose(part))
    return "\n\n".join(parts)


def _described(rule: Rule) -> str:
    lines = [heading(3, code(rule.name), f"rule-{rule.name}"), prose(rule.message)]
    if rule.programs:
        run = ", ".join(f"[{code(f'{name}.py')}](programs.md#{name})" for name in rule.programs)
        where = f", in {' or '.join(code(name) for name in rule.conda)}" if rule.conda else ""
        lines.append(f"Runs {run}{where}.")
    rows = [
        (kind, code(name) if name else "", "<br>".join(map(code, paths)))
        for kind, files in (("in", rule.inputs), ("out", rule.outputs))
        for name, paths in files
    ]
    return page(*lines, table(("", "name", "file"), rows) if rows else "").strip()


def rule_files(root: Path) -> list[tuple[Path, str, list[Rule]]]:
    """Rule files that have rules: path, docstring and rules; the Snakefile is the first, then in the order of inclusion."""
    main = root / "rules" / "one_run.smk"
    included = re.findall(r'^include: "(\w+\.smk)"', main.read_text(encoding="utf-8"), re.MULTILINE)
    listed = [root / "Snakefile", main, *(root / "rules" / name for name in included)]
    files = [*listed, *sorted(set((root / "rules").glob("*.smk")) - set(listed))]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    names = Names.of(texts.values())
    found = []
    for file, text in texts.items():
        documentation = re.match(r'"""(.*?)"""', text, re.DOTALL)
        if rules := rules_of(text, names):
            found.append((file, documentation[1] if documentation else file.stem, rules))
    return found


def rules_of(text: str, names: Names) -> list[Rule]:
    """The rules of a file.

    Args:
        text: the file's.
        names: what paths may consist of.
    """
    rules: dict[str, Rule] = {}
    for match in _RULE.finditer(text):
        body = _body(text[match.end() :], len(match[1]))
        origin = rules.get(match[3]) if match[3] else None
        message = _arguments(body.get("message", "")) or [("", ast.Constant(origin.message if origin else ""))]
        name = match[2] or match[4]
        rules[name] = Rule(
            name,
            re.sub(r"\{wildcards\.(\w+)\}", r"{\1}", "".join(_paths(message[0][1], names))),
            _files(body.get("input", ""), names),
            _files(body.get("output", ""), names),
            list(dict.fromkeys(re.findall(r"workflow_scripts/(\w+)\.py", body.get("shell", ""))))
            or (origin.programs if origin else []),
            list(dict.fromkeys(re.findall(r"envs/\w+\.yaml", body.get("conda", "")))) or (origin.conda if origin else []),
        )
    return list(rules.values())


def _body(text: str, indent: int) -> dict[str, str]:
    """What stands after each keyword of a rule."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth <= indent:
            break
        if (match := _KEYWORD.match(line)) and depth == indent + 4:
            lines = found.setdefault(match[2], [match[3] or ""])
        else:
            lines.append(line)
    return {keyword: textwrap.dedent("\n".join(lines)) for keyword, lines in found.items()}


def _arguments(text: str) -> list[tuple[str, ast.expr]]:
    """Arguments of a keyword, with their names."""
    call = ast.parse(f"f(\n{text}\n)", mode="eval").body
    assert isinstance(call, ast.Call)
    return [("", value) for value in call.args] + [(argument.arg or "", argument.value) for argument in call.keywords]


def _files(text: str, names: Names) -> list[tuple[str, list[str]]]:
    found = [(name, _paths(value, names)) for name, value in _arguments(text)]
    return [(name, paths) for name, paths in found if name != "provenance" and paths]


@dataclass(frozen=True)
class Names:
    """What the names in the rule files stand for.

    Attributes:
        values: of constants, and what functions return, where these are paths.
        descriptions: from the lines `NAME  what it is` of the files' docstrings.
    """

    values: dict[str, ast.expr] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Names:
        """The names of all rule files; of two with the same name the first."""
        names = cls()
        for text in texts:
            for match in re.finditer(r"^([A-Z][A-Z_]+) {2,}(.+(?:\n {2,}.+)*)", text, re.MULTILINE):
                names.descriptions.setdefault(match[1], " ".join(match[2].split()))
            for name, value in [*_assigned(text), *_returned(text)]:
                known = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)} & (
                    _FOLDERS.keys() | names.values.keys()
                )
                if known and name not in _FOLDERS:
                    names.values.setdefault(name, value)
        return names


def _assigned(text: str) -> Iterator[tuple[str, ast.expr]]:
    """What a file gives names to, outside of functions and conditions."""
    for match in re.finditer(r"^ *([A-Z][A-Z_]+) = ", text, re.MULTILINE):
        rest = text[match.end() :].splitlines()
        for end in range(1, len(rest) + 1):  # a rule file is not Python as a whole
            with suppress(SyntaxError):
                yield match[1], ast.parse("\n".join(rest[:end]).strip(), mode="eval").body
                break


def _returned(text: str) -> Iterator[tuple[str, ast.expr]]:
    for match in re.finditer(r"^def (\w+)\(.*?(?=^\S)", text, re.MULTILINE | re.DOTALL):
        last = ast.parse(match[0]).body[0].body[-1]  # type: ignore[attr-defined]
        if isinstance(last, ast.Return) and last.value is not None:
            yield match[1], last.value


def _paths(node: ast.expr, names: Names) -> list[str]:
    """The files that an expression can be, as far as that can be said without a configuration; else the expression."""
    match node:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.JoinedStr(values=parts):
            return ["".join(_placeholder(part) for part in parts)]
        case ast.Name(id=name) if name in names.descriptions and name not in names.values:
            return [f"{name}: {names.descriptions[name]}"]
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) | ast.Subscript(value=ast.Name(id=name)) if (
            name in names.values
        ):
            return _paths(names.values[name], names)
        case ast.List(elts=elements):
            return [path for element in elements for path in _paths(element, names)]
        case ast.Call(func=ast.Name(id="report" | "expand" | "temp" | "ancient" | "directory"), args=[first, *_]):
            return _paths(first, names)
        case ast.Call(func=ast.Attribute(value=mapping, attr="get"), args=[_, default]):
            return [*_paths(mapping, names), *_paths(default, names)]
        case ast.ListComp(
            elt=ast.Call(func=ast.Attribute(attr="replace"), args=[ast.Constant(value=old), ast.Constant(value=new)]),
            generators=[each],
        ):
            return [path.replace(old, new) for path in _paths(each.iter, names)]
        case ast.BoolOp(values=values):
            return [path for value in values for path in _paths(value, names)]
        case ast.IfExp(body=body, orelse=other):
            return [*_paths(body, names), *_paths(other, names)]
        case ast.Lambda(body=body) | ast.Starred(value=body) | ast.ListComp(elt=body) | ast.GeneratorExp(elt=body):
            return _paths(body, names)
        case ast.Constant(value=None):
            return []
    text = ast.unparse(node)
    return [f"<{text.removeprefix('SETTINGS.').removesuffix('()')}>" if text.startswith("SETTINGS.") else text]


def _placeholder(part: ast.expr) -> str:
    if not isinstance(part, ast.FormattedValue):
        return str(part.value)  # type: ignore[attr-defined]
    name = ast.unparse(part.value)
    if name in _FOLDERS:
        return _FOLDERS[name]
    return "<run>" if name.startswith("config[") else f"<{name.removeprefix('SETTINGS.')}>"
