#!/usr/bin/env python3
"""What cache formats lose, by a float32 forward that shares no code with Winnow.

    pip install numpy==2.4.6 gguf==0.19.0
    WINNOW_FIDELITY_PLACE=1000 WINNOW_FIDELITY_TOKENS=ids build/bin/format_fidelity_test > log
    bench/format_reference.py GGUF ids.SmolLM2-135M [--ours log]

The file is dequantised and run in NumPy (llama and qwen2). The ids are 1,536 tokens of a prompt and
192 that are forced behind it, one after another, as the test writes them for the place that it
measures. The prompt's K and V are rounded to half precision, its packed part then to each format
and back; the forced tokens attend to that, and the mean KL divergence to the unpacked cache is
printed beside the figures that another float32 reference gave for another English text. With
--ours also what the test printed for the same ids. The last two rows are read in three ways: the
prompt packed alone; each forced token packed too, itself among what it attends to; and the prompt
read through the packed cache as well, as llama.cpp runs it.
"""
import argparse
import re

import gguf
import numpy as np

PROMPT, SINKS, TAIL = 1536, 4, 128


def half(x):
    return np.asarray(x, np.float32).astype(np.float16).astype(np.float32)


class Model:
    """Weights as float32 and what the header says."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.weights = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
                        for t in reader.tensors}
        self.arch = reader.fields["general.architecture"].contents()

        def field(name):
            return reader.fields[f"{self.arch}.{name}"].contents()

        self.layers, self.heads = field("block_count"), field("attention.head_count")
        self.kv_heads = field("attention.head_count_kv")
        self.eps = np.float32(field("attention.layer_norm_rms_epsilon"))
        self.dim = field("embedding_length") // self.heads
        self.base = field("rope.freq_base")

    def norm(self, x, name):
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps)
        return x * scale * self.weights[name + ".weight"]

    def linear(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias

    def rope(self, x, first):
        """Turns x [T][heads][D], whose tokens stand from `first` on."""
        position = np.arange(first, first + x.shape[0], dtype=np.float64)
        angle = position[:, None] * self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        cos = np.cos(angle).astype(np.float32)[:, None]
        sin = np.sin(angle).astype(np.float32)[:, None]
        y = np.empty_like(x)
        # Files of llama's architecture hold Q and K for neighbours as pairs, others for halves.
        pairs = self.arch == "llama"
        even = slice(0, None, 2) if pairs else slice(0, self.dim // 2)
        odd = slice(1, None, 2) if pairs else slice(self.dim // 2, None)
        y[..., even] = x[..., even] * cos - x[..., odd] * sin
        y[..., odd] = x[..., even] * sin + x[..., odd] * cos
        return y

    def attend(self, q, k, v, first):
        """Causal attention of q [T][H][D] over k and v [S][G][D], S = first + T."""
        t, group = q.shape[0], self.heads // self.kv_heads
        out = np.empty_like(q)
        future = np.triu(np.full((t, t), -np.inf, np.float32), 1)
        for g in range(self.kv_heads):
            heads = slice(g * group, (g + 1) * group)
            rows = q[:, heads].transpose(1, 0, 2).reshape(group * t, self.dim)
            scores = rows / np.float32(np.sqrt(self.dim)) @ k[:, g].T
            scores.reshape(group, t, -1)[..., first:] += future
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            y = scores @ v[:, g] / scores.sum(-1, keepdims=True)
            out[:, heads] = y.reshape(group, t, self.dim).transpose(1, 0, 2)
        return out

    def forward(self, ids, first, past, restore=None):
        """Hidden states of tokens that stand from `first` on, behind `past(layer)`, which gives K
        and V of those before. Returns them and each layer's own K before RoPE, K, and V. `restore`
        (k, v) is what the tokens themselves find of their own K and V."""
        x = self.weights["token_embd.weight"][ids]
        own = []
        for layer in range(self.layers):
            name = f"blk.{layer}."
            h = self.norm(x, name + "attn_norm")
            plain = self.linear(h, name + "attn_k").reshape(len(ids), self.kv_heads, self.dim)
            v = half(self.linear(h, name + "attn_v")).reshape(plain.shape)
            q = self.linear(h, name + "attn_q").reshape(len(ids), self.heads, self.dim)
            k = half(self.rope(plain, first))
            own.append((plain, k, v))
            if restore:
                k, v = restore(k, v)
            if first:
                before = past(layer)
                k, v = np.concatenate([before[0], k]), np.concatenate([before[1], v])
            y = self.attend(self.rope(q, first), k, v, first)
            x = x + self.linear(y.reshape(len(ids), -1), name + "attn_output")
            h = self.norm(x, name + "ffn_norm")
            gate = self.linear(h, name + "ffn_gate")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * self.linear(h, name + "ffn_up"),
                                name + "ffn_down")
        return x, own

    def log_probabilities(self, x):
        head = "output" if "output.weight" in self.weights else "token_embd"
        logits = self.linear(self.norm(x, "output_norm"), head)
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits, dtype=np.float64).sum(-1, keepdims=True))


# Formats restore x [T][G][D].
def affine(x, bits, axis):
    """x' = code * s + z, s and z in half precision, the groups along `axis`."""
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    s, z = half((high - low) / (2 ** bits - 1)), half(low)
    code = np.clip(np.round((x - z) / np.where(s > 0, s, 1)), 0, 2 ** bits - 1)
    return code * s + z


def per_channel(x, bits, group=32):
    """Groups of tokens, whole ones."""
    t, g, d = x.shape
    return affine(x.reshape(t // group, group, g, d), bits, 1).reshape(x.shape)


def per_token(x, bits, group=32):
    t, g, d = x.shape
    return affine(x.reshape(t, g, d // group, group), bits, 3).reshape(x.shape)


def hadamard(x):
    h = np.ones((1, 1), np.float32)
    while h.shape[0] < x.shape[-1]:
        h = np.block([[h, h], [h, -h]])
    return x @ (h / np.float32(np.sqrt(h.shape[0])))


def rotated(x, restore):
    return hadamard(restore(hadamard(x)))


def q4_0(x):
    """ggml's blocks of 32: the largest magnitude becomes code 0 of 16, the middle is 8."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    most = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scale = most / -8
    inverse = np.where(scale == 0, 0, 1 / np.where(scale == 0, 1, scale))
    code = np.clip(np.floor(blocks * inverse + 8.5), 0, 15)
    return ((code - 8) * half(scale)).reshape(x.shape)


def kvarn(x, bits, key, lengths):
    """Tiles of 128 tokens; 8 steps by turns per channel and per token, of the root mean square."""
    out = []
    for tile in np.split(x, range(128, x.shape[0], 128)):
        scales = {0: np.ones_like(tile[:1]), 2: np.ones_like(tile[..., :1])}
        y = tile.astype(np.float64)
        for step in range(8):
            axis = 2 * (step % 2)
            rms = np.sqrt((y * y).mean(axis, keepdims=True))
            rms[rms == 0] = 1
            y, scales[axis] = y / rms, scales[axis] * rms
        # The one scale that cannot be folded into those of the groups is stored apart.
        apart = 2 if key else 0
        scale = scales[apart]
        scale = half(scale / np.exp(np.log(scale).mean(2 - apart, keepdims=True)))
        lanes = tile / scale
        restored = affine(lanes, bits, 2 - apart)
        if lengths:
            before, after = ((a * a).sum(apart, keepdims=True) for a in (lanes, restored))
            scale = half(scale * np.sqrt(before / np.where(after > 0, after, 1)))
        out.append(restored * scale)
    return np.concatenate(out)


def turned_kvarn(bits, lengths=False):
    """The functions of K and of V."""
    return [lambda x, key=key: rotated(x, lambda y: kvarn(y, bits, key, lengths))
            for key in (True, False)]


class Row:
    """A name, the other reference's figures, the functions of K and V, and what the test prints for
    --ours. `whole` packs all tokens, no sinks and no tail."""

    def __init__(self, name, published, k, v, ours=None, before_rope=False, centred=False,
                 group=32, whole=False):
        self.name, self.published, self.k, self.v, self.ours = name, published, k, v, ours
        self.before_rope, self.centred, self.group, self.whole = before_rope, centred, group, whole


def rows():
    def kivi(bits_k, bits_v):
        return lambda x: per_channel(x, bits_k), lambda x: per_token(x, bits_v)

    def turned(bits):
        return [lambda x: rotated(x, lambda y: per_token(y, bits))] * 2

    for bits, published in ((4, (.0007, .0014)), (3, (.0038, .0090)), (2, (.055, .099))):
        yield Row(f"kivi {bits}", published, *kivi(bits, bits), f"kivi {bits} {bits} 32")
    yield Row("kivi K 3, V 2", (None, .017), *kivi(3, 2), "kivi 3 2 32")
    for bits, published in ((4, (.0006, .0013)), (3, (.0041, .0089)), (2, (.051, .100))):
        yield Row(f"kivi before RoPE {bits}", published, *kivi(bits, bits), before_rope=True)
    for bits, published in ((4, (.0028, .46)), (2, (1.17, 2.5))):
        sides = [lambda x, bits=bits: per_token(x, bits, 64)] * 2
        yield Row(f"keys per token, group 64, {bits}", published, *sides,
                  f"kivi {bits} {bits} 64", group=64)
    yield Row("rotated 4", (.0010, 4.0), *turned(4))
    for bits, published in ((4, (None, .0031)), (3, (None, None)), (2, (None, None))):
        yield Row(f"rotated {bits}, centred", published, *turned(bits),
                  f"rotated {bits} {bits} 32", centred=True)
    for bits, published in ((4, (.0004, .085)), (3, (.0021, .21)), (2, (.057, .48))):
        yield Row(f"kvarn {bits}", published, *turned_kvarn(bits))
    for bits, published in ((4, (.0005, .0027)), (3, (.0034, .018)), (2, (.047, .24))):
        before = {"before_rope": True, "centred": True}
        yield Row(f"kvarn {bits}, before RoPE, centred", published, *turned_kvarn(bits), **before)
        yield Row("  the same, lengths given back", (None, None), *turned_kvarn(bits, True),
                  f"kvarn {bits} {bits} 32", **before)
    yield Row("q4_0, rotated", (.0035, .64), *[lambda x: rotated(x, q4_0)] * 2, whole=True)
    yield Row("q4_0", (.0082, .077), q4_0, q4_0, whole=True)


def packed(model, prompt, row):
    """Per layer K and V of the prompt after the row's format."""
    first, end = SINKS, SINKS + (PROMPT - SINKS - TAIL) // row.group * row.group
    if row.whole:
        first, end = 0, PROMPT

    def side(x, restore):
        centre = x[SINKS:].mean(0) if row.centred else 0
        return restore(x[first:end] - centre) + centre

    out = []
    for plain, k, v in prompt:
        k_of_row = model.rope(side(plain, row.k), first) if row.before_rope else side(k, row.k)
        out.append([np.concatenate([x[:first], y, x[end:]])
                    for x, y in ((k, k_of_row), (v, side(v, row.v)))])
    return out


def printed_by_test(log, ids):
    """{"kivi 4 4 32": KL} of the block of the test's output whose model the file of ids names."""
    found, inside = {}, False
    for line in open(log, encoding="utf-8"):
        if header := re.match(r"(\S+), \d+ \+ \d+ tokens", line):
            inside = ids.endswith("." + header[1])
        row = re.match(r"  (\w+) +K (\d) V (\d) group (\d+) .* KL ([\d.]+)", line)
        if row and inside:
            found[" ".join(row.groups()[:4])] = float(row[5])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf")
    parser.add_argument("ids")
    parser.add_argument("--only", default="", help="a regular expression on the rows' names")
    parser.add_argument("--ours", help="what format_fidelity_test printed for these ids")
    args = parser.parse_args()
    model = Model(args.gguf)
    ids = np.loadtxt(args.ids, dtype=np.int64, ndmin=1)
    ours = printed_by_test(args.ours, args.ids) if args.ours else {}
    which = 1 if model.arch == "qwen2" else 0

    _, prompt = model.forward(ids[:PROMPT], 0, None)
    forced = ids[PROMPT:]

    def log_p(caches, restore=None):
        x, _ = model.forward(forced, PROMPT, lambda layer: caches[layer], restore)
        return model.log_probabilities(x)

    full = log_p([(k, v) for _, k, v in prompt])
    weight = np.exp(full)

    def loss(other):
        return (weight * (full - other)).sum() / len(forced)

    surprise = -full[np.arange(len(forced) - 1), forced[1:]].mean()
    print(f"{args.gguf}, {PROMPT} + {len(forced)} tokens, perplexity {np.exp(surprise):.1f}")
    print(f"{'':36} {'this':>8} {'winnow':>8} {'ratio':>6} {'other text':>10} {'ratio':>6}")
    for row in rows():
        if not re.search(args.only, row.name):
            continue
        caches = packed(model, prompt, row)
        kl = loss(log_p(caches))
        mine, published = ours.get(row.ours), row.published[which]
        cells = [f"{kl:8.5f}", f"{mine:8.5f}" if mine else " " * 8,
                 f"{mine / kl:6.2f}" if mine else " " * 6,
                 f"{published:10.4f}" if published else " " * 10,
                 f"{kl / published:6.2f}" if published else ""]
        print(f"{row.name:36} {' '.join(cells)}", flush=True)
        if row.whole:
            own = lambda k, v, row=row: (row.k(k), row.v(v))
            print(f"{'  new tokens packed too':36} {loss(log_p(caches, own)):8.5f}", flush=True)
            _, read = model.forward(ids[:PROMPT], 0, None, own)
            print(f"{'  and the prompt read through it':36} "
                  f"{loss(log_p(packed(model, read, row), own)):8.5f}", flush=True)


if __name__ == "__main__":
    main()
