"""Accuracy gates for tests: assertions about quantized weights, and the gate files of quantal-validate.

assert_nmse(weights, quantal.quantize(weights, "q4_K"), 6e-3)
assert_gates("gates.yaml", {"blk.0.ffn_up.weight": (weights, quantized)})
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from ._arrays import Importance
from ._core import QuantizedArray, error

if TYPE_CHECKING:
    from ._typing import ArrayLike

    Original = ArrayLike
    Decoded = Union[ArrayLike, QuantizedArray]
    Weights = Union[ArrayLike, Importance, None]

TENSOR_METRICS = ("nmse", "wnmse", "cosine", "max_error", "output_nmse")
MODEL_METRICS = ("ppl", "ppl_ratio", "kld", "kld_99", "same_top")

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, bound: value <= bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    ">": lambda value, bound: value > bound,
}


class GateError(ValueError):
    """A gate file that says nothing, or gates that concern nothing: the verdict is unknown."""


def _check(metric: str, sign: str, bound: float, measured: Mapping[str, float]) -> None:
    value = measured[metric]
    if not (math.isfinite(value) and _HOLDS[sign](value, bound)):
        raise AssertionError(f"{metric} is {value:g}, wanted {sign} {bound:g} ({_listed(measured)})")


def _listed(measured: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in measured.items())


def assert_nmse(original: Original, decoded: Decoded, bound: float, importance: Weights = None) -> None:
    """Squared error over squared weights is at most `bound`; weighted where importance is given.

    original: (..., rows, cols); decoded: an array of that shape or a QuantizedArray; importance as in quantize().
    """
    _check("nmse" if importance is None else "wnmse", "<=", bound, error(original, decoded, importance))


def assert_cosine(original: Original, decoded: Decoded, bound: float) -> None:
    """The cosine of the angle between both, as one vector each, is at least `bound`."""
    _check("cosine", ">=", bound, error(original, decoded))


def assert_max_error(original: Original, decoded: Decoded, bound: float) -> None:
    """No weight is off by more than `bound`."""
    _check("max_error", "<=", bound, error(original, decoded))


@dataclass(frozen=True)
class Gate:
    """One line of a gate file."""

    text: str
    """As given, for messages."""
    tensors: re.Pattern[str] | None
    """Searched in names of tensors; None: a metric of the model."""
    metric: str
    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """NaN and infinity never hold."""
        return math.isfinite(value) and _HOLDS[self.sign](value, self.bound)


def parse_gate(text: str, where: str = "gate") -> Gate:
    """Reads "REGEX: METRIC<=VALUE" with <=, <, >= or >; metrics of the model need no regex."""
    who, _, condition = text.rpartition(":")
    found = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S+)\s*", condition)
    if not found:
        raise GateError(f"{where} '{text}': expected 'REGEX: METRIC<=VALUE' (or <, >=, >)")
    metric, sign, bound = found.groups()
    return _gate(text.strip(), who.strip(), metric, sign, _number(bound, f"{where} '{text}'"), f"{where} '{text}'")


def _number(text: Any, where: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(text, bool) or not math.isfinite(value):
        raise GateError(f"{where}: '{text}' is not a number")
    return value


def _gate(text: str, who: str, metric: str, sign: str, bound: float, where: str) -> Gate:
    if metric in MODEL_METRICS:
        if who not in ("", "model"):
            raise GateError(f"{where}: {metric} is a metric of the model: write 'model: ' or nothing in front of it")
        return Gate(text, None, metric, sign, bound)
    if metric not in TENSOR_METRICS:
        raise GateError(f"{where}: unknown metric '{metric}'; known: {', '.join(TENSOR_METRICS + MODEL_METRICS)}")
    if not who:
        raise GateError(f"{where}: expected 'REGEX: METRIC<=VALUE'")
    try:
        return Gate(text, re.compile(who), metric, sign, bound)
    except re.error as cause:
        raise GateError(f"{where}: {cause}") from cause


def _gate_of_mapping(entry: Mapping[str, Any], where: str) -> Gate:
    unknown = set(entry) - {"tensors", "metric", "max", "min"}
    if unknown:
        raise GateError(f"{where}: unknown key '{min(unknown)}'; known: tensors, metric, max, min")
    if ("max" in entry) == ("min" in entry):
        raise GateError(f'{where}: expected one of "max" and "min"')
    sign, key = ("<=", "max") if "max" in entry else (">=", "min")
    if isinstance(entry[key], str):
        raise GateError(f"{where}: the bound is not a number")
    bound, who, metric = _number(entry[key], where), str(entry.get("tensors", "")), str(entry.get("metric", ""))
    return _gate(f"{who or 'model'}: {metric}{sign}{bound:g}", who, metric, sign, bound, where)


def _gate_of_entry(entry: Any, where: str) -> Gate:
    if isinstance(entry, str):
        return parse_gate(entry, where)
    if not isinstance(entry, dict):
        raise GateError(f"{where}: neither a string nor an object")
    if len(entry) == 1:  # what YAML makes of a gate without quotes
        ((who, condition),) = entry.items()
        if isinstance(condition, str) and who not in ("metric", "tensors"):
            return parse_gate(f"{who}: {condition}", where)
    return _gate_of_mapping(entry, where)


def load_gates(path: str | Path) -> list[Gate]:
    """The gates of a file as quantal-validate reads it: JSON, or YAML (.yaml, .yml; needs PyYAML)."""
    file = Path(path)
    text = file.read_text(encoding="utf-8")
    document = _yaml(text, str(file)) if file.suffix in (".yaml", ".yml") else _json(text, str(file))
    if not isinstance(document, dict) or not isinstance(document.get("gates"), list):
        raise GateError(f'{file}: expected a list called "gates"')
    gates = [_gate_of_entry(entry, f"{file}: gate {i}") for i, entry in enumerate(document["gates"], 1)]
    if not gates:
        raise GateError(f"{file}: holds no gates")
    return gates


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as cause:
        raise GateError(f"{where}: {cause}") from cause


def _yaml(text: str, where: str) -> Any:
    try:
        import yaml
    except ImportError as cause:
        raise ImportError(f"{where}: reading YAML needs PyYAML: pip install quantal[testing]") from cause

    class Loader(yaml.SafeLoader):
        """Plain scalars as in YAML 1.2: 1e-4 is a number, no and on are text. Repeated keys are errors."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise GateError(f"{where}: line {node.start_mark.line + 1}: repeated key '{repeated[0]}'")
        return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value)}

    rules: Any = Loader  # older stubs of PyYAML have no types for these
    number = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
    rules.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(null|Null|NULL|~|)$"), list("nN~") + [""])
    rules.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    rules.add_implicit_resolver("!number", number, list("-+.0123456789"))
    rules.add_constructor("!number", lambda loader, node: float(node.value))
    rules.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Loader)  # noqa: S506: a SafeLoader
    except yaml.YAMLError as cause:
        raise GateError(f"{where}: {cause}") from cause


def _measured(
    gates: Sequence[Gate], tensors: Mapping[str, Sequence[Any]], model: Mapping[str, float] | None
) -> dict[str, Mapping[str, float]]:
    concerned = [n for n in tensors if any(g.tensors and g.tensors.search(n) for g in gates)]
    measured: dict[str, Mapping[str, float]] = {n: error(*tensors[n]) for n in concerned}
    return {**measured, **({} if model is None else {"model": model})}


def assert_gates(
    gates: str | Path | Sequence[Gate | str],
    tensors: Mapping[str, Sequence[Any]],
    model: Mapping[str, float] | None = None,
) -> None:
    """Every gate holds on every tensor that its expression finds, and on the model.

    gates: a file for load_gates(), or gates.
    tensors: names with (original, decoded) or (original, decoded, importance), as error() takes them.
    model: values of metrics of the model ("kld", ...), which the caller has measured.

    Raises AssertionError with all that do not hold; GateError where a gate concerns nothing, or nothing that it
    concerns was measured (wnmse wants importance; output_nmse is measured by quantal-validate alone).
    """
    wanted = load_gates(gates) if isinstance(gates, (str, Path)) else [_as_gate(g) for g in gates]
    measured = _measured(wanted, tensors, model)
    failed = [line for gate in wanted for line in _failures(gate, measured, tensors)]
    if failed:
        raise AssertionError("gates do not hold:\n" + "\n".join(failed))


def _as_gate(gate: Gate | str) -> Gate:
    return gate if isinstance(gate, Gate) else parse_gate(gate)


def _failures(gate: Gate, measured: Mapping[str, Mapping[str, float]], tensors: Mapping[str, Any]) -> list[str]:
    subjects = ["model"] if gate.tensors is None else [n for n in tensors if gate.tensors.search(n)]
    if not subjects:
        raise GateError(f"gate '{gate.text}' matches no tensor")
    values = [(s, measured[s][gate.metric]) for s in subjects if gate.metric in measured.get(s, {})]
    if not values:
        raise GateError(f"gate '{gate.text}': {gate.metric} was measured of nothing it matches")
    return [f"  {gate.text}: {s}: {v:g}" for s, v in values if not gate.holds(v)]
