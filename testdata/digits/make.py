"""Train two small classifiers of handwritten digits with numpy and export them to ONNX.

    python make.py            writes cnn.onnx, mlp.onnx and heldout.npz beside this file

Needs numpy, scikit-learn (for the pictures), onnx and onnxruntime. Takes about a minute.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
HELD_OUT = 599
CLASSES = 10


def load_data():
    """((images, labels) to train on, (images, labels) held out); images float32 [n, 1, 8, 8] in [0, 1]."""
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    return (images[HELD_OUT:], labels[HELD_OUT:]), (images[:HELD_OUT], labels[:HELD_OUT])


# --- Layers. `forward` keeps what `backward` needs; `params` and `grads` line up. ---


class Dense:
    def __init__(self, random, inputs, outputs):
        self.params = [he_normal(random, inputs, (inputs, outputs)), np.zeros(outputs, np.float32)]

    def forward(self, x, training):
        self.x = x
        return x @ self.params[0] + self.params[1]

    def backward(self, grad):
        self.grads = [self.x.T @ grad, grad.sum(0)]
        return grad @ self.params[0].T


class Conv3x3:
    """Stride 1, padding 1, weights [out, in, 3, 3]."""

    def __init__(self, random, inputs, outputs, bias=True):
        weight = he_normal(random, inputs * 9, (outputs, inputs, 3, 3))
        self.params = [weight, np.zeros(outputs, np.float32)] if bias else [weight]

    def forward(self, x, training):
        n, _, h, w = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        self.columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)
        self.shape = x.shape
        weight = self.params[0]
        out = self.columns @ weight.reshape(len(weight), -1).T
        if len(self.params) == 2:
            out += self.params[1]
        return out.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, grad):
        n, c, h, w = self.shape
        weight = self.params[0]
        rows = grad.transpose(0, 2, 3, 1).reshape(n * h * w, -1)
        self.grads = [(rows.T @ self.columns).reshape(weight.shape), rows.sum(0)][: len(self.params)]
        columns = (rows @ weight.reshape(len(weight), -1)).reshape(n, h, w, c, 3, 3)
        padded = np.zeros((n, c, h + 2, w + 2), np.float32)
        for dy in range(3):
            for dx in range(3):
                padded[:, :, dy : dy + h, dx : dx + w] += columns[..., dy, dx].transpose(0, 3, 1, 2)
        return padded[:, :, 1:-1, 1:-1]


class BatchNorm:
    epsilon = 1e-5

    def __init__(self, channels):
        self.params = [np.ones(channels, np.float32), np.zeros(channels, np.float32)]
        self.mean = np.zeros(channels, np.float32)
        self.variance = np.ones(channels, np.float32)

    def forward(self, x, training):
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.mean = 0.9 * self.mean + 0.1 * mean
            self.variance = 0.9 * self.variance + 0.1 * variance
        else:
            mean, variance = self.mean, self.variance
        self.inverse = 1 / np.sqrt(channelwise(variance) + np.float32(self.epsilon))
        self.normal = (x - channelwise(mean)) * self.inverse
        return channelwise(self.params[0]) * self.normal + channelwise(self.params[1])

    def backward(self, grad):
        self.grads = [(grad * self.normal).sum((0, 2, 3)), grad.sum((0, 2, 3))]
        scaled = grad * channelwise(self.params[0])
        centred = scaled - scaled.mean((0, 2, 3), keepdims=True)
        along = (scaled * self.normal).mean((0, 2, 3), keepdims=True)
        return (centred - self.normal * along) * self.inverse


class Relu:
    params = grads = ()

    def forward(self, x, training):
        self.alive = x > 0
        return x * self.alive

    def backward(self, grad):
        return grad * self.alive


class MaxPool2:
    params = grads = ()

    def forward(self, x, training):
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        out = blocks.max((3, 5), keepdims=True)
        self.winners = blocks == out
        return out[:, :, :, 0, :, 0]

    def backward(self, grad):
        share = self.winners / self.winners.sum((3, 5), keepdims=True)
        blocks = share * grad[:, :, :, None, :, None]
        n, c, h, _, w, _ = blocks.shape
        return blocks.reshape(n, c, 2 * h, 2 * w).astype(np.float32)


class Flatten:
    params = grads = ()

    def forward(self, x, training):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad):
        return grad.reshape(self.shape)


def he_normal(random, fan_in, shape):
    return random.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)


def channelwise(vector):
    return vector[None, :, None, None]


# --- Training ---


def predict(layers, x, training=False):
    for layer in layers:
        x = layer.forward(x, training)
    return x


def cross_entropy_gradient(scores, labels):
    exp = np.exp(scores - scores.max(1, keepdims=True))
    probabilities = exp / exp.sum(1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return probabilities / len(labels)


def shifted(images, random):
    """Each picture moved by up to one pixel each way, for variety."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    corners = random.randint(0, 3, (len(images), 2))
    return np.stack([p[:, y : y + 8, x : x + 8] for p, (y, x) in zip(padded, corners)])


class Adam:
    def __init__(self, layers, decay):
        self.layers, self.decay, self.step = layers, decay, 0
        self.moments = [[[np.zeros_like(p), np.zeros_like(p)] for p in layer.params] for layer in layers]

    def update(self, rate):
        self.step += 1
        for layer, moments in zip(self.layers, self.moments):
            for param, grad, (first, second) in zip(layer.params, layer.grads, moments):
                first += 0.1 * (grad - first)
                second += 0.001 * (grad * grad - second)
                direction = first / (1 - 0.9**self.step)
                size = np.sqrt(second / (1 - 0.999**self.step)) + 1e-8
                param -= rate * (direction / size + self.decay * param)


def train(layers, images, labels, epochs, batch=32, rate=2e-3, decay=1e-2, seed=1):
    random = np.random.RandomState(seed)
    adam = Adam(layers, decay)
    for epoch in range(epochs):
        order = random.permutation(len(images))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            grad = cross_entropy_gradient(predict(layers, shifted(images[rows], random), True), labels[rows])
            for layer in reversed(layers):
                grad = layer.backward(grad)
            adam.update(rate * (1 - epoch / epochs))
    return layers


def accuracy(scores, labels):
    return float((scores.argmax(1) == labels).mean())


# --- Export ---


def tensors(named):
    return [numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in named.items()]


def batchnorm_tensors(prefix, layer):
    scale, shift = layer.params
    return {
        f"{prefix}.scale": scale,
        f"{prefix}.shift": shift,
        f"{prefix}.mean": layer.mean,
        f"{prefix}.variance": layer.variance,
    }


def save(name, nodes, weights):
    graph = helper.make_graph(
        nodes,
        f"digits_{name}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        tensors(weights),
    )
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name="modelopt-testdata"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, HERE / f"{name}.onnx")
    return sum(value.size for value in weights.values())


def train_cnn(images, labels):
    random = np.random.RandomState(2)
    return train(
        [
            Conv3x3(random, 1, 16, bias=False), BatchNorm(16), Relu(),
            Conv3x3(random, 16, 32), Relu(), MaxPool2(),
            Conv3x3(random, 32, 64, bias=False), BatchNorm(64), Relu(), MaxPool2(),
            Flatten(), Dense(random, 256, 64), Relu(), Dense(random, 64, CLASSES),
        ],
        images, labels, epochs=30,
    )  # fmt: skip


def export_cnn(layers):
    conv1, norm1, _, conv2, _, _, conv3, norm2, _, _, _, dense1, _, dense2 = layers
    weights = {
        "conv1.weight": conv1.params[0],
        **batchnorm_tensors("norm1", norm1),
        "conv2.weight": conv2.params[0],
        "conv2.bias": conv2.params[1],
        "conv3.weight": conv3.params[0],
        **batchnorm_tensors("norm2", norm2),
        "dense1.weight": dense1.params[0].T,
        "dense1.bias": dense1.params[1],
        "dense2.weight": dense2.params[0].T,
        "dense2.bias": dense2.params[1],
    }

    def conv(prefix, source, target, bias=()):
        return helper.make_node(
            "Conv", [source, f"{prefix}.weight", *bias], [target], prefix, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        )

    def norm(prefix, source, target):
        vectors = [f"{prefix}.{part}" for part in ("scale", "shift", "mean", "variance")]
        return helper.make_node("BatchNormalization", [source, *vectors], [target], prefix, epsilon=BatchNorm.epsilon)

    def gemm(prefix, source, target):
        return helper.make_node("Gemm", [source, f"{prefix}.weight", f"{prefix}.bias"], [target], prefix, transB=1)

    def pool(source, target):
        return helper.make_node("MaxPool", [source], [target], target, kernel_shape=[2, 2], strides=[2, 2])

    def unary(op, source, target):
        return helper.make_node(op, [source], [target], target)

    nodes = [
        conv("conv1", "image", "conv1.out"),
        norm("norm1", "conv1.out", "norm1.out"),
        unary("Relu", "norm1.out", "relu1"),
        conv("conv2", "relu1", "conv2.out", ["conv2.bias"]),
        unary("Relu", "conv2.out", "relu2"),
        pool("relu2", "pool1"),
        conv("conv3", "pool1", "conv3.out"),
        norm("norm2", "conv3.out", "norm2.out"),
        unary("Relu", "norm2.out", "relu3"),
        pool("relu3", "pool2"),
        unary("Flatten", "pool2", "flat"),
        gemm("dense1", "flat", "dense1.out"),
        unary("Relu", "dense1.out", "relu4"),
        gemm("dense2", "relu4", "scores"),
    ]
    return save("cnn", nodes, weights)


def train_mlp(images, labels):
    random = np.random.RandomState(3)
    return train(
        [
            Flatten(),
            Dense(random, 64, 256), Relu(),
            Dense(random, 256, 128), Relu(),
            Dense(random, 128, CLASSES),
        ],
        images, labels, epochs=60,
    )  # fmt: skip


def export_mlp(layers):
    _, dense1, _, dense2, _, dense3 = layers
    weights = {
        "dense1.weight": dense1.params[0],
        "dense1.bias": dense1.params[1],
        "dense2.weight": dense2.params[0],
        "dense2.bias": dense2.params[1],
        "dense3.weight": dense3.params[0].T,
        "dense3.bias": dense3.params[1],
    }

    def matmul_add_relu(prefix, source):
        return [
            helper.make_node("MatMul", [source, f"{prefix}.weight"], [f"{prefix}.product"], f"{prefix}.matmul"),
            helper.make_node("Add", [f"{prefix}.product", f"{prefix}.bias"], [f"{prefix}.sum"], f"{prefix}.add"),
            helper.make_node("Relu", [f"{prefix}.sum"], [f"{prefix}.out"], f"{prefix}.relu"),
        ]

    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], "flatten"),
        *matmul_add_relu("dense1", "flat"),
        *matmul_add_relu("dense2", "dense1.out"),
        helper.make_node("Gemm", ["dense2.out", "dense3.weight", "dense3.bias"], ["scores"], "dense3", transB=1),
    ]
    return save("mlp", nodes, weights)


def check_export(name, layers, images, labels):
    """The exported model scores the held-out pictures as the trained layers do."""
    session = onnxruntime.InferenceSession(str(HERE / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"image": images})[0]
    np.testing.assert_allclose(scores, predict(layers, images), rtol=1e-3, atol=1e-3)
    return accuracy(scores, labels)


def main():
    onnxruntime.disable_telemetry_events()
    (images, labels), (held_images, held_labels) = load_data()
    for name, trainer, export in [("cnn", train_cnn, export_cnn), ("mlp", train_mlp, export_mlp)]:
        layers = trainer(images, labels)
        count = export(layers)
        score = check_export(name, layers, held_images, held_labels)
        print(f"{name}: {count} parameters, {score:.4f} of {len(held_labels)} held-out pictures right")
    np.savez_compressed(HERE / "heldout.npz", image=held_images, label=held_labels)


if __name__ == "__main__":
    main()
