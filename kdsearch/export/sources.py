"""Code that goes with an export, made from kdsearch's own sources, for where kdsearch is not installed.

Notable: nothing is written twice. The definitions that a student's class needs are looked up in the modules
that kdsearch itself runs, and copied in the order in which they need each other; what serves searching,
drawing graphs or starting from given weights stays behind. An export proves the file by its logits.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kdsearch import __version__
from kdsearch.students.base import Student

LEFT_BEHIND = {
    *("SPACE", "space", "refusal", "wants", "adopt", "fill"),
    *("draw", "draw_embed", "onnx_model", "side_by_side"),
}
"""Members of classes that nobody needs who has trained weights."""
BUILD = "build_student"
HEAD = '''"""{what}

Made by kdsearch {version} from its own sources when the student was exported; it is not meant to be edited.
Letters: B texts of a batch, T tokens, C classes, D width of the vector that is classified, V rows of a table.
"""

from __future__ import annotations

'''
BUILDER = '''
def build_student(
    name: str, params: Mapping[str, Any], shape: InputShape, id_table: None = None
) -> nn.Module:
    """An untrained student, to be filled with weights."""
    return {student}(shape, **params)
'''
LOADER = '''
def load(folder: Path = Path(__file__).parent) -> nn.Module:
    """The trained student: called with token ids and mask (B, T), both int64, it gives its logits first."""
    saved = json.loads((folder / "student.json").read_text(encoding="utf-8"))
    params = {{k: tuple(v) if isinstance(v, list) else v for k, v in saved["params"].items()}}
    student = build_student(saved["student"], params, InputShape.from_json(saved["shape"]))
    student.load_state_dict(load_file(folder / "model.safetensors"))
    return student.eval()
'''
BUILDER_IMPORTS = (("collections.abc", "Mapping"), ("typing", "Any"), ("torch", "nn"))
LOADER_IMPORTS = (("json", ""), ("pathlib", "Path"), ("safetensors.torch", "load_file"))


def modeling_source(student: Student) -> str:
    """The student's transformers model and configuration: needs torch and transformers."""
    code = _Code({BUILD})
    code.take_student(student)
    for name in ("KdsearchConfig", "KdsearchStudent"):
        code.take("kdsearch.hf.modeling", name)
    return code.text("The transformers model of this student: AutoModelForSequenceClassification finds it.")


def student_source(student: Student) -> str:
    """The student as a torch module and how to load it: needs torch and safetensors."""
    code = _Code({BUILD})
    code.take_student(student)
    code.take("kdsearch.students.base", "InputShape")
    code.add("load", LOADER.format(), LOADER_IMPORTS)
    return code.text("This student as a torch module; `load()` gives it with its weights.")


@dataclass(frozen=True)
class _Module:
    """What stands at the top of a module."""

    definitions: dict[str, ast.stmt]
    imports: dict[str, tuple[str, str]]
    """Local name -> (module, name in it); the name is empty where the module itself is meant."""


@cache
def _module(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise AssertionError(f"{name} has no source")
    module = _Module({}, {})
    for statement in _statements(ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body):
        _enter(module, statement)
    return module


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those at the top, and those that stand there for type checkers."""
    for statement in body:
        yield from statement.body if isinstance(statement, ast.If) else [statement]


def _enter(module: _Module, statement: ast.stmt) -> None:
    match statement:
        case ast.ImportFrom(module=str(source), names=names):
            module.imports.update({each.asname or each.name: (source, each.name) for each in names})
        case ast.Import(names=names):
            module.imports.update({each.asname or each.name: (each.name, "") for each in names})
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            module.definitions[name] = statement
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            module.definitions[name] = statement
        case _:
            pass


@dataclass
class _Code:
    """Definitions copied so far, each after those that it needs."""

    own: set[str]
    """Names that are added here instead of copied."""
    parts: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    imports: set[tuple[str, str]] = field(default_factory=set)
    """(module, what is imported from it); the latter is empty where it is the module itself."""

    def take_student(self, student: Student) -> None:
        """The class of a student, and a builder that makes it."""
        kind = type(student)
        self.take(kind.__module__, kind.__name__)
        self.add(BUILD, BUILDER.format(student=kind.__name__), BUILDER_IMPORTS)

    def take(self, module: str, name: str) -> None:
        """Copy a definition and everything that it needs."""
        if self.origin.setdefault(name, module) != module:
            raise AssertionError(f"{name} is defined in {self.origin[name]} and in {module}")
        if name in self.parts:
            return
        found = _module(module)
        if name not in found.definitions:
            source, original = found.imports[name]
            self._import(source, original, name)
            return
        node = _stripped(found.definitions[name])
        self.parts[name] = ""  # whoever asks meanwhile need not copy it too
        for used in sorted(_names(node) - {name}):
            if used in found.definitions:
                self.take(module, used)
            elif used in found.imports:
                self._import(*found.imports[used], used)
        del self.parts[name]
        self.parts[name] = ast.unparse(node)

    def add(self, name: str, source: str, imports: Sequence[tuple[str, str]]) -> None:
        """A definition that is written out here."""
        self.origin[name], self.parts[name] = "", source.strip()
        self.imports.update(imports)

    def _import(self, source: str, original: str, name: str) -> None:
        if name in self.own:
            return
        if source.partition(".")[0] == "kdsearch":
            if original != name:
                raise AssertionError(f"{source}.{original} is imported as {name}")
            self.take(source, name)
        elif original == name:
            self.imports.add((source, name))
        else:
            self.imports.add((source + f" as {name}" * (source != name), ""))

    def text(self, what: str) -> str:
        """The file."""
        modules = sorted({module for module, _ in self.imports})
        imports = "\n".join(self._imported(module) for module in modules)
        body = "\n\n\n".join(self.parts.values())
        text = f"{HEAD.format(what=what, version=__version__)}{imports}\n\n\n{body}\n"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdsearch"):
                raise AssertionError(f"the copied code imports {node.module}")
        return text

    def _imported(self, module: str) -> str:
        names = sorted(name for source, name in self.imports if source == module and name)
        bare = [f"import {module}"] if (module, "") in self.imports else []
        return "\n".join([*bare, *([f"from {module} import {', '.join(names)}"] if names else [])])


def _stripped(node: ast.stmt) -> ast.stmt:
    """Without the members that stay behind."""
    if not isinstance(node, ast.ClassDef):
        return node
    kept = [
        member
        for member, before in zip(node.body, [None, *node.body[:-1]], strict=True)
        if not _stays(member, before)
    ]
    bare = copy.copy(node)
    bare.body = kept
    return bare


def _stays(member: ast.stmt, before: ast.stmt | None) -> bool:
    """Whether a member stays behind; what is said of one stands after it."""
    about_it = isinstance(member, ast.Expr) and before is not None
    return _member(before if about_it else member) in LEFT_BEHIND


def _member(node: ast.stmt | None) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
