"""Tiny models with recurrent state, written as GGUF files: a hybrid of short convolutions and attention (lfm2) and a purely recurrent one
(mamba). Their weights are pseudo-random and always the same, their vocabulary is another file's. They say nothing that makes sense, but
each letter of it depends on the states before."""
import array
import dataclasses
import math
import random
import struct
import sys

MAGIC, VERSION, ALIGNMENT, F32 = b"GGUF", 3, 32, 0
STRING, ARRAY = 8, 9
PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # kinds of values, as struct names them
UINT32, FLOAT32 = 4, 6
VOCABULARY = "tokenizer."

WIDTH, HEADS, HEAD_SIZE, FEED_FORWARD, CONTEXT = 128, 2, 64, 64, 4096
ATTENTION_LAYERS = (False, True, False, True)  # of the hybrid model
HYBRID_TAPS, TAPS, INNER, STATES, STEP_RANK = 3, 4, 2 * WIDTH, 16, 8
RECURRENT_LAYERS = 3
EPSILON = 1e-5


class WrongFile(Exception):
    """A file is not what it should be; the text says what."""


@dataclasses.dataclass(frozen=True)
class Value:
    """Of a key in a GGUF file: its kind, for arrays that of the elements, and what it is."""
    kind: int
    value: object
    element: int | None = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple       # the quickest dimension first, as GGUF has it
    values: array.array


class Reader:
    def __init__(self, path):
        self.path, self.at = path, 0
        with open(path, "rb") as file:
            self.data = file.read()

    def take(self, count):
        if count > len(self.data) - self.at:
            raise WrongFile(f"{self.path}: {count} bytes expected at {self.at}, and the file has {len(self.data)}")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, letter):
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]

    def text(self):
        return self.take(self.number("Q"))

    def one(self, kind):
        if kind == STRING:
            return self.text()
        if kind not in PLAIN:
            raise WrongFile(f"{self.path}: a value of kind {kind} at {self.at}; known are 0 to 12, in arrays all but {ARRAY}")
        return self.number(PLAIN[kind])

    def value(self):
        kind = self.number("I")
        if kind != ARRAY:
            return Value(kind, self.one(kind))
        element, count = self.number("I"), self.number("Q")
        return Value(kind, [self.one(element) for _ in range(count)], element)


def read_metadata(path):
    """The keys of a GGUF file and their values; strings are bytes, as a token need not be UTF-8."""
    reader = Reader(path)
    magic, version = reader.take(4), reader.number("I")
    if magic != MAGIC or version != VERSION:
        raise WrongFile(f"{path} begins with {magic!r}, version {version}, instead of {MAGIC!r}, version {VERSION}")
    _, count = reader.number("Q"), reader.number("Q")
    return {reader.text().decode(): reader.value() for _ in range(count)}


def packed_text(text):
    return struct.pack("<Q", len(text)) + text


def packed_one(kind, value):
    return packed_text(value) if kind == STRING else struct.pack(f"<{PLAIN[kind]}", value)


def packed(value):
    if value.kind != ARRAY:
        return struct.pack("<I", value.kind) + packed_one(value.kind, value.value)
    return struct.pack("<IIQ", ARRAY, value.element, len(value.value)) + b"".join(packed_one(value.element, one) for one in value.value)


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def little_endian(values):
    if sys.byteorder == "big":
        values = array.array("f", values)
        values.byteswap()
    return values.tobytes()


def write_gguf(path, metadata, tensors):
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += packed_text(key.encode()) + packed(value)
    body = b""
    for tensor in tensors:
        head += packed_text(tensor.name.encode()) + struct.pack(f"<I{len(tensor.shape)}QIQ", len(tensor.shape), *tensor.shape, F32, len(body))
        body = padded(body + little_endian(tensor.values))
    with open(path, "wb") as file:
        file.write(padded(head) + body)


def uniform(name, shape, gain=1.0):
    """Even between bounds that keep the size of what is multiplied. Python promises that random() of a seed stays what it is."""
    source = random.Random(name)
    bound = gain * math.sqrt(3 / shape[0])
    return Tensor(name, shape, array.array("f", (bound * (2 * source.random() - 1) for _ in range(math.prod(shape)))))


def around(name, shape, middle, spread):
    source = random.Random(name)
    return Tensor(name, shape, array.array("f", (middle + spread * (2 * source.random() - 1) for _ in range(math.prod(shape)))))


def norm(name, size=WIDTH):
    return around(name, (size,), 1.0, 0.25)


def printable(token):
    return len(token) == 1 and 33 <= token[0] <= 126 or len(token) == 6 and token[:3] == b"<0x" and 33 <= int(token[3:5], 16) <= 126


def embeddings(tokens, norm_name):
    """The way in and the way out. Tokens that are no visible letters have 0 as their logit, which the best of the others always exceeds."""
    way_out = uniform("output.weight", (WIDTH, len(tokens)), 3.0)
    for row, token in enumerate(tokens):
        if not printable(token):
            way_out.values[row * WIDTH:(row + 1) * WIDTH] = array.array("f", bytes(4 * WIDTH))
    return [uniform("token_embd.weight", (WIDTH, len(tokens))), norm(norm_name), way_out]


def attention_layer(block):
    """Less of it than of convolutions: the CPU rounds in attention, and a text that no rounding changes is to be compared."""
    rows = HEADS * HEAD_SIZE
    return [uniform(f"{block}.attn_q.weight", (WIDTH, rows)), uniform(f"{block}.attn_k.weight", (WIDTH, HEAD_SIZE)),
            uniform(f"{block}.attn_v.weight", (WIDTH, HEAD_SIZE)), uniform(f"{block}.attn_output.weight", (rows, WIDTH), 0.5),
            norm(f"{block}.attn_q_norm.weight", HEAD_SIZE), norm(f"{block}.attn_k_norm.weight", HEAD_SIZE)]


def convolution_layer(block):
    return [uniform(f"{block}.shortconv.in_proj.weight", (WIDTH, 3 * WIDTH)), uniform(f"{block}.shortconv.conv.weight", (HYBRID_TAPS, WIDTH)),
            uniform(f"{block}.shortconv.out_proj.weight", (WIDTH, WIDTH))]


def feed_forward(block):
    return [norm(f"{block}.ffn_norm.weight"), uniform(f"{block}.ffn_gate.weight", (WIDTH, FEED_FORWARD)),
            uniform(f"{block}.ffn_up.weight", (WIDTH, FEED_FORWARD)), uniform(f"{block}.ffn_down.weight", (FEED_FORWARD, WIDTH))]


def state_space_layer(block):
    decay = array.array("f", (-(1.0 + state) / 4 for _ in range(INNER) for state in range(STATES)))
    return [uniform(f"{block}.ssm_in.weight", (WIDTH, 2 * INNER)), uniform(f"{block}.ssm_conv1d.weight", (TAPS, INNER)),
            around(f"{block}.ssm_conv1d.bias", (INNER,), 0.0, 0.1), uniform(f"{block}.ssm_x.weight", (INNER, STEP_RANK + 2 * STATES)),
            uniform(f"{block}.ssm_dt.weight", (STEP_RANK, INNER)), around(f"{block}.ssm_dt.bias", (INNER,), -1.0, 1.0),
            Tensor(f"{block}.ssm_a", (STATES, INNER), decay), around(f"{block}.ssm_d", (INNER,), 0.5, 0.5),
            uniform(f"{block}.ssm_out.weight", (INNER, WIDTH), 2.0)]


def hybrid(tokens):
    tensors = embeddings(tokens, "token_embd_norm.weight")
    for layer, attends in enumerate(ATTENTION_LAYERS):
        block = f"blk.{layer}"
        tensors += [norm(f"{block}.attn_norm.weight"), *(attention_layer if attends else convolution_layer)(block), *feed_forward(block)]
    return "lfm2", tensors, {
        "block_count": len(ATTENTION_LAYERS), "feed_forward_length": FEED_FORWARD, "attention.head_count": HEADS,
        "attention.head_count_kv": [int(attends) for attends in ATTENTION_LAYERS], "shortconv.l_cache": HYBRID_TAPS, "rope.freq_base": 10000.0}


def recurrent(tokens):
    tensors = embeddings(tokens, "output_norm.weight")
    for layer in range(RECURRENT_LAYERS):
        tensors += [norm(f"blk.{layer}.attn_norm.weight"), *state_space_layer(f"blk.{layer}")]
    return "mamba", tensors, {
        "block_count": RECURRENT_LAYERS, "feed_forward_length": 0, "attention.head_count": 0, "ssm.conv_kernel": TAPS,
        "ssm.inner_size": INNER, "ssm.state_size": STATES, "ssm.time_step_rank": STEP_RANK}


def described(value):
    if isinstance(value, list):
        return Value(ARRAY, value, UINT32)
    return Value(FLOAT32 if isinstance(value, float) else UINT32, value)


def write_model(path, make, vocabulary_path):
    """Writes what hybrid or recurrent make, with the vocabulary of another GGUF file."""
    vocabulary = {key: value for key, value in read_metadata(vocabulary_path).items() if key.startswith(VOCABULARY)}
    if "tokenizer.ggml.tokens" not in vocabulary:
        raise WrongFile(f"{vocabulary_path} has no tokenizer.ggml.tokens")
    kind, tensors, keys = make(vocabulary["tokenizer.ggml.tokens"].value)
    keys = {"context_length": CONTEXT, "embedding_length": WIDTH, "attention.layer_norm_rms_epsilon": EPSILON, **keys}
    metadata = {"general.architecture": Value(STRING, kind.encode()), **{f"{kind}.{key}": described(value) for key, value in keys.items()}}
    write_gguf(path, {**metadata, **vocabulary}, tensors)
