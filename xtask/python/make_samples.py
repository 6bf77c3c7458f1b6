"""Make real input samples for the eight models that `xtask` sets up.

    python make_samples.py MODELS_DIR OUT_DIR [MODEL ...]

MODELS_DIR holds det.onnx, rec.onnx, cls.onnx, silero_vad.onnx, silero_vad_16k_op15.onnx,
magika.onnx, nudenet.onnx and rxnmap.onnx. For each model this writes

    OUT_DIR/<model>/real/NNN.npz       what a user would hand to `--samples`
    OUT_DIR/<model>/heldout/NNN.npz    other sources, to check what was tuned on `real`

One npz is one sample; its keys are the names of the model's inputs. Nothing is random and nothing
is downloaded: pictures come with scikit-learn and scikit-image, text lines are drawn with Pillow's
own font, speech is synthesised, reactions are textbook ones. Two runs with the same package versions
on the same machine write the same bytes. Every sample is run through onnxruntime before it counts.

Needs numpy, scipy, scikit-learn, scikit-image, pillow and onnxruntime.
"""

import argparse
import io
import json
import math
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont
from scipy.signal import lfilter

SPLITS = ("real", "heldout")


# ---------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------


def resize_bilinear(image, height, width):
    """`cv2.resize` with its default (half-pixel centres, no antialiasing) on uint8 [h, w, c]."""

    def taps(old, new):
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(int)
        return low, np.minimum(low + 1, old - 1), (position - low).astype(np.float64)

    y0, y1, fy = taps(image.shape[0], height)
    x0, x1, fx = taps(image.shape[1], width)
    pixels = image.astype(np.float64)
    rows = pixels[y0] * (1 - fy)[:, None, None] + pixels[y1] * fy[:, None, None]
    columns = rows[:, x0] * (1 - fx)[None, :, None] + rows[:, x1] * fx[None, :, None]
    return np.rint(columns).astype(np.uint8)


def as_bgr(image):
    """Any picture as uint8 [h, w, 3] in the channel order rapidocr works in."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, 2::-1])


def draw_text(lines, size, ink=20, paper=245, margin=12, spacing=1.5):
    """A grey page with `lines` set in Pillow's built-in font, one below the other."""
    font = ImageFont.load_default(size=size)
    width = max(math.ceil(font.getlength(line)) for line in lines) + 2 * margin
    step = int(size * spacing)
    page = Image.new("L", (width, step * len(lines) + 2 * margin), paper)
    pen = ImageDraw.Draw(page)
    for row, line in enumerate(lines):
        pen.text((margin, margin + row * step), line, font=font, fill=ink)
    return np.asarray(page)


def with_shading(page, seed, noise=6.0):
    """Uneven light and sensor noise, as in a photograph of a page."""
    height, width = page.shape
    light = 0.75 + 0.25 * np.linspace(0, 1, width)[None, :] * np.linspace(1, 0.8, height)[:, None]
    grain = np.random.RandomState(seed).normal(0, noise, page.shape)
    return np.clip(page * light + grain, 0, 255).astype(np.uint8)


RECEIPT = [
    "CORNER BAKERY",
    "12 Mill Lane, Oldtown",
    "Tel. 555-0142",
    "2 x Rye bread        7.80",
    "1 x Apple cake       3.25",
    "4 x Bread roll       2.40",
    "TOTAL               13.45",
    "Paid by card  **** 4821",
    "Thank you for your visit!",
]
ARTICLE = [
    "Measurements of sea level",
    "Tide gauges have recorded the height of the sea",
    "at harbours since the eighteenth century. Satellite",
    "altimeters added a global view in 1992, and both",
    "agree: the mean level rises by 3 to 4 mm per year.",
    "Most of the rise is due to melting ice and to the",
    "expansion of water as it warms.",
]
TIMETABLE = [
    "DEPARTURES      Platform",
    "08:15  North Harbour   4",
    "08:22  Airport         1",
    "08:40  Lakeside (fast) 7",
    "09:05  Museum Square   2",
    "09:10  CANCELLED       -",
]


def det_input(image, limit=640):
    """PaddleOCR's detector: longest side to `limit`, both sides multiples of 32, then (x/255-0.5)/0.5.

    rapidocr itself enlarges the shorter side to 736; the limit here keeps a sample under 5 MB and a
    run under a second.
    """
    image = as_bgr(image)
    height, width = image.shape[:2]
    ratio = limit / max(height, width)
    sides = [max(32, round(int(side * ratio) / 32) * 32) for side in (height, width)]
    pixels = resize_bilinear(image, *sides).astype(np.float32) / 255
    return {"x": ((pixels - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)}


def det_samples():
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    page = data.page()
    real = [
        page,
        page[:, :220],
        with_shading(draw_text(RECEIPT, 24), seed=1),
        draw_text(ARTICLE, 18),
        data.astronaut(),
        data.coins(),
        china,
        data.coffee(),
    ]
    heldout = [
        data.text(),
        with_shading(draw_text(TIMETABLE, 26, ink=235, paper=40), seed=2),
        data.rocket(),
        flower,
    ]
    return [det_input(image) for image in real], [det_input(image) for image in heldout]


# y0, y1, x0, x1 of text lines in skimage's `page` (a photographed page of print) and `text`
# (handwriting on a board).
PAGE_LINES = [
    (9, 35, 3, 300),
    (46, 67, 3, 160),
    (46, 67, 160, 382),
    (65, 85, 3, 252),
    (82, 103, 3, 236),
    (98, 119, 3, 240),
    (116, 138, 3, 176),
]
PAGE_LINES_HELDOUT = [(164, 190, 12, 246), (84, 104, 236, 380)]
TEXT_LINES = [(18, 62, 95, 180)]

DRAWN_LINES = [
    ("Invoice No. 2024-00317", 32),
    ("TOTAL 13.45 EUR", 24),
    ("The quick brown fox jumps over the lazy dog", 28),
]
DRAWN_LINES_HELDOUT = [
    ("08:40 Lakeside (fast) Platform 7", 30),
    ("Pack my box with five dozen liquor jugs", 26),
]


def text_lines():
    """(real, heldout) pictures of single lines of text, uint8 grey."""
    from skimage import data

    def cut(image, boxes):
        return [image[y0:y1, x0:x1] for y0, y1, x0, x1 in boxes]

    def drawn(lines):
        return [with_shading(draw_text([t], s, margin=8, spacing=1.2), seed=s) for t, s in lines]

    page = data.page()
    real = cut(page, PAGE_LINES) + drawn(DRAWN_LINES)
    heldout = cut(page, PAGE_LINES_HELDOUT) + cut(data.text(), TEXT_LINES) + drawn(DRAWN_LINES_HELDOUT)
    return real, heldout


def line_input(image, width):
    """Height 48, ratio kept, padded with zeros on the right to `width` (wider lines are squeezed)."""
    image = as_bgr(image)
    wanted = math.ceil(48 * image.shape[1] / image.shape[0])
    pixels = resize_bilinear(image, 48, min(wanted, width)).astype(np.float32) / 255
    padded = np.zeros((1, 3, 48, width), dtype=np.float32)
    padded[0, :, :, : pixels.shape[1]] = ((pixels - 0.5) / 0.5).transpose(2, 0, 1)
    return {"x": padded}


def rec_width(image):
    """rapidocr's width of a batch of one: 320, or more if the line is longer."""
    return max(320, int(48 * image.shape[1] / image.shape[0]))


def rec_samples():
    return tuple([line_input(line, rec_width(line)) for line in lines] for lines in text_lines())


def cls_samples():
    """Lines the right way up and, every other one, turned by 180 degrees."""
    return tuple(
        [
            line_input(line[::-1, ::-1] if index % 2 else line, 192)
            for index, line in enumerate(lines)
        ]
        for lines in text_lines()
    )


def nudenet_input(image, side=320):
    """NudeNet's detector: padded with black to a square at the top left, resized, RGB, x/255."""
    image = as_bgr(image)
    longest = max(image.shape[:2])
    square = np.zeros((longest, longest, 3), np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    pixels = resize_bilinear(square, side, side)[:, :, ::-1].astype(np.float32) / 255
    return {"images": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}


def faces(first, across):
    """A square of faces from skimage's sample of Labeled Faces in the Wild, as on a wall of portraits."""
    from skimage import data

    portraits = (data.lfw_subset()[first : first + across * across] * 255).astype(np.uint8)
    grey = [resize_bilinear(portrait[:, :, None], 100, 100)[:, :, 0] for portrait in portraits]
    rows = [np.concatenate(grey[k : k + across], axis=1) for k in range(0, len(grey), across)]
    return np.concatenate(rows)


def nudenet_samples():
    from skimage import data
    from sklearn.datasets import load_sample_images

    astronaut = data.astronaut()
    grey = astronaut.mean(axis=2).astype(np.uint8)
    real = [
        astronaut,
        astronaut[0:250, 120:330],
        with_shading(grey[:, ::-1], seed=3),
        faces(0, 2),
        faces(10, 3),
        (astronaut[:400, 60:420] * 0.5).astype(np.uint8),
        data.coffee(),
        data.chelsea(),
    ]
    heldout = [data.camera(), faces(60, 3), faces(80, 2), load_sample_images().images[1]]
    return [nudenet_input(image) for image in real], [nudenet_input(image) for image in heldout]


# ---------------------------------------------------------------------------------------------------
# Speech
# ---------------------------------------------------------------------------------------------------

# Formant frequencies in Hz (Peterson & Barney 1952, men's averages; the fourth is a usual constant).
VOWELS = {
    "a": (730, 1090, 2440, 3400),
    "e": (530, 1840, 2480, 3400),
    "i": (270, 2290, 3010, 3500),
    "o": (570, 840, 2410, 3300),
    "u": (300, 870, 2240, 3300),
    "@": (490, 1350, 1690, 3300),
    "m": (250, 1000, 2200, 3200),
}
# Centre and bandwidth in Hz of the noise of voiceless consonants.
FRICATIVES = {"s": (5200, 1500), "f": (3800, 3000), "h": (1500, 1400), "t": (3500, 1800)}
BANDWIDTHS = (70, 100, 150, 220)
PAUSES = {" ": 0.12, ".": 0.55, ",": 0.25}


def resonate(signal, frequency, bandwidth, rate, state):
    """A second-order resonator of unit gain at 0 Hz (Klatt 1980)."""
    radius = math.exp(-math.pi * bandwidth / rate)
    b = 2 * radius * math.cos(2 * math.pi * frequency / rate)
    c = -radius * radius
    return lfilter([1 - b - c], [1, -b, -c], signal, zi=state)


def glottal_pulses(pitches, rate, phase, random):
    """A pulse train that follows `pitches` (Hz per sample), slightly irregular, with breath noise."""
    jitter = 1 + 0.01 * random.normal(size=pitches.size)
    track = phase + np.cumsum(pitches * jitter / rate)
    pulses = np.diff(np.floor(track), prepend=math.floor(phase))
    soft = lfilter([0.15], [1, -0.85], pulses)
    return soft + 0.004 * random.normal(size=pitches.size), track[-1] % 1


def phone(symbol, duration, pitch, rate, random, memory):
    """One sound, with a raised-cosine edge; `memory` carries filter states to the next one."""
    count = int(duration * rate)
    edge = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.012 * rate))
    if symbol in FRICATIVES:
        centre, bandwidth = FRICATIVES[symbol]
        centre = min(centre, 0.42 * rate)
        noise = random.normal(size=count)
        sound, _ = resonate(noise, centre, bandwidth, rate, np.zeros(2))
        sound = np.diff(sound, prepend=0)
        return 0.05 * edge * sound / (np.abs(sound).max() + 1e-9)
    glide = pitch * (1 + 0.08 * np.sin(np.linspace(0, math.pi, count)))
    sound, memory["phase"] = glottal_pulses(glide, rate, memory["phase"], random)
    for index, (frequency, bandwidth) in enumerate(zip(VOWELS[symbol], BANDWIDTHS)):
        if frequency < 0.45 * rate:
            sound, memory[index] = resonate(sound, frequency, bandwidth, rate, memory[index])
    loudness = 0.12 if symbol == "m" else 0.3
    return loudness * (0.3 + 0.7 * edge) * sound / (np.abs(sound).max() + 1e-9)


def speech(script, pitch, rate, seed, noise):
    """A waveform in [-1, 1] for a string of phones (`VOWELS`, `FRICATIVES`) and pauses."""
    random = np.random.RandomState(seed)
    memory = {"phase": 0.0, **{index: np.zeros(2) for index in range(len(BANDWIDTHS))}}
    pieces = []
    for position, symbol in enumerate(script):
        if symbol in PAUSES:
            pieces.append(np.zeros(int(PAUSES[symbol] * rate)))
            continue
        fall = 1.12 - 0.24 * position / len(script)
        duration = 0.07 if symbol in FRICATIVES else 0.11 + 0.04 * random.uniform()
        pieces.append(phone(symbol, duration, pitch * fall, rate, random, memory))
    wave = np.concatenate(pieces)
    background = lfilter([1], [1, -0.7], random.normal(size=wave.size))
    return (0.8 * wave + noise * background).astype(np.float32)


def vad_stream(model, wave, rate):
    """Each chunk of the stream as the model's inputs, with the state the model had reached by then."""
    chunk, context = (512, 64) if rate == 16000 else (256, 32)
    state = np.zeros((2, 1, 128), np.float32)
    previous = np.zeros(context, np.float32)
    stream = []
    for start in range(0, wave.size - chunk + 1, chunk):
        window = np.concatenate([previous, wave[start : start + chunk]])
        inputs = {"input": window[None], "state": state, "sr": np.array(rate, np.int64)}
        probability, following = model.run(["output", "stateN"], inputs)
        stream.append((inputs, float(probability[0, 0])))
        state, previous = following, window[-context:]
    return stream


def pick_chunks(stream, speech_chunks, pause_chunks):
    """Chunks spread over those the model calls speech, and over those it does not."""
    body = stream[4:]
    voiced = [inputs for inputs, p in body if p >= 0.5]
    silent = [inputs for inputs, p in body if p < 0.5]
    if len(voiced) < speech_chunks or len(silent) < pause_chunks:
        raise SystemExit(f"only {len(voiced)} speech and {len(silent)} pause chunks: check the synthesis")

    def spread(chunks, count):
        return [chunks[(2 * k + 1) * len(chunks) // (2 * count)] for k in range(count)]

    return spread(voiced, speech_chunks) + spread(silent, pause_chunks)


MAN = dict(script="hemosa tiofa, masisome. fatemo hasume sitao.", pitch=115, seed=11, noise=0.002)
WOMAN = dict(script="tisa humao. semito, faheme tosi. amesu hito.", pitch=205, seed=12, noise=0.004)
LOW_VOICE = dict(script="samote hifa. emosu, tasihe fame. oituma so.", pitch=92, seed=13, noise=0.003)


def vad_samples(model, rates_real, rates_heldout):
    def from_voice(voice, rate, speech_chunks, pause_chunks):
        return pick_chunks(vad_stream(model, speech(rate=rate, **voice), rate), speech_chunks, pause_chunks)

    real = [s for voice, rate, n, m in rates_real for s in from_voice(voice, rate, n, m)]
    heldout = [s for voice, rate, n, m in rates_heldout for s in from_voice(voice, rate, n, m)]
    return real, heldout


def silero_vad_samples(model):
    return vad_samples(
        model,
        [(MAN, 16000, 3, 1), (WOMAN, 16000, 1, 1), (MAN, 8000, 3, 1)],
        [(LOW_VOICE, 16000, 2, 1), (LOW_VOICE, 8000, 1, 1)],
    )


def silero_vad_16k_samples(model):
    return vad_samples(
        model,
        [(MAN, 16000, 3, 1), (WOMAN, 16000, 3, 1)],
        [(LOW_VOICE, 16000, 3, 1)],
    )


# ---------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------

C_SOURCE = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A fixed-size ring of log lines. */
struct ring { char *lines[%d]; size_t head, count; };

static int ring_push(struct ring *r, const char *text) {
    size_t slot = (r->head + r->count) %% (sizeof r->lines / sizeof *r->lines);
    char *copy = malloc(strlen(text) + 1);
    if (copy == NULL) return -1;
    strcpy(copy, text);
    free(r->lines[slot]);
    r->lines[slot] = copy;
    r->count++;
    return 0;
}

int main(int argc, char **argv) {
    struct ring r = {0};
    for (int i = 1; i < argc; i++)
        if (ring_push(&r, argv[i]) != 0) { perror("ring_push"); return EXIT_FAILURE; }
    printf("%%zu lines\\n", r.count);
    return EXIT_SUCCESS;
}
"""

PYTHON_SOURCE = '''\
"""Moving statistics of a stream of numbers."""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Window:
    """The last `size` values seen."""

    size: int
    values: deque = field(default_factory=deque)

    def push(self, value: float) -> None:
        self.values.append(value)
        if len(self.values) > self.size:
            self.values.popleft()

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def smooth(stream, size=5):
    window = Window(size)
    for value in stream:
        window.push(value)
        yield window.mean


if __name__ == "__main__":
    print(list(smooth([1.0, 4.0, 9.0, 16.0, 25.0, 36.0], size=3)))
'''

HTML_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Tide tables</title>
<style>body { font-family: sans-serif; margin: 2em } td { padding: .2em 1em }</style></head>
<body>
<h1>Tide tables</h1>
<p>Heights are in metres above chart datum.</p>
<table>
%s
</table>
<script>document.querySelector("h1").addEventListener("click", () => window.print());</script>
</body>
</html>
"""

MARKDOWN = """\
# Ring buffer

A small library with **no dependencies**.

## Use

```c
struct ring r = {0};
ring_push(&r, "hello");
```

- constant memory
- no locks
- see [the notes](NOTES.md) for the *why*

| call | cost |
|------|------|
| push | O(n) |
| pop  | O(1) |
"""

SQL = """\
CREATE TABLE station (id INTEGER PRIMARY KEY, name TEXT NOT NULL, latitude REAL, longitude REAL);
CREATE INDEX station_name ON station (name);
INSERT INTO station VALUES (1, 'North Harbour', 54.12, 7.89), (2, 'Lakeside', 47.66, 9.18);
SELECT s.name, MAX(t.height) AS high FROM tide t JOIN station s ON s.id = t.station
WHERE t.day BETWEEN '2024-01-01' AND '2024-01-31' GROUP BY s.name HAVING COUNT(*) > 20 ORDER BY high DESC;
"""


def html_file():
    rows = "\n".join(
        f"<tr><td>{hour:02d}:{hour * 7 % 60:02d}</td><td>{1.5 + math.sin(hour / 2):.2f}</td></tr>"
        for hour in range(24)
    )
    return (HTML_PAGE % rows).encode()


def json_file(count):
    stations = [
        {"id": k, "name": f"Station {k}", "active": k % 3 != 0, "level": [round(math.sin(k * j), 3) for j in range(6)]}
        for k in range(count)
    ]
    return json.dumps({"version": 2, "stations": stations}, indent=2).encode()


def csv_file():
    rows = ["day,station,height_m,temperature_c"]
    rows += [f"2024-01-{d:02d},{s},{1.5 + math.sin(d * s):.3f},{8 + d * s % 7}" for d in range(1, 29) for s in (1, 2, 3)]
    return "\n".join(rows).encode()


def elf_file():
    """A 64-bit little-endian ELF executable: header, one program header, a few instructions."""
    header = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 0x1000)
    code = bytes.fromhex("b83c00000031ff0f05") + b"\x90" * 64
    strings = b"\0.text\0.shstrtab\0.symtab\0GCC: (GNU) 12.2.0\0_start\0main\0"
    return (header + program + code).ljust(3000, b"\0") + strings.ljust(1096, b"\0")


def zip_file():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [("ring.c", C_SOURCE % 64), ("README.md", MARKDOWN), ("tides.sql", SQL)]:
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def installed_file(module, name):
    """A data file that a pinned package carries."""
    root = Path(__import__(module, fromlist=["_"]).__file__).parent
    return (root / name).read_bytes()


def magika_input(content, ends=1024, block=4096, padding=256):
    """Magika's feature extraction v2: the first and last 1024 bytes after stripping white space."""
    begin = list(content[:block].lstrip()[:ends])
    end = list(content[max(0, len(content) - block) :].rstrip()[-ends:])
    tokens = begin + [padding] * (ends - len(begin)) + [padding] * (ends - len(end)) + end
    return {"bytes": np.array([tokens], dtype=np.int32)}


def magika_samples():
    real = [
        PYTHON_SOURCE.encode(),
        json_file(12),
        installed_file("skimage.data", "coins.png"),
        html_file(),
        csv_file(),
        (C_SOURCE % 64).encode(),
        elf_file(),
        zip_file(),
        MARKDOWN.encode(),
        "\n".join(ARTICLE[1:]).encode(),
    ]
    heldout = [
        installed_file("skimage.data", "retina.jpg"),
        SQL.encode(),
        installed_file("sklearn.datasets", "data/iris.csv"),
        installed_file("sklearn.datasets", "_samples_generator.py"),
        json_file(1).replace(b"\n", b"").replace(b"  ", b""),
    ]
    return [magika_input(f) for f in real], [magika_input(f) for f in heldout]


# ---------------------------------------------------------------------------------------------------
# Reactions
# ---------------------------------------------------------------------------------------------------

REACTIONS = [
    # Fischer esterification
    "CC(=O)O.OCC>>CC(=O)OCC",
    # Diels-Alder
    "OC(=O)C(=C)C=C.C=CC#N>>OC(=O)C1=CCCC(C1)C#N",
    # amide coupling
    "OC(=O)c1ccccc1.NCc1ccco1>>O=C(NCc1ccco1)c1ccccc1",
    # Suzuki coupling
    "Brc1ccc(cc1)C(C)=O.OB(O)c1ccncc1>>CC(=O)c1ccc(cc1)-c1ccncc1",
    # synthesis of aspirin
    "OC(=O)c1ccccc1O.CC(=O)OC(C)=O>>CC(=O)Oc1ccccc1C(=O)O.CC(=O)O",
    # Fischer indole synthesis
    "NNc1ccc(OC)cc1.CC(=O)CCC(=O)O>>COc1ccc2[nH]c(C)c(CC(=O)O)c2c1",
    # Williamson ether synthesis with a quinoline
    "Oc1cccc2cccnc12.ClCCN1CCOCC1>>C(COc1cccc2cccnc12)N1CCOCC1",
    # Buchwald-Hartwig amination, a larger molecule
    "FC(F)(F)c1ccc(Cl)nc1.CC(C)(C)OC(=O)N1CCNCC1.CCN(CC)CC>>CC(C)(C)OC(=O)N1CCN(CC1)c1ccc(cn1)C(F)(F)F",
    # esterification of cholesterol
    "CC(C)CCCC(C)C1CCC2C3CC=C4CC(O)CCC4(C)C3CCC12C.OC(=O)CCc1ccccc1"
    ">>CC(C)CCCC(C)C1CCC2C3CC=C4CC(OC(=O)CCc5ccccc5)CCC4(C)C3CCC12C.O",
]
REACTIONS_HELDOUT = [
    # nucleophilic aromatic substitution
    "Fc1ccc(cc1)[N+](=O)[O-].C1CCNCC1>>O=[N+]([O-])c1ccc(cc1)N1CCCCC1",
    # Wittig reaction
    "O=Cc1ccc2OCOc2c1.C=P(c1ccccc1)(c1ccccc1)c1ccccc1>>C=Cc1ccc2OCOc2c1.O=P(c1ccccc1)(c1ccccc1)c1ccccc1",
    # reductive amination
    "CC(=O)CCc1ccccc1.NCC1CCCO1>>CC(CCc1ccccc1)NCC1CCCO1",
    # click reaction
    "C#CCOc1ccc(Cl)cc1.[N-]=[N+]=NCCc1ccccc1>>Clc1ccc(OCc2cn(CCc3ccccc3)nn2)cc1",
]

ATOMIC_NUMBERS = {"H": 1, "B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "Si": 14, "P": 15, "S": 16, "Cl": 17, "Br": 35, "I": 53}
VALENCES = {"B": [3], "C": [4], "N": [3, 5], "O": [2], "F": [1], "P": [3, 5], "S": [2, 4, 6], "Cl": [1], "Br": [1], "I": [1]}
SMILES_TOKEN = re.compile(r"\[([A-Za-z][a-z]?)(?:H(\d*))?([+-]*)\]|(Cl|Br|[BCNOFPSI]|[bcnops])|([-=#:])|([()])|(\d)")


class Molecule:
    """The little of a molecule that the model sees: elements, bonds, implicit hydrogens."""

    def __init__(self):
        self.elements, self.aromatic, self.hydrogens, self.bonds = [], [], [], []

    def add_atom(self, symbol, hydrogens=None):
        self.elements.append(symbol.capitalize())
        self.aromatic.append(symbol.islower())
        self.hydrogens.append(hydrogens)

    def add_bond(self, left, right, order):
        if order is None:
            order = 1.5 if self.aromatic[left] and self.aromatic[right] else 1
        self.bonds.append((left, right, order))

    def degrees(self):
        return np.bincount(np.array([b[:2] for b in self.bonds], int).ravel(), minlength=len(self.elements))

    def hydrogen_counts(self):
        """As written in brackets, else what fills the lowest valence that the bonds fit into."""
        used = np.zeros(len(self.elements))
        for left, right, order in self.bonds:
            used[[left, right]] += order
        return [
            given if given is not None else implicit_hydrogens(element, aromatic, total)
            for element, aromatic, given, total in zip(self.elements, self.aromatic, self.hydrogens, used)
        ]

    def distances(self):
        """Bonds on the shortest path between every two atoms, by breadth-first search."""
        count = len(self.elements)
        neighbours = [[] for _ in range(count)]
        for left, right, _ in self.bonds:
            neighbours[left].append(right)
            neighbours[right].append(left)
        table = np.full((count, count), -1)
        for source in range(count):
            front, steps = [source], 0
            while front:
                for atom in front:
                    table[source, atom] = steps
                front = sorted({n for a in front for n in neighbours[a] if table[source, n] < 0})
                steps += 1
        return table


def implicit_hydrogens(element, aromatic, used):
    if aromatic and element != "C":
        return 0
    total = math.floor(used)
    return max(0, next((v for v in VALENCES[element] if v >= total), total) - total)


def parse_smiles(text):
    """A `Molecule` from SMILES: organic subset, brackets with hydrogens and charge, branches, rings."""
    molecule, stack, rings, last, order = Molecule(), [], {}, None, None
    position = 0
    while position < len(text):
        match = SMILES_TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"cannot read SMILES {text!r} at {position}")
        position = match.end()
        bracket, hydrogens, _charge, atom, bond, parenthesis, ring = match.groups()
        if atom or bracket:
            stated = None if atom else (0 if hydrogens is None else int(hydrogens or 1))
            molecule.add_atom(atom or bracket, stated)
            new = len(molecule.elements) - 1
            if last is not None:
                molecule.add_bond(last, new, order)
            last, order = new, None
        elif bond:
            order = {"-": 1, "=": 2, "#": 3, ":": 1.5}[bond]
        elif parenthesis == "(":
            stack.append(last)
        elif parenthesis == ")":
            last = stack.pop()
        elif ring in rings:
            molecule.add_bond(rings.pop(ring), last, order)
            order = None
        else:
            rings[ring] = last
    return molecule


def encode_molecule(molecule):
    """(atoms, neighbors, distances) with the molecule's own class token first."""
    count = len(molecule.elements)
    atoms = np.array([1] + [ATOMIC_NUMBERS[e] + 2 for e in molecule.elements])
    crowd = molecule.degrees() + np.array(molecule.hydrogen_counts())
    neighbors = np.concatenate([[0], np.minimum(crowd, 14) + 2])
    distances = np.ones((count + 1, count + 1), dtype=np.int64)
    bonds = molecule.distances()
    distances[1:, 1:] = np.where(bonds < 0, 1, np.minimum(bonds, 10) + 2)
    return atoms, neighbors, distances


def encode_reaction(text):
    """The four inputs of rxnmap, as chython's `reactions/attention/_encode.py` builds them.

    One row of tokens: the reaction's class token, then each molecule's class token and atoms.
    `distances` is block diagonal, one block per molecule, zero between them.
    """
    atoms, neighbors, roles, blocks = [[0]], [[0]], [[1]], [np.ones((1, 1), np.int64)]
    for role, side in zip((2, 3), text.split(">>")):
        for smiles in side.split("."):
            a, n, d = encode_molecule(parse_smiles(smiles))
            atoms.append(a)
            neighbors.append(n)
            roles.append([0] + [role] * (len(a) - 1))
            blocks.append(d)
    total = sum(len(block) for block in blocks)
    distances = np.zeros((total, total), dtype=np.int64)
    start = 0
    for block in blocks:
        distances[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    row = {"atoms": np.concatenate(atoms), "neighbors": np.concatenate(neighbors), "roles": np.concatenate(roles)}
    return {**{k: v[None].astype(np.int64) for k, v in row.items()}, "distances": distances[None]}


def rxnmap_samples():
    return [encode_reaction(r) for r in REACTIONS], [encode_reaction(r) for r in REACTIONS_HELDOUT]


# ---------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------

# Each maker gets the float model's session and returns (real, heldout) lists of {input name: array}.
MAKERS = {
    "det": lambda _: det_samples(),
    "rec": lambda _: rec_samples(),
    "cls": lambda _: cls_samples(),
    "silero_vad": silero_vad_samples,
    "silero_vad_16k_op15": silero_vad_16k_samples,
    "magika": lambda _: magika_samples(),
    "nudenet": lambda _: nudenet_samples(),
    "rxnmap": lambda _: rxnmap_samples(),
}


def open_model(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check(model, name, sample):
    """Run the sample; the outputs must be finite."""
    for output, value in zip(model.get_outputs(), model.run(None, sample)):
        if not np.isfinite(value).all():
            raise SystemExit(f"{name}: output {output.name} is not finite")


def write_npz(path, sample):
    """`np.savez` without anything that varies between runs: entries carry zip's earliest date."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, value in sample.items():
            buffer = io.BytesIO()
            array = np.asarray(value)
            # `ascontiguousarray` would turn a scalar into a vector of one.
            np.lib.format.write_array(buffer, np.ascontiguousarray(array).reshape(array.shape))
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), buffer.getvalue())


def write_samples(model, name, out_dir):
    total = 0
    counts = []
    for split, samples in zip(SPLITS, MAKERS[name](model)):
        folder = out_dir / name / split
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.npz"):
            stale.unlink()
        for index, sample in enumerate(samples):
            path = folder / f"{index:03d}.npz"
            check(model, f"{name}/{split}/{index:03d}", sample)
            write_npz(path, sample)
            total += path.stat().st_size
        counts.append(f"{len(samples)} {split}")
    print(f"{name}: {', '.join(counts)}, {total / 1e6:.2f} MB")
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MAKERS)}; default all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.models if name not in MAKERS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}")
    names = arguments.models or list(MAKERS)
    missing = [n for n in names if not (arguments.models_dir / f"{n}.onnx").is_file()]
    if missing:
        parser.error(f"not in {arguments.models_dir}: {', '.join(f'{n}.onnx' for n in missing)}")

    onnxruntime.disable_telemetry_events()
    total = sum(write_samples(open_model(arguments.models_dir / f"{n}.onnx"), n, arguments.out_dir) for n in names)
    print(f"total: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
