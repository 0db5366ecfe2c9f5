# Oracles: gradients with known mean and covariance; the same steps without an interruption.
import copy
import io
import json

import pytest
import torch
from monitor_networks import ALWAYS, Drawn, observe

from gengap.measures.noise.monitor import NoiseScaleMonitor


def test_a_reading_says_what_is_missing():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    assert (monitor.reading().simple, monitor.reading().B_big) == (None, None)
    observe(monitor, model, 6)
    early = monitor.reading()
    assert (early.simple, early.trace_covariance, early.observations) == (None, None, 3)
    assert str(early).startswith("noise scale not resolvable: 3 observations, of which at least 8 are needed; 3 observ")
    observe(monitor, model, 40)
    late = monitor.reading()
    assert late.reason == ""
    assert (late.steps, late.samples, late.B_small, late.B_big) == (46, 46 * 16, 8.0, 16.0)
    assert late.simple.value == pytest.approx(late.trace_covariance.value / late.squared_gradient_norm.value)
    assert str(late).startswith(f"noise scale {late.simple.value:.3g} samples (95 %: ")


def test_no_noise_scale_but_a_lower_limit_where_the_gradient_is_all_noise():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    observe(monitor, model, 100, mean=0.0)
    reading = monitor.reading()
    assert reading.simple is None
    assert reading.at_least > 50
    assert "not told from zero" in reading.reason
    assert f"at least {reading.at_least:.3g} samples" in str(reading)
    assert reading.trace_covariance.value == pytest.approx(32, rel=0.1)


def test_no_noise_no_noise_scale():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    for _ in range(20):
        monitor.backward(model(torch.ones(4, 32, dtype=torch.float64)))
        model.zero_grad()
    reading = monitor.reading()
    assert reading.squared_gradient_norm.value == pytest.approx(32)
    assert reading.simple is None or reading.simple.value == pytest.approx(0, abs=1e-9)


def test_the_record_is_json():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    assert json.loads(json.dumps(monitor.reading().to_dict(), allow_nan=False))["simple"] is None
    observe(monitor, model, 40)
    told = json.loads(json.dumps(monitor.reading().to_dict(), allow_nan=False))
    assert told["simple"]["interval"][0] < told["simple"]["value"] < told["simple"]["interval"][1]
    assert told["observations"] == 37


def test_a_state_survives_a_checkpoint():
    model = Drawn()
    never_stopped = NoiseScaleMonitor(model, **ALWAYS, beta=0.9)
    for seed in (0, 1):
        observe(never_stopped, model, 20, seed=seed)
    stopped = NoiseScaleMonitor(model, **ALWAYS, beta=0.9)
    observe(stopped, model, 20, seed=0)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    stopped.close()
    file.seek(0)
    resumed = NoiseScaleMonitor(model, **ALWAYS, beta=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.history == stopped.history
    observe(resumed, model, 20, seed=1)
    assert resumed.history == never_stopped.history
    assert resumed.reading().simple == never_stopped.reading().simple
    assert (resumed.steps, resumed.samples) == (40, 640)


def test_a_model_can_be_copied_while_it_is_observed():
    model = Drawn()
    monitor = NoiseScaleMonitor(model, **ALWAYS)
    observe(monitor, model, 5)
    twin = copy.deepcopy(model)
    twin(torch.ones(2, 32, dtype=torch.float64)).sum().backward()
    observe(monitor, model, 1)
    assert monitor.reading().dropped == 0
