"""TorchScript retold: a scripted or traced module as plain modules, so that hooks run.

A `torch.jit.ScriptModule` is run by TorchScript's own interpreter, which calls no Python hook of
the modules inside. `retell` makes a tree of plain modules that share its parameters and buffers,
and each of which runs the graph that was recorded for it, node by node: the same operators on the
same numbers, and every module is called as modules are.

A graph is a list of nodes with named values (torch/csrc/jit/OVERVIEW.md in PyTorch's sources says
what they mean). ``aten`` nodes are operators, run as TorchScript would; ``prim`` nodes are the
language: constants, attributes, calls, branches, loops, and what makes lists, tuples and dicts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from exporter.errors import ModelError

_Values = dict[str, Any]
_Step = Callable[[_Values], None]

_CALL = "exporter::call"
"""The kind that calls of methods are renamed to, so that inlining (of functions) leaves them."""


class Retold(nn.Module):
    """One module of a scripted model: its parameters, buffers and children, and its graphs.

    The classes of instances are subclasses that bear the name of the class that was scripted.

    Args:
        scripted: the module. It is neither called nor changed; its tensors are shared.
    """

    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        super().__init__()
        self._recorded = _Recorded(scripted)
        for name, parameter in scripted.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in scripted.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in scripted.named_children():
            self.add_module(name, retell(child))
        # One that was frozen for inference has no mode left.
        self.training = getattr(scripted, "training", False)

    def forward(self, *values: Any, **named: Any) -> Any:
        """Run the graph of the scripted ``forward``; the arguments and the result are its own."""
        return self.run_method("forward", values, named)

    def run_method(self, name: str, values: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Run the graph of a method.

        Args:
            name: of the method.
            values: arguments by position, without the module itself.
            named: arguments by name.
        """
        graph, parameters = self._recorded.method(name)
        given = [self, *values]
        for parameter in parameters[len(given) :]:
            given.append(named.get(parameter.name, parameter.default_value))
        found = graph(given)
        return found[0] if len(found) == 1 else tuple(found)

    def read_attribute(self, name: str, *default: Any) -> Any:
        """Return a submodule, parameter, buffer, or what else the scripted module has."""
        if name == "training":
            return self.training
        for held in (self._modules, self._parameters, self._buffers):
            if name in held:
                return held[name]
        return self._recorded.attribute(name, *default)


def retell(module: nn.Module) -> nn.Module:
    """Return a scripted or traced module as modules whose hooks run; any other as it is.

    Args:
        module: any module. Of a scripted one, its parameters and buffers are shared.

    Returns:
        A `Retold` that gives what the scripted one gives, in the mode that it is in.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        return module
    kind = type(str(module.original_name), (Retold,), {"__module__": __name__})
    retold: nn.Module = kind(module)
    return retold


class _Recorded:
    """What a scripted module holds besides tensors and children; copies of modules share it."""

    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        self._scripted: Any = scripted
        self._methods: dict[str, tuple[_Block, list[Any]]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Recorded:
        return self

    def attribute(self, name: str, *default: Any) -> Any:
        return getattr(self._scripted, name, *default)

    def method(self, name: str) -> tuple[_Block, list[Any]]:
        """Return the graph of a method and its parameters, the module itself first."""
        if name not in self._methods:
            method = self._scripted._c._get_method(name)
            graph = method.graph.copy()
            _keep_calls(graph, graph)
            torch._C._jit_pass_inline(graph)
            self._methods[name] = (_Block(graph), list(method.schema.arguments))
        return self._methods[name]


def _keep_calls(graph: Any, block: Any) -> None:
    """Rename the calls of methods in a block and the blocks inside it."""
    for node in list(block.nodes()):
        for inner in node.blocks():
            _keep_calls(graph, inner)
        if node.kind() != "prim::CallMethod":
            continue
        kept = graph.create(_CALL, list(node.inputs()), node.outputsSize())
        kept.s_("name", node.s("name"))
        kept.insertBefore(node)
        for old, new in zip(node.outputs(), kept.outputs(), strict=True):
            new.setType(old.type())
            old.replaceAllUsesWith(new)
        node.destroy()


class _Block:
    """A graph, or a branch or the body of a loop in one: from values to values."""

    def __init__(self, block: Any) -> None:
        self._inputs = [value.debugName() for value in block.inputs()]
        self._outputs = [value.debugName() for value in block.outputs()]
        self._steps = [_step(node) for node in block.nodes()]

    def __call__(self, given: Sequence[Any], around: _Values | None = None) -> list[Any]:
        """Run it on values for its inputs, with those of the graph around it."""
        values = {} if around is None else around
        values.update(zip(self._inputs, given, strict=True))
        for step in self._steps:
            step(values)
        return [values[name] for name in self._outputs]


def _step(node: Any) -> _Step:
    """Return what a node does to the values of its graph."""
    kind = node.kind()
    inputs = [value.debugName() for value in node.inputs()]
    outputs = [value.debugName() for value in node.outputs()]
    blocks = [_Block(block) for block in node.blocks()]
    if kind == "prim::If":
        chosen, other = blocks

        def branch(values: _Values) -> None:
            found = (chosen if values[inputs[0]] else other)([], values)
            values.update(zip(outputs, found, strict=True))

        return branch
    if kind == "prim::Loop":
        (body,) = blocks

        def loop(values: _Values) -> None:
            most, goes_on, *carried = (values[name] for name in inputs)
            turn = 0
            while goes_on and turn < most:
                goes_on, *carried = body([turn, *carried], values)
                turn += 1
            values.update(zip(outputs, carried, strict=True))

        return loop
    function = _function(node, kind)

    def plain(values: _Values) -> None:
        found = function(*(values[name] for name in inputs))
        if len(outputs) == 1:
            values[outputs[0]] = found
        elif outputs:
            values.update(zip(outputs, found, strict=True))

    return plain


def _function(node: Any, kind: str) -> Callable[..., Any]:
    """Return the function of a node that has no blocks; of several outputs it returns a tuple."""
    if kind == "prim::Constant":
        constant = node.output().toIValue()
        return lambda: constant
    if kind == "prim::GetAttr":
        name = node.s("name")
        return lambda owner: (
            owner.read_attribute(name) if isinstance(owner, Retold) else getattr(owner, name)
        )
    if kind == _CALL:
        return _caller(node.s("name"))
    if kind in ("prim::ListUnpack", "prim::TupleUnpack"):
        single = node.outputsSize() == 1
        return lambda values: values[0] if single else values
    if kind in _LANGUAGE:
        return _LANGUAGE[kind]
    if node.schema() == "(no schema)":
        raise ModelError(
            f"the scripted model uses {kind}, which cannot be followed; "
            "hand over the module it was made from"
        )
    return _operator(node.schema(), kind)


def _caller(name: str) -> Callable[..., Any]:
    def call(owner: Any, *values: Any) -> Any:
        if not isinstance(owner, Retold):
            return getattr(owner, name)(*values)
        return owner(*values) if name == "forward" else owner.run_method(name, values, {})

    return call


def _operator(schema: str, kind: str) -> Callable[..., Any]:
    """Return an operator as TorchScript calls it: every argument by position.

    What works on any list, dict or object cannot be called from Python, and is Python's own.
    """
    parsed = torch._C.parse_schema(schema)
    if kind in _CONTAINERS and not isinstance(parsed.arguments[0].type, torch.TensorType):
        return _CONTAINERS[kind]
    keywords = [one.name if one.kwarg_only else None for one in parsed.arguments]
    found: Any = torch._C._get_operation_overload(kind, parsed.overload_name)[0]

    def operate(*values: Any) -> Any:
        by_place = [value for value, name in zip(values, keywords, strict=True) if name is None]
        by_name = {name: value for value, name in zip(values, keywords, strict=True) if name}
        return found(*by_place, **by_name)

    return operate


def _refuse(message: str, *_more: Any) -> None:
    raise RuntimeError(message)


def _changed(change: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that changes its first argument and returns it."""

    def function(container: Any, *values: Any) -> Any:
        change(container, *values)
        return container

    return function


_LANGUAGE: dict[str, Callable[..., Any]] = {
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleConstruct": lambda *values: values,
    "prim::DictConstruct": lambda *values: dict(zip(values[::2], values[1::2], strict=True)),
    "prim::TupleIndex": operator.getitem,
    "prim::TupleSlice": lambda values, start, end: values[start:end],
    "prim::unchecked_cast": lambda value: value,
    "prim::unchecked_unwrap_optional": lambda value: value,
    "prim::Uninitialized": lambda: None,
    "prim::RaiseException": _refuse,
    "prim::Print": lambda *_: None,
    "aten::warn": lambda *_: None,
    "aten::format": lambda text, *values: text.format(*values),
}
_CONTAINERS: dict[str, Callable[..., Any]] = {
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::__getitem__": operator.getitem,
    "aten::__contains__": operator.contains,
    "aten::len": len,
    "aten::list": list,
    "aten::copy": lambda container: container.copy(),
    "aten::add": operator.add,
    "aten::slice": lambda values, start, end, step=1: values[start:end:step],
    "aten::keys": list,
    "aten::values": lambda values: list(values.values()),
    "aten::items": lambda values: list(values.items()),
    "aten::append": _changed(list.append),
    "aten::extend": _changed(list.extend),
    "aten::insert": _changed(list.insert),
    "aten::_set_item": _changed(operator.setitem),
    "aten::pop": lambda values, *place: values.pop(*place),
}
