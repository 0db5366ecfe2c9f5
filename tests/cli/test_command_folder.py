"""The folder of a command. Oracle: the sentence that stands in the manual, and the folder before and after."""

from pathlib import Path

import pytest

from gengap.cli.folder import default_folder, keeping, store_there
from gengap.core.errors import BadInput, Interrupted


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyboardInterrupt(), "interrupted; finished runs are kept in out, go on with --resume"),
        (
            Interrupted("interrupted at step 3"),
            "interrupted at step 3; finished runs are kept in out, go on with --resume",
        ),
    ],
)
def test_ctrl_c_says_what_it_left(raised, said):
    with pytest.raises(Interrupted) as caught, keeping(Path("out")):
        raise raised
    assert str(caught.value) == said


def test_other_errors_pass():
    with pytest.raises(BadInput, match="lr is 0"), keeping(Path("out")):
        raise BadInput("lr is 0")


def test_a_name_becomes_one_folder():
    assert default_folder("tune", "a/b on c:d") == Path("results/tune-a-b-c-d")


def test_where_there_is_no_store_none_is_made(tmp_path):
    with store_there(tmp_path / "none") as store:
        assert store is None
    assert list(tmp_path.iterdir()) == []
