"""Loops of three public styles, sound and with one fault each. Oracle: the fault that was planted (planted.py)."""

import pytest
from planted import ONE_PROCESS, RULES, loop

from gengap.diagnosis.doctor import doctor


def diagnosed(style, fault, **how):
    it = loop(style, fault)
    return doctor(it.train, model=it.model, data=it.data, processes=1, lr_rule=RULES[style], **how)


@pytest.mark.parametrize(("style", "fault"), ONE_PROCESS, ids=str)
def test_a_planted_fault_is_found_and_nothing_else(style, fault):
    found = diagnosed(style, fault)
    assert {finding.name for finding in found.faults} == ONE_PROCESS[style, fault]
    assert all(finding.fix and finding.compared and finding.difference for finding in found.faults)


@pytest.mark.parametrize(("style", "unchecked"), [("imagenet", 6), ("nanogpt", 11), ("accelerate", 7)])
def test_a_sound_loop_has_no_faults(style, unchecked):
    found = diagnosed(style, None, norm_batch=16)
    assert found.healthy, found
    assert sum(finding.state == "not checked" for finding in found.findings) == unchecked, found


def test_few_samples_under_batch_norm_are_a_fault():
    (finding,) = diagnosed("imagenet", None, norm_batch=8).faults
    assert finding.name == "batch-norm span"
    assert finding.difference == 8
    assert "momentum 0.1 is 0.271 per update" in finding.compared  # 1 - 0.9^3
