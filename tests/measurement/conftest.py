import pytest
from measured_problems import problem, trained


@pytest.fixture(scope="module")
def made():
    return problem()


@pytest.fixture(scope="module")
def run(made):
    return trained(made)
