#!/usr/bin/env python3
"""Writes <format>.hex: the canonical bytes of a documented input in every format.

Written from docs/formats/ in plain Python, apart from the C++ and GLSL encoders, so that three implementations must agree.
f32 arithmetic is done by rounding each operation's double result to f32, which is exact for +, -, * and /.
"""
import math
import os
import re
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def f16_bits(x):
    if abs(x) >= 65520.0:
        return 0x7C00 | (0x8000 if x < 0 else 0)
    return struct.unpack("<H", struct.pack("<e", x))[0]


def f16_value(bits):
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def scale_bits(x):
    bits = f16_bits(x)
    return bits - 1 if bits & 0x7FFF == 0x7C00 else bits


def golden_input():
    """Four blocks of 64: noise, small noise, a block with ties and -0, and one that is zero but for two equal peaks."""
    x = []
    state = 1
    for i in range(128):
        state = (state * 1664525 + 1013904223) % 2**32
        value = ((state >> 8) - 2**23) * 2.0**-22
        x.append(value if i < 64 else value * 2.0**-7)
    x += [(i % 17 - 8) * 0.5 for i in range(63)] + [-0.0]
    x += [0.0] * 64
    x[192 + 5] = -3.0
    x[192 + 40] = 3.0
    assert all(f32(v) == v for v in x)
    return x


def trunc_codes(values, top):
    return [min(top, int(v)) for v in values]


def nibbles_ggml(codes):
    return bytes((codes[j] & 15) | ((codes[j + 16] & 15) << 4) for j in range(16))


def fifth_bits(codes):
    return struct.pack("<I", sum((codes[i] >> 4 & 1) << i for i in range(32)))


def q8_0(x):
    d = f32(max(abs(v) for v in x) / 127)
    inverse = f32(1 / d) if d else 0.0
    codes = []
    for v in x:
        y = f32(v * inverse)
        codes.append(int(math.copysign(math.floor(abs(y) + 0.5), y)))  # the double sum is exact
    return struct.pack("<H", scale_bits(d)) + struct.pack("<32b", *codes)


def symmetric(x, zero):
    peak = 0.0
    for v in x:
        if abs(v) > abs(peak):
            peak = v
    d = f32(peak / -zero)
    inverse = f32(1 / d) if d else 0.0
    codes = trunc_codes([f32(f32(v * inverse) + (zero + 0.5)) for v in x], 2 * zero - 1)
    return struct.pack("<H", scale_bits(d)), codes


def affine(x, top):
    low, high = x[0], x[0]
    for v in x:
        low = v if v < low else low
        high = v if v > high else high
    d = f32(f32(high - low) / top)
    inverse = f32(1 / d) if d else 0.0
    codes = trunc_codes([f32(f32(f32(v - low) * inverse) + 0.5) for v in x], top)
    return struct.pack("<HH", scale_bits(d), scale_bits(low)), codes


def q4_0(x):
    head, codes = symmetric(x, 8)
    return head + nibbles_ggml(codes)


def q5_0(x):
    head, codes = symmetric(x, 16)
    return head + fifth_bits(codes) + nibbles_ggml(codes)


def q4_1(x):
    head, codes = affine(x, 15)
    return head + nibbles_ggml(codes)


def q5_1(x):
    head, codes = affine(x, 31)
    return head + fifth_bits(codes) + nibbles_ggml(codes)


LEVELS = [f32(v) for v in (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)]


IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def iq4_nl(x):
    peak = 0.0
    for v in x:
        if abs(v) > abs(peak):
            peak = v
    if not peak:
        return struct.pack("<H", 0) + nibbles_ggml([8] * 32)
    inverse = f32(1 / f32(peak / -127))
    codes, qx, qq = [], 0.0, 0.0
    for v in x:
        # The nearest level, the upper one of two that are as near.
        scaled = f32(v * inverse)
        code = min(range(16), key=lambda c: (abs(IQ4_NL[c] - scaled), -c))
        weighted = f32(f32(v * v) * IQ4_NL[code])
        qx = f32(qx + f32(weighted * v))
        qq = f32(qq + f32(weighted * IQ4_NL[code]))
        codes.append(code)
    return struct.pack("<H", scale_bits(f32(qx / qq))) + nibbles_ggml(codes)


NL4 = [v / 128 for v in (-125, -99, -78, -61, -46, -32, -19, -6, 6, 19, 32, 46, 61, 78, 99, 125)]


def midpoints(levels):
    return [f32((a + b) / 2) for a, b in zip(levels, levels[1:])]


def level_codes(x, scale, levels, zero):
    codes = [sum(v > f32(m * scale) for m in midpoints(levels)) for v in x]
    sums = [0.0] * 4
    for i, (v, c) in enumerate(zip(x, codes)):
        error = f32(v - f32(levels[c] * scale))
        sums[i % 4] = f32(sums[i % 4] + f32(error * error))
    return f32(f32(sums[0] + sums[1]) + f32(sums[2] + sums[3])), codes if scale else [zero] * len(x)


def better_codes(x, scales, levels, zero):
    results = [level_codes(x, s, levels, zero) for s in scales]
    best = 1 if results[1][0] < results[0][0] else 0
    return best, results[best][1]


def ue5m3_around(amax):
    below = max(c for c in range(0xF8) if f16_value(c << 7) <= amax)
    return [below, min(below + 1, 0xF7)]


def nf4_best(x, scales):
    best, codes = better_codes(x, scales, LEVELS, 7)
    return best, bytes((codes[2 * j] << 4) | codes[2 * j + 1] for j in range(32))


def nf4(x):
    amax = max(abs(v) for v in x)
    bits = [scale_bits(amax), scale_bits(f32(amax * 0.90625))]
    best, packed = nf4_best(x, [f16_value(b) for b in bits])
    return struct.pack("<H", bits[best]) + packed


def nf4_dq(x):
    amax = max(abs(v) for v in x)
    codes = ue5m3_around(amax)
    best, packed = nf4_best(x, [f16_value(c << 7) for c in codes])
    return bytes([codes[best]]) + packed


def nl4(x):
    scales = ue5m3_around(max(abs(v) for v in x))
    best, codes = better_codes(x, [f16_value(c << 7) for c in scales], NL4, 8)
    return bytes([scales[best]]) + nibbles_in_order(codes)


def trellis_levels(count, a, b, c):
    halves = [i + 0.5 for i in range(count // 2)]
    upper = [math.floor(m * (a + m * m * (b + m * m * c)) + 0.5) for m in halves]
    return [-v for v in reversed(upper)] + upper


T4 = trellis_levels(32, 4.75, 31 / 8192, 19 / 2**19)
T5 = trellis_levels(64, 2.375, 25 / 16384, 29 / 2**28)
T3 = trellis_levels(16, 10.5, 31 / 2048, 3 / 2048)
T2 = trellis_levels(8, 19.75, -3 / 128, 31 / 512)


def trellis_nearest(levels, kind, y):
    """The upper bits of the nearest level of a class (index mod 4)."""
    own = levels[kind::4]
    return sum(y > (low + high) / 2 for low, high in zip(own, own[1:]))


def trellis_class(u, one, two, three):
    return 2 * (u ^ one ^ three) + two


TRELLIS_STATES = [(s & 1, s >> 1 & 1, s >> 2) for s in range(8)]  # u of the element before, of the second, of the third before


def trellis_walk(x, levels, unit, starts):
    """Of paths that begin in one of `starts`: by the state they end in, the least cost and the bits u."""
    walks = {s: (0.0 if s in starts else f32(1e38), []) for s in TRELLIS_STATES}
    for v in x:
        y = f32(v * f32(1 / unit))
        errors = [f32(y - levels[4 * trellis_nearest(levels, kind, y) + kind]) for kind in range(4)]
        d = [f32(e * e) for e in errors]
        after = {}
        for u, one, two in TRELLIS_STATES:
            found = []
            for three in (0, 1):
                cost, bits = walks[(one, two, three)]
                found.append((f32(cost + d[trellis_class(u, one, two, three)]), bits + [u]))
            after[(u, one, two)] = found[1] if found[1][0] < found[0][0] else found[0]
        walks = after
    return walks


def trellis_unit(scale):
    return f16_value(scale << 7) * 9 / 1024


def trellis(x, levels):
    """Scale byte, and the codes of each 32 elements."""
    spans = [x[i:i + 32] for i in range(0, len(x), 32)]
    below = max(c for c in range(0xF8) if f16_value(c << 7) <= max(abs(v) for v in x))
    if below == 0:
        return 0, [[len(levels) // 4] * 32 for _ in spans]

    def free_cost(scale):
        unit, total = trellis_unit(scale), 0.0
        for span in spans:
            total = f32(total + min(cost for cost, _ in trellis_walk(span, levels, unit, TRELLIS_STATES).values()))
        return f32(f32(total * unit) * unit)

    other = max(below - 1, 1)
    scale = other if free_cost(other) < free_cost(below) else below
    unit, codes = trellis_unit(scale), []
    for span in spans:
        closed = [trellis_walk(span, levels, unit, [s])[s] for s in TRELLIS_STATES]
        bits = min(closed, key=lambda walk: walk[0])[1]
        codes.append([])
        for t, v in enumerate(span):
            kind = trellis_class(bits[t], bits[t - 1], bits[t - 2], bits[t - 3])  # of the first elements, those at the end come before
            codes[-1].append(trellis_nearest(levels, kind, f32(v * f32(1 / unit))) << 1 | bits[t])
    return scale, codes


def nibbles_in_order(codes):
    return bytes(codes[2 * j] & 15 | (codes[2 * j + 1] & 15) << 4 for j in range(16))


def pairs_in_order(codes):
    return bytes(sum((codes[4 * j + i] & 3) << 2 * i for i in range(4)) for j in range(8))


def t4(x):
    scale, codes = trellis(x, T4)
    return bytes([scale]) + b"".join(nibbles_in_order(c) for c in codes)


def t5(x):
    scale, (codes,) = trellis(x, T5)
    return bytes([scale]) + fifth_bits(codes) + nibbles_in_order(codes)


def t3(x):
    scale, (codes,) = trellis(x, T3)
    return bytes([scale]) + struct.pack("<I", sum((c >> 2) << t for t, c in enumerate(codes))) + pairs_in_order(codes)


def t2(x):
    scale, (codes,) = trellis(x, T2)
    return bytes([scale]) + pairs_in_order(codes)


def q8h(x):
    d = f16_value(scale_bits(f32(max(abs(v) for v in x) / 127)))
    inverse = f32(1 / d) if d else 0.0
    codes = []
    for v in x:
        y = f32(v * inverse)
        codes.append(int(math.copysign(min(127, math.floor(abs(y) + 0.5)), y)))
    return struct.pack("<e", d) + struct.pack("<64b", *codes)


def f8_e4m3(x):
    def value(code):
        exponent, mantissa = code >> 3, code & 7
        return (8 + mantissa) * 2.0**(exponent - 10) if exponent else mantissa * 2.0**-9

    out = []
    for v in x:
        # Nearest, ties to the even code; nothing beyond 0x7E (448).
        code = min(range(0x7F), key=lambda c: (abs(value(c) - abs(v)), c & 1))
        out.append(code | (0x80 if math.copysign(1, v) < 0 else 0))
    return bytes(out)


def bf16(x):
    out = b""
    for v in x:
        bits = struct.unpack("<I", struct.pack("<f", v))[0]
        out += struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return out


FORMATS = {
    "f32": (32, lambda x: struct.pack("<32f", *x)),
    "f16": (32, lambda x: struct.pack("<32e", *x)),
    "bf16": (32, bf16), "q8_0": (32, q8_0), "q4_0": (32, q4_0), "q4_1": (32, q4_1), "q5_0": (32, q5_0), "q5_1": (32, q5_1),
    "nf4": (64, nf4), "nf4_dq": (64, nf4_dq), "f8_e4m3": (32, f8_e4m3), "iq4_nl": (32, iq4_nl),
    "nl4": (32, nl4), "t4": (32, t4), "t4x": (64, t4), "t5": (32, t5), "t3": (32, t3), "t2": (32, t2),
    "q8h": (64, q8h)}


# The k-quants, docs/formats/k_quants.md: bytes that no encoder made, and what they decode to.


def q5_k(b):
    d, low = f16_value(b[0] | b[1] << 8), f16_value(b[2] | b[3] << 8)
    packed, high, nibbles = b[4:16], b[16:48], b[48:176]
    scales = [p & 63 for p in packed[0:4]] + [packed[8 + j] % 16 + packed[j] // 64 * 16 for j in range(4)]
    mins = [p & 63 for p in packed[4:8]] + [packed[8 + j] // 16 + packed[4 + j] // 64 * 16 for j in range(4)]
    y = []
    for part in range(8):
        step, offset = f32(d * scales[part]), f32(low * mins[part])
        for e in range(32):
            byte = nibbles[part // 2 * 32 + e]
            code = (byte // 16 if part % 2 else byte % 16) + (16 if high[e] & 1 << part else 0)
            y.append(f32(f32(step * code) - offset))
    return y


def q3_k(b):
    high, pairs, packed, d = b[0:32], b[32:96], b[96:108], f16_value(b[108] | b[109] << 8)
    scales = [p % 16 for p in packed[0:8]] + [p // 16 for p in packed[0:8]]
    scales = [s + 16 * (packed[8 + j % 4] // 4**(j // 4) % 4) - 32 for j, s in enumerate(scales)]
    y = []
    for half in range(2):
        for row in range(4):
            for e in range(32):
                code = pairs[32 * half + e] // 4**row % 4 + (4 if high[e] & 1 << (4 * half + row) else 0)
                y.append(f32(f32(d * scales[8 * half + 2 * row + e // 16]) * (code - 4)))
    return y


def q2_k(b):
    scales, pairs = b[0:16], b[16:80]
    d, low = f16_value(b[80] | b[81] << 8), f16_value(b[82] | b[83] << 8)
    y = []
    for half in range(2):
        for row in range(4):
            for e in range(32):
                packed = scales[8 * half + 2 * row + e // 16]
                code = pairs[32 * half + e] // 4**row % 4
                y.append(f32(f32(f32(d * (packed % 16)) * code) - f32(low * (packed // 16))))
    return y


def k_blocks(size, scales):
    """Two blocks of pseudo-random bytes; the f16 at each offset of `scales` is kept below 2, the second block's are subnormal."""
    state, blocks = 1, []
    for count in range(2):
        block = bytearray()
        for _ in range(size):
            state = (state * 1664525 + 1013904223) % 2**32
            block.append(state >> 24)
        for offset in scales:
            block[offset + 1] &= 0x83 if count else 0xBF
        blocks.append(bytes(block))
    return blocks


K_QUANTS = {"q5_k": (176, (0, 2), q5_k), "q3_k": (110, (108,), q3_k), "q2_k": (84, (80, 82), q2_k)}


def write(name, data):
    with open(os.path.join(HERE, name + ".hex"), "w", encoding="ascii") as file:
        file.write(re.sub("(.{64})", "\\1\n", data.hex()).rstrip("\n") + "\n")


def main():
    x = golden_input()
    for name, (block, encode) in FORMATS.items():
        write(name, b"".join(encode(x[i:i + block]) for i in range(0, len(x), block)))
    for name, (size, scales, decode) in K_QUANTS.items():
        blocks = k_blocks(size, scales)
        write(name, b"".join(blocks) + struct.pack("<512f", *(y for block in blocks for y in decode(block))))


if __name__ == "__main__":
    main()
