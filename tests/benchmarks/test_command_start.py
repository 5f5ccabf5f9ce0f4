"""What is timed runs to its end, and the table divides in the right direction."""

import pytest

from benchmarks import command_start
from benchmarks.side_by_side import Speeds


def test_a_command_that_fails_is_not_timed():
    with pytest.raises(ValueError, match=r"ended with 3: \['no such thing'\]"):
        command_start.start(["-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"])()


def test_the_table_shows_seconds_and_how_many_times_as_long():
    shown = command_start.seconds_table([Speeds(command_start.EMPTY, (50.0, 25.0)), Speeds("multimodal --help", (25.0, 5.0))])
    columns = [list(column.cells) for column in shown.columns]
    assert columns[1] == ["0.03", "0.07"]
    assert columns[3] == ["", f"3.50x {command_start.EMPTY}"] and columns[4] == ["", "2.00 to 5.00"]


def test_the_script_runs_the_commands():
    shown = []
    command_start.main(["--rounds", "1", "--only", command_start.EMPTY, "multimodal --version", "multimodal --help"], shown.append)
    assert shown[0].row_count == 3


def test_the_config_that_is_read_is_there():
    assert command_start.CONFIG.is_file()
