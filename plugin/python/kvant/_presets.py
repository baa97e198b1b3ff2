"""Layers by a preset's name or from a plan of `kvant plan-formats` (docs/accuracy.md)."""
import json

from ._pool import Layer

# From the most bits to the fewest; "t4+crp" is t4, centred and rotated, with protected tokens.
PRESETS = {"accurate": ("q8h+cr", "q8h+cr"), "default": ("t4+crp", "t4+crp"), "small": ("t4+crp", "t3+crp"), "tiny": ("t4+crp", "t2+crp")}


def _side(name):
    """(format, letters) of "t4+crp"."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is not the name of a format")
    format_name, plus, letters = name.partition("+")
    if bool(plus) != bool(letters) or len(set(letters)) != len(letters) or set(letters) - set("crp"):
        raise ValueError(f"{name!r} ends with '+{letters}'; expected + and some of c (centred), r (rotated), p (protected tokens)")
    return format_name, letters


def _layer(k, v, kv_heads, head_dim, head_dim_v):
    formats = {"k": _side(k), "v": _side(v)}
    sides = {letter: "".join(side for side in "kv" if letter in formats[side][1]) for letter in "crp"}
    return Layer(kv_heads, head_dim, formats["k"][0], formats["v"][0], head_dim_v, centre=sides["c"], rotate=sides["r"], protect=sides["p"])


def preset(name, kv_heads, head_dim, head_dim_v=0):
    """The Layer that a preset makes: "accurate", "default", "small" or "tiny"."""
    if name not in PRESETS:
        raise ValueError(f"{name!r} is not a preset; expected one of {', '.join(PRESETS)}")
    return _layer(*PRESETS[name], kv_heads, head_dim, head_dim_v)


def plan_layers(path, kv_heads, head_dim, head_dim_v=0):
    """The Layers of a plan file, one for each of the model's."""
    with open(path, encoding="utf-8") as file:
        plan = json.load(file)
    layers = plan.get("layers") if isinstance(plan, dict) else None
    if not layers or not all(isinstance(layer, dict) and "k" in layer and "v" in layer for layer in layers):
        raise ValueError(f"{path} is no plan: a list of layers with k and v is expected")
    return [_layer(layer["k"], layer["v"], kv_heads, head_dim, head_dim_v) for layer in layers]
