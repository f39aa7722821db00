"""The type stubs, the schemas and the functions have the same arguments."""

import ast
import inspect
import re
from pathlib import Path

import gdn
from gdn import _gdn, _ops, _replay, _schemas


def stub(module):
    tree = ast.parse(Path(module).read_text())
    return {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def arguments(node):
    return [a.arg for a in node.args.args], [a.arg for a in node.args.kwonlyargs]


def test_stub_has_every_function_with_its_arguments():
    stubs = stub(Path(gdn.__file__).with_name("__init__.pyi"))
    for name in gdn.__all__:
        function = getattr(gdn, name)
        if not inspect.isfunction(function) or name == "load":  # `load` takes options by `**`.
            continue
        parameters = inspect.signature(function).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        assert arguments(stubs[name]) == (positional, named), name
        required = sum(p.default is p.empty for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        assert len(positional) - required == len(stubs[name].args.defaults), name


def test_stub_of_the_extension_is_complete():
    stubs = stub(Path(_gdn.__file__).with_name("_gdn.pyi"))
    have = {name for name in dir(_gdn) if not name.startswith("_")}
    assert have == set(stubs)
    allocator = {node.name for node in stubs["SlotAllocator"].body if isinstance(node, ast.FunctionDef)}
    assert allocator - {"__init__"} == {name for name in dir(gdn.SlotAllocator) if not name.startswith("_")}


def test_stubs_of_classes_have_every_method_with_its_arguments():
    stubs = stub(Path(gdn.__file__).with_name("__init__.pyi"))
    for name in ("ReplayLayers", "ReplayState"):
        have = {node.name: node for node in stubs[name].body if isinstance(node, ast.FunctionDef)}
        for method, function in inspect.getmembers(getattr(gdn, name), inspect.isfunction):
            if method == "__init__" or not method.startswith("_"):
                parameters = list(inspect.signature(function).parameters.values())
                positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
                named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
                assert arguments(have[method]) == (positional, named), f"{name}.{method}"


def test_public_functions_have_documentation_with_shapes():
    for module in (_ops, _replay):
        for name, function in vars(module).items():
            if inspect.isfunction(function) and not name.startswith("_") and function.__module__ == module.__name__:
                assert function.__doc__ and ("[" in function.__doc__), name


def test_schemas_say_what_is_written():
    for name, schema in _schemas.SCHEMAS.items():
        assert re.search(r"Tensor\(\w!\)", schema) and schema.endswith("-> ()"), name
        assert hasattr(_gdn, name)
