"""RealNVP, NICE, Glow and FFJORD against TFP's own bijectors with the same parameters."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import math as tfp_math

from tests.heads.table import features, make


def compare(head, oracle, atol=1e-10):
    z = head.project(features())
    y, log_scales = head.flow(z)
    np.testing.assert_allclose(y, oracle.forward(z), atol=atol)
    log_det = oracle.forward_log_det_jacobian(z, event_ndims=1)
    expected = np.broadcast_to(np.asarray(log_det), (len(z),)).mean() / head.dim
    np.testing.assert_allclose(head.regularity(log_scales, "log_det"), expected, atol=atol)
    np.testing.assert_allclose(head.inverse(y), oracle.inverse(tf.identity(y)), atol=max(atol, 1e-9))


def network(net, bound, shift_only=False):
    """TFP's `shift_and_log_scale_fn`, in plain matrix products."""

    def shift_and_log_scale(x, _):
        hidden, last = net.stack
        out = tf.matmul(tf.tanh(tf.matmul(x, hidden.kernel.value) + hidden.bias.value), last.kernel.value)
        out += last.bias.value
        if shift_only:
            return out, None
        shift, raw = out[:, : out.shape[1] // 2], out[:, out.shape[1] // 2 :]
        return shift, bound * tf.tanh(raw / bound)

    return shift_and_log_scale


@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize("name", ["real_nvp", "nice"])
def test_couplings(name, dim):
    head = make(name, dim=dim)
    head_half, tail_half = dim // 2, dim - dim // 2
    layers = [
        tfb.RealNVP(
            num_masked=head_half if layer % 2 == 0 else -tail_half,
            shift_and_log_scale_fn=network(net, head.scale_bound, shift_only=name == "nice"),
        )
        for layer, net in enumerate(head.conditioners)
    ]
    if name == "nice":
        layers.append(tfb.ScaleMatvecDiag(np.exp(0.5 * np.tanh(head.raw_scale.numpy() / 0.5))))
    compare(head, tfb.Chain(layers[::-1]))


@pytest.mark.parametrize("depth", [2, 3])
def test_glow(depth):
    d = 5
    head = make("glow", dim=d, depth=depth)
    reverse = np.arange(d)[::-1].copy()
    layers = []

    def bounded(raw):
        return 0.5 * np.tanh(raw.numpy() / 0.5)

    for i in range(depth):
        lower = np.tril(head.lower[i].numpy(), -1) + np.eye(d)
        upper = np.triu(head.upper[i].numpy(), 1) + np.diag(np.exp(bounded(head.upper_scale[i])))
        layers += [
            tfb.Shift(tf.constant(head.norm_shift[i].numpy())),
            tfb.ScaleMatvecDiag(tf.constant(np.exp(bounded(head.norm_scale[i])))),
            # TFP keeps L and U in one matrix and permutes the rows of their product.
            tfb.ScaleMatvecLU(tf.constant(upper + np.tril(lower, -1)), permutation=reverse),
            tfb.RealNVP(num_masked=d // 2, shift_and_log_scale_fn=network(head.conditioners[i], 0.5)),
        ]
    if depth % 2:
        layers.append(tfb.Permute(reverse))
    compare(head, tfb.Chain(layers[::-1]))


def dynamics(head):
    """The field and the trace of its Jacobian, written out in numpy."""
    weights = {name: value.numpy() for name, value in head.field.parameters().items()}

    def rates(t, z):
        active = np.tanh(z @ weights["inner"] + t * weights["time_weight"] + weights["inner_bias"])
        matrix = np.einsum("ik,bk,kj->bij", weights["inner"], 1 - active**2, weights["outer"])
        return active @ weights["outer"] + weights["outer_bias"], np.trace(matrix, axis1=1, axis2=2)

    return rates


@pytest.mark.parametrize("name", ["ffjord", "ffjord_adaptive"])
def test_ffjord_against_scipy_at_tight_tolerance(name):
    head = make(name)
    z = head.project(features())
    rates = dynamics(head)

    def flat(t, state):
        velocity, trace = rates(t, state[: z.shape[0] * z.shape[1]].reshape(z.shape))
        return np.concatenate([velocity.ravel(), trace])

    start = np.concatenate([z.numpy().ravel(), np.zeros(len(z))])
    end = integrate.solve_ivp(flat, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    y, (log_det,) = head.flow(z)
    np.testing.assert_allclose(
        y, end[: y.shape[0] * y.shape[1]].reshape(y.shape), atol=1e-7 if name == "ffjord" else 1e-9
    )
    np.testing.assert_allclose(log_det[:, 0], end[-len(z) :], atol=1e-7 if name == "ffjord" else 1e-9)


def test_ffjord_against_tfp():
    head = make("ffjord_adaptive")
    weights = head.field.parameters()

    def velocity(t, z):
        h = tf.matmul(z, weights["inner"]) + t * weights["time_weight"] + weights["inner_bias"]
        return tf.matmul(tf.tanh(h), weights["outer"]) + weights["outer_bias"]

    # TFP reads its result off an interpolation within its last step, hence the wider comparison.
    oracle = tfb.FFJORD(
        velocity,
        ode_solve_fn=tfp_math.ode.DormandPrince(rtol=1e-8, atol=1e-8).solve,
        trace_augmentation_fn=tfb.ffjord.trace_jacobian_exact,
        dtype=tf.float64,
    )
    compare(head, oracle, atol=3e-6)
