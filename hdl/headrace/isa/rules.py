"""Rules between the fields of a command, in Python."""

from collections.abc import Mapping

from headrace.config import NpuConfig, Precision

from .commands import MAC
from .errors import Cause

__all__ = ["MAC_RULE_FIELDS", "mac_entries", "mac_rule"]

MAC_RULE_FIELDS = (
    *("scales", "fold", "mode", "t_count", "t_last"),
    *("depthwise", "cw", "group_tiles", "kw", "n_tiles", "kc_base"),
)
"""The fields `mac_rule` looks at."""

Values = Mapping[str, int]


def mac_rule(config: NpuConfig, values: Values) -> tuple[Cause, int] | None:
    """Error (cause and address) of the first broken rule between fields of a MAC command, or None.

    `values` are the fields after patching, each within its limits.
    """
    name = _scales_rule(config, values) or _depthwise_rule(config, values)
    if name is not None:
        return Cause.MALFORMED, MAC[name].offset
    last = values["kc_base"] + values["n_tiles"] - 1
    if values["scales"] and values["mode"] != Precision.A8W8 and last >= config.kc_words:
        return Cause.RANGE, last
    return None


def _scales_rule(config: NpuConfig, values: Values) -> str | None:
    """Name of the field to blame."""
    groups = max(values["t_count"], values["t_last"])
    possible = config.scaled(Precision(values["mode"])) and groups <= config.scaled_accs
    return "scales" if values["scales"] and (values["fold"] or not possible) else None


def _depthwise_rule(config: NpuConfig, values: Values) -> str | None:
    """Name of the field to blame."""
    if not values["depthwise"]:
        return None
    broken = {
        "mode": values["mode"] != Precision.A8W8,
        "fold": values["fold"],
        "scales": values["scales"],
        "cw": values["cw"] != 1,
        "group_tiles": values["group_tiles"],
        "kw": values["kw"] > config.depthwise_taps,
        "t_count": values["t_count"] * config.halves > config.accs,
        "t_last": values["t_last"] * config.halves > config.accs,
    }
    return next((name for name, is_broken in broken.items() if is_broken), None)


def mac_entries(config: NpuConfig, values: Values) -> int:
    """E: weight entries of one tile of a MAC command."""
    if values["depthwise"]:
        return values["kh"]
    row = -(-values["kw"] // (config.word_bytes // 4)) if values["fold"] else values["kw"] * values["cw"]
    words = values["kh"] * row
    return -(-words // 2) if values["mode"] == Precision.A8W4 else words
