"""No fault is found where there is none. Oracle: each loop divides summed losses by the samples of its update."""

import pytest
import sound_forms as forms

from gengap.diagnosis.doctor import doctor

FORMS = {
    "looks one batch ahead": (forms.looking_ahead, forms.make_model, forms.Augmented),
    "cuts the batch": (forms.in_chunks, forms.make_model, forms.make_data),
    "two optimizers": (forms.averaging, forms.make_model, forms.make_data),
    "one cycle": (forms.one_cycle, forms.make_model, forms.make_data),
    "checkpointing": (forms.one_cycle, forms.make_checkpointed, forms.make_data),
    "ghost batch norm": (forms.looking_ahead, forms.make_ghost_model, forms.make_data),
    "more weights than are kept": (forms.looking_ahead, forms.make_large_model, forms.make_data),
}
GRADIENTS = {"loss reduction", "accumulation", "last window", "cleared gradients", "training mode"}


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_loop_has_no_faults(form):
    train, model, data = FORMS[form]
    found = doctor(train, model=model, data=data, processes=1)
    assert found.healthy, str(found)
    assert {one.name for one in found.findings if one.state == "ok"} >= GRADIENTS, str(found)


def test_the_span_of_ghost_batch_norm_is_that_of_its_ghosts():
    found = doctor(forms.looking_ahead, model=forms.make_ghost_model, data=forms.make_data, processes=1, norm_batch=16)
    (finding,) = found.faults
    assert finding.name == "batch-norm span"
    assert finding.difference == 2  # the ghosts of the model, however many samples a pass has
