"""Which of the document's techniques are switched on. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMES = ("int8wo", "int4wo")
SWITCHES = ("kv_cache_quantization", "linear_causal_mask")
QUANTIZATION = "quantization"


@dataclass(frozen=True)
class Plan:
    """int8_cache, linear_mask: the document's two switches; scheme: one of SCHEMES, or ""."""

    int8_cache: bool = False
    linear_mask: bool = False
    scheme: str = ""


NORMAL = Plan()
# The document's names for what the options say; a mode of another name is what its options say.
MODES = {
    "normal": NORMAL,
    "kv_quant": Plan(int8_cache=True),
    "kv_quant_linear_mask": Plan(int8_cache=True, linear_mask=True),
    "int4_kv_quant_linear_mask": Plan(int8_cache=True, linear_mask=True, scheme="int4wo"),
}


def plan_of(workload: Any) -> Plan:
    """What the workload's options ask for; `missing_option` has found nothing."""
    return Plan(
        int8_cache=workload.option("kv_cache_quantization") == "true",
        linear_mask=workload.option("linear_causal_mask") == "true",
        scheme=_scheme(workload),
    )


def missing_option(workload: Any) -> str | None:
    """An option that would have no effect or is not understood, with what is supported, or None."""
    for name, value in workload.options:
        supported = _supported(name)
        if value != "false" and value not in supported:
            known = f"{name} takes {', '.join(supported)}" if supported else _known()
            return f"option {name}={value}: {known}"
    return _mislabelled(workload)


def _supported(name: str) -> tuple[str, ...]:
    if name == QUANTIZATION:
        return SCHEMES
    return ("true",) if name in SWITCHES else ()


def _known() -> str:
    return f"the options are {', '.join((*SWITCHES, QUANTIZATION))}"


def _scheme(workload: Any) -> str:
    asked = workload.option(QUANTIZATION) or ""
    return "" if asked == "false" else str(asked)


def _mislabelled(workload: Any) -> str | None:
    """A mode of the document whose options say something else: its figure would lie."""
    asked, named = plan_of(workload), MODES.get(workload.mode)
    if named is None or asked == named:
        return None
    return f"mode {workload.mode} with other options: it stands for {named}, they say {asked}"
