"""Layers by a preset's name or from a plan of `kvant plan-formats` (docs/accuracy.md)."""
import json

from ._pool import Layer

# From the most bits to the fewest; "t4+cr" is t4, centred and rotated.
PRESETS = {"accurate": ("q8h+cr", "q8h+cr"), "default": ("t4+cr", "t4+cr"), "small": ("t4+cr", "t3+cr"), "tiny": ("t4+cr", "t2+cr")}


def _side(name):
    """(format, centred, rotated) of "t4+cr"."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is not the name of a format")
    format_name, plus, letters = name.partition("+")
    if letters not in (("c", "r", "cr", "rc") if plus else ("",)):
        raise ValueError(f"{name!r} ends with '+{letters}'; expected +c (centred), +r (rotated) or +cr")
    return format_name, "c" in letters, "r" in letters


def _layer(k, v, kv_heads, head_dim, head_dim_v):
    sides = {"k": _side(k), "v": _side(v)}
    return Layer(kv_heads, head_dim, sides["k"][0], sides["v"][0], head_dim_v, centre="".join(s for s in "kv" if sides[s][1]),
                 rotate="".join(s for s in "kv" if sides[s][2]))


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
